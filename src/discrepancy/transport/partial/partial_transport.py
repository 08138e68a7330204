"""Exact partial transport between positive measures of any mass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._validate import SamplePair, as_tensor, sample_pair, weights
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex, as_points, cost_matrix
from discrepancy.transport.exact.extension import barycentric_map
from discrepancy.transport.exact.gradient import Entries, plan_value
from discrepancy.transport.exact.inputs import check_matrix, check_solver, on_cpu
from discrepancy.transport.exact.orientation import comes_first
from discrepancy.transport.partial.mass import Mass, MassShare, carried_mass, check_mass
from discrepancy.transport.partial.plans import PartialPlan, Proof, certify, entries_of, solve_partial
from discrepancy.transport.partial.result import PartialResult


@dataclass(frozen=True)
class PartialTransport(Discrepancy):
    """min <P, C> over P >= 0 with P 1 <= a, P^T 1 <= b and total mass s: only part of the mass moves, the cheapest part.

    `mass` is s, a number, or `MassShare(0.9)`, that share of the lighter measure. Weights may have any positive mass. Outliers
    and what has no counterpart stay where they are. In units of the cost; a growing s never lowers a non-negative cost, and the
    price (the multiplier of s) is what the next unit costs. x (..., n, d), y (..., m, d).
    Solved exactly as an ordinary problem with a dummy point on either side; `.solve` has plan, potentials, price and a duality
    gap at rounding level, `.solve_cost` takes a cost matrix, where +inf forbids a pair. `PartialSinkhorn` is the smooth relative;
    a form with a price per unit left behind is `UnbalancedSinkhorn(penalty=TotalVariationPenalty(rho))`.

    Gradients hold plan and potentials fixed: P_ij dc_ij in the points, f and g in the weights (plus the price times the change of
    s for a share). Where the optimum is not unique this is one subgradient. CPU only; memory quadratic: samples whose cost matrix
    does not fit the solver's `memory` are refused. Source: Figalli (2010); Chapel, Alaya and Gasso (2020).
    """

    mass: Mass = field(default_factory=MassShare)
    cost: Cost = field(default_factory=SquaredEuclidean)
    solver: ExactSolver = field(default_factory=NetworkSimplex)
    claims: ClassVar[Claims] = Claims(degree=2.0, any_mass=True)
    references: ClassVar[tuple[str, ...]] = ("figalli-2010", "chapel-2020")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        check_mass(self.mass)
        object.__setattr__(self, "cost", as_cost(self.cost))
        check_solver(self.solver)
        cost = self.cost
        claims = Claims(
            symmetric=cost.symmetric,
            non_negative=cost.premetric,
            zero_at_equality=cost.premetric,
            translation_invariant=cost.translation_invariant,
            degree=cost.degree,
            any_mass=True,
        )
        object.__setattr__(self, "claims", claims)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        return sample_pair(x, y, a, b, mass="positive")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The cost of the partial plan over the batch."""
        return self._solved(pair).value.to(pair.x.dtype).reshape(pair.batch)

    def _solved(self, pair: SamplePair) -> _Solved:
        for points, name in ((pair.x, "x"), (pair.y, "y")):
            self.cost.check(points, name)
            on_cpu(points, name)
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        self._check_size(x.shape[1], y.shape[1])
        s = carried_mass(self.mass, a, b)
        plans = []
        for k in range(len(x)):
            u, v = (t[k].detach().contiguous().numpy() for t in (x, y))
            p, q = (w[k].detach().double().numpy() for w in (a, b))
            if self.cost.symmetric and not comes_first(u, p, v, q):
                flipped = solve_partial(cost_matrix(v, u, self.cost), q, p, float(s[k].detach()), self.solver)
                plans.append(flipped.transposed())
            else:
                plans.append(solve_partial(cost_matrix(u, v, self.cost), p, q, float(s[k].detach()), self.solver))
        entries = entries_of(plans)
        ends = (
            x.reshape(-1, d)[entries.problem * x.shape[1] + entries.row],
            y.reshape(-1, d)[entries.problem * y.shape[1] + entries.column],
        )
        costs = self.cost.pairs(*(as_points(t, self.cost) for t in ends)).double()
        return _Solved.of(plans, entries, costs, a, b, s, type(self).__name__)

    def _check_size(self, n: int, m: int) -> None:
        budget = float(getattr(self.solver, "memory", 1.0))
        need = 8 * (n + 1) * (m + 1) / 2**30
        if need > budget:
            raise ValueError(
                f"the cost matrix of {n} x {m} points takes {need:.3g} GiB of the {budget:g} allowed: raise memory in "
                "NetworkSimplex(memory=...), or take PartialSinkhorn, which streams"
            )

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> PartialResult:
        """The value (differentiable) with plan, potentials, price and certificate."""
        pair = self._checked(x, y, a, b)
        solved = self._solved(pair)
        d = pair.x.shape[-1]
        points = pair.x.reshape(-1, pair.x.shape[-2], d), pair.y.reshape(-1, pair.y.shape[-2], d), self.cost
        return solved.result(pair.batch, pair.x.dtype, points)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> PartialResult:
        """The same for a given cost matrix C (..., n, m); +inf forbids a pair. Differentiable in C and the weights.

        Raises ValueError for a matrix, weights or mass that do not fit, NumericalError where the allowed pairs cannot carry the
        mass.
        """
        matrix = as_tensor(C, "C")
        check_matrix(matrix)
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left = weights(a, (*batch, n), "a", like=matrix, mass="positive").reshape(-1, n)
        right = weights(b, (*batch, m), "b", like=matrix, mass="positive").reshape(-1, m)
        stack = matrix.reshape(-1, n, m)
        s = carried_mass(self.mass, left, right)
        p, q = (w.detach().double().numpy() for w in (left, right))
        plans = [
            solve_partial(stack[k].detach().double().numpy(), p[k], q[k], float(s[k].detach()), self.solver)
            for k in range(len(stack))
        ]
        entries = entries_of(plans)
        costs = stack[entries.problem, entries.row, entries.column].double()
        return _Solved.of(plans, entries, costs, left, right, s, type(self).__name__).result(batch, matrix.dtype, None)


@dataclass(frozen=True)
class _Solved:
    """A batch of partial problems, solved: values (B,) in float64, differentiable, and what certifies them."""

    plans: Sequence[PartialPlan]
    entries: Entries
    value: Tensor
    mass: Tensor
    proof: Proof
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, plans: Sequence[PartialPlan], entries: Entries, costs: Tensor, a: Tensor, b: Tensor, s: Tensor, name: str
    ) -> _Solved:
        """The values of the plans at the costs (k,) of their entries, for weights a (B, n), b (B, m) and masses s (B,)."""
        f, g = (torch.from_numpy(np.stack([getattr(plan, side) for plan in plans])) for side in ("f", "g"))
        price = torch.tensor([plan.price for plan in plans], dtype=torch.float64)
        value = plan_value(costs, a, b, entries, f, g)
        if s.requires_grad:
            value = value + price * (s - s.detach())
        arrays = (t.detach().double().numpy() for t in (costs, a, b, s))
        proof = certify(plans, *arrays)
        proof.outcome.warn(name, stacklevel=6)
        return cls(plans, entries, value, s.detach(), proof, (a.shape[1], b.shape[1]))

    def result(self, batch: torch.Size, dtype: torch.dtype, points: tuple[Tensor, Tensor, Cost] | None) -> PartialResult:
        """The result in the user's batch shape and dtype."""
        entries, (n, m) = self.entries, self.shape

        def shaped(t: Tensor | np.ndarray) -> Tensor:
            t = torch.as_tensor(t)
            return t.to(dtype).reshape((*batch, *t.shape[1:]))

        def plan() -> Tensor:
            where = torch.unravel_index(entries.problem, tuple(batch)) if batch else ()
            index = torch.stack([*where, entries.row, entries.column])
            size = (*batch, n, m)
            return torch.sparse_coo_tensor(index, entries.mass.to(dtype), size, check_invariants=True).coalesce()

        def apply(v: Tensor) -> Tensor:
            if v.ndim < 2 or v.shape[-2] != m:
                raise ValueError(f"apply takes v of shape (..., {m}, k), got {tuple(v.shape)}")
            columns = v.expand(*batch, *v.shape[-2:]).reshape(-1, v.shape[-1]).double()
            pieces = columns[entries.problem * m + entries.column] * entries.mass[:, None]
            total = torch.zeros(math.prod(batch) * n, v.shape[-1], dtype=torch.float64)
            total = total.index_add(0, entries.problem * n + entries.row, pieces)
            return total.to(v.dtype).reshape(*batch, n, v.shape[-1])

        return PartialResult(
            value=self.value.to(dtype).reshape(batch),
            cost=shaped(self.proof.cost),
            f=shaped(np.stack([p.f for p in self.plans])),
            g=shaped(np.stack([p.g for p in self.plans])),
            marginal_error=self.proof.error.reshape(batch),
            dual_gap=self.proof.gap.reshape(batch),
            iterations=max(p.pivots for p in self.plans),
            epsilon=0.0,
            outcome=self.proof.outcome,
            rungs=tuple(dict.fromkeys(rung for p in self.plans for rung in p.rungs)),
            mass=shaped(self.mass),
            price=shaped(np.array([p.price for p in self.plans])),
            _plan=plan,
            _apply=apply,
            _map=None if points is None else lambda: barycentric_map(points[0], points[1], entries, points[2]),
        )


__all__ = ["PartialTransport"]
