"""One entropic problem solved by several processes: each passes over its own rows of the pairs, all hold the potentials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.transport.entropic.envelope import Dual
from discrepancy.transport.entropic.problem import Problem, Rows, StreamedProblem, point_problem
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials
from discrepancy.transport.ranks import Ranks


class ShardedProblem(Problem):
    """The whole problem as every rank sees it, whose passes over the pairs are divided among the ranks by rows.

    A pass costs n m / R pairs and sends O(n + m) numbers; costs are kept where a rank's share of them fits its memory.
    """

    kept = False

    def __init__(self, whole: StreamedProblem, ranks: Ranks, memory: float) -> None:
        """Take this rank's rows of a problem on points; memory: GiB that a rank may hold in its share of the pairs."""
        super().__init__(whole.a, whole.b, whole.dtype)
        self.ranks = ranks
        self.part, self.lengths = ranks.share(whole.a.shape[-1])
        self.own: Problem | None = None
        if self.part.stop > self.part.start:
            x, a = whole.x[:, self.part].to(whole.dtype), whole.a[:, self.part]
            self.own = point_problem(x, whole.y.to(whole.dtype), a, whole.b, whole.ground, memory)

    def _whole_rows(self, mine: Tensor) -> Tensor:
        return self.ranks.join(mine, self.lengths, -1)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Refused: no rank sees all pairs."""
        raise TypeError("a solver that asks for the cost matrix cannot work over ranks: take SemiDualNewton() or LogSinkhorn()")

    def mean_cost(self) -> Tensor:
        """sum_ij a_i b_j C_ij, shape (B,)."""
        mine = torch.zeros_like(self.a[:, 0]) if self.own is None else self.own.mean_cost()
        return self.ranks.total(mine)

    def rows(self, g: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the columns, (B, n)."""
        return self._whole_rows(self.a[:, :0] if self.own is None else self.own.rows(g, epsilon))

    def columns(self, f: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the rows, (B, m)."""
        e = epsilon[:, None]
        if self.own is None:
            mine = torch.full_like(self.b, torch.inf)
        else:
            mine = self.own.columns(f[:, self.part], epsilon)
        stacked = self.ranks.join(mine[None], [1] * self.ranks.size, 0)
        return -e * torch.logsumexp(-stacked / e, 0)

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """One pass: f, column sums and the dual value at (f, g)."""
        if self.own is None:
            f, sums = self.a[:, :0], torch.zeros_like(self.b)
        else:
            found = self.own.evaluate(g, epsilon)
            f, sums = found.f, found.columns
        f, sums = self._whole_rows(f), self.ranks.total(sums)
        return Rows(f, sums, (self.a * f).sum(-1) + (self.b * g).sum(-1))

    def squares(self) -> Tensor:
        """sum_i a_i Q_ij^2 (B, m) at the last evaluation."""
        return self.ranks.total(torch.zeros_like(self.b) if self.own is None else self.own.squares())

    def normal_product(self, v: Tensor) -> Tensor:
        """Q^T (a * (Q v)) for v (B, m) at the last evaluation."""
        return self.ranks.total(torch.zeros_like(self.b) if self.own is None else self.own.normal_product(v))


@dataclass(frozen=True)
class ShardedSolver:
    """A solver whose passes over the pairs are divided among ranks; `inner` decides the steps, the same on every rank.

    Its `memory` is zero but for the blocks, so that no rank forms all pairs before they are divided.
    """

    inner: EntropicSolver
    ranks: Ranks

    @property
    def memory(self) -> float:
        """GiB for what is quadratic in the whole problem: next to none."""
        return 1e-9

    def _shared(self, problem: Problem) -> ShardedProblem:
        assert isinstance(problem, StreamedProblem)
        return ShardedProblem(problem, self.ranks, self.inner.memory)

    def mean_cost(self, problem: Problem) -> Tensor:
        """The mean cost (B,), one divided pass."""
        return self._shared(problem).mean_cost()

    def solve(self, problem: Problem, epsilon: Tensor, *, start: Tensor | None = None) -> Potentials:
        """The potentials for epsilon (B,), on every rank."""
        return self.inner.solve(self._shared(problem), epsilon, start=start)

    def solve_symmetric(self, problem: Problem, epsilon: Tensor) -> Potentials:
        """The potentials of a measure against itself."""
        return self.inner.solve_symmetric(self._shared(problem), epsilon)


def sharded_contraction(dual: Dual, ranks: Ranks, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of sum_ij P_ij c(x_i, y_j) in x and y at fixed plan, each rank passing over its rows only."""
    part, lengths = ranks.share(x.shape[1])
    if part.stop > part.start:
        mine = Dual(dual.f[:, part], dual.g, dual.epsilon, dual.cost, dual.budget, dual.keep)
        gx, gy = mine.contract(x[:, part], y, a[:, part], b)
    else:
        gx, gy = x[:, :0].double(), torch.zeros_like(y, dtype=torch.float64)
    return ranks.join(gx, lengths, 1), ranks.total(gy)


__all__ = ["ShardedProblem", "ShardedSolver", "sharded_contraction"]
