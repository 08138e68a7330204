"""Entropy-regularised optimal transport between samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._results import TransportResult
from discrepancy._validate import SamplePair, cost_matrix, weights
from discrepancy.costs import Cost, FunctionCost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.certificate import certify
from discrepancy.transport.entropic.cost_matrix import require_costs, with_reachable_points
from discrepancy.transport.entropic.differentiable import differentiable as with_gradients
from discrepancy.transport.entropic.envelope import entropic_value
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon, resolve
from discrepancy.transport.entropic.handover import TakenOver, entropic_or_exact, unregularised
from discrepancy.transport.entropic.implicit import ImplicitPlan
from discrepancy.transport.entropic.maps import OutOfSample
from discrepancy.transport.entropic.matrix_value import matrix_value
from discrepancy.transport.entropic.pair_costs import MatrixCosts, PointCosts
from discrepancy.transport.entropic.plan_operator import plan_on_request
from discrepancy.transport.entropic.problem import MatrixProblem, Problem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials


def check_options(discrepancy: Any) -> None:
    """Raise TypeError or ValueError unless epsilon, cost and solver are what they must be; a function becomes a cost."""
    check_epsilon(discrepancy.epsilon)
    object.__setattr__(discrepancy, "cost", as_cost(discrepancy.cost))
    if not isinstance(discrepancy.solver, EntropicSolver):
        raise TypeError(f"solver must be an object such as SemiDualNewton(), got {discrepancy.solver!r}")


def number(epsilon: Tensor) -> float:
    """One epsilon as a float; ValueError for a batch of different ones."""
    if bool((epsilon != epsilon[0]).any()):
        raise ValueError(f"each of the {len(epsilon)} pairs of the batch chooses its own epsilon: resolve one pair at a time")
    return float(epsilon[0])


def transport_result(
    problem: Problem, found: Potentials, epsilon: Tensor, value: Tensor, batch: torch.Size, swapped: bool
) -> TransportResult:
    """The result of a solve, with its certificate and the plan on request; sides exchanged back if they were."""
    proof = certify(problem, found.f, found.g, epsilon)
    f, g = (found.g, found.f) if swapped else (found.f, found.g)

    def shaped(t: Tensor) -> Tensor:
        return t.to(problem.dtype).reshape((*batch, *t.shape[1:]))

    plan, apply = plan_on_request(problem, found.f, found.g, epsilon, batch, swapped)
    return TransportResult(
        value=value,
        cost=shaped(proof.cost),
        f=shaped(f),
        g=shaped(g),
        marginal_error=proof.marginal_error.reshape(batch),
        dual_gap=proof.dual_gap.reshape(batch),
        iterations=found.iterations,
        epsilon=epsilon.reshape(batch),
        outcome=found.outcome,
        rungs=found.rungs,
        _plan=plan,
        _apply=apply,
    )


@dataclass(frozen=True)
class Sinkhorn(Discrepancy):
    """Entropic transport W_eps(x, y) = min_P <P, C> + epsilon KL(P | a x b) over couplings P of the two weighted samples.

    In units of the cost; exceeds the transport cost by at most epsilon min(H(a), H(b)), and tends to it as epsilon falls to
    0, to <a x b, C> as it grows. It is not zero at equality: `SinkhornDivergence` is. `.solve` also has the bare <P, C>
    (detached), the potentials, the plan, its marginal error and a rigorous duality gap. Gradients in points and weights
    hold the optimal potentials fixed (envelope theorem), and epsilon too where it is chosen from the data; each product of the
    value's Hessian with a vector solves one linear system at the optimum. Potentials are defined for points of weight zero.
    Any epsilon > 0 is answered: below 1e-6 of the mean cost the default solver starts from the exact solver's potentials,
    and where float64 resolves no entropic plan the exact plan is the answer, with its gap (`rungs` says so; on the CPU).
    Time a few dozen passes of n m; memory quadratic up to the solver's budget, above it costs are computed again in blocks,
    forward and backward. Source: Cuturi (2013); Peyre and Cuturi (2019), chapter 4.
    """

    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    solver: EntropicSolver = field(default_factory=SemiDualNewton)
    claims: ClassVar[Claims] = Claims(zero_at_equality=False, degree=2.0)
    references: ClassVar[tuple[str, ...]] = ("cuturi-2013", "peyre-cuturi-2019")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        check_options(self)
        cost = self.cost
        claims = Claims(
            symmetric=cost.symmetric,
            non_negative=not isinstance(cost, FunctionCost),
            zero_at_equality=False,
            translation_invariant=cost.translation_invariant,
            degree=cost.degree if isinstance(self.epsilon, RelativeEpsilon) else None,
        )
        object.__setattr__(self, "claims", claims)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The regularised optimum over the batch."""
        return self._solved(pair, None)[0]

    def _solved(self, pair: SamplePair, start: TransportResult | None) -> tuple[Tensor, Setting, Problem, Potentials, Tensor]:
        setting = Setting.of(pair, self.cost, self.solver)
        problem = setting.cross()
        epsilon = setting.epsilon(self.epsilon, problem)
        initial = None
        if start is not None:
            given = start.f if setting.swapped else start.g
            if given is None or given.shape != (*setting.batch, problem.b.shape[-1]):
                raise ValueError("start must be the result of a problem of the same sizes, with its potentials")
            initial = given.detach().reshape(-1, given.shape[-1])

        def exact() -> TransportResult:
            masses = (None if pair.uniform_a else pair.a, None if pair.uniform_b else pair.b)
            return unregularised(self.cost, self.solver.memory).solve(pair.x, pair.y, *masses)

        found = entropic_or_exact(self.solver, problem, epsilon, exact, swapped=setting.swapped, start=initial)
        found.outcome.warn(type(self).__name__, stacklevel=5)
        if isinstance(found, TakenOver):
            return found.value(), setting, problem, found, epsilon
        dual = setting.dual_on(problem, found, epsilon, setting.x, setting.y)
        value = entropic_value(setting.x, setting.y, setting.a, setting.b, dual)
        return setting.shaped(value), setting, problem, found, epsilon

    def solve(
        self,
        x: Any,
        y: Any,
        a: Any = None,
        b: Any = None,
        *,
        generator: torch.Generator | None = None,
        start: TransportResult | None = None,
        differentiable: bool = False,
    ) -> TransportResult:
        """The value (differentiable) with potentials, plan and certificate; `start`, an earlier result, is where the solver
        begins.

        A start is worth it where points moved little, as in a descent; annealing is then skipped.
        differentiable: `cost`, `f`, `g`, `.plan()` and `.apply(v)` carry gradients in points and weights too, by implicit
        differentiation: one linear solve a backward pass, for all of them together. The solver's error enters these gradients
        at first order, divided by the plan's connectedness: ask for a tolerance to match. Their second derivatives raise
        RuntimeError; the value's are there.
        """
        value, setting, problem, found, epsilon = self._solved(self._checked(x, y, a, b), start)
        if isinstance(found, TakenOver):
            return found.answer(epsilon, differentiable=differentiable)
        result = transport_result(problem, found, epsilon, value, setting.batch, setting.swapped)
        result = OutOfSample.of(setting, found.f, found.g, epsilon).known_to(result)
        if not differentiable:
            return result
        costs, keep = PointCosts(setting.cost, setting.budget), setting.memory // 2
        inputs = (setting.x, setting.y)
        optimum = ImplicitPlan.at(costs, inputs, setting.a, setting.b, epsilon, found.f, found.g, keep)
        return with_gradients(result, optimum, setting.batch, swapped=setting.swapped)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None, *, differentiable: bool = False) -> TransportResult:
        """The same for a given cost matrix C (..., n, m) in place of points; the value is differentiable in C, a and b.

        differentiable: cost, potentials and plan are, too, as in `solve`.
        +inf forbids a pair: its entry of the plan is exactly zero.
        Raises ValueError for a matrix or weights that do not fit, for NaN and -inf, NumericalError where the forbidden pairs
        leave no plan.
        """
        matrix = cost_matrix(C)
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left = weights(a, (*batch, n), "a", like=matrix).reshape(-1, n)
        right = weights(b, (*batch, m), "b", like=matrix).reshape(-1, m)
        costs = matrix.reshape(-1, n, m)
        require_costs(costs, left, right)
        costs = with_reachable_points(costs, left, right)
        problem = MatrixProblem(costs, left, right, matrix.dtype)
        epsilon = resolve(self.epsilon, problem.mean_cost())
        found = entropic_or_exact(
            self.solver, problem, epsilon, lambda: unregularised(self.cost, self.solver.memory).solve_cost(matrix, a, b)
        )
        found.outcome.warn(type(self).__name__)
        if isinstance(found, TakenOver):
            return found.answer(epsilon, differentiable=differentiable)
        keep = int(self.solver.memory * 2**29)
        value = matrix_value(costs, left, right, epsilon, found.f, found.g, keep)
        result = transport_result(problem, found, epsilon, value.to(matrix.dtype).reshape(batch), batch, False)
        if not differentiable:
            return result
        optimum = ImplicitPlan.at(MatrixCosts(keep), (costs,), left, right, epsilon, found.f, found.g, keep)
        return with_gradients(result, optimum, batch, swapped=False)

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Sinkhorn:
        """The same with epsilon fixed at the number chosen for these samples."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return self
        setting = Setting.of(self._checked(x, y, a, b), self.cost, self.solver)
        return replace(self, epsilon=number(setting.epsilon(self.epsilon, setting.cross())))


__all__ = ["Sinkhorn", "check_options", "number", "transport_result"]
