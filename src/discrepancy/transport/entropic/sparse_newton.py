"""Stage two of Sinkhorn-Newton-sparse: Newton steps in both potentials of one problem, with a sparsified Hessian."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.log_sinkhorn import LogSinkhorn
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.sparse_system import SparseSystem

_ARMIJO = 1e-4
# The diagonal is raised by this share: a link between two parts of the plan that is lighter than the rounding of its ends would
# otherwise turn rounding into a long step.
_SHIFT = 1e-12
_SHORTEST = 1e-6
# How often a level may fall back on twice its epsilon, and how many levels that may reach up.
_FALL_BACKS = 3
_LEVELS = 40


class Member(Problem):
    """One problem of a batch, as a batch of one."""

    def __init__(self, whole: Problem, k: int) -> None:
        super().__init__(whole.a[k : k + 1], whole.b[k : k + 1], whole.dtype)
        self.whole, self.k, self.kept = whole, k, whole.kept

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The member's share of the batch's blocks."""
        for part, cost in self.whole.blocks():
            yield part, cost[self.k : self.k + 1]


@dataclass(frozen=True)
class StepOptions:
    """Limits of the Newton steps: how many, how many products each, their tolerance, and the sweeps before a level."""

    max_newton: int
    conjugate_tolerance: float
    conjugate_limit: int
    warm_sweeps: int


@dataclass
class Counts:
    """What the paper counts: sweeps, Newton steps, conjugate-gradient products, and the entries of the last Hessian."""

    sweeps: int = 0
    newton: int = 0
    products: int = 0
    entries: int = 0
    fall_backs: int = 0


@dataclass(frozen=True)
class Point:
    """Potentials (n,), (m,) with the row and column sums of their plan, the dual value and the L1 error of both marginals."""

    f: Tensor
    g: Tensor
    rows: Tensor
    columns: Tensor
    dual: float
    error: float


class SparseNewton:
    """Newton steps for one problem (a batch of one) at epsilon (1,), from potentials to the goal; the best point is kept.

    Where the line search finds no ascent (the plan is nearly disconnected and far from its marginals) the same problem is
    solved at twice the epsilon first, which may itself fall back, and twice as many entries are kept.
    """

    def __init__(self, problem: Problem, epsilon: Tensor, goal: float, size: int, options: StepOptions) -> None:
        """Keep the problem; the plan gets a buffer where the problem keeps its costs."""
        self.problem, self.level, self.goal, self.options = problem, epsilon, goal, options
        self.a, self.b, self.epsilon, self.size = problem.a[0], problem.b[0], float(epsilon), size
        self.counts = Counts()
        self.best: Point | None = None
        self.outcome = Outcome.ITERATION_LIMIT
        self._buffer: Tensor | None = None

    def run(self, f: Tensor, g: Tensor, *, levels: int = _LEVELS) -> Point:
        """The best point that Newton steps from (f, g) reach; `outcome` says how they ended."""
        at, short, rounds = self.evaluate(f, g), 0, 0
        while at.error > self.goal and self.counts.newton < self.options.max_newton:
            found = self.search(at, *self.direction(at))
            self.counts.newton += 1
            if found is not None:
                at, size = found
                short = short + 1 if size < _SHORTEST else 0
                if short < 3:
                    continue
            if rounds == _FALL_BACKS or levels == 0:
                self.outcome = Outcome.EXHAUSTED
                break
            rounds, short = rounds + 1, 0
            self.size = min(2 * self.size, self.a.numel() * self.b.numel())
            at = self._from_twice_epsilon(10.0 ** (-2 * rounds), levels - 1)
        assert self.best is not None
        if self.best.error <= self.goal:
            self.outcome = Outcome.CONVERGED
        return self.best

    def _from_twice_epsilon(self, goal: float, levels: int) -> Point:
        """Sweeps from the potentials of the problem at twice the epsilon, solved to a rough goal."""
        left = max(1, self.options.max_newton - self.counts.newton)
        coarse = SparseNewton(self.problem, 2 * self.level, goal, self.size, replace(self.options, max_newton=left))
        coarse._buffer = self._buffer
        start = coarse.sweep(torch.zeros_like(self.b))
        found = coarse.run(start.f, start.g, levels=levels)
        for name in ("sweeps", "newton", "products", "fall_backs"):
            setattr(self.counts, name, getattr(self.counts, name) + getattr(coarse.counts, name))
        self.counts.fall_backs += 1
        return self.sweep(found.g)

    def sweep(self, g: Tensor) -> Point:
        """A few Sinkhorn sweeps from g, and where they lead."""
        found = LogSinkhorn(tolerance=self.goal, max_iterations=self.options.warm_sweeps).solve(
            self.problem, self.level, start=g[None]
        )
        self.counts.sweeps += found.iterations
        return self.evaluate(found.f[0], found.g[0])

    def evaluate(self, f: Tensor, g: Tensor) -> Point:
        """One pass over all pairs; the plan stays in its buffer where memory allows."""
        if self.problem.kept and self._buffer is None:
            self._buffer = torch.empty(len(self.a), len(self.b), dtype=self.a.dtype, device=self.a.device)
        rows, columns = [], torch.zeros_like(self.b)
        for part, block in self._plan(f, g):
            rows.append(block.sum(-1))
            columns += block.sum(0)
            if self._buffer is not None:
                self._buffer[part] = block
        sums = torch.cat(rows)
        error = float((sums - self.a).abs().sum() + (columns - self.b).abs().sum())
        dual = float(self.a @ f + self.b @ g) - self.epsilon * float(sums.sum())
        point = Point(f, g, sums, columns, dual, error)
        if self.best is None or error < self.best.error:
            self.best = point
        return point

    def _plan(self, f: Tensor, g: Tensor) -> Iterator[tuple[slice, Tensor]]:
        log_a, log_b = self.problem.log_a[0], self.problem.log_b[0]
        for part, cost in self.problem.blocks():
            exponent = f[part, None] + g - cost[0]
            yield part, exponent.div_(self.epsilon).add_(log_a[part, None]).add_(log_b).exp_()

    def sparsified(self, at: Point) -> SparseSystem:
        """The system with the plan's largest entries, by partition: over the kept plan at once, or block by block."""
        m = len(self.b)
        blocks = [(slice(0, len(self.a)), self._buffer)] if self._buffer is not None else self._plan(at.f, at.g)
        values, places = at.rows[:0], torch.empty(0, dtype=torch.int64, device=at.rows.device)
        for part, block in blocks:
            entries, index = torch.topk(block.flatten(), min(self.size, block.numel()), sorted=False)
            values, places = torch.cat([values, entries]), torch.cat([places, index + part.start * m])
            if len(values) > self.size:
                values, chosen = torch.topk(values, self.size, sorted=False)
                places = places[chosen]
        present = values > 0
        places, order = places[present].sort()
        self.counts.entries = len(places)
        steady = 1 + _SHIFT
        return SparseSystem(places // m, places % m, values[present][order], steady * at.rows, steady * at.columns)

    def direction(self, at: Point) -> tuple[Tensor, Tensor]:
        """The Newton direction of the sparsified Hessian, in units of the cost."""
        df, dg, done = self.sparsified(at).solve(
            self.a - at.rows,
            self.b - at.columns,
            tolerance=self.options.conjugate_tolerance,
            limit=self.options.conjugate_limit,
        )
        self.counts.products += done
        return self.epsilon * df, self.epsilon * dg

    def search(self, at: Point, df: Tensor, dg: Tensor) -> tuple[Point, float] | None:
        """The longest of 1, 1/2, 1/4 ... of the step that raises the dual enough, with that size; None if none does."""
        slope = float((self.a - at.rows) @ df + (self.b - at.columns) @ dg)
        if not (slope > 0 and math.isfinite(slope)):
            return None
        # Near the optimum a rise of the dual drowns in its rounding: there the marginal error has to fall.
        slack = 1e-14 * float(self.a @ at.f.abs() + self.b @ at.g.abs() + self.epsilon)
        size = 1.0
        while size > 1e-10:
            trial = self.evaluate(at.f + size * df, at.g + size * dg)
            # A trial may overflow: then its dual is minus infinity or NaN, and both comparisons are false.
            rise = trial.dual - at.dual
            if rise >= max(_ARMIJO * size * slope, slack) or (rise >= -slack and trial.error < at.error):
                return trial, size
            size /= 2
        return None


__all__ = ["Counts", "Member", "Point", "SparseNewton", "StepOptions"]
