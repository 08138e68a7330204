"""Local linear regression of points of a metric space on a number."""

from __future__ import annotations

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


def means_in_blocks(space: MetricSpace, Y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Outcome]:
    """Frechet means (m, *P) and variances (m,) under weightings w (m, n), in blocks that bound the memory.

    A block leaves out the points that none of its weightings sees: the work is least where neighbours in w are near in X.
    """
    w = w.to(weights_like(Y))
    rows = min(_NEIGHBOURS, max(1, _ENTRIES // max(Y.numel(), 1)))
    points, variances, worst = [], [], Outcome.CLOSED_FORM
    with torch.no_grad():
        for start in range(0, len(w), rows):
            block = w[start : start + rows]
            # A medoid may be any sample point, also one of weight zero.
            seen = (block != 0).any(0) | space.approximate
            near, block = Y[seen], block[:, seen]
            found = space._mean(near, block)
            points.append(found.point)
            variances.append((block * space.to_center(near, found.point)).sum(-1))
            if not found.outcome.ok or worst is Outcome.CLOSED_FORM:
                worst = found.outcome
    return torch.cat(points), torch.cat(variances), worst


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
    Raises ValueError where a place sees fewer than two different X. Time: m Frechet means. Memory: m n, and blocks of means.
    Source: Petersen and Mueller (2019).
    """
    sample, x = paired_sample(Y, X, space)
    h = positive(bandwidth, "bandwidth")
    places = as_tensor(x0, "x0").detach().double().reshape(-1).to(x.device)
    require_finite(places, "x0")
    if not isinstance(side, Side):
        raise TypeError(f"side must be Side.LEFT, Side.RIGHT or Side.BOTH, got {side!r}")
    local = local_linear_weights(x, places, h, kernel or Epanechnikov(), side)
    if not bool(local.solvable.all()):
        k = int((~local.solvable).nonzero()[0])
        raise ValueError(
            f"x0 = {float(places[k]):.6g} sees {int(local.count[k])} point(s) within the bandwidth {h:.6g} and fewer than two "
            "different X: no line fits; take a larger bandwidth"
        )
    table, rows = space.tabulated(sample)
    points, variances, outcome = means_in_blocks(table, rows, local.weights)
    outcome.warn("local_frechet_regression")
    points = points if table is space else sample[points]
    return LocalFrechetFit(places, points, variances, local.count, h, outcome, space.approximate)


__all__ = ["LocalFrechetFit", "local_frechet_regression", "means_in_blocks", "paired_sample"]
