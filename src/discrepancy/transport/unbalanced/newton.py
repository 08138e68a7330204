"""The solver of unbalanced entropic transport: Newton steps on the semi-dual, epsilon annealed, bounds by projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive, whole_number
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.solver import default_tolerance
from discrepancy.transport.unbalanced.dual import Point, SemiDual
from discrepancy.transport.unbalanced.passes import Passes
from discrepancy.transport.unbalanced.penalties import MarginalPenalty

# A change of a potential by more than this many epsilons against the mean change leaves the region of the quadratic model.
_LONGEST = 8.0
_CONJUGATE_LIMIT = 500
# Share of the mean cost at which annealing starts, and the relative error to which its levels are solved.
_START, _LEVEL_GOAL, _LEVEL_STEPS = 0.2, 0.02, 6
# Relative error down to which six digits are enough to judge a step by.
_ROUGH = 1e-4
# Newton steps without a smaller error after which rounding is taken to be in the way.
_PATIENCE = 30


@dataclass(frozen=True)
class UnbalancedPotentials:
    """f (B, n), g (B, m) in float64, soft-minima s (B, n) over the columns and t (B, m) over the rows; the L1 optimality error
    (B,): the distance of the plan's marginals from those that f and g ask for; passes over all pairs, outcome, rungs."""

    f: Tensor
    g: Tensor
    s: Tensor
    t: Tensor
    error: Tensor
    iterations: int
    outcome: Outcome
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class UnbalancedNewton:
    """Newton's method on the semi-dual g -> max_f of unbalanced transport, epsilon annealed.

    Row potentials are eliminated by their proximal step. At each level: a scaling sweep, an exact step along the translation
    g + const (where plain scaling is slow: the factor rho / (rho + epsilon) a sweep), then Newton steps by conjugate gradients
    with a line search; potentials that a penalty bounds are projected. Stops when the marginals differ from those that the
    potentials ask for by `tolerance` (None: 1e-6, or 1e-4 for float32 samples), in L1 and relative to the larger of the two
    masses. epsilon falls from a fifth of the mean cost by the factor `annealing`. Computes in float64. `max_iterations` counts
    passes over all pairs, products included; `memory` (GiB) bounds what is quadratic. Source: Sejourne, Vialard and Peyre
    (2022) for the translation, Bertsekas (1982) for the projection.
    """

    tolerance: float | None = None
    max_iterations: int = 5000
    annealing: float = 3.0
    memory: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        if not self.annealing > 1:
            raise ValueError(f"annealing must be a factor above 1, got {self.annealing!r}")
        positive(self.memory, "memory")

    def _goal(self, problem: Problem) -> Tensor:
        """The absolute error (B,) to stop at."""
        relative = default_tolerance(problem.dtype) if self.tolerance is None else self.tolerance
        return relative * torch.maximum(problem.a.sum(-1), problem.b.sum(-1))

    @torch.no_grad()
    def solve(
        self,
        problem: Problem,
        epsilon: Tensor,
        rows: MarginalPenalty,
        columns: MarginalPenalty,
        mean: Tensor,
        *,
        start: Tensor | None = None,
    ) -> UnbalancedPotentials:
        """The potentials for epsilon (B,) and a penalty per side; `mean` (B,) is the mean cost; from `start` (g) no annealing."""
        goal = self._goal(problem)
        dual = SemiDual(problem, rows, columns)
        levels = 0
        if start is not None:
            g = start.double()
        else:
            g, before = torch.zeros_like(problem.b), None
            level = torch.maximum(_START * mean, epsilon)
            while bool((level > epsilon).any()) and dual.passes.count < self.max_iterations:
                levels += 1
                loose = _LEVEL_GOAL * torch.maximum(problem.a.sum(-1), problem.b.sum(-1))
                g = self._newton(dual, g, level, loose, _LEVEL_STEPS, final=False)[0].g
                following = torch.maximum(level / self.annealing, epsilon)
                moved = g
                if before is not None:  # potentials are nearly linear in epsilon
                    old, at = before
                    gap = level - at
                    share = torch.where(gap != 0, (following - level) / torch.where(gap != 0, gap, torch.ones_like(gap)), 0 * gap)
                    moved = (g + share[:, None] * (g - old)).clamp(columns.lower, columns.upper)
                before, g, level = (g, level), moved, following
        point, stuck, steps = self._newton(dual, g, epsilon, goal, self.max_iterations, final=True)
        point, t = dual.completed(point, epsilon)
        error = dual.error(point)
        if bool((error <= goal).all()):
            outcome = Outcome.CONVERGED
        else:
            outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
        rungs = (*((f"annealing: {levels} levels",) if levels else ()), f"Newton: {steps} steps")
        return UnbalancedPotentials(point.f, point.g, point.s, t, error, dual.passes.count, outcome, rungs)

    @torch.no_grad()
    def solve_symmetric(self, problem: Problem, epsilon: Tensor, penalty: MarginalPenalty) -> UnbalancedPotentials:
        """The potential of a measure against itself under a symmetric cost, by averaged sweeps f += w (step(softmin(f)) - f),
        which contract by 1/3 at every epsilon where exp(-c / epsilon) is a positive-definite kernel."""
        goal, e, a = self._goal(problem), epsilon[:, None], problem.a
        passes = Passes.of(problem, penalty)
        f, outcome = torch.zeros_like(a), Outcome.ITERATION_LIMIT
        while True:
            rows = passes.evaluate(f, epsilon)
            asked = a * rows.ratio
            error = (a * ((f - rows.s) / e).clamp_max(300).exp() - asked).abs().sum(-1)
            if bool((error <= goal).all()):
                outcome = Outcome.CONVERGED
                break
            if passes.count >= self.max_iterations:
                break
            f = f + (0.5 if passes.count < 3 else 2 / 3) * (rows.f - f)
        return UnbalancedPotentials(f, f, rows.s, rows.s, error, passes.count, outcome, (f"averaged sweeps: {passes.count}",))

    def _newton(
        self, dual: SemiDual, g: Tensor, epsilon: Tensor, goal: Tensor, steps: int, *, final: bool
    ) -> tuple[Point, bool, int]:
        """Steps until every problem's error is below the goal; whether rounding stopped them, and how many there were.

        Far from the goal steps are judged on the kept plan. A final solve ends on a full pass.
        """
        point = dual.at(g, epsilon)
        if bool((dual.error(point) > goal).any()):
            point = dual.at(dual.sweep(point, epsilon), epsilon, rough=True)
        taken, best, since = 0, torch.full_like(epsilon, torch.inf), 0
        while True:
            error = dual.error(point)
            floor = dual.rounding(point, epsilon)
            if not bool((error > torch.maximum(goal, floor)).any()) and bool((error > goal).any()):
                if not point.rough:
                    return point, True, taken
                point = dual.at(point.g, epsilon)
                continue
            better = bool((error < 0.9 * best)[error > goal].any())
            best, since = torch.minimum(best, error), 0 if better else since + 1
            if since > _PATIENCE:
                return dual.at(point.g, epsilon), True, taken
            done = not bool((error > goal).any()) or dual.passes.count >= self.max_iterations or taken >= steps
            if point.rough and (bool((error <= _ROUGH * dual.mass).all()) or (done and final)):
                point = dual.at(point.g, epsilon)
                continue
            if done:
                return point, False, taken
            active = error > goal
            direction = self._direction(dual, point, epsilon, error, active, goal)
            centre = direction.mean(-1, keepdim=True)
            direction = ((direction - centre).clamp(-_LONGEST, _LONGEST) + centre) * active[:, None]
            rough = bool((error > _ROUGH * dual.mass).any())
            trial = self._search(dual, point, epsilon[:, None] * direction, epsilon, active, rough)
            taken += 1
            if trial is None:  # where Newton fails a sweep still rises, unless rounding is reached
                point = dual.at(point.g, epsilon)
                swept = dual.at(dual.sweep(point, epsilon), epsilon)
                if bool((dual.error(swept) >= 0.9 * dual.error(point))[active].all()):
                    return swept, True, taken
                trial = swept
            point = trial

    def _direction(self, dual: SemiDual, point: Point, epsilon: Tensor, error: Tensor, active: Tensor, goal: Tensor) -> Tensor:
        """Solve (diag(c + epsilon b slope(g)) - Q^T diag(w) Q) x = residual on the free potentials, in units of epsilon."""
        # Problems that are done have a zero right-hand side, and stay where they are.
        system = dual.system(point, epsilon, shift=0.1 * error / torch.maximum(dual.mass, error))
        free = dual.free(point)
        residual = torch.where(free & active[:, None], point.residual, torch.zeros_like(point.residual))
        scale = torch.where(free & (system.preconditioner > 0), 1 / system.preconditioner, torch.zeros_like(residual))
        relative = error / dual.mass
        enough = error * torch.maximum(0.3 * relative.sqrt(), 0.1 * goal / error.clamp_min(1e-300)).clamp_max(0.1)
        if not bool(((residual.abs().sum(-1) > enough) & active).any()):
            return torch.zeros_like(residual)
        limit = min(_CONJUGATE_LIMIT, self.max_iterations - dual.passes.count)
        return dual.passes.solve(point.rows, system.weight, system.diagonal, scale, residual, enough, limit)

    def _search(self, dual: SemiDual, point: Point, move: Tensor, epsilon: Tensor, active: Tensor, rough: bool) -> Point | None:
        """The longest of 1, 0.3, 0.09 ... of the projected move that raises the dual enough, longer while it keeps rising."""
        slack = (1e-6 * dual.error(point) if rough else 1e-13) * dual.scale(point)
        size = torch.ones_like(epsilon)
        while True:
            trial = dual.at(dual.project(point.g + size[:, None] * move), epsilon, rough=rough)
            rise = (point.residual * (trial.g - point.g)).sum(-1)
            good = (trial.value >= point.value + 1e-4 * rise - slack) | ~active
            if bool(good.all()):
                break
            size = torch.where(good, size, 0.3 * size)
            if float(size.min()) < 1e-7 or dual.passes.count >= self.max_iterations:
                return None
        # A weak link may carry e^k times too much mass, of which Newton removes one factor e a step: lengthen while it rises.
        slope = (point.residual * move).sum(-1)
        growing = active & (size == 1)
        for _ in range(6):
            growing = growing & ((trial.residual * move).sum(-1) > 0.25 * slope)
            if not bool(growing.any()) or dual.passes.count >= self.max_iterations:
                break
            longer = torch.where(growing, 2 * size, size)
            further = dual.at(dual.project(point.g + longer[:, None] * move), epsilon, rough=rough)
            better = growing & (further.value >= trial.value) & ((further.residual * move).sum(-1) >= -0.3 * slope)
            if bool((better == growing).all()):
                size, trial = longer, further
            else:
                size = torch.where(better, longer, size)
                trial = dual.at(dual.project(point.g + size[:, None] * move), epsilon, rough=rough)
            growing = better
        return trial


__all__ = ["UnbalancedNewton", "UnbalancedPotentials"]
