"""Frechet means and variances, as functions of a sample and a space."""

from __future__ import annotations

from typing import Any

import torch

from discrepancy._results import Estimate
from discrepancy._validate import fraction
from discrepancy._validate import weights as probability_weights
from discrepancy.metric_spaces.space import FrechetMean, MetricSpace, weights_like


def check_space(space: Any) -> MetricSpace:
    """The space, or TypeError."""
    if not isinstance(space, MetricSpace):
        raise TypeError(f"space must be a MetricSpace such as QuantileSpace() or CovarianceSpace(), got {type(space).__name__}")
    return space


def frechet_mean(Y: Any, space: MetricSpace, weights: Any = None) -> FrechetMean:
    """The point of `space` that minimises sum_i w_i d^2(Y_i, .), with the variance that it leaves.

    Y (n, *P) a sample, weights (n,) or (..., n), summing to one, of either sign; equal where omitted. See the space for cost and
    uniqueness. Source: Frechet (1948).
    """
    return check_space(space).frechet_mean(Y, weights)


def frechet_variance(Y: Any, space: MetricSpace, weights: Any = None, *, level: float = 0.95) -> Estimate:
    """The Frechet variance V = min over o of sum_i w_i d^2(Y_i, o), with the standard error of its central limit theorem.

    Estimates the variance of the law that Y (n, *P) was drawn from, with a bias of order 1/n downward (the mean is fitted
    too). The error is sqrt(sum_i w_i^2 (d_i^2 - V)^2), for equal weights the deviation of the squared distances over sqrt(n):
    the fitted mean adds nothing at this order. The interval is that of log V, [V / q, V q] with q = exp(z error / V). weights
    (n,) >= 0, fixed or drawn with the points. In squared units of the distance. No interval for a single point.
    Differentiable in Y and the weights (envelope theorem). Source: Dubey and Mueller (2019).
    """
    sample = check_space(space).sample(Y)
    fraction(level, "level")
    w = probability_weights(weights, sample.shape[:1], "weights", like=weights_like(sample))
    found = space._mean(sample, w)
    found.outcome.warn("frechet_variance")
    squares = space.to_center(sample, found.point.detach())
    V = (w * squares).sum()
    name = f"Frechet variance in {space!r}"
    if sample.shape[0] == 1:
        return Estimate(V, None, method=name, note="one point says nothing about the spread of others")
    error = (w * (squares - V)).detach().square().sum().sqrt()
    z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    at = V.detach()
    # On the logarithm the estimate is less skewed, and the interval stays positive; no spread at all leaves a point.
    factor = torch.exp(z * error / torch.where(at > 0, at, torch.ones_like(at)))
    note = "the mean is a medoid" if space.approximate else None
    return Estimate(V, error, at / factor, at * factor, level, name, note)


__all__ = ["check_space", "frechet_mean", "frechet_variance"]
