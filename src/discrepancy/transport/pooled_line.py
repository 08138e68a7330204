"""W_p^p of many weightings of one cloud along one or many lines: each line is sorted once, each weighting is one pass."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.line import sorted_costs

_CHUNK = 1 << 24  # entries of one block of weight rows on devices without a loop


class PooledLines:
    """A cloud's projections (L, N), sorted; called on weight rows A, B (R, N) it returns the mean over lines of W_p^p, (R,) in float64.

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
        """The mean over the lines of W_p^p between the weightings A (R, N) and B (R, N)."""
        n = self.lines.shape[-1]
        if A.shape != B.shape or A.ndim != 2 or A.shape[-1] != n:
            raise ValueError(f"weight rows must both have shape (R, {n}), got {tuple(A.shape)} and {tuple(B.shape)}")
        A, B = A.detach().double(), B.detach().double()
        total = self._looped(A, B) if self.values is None else self._dense(A, B)
        return total if math.isinf(self.p) else total / self.lines.shape[0]

    def _looped(self, A: Tensor, B: Tensor) -> Tensor:
        from discrepancy._loops import quantile

        out = np.zeros(A.shape[0])
        if self.p == 1:
            difference = (A - B).cpu().numpy()
            for z, order in zip(self._values, self._order, strict=True):
                quantile.pooled_norm(difference, z, order, out)
        else:
            left, right = A.cpu().contiguous().numpy(), B.cpu().contiguous().numpy()
            for z, order in zip(self._values, self._order, strict=True):
                quantile.pooled_power(left, right, z, order, float(self.p), 1e-12, out)
        return torch.from_numpy(out)

    def _dense(self, A: Tensor, B: Tensor) -> Tensor:
        assert self.values is not None
        assert self.order is not None
        step = max(1, _CHUNK // self.lines.shape[-1])
        out = []
        for rows_a, rows_b in zip(A.split(step), B.split(step), strict=True):
            total = torch.zeros(rows_a.shape[0], dtype=torch.float64, device=A.device)
            for z, order in zip(self.values, self.order, strict=True):
                if self.p == 1:
                    level = (rows_a - rows_b)[:, order].cumsum(-1)[:, :-1]
                    total += level.abs() @ z.diff()
                    continue
                spread = z.expand(rows_a.shape[0], -1)
                cost = sorted_costs(spread, spread, rows_a[:, order], rows_b[:, order], self.p, False, False).cost
                total = torch.maximum(total, cost) if math.isinf(self.p) else total + cost
            out.append(total)
        return torch.cat(out)


__all__ = ["PooledLines"]
