"""Where the costs of a differentiable problem come from: points and a ground cost, or a cost matrix; seen in row blocks.

The tensors that derivatives are taken in are `inputs`: (x, y) or (C,), with a batch axis in front. Blocks are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from discrepancy.costs import Cost


class PairCosts(Protocol):
    """Costs by blocks of rows, and the derivative of their weighted sum in the inputs."""

    def parts(self, inputs: Sequence[Tensor], depth: int = 1) -> Iterator[slice]:
        """Row ranges; `depth` times the memory of a plain block must fit the budget."""
        ...

    def block(self, inputs: Sequence[Tensor], part: slice) -> Tensor:
        """The costs (B, rows, m) of a row range in float64, differentiable where grad mode is on."""
        ...

    def add(self, totals: Sequence[Tensor], inputs: Sequence[Tensor], part: slice, weight: Tensor) -> None:
        """Add the gradient of sum_ij weight_ij C_ij over a row range to the totals, one a tensor of the inputs."""
        ...


@dataclass(frozen=True)
class PointCosts:
    """inputs = (x (B, n, d), y (B, m, d)); a block takes at most `budget` bytes."""

    cost: Cost
    budget: int

    def parts(self, inputs: Sequence[Tensor], depth: int = 1) -> Iterator[slice]:
        """Row ranges of as many rows as fit."""
        x, y = inputs
        n = x.shape[-2]
        step = self.cost.block_size(x.shape[0] * y.shape[-2] * depth, x.shape[-1], self.budget, 16)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def block(self, inputs: Sequence[Tensor], part: slice) -> Tensor:
        """The ground cost of a row range."""
        x, y = inputs
        return self.cost.matrix(x[:, part].double(), y.double())

    def add(self, totals: Sequence[Tensor], inputs: Sequence[Tensor], part: slice, weight: Tensor) -> None:
        """By the cost's own contraction."""
        x, y = inputs
        left, right = self.cost.contract(x[:, part].detach().double(), y.detach().double(), weight)
        totals[0][:, part] += left
        totals[1].add_(right)


@dataclass(frozen=True)
class MatrixCosts:
    """inputs = (C (B, n, m),); blocks are views of it, their temporaries take at most `budget` bytes."""

    budget: int

    def parts(self, inputs: Sequence[Tensor], depth: int = 1) -> Iterator[slice]:
        """Row ranges of as many rows as fit."""
        size, n, m = inputs[0].shape
        step = max(1, self.budget // (size * m * 64 * depth))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def block(self, inputs: Sequence[Tensor], part: slice) -> Tensor:
        """The rows themselves."""
        return inputs[0][:, part].double()

    def add(self, totals: Sequence[Tensor], inputs: Sequence[Tensor], part: slice, weight: Tensor) -> None:
        """The gradient in C is the weight."""
        totals[0][:, part] += weight


# An exponential beyond this overflows. Only pairs of two points of weight zero come near, and their plan entry is zero.
_LARGEST_EXPONENT = 700.0


def density_ratio(f: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor) -> Tensor:
    """E_ij = exp((f_i + g_j - C_ij) / epsilon) for f (B, rows), g (B, m): the plan is a_i b_j E_ij; zero for a forbidden pair."""
    return ((f[..., None] + g[:, None] - cost) / epsilon[:, None, None]).clamp_max(_LARGEST_EXPONENT).exp()


__all__ = ["MatrixCosts", "PairCosts", "PointCosts", "density_ratio"]
