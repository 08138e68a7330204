"""Optimal transport between samples."""

from discrepancy.transport.sliced import SlicedEstimate, SlicedWasserstein
from discrepancy.transport.sliced_controls import BothBounds, ControlVariate, CustomControl, LowerBound, UpperBound
from discrepancy.transport.wasserstein import Wasserstein

__all__ = [
    "BothBounds",
    "ControlVariate",
    "CustomControl",
    "LowerBound",
    "SlicedEstimate",
    "SlicedWasserstein",
    "UpperBound",
    "Wasserstein",
]
