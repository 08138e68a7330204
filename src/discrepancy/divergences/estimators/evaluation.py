"""Means of the terms, with standard errors, from samples of either law."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import as_tensor, fraction
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences.cone import require_f_divergence
from discrepancy.divergences.estimators.terms import Centred, RatioEstimator
from discrepancy.divergences.f_divergence import FDivergence


def estimate_from_q(
    f: FDivergence, log_r: Any, estimator: RatioEstimator | None = None, *, weights: Any = None, level: float = 0.95
) -> Estimate:
    """D_f(P || Q) from log_r (..., n) = log p/q at samples of Q; `estimator` is Centred() where omitted.

    `weights` (..., n): importance weights that sum to one. Computed in float64. The value is differentiable in log_r, but its
    gradient is not the divergence's: Q depends on the parameters too, see `surrogate_from_q`.
    Raises ValueError for NaN or no samples, TypeError for a divergence that the estimator does not fit.
    """
    require_f_divergence(f)
    u = log_ratios(log_r)
    return mean_of_terms(f, u, estimator or Centred(), weights, level, "Q", as_tensor(log_r, "log_r").dtype)


def estimate_from_p(
    f: FDivergence, log_r: Any, estimator: RatioEstimator | None = None, *, weights: Any = None, level: float = 0.95
) -> Estimate:
    """D_f(P || Q) from log_r (..., n) = log p/q at samples of P: D_f(P || Q) is the reversed divergence of Q from P.

    Here the samples do not depend on Q: the gradient of the value in log q is the divergence's, unbiased for estimators without
    fitted coefficients and without bias. Otherwise as `estimate_from_q`.
    """
    require_f_divergence(f)
    u = log_ratios(log_r)
    return mean_of_terms(f.reversed(), -u, estimator or Centred(), weights, level, "P", as_tensor(log_r, "log_r").dtype)


def log_ratios(log_r: Any) -> Tensor:
    """Log-ratios (..., n) in float64: a ratio of sequences reaches e^200. Raises ValueError for NaN or no samples."""
    u = as_tensor(log_r, "log_r")
    if u.ndim == 0 or u.shape[-1] == 0:
        raise ValueError(f"log_r must hold samples along its last dimension, got shape {tuple(u.shape)}")
    missing = int(torch.isnan(u.detach()).sum())
    if missing:
        raise ValueError(f"log_r has {missing} NaN of {u.numel()} values")
    return u.double()


def mean_of_terms(
    f: FDivergence, u: Tensor, estimator: RatioEstimator, weights: Any, level: float, law: str, dtype: torch.dtype
) -> Estimate:
    """The weighted mean of the estimator's terms and its standard error."""
    if not isinstance(estimator, RatioEstimator):
        raise TypeError(f"estimator must be a RatioEstimator such as Centred(), got {estimator!r}")
    w = checked_weights(weights, u.shape, "weights", like=u)
    return summary(
        estimator.terms(f, u, w), w, estimator, fraction(level, "level"), f"{estimator!r} of {f!r} at samples of {law}", dtype
    )


def summary(terms: Tensor, w: Tensor, estimator: RatioEstimator, level: float, name: str, dtype: torch.dtype) -> Estimate:
    """The weighted mean of terms (..., n) as an Estimate; the error takes off a degree of freedom a fitted coefficient."""
    counted = w > 0
    value = torch.where(counted, w * terms, torch.zeros_like(terms)).sum(-1)
    n = terms.shape[-1]
    name = f"{name}, n = {n}"
    note = "biased by the third order of the log-ratios" if type(estimator).__name__ == "Squared" else None
    note = "biased by the order of 1/n" if estimator.fitted else note
    with torch.no_grad():
        parts = torch.where(counted, (w * (terms - value.unsqueeze(-1))) ** 2, torch.zeros_like(terms)).sum(-1)
        effective = 1 / (w * w).sum(-1)
        free = effective - 1 - estimator.fitted
        if not bool(torch.isfinite(parts).all()) or not bool((free > 1e-9).all()):
            why = "too few effective samples" if bool(torch.isfinite(parts).all()) else "the value is infinite"
            return Estimate(value.to(dtype), method=name, note=f"no standard error: {why}")
        error = torch.sqrt(parts * effective / free)
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        low, high = (value - half).to(dtype), (value + half).to(dtype)
    return Estimate(value.to(dtype), error.to(dtype), low, high, level, method=name, note=note)


__all__ = ["estimate_from_p", "estimate_from_q", "log_ratios", "mean_of_terms", "summary"]
