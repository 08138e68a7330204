"""Farthest-point sampling under any distance: a few points that leave none of the others far away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, whole_number

# One point and a stack of points -> their distances.
DistanceTo = Callable[[Any, Any], Tensor]


def farthest_point_subset(
    points: Any, count: int, distance: DistanceTo | None = None, *, always: Sequence[int] = ()
) -> tuple[int, ...]:
    """Indices of `count` points, `always` first, then each time the one whose nearest selected point is farthest.

    With a metric the points left out are within twice the radius that any subset of that size could reach. points: a sequence or
    stack of n points, whatever `distance(point, points)` -> (n,) takes (a discrepancy between configurations, say); or, where
    `distance` is None, the symmetric matrix of all distances (n, n). Without `always` the first point starts. Ties go to the
    lower index. Fewer than `count` points are all kept. Raises ValueError for a count below 1 or below len(always), an index out
    of range, and distances that are negative, not finite or of another shape. count evaluations of `distance`, n count time.
    Source: Gonzalez (1985).
    """
    total = len(points)
    kept = list(dict.fromkeys(int(i) for i in always))
    whole_number(count, 1, "count")
    if len(kept) > count:
        raise ValueError(f"always names {len(kept)} points and count is {count}: it must hold at least those")
    if any(not 0 <= i < total for i in kept):
        raise ValueError(f"always must name points 0 .. {total - 1}, got {kept}")
    if total == 0:
        return ()
    row = _rows(points, distance, total)
    nearest = torch.full((total,), torch.inf, dtype=torch.float64)
    chosen: list[int] = []
    for i in kept or [0]:
        chosen.append(i)
        nearest = torch.minimum(nearest, row(i))
    while len(chosen) < min(count, total):
        nearest[chosen] = -1.0  # a point at distance zero from the subset is still a candidate, a chosen one is not
        following = int(nearest.argmax())
        chosen.append(following)
        nearest = torch.minimum(nearest, row(following))
    return tuple(chosen)


def _rows(points: Any, distance: DistanceTo | None, total: int) -> Callable[[int], Tensor]:
    """The checked distances from point i to all points."""
    matrix = None
    if distance is None:
        matrix = as_tensor(points, "points").detach().double()
        if matrix.shape != (total, total):
            raise ValueError(f"without a distance, points must be a matrix of distances (n, n), got {tuple(matrix.shape)}")

    def row(i: int) -> Tensor:
        if matrix is not None:
            found = matrix[i]
        else:
            assert distance is not None
            found = as_tensor(distance(points[i], points), "distance").detach().double()
        if found.shape != (total,):
            raise ValueError(f"distance(point, points) must have shape ({total},), got {tuple(found.shape)}")
        require_finite(found, "distance")
        if bool((found < 0).any()):
            raise ValueError(f"distances must be non-negative, got {float(found.min()):.6g} from point {i}")
        return found

    return row


__all__ = ["DistanceTo", "farthest_point_subset"]
