"""f-divergences from log-ratios at samples: which term is averaged, over sequences or tokens, and surrogates for gradients."""

from discrepancy.divergences.estimators.evaluation import estimate_from_p, estimate_from_q
from discrepancy.divergences.estimators.sequences import sequence_estimate, token_estimate
from discrepancy.divergences.estimators.surrogate import surrogate_from_p, surrogate_from_q
from discrepancy.divergences.estimators.terms import Centred, FittedLinear, Linear, Plain, RatioEstimator, Squared

__all__ = [
    "Centred",
    "FittedLinear",
    "Linear",
    "Plain",
    "RatioEstimator",
    "Squared",
    "estimate_from_p",
    "estimate_from_q",
    "sequence_estimate",
    "surrogate_from_p",
    "surrogate_from_q",
    "token_estimate",
]
