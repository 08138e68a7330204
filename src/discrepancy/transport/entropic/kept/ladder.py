"""The ladder on a kept cost matrix: epsilon annealed, Newton on the semi-dual, on the dense plan or on its entries that matter.

Python decides, compiled loops compute. Potentials are annealed in units of the cost; a level works in units of epsilon log 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from discrepancy.transport.entropic.kept.rungs import Rungs

# Largest share of the entries that may exceed the threshold for a plan to be treated as sparse.
_SPARSE = 0.1
# Entries below this share of a mean row are left out of a sparse plan. From the error at hand it may not be taken: too few
# entries, while the potentials still move, leave the truncated dual unbounded.
_THRESHOLD = 1e-12
# How far potentials may move, in epsilons, before the sparse plan is taken from a full pass again.
_TRAVEL = 12.0
# From this size on both sides, a quarter of rows and columns finds the first potentials.
_SAMPLED = 2000
_LEVEL_GOAL = 0.01


@dataclass(frozen=True)
class Options:
    """How a ladder descends: the factor between levels, Newton steps a level, the diagonal shift, the sparse threshold, whether
    a sample begins."""

    factor: float = 2.0
    steps: int = 6
    shift: float = 0.1
    threshold: float = _THRESHOLD
    sample: bool = True


CAREFUL = Options(factor=1.4, steps=20, shift=0.3, threshold=1e-18, sample=False)


def first_level(epsilon: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Where annealing begins: a tenth of the mean cost for an epsilon near it, else a fifth; above it the plan is nearly a
    product."""
    return np.maximum(epsilon, np.where(epsilon >= 0.02 * mean, 0.1, 0.2) * mean)


@dataclass
class Ladder:
    """One problem with positive weights: cost (n, m) contiguous float64, a (n,), b (m,), the factor between levels and
    the passes that may be spent."""

    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray
    mean: float
    budget: int
    rungs: Rungs
    factor: float = 2.0
    forbids: bool = False
    stuck: bool = False
    error: float = np.inf
    log_b: np.ndarray = field(init=False)
    levels: np.ndarray = field(init=False)
    columns: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Allocate what all levels share: 4 bytes a pair for the plan, and room for its sparse form, touched when used."""
        from discrepancy._loops.apart import zeros_apart
        from discrepancy._loops.entropic.systems import Dense

        n, m = self.cost.shape
        self.log_b = np.log2(self.b)
        self.levels, self.columns = zeros_apart(n), zeros_apart(m)
        self.dense = Dense(self.cost, zeros_apart(n, m, dtype=np.float32))
        self.inverse_a = 1 / self.a
        self.inverse_a_single = self.inverse_a.astype(np.float32)
        self.tally = np.zeros(5, np.int64)
        room = int(_SPARSE * n * m) + m + 1
        self.pointers, self.index = np.empty(n + 1, np.int64), np.empty(room, np.uint32)
        self.kept, self.values = np.empty(room), np.empty(room)
        self.sparse_work = 0.0

    @property
    def done(self) -> int:
        """Passes over all pairs so far; one over the kept entries counts by their share."""
        return int(self.tally[0] + self.tally[1] + np.ceil(self.sparse_work))

    @property
    def left(self) -> int:
        """Passes that the budget still allows."""
        return self.budget - self.done

    def solve(self, epsilon: float, goal: float, start: np.ndarray | None) -> np.ndarray:
        """The potential g (m,) at epsilon, to the error `goal`: from `start`, annealed, then annealed carefully."""
        if start is not None:
            g = self.descend(start, epsilon, epsilon, goal, Options(factor=self.factor))
            if self.error <= goal:
                return g
        first = float(first_level(np.asarray(epsilon), np.asarray(self.mean)))
        self.stuck = False
        g = self.descend(np.zeros_like(self.b), first, epsilon, goal, Options(factor=self.factor))
        if self.error > goal and self.left > 0:
            self.rungs.add("annealing again, in finer levels")
            self.stuck = False
            g = self.descend(np.zeros_like(self.b), max(0.5 * self.mean, epsilon), epsilon, goal, CAREFUL)
        return g

    def descend(self, g: np.ndarray, level: float, epsilon: float, goal: float, options: Options) -> np.ndarray:
        """From g at `level` down to epsilon; the next level starts on the line through the last two."""
        smallest = min(self.cost.shape)
        if options.sample and smallest >= _SAMPLED and level > 4 * epsilon and not self.forbids:
            level = max(4 * epsilon, 0.02 * self.mean)
            g = self.sampled(level)
        before: tuple[np.ndarray, float] | None = None
        count = 0
        while True:
            last = level <= epsilon
            g = self.level(g, level, goal if last else max(_LEVEL_GOAL, goal), last, before is None, options)
            count += 1
            if last:
                self.rungs.levels(count)
                return g
            following = max(level / options.factor, epsilon) if self.left > 0 else epsilon
            moved = g
            if before is not None:
                old, at = before
                moved = g + (g - old) * ((following - level) / (level - at))
            before, g, level = (g, level), moved, following

    def sampled(self, level: float) -> np.ndarray:
        """Potentials at `level` from a quarter of rows and columns, fixed once and for all, extended by a soft-minimum."""
        from discrepancy._loops.entropic.columns import column_soft_minimum
        from discrepancy._loops.entropic.newton import LN2

        n, m = self.cost.shape
        random = np.random.Generator(np.random.PCG64(1))
        rows, columns = np.sort(random.permutation(n)[: n // 4]), np.sort(random.permutation(m)[: m // 4])
        a, b = self.a[rows] / self.a[rows].sum(), self.b[columns] / self.b[columns].sum()
        part = Ladder(np.ascontiguousarray(self.cost[np.ix_(rows, columns)]), a, b, self.mean, self.left, Rungs())
        start = max(0.2 * self.mean, level)
        part.descend(np.zeros_like(b), start, level, _LEVEL_GOAL, Options(sample=False))
        self.rungs.add(f"sample of {rows.size} x {columns.size}")
        self.sparse_work += part.done / 16 + 0.5
        scale = 1 / (level * LN2)
        out = np.empty(m)
        column_soft_minimum(self.cost, rows, scale, np.log2(a) - part.levels, out)
        return out / scale

    def level(self, g: np.ndarray, level: float, goal: float, last: bool, first: bool, options: Options) -> np.ndarray:
        """Newton at one epsilon until the error is below the goal, sparse wherever the plan is."""
        from discrepancy._loops.entropic.newton import CALM, LN2, newton, sweeps
        from discrepancy._loops.entropic.systems import Sparse

        scale = 1 / (level * LN2)
        h = self.log_b + g * scale
        value = self.evaluate(scale, h)
        self.error = sweeps(
            self.dense, scale, h, self.a, self.b, goal, 0.0 if first else CALM, 1, self.columns, self.levels, self.tally
        )
        threshold, travel = options.threshold / self.a.size, _TRAVEL
        rounds, steps, stalls = 0, 0, 0
        while self.error > goal and self.left > 0 and (last or steps < options.steps):
            entries = self.sparse_entries(threshold)
            if entries <= 0:
                self.tally[2:] = 0
                count = 3 if last else options.steps - steps
                self.error = newton(
                    self.dense, scale, h, self.a, self.b, self.inverse_a_single, goal, count, options.shift, 1e-6, np.inf,
                    self.budget - self.done + int(self.tally[0] + self.tally[1]), self.columns, self.levels, self.tally,
                )  # fmt: skip
                steps += int(self.tally[2])
                self.rungs.dense(int(self.tally[2]))
                if self.tally[4]:
                    self.stuck = True
                    break
                continue
            value = float(self.b @ h - self.a @ self.levels)
            begun, begun_error = h.copy(), self.error
            system = Sparse(self.pointers, self.index[:entries], self.kept[:entries], self.values[:entries])
            tally = np.zeros(5, np.int64)
            share = entries / self.cost.size
            budget = max(1, int(self.left / share))
            self.evaluate_sparse(system, scale, h)
            if rounds == 0 or self.error > CALM:
                sweeps(system, scale, h, self.a, self.b, 0.7 * goal, 0.04, 8, self.columns, self.levels, tally)
            inner = newton(
                system, scale, h, self.a, self.b, self.inverse_a, 0.7 * goal, 60, options.shift, 1e-9, travel,
                budget, self.columns, self.levels, tally,
            )  # fmt: skip
            self.sparse_work += share * int(tally[0] + tally[1] + 1)
            self.rungs.sparse(int(tally[2]), entries / self.a.size)
            rounds += 1
            if not last and (begun_error < 0.3 or rounds > 4):
                self.error = inner
                break
            found = self.evaluate(scale, h)
            if found < value - 1e-12 * abs(value):  # what was left out mattered: back, with more entries and shorter moves
                h = begun
                threshold, travel = threshold * 1e-6, max(travel / 3, 1.5)
                self.evaluate(scale, h)
                self.rungs.rejected()
                continue
            stalls = stalls + 1 if self.error > 0.9 * begun_error and found <= value + 1e-13 * abs(value) else 0
            if stalls == 3:
                self.stuck = True
                break
            if not last and rounds > options.steps:
                break
        return (h - self.log_b) / scale

    def evaluate(self, scale: float, h: np.ndarray) -> float:
        """A full pass at h; the dual value."""
        from discrepancy._loops.entropic.dense import evaluate_dense

        value = evaluate_dense(self.cost, self.dense.plan, scale, h, self.a, self.columns, self.levels)
        self.tally[0] += 1
        self.error = float(np.abs(self.b - self.columns).sum())
        return float(value + self.b @ h)

    def evaluate_sparse(self, system, scale: float, h: np.ndarray) -> None:
        """A pass over the kept entries at h."""
        from discrepancy._loops.entropic.sparse import evaluate_sparse

        evaluate_sparse(system.pointers, system.targets, system.cost, system.plan, scale, h, self.a, self.columns, self.levels)

    def sparse_entries(self, threshold: float) -> int:
        """How many entries of the plan exceed the threshold, now kept in compressed rows; not positive where it is not sparse."""
        from discrepancy._loops.entropic.sparse import keep_entries

        return keep_entries(self.dense.plan, self.cost, threshold, self.pointers, self.index, self.kept)
