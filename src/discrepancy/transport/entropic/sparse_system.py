"""The sparsified Newton system of entropic transport, and its solution by conjugate gradients.

    [[diag(P 1), S], [S^T, diag(P^T 1)]] (df, dg) = (a - P 1, b - P^T 1),

S the largest entries of the plan P: the diagonal keeps the full sums, so that the matrix stays positive semidefinite
whatever was dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseSystem:
    """rows and columns (k,) of the kept entries (sorted by row), their values (k,), and the plan's full sums (n,) and (m,)."""

    rows: Tensor
    columns: Tensor
    entries: Tensor
    row_sums: Tensor
    column_sums: Tensor

    def solve(self, of_rows: Tensor, of_columns: Tensor, *, tolerance: float, limit: int) -> tuple[Tensor, Tensor, int]:
        """(df, dg) for the right-hand side, to a relative residual `tolerance`, and the products used: O(n + m + k) each.

        Truncated early it is still an ascent direction, because the matrix is positive semidefinite and the start is zero.
        Points whose sum is zero stay where they are. CPU tensors take a compiled loop, others torch operations.
        """
        if self.entries.device.type == "cpu":
            return self._compiled(of_rows, of_columns, tolerance, limit)
        return self._torch(of_rows, of_columns, tolerance, limit)

    def _compiled(self, of_rows: Tensor, of_columns: Tensor, tolerance: float, limit: int) -> tuple[Tensor, Tensor, int]:
        from discrepancy._loops.sparse_newton import solve

        starts = torch.zeros(len(self.row_sums) + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(self.rows, minlength=len(self.row_sums)).cumsum(0)
        df, dg = torch.empty_like(of_rows), torch.empty_like(of_columns)
        done = solve(
            starts.numpy(),
            self.columns.numpy(),
            self.entries.numpy(),
            self.row_sums.numpy(),
            self.column_sums.numpy(),
            of_rows.clone().numpy(),
            of_columns.clone().numpy(),
            tolerance,
            limit,
            df.numpy(),
            dg.numpy(),
        )
        return df, dg, done

    def _torch(self, of_rows: Tensor, of_columns: Tensor, tolerance: float, limit: int) -> tuple[Tensor, Tensor, int]:
        n = len(of_rows)
        diagonal = torch.cat([self.row_sums, self.column_sums])
        ends = self.columns + n
        inverse = torch.where(diagonal > 0, 1 / torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)), 0.0)
        left = torch.cat([of_rows, of_columns])
        x = torch.zeros_like(left)
        p = left * inverse
        rz, enough = left @ p, tolerance * left.norm()
        done = 0
        while done < limit and bool(rz > 0):
            image = diagonal * p
            image = image.index_add(0, self.rows, self.entries * p[ends]).index_add(0, ends, self.entries * p[self.rows])
            done += 1
            curvature = p @ image
            if not bool(curvature > 0):
                break
            step = rz / curvature
            x, left = x + step * p, left - step * image
            if bool(left.norm() <= enough):
                break
            z = left * inverse
            fresh = left @ z
            p, rz = z + fresh / rz * p, fresh
        return x[:n], x[n:], done


__all__ = ["SparseSystem"]
