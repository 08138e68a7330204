"""The Cauchy-Schwarz mutual information: how far paired rows are from independence, by kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Dependence, PermutedStatistic
from discrepancy._validate import paired_rows, positive
from discrepancy.kernel_methods.dependence.hsic import check_kernels, flat
from discrepancy.kernel_methods.dependence.product_sums import ProductSums
from discrepancy.kernel_methods.streaming import working_dtype
from discrepancy.kernels import Gaussian, Kernel


@dataclass(frozen=True)
class CauchySchwarzInformation(Dependence):
    """I(x, y) = log J + log M - 2 log C, the Cauchy-Schwarz divergence between the joint law and the product of its margins, with

        J = sum_ij w_i w_j K_ij L_ij,   M = (w'Kw) (w'Lw),   C = sum_i w_i (K w)_i (L w)_i.

    Minus twice the log of the cosine of the two embeddings under the kernel k l, whose squared distance J + M - 2 C is HSIC.
    Never negative, and finite where a deterministic map makes Shannon's information infinite. With Gaussian widths s and t it is
    the information of laws smoothed by variances s^2 / 2 and t^2 / 2: for two normals log(1 - r^2 / 4) - log(1 - r^2) / 2,
    r their correlation after smoothing. A V-statistic, biased upward by O(1/n) over the kernels' means: independent normals in
    3 + 3 dimensions at n = 64 and width 1 give about 0.22. Compare at equal n and widths only, or judge by `independence_test`.

    normalized: I(x, y) / sqrt(I(x, x) I(y, y)) instead, about in [0, 1], 0 where a side is constant.
    kernel_x, kernel_y: positive kernels; a bandwidth that is a rule is chosen for each side by itself, detached, so that
    rescaling a side changes nothing. memory: GiB for the two matrices of a permutation test; above, they are streamed each time.
    Weights as repeated rows; differentiable once in x, y and weights. Time O(n^2 (d1 + d2)), memory linear in n, backward pass
    included. The log2 of some code is this divided by log 2. Raises TypeError unless both are kernels, ValueError for rows
    that are not paired or a sum of kernel values that is not positive.
    Source: Yu, Yu, Lokse, Jenssen and Principe (2024); Principe, Xu, Zhao and Fisher (2000).
    """

    kernel_x: Kernel = field(default_factory=Gaussian)
    kernel_y: Kernel = field(default_factory=Gaussian)
    normalized: bool = False
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("cs-information-bottleneck", "principe-2000")

    def __post_init__(self) -> None:
        """Check the options."""
        check_kernels(self.kernel_x, self.kernel_y)
        if not isinstance(self.normalized, bool):
            raise TypeError(f"normalized must be True or False, got {self.normalized!r}")
        positive(self.memory, "memory")

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """Bandwidths and both matrices once; each permutation costs n^2, the norm of `normalized` nothing."""
        left, right, w = paired_rows(x, y)
        n = left.shape[0]
        if 2 * 8 * n**2 > self.memory * 2**30:
            return super().permuted(left, right, generator=generator)
        with torch.no_grad():
            kernel_x, kernel_y = self.kernel_x.resolve(left, w), self.kernel_y.resolve(right, w)
            dtype = working_dtype(left)
            K, L = kernel_x.matrix(left.to(dtype), left.to(dtype)), kernel_y.matrix(right.to(dtype), right.to(dtype))
            r, s = K.mean(1), L.mean(1)
            margins = torch.stack([r.mean() * s.mean()])
            norm = self._norm(kernel_x, kernel_y, *flat(left, right, w)) if self.normalized else torch.ones_like(margins)

        def statistic(order: Tensor) -> Tensor:
            joint = torch.stack([(K * L[row[:, None], row]).sum() / n**2 for row in order])
            across = torch.stack([(r * s[row]).mean() for row in order])
            return _ratio(_information(joint, margins, across), norm).to(left.dtype)

        return torch.no_grad()(statistic)

    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        left, right, mass = flat(x, y, w)
        with torch.no_grad():
            kernel_x, kernel_y = self.kernel_x.resolve(left, mass), self.kernel_y.resolve(right, mass)
        value = _streamed(kernel_x, kernel_y, left, right, mass)
        if self.normalized:
            value = _ratio(value, self._norm(kernel_x, kernel_y, left, right, mass))
        return value.reshape(x.shape[:-2]).to(x.dtype)

    @staticmethod
    def _norm(kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        own = [_streamed(k, k, t, t, w) for k, t in ((kernel_x, x), (kernel_y, y))]
        # Roots one by one, and of zero with a gradient of zero: a constant side has no information of its own.
        roots = [torch.where(v > 0, torch.where(v > 0, v, torch.ones_like(v)).sqrt(), torch.zeros_like(v)) for v in own]
        return roots[0] * roots[1]


def _streamed(kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    joint, across, own_x, own_y = ProductSums.apply(kernel_x, kernel_y, x, y, w)
    return _information(joint, own_x * own_y, across)


def _information(joint: Tensor, margins: Tensor, across: Tensor) -> Tensor:
    """log J + log M - 2 log C, not below 0."""
    least = min(float(t.detach().min()) for t in (joint, margins, across))
    if not least > 0:
        raise ValueError(
            f"a sum of kernel values is {least:.6g}: the kernels must be positive, such as Gaussian() or Laplacian()"
        )
    return (joint.log() + margins.log() - 2 * across.log()).clamp_min(0.0)


# Information of a side with itself up to this is that of a constant: rounding, which must not become a denominator.
_NOTHING = 1e-12


def _ratio(value: Tensor, norm: Tensor) -> Tensor:
    """value / norm, and 0 where there is nothing to be shared."""
    defined = norm > _NOTHING
    return torch.where(defined, value / torch.where(defined, norm, torch.ones_like(norm)), torch.zeros_like(value))


__all__ = ["CauchySchwarzInformation"]
