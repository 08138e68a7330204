"""Jumps at a cutoff, and differences between groups, of outcomes in metric spaces."""

from discrepancy.inference.metric_jumps.anova import FrechetAnovaResult, frechet_anova
from discrepancy.inference.metric_jumps.bandwidth import CrossValidated
from discrepancy.inference.metric_jumps.jump_test import FrechetJumpResult, VarianceError, frechet_jump_test
from discrepancy.inference.metric_jumps.regression import LocalFrechetFit, local_frechet_regression
from discrepancy.inference.metric_jumps.smoothing import Epanechnikov, Rectangular, Side, SmoothingKernel, Triangular

__all__ = [
    "CrossValidated",
    "Epanechnikov",
    "FrechetAnovaResult",
    "FrechetJumpResult",
    "LocalFrechetFit",
    "Rectangular",
    "Side",
    "SmoothingKernel",
    "Triangular",
    "VarianceError",
    "frechet_anova",
    "frechet_jump_test",
    "local_frechet_regression",
]
