"""Discrepancies that are distances of mean embeddings: the maximum mean discrepancy and the energy distance."""

from discrepancy.kernel_methods.energy import EnergyDistance
from discrepancy.kernel_methods.mmd import MMD

__all__ = ["MMD", "EnergyDistance"]
