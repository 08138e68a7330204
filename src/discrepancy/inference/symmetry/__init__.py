"""Comparing laws that are known to be symmetric: invariant discrepancies, a test of the symmetry, and what it gains."""

from discrepancy.inference.symmetry.gain import SymmetryGain, kernel_gain, symmetry_gain
from discrepancy.inference.symmetry.invariance import invariance_test
from discrepancy.inference.symmetry.invariant import Invariant

__all__ = ["Invariant", "SymmetryGain", "invariance_test", "kernel_gain", "symmetry_gain"]
