"""Functions of the outcome that are bounded, and say so: what a bound without assumptions can be about."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class UpTo:
    """phi(y) = 1 where y <= threshold, else 0: its mean is the distribution function of the outcome. ValueError unless finite."""

    threshold: float

    def __post_init__(self) -> None:
        if not math.isfinite(float(self.threshold)):
            raise ValueError(f"threshold must be finite, got {self.threshold!r}")

    @property
    def range(self) -> tuple[float, float]:
        """Zero and one."""
        return 0.0, 1.0

    def __call__(self, y: Tensor) -> Tensor:
        """The indicator, in the dtype of y."""
        return (y <= self.threshold).to(y.dtype)


@dataclass(frozen=True)
class Clipped:
    """phi(y) = y, moved into [low, high]: the clipped mean. ValueError unless low < high are finite."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(float(self.low)) and math.isfinite(float(self.high)) and self.low < self.high):
            raise ValueError(f"a clipped mean needs finite low < high, got ({self.low!r}, {self.high!r})")

    @property
    def range(self) -> tuple[float, float]:
        """The ends."""
        return float(self.low), float(self.high)

    def __call__(self, y: Tensor) -> Tensor:
        """y, clipped."""
        return y.clamp(self.low, self.high)


__all__ = ["Clipped", "UpTo"]
