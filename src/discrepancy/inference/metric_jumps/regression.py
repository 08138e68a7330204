"""Local linear regression of points of a metric space on a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, positive, require_finite
from discrepancy.inference.metric_jumps.smoothing import Epanechnikov, Side, SmoothingKernel, local_linear_weights
from discrepancy.metric_spaces import MetricSpace
from discrepancy.metric_spaces.means import check_space
from discrepancy.metric_spaces.space import weights_like

_ENTRIES = 1 << 24  # numbers that a block of means may hold at once, 128 MiB in float64
_NEIGHBOURS = 16  # places that share one search for their means: they see nearly the same points


@dataclass(frozen=True, repr=False)
class LocalFrechetFit(Result):
    """Local Frechet means `points` (m, *P) at `x0` (m,), the local `variances` (m,), and the `counts` of points that each saw."""

    x0: Tensor
    points: Tensor
    variances: Tensor
    counts: Tensor
    bandwidth: float
    outcome: Outcome
    approximate: bool = False

    references = ("petersen-muller-2019",)


def paired_sample(Y: Any, X: Any, space: MetricSpace) -> tuple[Tensor, Tensor]:
    """Points (n, *P) of the space and their numbers (n,) in float64, validated together."""
    sample = check_space(space).sample(Y)
    x = as_tensor(X, "X").detach().double()
    if x.ndim == 2 and x.shape[-1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        raise ValueError(f"X must be one number for each point, (n,), got shape {tuple(x.shape)}")
    if len(x) != len(sample):
        raise ValueError(f"X has {len(x)} numbers and Y {len(sample)} points: they must be paired")
    require_finite(x, "X")
    return sample, x.to(sample.device)


@dataclass(frozen=True)
class LocalMeans:
    """Local Frechet means `points` (m, *P), their `variances` (m,), the `counts` (m,) of points seen, and the worst `outcome`."""

    points: Tensor
    variances: Tensor
    counts: Tensor
    outcome: Outcome


def blocks_of_places(m: int, n: int) -> list[slice]:
    """Places 0..m-1 in blocks: few enough for m x n weights within the memory, near enough to see nearly the same points."""
    rows = min(_NEIGHBOURS, max(1, _ENTRIES // n))
    return [slice(start, min(start + rows, m)) for start in range(0, m, rows)]


@torch.no_grad()
def local_means(
    space: MetricSpace,
    Y: Tensor,
    x: Tensor,
    places: Tensor,
    h: float,
    kernel: SmoothingKernel,
    side: Side,
    seen: Callable[[slice], Tensor] | None = None,
) -> LocalMeans:
    """Local linear Frechet means at places (m,), block by block; `seen` gives the points that the places of a block may use.

    A block leaves out the points that none of its places sees: the work is least where neighbours among the places are near.
    Raises ValueError where a place sees fewer than two different x.
    """
    points, variances, counts, worst = [], [], [], Outcome.CLOSED_FORM
    for block in blocks_of_places(len(places), len(x)):
        local = local_linear_weights(x, places[block], h, kernel, side, None if seen is None else seen(block))
        if not bool(local.solvable.all()):
            k = int((~local.solvable).nonzero()[0])
            raise ValueError(
                f"x0 = {float(places[block][k]):.6g} sees {int(local.count[k])} point(s) within the bandwidth {h:.6g} and fewer "
                "than two different X: no line fits; take a larger bandwidth"
            )
        w = local.weights.to(weights_like(Y))
        # A medoid may be any sample point, also one of weight zero.
        used = (w != 0).any(0) | space.approximate
        near, w = Y[used], w[:, used]
        found = space._mean(near, w)
        points.append(found.point)
        variances.append((w * space.to_center(near, found.point)).sum(-1))
        counts.append(local.count)
        if not found.outcome.ok or worst is Outcome.CLOSED_FORM:
            worst = found.outcome
    return LocalMeans(torch.cat(points), torch.cat(variances), torch.cat(counts), worst)


def local_frechet_regression(
    Y: Any,
    X: Any,
    x0: Any,
    space: MetricSpace,
    bandwidth: float,
    *,
    side: Side = Side.BOTH,
    kernel: SmoothingKernel | None = None,
) -> LocalFrechetFit:
    """The local linear Frechet regression function argmin over o of sum_i w_i(x0) d^2(Y_i, o), at places x0.

    Y (n, *P) points of `space`, X (n,) numbers, x0 a number or (m,). The weights are those of local linear regression (they
    sum to one and may be negative): in a Euclidean space this is local linear regression, coordinate by coordinate. `bandwidth`
    in units of X; `side` = Side.LEFT or Side.RIGHT sees only X < x0 or X >= x0, for the limits at a cutoff. `kernel`:
    Epanechnikov() unless given.
    Raises ValueError where a place sees fewer than two different X. Time: m Frechet means. Memory: 16 n.
    Source: Petersen and Mueller (2019).
    """
    sample, x = paired_sample(Y, X, space)
    h = positive(bandwidth, "bandwidth")
    places = as_tensor(x0, "x0").detach().double().reshape(-1).to(x.device)
    require_finite(places, "x0")
    if not isinstance(side, Side):
        raise TypeError(f"side must be Side.LEFT, Side.RIGHT or Side.BOTH, got {side!r}")
    table, rows = space.tabulated(sample)
    found = local_means(table, rows, x, places, h, kernel or Epanechnikov(), side)
    found.outcome.warn("local_frechet_regression")
    points = found.points if table is space else sample[found.points]
    return LocalFrechetFit(places, points, found.variances, found.counts, h, found.outcome, space.approximate)


__all__ = ["LocalFrechetFit", "LocalMeans", "blocks_of_places", "local_frechet_regression", "local_means", "paired_sample"]
