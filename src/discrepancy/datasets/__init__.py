"""Finds data that ordinary packages carry; never downloads, never imports the package that carries it."""

from discrepancy.datasets.carriers import DataSet, MissingCarrier, catalogue, path, requirements
from discrepancy.datasets.loaders import digits, table

__all__ = ["DataSet", "MissingCarrier", "catalogue", "digits", "path", "requirements", "table"]
