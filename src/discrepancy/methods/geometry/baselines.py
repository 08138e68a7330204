"""The plain distance that geometry compares with: nearest neighbours in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._validate import SamplePair
from discrepancy.neighbors import nearest_neighbors


@dataclass(frozen=True)
class Chamfer(Discrepancy):
    """The Chamfer distance sum_i a_i min_j |x_i - y_j|^p + sum_j b_j min_i |x_i - y_j|^p, p = 2 or 1.

    No metric, and no distance between laws: it looks at the supports only, so that points may pile up and gaps between them may
    stay, and between two samples of one law it is not near zero but falls like n^(-p/d). Points of weight zero are neither
    matched nor counted. Gradients hold the matches fixed (the envelope theorem); a match at distance zero has gradient zero.
    Raises ValueError for a power other than 1 and 2. Time (n + m) log(n + m) in low dimension, linear memory.
    Source: Barrow, Tenenbaum, Bolles and Wolf (1977); as a loss: Fan, Su and Guibas (2017).
    """

    power: int = 2
    claims: ClassVar[Claims] = Claims(degree=2.0)
    references: ClassVar[tuple[str, ...]] = ("barrow-1977", "fan-2017")

    def __post_init__(self) -> None:
        """Check the power."""
        if self.power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {self.power!r}")
        object.__setattr__(self, "claims", Claims(degree=float(self.power)))

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The value over the batch."""
        d = pair.x.shape[-1]
        clouds = zip(
            pair.x.reshape(-1, pair.x.shape[-2], d),
            pair.y.reshape(-1, pair.y.shape[-2], d),
            pair.a.reshape(-1, pair.a.shape[-1]),
            pair.b.reshape(-1, pair.b.shape[-1]),
            strict=True,
        )
        return torch.stack([self._one_way(x, y, a, b) + self._one_way(y, x, b, a) for x, y, a, b in clouds]).reshape(pair.batch)

    def _one_way(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        there = y[b.detach() > 0]
        match = nearest_neighbors(x.detach(), there.detach(), 1).indices[:, 0]
        gap = x - there[match]
        away = gap.square().sum(-1) if self.power == 2 else torch.linalg.vector_norm(gap, dim=-1)
        return (a * away).sum()


__all__ = ["Chamfer"]
