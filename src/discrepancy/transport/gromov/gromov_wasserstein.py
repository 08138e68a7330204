"""The Gromov-Wasserstein discrepancy between two spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import TransportResult
from discrepancy._validate import as_tensor, generator_or_default, require_finite, sample, weights, whole_number
from discrepancy.costs import Cost, Euclidean, as_cost
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex
from discrepancy.transport.exact.inputs import check_solver
from discrepancy.transport.first_order import first_order_only
from discrepancy.transport.gromov.descent import Descent, conditional_gradient, entropic_descent
from discrepancy.transport.gromov.structure import Quadratic, Structure

_ADVICE = "the Gromov objective at its optimal plan has first derivatives only"


class _Objective(torch.autograd.Function):
    """The objective at the plan found; with the plan held fixed its derivative in Cx is 2 (Cx_ik a_i a_k - (P Cy P^T)_ik)."""

    @staticmethod
    def forward(
        ctx: Any, Cx: Tensor, Cy: Tensor, M: Tensor | None, a: Tensor, b: Tensor, found: Descent, weight: float
    ) -> Tensor:
        ctx.save_for_backward(Cx, Cy, a, b)
        ctx.found, ctx.weight = found, weight
        return torch.tensor(found.value, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), found, weight = grads, ctx.found, ctx.weight
        Cx, Cy, a, b = ctx.saved_tensors
        P = found.plan
        u, v = P.sum(1), P.sum(0)
        slopes = (
            lambda: 2 * weight * (Cx.detach().double() * u[:, None] * u - P @ Cy.detach().double() @ P.mT),
            lambda: 2 * weight * (Cy.detach().double() * v[:, None] * v - P.mT @ Cx.detach().double() @ P),
            lambda: P,
            lambda: found.f,
            lambda: found.g,
        )
        out = (
            first_order_only((grad.detach() * slope()).to(Cx.dtype), _ADVICE, grad, Cx, Cy, a, b) if need else None
            for slope, need in zip(slopes, ctx.needs_input_grad[:5], strict=True)
        )
        return (*out, None, None)


@dataclass(frozen=True)
class GromovWasserstein:
    """min over couplings P of sum_ijkl (c_x(x_i, x_k) - c_y(y_j, y_l))^2 P_ij P_kl: how far two spaces are from isometric.

    x (n, d) and y (m, e) may have different dimensions; only their inner costs are compared: `cost` within x, `cost_y` (the
    same where None) within y, in squared units of the cost. Zero where the weighted spaces are isometric, invariant under
    isometries. The problem is not convex: `starts` descents (the first from the product of the weights, the others from random
    plans) are run and the best kept, so the value is an upper bound of the minimum and the plan a stationary point;
    `dual_gap` is what the best other plan would gain at first order, no bound of the global minimum.
    epsilon None: conditional gradient with exact steps and exact plans; a number: plus epsilon KL(P | a x b), by entropic fixed
    points. `.solve` has the plan; `.solve_cost` takes matrices of inner costs and, for the fused problem, a matrix of costs
    between the spaces. Gradients in points, matrices and weights hold the plan fixed. Memory n^2 + m^2 + n m; time an exact or
    Sinkhorn problem and a product of n^2 m an iteration ((n + m) (d + e) n for squared Euclidean costs). Source: Memoli (2011);
    Peyre, Cuturi and Solomon (2016); fused: Vayer et al. (2019, 1805.09114).
    """

    cost: Cost = field(default_factory=Euclidean)
    cost_y: Cost | None = None
    epsilon: float | None = None
    starts: int = 1
    tolerance: float = 1e-9
    max_iterations: int = 500
    solver: ExactSolver = field(default_factory=NetworkSimplex)
    references: ClassVar[tuple[str, ...]] = ("memoli-2011", "peyre-2016", "vayer-2019")

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for options that make no sense."""
        object.__setattr__(self, "cost", as_cost(self.cost))
        if self.cost_y is not None:
            object.__setattr__(self, "cost_y", as_cost(self.cost_y))
        for name, cost in (("cost", self.cost), ("cost_y", self.cost_y)):
            if cost is not None and not cost.symmetric:
                raise ValueError(f"{name} must be symmetric: inner costs of a space are those of unordered pairs, got {cost!r}")
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, or None for the unregularised problem, got {self.epsilon!r}")
        for name in ("starts", "max_iterations"):
            value = getattr(self, name)
            whole_number(value, 1, name)
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance!r}")
        check_solver(self.solver)

    def __call__(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """The objective at the best plan found, differentiable in points and weights."""
        value = self.solve(x, y, a, b, generator=generator).value
        assert isinstance(value, Tensor)
        return value

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> TransportResult:
        """The result on points x (n, d) and y (m, e) with weights a (n,), b (m,)."""
        left = sample(x, "x")
        right = sample(y, "y", like=left)
        if left.ndim != 2 or right.ndim != 2:
            raise ValueError(f"x and y must be clouds (n, d) and (m, e), got {tuple(left.shape)} and {tuple(right.shape)}")
        cost_y = self.cost if self.cost_y is None else self.cost_y
        self.cost.check(left, "x")
        cost_y.check(right, "y")
        p = weights(a, left.shape[:1], "a", like=left)
        q = weights(b, right.shape[:1], "b", like=left)
        structures = Structure.of_points(left, self.cost), Structure.of_points(right, cost_y)
        Cx, Cy = (
            c.matrix(t, t) if t.requires_grad else s.matrix.to(t.dtype)
            for c, t, s in ((self.cost, left, structures[0]), (cost_y, right, structures[1]))
        )
        return self._result(Cx, Cy, None, p, q, 1.0, structures, generator)

    def solve_cost(
        self,
        Cx: Any,
        Cy: Any,
        a: Any = None,
        b: Any = None,
        *,
        between: Any = None,
        structure: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> TransportResult:
        """The same on symmetric matrices of inner costs Cx (n, n) and Cy (m, m).

        between (n, m): costs between the spaces, for the fused objective structure * E(P) + (1 - structure) * <between, P>.
        """
        left = _inner(as_tensor(Cx, "Cx"), "Cx")
        right = _inner(as_tensor(Cy, "Cy", like=left), "Cy")
        p = weights(a, left.shape[:1], "a", like=left)
        q = weights(b, right.shape[:1], "b", like=left)
        M, share = None, 1.0
        if between is not None:
            M, share = as_tensor(between, "between", like=left), float(structure)
            if M.shape != (left.shape[0], right.shape[0]):
                raise ValueError(f"between must have shape {(left.shape[0], right.shape[0])}, got {tuple(M.shape)}")
            require_finite(M, "between")
            if not 0 <= share <= 1:
                raise ValueError(f"structure must be a share from 0 to 1, got {structure!r}")
            M = (1 - share) * M
        structures = Structure(left.detach().double()), Structure(right.detach().double())
        return self._result(left, right, M, p, q, share, structures, generator)

    def _result(
        self,
        Cx: Tensor,
        Cy: Tensor,
        M: Tensor | None,
        a: Tensor,
        b: Tensor,
        weight: float,
        structures: tuple[Structure, Structure],
        generator: torch.Generator | None,
    ) -> TransportResult:
        p, q = a.detach().double(), b.detach().double()
        linear = None if M is None else M.detach().double()
        problem = Quadratic(*structures, p / p.sum(), q / q.sum(), weight, linear)
        found = self._descend(problem, generator)
        found.outcome.warn(type(self).__name__, stacklevel=4)
        value: Any = _Objective.apply(Cx, Cy, M, a, b, found, weight)
        constant = problem.constant()
        bare = problem.value(found.plan, problem.product(found.plan), constant)
        error = (found.plan.sum(1) - problem.a).abs().sum() + (found.plan.sum(0) - problem.b).abs().sum()
        dtype = Cx.dtype
        return TransportResult(
            value=value.to(dtype),
            cost=torch.tensor(bare, dtype=dtype),
            f=found.f.to(dtype),
            g=found.g.to(dtype),
            marginal_error=error,
            dual_gap=torch.tensor(found.stationarity, dtype=dtype),
            iterations=found.iterations,
            epsilon=0.0 if self.epsilon is None else self.epsilon,
            outcome=found.outcome,
            rungs=(f"best of {self.starts} descents" if self.starts > 1 else "one descent",),
            _plan=lambda: found.plan.to(dtype),
        )

    def _descend(self, problem: Quadratic, generator: torch.Generator | None) -> Descent:
        draws = generator_or_default(generator) if self.starts > 1 else None
        best: Descent | None = None
        for k in range(self.starts):
            start = problem.a[:, None] * problem.b if k == 0 else _random_plan(problem, draws, self.solver)
            if self.epsilon is None:
                found = conditional_gradient(problem, start, self.solver, self.tolerance, self.max_iterations)
            else:
                found = entropic_descent(problem, start, self.epsilon, self.tolerance, self.max_iterations)
            if best is None or found.value < best.value:
                best = found
        assert best is not None
        return best


def _random_plan(problem: Quadratic, generator: torch.Generator | None, solver: ExactSolver) -> Tensor:
    """Halfway between the product and the exact plan of a random cost."""
    shape = (len(problem.a), len(problem.b))
    cost = torch.rand(shape, generator=generator, dtype=torch.float64)
    solution = solver.solve_matrix(cost.numpy(), problem.a.numpy(), problem.b.numpy())
    plan = torch.zeros(shape, dtype=torch.float64)
    plan[torch.from_numpy(solution.rows), torch.from_numpy(solution.columns)] = torch.from_numpy(solution.mass)
    return (plan + problem.a[:, None] * problem.b) / 2


def _inner(C: Tensor, name: str) -> Tensor:
    """A symmetric matrix of inner costs, or ValueError."""
    if C.ndim != 2 or C.shape[0] != C.shape[1] or C.shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix of inner costs, got {tuple(C.shape)}")
    require_finite(C, name)
    gap = float((C - C.mT).detach().abs().max())
    if gap > 1e-6 * float(C.detach().abs().max()):
        raise ValueError(f"{name} must be symmetric, entries differ by {gap:.3g}: pass (C + C.T) / 2")
    return C


__all__ = ["GromovWasserstein"]
