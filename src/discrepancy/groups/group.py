"""What a group of symmetries is: a compact group that acts on R^d by linear isometries.

Rows of a sample are points; an element g moves each row by the same orthogonal map. Whatever is invariant (a cost, a kernel, a
critic) is built from two operations: the images of a point under all elements, and the element that brings one point nearest to
another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default


class Group(ABC):
    """A compact group acting on R^d by orthogonal maps; a subclass is a frozen dataclass whose fields are its options.

    order      the number of elements, None where there are infinitely many
    dimension  the d that it acts on, None where it acts on any
    """

    @property
    @abstractmethod
    def order(self) -> int | None:
        """How many elements."""

    @property
    @abstractmethod
    def dimension(self) -> int | None:
        """The dimension of the points."""

    @abstractmethod
    def align(self, x: Tensor, y: Tensor) -> Tensor:
        """g_i y_i for the g_i that maximises <x_i, g_i y_i>, hence minimises |x_i - g_i y_i|, row by row.

        x and y (..., d) broadcast. The element is held fixed: gradients reach y through the isometry only (at a tie that is one
        of the subgradients).
        """

    @abstractmethod
    def random(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Every row of x (..., d) moved by an element of its own, drawn uniformly: from x ~ P draws from the symmetrised law."""

    def check(self, d: int, name: str = "x") -> None:
        """Raise ValueError unless the group acts on points of dimension d."""
        if self.dimension is not None and self.dimension != d:
            raise ValueError(f"{name} has {d} features and {self!r} acts on points of {self.dimension}")


class FiniteGroup(Group):
    """A group of `order` elements, numbered from 0; element 0 is the identity."""

    @property
    @abstractmethod
    def order(self) -> int:
        """How many elements."""

    @abstractmethod
    def act(self, k: int, x: Tensor) -> Tensor:
        """g_k x for the rows of x (..., d), differentiable."""

    @abstractmethod
    def inverse(self, k: int, x: Tensor) -> Tensor:
        """g_k^-1 x, which is the transpose of the map: what carries a gradient back."""

    @property
    def closed(self) -> bool:
        """Whether the elements form a group; a handful of draws from one (`Drawn`) do not."""
        return True

    def images(self, x: Tensor) -> Iterator[Tensor]:
        """The images g_0 x = x, g_1 x, ... one after the other."""
        return (self.act(k, x) for k in range(self.order))

    def orbit(self, x: Tensor) -> Tensor:
        """All images (order, ..., d), points fixed by some elements repeated: memory that of `order` copies of x."""
        return torch.stack(list(self.images(x)))

    def augmented(self, x: Tensor) -> Tensor:
        """The sample x (..., n, d) with all its images, (..., order n, d): the symmetrised empirical law under equal weights."""
        return torch.cat(list(self.images(x)), -2)

    def align(self, x: Tensor, y: Tensor) -> Tensor:
        """The image of each y_i of the largest inner product with x_i, of equal ones the first; time O(order d) a row."""
        x, y = torch.broadcast_tensors(x, y)
        with torch.no_grad():
            left, right = x.detach(), y.detach()
            best = (left * right).sum(-1)
            choice = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
            for k in range(1, self.order):
                product = (left * self.act(k, right)).sum(-1)
                better = product > best
                best, choice = torch.where(better, product, best), torch.where(better, k, choice)
        return self.chosen(choice, y)

    def chosen(self, choice: Tensor, y: Tensor) -> Tensor:
        """Row i of y (..., d) moved by element choice_i (...)."""
        found = y
        for k in range(1, self.order):
            here = choice == k
            if bool(here.any()):
                found = torch.where(here.unsqueeze(-1), self.act(k, y), found)
        return found

    def random(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Every row moved by a uniform element of its own."""
        source = generator_or_default(generator, x.device)
        return self.chosen(torch.randint(0, self.order, x.shape[:-1], generator=source, device=x.device), x)


def require_group(group: object, *, finite: bool = False) -> None:
    """Raise TypeError unless the object is a group of symmetries, with finitely many elements if so asked."""
    if not isinstance(group, Group):
        raise TypeError(f"group must be a group of symmetries such as discrepancy.groups.Cyclic(4), got {group!r}")
    if finite and not isinstance(group, FiniteGroup):
        raise TypeError(
            f"this needs all elements of a finite group, and {group!r} has infinitely many: take a subgroup such as Cyclic(16), "
            "or draw some, Drawn.of(group, 16, generator=...)"
        )


__all__ = ["FiniteGroup", "Group", "require_group"]
