"""From a validated pair of samples to a batch of problems: one batch axis, a canonical order of the two sides, one epsilon."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from discrepancy._validate import SamplePair
from discrepancy.costs import Cost
from discrepancy.transport.entropic.envelope import Dual
from discrepancy.transport.entropic.epsilon import Epsilon, resolve
from discrepancy.transport.entropic.kept.gradient import contracts_kept, kept_contraction
from discrepancy.transport.entropic.problem import MatrixProblem, Problem, point_problem
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials

# Rows that are compared at a time: samples may be arrays on disk.
_ROWS = 1 << 16


def _comes_first(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> bool:
    """Whether the points x with weights a precede y with b: more rows first, then by the first row that differs."""
    if x.shape != y.shape:
        return x.shape[-2:] > y.shape[-2:]
    for points, others, p, q in zip(x, y, a, b, strict=True):
        for start in range(0, len(points), _ROWS):
            part = slice(start, start + _ROWS)
            differs = (points[part] != others[part]).any(-1) | (p[part] != q[part])
            if bool(differs.any()):
                k = start + int(differs.int().argmax())
                mine, theirs = torch.cat([points[k], p[k : k + 1]]), torch.cat([others[k], q[k : k + 1]])
                at = int((mine != theirs).int().argmax())
                return bool(mine[at] > theirs[at])
    return True


@dataclass(frozen=True)
class Setting:
    """Samples x (B, n, d), y (B, m, d), weights a (B, n), b (B, m), as differentiable views of what the user gave.

    Under a symmetric cost the sides are put in an order that depends on the data only, so that exchanging the samples gives the
    same bits; `swapped` says whether they were.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    batch: torch.Size
    swapped: bool
    cost: Cost
    solver: EntropicSolver

    @classmethod
    def of(cls, pair: SamplePair, cost: Cost, solver: EntropicSolver) -> Setting:
        """The setting of a validated pair; ValueError if a point lies outside the cost's domain."""
        cost.check(pair.x, "x")
        cost.check(pair.y, "y")
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        swapped = cost.symmetric and not _comes_first(x.detach(), a.detach(), y.detach(), b.detach())
        if swapped:
            x, y, a, b = y, x, b, a
        return cls(x, y, a, b, pair.batch, swapped, cost, solver)

    @property
    def memory(self) -> int:
        """Bytes that may be held in what is quadratic in the sample sizes."""
        return int(self.solver.memory * 2**30)

    @property
    def budget(self) -> int:
        """Bytes that a block of the backward pass may take."""
        return min(int(self.solver.memory * 2**30), 64 << 20)

    def cross(self) -> Problem:
        """x against y."""
        return point_problem(self.x, self.y, self.a, self.b, self.cost, self.solver.memory)

    def epsilon(self, rule: Epsilon, problem: Problem) -> Tensor:
        """The epsilon (B,) of this call, detached."""
        mean = torch.zeros_like(problem.a[:, 0]) if isinstance(rule, int | float) else problem.mean_cost()
        return resolve(rule, mean)

    def dual(self, found: Potentials, epsilon: Tensor) -> Dual:
        """Potentials as the envelope gradient takes them."""
        return Dual(found.f, found.g, epsilon, self.cost, self.budget, self.memory // 2)

    def dual_on(self, problem: Problem, found: Potentials, epsilon: Tensor, x: Tensor, y: Tensor) -> Dual:
        """The same with the gradients in the points x and y of the problem, if any are wanted, while it holds its costs."""
        slopes = None
        wanted = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
        if wanted and isinstance(problem, MatrixProblem) and contracts_kept(problem, self.cost):
            slopes = kept_contraction(problem, found, epsilon, x, y, both=y.requires_grad and x is not y)
        return replace(self.dual(found, epsilon), slopes=slopes)

    def against_itself(self, x: Tensor, a: Tensor, epsilon: Tensor) -> tuple[Potentials, Dual]:
        """The self problem of one side, solved; its costs are not kept."""
        problem = point_problem(x, x, a, a, self.cost, self.solver.memory)
        found = self.solver.solve_symmetric(problem, epsilon) if self.cost.symmetric else self.solver.solve(problem, epsilon)
        return found, self.dual_on(problem, found, epsilon, x, x)

    def equal(self) -> Tensor:
        """(B,): whether the two sides are the same weighted points in the same order."""
        x, y, a, b = (t.detach() for t in (self.x, self.y, self.a, self.b))
        if x.shape != y.shape:
            return torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
        same = (x[:, 0] == y[:, 0]).all(-1)
        if bool(same.any()):  # all entries are compared only where the first row leaves a doubt
            same = (x == y).flatten(1).all(1) & (a == b).all(1)
        return same

    def shaped(self, value: Tensor) -> Tensor:
        """A (B, ...) tensor in the user's batch shape and dtype."""
        return value.to(self.x.dtype).reshape((*self.batch, *value.shape[1:]))


__all__ = ["Setting"]
