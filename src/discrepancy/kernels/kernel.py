"""What a kernel is: a symmetric function of two points, its blocks with exact pullbacks, sums and multiples of kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.kernels.bandwidth import MedianHeuristic
from discrepancy.kernels.first_order import first_order
from discrepancy.kernels.separations import L1, SquaredEuclidean

Pullback = Callable[[Tensor], tuple[Tensor, Tensor]]
Bandwidth = float | MedianHeuristic | Tensor


class Kernel(ABC):
    """A symmetric function k(x, y) of two points; a subclass is a frozen dataclass whose fields are its options.

    A kernel of your own needs `matrix` only, differentiable by autograd; streaming and gradients follow from it.
    `k + l` and `c * k` (c > 0) are kernels again.
    """

    translation_invariant: ClassVar[bool] = False
    scale_free: ClassVar[bool] = False

    @abstractmethod
    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """All values k(x_i, y_j), differentiable in both; memory O(n m)."""

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The values (..., n, m) of a block, and the map from M to the gradients of sum_ij M_ij k(x_i, y_j) in x and y."""
        with torch.enable_grad():
            left, right = x.detach().requires_grad_(), y.detach().requires_grad_()
            values = self.matrix(left, right)

        def pullback(M: Tensor) -> tuple[Tensor, Tensor]:
            if not values.requires_grad:
                return torch.zeros_like(x), torch.zeros_like(y)
            gx, gy = torch.autograd.grad(values, (left, right), M, retain_graph=True, materialize_grads=True)
            return gx, gy

        return values.detach(), pullback

    def diagonal(self, x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n"]:
        """The values k(x_i, x_i), differentiable."""
        one = x.unsqueeze(-2)
        return self.matrix(one, one).squeeze(-1).squeeze(-1)

    def resolve(self, z: Float[Tensor, "... n d"], w: Float[Tensor, "... n"]) -> Kernel:
        """This kernel with whatever it chooses from the pooled weighted sample fixed (one number a batch member)."""
        return self

    def members(self, index: slice, of: int) -> Kernel:
        """The kernel of some members of a flat batch of `of` members, once resolved."""
        return self

    def __add__(self, other: Kernel) -> Kernel:
        if not isinstance(other, Kernel):
            return NotImplemented
        return KernelSum((*_terms(self), *_terms(other)))

    def __mul__(self, factor: float) -> Kernel:
        if isinstance(factor, Kernel):
            return NotImplemented
        return KernelSum(tuple((float(factor) * c, k) for c, k in _terms(self)))

    __rmul__ = __mul__


class RadialKernel(Kernel):
    """A kernel that is a profile of a separation, k(x, y) = profile(s(x, y)); s is squared Euclidean or L1."""

    translation_invariant: ClassVar[bool] = True
    separation: ClassVar[SquaredEuclidean | L1]
    bandwidth_field: ClassVar[str | None] = None

    @abstractmethod
    def profile(self, s: Tensor) -> Tensor:
        """The kernel as a function of the separation."""

    @abstractmethod
    def slope(self, s: Tensor, values: Tensor) -> Tensor:
        """The derivative of the profile, given its values; 0 at s = 0 where it has a cusp."""

    def log_profile(self, s: Tensor) -> Tensor:
        """log profile(s), which families override with a form that does not underflow; ValueError for a negative profile."""
        return log_values(self, self.profile(s))

    def log_slope(self, s: Tensor) -> Tensor:
        """The derivative of log profile; 0 where the profile has underflowed."""
        values = self.profile(s)
        return torch.where(values > 0, self.slope(s, values) / values, torch.zeros_like(values))

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The values of a block and their pullback, by the closed form of the slope."""
        s = self.separation.matrix(x, y)
        values = self.profile(s)
        return values, lambda M: self.separation.pullback(x, y, s, M * self.slope(s, values))

    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """All values k(x_i, y_j), once differentiable in both; memory O(n m), cost O(n m d)."""
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return BlockMatrix.apply(self, x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:]))

    def diagonal(self, x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n"]:
        """The constant profile(0)."""
        return self.profile(x.new_zeros(*x.shape[:-1], 1)).squeeze(-1)

    def resolve(self, z: Float[Tensor, "... n d"], w: Float[Tensor, "... n"]) -> Kernel:
        """The same kernel with its bandwidth as a number (for a batch, a tensor of its shape)."""
        rule = self._bandwidth
        if not isinstance(rule, MedianHeuristic):
            return self
        chosen = rule.choose(z, w, self.separation)
        return self._with(float(chosen) if chosen.numel() == 1 else chosen)

    def members(self, index: slice, of: int) -> Kernel:
        """The kernel of some members of a flat batch: their bandwidths."""
        value = self._bandwidth
        if not isinstance(value, Tensor):
            return self
        if len(value) != of:
            raise ValueError(f"{type(self).__name__} has bandwidths for a batch of {len(value)}, got a batch of {of}")
        return self._with(value[index])

    @property
    def scale_free(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # depends on the option
        """Whether the bandwidth follows the scale of the data."""
        return isinstance(self._bandwidth, MedianHeuristic)

    @property
    def _bandwidth(self) -> Bandwidth | None:
        return getattr(self, self.bandwidth_field) if self.bandwidth_field else None

    def _with(self, bandwidth: Bandwidth) -> RadialKernel:
        assert self.bandwidth_field is not None
        return replace(self, **{self.bandwidth_field: bandwidth})  # type: ignore[type-var]  # subclasses are dataclasses

    def _wide(self, like: Tensor) -> Tensor | float:
        """The bandwidth, shaped to meet a block (..., n, m)."""
        value = self._bandwidth
        if isinstance(value, Tensor):
            return value.to(like)[..., None, None]
        if not isinstance(value, float):
            raise TypeError(f"{self!r} chooses its bandwidth from data: call resolve(z, w) first")
        return value


class BlockMatrix(torch.autograd.Function):
    """A kernel matrix with its closed-form pullback: `BlockMatrix.apply(kernel, x, y)`."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
        values, pullback = kernel.block(x, y)
        ctx.pullback = pullback
        return values

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        gx, gy = ctx.pullback(grads[0])
        return None, gx, gy


@dataclass(frozen=True)
class KernelSum(Kernel):
    """A positive combination sum_k c_k k_k(x, y), written `Gaussian(1.0) + 2.0 * Laplacian(3.0)`.

    `terms` are pairs (c, kernel) with c > 0; ValueError otherwise. Bandwidths that are rules are chosen term by term.
    """

    terms: tuple[tuple[float, Kernel], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a sum of kernels needs at least one term")
        for factor, kernel in self.terms:
            positive(factor, "the factor of a kernel")
            if not isinstance(kernel, Kernel):
                raise TypeError(f"the terms of a sum must be kernels, got {kernel!r}")

    @property
    def translation_invariant(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # depends on the terms
        """Whether every term is."""
        return all(kernel.translation_invariant for _, kernel in self.terms)

    @property
    def scale_free(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # depends on the terms
        """Whether every term is."""
        return all(kernel.scale_free for _, kernel in self.terms)

    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """The sum of the terms' matrices."""
        first, *rest = (factor * kernel.matrix(x, y) for factor, kernel in self.terms)
        return sum(rest, first)

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The sum of the terms' blocks; radial terms of one separation share its matrix."""
        values: Tensor | float = 0.0
        pullbacks: list[Pullback] = []
        shared: dict[SquaredEuclidean | L1, list[tuple[float, RadialKernel]]] = {}
        for factor, kernel in self.terms:
            if isinstance(kernel, RadialKernel):
                shared.setdefault(kernel.separation, []).append((factor, kernel))
            else:
                part, pull = kernel.block(x, y)
                values = values + factor * part
                pullbacks.append(lambda M, factor=factor, pull=pull: pull(factor * M))
        for separation, kernels in shared.items():
            s = separation.matrix(x, y)
            parts = [kernel.profile(s) for _, kernel in kernels]
            for (factor, _), part in zip(kernels, parts, strict=True):
                values = values + factor * part

            def pull_shared(M: Tensor, separation=separation, s=s, kernels=kernels, parts=parts) -> tuple[Tensor, Tensor]:
                terms = zip(kernels, parts, strict=True)
                slope = sum(factor * kernel.slope(s, part) for (factor, kernel), part in terms)
                return separation.pullback(x, y, s, M * slope)

            pullbacks.append(pull_shared)

        def pullback(M: Tensor) -> tuple[Tensor, Tensor]:
            grads = [pull(M) for pull in pullbacks]
            return torch.stack([g for g, _ in grads]).sum(0), torch.stack([g for _, g in grads]).sum(0)

        assert isinstance(values, Tensor)
        return values, pullback

    def diagonal(self, x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n"]:
        """The sum of the terms' diagonals."""
        first, *rest = (factor * kernel.diagonal(x) for factor, kernel in self.terms)
        return sum(rest, first)

    def resolve(self, z: Float[Tensor, "... n d"], w: Float[Tensor, "... n"]) -> Kernel:
        """The sum of the resolved terms."""
        return KernelSum(tuple((factor, kernel.resolve(z, w)) for factor, kernel in self.terms))

    def members(self, index: slice, of: int) -> Kernel:
        """The sum of the terms' members."""
        return KernelSum(tuple((factor, kernel.members(index, of)) for factor, kernel in self.terms))


def log_values(kernel: Kernel, values: Tensor) -> Tensor:
    """The logarithm of kernel values, -inf where they are 0; ValueError where one is negative."""
    if bool((values < 0).any()):
        raise ValueError(
            f"{kernel!r} takes the negative value {float(values.min()):.6g}, which has no logarithm: take a positive "
            "kernel such as Gaussian(), Laplacian() or InverseMultiquadric()"
        )
    return values.log()


def _terms(kernel: Kernel) -> tuple[tuple[float, Kernel], ...]:
    return kernel.terms if isinstance(kernel, KernelSum) else ((1.0, kernel),)
