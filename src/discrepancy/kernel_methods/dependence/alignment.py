"""Centred kernel alignment: how alike two representations of the same rows are, on a sample or averaged over minibatches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Dependence, PermutedStatistic
from discrepancy._results import Estimate
from discrepancy._validate import paired_rows, positive
from discrepancy.kernel_methods.dependence.hsic import centred_product, check_kernels, flat, permuted_product
from discrepancy.kernels import Kernel, Linear


@dataclass(frozen=True)
class CKA(Dependence):
    """CKA(x, y) = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), between 0 and 1: the cosine of the two centred kernel matrices.

    With linear kernels (the default) it is |X'Y|_F^2 / (|X'X|_F |Y'Y|_F) of the centred features: unchanged by shifts, rotations
    and one scale of either side, and by no other linear map. With `NegativeDistance()` it is the squared distance correlation.
    A side that is constant has no kernel matrix to align: the value is then 0, with gradient zero.
    As a V-statistic it is biased upward, most where features outnumber rows: `minibatch_cka` is not.

    kernel_x, kernel_y and memory as in `HSIC`; differentiable in x, y and weights. Time O(n d1 d2) for linear kernels on many
    rows, else O(n^2 (d1 + d2)); memory linear in n. Raises TypeError unless both are kernels.
    Source: Kornblith, Norouzi, Lee and Hinton (2019).
    """

    kernel_x: Kernel = field(default_factory=Linear)
    kernel_y: Kernel = field(default_factory=Linear)
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("kornblith-2019",)

    def __post_init__(self) -> None:
        """Check the options."""
        check_kernels(self.kernel_x, self.kernel_y)
        positive(self.memory, "memory")

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """The two norms do not change when rows do: one centred product a permutation."""
        left, right, w = paired_rows(x, y)
        if 2 * 8 * left.shape[0] ** 2 > self.memory * 2**30:
            return super().permuted(left, right, generator=generator)
        with torch.no_grad():
            kernel_x, kernel_y = self.kernel_x.resolve(left, w), self.kernel_y.resolve(right, w)
            rows = flat(left, right, w)
            own_x = centred_product(kernel_x, kernel_x, rows[0], rows[0], rows[2])[0]
            own_y = centred_product(kernel_y, kernel_y, rows[1], rows[1], rows[2])[0]
            form = permuted_product(kernel_x, kernel_y, left.detach(), right.detach())
        return torch.no_grad()(lambda order: _cosine(form(order), own_x, own_y).to(left.dtype))

    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        left, right, mass = flat(x, y, w)
        with torch.no_grad():
            kernel_x, kernel_y = self.kernel_x.resolve(left, mass), self.kernel_y.resolve(right, mass)
        value = _cosine(
            centred_product(kernel_x, kernel_y, left, right, mass),
            centred_product(kernel_x, kernel_x, left, left, mass),
            centred_product(kernel_y, kernel_y, right, right, mass),
        )
        return value.reshape(x.shape[:-2]).to(x.dtype)


def _cosine(across: Tensor, own_x: Tensor, own_y: Tensor) -> Tensor:
    """across / sqrt(own_x own_y), and 0 where either own product is 0."""
    defined = (own_x > 0) & (own_y > 0)
    one = torch.ones_like(own_x)
    # Roots one by one: the product of two small norms underflows.
    size = torch.where(defined, own_x, one).sqrt() * torch.where(defined, own_y, one).sqrt()
    return torch.where(defined, across / size, torch.zeros_like(across)).clamp_max(1.0)


def _unbiased(kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """The unbiased HSIC of n >= 4 rows: matrices without their diagonals, n^2 memory."""
    n = x.shape[0]
    K, L = (kernel.matrix(t.double(), t.double()) for kernel, t in ((kernel_x, x), (kernel_y, y)))
    off = ~torch.eye(n, dtype=torch.bool, device=x.device)
    K, L = K * off, L * off
    rows_k, rows_l = K.sum(1), L.sum(1)
    total = (K * L).sum() + rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows_k * rows_l).sum()
    return total / (n * (n - 3))


@torch.no_grad()
def minibatch_cka(batches: Iterable[tuple[Any, Any]], kernel_x: Kernel | None = None, kernel_y: Kernel | None = None) -> Estimate:
    """CKA of more rows than fit at once: mean HSIC_u(x, y) / sqrt(mean HSIC_u(x, x) mean HSIC_u(y, y)) over minibatches.

    HSIC_u is the unbiased statistic of a batch, so that the three means converge to the population's values whatever the batch
    size, unlike a mean of CKA values; the ratio's own bias is O(1 / number of batches). Batches (x (n, d1), y (n, d2)) have at
    least 4 rows each; kernels (default `Linear()`) must have bandwidths that are numbers. The standard error is that of the
    jackknife over batches (None for a single one). The value may leave [0, 1] by noise. Raises ValueError for a small batch,
    none at all, or a mean of own products that is not positive, TypeError for a kernel that chooses from data.
    Source: Song, Smola, Gretton, Bedo and Borgwardt (2012); Nguyen, Raghu and Kornblith (2021).
    """
    left_kernel, right_kernel = kernel_x or Linear(), kernel_y or Linear()
    check_kernels(left_kernel, right_kernel)
    sums: list[Tensor] = []
    for k, (x, y) in enumerate(batches):
        left, right, w = paired_rows(x, y)
        if left.ndim != 2 or left.shape[0] < 4:
            raise ValueError(f"batch {k} must have at least 4 rows (n, d), got shape {tuple(left.shape)}")
        if left_kernel.resolve(left, w) is not left_kernel or right_kernel.resolve(right, w) is not right_kernel:
            raise TypeError("a bandwidth chosen batch by batch gives each its own kernel: fix it, Gaussian(1.0)")
        pairs = ((left, right, left_kernel, right_kernel), (left, left, left_kernel, left_kernel))
        pairs = (*pairs, (right, right, right_kernel, right_kernel))
        sums.append(torch.stack([_unbiased(p, q, u, v) for u, v, p, q in pairs]))
    if not sums:
        raise ValueError("batches is empty: give at least one pair (x, y)")
    each = torch.stack(sums)
    total = each.sum(0)
    if not bool((total[1:] > 0).all()):
        raise ValueError(f"a mean own product is not positive ({(total[1:] / len(sums)).tolist()}): larger or more batches")
    value = float(total[0] / (total[1] * total[2]).sqrt())
    size = len(sums)
    error = None
    if size > 1:
        rest = total - each
        left_out = rest[:, 0] / (rest[:, 1] * rest[:, 2]).clamp_min(0).sqrt()
        if bool(torch.isfinite(left_out).all()):
            error = math.sqrt((size - 1) / size * float((left_out - left_out.mean()).square().sum()))
    note = None if error is not None else "no standard error: the jackknife needs batches that can be left out"
    return Estimate(value, error, method=f"minibatch CKA over {size} batches, {left_kernel!r}, {right_kernel!r}", note=note)


__all__ = ["CKA", "minibatch_cka"]
