"""The unbalanced Sinkhorn divergence: unbalanced entropic transport with its bias removed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Outcome
from discrepancy._validate import SamplePair, sample_pair
from discrepancy.costs import Cost, SquaredEuclidean
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, resolve
from discrepancy.transport.entropic.problem import Problem, point_problem
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.entropic.sinkhorn import number
from discrepancy.transport.unbalanced.envelope import UnbalancedDual, debiased_unbalanced_value
from discrepancy.transport.unbalanced.newton import UnbalancedNewton, UnbalancedPotentials
from discrepancy.transport.unbalanced.penalties import KLPenalty, MarginalPenalty
from discrepancy.transport.unbalanced.result import UnbalancedResult, out_of_sample, unbalanced_result
from discrepancy.transport.unbalanced.sinkhorn import check_masses, check_unbalanced, fixed_epsilon, mean_cost


@dataclass(frozen=True)
class UnbalancedSinkhornDivergence(Discrepancy):
    """S(x, y) = V(x, y) - V(x, x) / 2 - V(y, y) / 2 + epsilon (m(a) - m(b))^2 / 2, V the value of `UnbalancedSinkhorn`.

    For positive measures of any mass; m(a) is the sum of the weights a. Symmetric to the bit and exactly zero at equality;
    non-negative and, for penalties like KLPenalty, zero only there, for costs with a positive-definite exp(-c / epsilon), where
    a value below zero is solver error and returned as zero. The last term removes what the product measures in the three
    entropies differ by. One penalty serves both sides. Gradients in points and weights hold the potentials fixed. Time: one cross
    problem and two self problems (10-15 passes); memory as `UnbalancedSinkhorn`. geomloss's SamplesLoss("sinkhorn", p=2, blur,
    reach) is half of this with epsilon = 2 blur^2 and rho = 2 reach^2. Source: Sejourne, Feydy, Vialard, Trouve and Peyre (2019).
    """

    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    penalty: MarginalPenalty = field(default_factory=KLPenalty)
    solver: UnbalancedNewton = field(default_factory=UnbalancedNewton)
    claims: ClassVar[Claims] = Claims(any_mass=True)
    references: ClassVar[tuple[str, ...]] = ("sejourne-2019",)

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        if isinstance(self.penalty, tuple):
            raise TypeError("penalty must be one object for both sides: the debiased value compares like with like")
        check_unbalanced(self)
        claims = Claims(
            symmetric=self.cost.symmetric,
            non_negative=self.cost.negative_definite,
            zero_at_equality=self.cost.symmetric,
            translation_invariant=self.cost.translation_invariant,
            any_mass=not self.penalty.hard,
        )
        object.__setattr__(self, "claims", claims)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        return sample_pair(x, y, a, b, mass="positive")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The divergence over the batch."""
        return self._solved(pair)[0]

    def _itself(self, setting: Setting, x: Tensor, a: Tensor, epsilon: Tensor) -> UnbalancedPotentials:
        """The self problem of one side."""
        problem = point_problem(x, x, a, a, self.cost, self.solver.memory)
        if self.cost.symmetric:
            return self.solver.solve_symmetric(problem, epsilon, self.penalty)
        return self.solver.solve(problem, epsilon, self.penalty, self.penalty, mean_cost(problem))

    def _solved(self, pair: SamplePair) -> tuple[Tensor, Setting, Problem, UnbalancedPotentials, Tensor, tuple[Tensor, Tensor]]:
        setting = Setting.of(pair, self.cost, self.solver)  # type: ignore[arg-type]
        problem = setting.cross()
        check_masses(problem, self.penalty, self.penalty)
        mean = mean_cost(problem)
        epsilon = resolve(self.epsilon, mean)
        self_x = self._itself(setting, setting.x, setting.a, epsilon)
        self_y = self._itself(setting, setting.y, setting.b, epsilon)
        cross = self.solver.solve(problem, epsilon, self.penalty, self.penalty, mean)
        worst = next((p.outcome for p in (cross, self_x, self_y) if not p.outcome.ok), Outcome.CONVERGED)
        worst.warn(type(self).__name__, stacklevel=5)
        same = setting.equal()[:, None]
        if bool(same.any()):  # the same problem three times: with the same potentials the difference is exactly zero
            parts = {k: torch.where(same, getattr(self_x, k), getattr(cross, k)) for k in ("f", "g", "s", "t")}
            cross = replace(cross, **parts)
        cross = replace(cross, outcome=worst)
        duals = [
            UnbalancedDual.of(p, setting.dual(p, epsilon), self.penalty, self.penalty)  # type: ignore[arg-type]
            for p in (cross, self_x, self_y)
        ]
        clamp = self.claims.non_negative
        value = debiased_unbalanced_value(setting.x, setting.y, setting.a, setting.b, *duals, clamp=clamp)
        return setting.shaped(value), setting, problem, cross, epsilon, (self_x.g, self_y.g)

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> UnbalancedResult:
        """The divergence as `value` (differentiable), with cost, potentials, plan, mass and certificate of x against y."""
        value, setting, problem, found, epsilon, selves = self._solved(self._checked(x, y, a, b))
        both = (self.penalty, self.penalty)
        result = unbalanced_result(problem, found, epsilon, value, setting.batch, setting.swapped, both)
        return out_of_sample(setting, found, epsilon, both, selves=selves).known_to(result)

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> UnbalancedSinkhornDivergence:
        """The same with epsilon fixed at the number chosen for these samples."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return self
        setting = Setting.of(self._checked(x, y, a, b), self.cost, self.solver)  # type: ignore[arg-type]
        return replace(self, epsilon=number(resolve(self.epsilon, mean_cost(setting.cross()))))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One epsilon for all rows, from z; rows of weights, which sum to one, are solved one by one."""
        return Discrepancy.pooled(fixed_epsilon(self, z), z)


__all__ = ["UnbalancedSinkhornDivergence"]
