"""Is the difference real, and how sure is the number: permutation tests, intervals, many comparisons at once.

Each name resolves on first use, so that the counting parts (`montecarlo`, `multiplicity`) load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS: dict[str, str] = {
    "benjamini_hochberg": "multiplicity",
    "holm": "multiplicity",
    "max_t": "multiplicity",
    "binomial_band": "montecarlo",
    "clopper_pearson": "montecarlo",
    "inverse_sampling_interval": "montecarlo",
    "monte_carlo_p": "montecarlo",
    "bootstrap": "interval",
    "independence_test": "independence",
    "PairwiseResult": "distance_matrix",
    "pairwise": "distance_matrix",
    "cochran_mantel_haenszel": "strata",
    "CommonOddsRatio": "strata",
    "stratified_permutation_test": "strata",
    "cluster_bootstrap": "strata",
    "equal_weights": "strata",
    "mantel_haenszel_weights": "strata",
    "FisherResult": "proportions",
    "fisher_exact": "proportions",
    "rate": "proportions",
    "rate_difference": "proportions",
    "rate_ratio": "proportions",
    "wilson": "proportions",
    "ArcsineTest": "sample_sizes",
    "ChiSquaredTest": "sample_sizes",
    "FisherTest": "sample_sizes",
    "SampleSize": "sample_sizes",
    "required_samples": "sample_sizes",
    "sign_flip_test": "sign_flips",
    "BesagClifford": "permutation",
    "permutation_test": "permutation",
    "FrechetJumpResult": "metric_jumps",
    "frechet_anova": "metric_jumps",
    "frechet_jump_test": "metric_jumps",
    "local_frechet_regression": "metric_jumps",
    "Invariant": "symmetry",
    "SymmetryGain": "symmetry",
    "invariance_test": "symmetry",
    "kernel_gain": "symmetry",
    "symmetry_gain": "symmetry",
    "adaptive_calibration_error": "calibration",
    "brier_score": "calibration",
    "expected_calibration_error": "calibration",
    "negative_log_likelihood": "calibration",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"discrepancy.inference.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'discrepancy.inference' has no attribute {name!r}")


if TYPE_CHECKING:
    from discrepancy.inference.calibration import adaptive_calibration_error as adaptive_calibration_error
    from discrepancy.inference.calibration import brier_score as brier_score
    from discrepancy.inference.calibration import expected_calibration_error as expected_calibration_error
    from discrepancy.inference.calibration import negative_log_likelihood as negative_log_likelihood
    from discrepancy.inference.distance_matrix import PairwiseResult as PairwiseResult
    from discrepancy.inference.distance_matrix import pairwise as pairwise
    from discrepancy.inference.independence import independence_test as independence_test
    from discrepancy.inference.interval import bootstrap as bootstrap
    from discrepancy.inference.metric_jumps import FrechetJumpResult as FrechetJumpResult
    from discrepancy.inference.metric_jumps import frechet_anova as frechet_anova
    from discrepancy.inference.metric_jumps import frechet_jump_test as frechet_jump_test
    from discrepancy.inference.metric_jumps import local_frechet_regression as local_frechet_regression
    from discrepancy.inference.montecarlo import binomial_band as binomial_band
    from discrepancy.inference.montecarlo import clopper_pearson as clopper_pearson
    from discrepancy.inference.montecarlo import inverse_sampling_interval as inverse_sampling_interval
    from discrepancy.inference.montecarlo import monte_carlo_p as monte_carlo_p
    from discrepancy.inference.multiplicity import benjamini_hochberg as benjamini_hochberg
    from discrepancy.inference.multiplicity import holm as holm
    from discrepancy.inference.multiplicity import max_t as max_t
    from discrepancy.inference.permutation import BesagClifford as BesagClifford
    from discrepancy.inference.permutation import permutation_test as permutation_test
    from discrepancy.inference.proportions import FisherResult as FisherResult
    from discrepancy.inference.proportions import fisher_exact as fisher_exact
    from discrepancy.inference.proportions import rate as rate
    from discrepancy.inference.proportions import rate_difference as rate_difference
    from discrepancy.inference.proportions import rate_ratio as rate_ratio
    from discrepancy.inference.proportions import wilson as wilson
    from discrepancy.inference.sample_sizes import ArcsineTest as ArcsineTest
    from discrepancy.inference.sample_sizes import ChiSquaredTest as ChiSquaredTest
    from discrepancy.inference.sample_sizes import FisherTest as FisherTest
    from discrepancy.inference.sample_sizes import SampleSize as SampleSize
    from discrepancy.inference.sample_sizes import required_samples as required_samples
    from discrepancy.inference.sign_flips import sign_flip_test as sign_flip_test
    from discrepancy.inference.strata import CommonOddsRatio as CommonOddsRatio
    from discrepancy.inference.strata import cluster_bootstrap as cluster_bootstrap
    from discrepancy.inference.strata import cochran_mantel_haenszel as cochran_mantel_haenszel
    from discrepancy.inference.strata import equal_weights as equal_weights
    from discrepancy.inference.strata import mantel_haenszel_weights as mantel_haenszel_weights
    from discrepancy.inference.strata import stratified_permutation_test as stratified_permutation_test
    from discrepancy.inference.symmetry import Invariant as Invariant
    from discrepancy.inference.symmetry import SymmetryGain as SymmetryGain
    from discrepancy.inference.symmetry import invariance_test as invariance_test
    from discrepancy.inference.symmetry import kernel_gain as kernel_gain
    from discrepancy.inference.symmetry import symmetry_gain as symmetry_gain
