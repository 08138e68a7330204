"""Unbalanced entropic optimal transport between positive measures of any mass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import TransportResult
from discrepancy._validate import SamplePair, cost_matrix, sample, sample_pair, weights
from discrepancy.costs import Cost, FunctionCost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon, resolve
from discrepancy.transport.entropic.problem import MatrixProblem, Problem
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.entropic.sinkhorn import number
from discrepancy.transport.unbalanced.envelope import UnbalancedDual, unbalanced_value
from discrepancy.transport.unbalanced.newton import UnbalancedNewton, UnbalancedPotentials
from discrepancy.transport.unbalanced.penalties import KLPenalty, MarginalPenalty
from discrepancy.transport.unbalanced.result import UnbalancedResult, out_of_sample, unbalanced_result

Penalties = MarginalPenalty | tuple[MarginalPenalty, MarginalPenalty]


def check_unbalanced(discrepancy: Any) -> None:
    """Raise TypeError or ValueError unless epsilon, cost, penalty and solver are what they must be; a function becomes a cost."""
    check_epsilon(discrepancy.epsilon)
    object.__setattr__(discrepancy, "cost", as_cost(discrepancy.cost))
    given = discrepancy.penalty
    both = given if isinstance(given, tuple) else (given, given)
    if len(both) != 2 or not all(isinstance(p, MarginalPenalty) for p in both):
        raise TypeError(
            f"penalty must be an object such as KLPenalty(1.0), or a pair of them (x's side, y's side), got {given!r}"
        )
    if not isinstance(discrepancy.solver, UnbalancedNewton):
        raise TypeError(f"solver must be an UnbalancedNewton(), got {discrepancy.solver!r}")


def mean_cost(problem: Problem) -> Tensor:
    """The mean cost (B,) between the two normalised measures."""
    return problem.mean_cost() / (problem.a.sum(-1) * problem.b.sum(-1))


def check_masses(problem: Problem, rows: MarginalPenalty, columns: MarginalPenalty) -> None:
    """Raise ValueError if both marginals are hard and the masses differ."""
    if rows.hard and columns.hard:
        left, right = problem.a.sum(-1), problem.b.sum(-1)
        tolerance = 1e-4 if problem.dtype == torch.float32 else 1e-8
        if bool(((left - right).abs() > tolerance * torch.maximum(left, right)).any()):
            raise ValueError(
                f"with both marginals Balanced() the masses must be equal, got {left.tolist()} and {right.tolist()}: "
                "relax a side, as in penalty=(Balanced(), KLPenalty(1.0))"
            )


def fixed_epsilon(discrepancy: Any, z: Any) -> Any:
    """The discrepancy with a relative epsilon fixed at its share of the mean cost between two independent points of z (N, d)."""
    cloud = sample(z, "z").detach()
    if cloud.ndim != 2:
        raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
    if not isinstance(discrepancy.epsilon, RelativeEpsilon):
        return discrepancy
    setting = Setting.of(sample_pair(cloud, cloud), discrepancy.cost, discrepancy.solver)
    return replace(discrepancy, epsilon=number(resolve(discrepancy.epsilon, mean_cost(setting.cross()))))


@dataclass(frozen=True)
class UnbalancedSinkhorn(Discrepancy):
    """min_P <P, C> + epsilon KL(P | a x b) + D1(P 1 | a) + D2(P^T 1 | b) over all P >= 0, for positive measures of any mass.

    KL(P | Q) = sum P log(P / Q) - P + Q throughout, so every term is non-negative, and P = a x b costs nothing but <P, C>.
    `penalty` is D1 = D2, or the pair (D1 on x's side, D2 on y's): `KLPenalty(rho)`, `TotalVariationPenalty(rho)`,
    `Balanced()` (that marginal is met: semi-relaxed transport) or a MarginalPenalty of your own. In units of the cost. With
    KLPenalty(rho), rho to infinity gives `Sinkhorn`, rho to 0 no transport at all; mass is carried over costs up to about rho.
    With RelativeEpsilon the share is of the mean cost between the measures divided by their masses.

    Compared with POT (`reg_type="kl"`): the same plan for reg_m = rho; its reported total_cost leaves out the mass terms of
    some of the divergences, depending on version; here none is. Not zero at equality: `UnbalancedSinkhornDivergence` is.
    Gradients in points and weights hold the potentials fixed (envelope theorem); those in the weights include the penalties'
    and the product measure's share. Time: 10-40 passes of n m; memory quadratic up to the solver's budget, above it costs are
    computed again in blocks, forward and backward. Raises ValueError if two hard marginals have different masses. Source: Liero,
    Mielke and Savare (2018); Chizat et al. (2018); Sejourne et al. (2019).
    """

    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    penalty: Penalties = field(default_factory=KLPenalty)
    solver: UnbalancedNewton = field(default_factory=UnbalancedNewton)
    claims: ClassVar[Claims] = Claims(zero_at_equality=False, any_mass=True)
    references: ClassVar[tuple[str, ...]] = ("chizat-2018", "liero-mielke-savare-2018", "sejourne-2019", "sejourne-2022")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost and the penalties."""
        check_unbalanced(self)
        one, two = self.penalties
        claims = Claims(
            symmetric=self.cost.symmetric and one == two,
            non_negative=not isinstance(self.cost, FunctionCost),
            zero_at_equality=False,
            translation_invariant=self.cost.translation_invariant,
            any_mass=not (one.hard and two.hard),
        )
        object.__setattr__(self, "claims", claims)

    @property
    def penalties(self) -> tuple[MarginalPenalty, MarginalPenalty]:
        """The penalty of x's side and that of y's."""
        return self.penalty if isinstance(self.penalty, tuple) else (self.penalty, self.penalty)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        return sample_pair(x, y, a, b, mass="positive")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The optimal value over the batch."""
        return self._solved(pair, None)[0]

    def _solved(
        self, pair: SamplePair, start: TransportResult | None
    ) -> tuple[Tensor, Setting, Problem, UnbalancedPotentials, Tensor]:
        setting = Setting.of(pair, self.cost, self.solver)  # type: ignore[arg-type]
        problem = setting.cross()
        rows, columns = self.penalties[::-1] if setting.swapped else self.penalties
        check_masses(problem, rows, columns)
        mean = mean_cost(problem)
        epsilon = resolve(self.epsilon, mean)
        initial = None
        if start is not None:
            given = start.f if setting.swapped else start.g
            if given is None or given.shape != (*setting.batch, problem.b.shape[-1]):
                raise ValueError("start must be the result of a problem of the same sizes, with its potentials")
            initial = given.detach().reshape(-1, given.shape[-1])
        found = self.solver.solve(problem, epsilon, rows, columns, mean, start=initial)
        found.outcome.warn(type(self).__name__, stacklevel=5)
        dual = UnbalancedDual.of(found, setting.dual(found, epsilon), rows, columns)  # type: ignore[arg-type]
        value = unbalanced_value(setting.x, setting.y, setting.a, setting.b, dual)
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
    ) -> UnbalancedResult:
        """The value (differentiable) with potentials, plan, its mass and certificate; `start`, an earlier result, is where the
        solver begins."""
        value, setting, problem, found, epsilon = self._solved(self._checked(x, y, a, b), start)
        result = unbalanced_result(problem, found, epsilon, value, setting.batch, setting.swapped, self.penalties)
        return out_of_sample(setting, found, epsilon, self.penalties).known_to(result)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> UnbalancedResult:
        """The same for a given cost matrix C (..., n, m) in place of points; the value is not differentiable.

        +inf forbids a pair: nothing is carried there. Raises ValueError for a matrix or weights that do not fit, for NaN and
        -inf, and if a hard marginal has a point whose pairs are all forbidden.
        """
        matrix = cost_matrix(C)
        forbidden = matrix == math.inf
        finite = torch.where(forbidden, torch.zeros_like(matrix), matrix).detach()
        if not bool(torch.isfinite(finite).all()):
            raise ValueError("C must hold finite costs, or +inf for forbidden pairs, got NaN or -inf")
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left = weights(a, (*batch, n), "a", like=finite, mass="positive").reshape(-1, n)
        right = weights(b, (*batch, m), "b", like=finite, mass="positive").reshape(-1, m)
        problem = MatrixProblem(finite.reshape(-1, n, m), left, right, matrix.dtype)
        rows, columns = self.penalties
        check_masses(problem, rows, columns)
        mean = mean_cost(problem)
        epsilon = resolve(self.epsilon, mean)
        if bool(forbidden.any()):
            problem = self._forbidding(problem, forbidden.reshape(-1, n, m), epsilon)
        found = self.solver.solve(problem, epsilon, rows, columns, mean)
        found.outcome.warn(type(self).__name__)
        paid = problem.a * (rows.reward(found.f) - epsilon[:, None] * ((found.f - found.s) / epsilon[:, None]).exp())
        value = torch.where(problem.a > 0, paid, torch.zeros_like(paid)).sum(-1)
        value = value + torch.where(problem.b > 0, problem.b * columns.reward(found.g), torch.zeros_like(problem.b)).sum(-1)
        value = value + epsilon * problem.a.sum(-1) * problem.b.sum(-1)
        value = value.to(matrix.dtype).reshape(batch)
        return unbalanced_result(problem, found, epsilon, value, batch, False, self.penalties)

    def _forbidding(self, problem: MatrixProblem, forbidden: Tensor, epsilon: Tensor) -> MatrixProblem:
        """Forbidden pairs get a finite cost so high that their plan entries underflow to exactly zero."""
        rows, columns = self.penalties
        open_rows = ((~forbidden & (problem.b > 0)[:, None]).any(-1) | (problem.a == 0)).all()
        open_columns = ((~forbidden & (problem.a > 0)[..., None]).any(-2) | (problem.b == 0)).all()
        for penalty, possible, name in ((rows, open_rows, "row"), (columns, open_columns, "column")):
            if penalty.hard and not bool(possible):
                raise ValueError(f"a {name} of C with weight has only forbidden pairs, and its marginal is Balanced(): relax it")
        reach = [1 / p.decay if p.decay else min(p.upper, 1e6) for p in (rows, columns) if p.decay is not None]
        highest = problem.cost.abs().flatten(1).amax(-1)
        wall = 1e4 * (highest + epsilon + max([r for r in reach if math.isfinite(r)], default=1.0))
        walled = torch.where(forbidden, wall[:, None, None], problem.cost)
        return MatrixProblem(walled, problem.a, problem.b, problem.dtype)

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> UnbalancedSinkhorn:
        """The same with epsilon fixed at the number chosen for these samples."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return self
        setting = Setting.of(self._checked(x, y, a, b), self.cost, self.solver)  # type: ignore[arg-type]
        return replace(self, epsilon=number(resolve(self.epsilon, mean_cost(setting.cross()))))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One epsilon for all rows, from z; rows of weights, which sum to one, are solved one by one."""
        return Discrepancy.pooled(fixed_epsilon(self, z), z)


__all__ = ["Penalties", "UnbalancedSinkhorn", "check_masses", "check_unbalanced", "fixed_epsilon", "mean_cost"]
