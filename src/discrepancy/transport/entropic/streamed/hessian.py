"""The curvature of the semi-dual at one point, as products: from kept entries of the plan where they are few, else streamed.

Entries of a row's shares below `threshold` are left out. That makes the curvature larger, never indefinite, by what is left
out; it decides how fast Newton's method converges and not where to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from discrepancy._loops.threads import in_parallel
from discrepancy.transport.entropic.streamed.newton import jacobi
from discrepancy.transport.entropic.streamed.passes import StreamedPairs

# Bytes of one kept entry: its value and its column.
_ENTRY = 12


@dataclass(frozen=True)
class _Rows:
    """Some consecutive rows of the plan, in the order of the row cloud from row `first`; columns in that of the column cloud."""

    first: int
    starts: np.ndarray
    indices: np.ndarray
    values: np.ndarray


class StreamedCurvature:
    """p -> Q^T (a * (Q p)) for the shares Q_ij = 2^(v_j - s c_ij - logs_i), which sum to one in each row.

    `room` is how many bytes may be taken by kept entries; `entries` how many are kept, None where products are streamed.
    """

    def __init__(self, stream: StreamedPairs, logs: np.ndarray, v: np.ndarray, scale: float, threshold: float, room: int) -> None:
        self.stream, self.u, self.v, self.scale = stream, -logs, v, scale
        self.cut = -math.log2(threshold)
        self.rows = self._kept(threshold, room // _ENTRY)
        self.entries = None if self.rows is None else sum(len(r.values) for r in self.rows)

    def _kept(self, threshold: float, room: int) -> list[_Rows] | None:
        from discrepancy._loops.entropic_points.sparse_plan import sparse_rows

        stream, down = self.stream, self.stream.left.heavy
        if room < down.size:
            return None
        u, found = down.gathered(self.u), []
        kept = 0
        # One range after the other, so that a plan that does not fit is given up early.
        for r in stream.ranges(stream.left, stream.right, self.scale, self.v, most=max(1, down.blocks // 8)):
            pieces: dict[int, _Rows | None] = {}
            share = max(room // 32, 2 * stream.right.heavy.size)

            def work(
                k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any,
                pieces: dict[int, _Rows | None] = pieces, share: int = share,
            ) -> None:  # fmt: skip
                starts = np.empty(cloud.starts[last] - cloud.starts[first] + 1, np.int64)
                indices, values = np.empty(share, np.int32), np.empty(share)
                size = sparse_rows(
                    ground, cloud, first, last, other, v, tops, self.cut, tile, u, threshold, starts, indices, values
                )
                full = None if size < 0 else _Rows(int(cloud.starts[first]), starts, indices[:size].copy(), values[:size].copy())
                pieces[k] = full

            r.spread(work)
            for k in sorted(pieces):
                piece = pieces[k]
                if piece is None:
                    return None
                found.append(piece)
                kept += len(piece.values)
            if kept > room:
                return None
        return found

    def product(self, p: np.ndarray) -> np.ndarray:
        """Q^T (a * (Q p)) (m,)."""
        stream = self.stream
        if self.rows is None:
            return stream.normal_product(self.u, self.v, self.scale, stream.left.weights, p, cut=self.cut)
        from discrepancy._loops.entropic_points.sparse_plan import sparse_normal_product

        weights, p = stream.left.heavy.gathered(stream.left.weights), stream.right.heavy.gathered(p)
        parts = [self.rows[k::8] for k in range(8)]
        totals = np.zeros((len(parts), p.size))

        def work(k: int) -> None:
            for r in parts[k]:
                inverse = weights[r.first : r.first + r.starts.size - 1]
                sparse_normal_product(r.starts, r.indices, r.values, inverse, p, totals[k])

        in_parallel(work, range(len(parts)))
        return stream.right.heavy.scattered(totals.sum(0), len(stream.right.weights))

    def preconditioner(self, diagonal: np.ndarray, squares: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse diagonal, plus the inverse of the system summed over groups of neighbouring columns: smooth errors, of
        which the diagonal knows nothing, live there. Rounding may leave that indefinite: then it is left out."""
        scale, (groups, count), heavy = jacobi(diagonal, squares), self.stream.groups(), self.stream.right.weights > 0
        sums = np.bincount(groups, weights=diagonal, minlength=count)
        # Adding c c^T / 1 lifts the one direction without curvature, the constants, in which no residual lies.
        system = np.diag(sums) - self.coarse(groups, count) + np.outer(sums, sums) / max(float(sums.sum()), 1e-300)
        lifted = torch.from_numpy(system)
        lifted.diagonal().add_(1e-12 * float(lifted.diagonal().max()))
        factor, failed = torch.linalg.cholesky_ex(lifted)
        if int(failed):
            return lambda r: r * scale
        coarse = torch.cholesky_inverse(factor).numpy()
        return lambda r: r * scale + (coarse @ np.bincount(groups, weights=r, minlength=count))[groups] * heavy

    def coarse(self, groups: np.ndarray, count: int) -> np.ndarray:
        """Z^T Q^T diag(a) Q Z (count, count) with Z the indicators of groups (m,) of columns."""
        stream, a = self.stream, self.stream.left.weights
        if self.rows is None:
            return stream.coarse_curvature(self.u, self.v, self.scale, a, groups, count, cut=self.cut)
        from discrepancy._loops.entropic_points.sparse_plan import sparse_group_sums

        total, groups = torch.zeros(count, count, dtype=torch.float64), stream.right.heavy.gathered(groups)
        weights = torch.from_numpy(stream.left.heavy.gathered(a))
        for r in self.rows:
            sums = torch.empty(r.starts.size - 1, count, dtype=torch.float64)
            sparse_group_sums(r.starts, r.indices, r.values, groups, sums.numpy())
            total.addmm_(sums.mT, sums * weights[r.first : r.first + len(sums), None])
        return total.numpy()


__all__ = ["StreamedCurvature"]
