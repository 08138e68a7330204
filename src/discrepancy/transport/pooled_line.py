"""W_p^p of many weightings of one cloud along one or many lines: each line is sorted once, each weighting is one pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.line import sorted_costs

_CHUNK = 1 << 24  # entries of one block of weight rows on devices without a loop


class PooledLines:
    """A cloud's projections (L, N), sorted; called on weight rows A, B (R, N) it returns W_p^p for each, (R, L) in float64.

    For p = 1 that is sum_k gap_k |cumulative weight difference|, which takes signed rows and sees A - B only.
    Time L N log N once, then R L N; memory L N for the sorted lines (recomputed never) and R N for the rows.
    """

    def __init__(self, lines: Tensor, p: float) -> None:
        """Sort the lines (L, N)."""
        self.p = p
        self.lines = lines.detach()
        self.values, self.order = torch.sort(self.lines.double(), dim=-1) if lines.device.type != "cpu" else (None, None)
        if self.values is None:
            from discrepancy._loops.sorting import sort_rows_with_order

            values, self._order = sort_rows_with_order(self.lines.contiguous().numpy())
            self._values = values.astype(np.float64)

    def __call__(self, A: Tensor, B: Tensor) -> Tensor:
        """W_p^p (W_inf for p = inf) between the weightings A (R, N) and B (R, N) along each line, (R, L)."""
        n = self.lines.shape[-1]
        if A.shape != B.shape or A.ndim != 2 or A.shape[-1] != n:
            raise ValueError(f"weight rows must both have shape (R, {n}), got {tuple(A.shape)} and {tuple(B.shape)}")
        A, B = A.detach().double(), B.detach().double()
        return self._looped(A, B) if self.values is None else self._dense(A, B)

    def _looped(self, A: Tensor, B: Tensor) -> Tensor:
        from discrepancy._loops import quantile

        out = np.zeros((len(self._values), A.shape[0]))
        if self.p == 1:
            difference = (A - B).contiguous().numpy()
            for line, z, order in zip(out, self._values, self._order, strict=True):
                quantile.pooled_norm(difference, z, order, line)
        else:
            left, right = A.contiguous().numpy(), B.contiguous().numpy()
            for line, z, order in zip(out, self._values, self._order, strict=True):
                quantile.pooled_power(left, right, z, order, float(self.p), 1e-12, line)
        return torch.from_numpy(out).mT

    def _dense(self, A: Tensor, B: Tensor) -> Tensor:
        assert self.values is not None
        assert self.order is not None
        step = max(1, _CHUNK // self.lines.shape[-1])
        out = torch.empty(A.shape[0], self.lines.shape[0], dtype=torch.float64, device=A.device)
        for start in range(0, A.shape[0], step):
            rows = slice(start, start + step)
            for line, (z, order) in enumerate(zip(self.values, self.order, strict=True)):
                if self.p == 1:
                    level = (A[rows] - B[rows])[:, order].cumsum(-1)[:, :-1]
                    out[rows, line] = level.abs() @ z.diff()
                else:
                    spread = z.expand(A[rows].shape[0], -1)
                    out[rows, line] = sorted_costs(
                        spread, spread, A[rows][:, order], B[rows][:, order], self.p, False, False
                    ).cost
        return out


__all__ = ["PooledLines"]
