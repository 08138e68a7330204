"""The logarithm of a positive kernel: sums of kernel values then never underflow, however far apart the points are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy.kernels.kernel import BlockMatrix, Kernel, KernelSum, Pullback, RadialKernel, log_values


@dataclass(frozen=True)
class LogKernel(Kernel):
    """log k(x, y) for a positive kernel k, as blocks with exact pullbacks; no kernel itself.

    Radial families have closed forms (-|x - y|^2 / (2 h^2) for the Gaussian), sums of kernels go through logsumexp of their
    terms; of any other kernel the values' logarithm is taken, -inf where they underflow. Raises ValueError at a negative value.
    """

    kernel: Kernel

    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """All log k(x_i, y_j), once differentiable in both; memory O(n m)."""
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return BlockMatrix.apply(self, x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:]))

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The logarithms of a block and their pullback."""
        kernel = self.kernel
        if isinstance(kernel, RadialKernel):
            separation = kernel.separation
            s = separation.matrix(x, y)
            return kernel.log_profile(s), lambda M: separation.pullback(x, y, s, M * kernel.log_slope(s))
        if isinstance(kernel, KernelSum):
            return _sum_block(kernel, x, y)
        values, pull = kernel.block(x, y)
        inverse = torch.where(values > 0, 1 / values, torch.zeros_like(values))
        return log_values(kernel, values), lambda M: pull(M * inverse)

    def resolve(self, z: Float[Tensor, "... n d"], w: Float[Tensor, "... n"]) -> Kernel:
        """The logarithm of the resolved kernel."""
        return LogKernel(self.kernel.resolve(z, w))

    def members(self, index: slice, of: int) -> Kernel:
        """The logarithm of the members' kernel."""
        return LogKernel(self.kernel.members(index, of))


def _sum_block(kernel: KernelSum, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
    """log sum_k c_k k_k: each term weighs in the pullback by its share of the sum."""
    found = [(math.log(factor), *LogKernel(term).block(x, y)) for factor, term in kernel.terms]
    parts = torch.stack([shift + values for shift, values, _ in found])
    total = torch.logsumexp(parts, 0)
    shares = torch.where(total == -torch.inf, torch.zeros_like(parts), torch.exp(parts - total))

    def pullback(M: Tensor) -> tuple[Tensor, Tensor]:
        grads = [pull(M * share) for share, (_, _, pull) in zip(shares, found, strict=True)]
        return torch.stack([g for g, _ in grads]).sum(0), torch.stack([g for _, g in grads]).sum(0)

    return total, pullback


__all__ = ["LogKernel"]
