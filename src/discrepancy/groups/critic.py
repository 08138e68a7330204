"""A critic made invariant: its mean, or its maximum, over the images of a point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy.groups.group import FiniteGroup, require_group


class Reduction(ABC):
    """How the values at the images of a point become one."""

    @abstractmethod
    def over(self, values: Iterable[Tensor]) -> Tensor:
        """One value from those at all images."""


@dataclass(frozen=True)
class OrbitMean(Reduction):
    """(1 / m) sum_g h(g x): the projection on the invariant functions, which keeps Lipschitz constants and convex classes."""

    def over(self, values: Iterable[Tensor]) -> Tensor:
        """The mean, summed in turn."""
        found = list(values)
        return sum(found[1:], found[0]) / len(found)


@dataclass(frozen=True)
class OrbitMaximum(Reduction):
    """max_g h(g x): invariant and as Lipschitz as h, able to point at one image; at ties the gradient goes to the first."""

    def over(self, values: Iterable[Tensor]) -> Tensor:
        """The maximum; memory that of all values."""
        return torch.stack(list(values)).max(0).values


class SymmetrizedCritic(nn.Module):
    """f(x) = mean (or maximum) over g of net(g x): an invariant critic for dual distances and variational bounds.

    For invariant laws the supremum over critics is attained by invariant ones, so nothing is lost and the sampling error falls.
    net takes points (..., d); group is finite, or a `Drawn` handful (then f is invariant up to Monte Carlo error). Time m times
    that of net. The Lipschitz constant is at most that of net. Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023).
    """

    references = ("group-symmetry-divergences",)

    def __init__(self, net: nn.Module, group: FiniteGroup, reduction: Reduction | None = None) -> None:
        """Wrap a network; TypeError for a group that cannot be enumerated."""
        super().__init__()
        require_group(group, finite=True)
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be an nn.Module, got {type(net).__name__}")
        self.net, self.group = net, group
        self.reduction = OrbitMean() if reduction is None else reduction
        if not isinstance(self.reduction, Reduction):
            raise TypeError(f"reduction must be OrbitMean() or OrbitMaximum(), got {reduction!r}")

    def forward(self, x: Tensor) -> Tensor:
        """The invariant values, of the shape of net(x)."""
        self.group.check(x.shape[-1])
        return self.reduction.over(self.net(image) for image in self.group.images(x))


__all__ = ["OrbitMaximum", "OrbitMean", "Reduction", "SymmetrizedCritic"]
