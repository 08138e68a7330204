"""A problem between two clouds as the ladder climbs it: passes, curvature, and the same problem with fewer points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from discrepancy.costs import Cost
from discrepancy.transport.entropic.streamed.coarse import summarise
from discrepancy.transport.entropic.streamed.hessian import StreamedCurvature
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, Evaluation, StreamedPairs

# Clouds of more points are first solved with an eighth of the points, down to half of this many.
_SMALL, _FEWER = 2048, 8
# Cell means are trusted down to epsilon = this times the cost of moving the clouds onto them; a random part down to four times
# the epsilon asked for and 2 % of the mean cost.
_TRUST = 4.0


class CloudPasses:
    """`StreamedPairs` with its cost, as `Passes`."""

    kind = "streamed"

    def __init__(self, stream: StreamedPairs, cost: Cost) -> None:
        self.stream, self.cost = stream, cost
        self.row_weights, self.column_weights = stream.row_weights, stream.column_weights

    def evaluate(self, v: np.ndarray, scale: float, *, cut: float = EXACT_CUT) -> Evaluation:
        """One pass."""
        return self.stream.evaluate(v, scale, cut=cut)

    def soft_minima(self, v: np.ndarray, scale: float, *, transposed: bool = False, cut: float = EXACT_CUT) -> np.ndarray:
        """One pass without sums."""
        return self.stream.soft_minima(v, scale, transposed=transposed, cut=cut)

    def curvature(self, point: Evaluation, v: np.ndarray, scale: float, threshold: float, room: int) -> StreamedCurvature:
        """From kept entries where they fit `room` bytes, else streamed."""
        return StreamedCurvature(self.stream, point.logs, v, scale, threshold, room)

    def coarser(self, epsilon: float, mean: float) -> tuple[CloudPasses, float, Callable[[np.ndarray, float], np.ndarray]] | None:
        """An eighth of the points: cell means, or a random part."""
        x, y, cost = self.stream.left, self.stream.right, self.cost
        n, m = (int((side.weights > 0).sum()) for side in (x, y))
        if max(n, m) <= _SMALL:
            return None
        few_x = summarise(x.points, x.weights, cost, max(_SMALL // 2, n // _FEWER), 0)
        few_y = summarise(y.points, y.weights, cost, max(_SMALL // 2, m // _FEWER), 1)
        if few_x.spread is None or few_y.spread is None:
            level = max(4 * epsilon, 0.02 * mean)
        else:
            level = _TRUST * (few_x.spread + few_y.spread)
        small = StreamedPairs(few_x.points, few_y.points, few_x.weights, few_y.weights, cost)

        def extended(f: np.ndarray, at: float) -> np.ndarray:
            scale = 1 / (at * math.log(2))
            down = StreamedPairs(few_x.points, y.points, few_x.weights, np.full(len(y.points), 1 / len(y.points)), cost)
            return -down.soft_minima(f * scale + np.log2(few_x.weights), scale, transposed=True) / scale

        return CloudPasses(small, cost), level, extended


__all__ = ["CloudPasses"]
