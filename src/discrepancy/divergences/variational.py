"""Variational bounds: a divergence from below by the means of one function, the critic, under the two laws.

D_f(P || Q) >= E_P[T] - E_Q[f*(T)] for every critic T, with equality at T = f'(p/q). The functions here take the critic's values
at samples and know nothing of how it is trained.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import as_tensor, fraction
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences.f_divergence import FDivergence


def optimal_critic(f: FDivergence, log_ratio: Any) -> Tensor:
    """f'(p/q) from log p/q: the critic at which the bound is the divergence (for KL up to a constant: log p/q)."""
    _require(f)
    return f.derivative(log_t=log_ratio)


def variational_bound(f: FDivergence, values_p: Any, values_q: Any, weights_p: Any = None, weights_q: Any = None) -> Tensor:
    """E_P[T] - E_Q[f*(T)] from the critic's values at samples of P (..., n) and Q (..., m), a lower bound of D_f(P || Q).

    Unbiased for the bound of this critic, differentiable in the values and in the weights (sum one; equal where omitted), of
    the batch shape. A critic of more than f'(inf) somewhere in Q makes it -inf, with no gradient through that value: map
    the outputs of a network below f'(inf). Raises ValueError for NaN and shapes that do not fit. Time O(n + m).
    Source: Nguyen, Wainwright and Jordan (2010).
    """
    _require(f)
    t_p, t_q, w_p, w_q = _values(values_p, values_q, weights_p, weights_q)
    return _mean(t_p, w_p) - _mean(f.conjugate(t_q), w_q)


def log_ratio_values(f: FDivergence, log_ratio_p: Any, log_ratio_q: Any) -> tuple[Tensor, Tensor]:
    """f'(t) at samples of P and f*(f'(t)) at samples of Q for a critic that gives log t: mean less mean is the bound.

    The second is -g'(1/t) with g(t) = t f(1/t), the reversed generator: no difference of large numbers, and finite for any finite
    log t where f'(0+) and f'(inf) are. At log t = log p/q the bound is the divergence. For Jensen-Shannon it is log 2 less the
    cross-entropy of the classifier whose logit is log t, for KL the bound of Nguyen, Wainwright and Jordan. Shapes are kept;
    differentiable. Raises TypeError for a generator without curvature, whose derivative has no gradient.
    """
    _require(f)
    f._require_smooth("bound in the logarithm of a ratio")
    u_p, u_q = as_tensor(log_ratio_p, "log_ratio_p"), as_tensor(log_ratio_q, "log_ratio_q")
    return f.derivative(log_t=u_p), -f.reversed().derivative(log_t=-u_q)


def variational_estimate(
    f: FDivergence, values_p: Any, values_q: Any, weights_p: Any = None, weights_q: Any = None, *, level: float = 0.95
) -> Estimate:
    """`variational_bound` with its standard error, that of two independent means."""
    _require(f)
    level = fraction(level, "level")
    t_p, t_q, w_p, w_q = _values(values_p, values_q, weights_p, weights_q)
    dual = f.conjugate(t_q)
    value = _mean(t_p, w_p) - _mean(dual, w_q)
    name = f"variational bound of {f!r}, n = {t_p.shape[-1]}, m = {t_q.shape[-1]}"
    with torch.no_grad():
        parts = [_squared_error(t_p, w_p), _squared_error(dual, w_q)]
    if any(part is None for part in parts) or not bool(torch.isfinite(value.detach()).all()):
        why = "a single effective sample has no spread" if None in parts else "the bound is infinite"
        return Estimate(value, method=name, note=f"no standard error: {why}")
    error = torch.sqrt(sum(part for part in parts if part is not None))  # type: ignore[arg-type]
    half, centre = NormalDist().inv_cdf(0.5 + level / 2) * error, value.detach()
    note = "covers the bound of this critic, which lies below the divergence"
    return Estimate(value, error, centre - half, centre + half, level, method=name, note=note)


def donsker_varadhan(values_p: Any, values_q: Any, weights_p: Any = None, weights_q: Any = None) -> Tensor:
    """E_P[T] - log E_Q[e^T], a lower bound of KL(P || Q) that no constant added to T changes; equality at T = log p/q + c.

    Values at samples of P (..., n) and Q (..., m), weights of sum one. Never below `variational_bound(KL(), ...)` of the same
    values. As an estimate it is biased upward by O(1/m), the logarithm of a mean. In the log domain: any size of T.
    Source: Donsker and Varadhan (1983).
    """
    t_p, t_q, w_p, w_q = _values(values_p, values_q, weights_p, weights_q)
    counted = w_q > 0
    log_w = torch.where(counted, torch.log(torch.where(counted, w_q, torch.ones_like(w_q))), torch.full_like(w_q, -torch.inf))
    return _mean(t_p, w_p) - torch.logsumexp(log_w + torch.where(counted, t_q, torch.zeros_like(t_q)), -1)


def _require(f: Any) -> None:
    if not isinstance(f, FDivergence):
        raise TypeError(f"a variational bound needs an FDivergence such as KL(), got {f!r}")


def _values(values_p: Any, values_q: Any, weights_p: Any, weights_q: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    checked = []
    for values, weights, name in ((values_p, weights_p, "p"), (values_q, weights_q, "q")):
        t = as_tensor(values, f"values_{name}")
        if t.ndim == 0 or t.shape[-1] == 0:
            raise ValueError(
                f"values_{name} must hold the critic at samples along its last dimension, got shape {tuple(t.shape)}"
            )
        bad = int(torch.isnan(t.detach()).sum())
        if bad:
            raise ValueError(f"values_{name} has {bad} NaN of {t.numel()} values")
        checked.append((t, checked_weights(weights, t.shape, f"weights_{name}", like=t)))
    (t_p, w_p), (t_q, w_q) = checked
    try:
        torch.broadcast_shapes(t_p.shape[:-1], t_q.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"values_p has batch shape {tuple(t_p.shape[:-1])} and values_q {tuple(t_q.shape[:-1])}: make them broadcast"
        ) from None
    return t_p, t_q, w_p, w_q


def _mean(t: Tensor, w: Tensor) -> Tensor:
    """The weighted mean; an infinite value counts, but carries no gradient."""
    counted = torch.where(w > 0, t, torch.zeros_like(t))
    infinite = torch.isinf(counted.detach())
    mean = (w * torch.where(infinite, torch.zeros_like(t), counted)).sum(-1)
    if bool(infinite.any()):
        mean = mean + torch.where(infinite, counted.detach(), torch.zeros_like(t)).sum(-1)
    return mean


def _squared_error(t: Tensor, w: Tensor) -> Tensor | None:
    effective = 1 / (w * w).sum(-1)
    if bool((effective <= 1 + 1e-9).any()) or not bool(torch.isfinite(torch.where(w > 0, t, torch.zeros_like(t))).all()):
        return None if bool((effective <= 1 + 1e-9).any()) else torch.full_like(effective, math.nan)
    centred = torch.where(w > 0, w * (t - _mean(t, w).unsqueeze(-1)), torch.zeros_like(t))
    return centred.square().sum(-1) * effective / (effective - 1)


__all__ = ["donsker_varadhan", "log_ratio_values", "optimal_critic", "variational_bound", "variational_estimate"]
