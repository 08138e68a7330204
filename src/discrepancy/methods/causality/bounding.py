"""What a propensity says about the interventional law: the radius of a divergence ball, Manski's interval, and how intervals of
several divergences are combined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor
from discrepancy.divergences import FDivergence
from discrepancy.divergences.admission import Admission
from discrepancy.divergences.robust import FINITE_AT_ZERO

ADMITS = Admission("causal_bounds", (FDivergence,), (FINITE_AT_ZERO,), ("KL()", "JensenShannon()", "ChiSquared()"))


def divergence_radius(e: Any, divergence: FDivergence) -> Tensor:
    """B_f(e) = e f(1/e) + (1 - e) f(0): how far the law of Y under do(a) can be from that of Y given a, at propensity e.

    With P = P(Y | A=a, X=x), the given law, and Q = P(Y | do(a), X=x), the searched one, Q = e P + (1 - e) P(Y(a) | A != a, x),
    whatever is unmeasured; hence dP/dQ <= 1/e and D_f(P || Q) <= B_f(e), which is attained where the two parts are singular. For
    KL -log e, for total variation 1 - e, for Pearson's chi-squared (1 - e)/e (the paper's is half of that).
    e: propensities in (0, 1], any shape; differentiable. Raises TypeError for f(0) = inf, ValueError for e outside (0, 1].
    Source: Jung and Kang (2026).
    """
    ADMITS.check(divergence)
    e = as_tensor(e, "e")
    if not bool(((e.detach() > 0) & (e.detach() <= 1)).all()):
        raise ValueError(f"propensities must lie in (0, 1], got a range of [{float(e.min()):.4g}, {float(e.max()):.4g}]")
    return divergence.reversed().generator(e) + (1 - e) * divergence.at_zero


def radius_slope(e: Tensor, divergence: FDivergence) -> Tensor:
    """B_f'(e) = g'(e) - f(0), with the reversed generator g: never positive, and what an error of the propensity costs."""
    return divergence.reversed().derivative(e) - divergence.at_zero


def manski_bounds(mean: Any, e: Any, low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """[e mean + (1 - e) low, e mean + (1 - e) high] for E[phi(Y) | do(a)], where `mean` = E[phi(Y) | A=a] and phi lies in [low,
    high].

    Sharp: nothing narrower holds without assumptions. Every divergence ball that `divergence_radius` allows contains it, and the
    ball of the hockey-stick divergence f(t) = max(t - 1/e, 0) is it. Source: Manski (1990).
    """
    mean, e = as_tensor(mean, "mean"), as_tensor(e, "e")
    return e * mean + (1 - e) * low, e * mean + (1 - e) * high


def aggregate_bounds(lower: Tensor, upper: Tensor, order: int | None = None) -> tuple[Tensor, Tensor]:
    """The k-th largest lower and the k-th smallest upper bound over the first dimension (K, ...), for the first k with lower <=
    upper.

    k = 1 is the intersection; noise may empty it, then k rises, point by point. `order` fixes k instead. Where even the widest
    are the wrong way round they are exchanged. Raises ValueError for an order outside [1, K].
    """
    count = lower.shape[0]
    if order is not None and not 1 <= order <= count:
        raise ValueError(f"order must lie between 1 and the number of divergences {count}, got {order!r}")
    lows, highs = lower.sort(0, descending=True).values, upper.sort(0).values
    if order is not None:
        low, high = lows[order - 1], highs[order - 1]
    else:
        ordered = lows <= highs
        ordered[-1] = True
        first = ordered.to(torch.uint8).argmax(0, keepdim=True)
        low, high = lows.gather(0, first)[0], highs.gather(0, first)[0]
    return torch.minimum(low, high), torch.maximum(low, high)


__all__ = ["ADMITS", "aggregate_bounds", "divergence_radius", "manski_bounds", "radius_slope"]
