"""What every family of directions has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default


def check_count(count: int) -> None:
    """Raise ValueError unless count is a whole number of at least 1."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be a whole number of directions, at least 1, got {count!r}")


class Directions(ABC):
    """A way to draw `count` directions; `independent` says whether a standard error over them is valid."""

    independent: ClassVar[bool] = False
    count: int

    def draw(
        self,
        d: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Unit vectors of shape (count, d)."""
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        source = generator_or_default(generator, device)
        return self._draw(d, source).to(device=device, dtype=dtype)

    @abstractmethod
    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        """The directions in float64, on the generator's device."""


__all__ = ["Directions", "check_count"]
