"""Is there a jump at a known cutoff in the conditional mean or spread of points of a metric space?"""

from __future__ import annotations

import enum
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome, TestResult
from discrepancy._validate import positive, whole_number
from discrepancy.inference.metric_jumps.bandwidth import CrossValidated
from discrepancy.inference.metric_jumps.regression import paired_sample
from discrepancy.inference.metric_jumps.smoothing import (
    Epanechnikov,
    Side,
    SmoothingKernel,
    density_at,
    density_jump_p,
    local_linear_weights,
)
from discrepancy.metric_spaces import MetricSpace
from discrepancy.metric_spaces.space import weights_like


class VarianceError(enum.Enum):
    """How the error of the difference of local variances is estimated."""

    ASYMPTOTIC = "S_K (sigma_+^2 + sigma_-^2) / (n h f): the paper's, with the density f of X at the cutoff"
    DESIGN = "sum_i w_i^2 (d_i^2 - V)^2 m/(m - 2), m points a side: the limit of a multiplier bootstrap with the weights at hand"


@dataclass(frozen=True, repr=False, kw_only=True)
class FrechetJumpResult(TestResult):
    """The test of a jump: `statistic` T and its p-value, and what T consists of.

    T = `variance_component` + `mean_component`: a rejection alone does not say which jumped. `mean_left` and `mean_right`
    (*P) are the one-sided limits of the Frechet mean at the cutoff, `jump` the distance between them, `variance_left` and
    `variance_right` the variances about them. `bandwidth` is the one used throughout, `points_left` and `points_right` the points
    within it, `density` that of X at the cutoff, `density_jump_p` the p-value of no jump of that density. `outcome` is that of
    the Frechet means.
    """

    mean_left: Tensor
    mean_right: Tensor
    jump: float
    variance_left: float
    variance_right: float
    variance_component: float
    mean_component: float
    bandwidth: float
    points_left: int
    points_right: int
    density: float
    density_jump_p: float
    outcome: Outcome

    references = ("metric-space-jumps",)


def _check_sides(x: Tensor, cutoff: float, min_points: int) -> None:
    if not math.isfinite(cutoff):
        raise ValueError(f"cutoff must be a finite number, got {cutoff!r}")
    low, high = float(x.min()), float(x.max())
    if not low < cutoff <= high:
        raise ValueError(f"cutoff = {cutoff:.6g} is outside the range of X, ({low:.6g}, {high:.6g}]: one side has no points")
    left, right = int((x < cutoff).sum()), int((x >= cutoff).sum())
    if min(left, right) < min_points:
        raise ValueError(f"each side needs at least {min_points} points, got {left} left and {right} right of the cutoff")
    for name, side in (("left", x < cutoff), ("right", x >= cutoff)):
        if float(x[side].min()) == float(x[side].max()):
            raise ValueError(f"all X {name} of the cutoff are equal: no line fits, and the limit at the cutoff is not identified")


def frechet_jump_test(
    Y: Any,
    X: Any,
    cutoff: float,
    space: MetricSpace,
    *,
    bandwidth: float | CrossValidated | None = None,
    kernel: SmoothingKernel | None = None,
    error: VarianceError = VarianceError.ASYMPTOTIC,
    min_points: int = 10,
) -> FrechetJumpResult:
    """Test whether the conditional Frechet mean or variance of Y given X jumps at X = cutoff.

    Y (n, *P) points of `space`, X (n,) numbers. With one-sided local linear weights w^+ (X >= cutoff) and w^- (X < cutoff), means
    l_s = argmin sum_i w^s_i d^2(Y_i, .), variances V_s, their average weights with mean l_p and V_p, F = V_p - (V_+ + V_-)/2
    (in a flat space d^2(l_+, l_-)/4) and sigma_s^2 the |w^s|-weighted variance of d^2(Y_i, l_s):

        T = [(V_+ - V_-)^2 + F^2 / (lambda (1 - lambda))] / e,   e = S_K (sigma_+^2 + sigma_-^2) / (n h f)

    with lambda = |w^+|_1 / (|w^+|_1 + |w^-|_1). Without a jump T tends to chi^2 with one degree of freedom, whose tail is the
    p-value; F is of smaller order there. The test is conservative in small samples, the more so the larger h: at n = 200 and
    a level of 5 % it rejects 1 to 4 % of the time without a jump, `error=VarianceError.DESIGN` 5 to 8 %, with more power.

    `bandwidth` h: a number in units of X, used as it is, or `CrossValidated()` (the default), which undersmooths. `kernel`:
    Epanechnikov(). Outcomes that were estimated from few draws carry their noise into V on both sides: draws of unequal number
    on the two sides look like a jump of variance. Units that chose their side, or heap at the cutoff, invalidate any such test:
    a jump of the density of X with p < 0.001 gives a warning. With a medoid space (no mean) the test is approximate.

    Raises ValueError for a cutoff outside X, fewer than `min_points` points within the bandwidth on a side (with the counts),
    X all equal on a side, lengths that differ, NaN, and what is no point of the space. Time: three Frechet means, and those of
    the bandwidth's choice. Source: Van Dijcke (2025).
    """
    sample, x = paired_sample(Y, X, space)
    kernel = kernel or Epanechnikov()
    if not isinstance(kernel, SmoothingKernel):
        raise TypeError(f"kernel must be a SmoothingKernel such as Epanechnikov(), got {kernel!r}")
    if not isinstance(error, VarianceError):
        raise TypeError(f"error must be a VarianceError, got {error!r}")
    whole_number(min_points, 3, "min_points")
    cutoff = float(cutoff)
    _check_sides(x, cutoff, min_points)
    table, points = space.tabulated(sample)
    choice = CrossValidated() if bandwidth is None else bandwidth
    if isinstance(choice, CrossValidated):
        h = choice.choose(points, x, cutoff, table, kernel, min_points)
    else:
        h = positive(choice, "bandwidth")
    place = torch.tensor([cutoff], dtype=x.dtype, device=x.device)
    right, left = (local_linear_weights(x, place, h, kernel, side) for side in (Side.RIGHT, Side.LEFT))
    counts = int(left.count), int(right.count)
    if min(counts) < min_points:
        raise ValueError(
            f"the bandwidth {h:.6g} leaves {counts[0]} points left and {counts[1]} right of the cutoff, and each side needs at "
            f"least {min_points}: take a larger bandwidth, or lower min_points"
        )
    if not (bool(right.solvable.all()) and bool(left.solvable.all())):
        raise ValueError(f"all X on one side within the bandwidth {h:.6g} are equal: no line fits; take a larger bandwidth")
    w = torch.cat([right.weights, left.weights, (right.weights + left.weights) / 2]).to(weights_like(points))
    with torch.no_grad():
        found = table._mean(points, w)
        found.outcome.warn("frechet_jump_test")
        squares = table.to_center(points, found.point).double()
        w = w.double()
        V = (w * squares).sum(-1)
        spread = (squares[:2] - V[:2, None]).square()
        sizes = w[:2].abs()
        sigma = (sizes * spread).sum(-1) / sizes.sum(-1)
        jump = float(table._squared(found.point[0], found.point[1]).clamp_min(0)) ** 0.5
    means = found.point if table is space else sample[found.point]
    f = density_at(x, cutoff)
    if error is VarianceError.ASYMPTOTIC:
        e = kernel.boundary_variance() * float(sigma.sum()) / (len(x) * h * f)
    else:
        e = sum(float((w[k].square() * spread[k]).sum()) * m / (m - 2) for k, m in enumerate(reversed(counts)))
    share = float(sizes[0].sum() / sizes.sum())
    gap, F = float(V[0] - V[1]), float(V[2] - (V[0] + V[1]) / 2)
    one_right, one_left = (_single(sample[side.weights[0] != 0]) for side in (right, left))
    if one_right is not None and one_left is not None:
        # Equal points on either side: no error to compare with, and a jump is seen or not.
        variance_part, mean_part = 0.0, 0.0 if torch.equal(one_right, one_left) else math.inf
    else:
        # Equal distances from the mean, up to rounding of their squares, leave no error either.
        negligible = (64 * torch.finfo(weights_like(sample).dtype).eps * float(squares.max())) ** 2
        variance_part, mean_part = (_over(s, e, negligible) for s in (gap**2, F**2 / (share * (1 - share))))
    T = variance_part + mean_part
    p = math.erfc(math.sqrt(T / 2))
    manipulated = density_jump_p(x, cutoff, h, kernel)
    if manipulated < 1e-3:
        warnings.warn(
            f"the density of X jumps at the cutoff (p = {manipulated:.2g}): units may have chosen their side, and a jump of Y "
            "may be theirs",
            UserWarning,
            stacklevel=2,
        )
    return FrechetJumpResult(
        statistic=T,
        p_value=p,
        p_low=p,
        p_high=p,
        method=f"jump of Frechet mean or variance, chi^2 with 1 degree of freedom; {space!r}",
        note="the means are medoids: approximate" if space.approximate else None,
        mean_left=means[1],
        mean_right=means[0],
        jump=jump,
        variance_left=float(V[1]),
        variance_right=float(V[0]),
        variance_component=variance_part,
        mean_component=mean_part,
        bandwidth=h,
        points_left=counts[0],
        points_right=counts[1],
        density=f,
        density_jump_p=manipulated,
        outcome=found.outcome,
    )


def _single(points: Tensor) -> Tensor | None:
    """The point that all points are, if they are."""
    return points[0] if bool((points == points[0]).all()) else None


def _over(square: float, e: float, negligible: float) -> float:
    """square / e; where both are rounding there is no jump, where only e is, the jump is certain."""
    if e > negligible:
        return square / e
    return 0.0 if square <= negligible else math.inf


__all__ = ["FrechetJumpResult", "VarianceError", "frechet_jump_test"]
