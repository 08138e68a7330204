"""Groups that exchange or negate coordinates: exact in floating point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.groups.group import FiniteGroup


@dataclass(frozen=True)
class CyclicShift(FiniteGroup):
    """The cyclic shifts of d coordinates: element k moves each coordinate k places on, round the end."""

    d: int

    def __post_init__(self) -> None:
        """Raise ValueError unless d is a whole number of at least 1."""
        whole_number(self.d, 1, "d")

    @property
    def order(self) -> int:
        """d."""
        return self.d

    @property
    def dimension(self) -> int:
        """d."""
        return self.d

    def act(self, k: int, x: Tensor) -> Tensor:
        """The shift by k places."""
        return x if k == 0 else x.roll(k, -1)

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """The shift by -k places."""
        return x if k == 0 else x.roll(-k, -1)


@dataclass(frozen=True)
class SignFlip(FiniteGroup):
    """The identity and x -> -x, on points of any dimension; `coordinates`: only these change sign, together."""

    coordinates: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for coordinates that are none, or come twice."""
        if self.coordinates is None:
            return
        object.__setattr__(self, "coordinates", tuple(whole_number(k, 0, "a coordinate") for k in self.coordinates))
        if not self.coordinates or len(set(self.coordinates)) != len(self.coordinates):
            raise ValueError(f"coordinates must name at least one coordinate, each once, got {self.coordinates!r}")

    @property
    def order(self) -> int:
        """2."""
        return 2

    @property
    def dimension(self) -> None:
        """Any."""
        return None

    def check(self, d: int, name: str = "x") -> None:
        """Raise ValueError where a coordinate to be negated is not there."""
        if self.coordinates is not None and max(self.coordinates) >= d:
            raise ValueError(f"{name} has {d} features and {self!r} negates coordinate {max(self.coordinates)}, counted from 0")

    def act(self, k: int, x: Tensor) -> Tensor:
        """x, or x with its sign changed."""
        if k == 0:
            return x
        if self.coordinates is None:
            return -x
        signs = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        signs[list(self.coordinates)] = -1
        return x * signs

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """The same: a flip undoes itself."""
        return self.act(k, x)


@dataclass(frozen=True)
class Permutation(FiniteGroup):
    """All orders of `items` things of `width` numbers each: a point of items * width coordinates, thing after thing, is a set.

    Its order is items!; `align` does not enumerate them but solves an assignment, O(items^3) a pair of points. Source: Kuhn
    (1955).
    """

    items: int
    width: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError unless both are whole numbers of at least 1."""
        whole_number(self.items, 1, "items")
        whole_number(self.width, 1, "width")

    @property
    def order(self) -> int:
        """items!."""
        return math.factorial(self.items)

    @property
    def dimension(self) -> int:
        """items * width."""
        return self.items * self.width

    def arrangement(self, k: int) -> list[int]:
        """Which thing stands at each place after element k: the digits of k in the factorial number system."""
        left = list(range(self.items))
        found = []
        for place in range(self.items, 0, -1):
            digit, k = divmod(k, math.factorial(place - 1))
            found.append(left.pop(digit))
        return found

    def act(self, k: int, x: Tensor) -> Tensor:
        """The things in the order of `arrangement(k)`."""
        return x if k == 0 else self._arranged(x, torch.tensor(self.arrangement(k), device=x.device))

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """Every thing back to its place."""
        return x if k == 0 else self._arranged(x, torch.tensor(self.arrangement(k), device=x.device).argsort())

    def _things(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.items, self.width))

    def _arranged(self, x: Tensor, order: Tensor) -> Tensor:
        """Rows in one order (items,), or each in its own (..., items)."""
        index = order[..., None].expand(*x.shape[:-1], self.items, self.width)
        return self._things(x).gather(-2, index).flatten(-2)

    def align(self, x: Tensor, y: Tensor) -> Tensor:
        """y_i with its things assigned to those of x_i, nearest in total squared distance."""
        import numpy as np
        from scipy.optimize import linear_sum_assignment

        x, y = torch.broadcast_tensors(x, y)
        # Inner products about the mean thing: a set far from the origin loses no digits, and the best assignment is the same.
        left, right = self._things(x.detach()).double(), self._things(y.detach()).double()
        left, right = left - left.mean(-2, keepdim=True), right - right.mean(-2, keepdim=True)
        products = (left @ right.mT).reshape(-1, self.items, self.items).cpu().numpy()
        orders = np.stack([linear_sum_assignment(scores, maximize=True)[1] for scores in products])
        index = torch.from_numpy(orders).to(y.device).reshape(*y.shape[:-1], self.items)
        return self._arranged(y, index)

    def random(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Every row with its things in a uniformly random order of its own."""
        source = generator_or_default(generator, x.device)
        keys = torch.rand(*x.shape[:-1], self.items, generator=source, device=x.device, dtype=torch.float64)
        return self._arranged(x, keys.argsort(-1))


__all__ = ["CyclicShift", "Permutation", "SignFlip"]
