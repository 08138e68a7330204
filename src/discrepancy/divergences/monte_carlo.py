"""E_Q f(p/q) from log-ratios at samples of Q, with its standard error."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch

from discrepancy._results import Estimate, NumericalError
from discrepancy._validate import as_tensor, fraction
from discrepancy._validate import weights as checked_weights

if TYPE_CHECKING:
    from discrepancy.divergences.f_divergence import FDivergence

_DOMINANT = 0.25  # a single sample that carries more than this share of the spread makes its standard error worthless


def monte_carlo(f: FDivergence, log_r: Any, weights: Any, linear: float, level: float) -> Estimate:
    """The weighted mean of f(t) + linear (t - 1) at t = e^log_r over the last dimension; see `FDivergence.from_log_ratio`."""
    log_r = as_tensor(log_r, "log_r")
    if log_r.ndim == 0 or log_r.shape[-1] == 0:
        raise ValueError(f"log_r must hold samples along its last dimension, got shape {tuple(log_r.shape)}")
    if bool(torch.isnan(log_r.detach()).any()):
        raise ValueError(f"log_r has {int(torch.isnan(log_r.detach()).sum())} NaN of {log_r.numel()} values")
    if not math.isfinite(linear):
        raise ValueError(f"linear must be finite, got {linear!r}")
    level = fraction(level, "level")
    # A ratio of sequences reaches e^200, beyond float32; the mean of what fits is then given in the input's dtype.
    u = log_r.double()
    w = checked_weights(weights, log_r.shape, "weights", like=log_r).double()
    w = w / w.sum(-1, keepdim=True)
    terms = f._with_linear(u, float(linear))
    if bool(torch.isnan(terms.detach()).any()):
        raise NumericalError(
            f"f(t) and {linear:g} (t - 1) are infinite with opposite signs at a log-ratio of {float(u.detach().max()):.4g}: "
            "use another `linear`"
        )
    value = torch.where(w > 0, w * terms, torch.zeros_like(terms)).sum(-1)
    n = log_r.shape[-1]
    with torch.no_grad():
        parts = torch.where(w > 0, (w * (terms - value.unsqueeze(-1))) ** 2, torch.zeros_like(terms))
        spread = parts.sum(-1)
        effective = 1 / (w * w).sum(-1)
        computable = bool(torch.isfinite(spread).all()) and bool((effective > 1 + 1e-9).all())
        heavy = bool((parts.amax(-1) > _DOMINANT * spread).any()) if computable else False
    result = value.to(log_r.dtype)
    if not computable:
        why = "a single effective sample has no spread" if torch.isfinite(spread).all() else "the value is infinite"
        return Estimate(result, method=f"Monte Carlo of {f!r}, n = {n}", note=f"no standard error: {why}")
    error = torch.sqrt(spread * effective / (effective - 1))
    half = NormalDist().inv_cdf(0.5 + level / 2) * error
    note = None
    if heavy and n > 1 / _DOMINANT:
        note = f"one sample carries more than {_DOMINANT:.0%} of the spread: the standard error is a lower bound"
    return Estimate(
        result,
        error.to(log_r.dtype),
        (value.detach() - half).to(log_r.dtype),
        (value.detach() + half).to(log_r.dtype),
        level,
        method=f"Monte Carlo of {f!r}, n = {n}" + (f", linear = {linear:g}" if linear else ""),
        note=note,
    )


__all__ = ["monte_carlo"]
