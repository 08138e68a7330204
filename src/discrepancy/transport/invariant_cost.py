"""The ground cost between orbits: what transport costs once a group of symmetries moves points for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from discrepancy.costs import Cosine, Cost, Euclidean, Manhattan, PowerCost, Sphere, SquaredEuclidean, as_cost
from discrepancy.groups import FiniteGroup, Group, Permutation
from discrepancy.groups.group import require_group

# Costs that fall as <x, y> grows at fixed |x| and |y|: invariant under every isometry, and least at the aligned pair.
_BY_INNER_PRODUCT = (SquaredEuclidean, Euclidean, PowerCost, Cosine, Sphere)
# Moving a point rounds it: orbits that agree to so many units in the last place of |x| are one orbit, at cost zero. Without this
# the cost between a sample and its image would be rounding noise, of which no plan is optimal and no gap is small.
_ROUNDING = 64
_ENUMERATED = 24  # permutations: beyond four things an assignment is cheaper than all orders
_BLOCK_BYTES = 64 << 20
_PROBES = 64  # elements that an unknown cost is tried on


@dataclass(frozen=True)
class InvariantCost(Cost):
    """c_G(x, y) = min over g in G of c(x, g y): the cost between the orbits of x and y, for every transport discrepancy.

    For laws invariant under G the transport cost with c_G equals that with c, and between samples it equals the one of both
    samples with all their images, at a share 1 / m^2 of the work: the sampling error is that of m n points
    (`OptimalTransport(InvariantCost(Cyclic(4), Euclidean()))`). Where the laws are not invariant it measures their symmetrised
    versions, which may agree though the laws differ: see `invariance_test`.

    group: a finite group, `Permutation` (of any size: by assignment) or `Rotation` (by the closed form of Kabsch); base: any cost
    with c(g x, g y) = c(x, y), which is tried on probe points (ValueError). A metric base gives a pseudometric: orbits are its
    points. Time order times that of the base. Gradients hold the minimising element fixed; at ties the first counts.
    Raises TypeError for a group or base that do not go together, ValueError for points of another dimension.
    Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023), section 3.
    """

    group: Group
    base: Cost = field(default_factory=Euclidean)
    translation_invariant = False
    negative_definite = False
    references = ("group-symmetry-divergences",)

    def __post_init__(self) -> None:
        """Raise TypeError unless the minimum over the group can be found for this base."""
        require_group(self.group)
        object.__setattr__(self, "base", as_cost(self.base))
        if isinstance(self.group, FiniteGroup) and not self.group.closed:
            raise TypeError(
                f"the minimum needs a whole group, and {self.group!r} holds some elements only: give the group itself"
            )
        many = self.group.order is None or (isinstance(self.group, Permutation) and self.group.order > 5040)
        if many and type(self.base) not in _BY_INNER_PRODUCT:
            names = ", ".join(kind.__name__ for kind in _BY_INNER_PRODUCT)
            raise TypeError(f"over {self.group!r} the minimum is known for the costs {names}, got {self.base!r}")

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """That of the base: c(x, g y) = c(g^-1 x, y)."""
        return self.base.symmetric

    @property
    def degree(self) -> float | None:  # type: ignore[override]
        """That of the base: the group acts linearly."""
        return self.base.degree

    @property
    def premetric(self) -> bool:  # type: ignore[override]
        """That of the base."""
        return self.base.premetric

    @property
    def metric(self) -> bool:  # type: ignore[override]
        """That of the base: the triangle closes over the best elements of two sides (a pseudometric on points)."""
        return self.base.metric

    def check(self, x: Tensor, name: str) -> None:
        """Raise ValueError for another dimension, a point outside the base's domain, or a base that is not invariant."""
        self.group.check(x.shape[-1], name)
        self.base.check(x, name)
        if type(self.base) not in _BY_INNER_PRODUCT:
            _try(self.base, self.group, x.shape[-1])

    def block_size(self, m: int, d: int, budget: int, itemsize: int) -> int:
        """A third of the base's rows for a running minimum; with alignment all pairs of points are formed."""
        if self._aligns:
            return max(1, budget // max(1, m * itemsize * 8 * (d + 1)))
        return max(1, self.base.block_size(m, d, budget, itemsize) // 3)

    @property
    def _aligns(self) -> bool:
        group = self.group
        if not isinstance(group, FiniteGroup):
            return True
        return isinstance(group, Permutation) and group.order > _ENUMERATED and type(self.base) in _BY_INNER_PRODUCT

    def _least(self, cost: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        """The least of cost(g y) over a finite group, entry by entry, and the first element that attains it."""
        assert isinstance(self.group, FiniteGroup)
        best = cost(y)
        choice = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
        for k in range(1, self.group.order):
            other = cost(self.group.act(k, y))
            better = other < best
            best, choice = torch.where(better, other, best), torch.where(better, k, choice)
        return best, choice

    def _settled(self, costs: Tensor, x: Tensor) -> Tensor:
        """Costs (..., [m]) from points x (..., d), those at rounding level exactly zero, where the base is a law of a
        distance."""
        power = 2.0 if type(self.base) in (SquaredEuclidean, Cosine) else 1.0
        if isinstance(self.base, PowerCost):
            power = float(self.base.p)
        if type(self.base) not in (*_BY_INNER_PRODUCT, Manhattan):
            return costs
        size = torch.linalg.vector_norm(x.detach(), ord=1 if isinstance(self.base, Manhattan) else 2, dim=-1)
        size = torch.ones_like(size) if isinstance(self.base, Cosine | Sphere) else size
        least = (_ROUNDING * torch.finfo(x.dtype).eps * size) ** power
        while least.ndim < costs.ndim:
            least = least.unsqueeze(-1)
        return torch.where(costs.detach() <= least, torch.zeros_like(costs), costs)

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """min_g c(x_i, g y_j) for all pairs; memory three times that of the result (under autograd `order` times)."""
        if not self._aligns:
            return self._settled(self._least(lambda image: self.base.matrix(x, image), y)[0], x)
        rows = self.block_size(y.shape[-2], x.shape[-1], _BLOCK_BYTES, x.element_size())
        return torch.cat([self._aligned(x[..., k : k + rows, :], y) for k in range(0, x.shape[-2], rows)], -2)

    def _aligned(self, x: Tensor, y: Tensor) -> Tensor:
        left, right = torch.broadcast_tensors(x[..., :, None, :], y[..., None, :, :])
        return self._settled(self.base.pairs(left, self.group.align(left, right)), left)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """min_g c(x_i, g y_i), row by row; under a symmetric base the same bits for (x, y) and (y, x)."""
        if self.base.symmetric:
            swap = _comes_later(x.detach(), y.detach())
            x, y = torch.where(swap, y, x), torch.where(swap, x, y)
        if self._aligns:
            return self._settled(self.base.pairs(x, self.group.align(x, y)), x)
        assert isinstance(self.group, FiniteGroup)
        with torch.no_grad():
            _, choice = self._least(lambda image: self.base.pairs(x, image), y)
        return self._settled(self.base.pairs(x, self.group.chosen(choice, y)), x)

    def contract(self, x: Tensor, y: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of a plan's total cost, the minimising elements and the plan held fixed; memory a few n x m matrices."""
        x, y, plan = x.detach(), y.detach(), plan.detach()
        if not self._aligns:
            assert isinstance(self.group, FiniteGroup)
            with torch.no_grad():
                _, choice = self._least(lambda image: self.base.matrix(x, image), y)
            gx, gy = torch.zeros_like(x), torch.zeros_like(y)
            for k in range(self.group.order):
                of_x, of_y = self.base.contract(x, self.group.act(k, y), torch.where(choice == k, plan, torch.zeros_like(plan)))
                gx, gy = gx + of_x, gy + self.group.inverse(k, of_y)
            return gx, gy
        rows = self.block_size(y.shape[-2], x.shape[-1], _BLOCK_BYTES, x.element_size())
        found = [
            super(InvariantCost, self).contract(x[..., k : k + rows, :], y, plan[..., k : k + rows, :])
            for k in range(0, x.shape[-2], rows)
        ]
        return torch.cat([gx for gx, _ in found], -2), torch.stack([gy for _, gy in found]).sum(0)


def _comes_later(x: Tensor, y: Tensor) -> Tensor:
    """Whether row x_i follows y_i in lexicographic order, (..., n, 1): g moves the one that follows, which rounds in one way
    only."""
    differs = x != y
    first = differs.to(torch.uint8).argmax(-1, keepdim=True)
    return x.gather(-1, first) > y.gather(-1, first)


def _probe(base: Cost, group: Group, d: int) -> None:
    """Raise ValueError unless c(g x, g y) = c(x, y) on probe points."""
    assert isinstance(group, FiniteGroup)
    points = torch.randn(4, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        base.check(points, "a probe")
    except ValueError:  # a cost of directions
        points = points / torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    with torch.no_grad():
        before = base.matrix(points, points)
        for k in range(1, min(group.order, _PROBES)):
            image = group.act(k, points)
            gap = float((base.matrix(image, image) - before).abs().max())
            if not gap <= 1e-6 * float(before.abs().max()):
                raise ValueError(
                    f"{base!r} is not invariant under {group!r}: moving both points by element {k} changes a cost by {gap:.3g}; "
                    "take a cost of the Euclidean distance"
                )


_remembered = lru_cache(maxsize=64)(_probe)


def _try(base: Cost, group: Group, d: int) -> None:
    try:
        _remembered(base, group, d)
    except TypeError:  # a cost of one's own may have no hash
        _probe(base, group, d)


__all__ = ["InvariantCost"]
