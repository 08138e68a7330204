"""Finds data that ordinary packages carry; never downloads, never imports the package that carries it."""

from discrepancy.datasets.carriers import DataSet, MissingCarrier, catalogue, path, requirements
from discrepancy.datasets.fields import GriddedFields, air_temperature, winter_height
from discrepancy.datasets.iris import iris
from discrepancy.datasets.loaders import digits, table
from discrepancy.datasets.surfaces import cortex

__all__ = [
    "DataSet",
    "GriddedFields",
    "MissingCarrier",
    "air_temperature",
    "catalogue",
    "cortex",
    "digits",
    "iris",
    "path",
    "requirements",
    "table",
    "winter_height",
]
