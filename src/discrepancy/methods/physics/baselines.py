"""Plain methods that papers on physical fields compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, whole_number


@dataclass
class QuantileMapping:
    """The monotone map that carries the law of the given values onto the law of the wanted ones: T = F_y^{-1} o F_x.

    `fit(x, y)` pools all entries of both; `transform(x)` interpolates linearly between `levels` quantiles, takes the mean of the
    wanted quantiles over ties, and beyond the range seen adds the last correction. It is the optimal transport map of the
    intensities, so marginal laws match; it knows nothing of neighbours, and adds no detail that x lacks. n log n to fit.
    Raises ValueError for non-finite values, AttributeError for transform before fit. Source: Panofsky and Brier (1958);
    Maraun (2013).
    """

    levels: int = 10_001
    references: ClassVar[tuple[str, ...]] = ("maraun-2013",)
    _from: Tensor | None = field(default=None, init=False, repr=False)
    _to: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than two quantiles."""
        whole_number(self.levels, 2, "levels")

    def _table(self, values: Any, name: str) -> Tensor:
        x = as_tensor(values, name).detach().flatten().double()
        if x.numel() == 0:
            raise ValueError(f"{name} is empty")
        require_finite(x, name)
        ordered = x.sort().values
        place = torch.linspace(0, ordered.numel() - 1, self.levels, dtype=torch.float64)
        low = place.floor().long()
        high = (low + 1).clamp_max(ordered.numel() - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    def fit(self, x: Any, y: Any) -> QuantileMapping:
        """Learn the map from pooled values x of what is given to pooled values y of what is wanted; shapes are free."""
        source, target = self._table(x, "x"), self._table(y, "y")
        distinct, where = torch.unique_consecutive(source, return_inverse=True)
        size = torch.zeros_like(distinct).scatter_add_(0, where, torch.ones_like(target))
        self._from, self._to = distinct, torch.zeros_like(distinct).scatter_add_(0, where, target) / size
        return self

    def transform(self, x: Any) -> Tensor:
        """The map, entry by entry."""
        if self._from is None or self._to is None:
            raise AttributeError("this QuantileMapping is not fitted: call fit(x, y) first")
        given = as_tensor(x, "x")
        require_finite(given, "x")
        v, source, target = given.detach().double(), self._from, self._to
        if source.numel() == 1:
            return (target[0] + v - source[0]).to(given.dtype)
        right = torch.searchsorted(source, v).clamp(1, source.numel() - 1)
        left = right - 1
        share = ((v - source[left]) / (source[right] - source[left])).clamp(0, 1)
        inside = target[left] + share * (target[right] - target[left])
        beyond = (v - source[-1]).clamp_min(0) + (v - source[0]).clamp_max(0)
        return (inside + beyond).to(given.dtype)


__all__ = ["QuantileMapping"]
