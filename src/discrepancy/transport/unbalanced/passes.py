"""Passes over all pairs at given column potentials: soft-minima, the plan's row and column masses, products with the plan.

Potentials f of the rows are eliminated: given g, each row takes its best potential by a proximal step on its soft-minimum, and
what is left is a smooth concave function of g. On the CPU a kept cost goes through compiled loops; anything else in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.transport.entropic.problem import MatrixProblem, Problem
from discrepancy.transport.unbalanced.penalties import MarginalPenalty

# The kept plan is tilted by factors up to e^30 either way: within float32, and far beyond what one Newton step moves.
_FAR = 30.0


@dataclass(frozen=True)
class Rows:
    """One pass at g: soft-minima s (B, n), row potentials f (B, n), ratios r = exp((f - s) / epsilon) of the plan's row masses
    to the weights, and the plan's column masses (B, m). `tilts` (B, n), (B, m): factors of rows and columns that turn the
    kept plan into that of this pass, where it was not formed anew."""

    s: Tensor
    f: Tensor
    ratio: Tensor
    columns: Tensor
    tilts: tuple[Tensor, Tensor] | None = None


class Passes:
    """The passes of one problem; the row-normalised plan Q of the last pass is kept where memory allows."""

    def __init__(self, problem: Problem, rows: MarginalPenalty) -> None:
        """`rows` is the penalty of the row marginals."""
        self.problem, self.penalty, self.count = problem, rows, 0
        self._plan: Tensor | None = None

    @staticmethod
    def of(problem: Problem, rows: MarginalPenalty) -> Passes:
        """Compiled passes where the cost is kept on the CPU and the proximal step has a closed form, fused ones where points are
        streamed there, else in blocks."""
        if isinstance(problem, MatrixProblem) and rows.decay is not None and problem.cost.device.type == "cpu":
            return CompiledPasses(problem, rows)
        if not problem.kept and problem.a.device.type == "cpu":
            from discrepancy.transport.entropic.streamed.problem import FusedProblem
            from discrepancy.transport.unbalanced.streamed import StreamedPasses

            if isinstance(problem, FusedProblem):
                return StreamedPasses(problem, rows)
        return Passes(problem, rows)

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """One pass at g (B, m) and epsilon (B,)."""
        problem, e = self.problem, epsilon[:, None]
        self.count += 1
        self._at = (g, epsilon)
        if problem.kept and self._plan is None:
            self._plan = torch.empty(*problem.a.shape, g.shape[-1], dtype=torch.float64, device=g.device)
        minima, columns = [], torch.zeros_like(problem.b)
        for part, cost in problem.blocks():
            exponent = ((g[:, None] - cost) / e[..., None]).add_(problem.log_b[:, None])
            top = exponent.amax(-1, keepdim=True)
            share = exponent.sub_(top).exp_()
            size = share.sum(-1, keepdim=True)
            share = share.div_(size)
            s = -e * (top + size.log())[..., 0]
            minima.append(s)
            ratio = ((self.penalty.step(s, e) - s) / e).exp()
            columns += torch.matmul((problem.a[:, part] * ratio)[:, None], share)[:, 0]
            if self._plan is not None:
                self._plan[:, part] = share
        s = torch.cat(minima, -1)
        f = self.penalty.step(s, e)
        return Rows(s, f, ((f - s) / e).exp(), columns)

    def nearby(self, g: Tensor, epsilon: Tensor) -> Rows | None:
        """The same to about six digits from the kept plan, where it is near enough and that is cheaper; else None."""
        return None

    def _shares(self, s: Tensor):
        """Row ranges with their block of Q at the last pass."""
        if self._plan is not None:
            yield slice(0, s.shape[-1]), self._plan
            return
        g, epsilon = self._at
        for part, cost in self.problem.blocks():
            yield part, ((s[:, part, None] + g[:, None] - cost) / epsilon[:, None, None] + self.problem.log_b[:, None]).exp()

    def curvature(self, rows: Rows, epsilon: Tensor) -> Tensor:
        """The weights w (B, n) of the rows in the Newton system: row mass times df/ds, which is zero at a bound."""
        penalty, mass = self.penalty, rows.ratio
        inside = (rows.f > penalty.lower) & (rows.f < penalty.upper)
        share = mass / (mass + epsilon[:, None] * penalty.slope(rows.f))
        return torch.where(inside & (mass > 0), self.problem.a * mass * share, torch.zeros_like(mass))

    def squares(self, rows: Rows, w: Tensor) -> Tensor:
        """sum_i w_i Q_ij^2 (B, m) at the last pass."""
        out = torch.zeros_like(self.problem.b)
        for part, share in self._shares(rows.s):
            out += torch.matmul(w[:, None, part], share.square())[:, 0]
        return out

    def product(self, rows: Rows, w: Tensor, v: Tensor) -> Tensor:
        """Q^T (w * (Q v)) for v (B, m) at the last pass."""
        out = torch.zeros_like(v)
        for part, share in self._shares(rows.s):
            inner = torch.matmul(share, v[..., None])[..., 0] * w[:, part]
            out += torch.matmul(inner[:, None], share)[:, 0]
        return out

    def solve(
        self, rows: Rows, w: Tensor, diagonal: Tensor, scale: Tensor, residual: Tensor, enough: Tensor, limit: int
    ) -> Tensor:
        """x with (diag(diagonal) - Q^T diag(w) Q) x = residual by conjugate gradients, until the L1 norm of what is left is below
        `enough` (B,) or after `limit` products; scale (B, m): the inverse preconditioner, zero where x is held at zero."""
        x, left = torch.zeros_like(residual), torch.where(scale > 0, residual, torch.zeros_like(residual))
        p = left * scale
        rz = (left * p).sum(-1)
        for _ in range(limit):
            going = (left.abs().sum(-1) > enough) & (rz > 0)
            if not bool(going.any()):
                break
            self.count += 1
            image = torch.where(scale > 0, diagonal * p - self.product(rows, w, p), torch.zeros_like(p))
            curvature = (p * image).sum(-1)
            going = going & (curvature > 0)
            step = torch.where(going, rz / torch.where(going, curvature, torch.ones_like(curvature)), torch.zeros_like(rz))
            x, left = x + step[:, None] * p, left - step[:, None] * image
            z = left * scale
            fresh = (left * z).sum(-1)
            p = z + torch.where(going, fresh / torch.where(going, rz, torch.ones_like(rz)), torch.zeros_like(rz))[:, None] * p
            rz = torch.where(going, fresh, torch.zeros_like(fresh))
        return x


class CompiledPasses(Passes):
    """The same by compiled loops, one problem of the batch after the other; Q is kept in float32, which is enough for a Newton
    system, while every sum that a result depends on is in float64."""

    problem: MatrixProblem

    def __init__(self, problem: MatrixProblem, rows: MarginalPenalty) -> None:
        """Allocate Q once for all passes."""
        super().__init__(problem, rows)
        self._cost = problem.cost.contiguous().numpy()
        self._single = torch.empty(problem.cost.shape, dtype=torch.float32)
        self._base: tuple[Tensor, Tensor, Tensor] | None = None
        assert rows.decay is not None
        self._proximal = (float(rows.decay), float(rows.lower), float(rows.upper))

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """One pass at g (B, m) and epsilon (B,)."""
        from discrepancy._loops.unbalanced.softmin_pass import softmin_pass

        self.count += 1
        problem = self.problem
        s, f, ratio = (torch.empty_like(problem.a) for _ in range(3))
        columns = torch.empty_like(problem.b)
        where = (self._cost, g.contiguous().numpy(), problem.log_b.contiguous().numpy())
        rows = (problem.a.contiguous().numpy(), epsilon.contiguous().numpy(), *self._proximal)
        softmin_pass(*where, *rows, s.numpy(), f.numpy(), ratio.numpy(), columns.numpy(), self._single.numpy())
        self._base = (g, s, epsilon)
        return Rows(s, f, ratio, columns)

    def nearby(self, g: Tensor, epsilon: Tensor) -> Rows | None:
        """From the kept plan, if epsilon is that of the last pass and no potential is more than 30 epsilon away: a twentieth of
        a pass."""
        from discrepancy._loops.unbalanced.tilted_pass import tilted_pass

        if self._base is None or not torch.equal(self._base[2], epsilon):
            return None
        moved = (g - self._base[0]) / epsilon[:, None]
        if not bool((moved.abs() <= _FAR).all()):
            return None
        self.count += 1
        problem = self.problem
        s, f, ratio, row_tilt = (torch.empty_like(problem.a) for _ in range(4))
        columns = torch.empty_like(problem.b)
        tilt = moved.float().exp()
        rows = (problem.a.contiguous().numpy(), epsilon.contiguous().numpy(), *self._proximal)
        found = (s.numpy(), f.numpy(), ratio.numpy(), row_tilt.numpy(), columns.numpy())
        tilted_pass(self._single.numpy(), tilt.numpy(), self._base[1].numpy(), *rows, *found)
        return Rows(s, f, ratio, columns, (row_tilt, tilt.double()))

    def squares(self, rows: Rows, w: Tensor) -> Tensor:
        """sum_i w_i Q_ij^2 (B, m) at the last pass."""
        from discrepancy._loops.unbalanced.plan_products import squared_columns

        out = torch.empty(w.shape[0], self._single.shape[-1], dtype=torch.float32)
        weight = w if rows.tilts is None else w * rows.tilts[0].square()
        squared_columns(self._single.numpy(), weight.float().numpy(), out.numpy())
        return out.double() if rows.tilts is None else out.double() * rows.tilts[1].square()

    def solve(
        self, rows: Rows, w: Tensor, diagonal: Tensor, scale: Tensor, residual: Tensor, enough: Tensor, limit: int
    ) -> Tensor:
        """The same in one compiled loop a problem."""
        from discrepancy._loops.unbalanced.newton_direction import newton_direction

        weight = w if rows.tilts is None else w * rows.tilts[0].square()
        tilt = torch.ones_like(diagonal) if rows.tilts is None else rows.tilts[1]
        x = torch.zeros_like(diagonal)
        e, d, s, right, least = (t.contiguous().numpy() for t in (tilt, diagonal, scale, residual, enough))
        plan, small = self._single.numpy(), weight.float().numpy()
        self.count += newton_direction(plan, small, e, d, s, right, least, limit, x.numpy())
        return x


__all__ = ["CompiledPasses", "Passes", "Rows"]
