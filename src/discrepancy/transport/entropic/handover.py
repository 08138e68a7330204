"""Where epsilon is too small for the entropic solver: the exact solver gives it a start, or takes over.

Three regimes, by epsilon against the scale s = sum_ij a_i b_j |C_ij| of the costs:

- above 1e-6 s: the entropic solver as it is; where it fails although epsilon is at most 1e-3 s, the exact solver's potentials
  are its second start;
- below 1e-6 s: they are its first start: no annealing then passes thirty levels, each harder than the last;
- where neither converges, and unasked below 1e-9 s once the rounding of the exponents (f + g - C) / epsilon, 2^-52 s / epsilon
  in relative size, exceeds the tolerance: no potentials in float64 have a plan with these marginals, and the exact plan P is
  the answer. It is feasible, hence W_eps <= <P, C> + epsilon KL(P | a x b), which is the value then, and W_eps >=
  <a, softmin(g)> + <b, g> for any g, of which the exact potentials are one. The difference is the `dual_gap` of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from discrepancy._results import NumericalError, TransportResult
from discrepancy.costs import Cost
from discrepancy.transport.entropic.certificate import certify
from discrepancy.transport.entropic.problem import MatrixProblem, Problem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials, default_tolerance

if TYPE_CHECKING:
    from discrepancy.transport.exact.optimal_transport import OptimalTransport

# Shares of the cost's scale: below the first the exact solver may take over unasked; below the second its potentials are the
# start; below the third it is asked after a failure.
_TINY = 1e-9
_SMALL = 1e-6
_MODERATE = 1e-3
# A scale seen in a few columns of a first block of rows is not off by more than this in anything that could be small.
_MARGIN = 100.0
_ROUNDING = 2.0**-52


@dataclass(frozen=True)
class TakenOver(Potentials):
    """The exact potentials of a whole batch, with its results in the user's orientation: `result` (differentiable value), and
    the entropy term of its plan and the lower bound of the entropic optimum, (B,) each."""

    result: TransportResult | None = None
    entropy: Tensor | None = None
    lower: Tensor | None = None

    def value(self) -> Tensor:
        """<P, C> + epsilon KL(P | a x b), in the batch shape, with the gradients of the exact value."""
        assert self.result is not None
        assert self.entropy is not None
        assert isinstance(self.result.value, Tensor)
        return self.result.value + self.entropy.to(self.result.value.dtype).reshape(self.result.value.shape)

    def answer(self, epsilon: Tensor, *, differentiable: bool = False) -> TransportResult:
        """The exact result as that of the entropic problem: its plan, its potentials, and the gap between the two bounds.

        Raises NumericalError for differentiable=True: the potentials of a plan with zeros are not functions of the problem.
        """
        if differentiable:
            raise NumericalError(
                f"epsilon {float(epsilon.min()):.3g} is so small that the exact plan is the answer, whose potentials have no "
                "derivative: take a larger epsilon, or the derivative of the value alone"
            )
        assert self.result is not None
        assert self.entropy is not None
        assert self.lower is not None
        assert isinstance(self.result.cost, Tensor)
        shape = self.result.cost.shape
        gap = self.result.cost.double() + (self.entropy - self.lower).reshape(shape)
        # The exact solver's own bound is tighter where the entropy is below the rounding of the costs.
        gap = torch.minimum(gap, torch.as_tensor(self.result.dual_gap) + self.entropy.reshape(shape)).clamp_min(0)
        return replace(
            self.result,
            value=self.value(),
            dual_gap=gap,
            epsilon=epsilon.reshape(shape),
            outcome=self.outcome,
            rungs=self.rungs,
            _basis=None,
        )


def unregularised(cost: Cost, memory: float) -> OptimalTransport:
    """The problem without entropy, within the same memory."""
    from discrepancy.transport.exact.choose import NetworkSimplex
    from discrepancy.transport.exact.optimal_transport import OptimalTransport

    return OptimalTransport(cost, NetworkSimplex(memory=memory))


def entropic_or_exact(
    solver: EntropicSolver,
    problem: Problem,
    epsilon: Tensor,
    exact: Callable[[], TransportResult],
    *,
    swapped: bool = False,
    start: Tensor | None = None,
) -> Potentials:
    """The solver's potentials, from the exact ones where epsilon is small; `TakenOver` where it is too small for any.

    exact() solves the unregularised problem in the user's orientation; `swapped` says that the problem has the sides exchanged.
    Only `SemiDualNewton` on the CPU hands over: a solver that is asked for by name does what its name says.
    """
    if not isinstance(solver, SemiDualNewton) or problem.a.device.type != "cpu":
        return solver.solve(problem, epsilon, start=start)
    goal = solver.tolerance or default_tolerance(problem.dtype)
    scale = _scale(problem, epsilon)
    if bool((epsilon < min(_ROUNDING / goal, _TINY) * scale).all()):
        return _taken_over(problem, epsilon, exact(), swapped)
    if start is not None or not bool((epsilon < _SMALL * scale).any()):
        found = solver.solve(problem, epsilon, start=start)
        if found.outcome.ok or not bool((epsilon < _MODERATE * scale).any()):
            return found
        first = replace(found, rungs=(*found.rungs, "not converged"))
    else:
        first = None
    result = exact()
    g = result.f if swapped else result.g
    assert g is not None
    again = solver.solve(problem, epsilon, start=_finite(g.detach().double().reshape(problem.b.shape)))
    again = replace(
        again,
        rungs=(*(first.rungs if first else ()), *result.rungs, "exact potentials as start", *again.rungs),
        iterations=again.iterations + (first.iterations if first else 0),
    )
    if again.outcome.ok:
        return again
    taken = _taken_over(problem, epsilon, result, swapped)
    best = min((p for p in (first, again) if p is not None), key=lambda p: float(p.error.max()))
    gap = certify(problem, best.f, best.g, epsilon).dual_gap
    return taken if bool((taken.answer(epsilon).dual_gap.reshape(-1) <= gap).all()) else best  # type: ignore[union-attr]


def _scale(problem: Problem, epsilon: Tensor) -> Tensor:
    """sum_ij a_i b_j |C_ij| (B,); infinity-free, and zero where a glance at a few costs says that epsilon is not small."""
    if isinstance(problem, MatrixProblem):
        return problem.mean_size()
    _, block = next(iter(problem.blocks()))
    seen = _finite(block[:, :: max(1, block.shape[1] // 8), : 1 << 10]).abs().amax((-1, -2))
    if bool((epsilon > _MODERATE * _MARGIN * seen).all()):
        return torch.zeros_like(epsilon)
    total = torch.zeros_like(epsilon)
    for part, cost in problem.blocks():
        total = total + (problem.a[:, part] * torch.matmul(_finite(cost).abs(), problem.b[..., None])[..., 0]).sum(-1)
    return total


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


def _taken_over(problem: Problem, epsilon: Tensor, result: TransportResult, swapped: bool) -> TakenOver:
    """The exact result with the entropy of its plan and the lower bound that its potentials give."""
    f, g = (result.g, result.f) if swapped else (result.f, result.g)
    assert f is not None
    assert g is not None
    assert isinstance(result.marginal_error, Tensor)
    size = len(epsilon)
    left, right = (_finite(t.detach().double()).reshape(size, -1) for t in (f, g))
    lower = _mean(problem.a, problem.rows(right, epsilon)) + _mean(problem.b, right)
    entropy = epsilon * _relative_entropy(
        result.plan().detach(), *((problem.b, problem.a) if swapped else (problem.a, problem.b))
    )
    rungs = (*result.rungs, "the exact plan: epsilon is below what float64 resolves")
    return TakenOver(
        left, right, result.marginal_error.reshape(size), result.iterations, result.outcome, rungs, result, entropy, lower
    )


def _relative_entropy(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """KL(P | a x b) (B,) of a sparse plan (..., n, m)."""
    plan = plan.coalesce()
    *batch, i, j = plan.indices()
    member = torch.zeros_like(i)
    for index, extent in zip(batch, plan.shape, strict=False):
        member = member * extent + index
    mass = plan.values().double()
    terms = torch.xlogy(mass, mass / (a[member, i] * b[member, j]))
    return torch.zeros(len(a), dtype=torch.float64).index_add(0, member, terms)


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    return torch.where(weights > 0, weights * values, torch.zeros_like(values)).sum(-1)


__all__ = ["TakenOver", "entropic_or_exact", "unregularised"]
