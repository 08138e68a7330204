"""Divergences from samples, with their uncertainty."""

from discrepancy.estimation.estimate import Method, estimate
from discrepancy.estimation.nearest import NearestNeighbors
from discrepancy.estimation.reference import GaussianReference

__all__ = ["GaussianReference", "Method", "NearestNeighbors", "estimate"]
