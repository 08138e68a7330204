"""Exact transport by inexact proximal steps: each solves an entropic problem around the last plan, not around the product."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._results import Outcome, TransportResult
from discrepancy._validate import SamplePair, cost_matrix, positive, require_finite, weights, whole_number
from discrepancy.costs import Cost, FunctionCost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon, resolve

_CHECKED_EVERY = 10  # steps between two looks at the duality gap, which cost about as much as two steps


@dataclass(frozen=True)
class _Solved:
    """A feasible plan (B, n, m), feasible potentials, the marginal error before rounding, primal minus dual, steps, outcome."""

    plan: Tensor
    f: Tensor
    g: Tensor
    error: Tensor
    gap: Tensor
    steps: int
    outcome: Outcome


@dataclass(frozen=True)
class InexactProximal(Discrepancy):
    """The transport cost min_P <P, C> by proximal steps P <- argmin <P, C> + step KL(P | last P), each solved inexactly.

    A step is `sweeps` rounds of Sinkhorn's scaling of exp(-C / step) * P, here on the logarithms; unlike `Sinkhorn` the limit is
    a plan of the unregularised problem, whatever the step: after k steps the plan is as sharp as an entropic one with
    epsilon = step / k. The answer is the last plan made feasible, so that the value is an upper bound; the potentials, divided by
    k and made feasible, bound it from below, and `dual_gap` is the difference. Ends when the gap is at most `tolerance` times the
    mean cost, or after `max_iterations` steps, with an outcome that says so and a warning. `marginal_error` is the L1 error of
    the plan before it was made feasible: large after too few steps.

    step: a number in units of the cost or `RelativeEpsilon`, a share of the mean cost. Computes in float64; gradients in points,
    cost matrix and weights hold plan and potentials fixed (envelope theorem) and are as exact as the plan. Time n m a sweep,
    memory quadratic. Raises ValueError or TypeError for options or inputs that do not fit; infinite costs are refused:
    `OptimalTransport` takes them. Source: Xie, Wang, Wang and Zha (2020, 1802.04307).
    """

    step: Epsilon = field(default_factory=lambda: RelativeEpsilon(0.5))
    cost: Cost = field(default_factory=SquaredEuclidean)
    tolerance: float = 1e-2
    max_iterations: int = 1000
    sweeps: int = 1
    claims: ClassVar[Claims] = Claims(symmetric=False, zero_at_equality=False, degree=2.0)
    references: ClassVar[tuple[str, ...]] = ("xie-2020", "altschuler-2017")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        check_epsilon(self.step)
        object.__setattr__(self, "cost", as_cost(self.cost))
        positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        whole_number(self.sweeps, 1, "sweeps")
        claims = Claims(
            symmetric=False,  # to the bit: rows are swept before columns
            non_negative=not isinstance(self.cost, FunctionCost),
            zero_at_equality=False,
            translation_invariant=self.cost.translation_invariant,
            degree=self.cost.degree if isinstance(self.step, RelativeEpsilon) else None,
        )
        object.__setattr__(self, "claims", claims)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> TransportResult:
        """The value (differentiable) with its feasible plan, feasible potentials and gap."""
        pair = self._checked(x, y, a, b)
        return self._result(self._costs(pair), pair.a, pair.b)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> TransportResult:
        """The same for a given cost matrix C (..., n, m) in place of points; the value is differentiable in C, a and b."""
        matrix = cost_matrix(C)
        require_finite(matrix, "C")
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left, right = weights(a, (*batch, n), "a", like=matrix), weights(b, (*batch, m), "b", like=matrix)
        return self._result(matrix, left, right)

    def _costs(self, pair: SamplePair) -> Tensor:
        self.cost.check(pair.x, "x")
        self.cost.check(pair.y, "y")
        return self.cost.matrix(pair.x, pair.y)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The transport cost over the batch."""
        return torch.as_tensor(self._result(self._costs(pair), pair.a, pair.b).value)

    def _result(self, C: Tensor, a: Tensor, b: Tensor) -> TransportResult:
        batch, (n, m) = C.shape[:-2], C.shape[-2:]
        costs = C.reshape(-1, n, m)
        left, right = (w.expand(*batch, w.shape[-1]).reshape(-1, w.shape[-1]).double() for w in (a, b))
        found, step = self._solved(costs.detach().double(), left.detach(), right.detach())
        found.outcome.warn(type(self).__name__, stacklevel=5)
        value = (found.plan * costs.double()).sum((-2, -1))
        for mass, potential in ((left, found.f), (right, found.g)):  # zero, with the potential as its gradient
            value = value + (potential * (mass - mass.detach())).sum(-1)
        value = value.to(C.dtype).reshape(batch)

        def shaped(t: Tensor) -> Tensor:
            return t.to(C.dtype).reshape((*batch, *t.shape[1:]))

        return TransportResult(
            value=value,
            cost=value.detach(),
            f=shaped(found.f),
            g=shaped(found.g),
            marginal_error=found.error.reshape(batch),
            dual_gap=found.gap.reshape(batch),
            iterations=found.steps,
            epsilon=(step / found.steps).reshape(batch),
            outcome=found.outcome,
            rungs=(f"proximal steps: {found.steps}",),
            _plan=lambda: shaped(found.plan),
        )

    @torch.no_grad()
    def _solved(self, C: Tensor, a: Tensor, b: Tensor) -> tuple[_Solved, Tensor]:
        scale = (a * (C.abs() @ b[..., None])[..., 0]).sum(-1)
        step = resolve(self.step, (a * (C @ b[..., None])[..., 0]).sum(-1))
        g, before, done = torch.zeros_like(b), torch.zeros_like(b), 0
        while True:
            done += 1
            # The potentials grow by about the same every step: begin where the last growth points, or one sweep never catches up.
            before, g = g, 2 * g - before
            f, g, plan = _sweep(C * done, a, b, g, step)
            for _ in range(self.sweeps - 1):
                f, g, plan = _sweep(C * done, a, b, g, step)
            last = done == self.max_iterations
            if last or done % _CHECKED_EVERY == 0:
                found = _certified(C, a, b, plan, f / done, done)
                if bool((found.gap <= self.tolerance * scale).all()):
                    return found, step
                if last:
                    return replace(found, outcome=Outcome.ITERATION_LIMIT), step


def _sweep(C: Tensor, a: Tensor, b: Tensor, g: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, then columns, of a_i b_j exp((f_i + g_j - C_ij) / step): new potentials and the plan, whose columns are exact."""
    e = step[:, None]
    exponent = (g[:, None] - C).div_(e[..., None]).add_(b.log()[:, None])
    top = exponent.amax(-1, keepdim=True)
    share = exponent.sub_(top).exp_()
    size = share.sum(-1, keepdim=True)
    plan = share.div_(size).mul_(a[..., None])
    f = -e * (top + size.log())[..., 0]
    columns = plan.sum(-2)
    if bool(((columns < 1e-200) & (b > 0)).any()):  # a sum that underflows has a logarithm all the same
        moved = -e * torch.logsumexp((f[..., None] - C) / e[..., None] + a.log()[..., None], -2)
        moved = torch.where(b > 0, moved, g)
        exponent = (f[..., None] + moved[:, None] - C) / e[..., None]
        return f, moved, (exponent + a.log()[..., None] + b.log()[:, None]).exp()
    ratio = torch.where(b > 0, b / columns.clamp_min(1e-300), torch.ones_like(b))
    return f, g + e * ratio.log(), plan * ratio[:, None]


def _certified(C: Tensor, a: Tensor, b: Tensor, plan: Tensor, f: Tensor, steps: int) -> _Solved:
    """The plan made feasible (Altschuler, Weed and Rigollet, 2017), potentials made feasible by two c-transforms."""
    error = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
    for weight, axis in ((a, -1), (b, -2)):
        sums = plan.sum(axis)
        plan = plan * torch.where(sums > weight, weight / sums, torch.ones_like(sums)).unsqueeze(axis)
    missing_a, missing_b = (a - plan.sum(-1)).clamp_min(0), (b - plan.sum(-2)).clamp_min(0)
    total = missing_b.sum(-1)[:, None, None]
    share = missing_a[..., None] * missing_b[:, None]
    plan = plan + torch.where(total > 0, share / torch.where(total > 0, total, torch.ones_like(total)), torch.zeros_like(share))
    g = (C - f[..., None]).amin(-2)
    f = (C - g[:, None]).amin(-1)
    shift = ((b * g).sum(-1) - (a * f).sum(-1))[:, None] / 2
    f, g = f + shift, g - shift
    gap = (plan * C).sum((-2, -1)) - (a * f).sum(-1) - (b * g).sum(-1)
    return _Solved(plan, f, g, error, gap, steps, Outcome.CONVERGED)


__all__ = ["InexactProximal"]
