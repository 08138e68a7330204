"""The entropic transport problem: weights, a cost seen in row blocks, and the soft-minima over it. All in float64.

    min_P <P, C> + epsilon KL(P | a x b)  =  max_{f,g} <a, f> + <b, g> - epsilon sum_ij a_i b_j (exp((f_i + g_j - C_ij) /
    epsilon) - 1)

The optimal plan is P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon). Given g, the best f is the soft-minimum over the columns,
f_i = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), which is defined for points of weight zero too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.costs import Cost
from discrepancy.transport.entropic.kept.costs import kept_costs, written_at_once

# Entries of one block of a cost matrix that is kept: its temporaries stay near the processor's caches.
_BLOCK = 1 << 20
# Bytes a pair that a kept problem holds: the cost and the normalised plan, in float64.
_KEPT_BYTES = 16


@dataclass(frozen=True)
class Rows:
    """One pass over the problem at given g: f (B, n) makes the rows of the plan exact; its column sums (B, m); the dual (B,)."""

    f: Tensor
    columns: Tensor
    dual: Tensor


class Problem:
    """A batch of problems of one size; subclasses say where blocks of the cost come from.

    a (B, n), b (B, m): weights in float64, zeros allowed. `dtype`: that of the user's samples, which sets default tolerances.
    """

    kept = True

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        """Keep the weights and their logarithms."""
        self.a, self.b, self.dtype = a.detach().double(), b.detach().double(), dtype
        self.log_a, self.log_b = self.a.log(), self.b.log()
        self._plan: Tensor | None = None
        self._squares: Tensor | None = None

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Row ranges with their costs (B, rows, m)."""
        raise NotImplementedError

    def mean_cost(self) -> Tensor:
        """sum_ij a_i b_j C_ij, shape (B,)."""
        total = torch.zeros_like(self.a[:, 0])
        for part, cost in self.blocks():
            total = total + (self.a[:, part] * torch.matmul(cost, self.b[..., None])[..., 0]).sum(-1)
        return total

    def rows(self, g: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the columns, (B, n)."""
        e = epsilon[:, None, None]
        return torch.cat(
            [-epsilon[:, None] * torch.logsumexp((g[:, None] - cost) / e + self.log_b[:, None], -1) for _, cost in self.blocks()],
            -1,
        )

    def columns(self, f: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the rows, (B, m)."""
        e = epsilon[:, None, None]
        total: Tensor | None = None
        for part, cost in self.blocks():
            block = torch.logsumexp((f[:, part, None] - cost) / e + self.log_a[:, part, None], -2)
            total = block if total is None else torch.logaddexp(total, block)
        assert total is not None
        return -epsilon[:, None] * total

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """One pass: f, column sums, the diagonal of the Newton system and the dual value at (f, g); keeps Q where memory
        allows."""
        e = epsilon[:, None, None]
        found, columns = [], torch.zeros_like(self.b)
        self._squares = None if self.kept else torch.zeros_like(self.b)
        if self.kept and self._plan is None:  # one buffer serves all passes
            self._plan = torch.empty(*self.a.shape, self.b.shape[-1], dtype=self.a.dtype, device=self.a.device)
        for part, cost in self.blocks():
            exponent = (g[:, None] - cost).div_(e).add_(self.log_b[:, None])
            top = exponent.amax(-1, keepdim=True)
            share = exponent.sub_(top).exp_()
            size = share.sum(-1, keepdim=True)
            share = share.div_(size)
            found.append(-epsilon[:, None] * (top + size.log())[..., 0])
            weight = self.a[:, None, part]
            columns += torch.matmul(weight, share)[:, 0]
            if self._plan is not None:
                self._plan[:, part] = share
            if self._squares is not None:
                self._squares += torch.matmul(weight, share.square_())[:, 0]
        f = torch.cat(found, -1)
        self._at = (f, g, epsilon)
        return Rows(f, columns, (self.a * f).sum(-1) + (self.b * g).sum(-1))

    def squares(self) -> Tensor:
        """sum_i a_i Q_ij^2 (B, m) at the last evaluation: with the column sums, the diagonal of the Newton system."""
        if self._squares is not None:
            return self._squares
        assert self._plan is not None
        return torch.matmul(self.a[:, None], self._plan.square())[:, 0]

    def normal_product(self, v: Tensor) -> Tensor:
        """Q^T (a * (Q v)) for v (B, m) at the last evaluation; Q is formed again block by block where it is not kept."""
        if self._plan is not None:
            inner = torch.matmul(self._plan, v[..., None])[..., 0] * self.a
            return torch.matmul(inner[:, None], self._plan)[:, 0]
        f, g, epsilon = self._at
        out = torch.zeros_like(v)
        for part, cost in self.blocks():
            share = ((f[:, part, None] + g[:, None] - cost) / epsilon[:, None, None] + self.log_b[:, None]).exp()
            inner = torch.matmul(share, v[..., None])[..., 0] * self.a[:, part]
            out += torch.matmul(inner[:, None], share)[:, 0]
        return out

    def plan_blocks(self, f: Tensor, g: Tensor, epsilon: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Row ranges with the plan a_i b_j exp((f_i + g_j - C_ij) / epsilon) and the cost there, (B, rows, m) each."""
        for part, cost in self.blocks():
            exponent = (f[:, part, None] + g[:, None] - cost) / epsilon[:, None, None]
            yield part, (exponent + self.log_a[:, part, None] + self.log_b[:, None]).exp(), cost


class MatrixProblem(Problem):
    """A problem whose cost matrices (B, n, m) are given; +inf forbids a pair."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        """Keep the cost in float64; it may be shared with the caller, and is never written to."""
        super().__init__(a, b, dtype)
        self.cost = cost.detach().double().contiguous()
        self._seen: tuple[Tensor, Tensor, bool] | None = None

    @property
    def forbids(self) -> bool:
        """Whether a pair is forbidden."""
        return self._survey()[2]

    def mean_cost(self) -> Tensor:
        """sum_ij a_i b_j C_ij over the allowed pairs, divided by their a x b mass, shape (B,)."""
        return self._survey()[0]

    def mean_size(self) -> Tensor:
        """sum_ij a_i b_j |C_ij| over the allowed pairs, shape (B,)."""
        return self._survey()[1]

    def _survey(self) -> tuple[Tensor, Tensor, bool]:
        """The two means and whether a pair is forbidden: one pass over the costs, at the first question."""
        if self._seen is None:
            if self.cost.device.type == "cpu":
                from discrepancy._loops.entropic.survey import survey

                found = [survey(*(t.numpy() for t in part)) for part in zip(self.cost, self.a, self.b, strict=True)]
                total, size, mass, closed = torch.tensor(found, dtype=torch.float64).T
                forbids = bool(closed.any())
            else:
                allowed = torch.isfinite(self.cost)
                finite = torch.where(allowed, self.cost, torch.zeros_like(self.cost))
                reference = self.a[..., None] * self.b[:, None]
                total, size = (reference * finite).sum((-1, -2)), (reference * finite.abs()).sum((-1, -2))
                mass, forbids = (reference * allowed).sum((-1, -2)), not bool(allowed.all())
            mean = total / torch.where(mass > 0, mass, torch.ones_like(mass)) if forbids else total
            self._seen = (mean, size, forbids)
        return self._seen

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Views of the matrix."""
        size, n, m = self.cost.shape
        step = max(1, _BLOCK // (size * m))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n)), self.cost[:, start : start + step]


class StreamedProblem(Problem):
    """A problem on points whose cost is computed again at every pass, in blocks of rows: memory O(block), never n m."""

    kept = False

    def __init__(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: Cost, budget: int, dtype: torch.dtype) -> None:
        """Keep the points in float64."""
        super().__init__(a, b, dtype)
        self.x, self.y, self.ground = x.detach().double(), y.detach().double(), cost
        self.step = cost.block_size(y.shape[-2] * x.shape[0], x.shape[-1], budget, 8)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Freshly computed costs."""
        for start in range(0, self.x.shape[1], self.step):
            part = slice(start, min(start + self.step, self.x.shape[1]))
            with torch.no_grad():
                yield part, self.ground.matrix(self.x[:, part], self.y)


def point_problem(x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: Cost, memory: float) -> Problem:
    """The problem between points x (B, n, d) and y (B, m, d): with a kept cost matrix if it fits `memory` (GiB), else
    streamed."""
    budget = int(memory * 2**30)
    pairs = x.shape[0] * x.shape[1] * y.shape[1]
    at_once = written_at_once(x, cost) or cost.block_size(y.shape[1], x.shape[-1], budget, 8) >= x.shape[1] * x.shape[0]
    if pairs * _KEPT_BYTES + 6 * 8 * min(pairs, _BLOCK) <= budget and at_once:
        return MatrixProblem(kept_costs(x, y, cost), a, b, x.dtype)
    # Small blocks are faster than few large ones: a fraction of the budget at most.
    if x.device.type == "cpu":
        from discrepancy.transport.entropic.streamed.problem import FusedProblem

        return FusedProblem(x, y, a, b, cost, min(budget, 64 << 20), x.dtype)
    return StreamedProblem(x, y, a, b, cost, min(budget, 64 << 20), x.dtype)


__all__ = ["MatrixProblem", "Problem", "Rows", "StreamedProblem", "point_problem"]
