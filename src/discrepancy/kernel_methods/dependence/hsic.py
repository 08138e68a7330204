"""The Hilbert-Schmidt independence criterion and the distance covariance: one statistic, two families of kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Dependence, PermutedStatistic
from discrepancy._validate import paired_rows, positive
from discrepancy.kernel_methods.dependence.centred import CentredSum, centred_matrix
from discrepancy.kernels import Gaussian, Kernel, Linear, NegativeDistance


def check_kernels(kernel_x: Any, kernel_y: Any) -> None:
    """Raise TypeError unless both are kernels."""
    for name, kernel in (("kernel_x", kernel_x), ("kernel_y", kernel_y)):
        if not isinstance(kernel, Kernel):
            raise TypeError(f"{name} must be a kernel such as Gaussian() or Linear(), got {kernel!r}")


def centred_product(kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """sum_ij w_i w_j Kc_ij Lc_ij (B,) in float64, for x (B, n, d1), y (B, n, d2), w (B, n) with sum one.

    Two linear kernels take the squared Frobenius norm of the cross-covariance where that is cheaper: O(n d1 d2), differentiable
    as often as wanted. Bandwidths that are rules are chosen for each side by itself, detached.
    """
    if isinstance(kernel_x, Linear) and isinstance(kernel_y, Linear) and _by_features(x, y):
        return cross_covariance(x, y, w).square().sum((-2, -1))
    with torch.no_grad():
        kernel_x, kernel_y = kernel_x.resolve(x, w), kernel_y.resolve(y, w)
    return CentredSum.apply(kernel_x, kernel_y, x, y, w)


def _by_features(x: Tensor, y: Tensor) -> bool:
    """Whether the d1 x d2 cross-covariance is cheaper than the n x n matrices."""
    n, left, right = x.shape[-2], x.shape[-1], y.shape[-1]
    return left * right <= n * (left + right)


def cross_covariance(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """sum_i w_i (x_i - mean)(y_i - mean)^T, (B, d1, d2) in float64."""
    x, y, w = x.double(), y.double(), w.double()[..., None]
    x, y = x - (w * x).sum(-2, keepdim=True), y - (w * y).sum(-2, keepdim=True)
    return (w * x).mT @ y


def permuted_product(kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor) -> PermutedStatistic:
    """centred_product of x (n, d1) with permuted rows of y (n, d2): both centred matrices once, then n^2 a permutation."""
    n = x.shape[0]
    if isinstance(kernel_x, Linear) and isinstance(kernel_y, Linear) and _by_features(x, y):
        left, right = (t.double() - t.double().mean(0) for t in (x, y))
        return lambda order: torch.stack([((left.T @ right[row]) / n).square().sum() for row in order])
    K, L = centred_matrix(kernel_x, x), centred_matrix(kernel_y, y)
    return lambda order: torch.stack([(K * L[row[:, None], row]).sum() / n**2 for row in order])


def flat(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Paired rows on a flat batch, weights with sum one in float64."""
    mass = w.reshape(-1, w.shape[-1]).double()
    return x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:]), mass / mass.sum(-1, keepdim=True)


def _permuted(
    M: Dependence, kernel_x: Kernel, kernel_y: Kernel, memory: float, x: Any, y: Any, generator: torch.Generator | None
) -> PermutedStatistic:
    left, right, w = paired_rows(x, y)
    if 2 * 8 * left.shape[0] ** 2 > memory * 2**30:  # the matrices do not fit: their sums are streamed anew for each permutation
        return Dependence.permuted(M, left, right, generator=generator)
    with torch.no_grad():
        form = permuted_product(kernel_x.resolve(left, w), kernel_y.resolve(right, w), left.detach(), right.detach())
    return torch.no_grad()(lambda order: form(order).to(left.dtype))


@dataclass(frozen=True)
class HSIC(Dependence):
    """HSIC(x, y) = sum_ij w_i w_j Kc_ij Lc_ij, Kc and Lc the centred kernel matrices of the two sides: a V-statistic.

    The squared Hilbert-Schmidt norm of the cross-covariance of the embeddings, equally the squared MMD between the joint law and
    the product of its margins under the kernel k(x, x') l(y, y'). Never negative; in the limit zero exactly under
    independence where both kernels are characteristic (the default Gaussians with their median bandwidths). Its expectation
    exceeds the population's by O(1/n): judge it by `independence_test`.

    kernel_x, kernel_y: kernels as objects; a bandwidth that is a rule is chosen for each side by itself, detached. memory: GiB
    that the two matrices of a permutation test may take; above, they are streamed for every permutation.
    Weights as repeated rows; differentiable once in x, y and weights. Time O(n^2 (d1 + d2)), memory linear in n, backward pass
    included. Raises TypeError unless both kernels are kernels, ValueError for rows that are not paired.
    Source: Gretton, Bousquet, Smola and Schoelkopf (2005).
    """

    kernel_x: Kernel = field(default_factory=Gaussian)
    kernel_y: Kernel = field(default_factory=Gaussian)
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("gretton-2005",)

    def __post_init__(self) -> None:
        """Check the options."""
        check_kernels(self.kernel_x, self.kernel_y)
        positive(self.memory, "memory")

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """Bandwidths and both centred matrices once; each permutation costs n^2."""
        return _permuted(self, self.kernel_x, self.kernel_y, self.memory, x, y, generator)

    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        value = centred_product(self.kernel_x, self.kernel_y, *flat(x, y, w))
        return value.reshape(x.shape[:-2]).to(x.dtype)


@dataclass(frozen=True)
class DistanceCovariance(Dependence):
    """The squared distance covariance sum_ij w_i w_j A_ij B_ij, A and B the centred matrices of |x_i - x_j|^e and |y_i - y_j|^e.

    A V-statistic, HSIC with the kernel -|x - x'|^e: never negative, and in the limit zero exactly under independence. In units of
    x^e y^e: unchanged by shifts and rotations of either side, and homogeneous of degree e in each. Divided by the root of the two
    variances it is the squared distance correlation, `CKA(NegativeDistance(), NegativeDistance())`.

    `exponent` e strictly between 0 and 2; memory as in `HSIC`. Gradient zero between points that coincide. Time
    O(n^2 (d1 + d2)), memory linear in n. Raises ValueError for an exponent out of range.
    Source: Szekely, Rizzo and Bakirov (2007).
    """

    exponent: float = 1.0
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("szekely-rizzo-bakirov-2007",)

    def __post_init__(self) -> None:
        """Check the options."""
        NegativeDistance(self.exponent)  # states the rule for the exponent
        positive(self.memory, "memory")

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """Both centred matrices once; each permutation costs n^2."""
        kernel = NegativeDistance(self.exponent)
        return _permuted(self, kernel, kernel, self.memory, x, y, generator)

    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        kernel = NegativeDistance(self.exponent)
        return centred_product(kernel, kernel, *flat(x, y, w)).reshape(x.shape[:-2]).to(x.dtype)


__all__ = ["HSIC", "DistanceCovariance", "centred_product", "check_kernels", "flat", "permuted_product"]
