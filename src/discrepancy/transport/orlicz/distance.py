"""The Orlicz-Wasserstein distance between samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._results import Outcome, TransportResult
from discrepancy._validate import SamplePair
from discrepancy.costs import Euclidean, FunctionCost
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex
from discrepancy.transport.exact.inputs import check_solver
from discrepancy.transport.exact.solution import Basis, ExactSolution
from discrepancy.transport.orlicz.functions import ExponentialPower, OrliczFunction
from discrepancy.transport.orlicz.norm import Scale, scale_of

# Costs above this are cut off: a plan of cost at most one puts less than 1e-8 of its mass there, and larger ones would drown the
# rounding of the rest. The gap that is returned counts what that may hide.
_CEILING = 1e8
_ROUNDS = 60


@dataclass(frozen=True)
class _Found:
    k: float
    lower: float
    solution: ExactSolution
    rounds: int
    outcome: Outcome


@dataclass(frozen=True)
class OrliczWasserstein(Discrepancy):
    """W_Phi(x, y) = min over couplings of the Luxemburg norm of |x - y| = min{k : min_P E_P Phi(|x - y| / k) <= 1}, a metric.

    In units of x. phi = Power(p) is W_p; `ExponentialPower(2)`, the default, sees a mass e at distance R as
    R / sqrt(log(1 + 1/e)): far, small masses count logarithmically in their size, not as a power of it, and
    `excess_mass_bound` turns the distance into a bound on them. A unit shift has length 1 / Phi^-1(1), or 1 with
    normalize=True. Found by alternating an exact plan for the cost Phi(|x - y| / k) with the Luxemburg norm under that plan:
    k falls at every step and stops, after 3-8 exact solves, where no plan is better; `.solve` has the plan and a rigorous gap
    from the dual. Gradients in points and weights by the implicit function theorem at the optimal plan. On the line one sort
    is enough. solver=EntropicPlan() takes the paper's entropic plans instead, an upper bound. Raises ValueError for samples that
    do not fit. Source: Guha, Ho and Nguyen (2023, 2301.11496).
    """

    phi: OrliczFunction = field(default_factory=ExponentialPower)
    normalize: bool = False
    tolerance: float = 1e-10
    solver: ExactSolver = field(default_factory=NetworkSimplex)
    claims: ClassVar[Claims] = Claims(metric=True, degree=1.0)
    references: ClassVar[tuple[str, ...]] = ("guha-2023",)

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for options that make no sense."""
        if not isinstance(self.phi, OrliczFunction):
            raise TypeError(f"phi must be an Orlicz function such as ExponentialPower(2) or Power(p), got {self.phi!r}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance!r}")
        check_solver(self.solver)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The distance over the batch."""
        return self._solved(pair)[0]

    def _solved(self, pair: SamplePair) -> tuple[Tensor, list[_Found]]:
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        found, values = [], []
        for k in range(x.shape[0]):
            one = self._search(*(t[k].detach().double().cpu().numpy() for t in (x, y, a, b)))
            values.append(self._differentiable(one, x[k], y[k], a[k], b[k]))
            found.append(one)
        worst = next((f.outcome for f in found if not f.outcome.ok), Outcome.CONVERGED)
        worst.warn(type(self).__name__, stacklevel=5)
        return (torch.stack(values) * self._unit()).to(pair.x.dtype).reshape(pair.batch), found

    def _unit(self) -> float:
        return self.phi.inverse(1.0) if self.normalize else 1.0

    def _search(self, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> _Found:
        """The smallest scale, a lower bound of it, and the plan at it."""
        swapped = _out_of_order(x, y, a, b)
        if swapped:
            x, y, a, b = y, x, b, a
        # In the unit of the data's extent: scales of 1e-200 or 1e200 are then as good as any.
        extent = max(float(np.abs(x - x[:1]).max()), float(np.abs(y - x[:1]).max()))
        if extent == 0:
            solution = self.solver.solve_points(x, y, a, b, Euclidean())
            return _Found(0.0, 0.0, _exchanged(solution) if swapped else solution, 1, Outcome.CLOSED_FORM)
        u, v = (x - x[:1]) / extent, (y - x[:1]) / extent
        solution = self.solver.solve_points(u, v, a, b, Euclidean())
        k, rounds, lower = _norm_under(solution, u, v, self.phi), 1, 0.0
        outcome = Outcome.CLOSED_FORM if x.shape[1] == 1 else Outcome.ITERATION_LIMIT
        if k == 0 or x.shape[1] == 1:  # on the line the quantile coupling is optimal at every scale, since Phi is convex
            lower, outcome = k, Outcome.CLOSED_FORM
        start: Basis | None = None
        while outcome is Outcome.ITERATION_LIMIT and rounds < _ROUNDS:
            following = self.solver.solve_points(u, v, a, b, self._cost(k), start=start)
            rounds, start = rounds + 1, following.basis
            # Phi(c t) >= c Phi(t) for c >= 1: a dual value D at scale k proves that no scale below k D will do.
            lower = max(lower, k * min(following.dual, 1.0))
            smaller = _norm_under(following, u, v, self.phi)
            fell = smaller < k * (1 - self.tolerance / 10)
            if smaller <= k:
                k, solution = smaller, following
            if k - lower <= self.tolerance * k:
                outcome = Outcome.CONVERGED
            elif not fell:
                # A solver that leaves a gap of its own (an entropic plan) has come to its fixed point.
                inexact = following.gap > self.tolerance * max(1.0, abs(following.primal))
                outcome = Outcome.CONVERGED if inexact else Outcome.EXHAUSTED
        if swapped:
            solution = _exchanged(solution)
        return _Found(k * extent, lower * extent, solution, rounds, outcome)

    def _cost(self, k: float) -> FunctionCost:
        """Phi(|x - y| / k), cut off."""
        phi = self.phi

        def cost(x: Tensor, y: Tensor) -> Tensor:
            return phi.value(torch.linalg.vector_norm(x - y, dim=-1) / k).clamp_max(_CEILING)

        return FunctionCost(cost, symmetric=True)

    def _differentiable(self, found: _Found, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The scale as a function of the points of the plan's entries and of the weights."""
        solution = found.solution
        rows, columns = (torch.from_numpy(t).to(x.device) for t in (solution.rows, solution.columns))
        mass = torch.from_numpy(solution.mass).to(x.device)
        lengths = Euclidean().pairs(x.double()[rows], y.double()[columns])
        weight = rate = None
        if (a.requires_grad or b.requires_grad) and found.k > 0:
            f, g = self._potentials(found, x, y, a, b)
            weight, rate = torch.cat([a.double(), b.double()]), torch.cat([f, g]).to(x.device)
        return Scale.apply(lengths, mass, self.phi, found.k, weight, rate)  # type: ignore[return-value]

    def _potentials(self, found: _Found, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the cost at the scale found."""
        points = [t.detach().double().cpu().numpy() for t in (x, y, a, b)]
        at = self.solver.solve_points(*points, self._cost(found.k), start=None)  # type: ignore[arg-type]
        return torch.from_numpy(at.f), torch.from_numpy(at.g)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> TransportResult:
        """The distance (differentiable) with the plan that attains it and a rigorous gap.

        `cost` is E_P Phi(|x - y| / k), one unless all points coincide; `dual_gap` the distance minus a lower bound of it, both
        in units of x; `iterations` counts exact solves. No potentials: the scale belongs to no single linear problem.
        """
        pair = self._checked(x, y, a, b)
        value, found = self._solved(pair)
        n, m, unit = pair.x.shape[-2], pair.y.shape[-2], self._unit()

        def plan() -> Tensor:
            each = []
            for f in found:
                at = torch.from_numpy(np.stack([f.solution.rows, f.solution.columns]))
                each.append(
                    torch.sparse_coo_tensor(at, torch.from_numpy(f.solution.mass), (n, m), check_invariants=True).coalesce()
                )
            if not pair.batch:
                return each[0].to(pair.x.dtype)
            return torch.stack([p.to_dense() for p in each]).reshape(*pair.batch, n, m).to(pair.x.dtype)

        def shaped(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=pair.x.dtype).reshape(pair.batch)

        return TransportResult(
            value=value,
            cost=shaped([_expected(f, self.phi, pair, k) for k, f in enumerate(found)]),
            f=None,
            g=None,
            marginal_error=shaped([0.0] * len(found)),
            dual_gap=shaped([unit * (f.k - f.lower) for f in found]),
            iterations=sum(f.rounds for f in found),
            epsilon=0.0,
            outcome=next((f.outcome for f in found if not f.outcome.ok), found[0].outcome),
            rungs=found[0].solution.rungs,
            _plan=plan,
        )


def _expected(found: _Found, phi: OrliczFunction, pair: SamplePair, k: int) -> float:
    if found.k == 0:
        return 0.0
    x, y = (t.reshape(-1, *t.shape[-2:])[k].detach().double().cpu() for t in (pair.x, pair.y))
    lengths = torch.linalg.vector_norm(x[found.solution.rows] - y[found.solution.columns], dim=-1)
    return float(torch.from_numpy(found.solution.mass) @ phi.value(lengths / found.k))


def _norm_under(solution: ExactSolution, x: np.ndarray, y: np.ndarray, phi: OrliczFunction) -> float:
    """The Luxemburg norm of the plan's displacements: an upper bound of the distance."""
    lengths = np.linalg.norm(x[solution.rows] - y[solution.columns], axis=1)
    return scale_of(torch.from_numpy(lengths), torch.from_numpy(solution.mass), phi)


def _exchanged(solution: ExactSolution) -> ExactSolution:
    return ExactSolution(
        solution.columns,
        solution.rows,
        solution.mass,
        solution.g,
        solution.f,
        solution.primal,
        solution.dual,
        solution.pivots,
        solution.rounds,
        solution.outcome,
        solution.rungs,
    )


def _out_of_order(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether to exchange the sides, by an order that depends on the data only: both orders then give the same bits."""
    if x.shape != y.shape:
        return x.shape[0] < y.shape[0]
    left, right = np.c_[x, a].ravel(), np.c_[y, b].ravel()
    differs = left != right
    if not differs.any():
        return False
    first = int(differs.argmax())
    return bool(left[first] < right[first])


__all__ = ["OrliczWasserstein"]
