"""Rain as numbers that a network can learn: from millimetres to about [0, 1] and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, positive


class RainScaler(ABC):
    """A monotone map of non-negative amounts onto about [0, 1], zero to zero."""

    def transform(self, rain: Any, *, mask: Any = None) -> Tensor:
        """The scaled amounts; where mask is False the input may be anything and the output is zero.

        Raises ValueError, with count and place, for negative or non-finite amounts that are not masked.
        """
        x = as_tensor(rain, "rain")
        if mask is not None:
            x = torch.where(torch.as_tensor(mask, device=x.device).bool(), x, torch.zeros_like(x))
        bad = ~(torch.isfinite(x.detach()) & (x.detach() >= 0))
        if bool(bad.any()):
            where = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"rain has {int(bad.sum())} negative or non-finite value(s), the first {float(x[where]):.6g} at {where}: "
                "if they mark missing cells, pass mask=, True where a value is valid"
            )
        return self._scaled(x)

    def inverse(self, scaled: Tensor) -> Tensor:
        """The amounts; what lies below zero becomes zero, since no rain is negative."""
        return self._amount(scaled.clamp_min(0))

    @abstractmethod
    def _scaled(self, x: Tensor) -> Tensor:
        """The map on valid amounts."""

    @abstractmethod
    def _amount(self, y: Tensor) -> Tensor:
        """Its inverse on values >= 0."""


@dataclass(frozen=True)
class Log1pScaler(RainScaler):
    """log(1 + x) / log(1 + top): amounts up to `top` (mm a day) into [0, 1], resolving small ones; distances in this scale give
    peaks less weight than in millimetres."""

    top: float = 500.0

    def __post_init__(self) -> None:
        """Raise ValueError unless top is positive."""
        positive(self.top, "top")

    def _scaled(self, x: Tensor) -> Tensor:
        return torch.log1p(x) / math.log1p(self.top)

    def _amount(self, y: Tensor) -> Tensor:
        return torch.expm1(y * math.log1p(self.top))


@dataclass(frozen=True)
class LinearScaler(RainScaler):
    """x / top."""

    top: float = 500.0

    def __post_init__(self) -> None:
        """Raise ValueError unless top is positive."""
        positive(self.top, "top")

    def _scaled(self, x: Tensor) -> Tensor:
        return x / self.top

    def _amount(self, y: Tensor) -> Tensor:
        return y * self.top


__all__ = ["LinearScaler", "Log1pScaler", "RainScaler"]
