"""Streamed problems from coarse to fine and from large to small epsilon: most of the way is made where pairs are few."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.costs import Cost
from discrepancy.transport.entropic.streamed.coarse import Summary, summarise
from discrepancy.transport.entropic.streamed.newton import LOG2, SemiDual
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, StreamedPairs

# Clouds of more points are first solved with an eighth of the points, down to this many.
_SMALL = 2048
_FEWER = 8
# Summaries are trusted down to epsilon = this times the cost of moving the clouds onto them; a random part down to four times
# the epsilon asked for and 2 % of the mean cost.
_TRUST = 16.0
# The error up to which intermediate levels are solved, and the bits that their passes keep.
_LEVEL_ERROR, _LEVEL_STEPS, _LEVEL_CUT = 0.003, 10, 48.0
# Share of the mean cost at which annealing starts.
_START = 0.2


@dataclass(frozen=True)
class Climb:
    """What a solve found: g (m,), f (n,), the L1 error, passes over the pairs, the outcome and the rungs taken."""

    f: np.ndarray
    g: np.ndarray
    error: float
    iterations: int
    outcome: Outcome
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class Ladder:
    """The options of a solve: the L1 error to reach, the passes allowed, the factor between levels of epsilon, and the
    bytes that kept entries of the plan may take."""

    tolerance: float
    max_iterations: int
    annealing: float = 2.0
    room: int = 256 << 20

    def solve(self, stream: StreamedPairs, cost: Cost, epsilon: float, mean: float, start: np.ndarray | None = None) -> Climb:
        """Potentials at epsilon; from `start` (m,), a guess of g, annealing is skipped."""
        if start is not None:
            return self._finish(stream, [(start, epsilon)], epsilon, self.max_iterations, [])
        g, level, rungs = self._begin(stream, cost, epsilon, mean)
        return self._finish(stream, [(g, level)], epsilon, self.max_iterations, rungs)

    def _begin(self, stream: StreamedPairs, cost: Cost, epsilon: float, mean: float) -> tuple[np.ndarray, float, list[str]]:
        """Potentials g and the epsilon that they belong to: zero at a fifth of the mean cost, or those of fewer points."""
        n, m = (int((side.weights > 0).sum()) for side in (stream.left, stream.right))
        top = max(epsilon, _START * mean)
        if max(n, m) <= _SMALL or not mean > 0:
            return np.zeros(len(stream.right.weights)), top, []
        x, y = stream.left, stream.right
        few = [
            summarise(side.points, side.weights, cost, max(_SMALL // 2, k // _FEWER), seed)
            for side, k, seed in ((x, n, 0), (y, m, 1))
        ]
        spread = sum(s.spread if s.spread is not None else math.inf for s in few)
        level = max(epsilon, _TRUST * spread) if math.isfinite(spread) else max(4 * epsilon, 0.02 * mean)
        if level >= top:
            return np.zeros(len(stream.right.weights)), top, []
        coarse = StreamedPairs(few[0].points, few[1].points, few[0].weights, few[1].weights, cost)
        below = Ladder(_LEVEL_ERROR, self.max_iterations, self.annealing, self.room).solve(coarse, cost, level, mean)
        g = _extended(few[0], below.f, y.points, level, cost)
        return g, level, [*below.rungs]

    def _finish(
        self, stream: StreamedPairs, history: list[tuple[np.ndarray, float]], epsilon: float, limit: int, rungs: list[str]
    ) -> Climb:
        """Levels from the last of `history` down to epsilon, and the last one to the tolerance."""
        log_b = np.log2(np.where(stream.right.weights > 0, stream.right.weights, 1.0))
        g, level = history[-1]
        done, levels, products = 0, 0, 0
        while True:
            last = level <= epsilon
            cut = EXACT_CUT if last else _LEVEL_CUT
            dual = SemiDual(stream, level, limit - done, self.room)
            point = dual.at(g * dual.scale + log_b, cut)
            if point.error > (self.tolerance if last else _LEVEL_ERROR):
                point = dual.at(dual.swept(point), cut)
            goal, steps = (self.tolerance, limit) if last else (_LEVEL_ERROR, _LEVEL_STEPS)
            point, stuck = dual.ascend(point, goal, steps, cut)
            g = (point.v - log_b) / dual.scale
            done, products, levels = done + dual.passes + dual.products, products + dual.products, levels + 1
            if last or done >= limit:
                break
            following = max(level / self.annealing, epsilon)
            moved = g
            if len(history) > 1 or levels > 1:
                # The potentials are nearly linear in epsilon: the next level starts on that line.
                old, before = history[-1]
                moved = g + (g - old) * ((following - level) / (level - before)) if before > level else g
            history = [*history, (g, level)][-2:]
            g, level = moved, following
        size = f"{len(stream.left.weights)} x {len(stream.right.weights)}"
        kept = "" if dual.entries is None else f", {dual.entries / len(stream.left.weights):.0f} entries a row kept"
        rungs = [
            *rungs,
            f"streamed {size}: {levels} levels, {done - products} passes, {products} products, {dual.steps} last steps{kept}",
        ]
        outcome = Outcome.CONVERGED
        if not (last and point.error <= self.tolerance):
            outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
        return Climb(-point.logs / dual.scale, g, point.error, done, outcome, tuple(rungs))


def _extended(few: Summary, f: np.ndarray, y: Tensor, epsilon: float, cost: Cost) -> np.ndarray:
    """g (m,) at all points y: the soft-minimum over the few rows."""
    scale = 1 / (epsilon * LOG2)
    stream = StreamedPairs(few.points, y, few.weights, np.full(len(y), 1 / len(y)), cost)
    return -stream.soft_minima(f * scale + np.log2(few.weights), scale, transposed=True) / scale


__all__ = ["Climb", "Ladder"]
