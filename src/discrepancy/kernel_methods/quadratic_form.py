"""The pooled statistics: quadratic forms of many weight rows in one kernel matrix, as matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.kernel_methods.streaming import blocks, working_dtype
from discrepancy.kernels.kernel import Kernel


class QuadraticForm:
    """Products of weight rows with the kernel matrix of one cloud z (N, d).

    The matrix is kept in the cloud's dtype if it fits in `memory` GiB, and computed again block by block at each call
    if not. What is kept has `shift` = (r_i + r_j - mean) subtracted, r the row means: the products of weight rows that
    nearly cancel then lose no digits in float32, and the shift is added back exactly.
    Building costs O(N^2 d), a product of R rows O(R N^2).
    """

    def __init__(self, kernel: Kernel, z: Tensor, memory: float) -> None:
        self.kernel, self.z = kernel, z.detach()
        n = len(z)
        self.diagonal = kernel.diagonal(self.z.to(working_dtype(z))).detach()
        self.row_means = torch.zeros(n, dtype=working_dtype(z), device=z.device)
        self.matrix: Tensor | None = None
        if n * n * z.element_size() <= memory * 2**30:
            self.matrix = self._build()

    def _build(self) -> Tensor:
        n = len(self.z)
        sums = self.diagonal.clone()
        for block in blocks(self.kernel, self.z[None]):
            sums[block.rows] += block.values[0].sum(1)
            if not block.diagonal:
                sums[block.columns] += block.values[0].sum(0)
        self.row_means = sums / n
        kept = torch.empty(n, n, dtype=self.z.dtype, device=self.z.device)
        for block in blocks(self.kernel, self.z[None]):
            values = block.values[0]
            if block.diagonal:
                values.diagonal().copy_(self.diagonal[block.rows])
            shifted = (values - self._shift(block.rows, block.columns)).to(kept.dtype)
            kept[block.rows, block.columns] = shifted
            kept[block.columns, block.rows] = shifted.T
        return kept

    def _shift(self, rows: slice, columns: slice) -> Tensor:
        left, right = self.row_means[rows], self.row_means[columns]
        return left[:, None] + right[None, :] - self.row_means.mean()

    def _products(self, A: Tensor) -> Tensor:
        """A K with the shift still subtracted, in float64."""
        if self.matrix is not None:
            return (A.to(self.matrix.dtype) @ self.matrix).to(working_dtype(self.z))
        A = A.to(working_dtype(self.z))
        out = A * self.diagonal
        for block in blocks(self.kernel, self.z[None]):
            out[:, block.columns] += A[:, block.rows] @ block.values[0]
            if not block.diagonal:
                out[:, block.rows] += A[:, block.columns] @ block.values[0].T
        return out

    def _restore(self, form: Tensor, A: Tensor, B: Tensor) -> Tensor:
        """Add a' shift b back to a' (K - shift) b."""
        mass_a, mass_b = A.sum(-1), B.sum(-1)
        rows = mass_b * (A @ self.row_means) + mass_a * (B @ self.row_means)
        return form + rows - mass_a * mass_b * self.row_means.mean()

    def squared_norm(self, C: Tensor) -> Tensor:
        """c' K c for each row c of C (R, N), not below 0."""
        C = C.to(working_dtype(self.z))
        return self._restore((self._products(C) * C).sum(-1), C, C).clamp_min(0.0)

    def inner_products(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a'Ka, b'Kb and a'Kb for each pair of rows of A and B (R, N), in float64."""
        A, B = A.to(working_dtype(self.z)), B.to(working_dtype(self.z))
        products = self._products(A)
        own_b = self._restore((self._products(B) * B).sum(-1), B, B)
        return self._restore((products * A).sum(-1), A, A), own_b, self._restore((products * B).sum(-1), A, B)

    def unbiased(self, A: Tensor, B: Tensor) -> Tensor:
        """The U-statistics of weight rows A against B, both (R, N).

        Raises ValueError where a row has its mass on one point. Two products, or one where every row of B is the complement
        of that of A (a split of equal weights), because then A K and the column sums give B K.
        """
        A, B = A.to(working_dtype(self.z)), B.to(working_dtype(self.z))
        products_a = self._products(A)
        scale = _complement(A, B)
        if scale is None:
            products_b = self._products(B)
        else:
            total = self._products(torch.ones_like(A[:1]))
            products_b = (total - scale[0] * products_a) / scale[1]
        within_a = self._within(self._restore((products_a * A).sum(-1), A, A), A)
        within_b = self._within(self._restore((products_b * B).sum(-1), B, B), B)
        return within_a + within_b - 2 * self._restore((products_a * B).sum(-1), A, B)

    def _within(self, form: Tensor, A: Tensor) -> Tensor:
        pairs = require_pairs(A, "a row of weights")
        return (form - A.square() @ self.diagonal) / pairs


def _complement(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor] | None:
    """Factors (R, 1) with alpha A + beta B = 1 everywhere, or None."""
    alpha, beta = 1 / A.amax(1, keepdim=True), 1 / B.amax(1, keepdim=True)
    whole = alpha * A + beta * B
    return (alpha, beta) if bool(((whole - 1).abs() <= 8 * torch.finfo(A.dtype).eps).all()) else None


def require_pairs(a: Tensor, name: str) -> Tensor:
    """1 - sum a_i^2, the mass of the pairs of distinct points (...); ValueError where there is none."""
    pairs = (a * (1 - a)).sum(-1)
    if bool((pairs.detach() <= a.shape[-1] * torch.finfo(a.dtype).eps).any()):
        raise ValueError(
            f"the unbiased MMD needs two points of positive weight in each sample, and {name} has only one: use MMD(biased=True)"
        )
    return pairs
