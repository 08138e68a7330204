"""The semi-dual of unbalanced transport: a concave function of the column potentials, with its sweep and Newton system.

    J(g) = sum_j b_j R2(g_j) + sum_i a_i max_f [R1(f) - epsilon exp((f - s_i(g)) / epsilon)] + epsilon m(a) m(b)

with R = -phi*(-.) of each penalty and s_i the soft-minimum. Its gradient is b mass2(g) - c, c the plan's column masses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.unbalanced.passes import Passes, Rows
from discrepancy.transport.unbalanced.penalties import MarginalPenalty

# Below this ratio to its weight a column's mass is taken from a soft-minimum, which has a logarithm where a sum underflows.
_LIGHT = 1e-12


@dataclass(frozen=True)
class Point:
    """g (B, m) with what one pass gives there: rows, residual (B, m) = b mass(g) - c, and the value J (B,)."""

    g: Tensor
    rows: Rows
    residual: Tensor
    value: Tensor

    @property
    def rough(self) -> bool:
        """Whether it is good to six digits only."""
        return self.rows.tilts is not None

    @property
    def f(self) -> Tensor:
        """Row potentials (B, n)."""
        return self.rows.f

    @property
    def s(self) -> Tensor:
        """Soft-minima of the rows (B, n)."""
        return self.rows.s


@dataclass(frozen=True)
class System:
    """The Newton system diag(diagonal) - Q^T diag(weight) Q at a point, with its own diagonal for preconditioning."""

    weight: Tensor
    diagonal: Tensor
    preconditioner: Tensor


class SemiDual:
    """J and its derivatives for one problem and a penalty per side."""

    def __init__(self, problem: Problem, rows: MarginalPenalty, columns: MarginalPenalty) -> None:
        """`mass` (B,) is the larger of the two total masses, the unit of errors."""
        self.problem, self.row_penalty, self.penalty = problem, rows, columns
        self.passes = Passes.of(problem, rows)
        mass_a, mass_b = problem.a.sum(-1), problem.b.sum(-1)
        self.mass, self.product_mass = torch.maximum(mass_a, mass_b), mass_a * mass_b

    def at(self, g: Tensor, epsilon: Tensor, *, rough: bool = False) -> Point:
        """Evaluate at g, after the exact step along g + const where that has a closed form: one pass.

        rough: six digits are enough, if the kept plan gives them for less.
        """
        a, b, e = self.problem.a, self.problem.b, epsilon[:, None]
        rows = (self.passes.nearby(g, epsilon) if rough else None) or self.passes.evaluate(g, epsilon)
        g, rows = self._translated(g, rows, e)
        paid = torch.where(a > 0, a * (self.row_penalty.reward(rows.f) - e * rows.ratio), torch.zeros_like(a)).sum(-1)
        asked = torch.where(b > 0, b * self.penalty.reward(g), torch.zeros_like(b)).sum(-1)
        residual = torch.where(b > 0, b * self.penalty.mass(g) - rows.columns, torch.zeros_like(b))
        return Point(g, rows, residual, paid + asked + epsilon * self.product_mass)

    def _translated(self, g: Tensor, rows: Rows, e: Tensor) -> tuple[Tensor, Rows]:
        """Move g by the constant that maximises J: where both masses decay exponentially, sum b e^(-k2 (g + u)) = sum of the
        plan, which grows as e^(u k1 / (1 + k1 e))."""
        one, two = self.row_penalty.decay, self.penalty.decay
        bounded = min(p.upper for p in (self.row_penalty, self.penalty)) < torch.inf
        if one is None or two is None or bounded or one + two == 0:
            return g, rows
        b = self.problem.b
        mass = rows.columns.sum(-1, keepdim=True)
        wanted = torch.logsumexp(self.problem.log_b - two * torch.where(b > 0, g, torch.zeros_like(g)), -1, keepdim=True)
        growth = one / (1 + one * e)
        u = torch.where(mass > 0, (wanted - mass.log()) / (two + growth), torch.zeros_like(mass))
        u = torch.where(torch.isfinite(u), u, torch.zeros_like(u))
        grown = (growth * u).exp()
        s = rows.s - u
        return g + u, Rows(s, s / (1 + one * e), rows.ratio * grown, rows.columns * grown, rows.tilts)

    def free(self, point: Point) -> Tensor:
        """(B, m): which potentials may move: those not held at a bound by their residual."""
        low, high = self.penalty.lower, self.penalty.upper
        return ~(((point.g <= low) & (point.residual < 0)) | ((point.g >= high) & (point.residual > 0)))

    def error(self, point: Point) -> Tensor:
        """The L1 norm (B,) of the residual of the free potentials."""
        return torch.where(self.free(point), point.residual.abs(), torch.zeros_like(point.residual)).sum(-1)

    def scale(self, point: Point) -> Tensor:
        """The size (B,) of the terms of J, which bounds its rounding."""
        a, b = self.problem.a, self.problem.b
        rows = torch.where(a > 0, a * self.row_penalty.reward(point.f), torch.zeros_like(a)).abs().sum(-1)
        return rows + torch.where(b > 0, b * self.penalty.reward(point.g), torch.zeros_like(b)).abs().sum(-1)

    def rounding(self, point: Point, epsilon: Tensor) -> Tensor:
        """The error (B,) below which rounding of the potentials, in units of epsilon, decides: exponents are off by that much."""
        there = self.problem.b > 0
        size = torch.where(there, point.g.abs(), torch.zeros_like(point.g)).amax(-1)
        return 4 * torch.finfo(torch.float64).eps * size / epsilon * self.mass

    def project(self, g: Tensor) -> Tensor:
        """g within the bounds."""
        return g.clamp(self.penalty.lower, self.penalty.upper)

    def sweep(self, point: Point, epsilon: Tensor) -> Tensor:
        """The best g for the rows' f: the proximal step on the columns' soft-minima."""
        return self.penalty.step(self._column_minima(point, epsilon, exact=False), epsilon[:, None])

    def _column_minima(self, point: Point, epsilon: Tensor, *, exact: bool) -> Tensor:
        """t (B, m): from the column masses, c = b exp((g - t) / epsilon), or by a pass where those are too small or absent."""
        b, c = self.problem.b, point.rows.columns
        light = c <= _LIGHT * b
        safe = torch.where(light, torch.ones_like(c), c / torch.where(light, torch.ones_like(b), b))
        t = point.g - epsilon[:, None] * safe.log()
        if not bool((light if exact else light & (b > 0)).any()):
            return torch.where(light, point.g, t)
        self.passes.count += 1
        return torch.where(light, self.problem.columns(point.f, epsilon), t)

    def system(self, point: Point, epsilon: Tensor, shift: Tensor) -> System:
        """The negative Hessian in units of epsilon, its diagonal raised by `shift` (B,) relative."""
        w = self.passes.curvature(point.rows, epsilon)
        curved = epsilon[:, None] * self.problem.b * self.penalty.slope(point.g)
        c = point.rows.columns
        diagonal = c * (1 + shift[:, None]) + torch.where(self.problem.b > 0, curved, torch.zeros_like(curved))
        preconditioner = torch.maximum(diagonal - self.passes.squares(point.rows, w), 1e-12 * diagonal)
        return System(w, diagonal, preconditioner)

    def completed(self, point: Point, epsilon: Tensor) -> tuple[Point, Tensor]:
        """The point with potentials of columns that carry hardly any mass, or none, at their best value, and all column minima.

        No marginal pins these: they take the proximal step, the limit of a vanishing weight, where J hardly sees them.
        """
        t = self._column_minima(point, epsilon, exact=True)
        light = point.rows.columns <= _LIGHT * self.problem.b
        if not bool(light.any()):
            return point, t
        g = torch.where(light, self.penalty.step(t, epsilon[:, None]), point.g)
        if not bool((light & (self.problem.b > 0)).any()):  # weightless columns change nothing else
            return replace(point, g=g), t
        point = self.at(g, epsilon)
        return point, self._column_minima(point, epsilon, exact=True)


__all__ = ["Point", "SemiDual", "System"]
