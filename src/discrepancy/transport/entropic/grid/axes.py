"""Regular grids, and the costs between two of them axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from discrepancy._validate import positive
from discrepancy.costs import Cost, FunctionCost, Manhattan, PowerCost, SquaredEuclidean


@dataclass(frozen=True)
class Grid:
    """Points origin + k spacing on each axis, k = 0, 1, ...; as many axes as `spacing` has entries.

    spacing: distance between neighbours on each axis, in the units in which costs are measured; origin: the first point
    (zero where omitted).
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless spacings are positive and there is an origin for each axis."""
        if not isinstance(self.spacing, Sequence) or len(self.spacing) == 0:
            raise ValueError(f"spacing must have one entry for each axis, such as (1.0, 1.0), got {self.spacing!r}")
        object.__setattr__(self, "spacing", tuple(positive(h, "spacing") for h in self.spacing))
        origin = (0.0,) * len(self.spacing) if self.origin is None else tuple(float(o) for o in self.origin)
        if len(origin) != len(self.spacing) or not np.isfinite(origin).all():
            raise ValueError(f"origin must have {len(self.spacing)} finite entries, as spacing has, got {self.origin!r}")
        object.__setattr__(self, "origin", origin)

    def coordinates(self, shape: Sequence[int]) -> list[np.ndarray]:
        """The points' coordinates on each axis of a grid of this shape."""
        assert self.origin is not None
        return [o + h * np.arange(n) for o, h, n in zip(self.origin, self.spacing, shape, strict=True)]


def check_separable(cost: Cost, axes: int) -> None:
    """Raise TypeError unless the cost is a sum over the axes."""
    if isinstance(cost, SquaredEuclidean | Manhattan) or (isinstance(cost, PowerCost) and cost.p == 2):
        return
    if axes == 1 and not isinstance(cost, FunctionCost):
        return
    raise TypeError(
        f"cost must be a sum over the {axes} axes of the grid: SquaredEuclidean() or Manhattan(), got {cost!r}; "
        "for others list the grid's points and use Sinkhorn"
    )


def axis_costs(cost: Cost, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The costs (n_k, m_k) between the coordinates on each axis."""
    return [
        np.ascontiguousarray(cost.matrix(torch.from_numpy(p)[:, None], torch.from_numpy(q)[:, None]).numpy())
        for p, q in zip(left, right, strict=True)
    ]


__all__ = ["Grid", "axis_costs", "check_separable"]
