"""Exact optimal transport between samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import TransportResult
from discrepancy._validate import SamplePair, as_tensor, sample, weights
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex, as_points, line_order
from discrepancy.transport.exact.gradient import plan_value
from discrepancy.transport.exact.inputs import check_matrix, check_solver, on_cpu, starting_bases, unit_masses
from discrepancy.transport.exact.orientation import solve_pair
from discrepancy.transport.exact.pooled import PooledPlans
from discrepancy.transport.exact.result import Certificate, Solved, transport_result
from discrepancy.transport.exact.solution import ExactSolution
from discrepancy.transport.line import line_cost
from discrepancy.transport.pooled_line import PooledLines


@dataclass(frozen=True)
class OptimalTransport(Discrepancy):
    """The transport cost min_P <P, C> over couplings P of two weighted samples, C_ij = c(x_i, y_j): exact, with a certificate.

    In units of the cost; `Wasserstein` is its root. x (..., n, d), y (..., m, d). `.solve` also has the plan as at most n + m - 1
    entries (sparse COO), potentials that are feasible everywhere (f_i + g_j <= c_ij, points of weight zero included, shifted so
    that <a, f> = <b, g>) and the duality gap, which is at rounding level; a plan that is not optimal to 1e-9 of the cost carries
    an outcome that says so and warns. As a plug-in estimate of the cost between the laws it is biased upward, by O(n^(-2/d)) for
    the squared distance at d > 4.
    Gradients hold the optimal plan and potentials fixed: in the points and in tensors that a cost function carries they are
    P_ij dc_ij, in the weights f and g. Where the optimum is not unique the value has a kink and this is a subgradient. Second
    derivatives raise RuntimeError. Samples must be on the CPU (ValueError): `Sinkhorn` runs on other devices; on the line a cost
    |x - y|^p, p >= 1, is sorted on any device. Time about n^2 in practice (n log n on the line); memory linear in
    n + m. Source: Kantorovich (1942); Peyre and Cuturi (2019), chapter 3.
    """

    cost: Cost = field(default_factory=SquaredEuclidean)
    solver: ExactSolver = field(default_factory=NetworkSimplex)
    claims: ClassVar[Claims] = Claims(degree=2.0)
    references: ClassVar[tuple[str, ...]] = ("kantorovich-1942", "peyre-cuturi-2019", "bonneel-2011")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        object.__setattr__(self, "cost", as_cost(self.cost))
        check_solver(self.solver)
        cost = self.cost
        claims = Claims(
            symmetric=cost.symmetric,
            non_negative=cost.premetric,
            zero_at_equality=cost.premetric,
            metric=cost.metric,
            translation_invariant=cost.translation_invariant,
            degree=cost.degree,
            norm_power=1 if cost.metric else None,
        )
        object.__setattr__(self, "claims", claims)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The transport cost over the batch."""
        return self._costs(pair).to(pair.x.dtype).reshape(pair.batch)

    def _costs(self, pair: SamplePair) -> Tensor:
        """The transport costs (B,) in float64, differentiable."""
        self._check_domain(pair.x, "x")
        self._check_domain(pair.y, "y")
        order = self._order(pair.x.shape[-1])
        if order is None:
            return self._solved(pair, None)[1]
        u, v = (t.squeeze(-1).reshape(-1, t.shape[-2]) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        return line_cost(u, v, a, b, order, equal_a=pair.uniform_a, equal_b=pair.uniform_b)

    def _order(self, dimension: int) -> float | None:
        """The order of the cost on the line, where sorting is the solver."""
        return line_order(self.cost, dimension) if isinstance(self.solver, NetworkSimplex) else None

    def _check_domain(self, x: Tensor, name: str) -> None:
        self.cost.check(x, name)
        if self._order(x.shape[-1]) is None:
            on_cpu(x, name)

    def _solved(self, pair: SamplePair, start: TransportResult | None) -> tuple[Solved, Tensor, Certificate]:
        """The solved batch, its values (B,), differentiable, and what certifies them."""
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        left, right = unit_masses(a, pair.uniform_a), unit_masses(b, pair.uniform_b)
        bases = starting_bases(start, len(x), x.shape[1], y.shape[1])
        solutions: list[ExactSolution] = []
        for k, basis in enumerate(bases):
            u, v = (t[k].detach().contiguous().numpy() for t in (x, y))
            solutions.append(solve_pair(u, v, left[k], right[k], self.cost, self.solver, basis))
        solved = Solved.of(solutions, left, right)
        entries = solved.entries
        ends = (
            x.reshape(-1, d)[entries.problem * x.shape[1] + entries.row],
            y.reshape(-1, d)[entries.problem * y.shape[1] + entries.column],
        )
        costs = self.cost.pairs(*(as_points(t, self.cost) for t in ends)).double()
        certificate = solved.certified(costs)
        certificate.outcome.warn(type(self).__name__, stacklevel=5)
        return solved, plan_value(costs, a, b, entries, solved.f, solved.g), certificate

    def solve(
        self,
        x: Any,
        y: Any,
        a: Any = None,
        b: Any = None,
        *,
        generator: torch.Generator | None = None,
        start: TransportResult | None = None,
    ) -> TransportResult:
        """The value (differentiable) with plan, potentials and certificate.

        start: an earlier result of this kind for samples of the same sizes, whose basis the simplex begins with: worth it where
        points or weights moved little, as in a descent.
        """
        pair = self._checked(x, y, a, b)
        for points, name in ((pair.x, "x"), (pair.y, "y")):
            self.cost.check(points, name)
            on_cpu(points, name)
        solved, value, certificate = self._solved(pair, start)
        d = pair.x.shape[-1]
        points = (pair.x.reshape(-1, pair.x.shape[-2], d), pair.y.reshape(-1, pair.y.shape[-2], d), self.cost)
        shaped = value.to(pair.x.dtype).reshape(pair.batch)
        return transport_result(solved, certificate, shaped, pair.batch, pair.x.dtype, points)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None, *, start: TransportResult | None = None) -> TransportResult:
        """The same for a given cost matrix C (..., n, m) in place of points; +inf forbids a pair.

        The value is differentiable in C (its gradient is the plan) and in the weights. Raises ValueError for a matrix or weights
        that do not fit, NaN and -inf; NumericalError where the allowed pairs cannot carry the weights.
        """
        matrix = as_tensor(C, "C")
        check_matrix(matrix)
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left, right = weights(a, (*batch, n), "a", like=matrix), weights(b, (*batch, m), "b", like=matrix)
        stack, left, right = matrix.reshape(-1, n, m), left.reshape(-1, n), right.reshape(-1, m)
        masses = unit_masses(left, a is None), unit_masses(right, b is None)
        solutions = [
            self.solver.solve_matrix(stack[k].detach().numpy(), masses[0][k], masses[1][k], start=basis)
            for k, basis in enumerate(starting_bases(start, len(stack), n, m))
        ]
        solved = Solved.of(solutions, *masses)
        entries = solved.entries
        costs = stack[entries.problem, entries.row, entries.column].double()
        certificate = solved.certified(costs)
        certificate.outcome.warn(type(self).__name__)
        value = plan_value(costs, left, right, entries, solved.f, solved.g)
        return transport_result(solved, certificate, value.to(matrix.dtype).reshape(batch), batch, matrix.dtype, None)

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Tensor], Tensor]:
        """The first variation in the first sample: points (k, d) -> f(z) = min_j c(z, y_j) - g_j, differentiable in the points.

        Adding mass at a point changes the transport cost at this rate, up to a constant.
        """
        with torch.no_grad():
            return self.solve(x, y, a, b).potentials()[0]

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One sort of z on the line, else the cost matrix of z once; each pair of weight rows is then a problem on its support.

        For a metric cost rows may be signed, and what both rows share stays where it is.
        """
        cloud = sample(z, "z").detach()
        plans = self.pooled_costs(cloud)

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            return plans(A, B).to(cloud.dtype)

        return torch.no_grad()(statistic)

    def pooled_costs(self, cloud: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The pooled statistic of a cloud (N, d) in float64."""
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        self._check_domain(cloud, "z")
        order = self._order(cloud.shape[1])
        if order is not None:
            lines = PooledLines(cloud.mT, order)
            return lambda A, B: lines(A, B)[:, 0]
        return PooledPlans(cloud, self.cost, self.solver)


__all__ = ["OptimalTransport"]
