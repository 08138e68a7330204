"""Streamed problems from coarse to fine and from large to small epsilon: most of the way is made where pairs are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discrepancy._results import Outcome
from discrepancy.transport.entropic.streamed.newton import Passes, SemiDual
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT

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
    room: int = 128 << 20

    def solve(self, problem: Passes, epsilon: float, mean: float, start: np.ndarray | None = None) -> Climb:
        """Potentials at epsilon, of a problem of this mean cost; from `start` (m,), a guess of g, annealing is skipped."""
        if start is not None:
            return self._finish(problem, [(start, epsilon)], epsilon, self.max_iterations, [])
        g, level, rungs = self._begin(problem, epsilon, mean)
        return self._finish(problem, [(g, level)], epsilon, self.max_iterations, rungs)

    def _begin(self, problem: Passes, epsilon: float, mean: float) -> tuple[np.ndarray, float, list[str]]:
        """Potentials g and the epsilon that they belong to: zero at a fifth of the mean cost, or those of a coarser problem."""
        top = max(epsilon, _START * mean)
        nothing = np.zeros(len(problem.column_weights)), top, []
        found = problem.coarser(epsilon, mean) if mean > 0 else None
        if found is None:
            return nothing
        coarse, level, extended = found
        level = max(level, epsilon)
        if level >= top:
            return nothing
        below = Ladder(_LEVEL_ERROR, self.max_iterations, self.annealing, self.room).solve(coarse, level, mean)
        return extended(below.f, level), level, [*below.rungs]

    def _finish(
        self, problem: Passes, history: list[tuple[np.ndarray, float]], epsilon: float, limit: int, rungs: list[str]
    ) -> Climb:
        """Levels from the last of `history` down to epsilon, and the last one to the tolerance."""
        log_b = np.log2(np.where(problem.column_weights > 0, problem.column_weights, 1.0))
        g, level = history[-1]
        done, levels, products = 0, 0, 0
        while True:
            last = level <= epsilon
            cut = EXACT_CUT if last else _LEVEL_CUT
            dual = SemiDual(problem, level, limit - done, self.room)
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
        size = f"{len(problem.row_weights)} x {len(problem.column_weights)}"
        kept = "" if dual.entries is None else f", {dual.entries / len(problem.row_weights):.0f} entries a row kept"
        work = f"{levels} levels, {done - products} passes, {products} products, {dual.steps} last steps{kept}"
        rungs = [*rungs, f"{problem.kind} {size}: {work}"]
        outcome = Outcome.CONVERGED
        if not (last and point.error <= self.tolerance):
            outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
        return Climb(-point.logs / dual.scale, g, point.error, done, outcome, tuple(rungs))


__all__ = ["Climb", "Ladder"]
