"""The default solver of entropic transport: Newton steps on the semi-dual, epsilon annealed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive, whole_number
from discrepancy.transport.entropic.kept.solve import solve_kept, solve_kept_symmetric
from discrepancy.transport.entropic.problem import MatrixProblem, Problem, Rows
from discrepancy.transport.entropic.solver import Potentials, default_tolerance
from discrepancy.transport.entropic.streamed.problem import FusedProblem
from discrepancy.transport.entropic.streamed.solve import solve_streamed

# A change of a potential by more than this many epsilons in one step leaves the region where the quadratic model means anything.
_LONGEST = 8.0
_CONJUGATE_LIMIT = 500
# Share of the mean cost at which annealing starts: above it the plan is nearly a product and the first sweep is as good.
_START = 0.2


@dataclass(frozen=True)
class SemiDualNewton:
    """Newton's method on the semi-dual, epsilon annealed; stops when the plan's L1 marginal error is below `tolerance`.

    epsilon falls from a tenth or fifth of the mean cost by the factor `annealing`, potentials extrapolated from level to
    level; at each level Newton steps on the semi-dual g -> max_f (rows exact) by conjugate gradients with a line search, after a
    Sinkhorn sweep where the start is far off. A measure against itself takes two averaged sweeps, then Newton steps on a system
    of condition number about two. Costs kept on the CPU go through compiled loops: small problems whole, batches over torch's
    threads; large ones on the dense plan or, where few entries matter, on those, from a quarter of the points if both sides have
    2,000; `rungs` of the result says which. Other devices and streamed costs: the same steps in torch.

    tolerance None: 1e-6, or 1e-4 for float32 samples; only a pass over all pairs in float64 meets it. `max_iterations` counts
    passes over all pairs, conjugate-gradient products included, passes over kept entries by their share; `memory` (GiB) bounds
    what is quadratic: 16 bytes a pair if they fit, else costs are computed again at each pass. Time: 10-30 passes of n m
    for epsilon of 5 % of the mean cost, 30-100 at 0.1 %. Source: Cuturi (2013); Peyre and Cuturi (2019), section 4.4.
    """

    tolerance: float | None = None
    max_iterations: int = 20_000
    annealing: float = 2.0
    memory: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        if not self.annealing > 1:
            raise ValueError(f"annealing must be a factor above 1, got {self.annealing!r}")
        positive(self.memory, "memory")

    def _goal(self, problem: Problem) -> float:
        if self.tolerance is not None:
            return self.tolerance
        return default_tolerance(problem.dtype)

    @torch.no_grad()
    def solve(self, problem: Problem, epsilon: Tensor, *, start: Tensor | None = None) -> Potentials:
        """The potentials for epsilon (B,); from `start` the annealing is skipped."""
        goal = self._goal(problem)
        if isinstance(problem, MatrixProblem) and problem.cost.device.type == "cpu":
            return solve_kept(problem, epsilon, goal, self.max_iterations, self.annealing, start)
        if isinstance(problem, FusedProblem):
            return solve_streamed(problem, epsilon, goal, self.max_iterations, self.annealing, self.memory, start)
        run = _Run(problem, self.max_iterations)
        if start is not None:
            g = run.sweep(start.double(), epsilon)
        else:
            level = torch.maximum(_START * problem.mean_cost(), epsilon)
            g, before = torch.zeros_like(problem.b), None
            while bool((level > epsilon).any()) and run.left > 0:
                g = run.newton(run.sweep(g, level), level, 0.01, 6)[0]
                following = torch.maximum(level / self.annealing, epsilon)
                moved = g
                if before is not None:
                    # The potentials are nearly linear in epsilon: the next level starts on that line.
                    old, at = before
                    gap = level - at
                    share = torch.where(gap != 0, (following - level) / torch.where(gap != 0, gap, torch.ones_like(gap)), 0 * gap)
                    moved = g + share[:, None] * (g - old)
                before, g, level = (g, level), moved, following
            g = run.sweep(g, epsilon)
        g, rows, stuck = run.newton(g, epsilon, goal, self.max_iterations)
        error = (problem.b - rows.columns).abs().sum(-1)
        if bool((error <= goal).all()):
            outcome = Outcome.CONVERGED
        else:
            outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
        f = rows.f
        if bool((problem.b == 0).any()):  # no marginal pins these: they take the soft-minimum, the limit of a vanishing weight
            g = torch.where(problem.b > 0, g, problem.columns(f, epsilon))
        shift = ((problem.b * g).sum(-1) - (problem.a * f).sum(-1))[:, None] / 2
        return Potentials(f + shift, g - shift, error, run.done, outcome)

    @torch.no_grad()
    def solve_symmetric(self, problem: Problem, epsilon: Tensor) -> Potentials:
        """The potential of a measure against itself under a symmetric cost, by averaged sweeps f += w (softmin(f) - f)."""
        goal, e = self._goal(problem), epsilon[:, None]
        if isinstance(problem, MatrixProblem) and problem.cost.device.type == "cpu":
            return solve_kept_symmetric(problem, epsilon, goal, self.max_iterations)
        f = torch.zeros_like(problem.a)
        outcome, error, done = Outcome.ITERATION_LIMIT, torch.full_like(epsilon, torch.inf), 0
        target = f
        while done < self.max_iterations:
            target = problem.rows(f, epsilon)
            done += 1
            error = (problem.a * torch.expm1(((f - target) / e).clamp_max(50)).abs()).sum(-1)
            if bool((error <= goal).all()):
                outcome = Outcome.CONVERGED
                break
            f = f + (0.5 if done < 3 else 2 / 3) * (target - f)
        f = torch.where(problem.a > 0, (f + target) / 2, target)  # weightless points lag behind until the last soft-minimum
        return Potentials(f, f, error, done, outcome)


class _Run:
    """The steps of one solve, with their count."""

    def __init__(self, problem: Problem, limit: int) -> None:
        self.problem, self.limit, self.done = problem, limit, 0

    @property
    def left(self) -> int:
        return self.limit - self.done

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        self.done += 1
        return self.problem.evaluate(g, epsilon)

    def sweep(self, g: Tensor, epsilon: Tensor) -> Tensor:
        """One Sinkhorn iteration, g -> f -> g; points of weight zero keep their g."""
        b = self.problem.b
        rows = self.evaluate(g, epsilon)
        heavy = rows.columns > 1e-200
        ratio = torch.where(heavy & (b > 0), b / torch.where(heavy, rows.columns, torch.ones_like(b)), torch.ones_like(b))
        fresh = g + epsilon[:, None] * ratio.log()
        if bool((~heavy & (b > 0)).any()):  # a column sum that underflows has a logarithm all the same
            self.done += 1
            fresh = torch.where(heavy | (b == 0), fresh, self.problem.columns(rows.f, epsilon))
        return fresh

    def newton(self, g: Tensor, epsilon: Tensor, goal: float, steps: int) -> tuple[Tensor, Rows, bool]:
        """Newton steps on the semi-dual until every problem's error is below the goal; True if rounding stopped them."""
        b, e = self.problem.b, epsilon[:, None]
        rows = self.evaluate(g, epsilon)
        for _ in range(steps):
            residual = b - rows.columns
            error = residual.abs().sum(-1)
            active = error > goal
            if self.left <= 0 or not bool(active.any()):
                break
            direction = self.direction(rows, residual, error, active, goal)
            # g + const changes nothing: the direction is taken with mean zero, then cut to what a step may change.
            direction = (direction - (b * direction).sum(-1, keepdim=True)).clamp(-_LONGEST, _LONGEST) * active[:, None]
            trial = self.search(g, rows, e * direction, (residual * direction).sum(-1) * epsilon, epsilon, active)
            if trial is None:
                return g, self.evaluate(g, epsilon), True
            g, rows = trial
        return g, rows, False

    def direction(self, rows: Rows, residual: Tensor, error: Tensor, active: Tensor, goal: float) -> Tensor:
        """The Newton direction (diag(c) (1 + shift) - Q^T diag(a) Q) x = b - c by conjugate gradients, in units of epsilon."""
        columns = rows.columns
        # The shift vanishes with the error, so that convergence stays superlinear, and steadies the first steps.
        diagonal = columns * (1 + 0.1 * error[:, None])
        inner = torch.maximum(diagonal - self.problem.squares(), 1e-12 * columns)
        scale = torch.where(inner > 0, 1 / torch.where(inner > 0, inner, torch.ones_like(inner)), torch.zeros_like(inner))
        enough = error * torch.maximum(0.3 * error.sqrt(), 0.1 * goal / error.clamp_min(1e-300)).clamp_max(0.1)
        x = torch.zeros_like(residual)
        left = torch.where(active[:, None], residual, torch.zeros_like(residual))
        z = left * scale
        p, rz = z, (left * z).sum(-1)
        for _ in range(_CONJUGATE_LIMIT):
            going = (left.abs().sum(-1) > enough) & (rz > 0)
            if self.left <= 0 or not bool(going.any()):
                break
            self.done += 1
            image = diagonal * p - self.problem.normal_product(p)
            curvature = (p * image).sum(-1)
            going = going & (curvature > 0)
            step = torch.where(going, rz / torch.where(going, curvature, torch.ones_like(curvature)), torch.zeros_like(rz))
            x, left = x + step[:, None] * p, left - step[:, None] * image
            z = left * scale
            fresh = (left * z).sum(-1)
            p = z + torch.where(going, fresh / torch.where(going, rz, torch.ones_like(rz)), torch.zeros_like(rz))[:, None] * p
            rz = torch.where(going, fresh, torch.zeros_like(fresh))
        return x

    def search(
        self, g: Tensor, rows: Rows, move: Tensor, slope: Tensor, epsilon: Tensor, active: Tensor
    ) -> tuple[Tensor, Rows] | None:
        """The longest of 1, 0.3, 0.09 ... of the move that raises the dual enough, or 2, 4 ... while it keeps rising; None if
        none does."""
        b = self.problem.b
        slack = 1e-13 * ((self.problem.a * rows.f).abs().sum(-1) + (b * g).abs().sum(-1))
        size = torch.ones_like(epsilon)
        while True:
            trial = self.evaluate(g + size[:, None] * move, epsilon)
            good = (trial.dual >= rows.dual + 1e-4 * size * slope - slack) | ~active
            if bool(good.all()):
                break
            size = torch.where(good, size, 0.3 * size)
            if float(size.min()) < 1e-7 or self.left <= 0:
                return None
        # A weak link between two clusters may carry e^k times too much mass, of which Newton removes one factor e a step: while
        # most of the slope is left at the end of a full step, a longer one is tried.
        growing = active & (size == 1)
        for _ in range(6):
            end = ((b - trial.columns) * move).sum(-1)
            growing = growing & (end > 0.25 * slope)
            if self.left <= 0 or not bool(growing.any()):
                return g + size[:, None] * move, trial
            longer = torch.where(growing, 2 * size, size)
            further = self.evaluate(g + longer[:, None] * move, epsilon)
            better = growing & (further.dual >= trial.dual) & (((b - further.columns) * move).sum(-1) >= -0.3 * slope)
            if bool((better == growing).all()):
                size, trial = longer, further
            else:
                size = torch.where(better, longer, size)
                trial = self.evaluate(g + size[:, None] * move, epsilon)
            growing = better
        return g + size[:, None] * move, trial


__all__ = ["SemiDualNewton"]
