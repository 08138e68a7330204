"""Symmetries of pictures that come as rows of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.groups.group import FiniteGroup


@dataclass(frozen=True)
class Rot90(FiniteGroup):
    """The quarter turns of square pictures of side * side pixels, row after row; `channels` such planes follow each other."""

    side: int
    channels: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError unless both are whole numbers of at least 1."""
        whole_number(self.side, 1, "side")
        whole_number(self.channels, 1, "channels")

    @property
    def order(self) -> int:
        """4."""
        return 4

    @property
    def dimension(self) -> int:
        """channels * side^2."""
        return self.channels * self.side**2

    def act(self, k: int, x: Tensor) -> Tensor:
        """k quarter turns, counter-clockwise as the picture is seen with its first row on top."""
        planes = x.unflatten(-1, (self.channels, self.side, self.side))
        return x if k == 0 else torch.rot90(planes, k, (-2, -1)).flatten(-3)

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """k quarter turns clockwise."""
        return self.act((4 - k) % 4, x)


@dataclass(frozen=True)
class HFlip(FiniteGroup):
    """A picture of height * width pixels, row after row, and its mirror image left to right; `channels` planes in a row."""

    height: int
    width: int
    channels: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError unless all are whole numbers of at least 1."""
        for name in ("height", "width", "channels"):
            whole_number(getattr(self, name), 1, name)

    @property
    def order(self) -> int:
        """2."""
        return 2

    @property
    def dimension(self) -> int:
        """channels * height * width."""
        return self.channels * self.height * self.width

    def act(self, k: int, x: Tensor) -> Tensor:
        """The picture, or its mirror image."""
        return x if k == 0 else x.unflatten(-1, (-1, self.width)).flip(-1).flatten(-2)

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """The same: a reflection undoes itself."""
        return self.act(k, x)


__all__ = ["HFlip", "Rot90"]
