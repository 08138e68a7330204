"""The Sinkhorn divergence: entropic transport with its bias removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Outcome, TransportResult
from discrepancy._validate import SamplePair, sample
from discrepancy.costs import Cost, SquaredEuclidean
from discrepancy.transport.entropic.envelope import debiased_value
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon
from discrepancy.transport.entropic.maps import OutOfSample
from discrepancy.transport.entropic.pooled import pooled_divergence
from discrepancy.transport.entropic.problem import Problem, point_problem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.entropic.sinkhorn import check_options, number, transport_result
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials


@dataclass(frozen=True)
class _Solved:
    setting: Setting
    problem: Problem
    epsilon: Tensor
    cross: Potentials
    self_x: Potentials
    self_y: Potentials
    value: Tensor


@dataclass(frozen=True)
class SinkhornDivergence(Discrepancy):
    """S_eps(x, y) = W_eps(x, y) - W_eps(x, x) / 2 - W_eps(y, y) / 2, with W_eps the entropic transport value of `Sinkhorn`.

    In units of the cost. Symmetric to the bit and exactly zero at equality; non-negative for costs with a positive-definite
    exp(-c / eps) (all named ones but PowerCost(p > 2)), where a value below zero is solver error and returned as zero. It
    tends to the transport cost as epsilon falls to 0 and to an energy distance (half of it, MMD with kernel -c) as epsilon
    grows. As an estimate between laws it is biased upward at equality by O(1/n). One epsilon serves the three problems.
    Gradients in points and weights hold the potentials fixed (envelope theorem), and epsilon where it is chosen from the
    data. Time: one cross problem (a few dozen passes) and two self problems (10-15 passes); memory as `Sinkhorn`. Source:
    Genevay, Peyre and Cuturi (2018); Feydy et al. (2019).
    """

    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    solver: EntropicSolver = field(default_factory=SemiDualNewton)
    claims: ClassVar[Claims] = Claims(degree=2.0)
    references: ClassVar[tuple[str, ...]] = ("genevay-2018", "feydy-2019")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        check_options(self)
        cost = self.cost
        claims = Claims(
            symmetric=cost.symmetric,
            non_negative=cost.negative_definite,
            zero_at_equality=cost.symmetric,
            translation_invariant=cost.translation_invariant,
            degree=cost.degree if isinstance(self.epsilon, RelativeEpsilon) else None,
        )
        object.__setattr__(self, "claims", claims)

    def _solved(self, pair: SamplePair) -> _Solved:
        setting = Setting.of(pair, self.cost, self.solver)
        problem = setting.cross()
        epsilon = setting.epsilon(self.epsilon, problem)
        self_x, dual_x = setting.against_itself(setting.x, setting.a, epsilon)
        self_y, dual_y = setting.against_itself(setting.y, setting.b, epsilon)
        cross = self.solver.solve(problem, epsilon)
        worst = next((p.outcome for p in (cross, self_x, self_y) if not p.outcome.ok), Outcome.CONVERGED)
        worst.warn(type(self).__name__, stacklevel=5)
        same = setting.equal()
        if bool(same.any()):  # the same problem three times: with the same potentials the difference is exactly zero
            mean = (self_x.f + self_x.g) / 2
            f = torch.where(same[:, None], mean if self.cost.symmetric else self_x.f, cross.f)
            g = (
                torch.where(same[:, None], mean if self.cost.symmetric else self_x.g, cross.g)
                if f.shape == cross.g.shape
                else cross.g
            )
            cross = replace(cross, f=f, g=g)
        dual = setting.dual_on(problem, cross, epsilon, setting.x, setting.y)
        clamp = self.claims.non_negative
        value = debiased_value(setting.x, setting.y, setting.a, setting.b, dual, dual_x, dual_y, clamp=clamp)
        return _Solved(setting, problem, epsilon, replace(cross, outcome=worst), self_x, self_y, setting.shaped(value))

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The divergence over the batch."""
        return self._solved(pair).value

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> TransportResult:
        """The divergence as `value` (differentiable), with cost, potentials, plan and certificate of the problem x against y.

        `.map()` is the debiased entropic map, `.potentials()` those of x against y.
        """
        found = self._solved(self._checked(x, y, a, b))
        setting = found.setting
        result = transport_result(found.problem, found.cross, found.epsilon, found.value, setting.batch, setting.swapped)
        selves = (found.self_x.g, found.self_y.g)
        return OutOfSample.of(setting, found.cross.f, found.cross.g, found.epsilon, selves=selves).known_to(result)

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> SinkhornDivergence:
        """The same with epsilon fixed at the number chosen for these samples."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return self
        setting = Setting.of(self._checked(x, y, a, b), self.cost, self.solver)
        return replace(self, epsilon=number(setting.epsilon(self.epsilon, setting.cross())))

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Tensor], Tensor]:
        """The first variation in the first sample: points (k, d) -> f_xy - f_xx there (k,), differentiable in the points.

        Adding mass at a point changes the divergence at this rate; a point of the flow moves against its gradient.
        """
        pair = self._checked(x, y, a, b)
        if pair.batch:
            raise ValueError(f"witness takes one pair of samples, got a batch of shape {tuple(pair.batch)}")
        with torch.no_grad():
            found = self._solved(pair)
        s = found.setting
        (own, own_a), (other, other_a) = ((s.y, s.b), (s.x, s.a)) if s.swapped else ((s.x, s.a), (s.y, s.b))
        potential = found.cross.f if s.swapped else found.cross.g
        self_potential = (found.self_y if s.swapped else found.self_x).g

        def soft_minimum(points: Tensor, at: Tensor, w: Tensor, g: Tensor) -> Tensor:
            exponent = (g[0] - self.cost.matrix(points, at[0].detach().double())) / found.epsilon[0]
            return -found.epsilon[0] * torch.logsumexp(exponent + w[0].detach().double().log(), -1)

        def difference(points: Tensor) -> Tensor:
            z = points.double()
            return (soft_minimum(z, other, other_a, potential) - soft_minimum(z, own, own_a, self_potential)).to(points.dtype)

        return difference

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The cost matrix of z and epsilon once; weight rows are then solved in batches on their supports.

        RelativeEpsilon takes its share of the mean cost between two independent points of z. Where the matrix does not fit
        the memory budget, rows are solved one by one on their points.
        """
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        equal = torch.full((cloud.shape[0],), 1 / cloud.shape[0], dtype=cloud.dtype, device=cloud.device)
        self.cost.check(cloud, "z")
        problem = point_problem(cloud[None], cloud[None], equal[None], equal[None], self.cost, self.solver.memory / 2)
        fixed = self
        if isinstance(self.epsilon, RelativeEpsilon):
            mean = problem.mean_cost()
            fixed = replace(self, epsilon=float(self.epsilon.fraction * mean[0]) or 1.0)
        if not problem.kept or not self.cost.symmetric:
            return Discrepancy.pooled(fixed, cloud)
        matrix = next(iter(problem.blocks()))[1][0] if cloud.shape[0] == 1 else torch.cat([c[0] for _, c in problem.blocks()])
        assert isinstance(fixed.epsilon, int | float)
        return pooled_divergence(matrix, float(fixed.epsilon), self.solver, cloud.dtype, clamp=self.claims.non_negative)


__all__ = ["SinkhornDivergence"]
