"""The kernel between orbits: a kernel averaged over a group of symmetries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy.groups import FiniteGroup
from discrepancy.groups.group import require_group
from discrepancy.kernels import Gaussian, Kernel, KernelSum, Linear, RadialKernel
from discrepancy.kernels.kernel import Pullback
from discrepancy.kernels.separations import SquaredEuclidean

_PROBES = 64  # elements that an unknown kernel is tried on


@dataclass(frozen=True)
class InvariantKernel(Kernel):
    """k_G(x, y) = (1 / m) sum over g in G of k(x, g y), the kernel of the functions of k that are invariant under G.

    For MMD, HSIC and whatever else takes a kernel: MMD with k_G on samples equals MMD with k on the samples with all their
    images. For invariant laws the value is the same and the sampling error smaller, between not at all (a kernel wide against the
    distances within an orbit) and m^(-1/2) (a narrow one): `kernel_gain` computes it. For laws that are not invariant it compares
    their symmetrised versions.

    group: finite, or `Drawn` elements of a large one, for which both arguments are averaged, (1 / m^2) sum_gh k(g x, h y), so
    that the kernel stays positive definite. base: any kernel with k(g x, g y) = k(x, y), which is tried on probe points
    (ValueError); its bandwidth rule sees the points as they are. Time m (or m^2) times that of the base, memory the base's.
    Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023), section 4; Haasdonk and Burkhardt (2007).
    """

    group: FiniteGroup
    base: Kernel = field(default_factory=Gaussian)
    references = ("group-symmetry-divergences",)

    def __post_init__(self) -> None:
        """Raise TypeError unless the group is finite and the base a kernel."""
        require_group(self.group, finite=True)
        if not isinstance(self.base, Kernel):
            raise TypeError(f"base must be a kernel such as discrepancy.kernels.Gaussian(1.0), got {self.base!r}")

    @property
    def scale_free(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # that of the base
        """Whether the bandwidth follows the scale of the data."""
        return self.base.scale_free

    def resolve(self, z: Float[Tensor, "... n d"], w: Float[Tensor, "... n"]) -> Kernel:
        """The same with the base's choices fixed."""
        self._check(z.shape[-1])
        return replace(self, base=self.base.resolve(z, w))

    def members(self, index: slice, of: int) -> Kernel:
        """The kernel of some members of a flat batch."""
        return replace(self, base=self.base.members(index, of))

    def _check(self, d: int) -> None:
        self.group.check(d, "a sample")
        if _isotropic(self.base):
            return
        try:
            _remembered(self.base, self.group, d)
        except TypeError:  # a kernel of one's own may have no hash
            _probe(self.base, self.group, d)

    def _terms(self, x: Tensor, y: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """The pairs of elements of the mean, with the images of x and of y."""
        if self.group.closed:
            for k in range(self.group.order):
                yield 0, k, x, self.group.act(k, y)
            return
        for j in range(self.group.order):
            moved = self.group.act(j, x)
            for k in range(self.group.order):
                yield j, k, moved, self.group.act(k, y)

    @property
    def _count(self) -> int:
        return self.group.order if self.group.closed else self.group.order**2

    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """All values k_G(x_i, y_j), differentiable in both."""
        self._check(x.shape[-1])
        total: Tensor | float = 0.0
        for _, _, left, right in self._terms(x, y):
            total = total + self.base.matrix(left, right)
        assert isinstance(total, Tensor)
        return total / self._count

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The values of a block and their pullback, which evaluates the base's blocks again: memory that of one."""
        self._check(x.shape[-1])
        total: Tensor | float = 0.0
        for _, _, left, right in self._terms(x, y):
            total = total + self.base.block(left, right)[0]
        assert isinstance(total, Tensor)

        def pullback(M: Tensor) -> tuple[Tensor, Tensor]:
            gx, gy, share = torch.zeros_like(x), torch.zeros_like(y), M / self._count
            for j, k, left, right in self._terms(x, y):
                of_x, of_y = self.base.block(left, right)[1](share)
                gx, gy = gx + self.group.inverse(j, of_x), gy + self.group.inverse(k, of_y)
            return gx, gy

        return total / self._count, pullback

    def diagonal(self, x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n"]:
        """k_G(x_i, x_i): an orbit's mean value with itself, O(n m)."""
        self._check(x.shape[-1])
        flat = x.reshape(-1, *x.shape[-2:])
        found = []
        for b in range(len(flat)):  # a batch may have a bandwidth a member
            one, base = flat[b][:, None, :], self.base.members(slice(b, b + 1), len(flat))
            values = [base.matrix(left, right)[..., 0, 0] for _, _, left, right in self._terms(one, one)]
            found.append(torch.stack(values).sum(0) / self._count)
        return torch.stack(found).reshape(x.shape[:-1])


def _isotropic(kernel: Kernel) -> bool:
    """Whether the kernel is known to depend on norms and inner products only."""
    if isinstance(kernel, KernelSum):
        return all(_isotropic(term) for _, term in kernel.terms)
    return (isinstance(kernel, RadialKernel) and isinstance(kernel.separation, SquaredEuclidean)) or type(kernel) is Linear


def _probe(base: Kernel, group: FiniteGroup, d: int) -> None:
    """Raise ValueError unless k(g x, g y) = k(x, y) on probe points."""
    points = torch.randn(4, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        kernel = base.resolve(points, torch.full((4,), 0.25, dtype=points.dtype))
        before = kernel.matrix(points, points)
        for k in range(1, min(group.order, _PROBES)):
            image = group.act(k, points)
            gap = float((kernel.matrix(image, image) - before).abs().max())
            if not gap <= 1e-6 * float(before.abs().max()):
                raise ValueError(
                    f"{base!r} is not invariant under {group!r}: moving both points by element {k} changes a value by {gap:.3g}; "
                    "take a kernel of the Euclidean distance"
                )


_remembered = lru_cache(maxsize=64)(_probe)

__all__ = ["InvariantKernel"]
