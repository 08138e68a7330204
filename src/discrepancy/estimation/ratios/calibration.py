"""Is a density ratio what it says? Its normalisations, and the labels that it predicts against those that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Result

_BINS = 10


@dataclass(frozen=True, repr=False)
class CalibrationReport(Result):
    """How held-out log-ratios u = log p/q agree with the samples; every number is 1, or 0 for the error, at the truth.

    `mean_ratio` = E_Q[r] and `mean_inverse` = E_P[1/r]. With both samples weighing one half, sigmoid(u) is the probability that a
    point is from P: `slope` and `intercept` (0 at the truth) are those of the labels' logistic regression on u (a slope below 1:
    the ratio is too extreme; inf: the samples are separable by u), `error` the mean distance of predicted from observed shares
    over ten bins of equal weight, `predicted` and `observed` (10,) those shares.
    """

    mean_ratio: float
    mean_inverse: float
    slope: float
    intercept: float
    error: float
    predicted: Tensor
    observed: Tensor

    @staticmethod
    def of(at_p: Tensor, at_q: Tensor) -> CalibrationReport:
        """The report on log-ratios at held-out points of P (n,) and Q (m,)."""
        at_p, at_q = at_p.double(), at_q.double()
        intercept, slope = logistic_line(at_p, at_q)
        predicted, observed, weight = _bins(at_p, at_q)
        return CalibrationReport(
            float(at_q.exp().mean()),
            float((-at_p).exp().mean()),
            slope,
            intercept,
            float((weight * (predicted - observed).abs()).sum()),
            predicted,
            observed,
        )


def logistic_line(at_p: Tensor, at_q: Tensor) -> tuple[float, float]:
    """a, b of the balanced logistic regression of the labels on u: minimises E_P softplus(-(a + b u)) + E_Q softplus(a + b u).

    (0, inf) where the samples are separable, (a, 0) with a = 0 where u is constant. Newton's method with halved steps.
    """
    u = torch.cat([at_p, at_q])
    if float(at_p.min()) > float(at_q.max()) or float(at_q.min()) > float(at_p.max()):
        return 0.0, math.inf if float(at_p.min()) > float(at_q.max()) else -math.inf
    centre, scale = float(u.mean()), float(u.std(correction=0))
    if scale == 0:
        return 0.0, 0.0
    v = (u - centre) / scale
    design = torch.stack([torch.ones_like(v), v], 1)
    sign = torch.cat([torch.ones_like(at_p), -torch.ones_like(at_q)])
    weight = torch.cat([torch.full_like(at_p, 0.5 / len(at_p)), torch.full_like(at_q, 0.5 / len(at_q))])
    beta = v.new_tensor([0.0, scale])

    def loss(b: Tensor) -> float:
        return float((weight * torch.nn.functional.softplus(-sign * (design @ b))).sum())

    value = loss(beta)
    for _ in range(100):
        p = torch.sigmoid(-sign * (design @ beta))
        slope = -(design.T @ (weight * sign * p))
        curve = (design * (weight * p * (1 - p))[:, None]).T @ design
        # The curvature vanishes where all labels are certain: the step is then one of the gradient.
        step = torch.linalg.solve(curve + 1e-10 * torch.eye(2, dtype=u.dtype, device=u.device), slope)
        size = 1.0
        while (trial := loss(beta - size * step)) > value and size > 1e-10:
            size /= 2
        gain, beta, value = value - trial, beta - size * step, min(trial, value)
        if gain < 1e-14:
            break
    b = float(beta[1]) / scale
    return float(beta[0]) - b * centre, b


def recalibrated(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
    """a + b u of both, or u itself where no finite line exists."""
    a, b = logistic_line(at_p, at_q)
    if not math.isfinite(b):
        return at_p, at_q
    return a + b * at_p, a + b * at_q


def _bins(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and observed shares of P, and the weight, of ten bins of about equal weight; equal values share a bin."""
    u = torch.cat([at_p, at_q])
    label = torch.cat([torch.ones_like(at_p), torch.zeros_like(at_q)])
    weight = torch.cat([torch.full_like(at_p, 0.5 / len(at_p)), torch.full_like(at_q, 0.5 / len(at_q))])
    distinct, place = torch.unique(u, return_inverse=True)
    mass = u.new_zeros(len(distinct)).index_add_(0, place, weight)
    middle = mass.cumsum(0) - mass / 2
    own = (middle * _BINS).long().clamp(0, _BINS - 1)[place]
    total, hits, chance = (
        u.new_zeros(_BINS).index_add_(0, own, values) for values in (weight, weight * label, weight * torch.sigmoid(u))
    )
    some = total > 0
    share = torch.where(some, total, torch.ones_like(total))
    return chance / share, hits / share, total


__all__ = ["CalibrationReport", "logistic_line", "recalibrated"]
