"""Entropic partial transport between positive measures of any mass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, as_tensor, positive, sample, sample_pair, weights, whole_number
from discrepancy.costs import Cost, FunctionCost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon
from discrepancy.transport.entropic.solver import default_tolerance
from discrepancy.transport.exact.inputs import check_matrix, on_cpu
from discrepancy.transport.exact.orientation import comes_first
from discrepancy.transport.first_order import first_order_only
from discrepancy.transport.partial.entropic import EntropicPartial, solve_entropic
from discrepancy.transport.partial.mass import Mass, MassShare, carried_mass, check_mass
from discrepancy.transport.partial.result import PartialResult

_ADVICE = "entropic partial transport has first derivatives only"
_COPIES = 6  # matrices of the size of the cost that a solve holds at a time


class _Value(torch.autograd.Function):
    """The optimal values (B,) at fixed plans and potentials: dV/dC = P, dV/da = f - epsilon (P1) / a + epsilon |b|, dV/ds = u."""

    @staticmethod
    def forward(ctx: Any, C: Tensor, a: Tensor, b: Tensor, s: Tensor, found: list[EntropicPartial], epsilon: Tensor) -> Tensor:
        ctx.save_for_backward(C, a, b, s)
        ctx.found, ctx.epsilon = found, epsilon
        return torch.tensor([one.value for one in found], dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), e = grads, ctx.epsilon[:, None]
        C, a, b, s = ctx.saved_tensors
        g = grad.detach().double()

        def stacked(name: str) -> Tensor:
            return torch.stack([getattr(one, name) for one in ctx.found])

        def total(w: Tensor) -> Tensor:
            return w.detach().double().sum(-1, keepdim=True)

        slopes = (
            lambda: g[:, None, None] * stacked("plan"),
            lambda: g[:, None] * (stacked("f") + e * (total(b) - stacked("ratio_a"))),
            lambda: g[:, None] * (stacked("g") + e * (total(a) - stacked("ratio_b"))),
            lambda: g * stacked("price"),
        )
        out = (
            first_order_only(slope().to(like.dtype), _ADVICE, grad, C, a, b, s) if need else None
            for slope, like, need in zip(slopes, (C, a, b, s), ctx.needs_input_grad[:4], strict=True)
        )
        return (*out, None, None)


@dataclass(frozen=True)
class PartialSinkhorn(Discrepancy):
    """min <P, C> + epsilon KL(P | a x b) over P >= 0 with P 1 <= a, P^T 1 <= b and total mass s, for positive measures.

    KL(P | Q) = sum P log(P / Q) - P + Q. `mass` is s, a number, or `MassShare(0.9)`, that share of the lighter measure; epsilon
    in units of the cost, or a share of the mean cost between the measures divided by their masses. epsilon to 0 gives
    `PartialTransport`. Solved to a relative L1 error of `tolerance` (None: 1e-6, or 1e-4 for float32 samples) by projected Newton
    steps on potentials and price, epsilon lowered in stages, in float64; `max_iterations` counts passes over all pairs. Memory
    quadratic: samples whose matrices do not fit `memory` GiB are refused; `UnbalancedSinkhorn` with a TotalVariationPenalty,
    which prices what stays behind, streams. Not zero at equality.

    Gradients in points, weights and costs hold plan, potentials and price fixed. The plan of POT's `entropic_partial_wasserstein`
    minimises with the entropy of P alone: the same where the weights are equal. Source: Benamou et al. (2015); Chapel, Alaya and
    Gasso (2020).
    """

    mass: Mass = field(default_factory=MassShare)
    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    tolerance: float | None = None
    max_iterations: int = 5000
    memory: float = 1.0
    claims: ClassVar[Claims] = Claims(zero_at_equality=False, any_mass=True)
    references: ClassVar[tuple[str, ...]] = ("benamou-2015", "chapel-2020")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; what is promised follows from the cost."""
        check_mass(self.mass)
        check_epsilon(self.epsilon)
        object.__setattr__(self, "cost", as_cost(self.cost))
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        positive(self.memory, "memory")
        claims = Claims(
            symmetric=self.cost.symmetric,
            non_negative=not isinstance(self.cost, FunctionCost),
            zero_at_equality=False,
            translation_invariant=self.cost.translation_invariant,
            any_mass=True,
        )
        object.__setattr__(self, "claims", claims)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        return sample_pair(x, y, a, b, mass="positive")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The optimal value over the batch."""
        values = [self._single(x, y, a, b).value for x, y, a, b in _singles(pair)]
        return torch.stack(values).reshape(pair.batch)  # type: ignore[arg-type]

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> PartialResult:
        """The value (differentiable) with potentials, price, plan and certificate, for one pair of samples."""
        pair = self._checked(x, y, a, b)
        if pair.batch:
            raise ValueError(f"solve takes one pair of samples, got a batch of shape {tuple(pair.batch)}: loop over it")
        return self._single(pair.x, pair.y, pair.a, pair.b)

    def _single(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> PartialResult:
        """One pair of samples (n, d), (m, d); under a symmetric cost in an order of the sides that depends on the data only."""
        for points, name in ((x, "x"), (y, "y")):
            self.cost.check(points, name)
            on_cpu(points, name)
        self._check_size(len(x), len(y))
        sides = [t.detach().numpy() for t in (x, a, y, b)]
        swapped = self.cost.symmetric and not comes_first(*sides)
        if swapped:
            x, y, a, b = y, x, b, a
        wide = (x, y) if isinstance(self.cost, FunctionCost) else (x.double(), y.double())
        return self._result(self.cost.matrix(*wide), a, b, x.dtype, swapped)

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> PartialResult:
        """The same for a given cost matrix C (n, m); +inf forbids a pair. Differentiable in C and the weights.

        Raises ValueError for a matrix, weights or mass that do not fit, and where a share of mean cost meets forbidden pairs.
        """
        matrix = as_tensor(C, "C")
        check_matrix(matrix)
        if matrix.ndim != 2:
            raise ValueError(f"C must be one cost matrix (n, m), got a batch of shape {tuple(matrix.shape)}: loop over it")
        if isinstance(self.epsilon, RelativeEpsilon) and bool(torch.isinf(matrix).any()):
            raise ValueError("C forbids pairs, so that its mean is infinite: give epsilon as a number")
        n, m = matrix.shape
        self._check_size(n, m)
        left = weights(a, (n,), "a", like=matrix, mass="positive")
        right = weights(b, (m,), "b", like=matrix, mass="positive")
        return self._result(matrix, left, right, matrix.dtype, False)

    def _check_size(self, n: int, m: int) -> None:
        need = 8 * _COPIES * n * m / 2**30
        if need > self.memory:
            raise ValueError(
                f"the matrices of {n} x {m} points take {need:.3g} GiB of the {self.memory:g} allowed: raise memory, or take "
                "UnbalancedSinkhorn(penalty=TotalVariationPenalty(rho)), which streams"
            )

    def _epsilon(self, C: Tensor, a: Tensor, b: Tensor) -> float:
        """The number that is used for costs C and weights a, b in float64."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return float(self.epsilon)
        chosen = self.epsilon.fraction * float(a @ C @ b / (a.sum() * b.sum()))
        return chosen if chosen > 0 else 1.0

    def _result(self, C: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype, swapped: bool) -> PartialResult:
        """The answer for costs C (n, m), exchanged back where the sides were."""
        s = carried_mass(self.mass, a[None], b[None])
        plain, p, q = (t.detach().double() for t in (C, a, b))
        epsilon = self._epsilon(plain, p, q)
        tolerance = default_tolerance(dtype) if self.tolerance is None else self.tolerance
        found = solve_entropic(plain, p, q, float(s.detach()), epsilon, tolerance, self.max_iterations)
        found.outcome.warn(type(self).__name__, stacklevel=6)
        number = torch.tensor([epsilon], dtype=torch.float64)
        value: Any = _Value.apply(C[None], a[None], b[None], s, [found], number)
        f, g = (found.g, found.f) if swapped else (found.f, found.g)
        return PartialResult(
            value=value[0].to(dtype),
            cost=torch.tensor(found.cost, dtype=dtype),
            f=f.to(dtype),
            g=g.to(dtype),
            marginal_error=found.error,
            dual_gap=found.gap,
            iterations=found.iterations,
            epsilon=epsilon,
            outcome=found.outcome,
            rungs=("projected Newton, epsilon lowered in stages",),
            mass=float(found.plan.sum()),
            price=float(found.price),
            _plan=lambda: (found.plan.mT if swapped else found.plan).to(dtype),
        )

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> PartialSinkhorn:
        """The same with epsilon fixed at the number chosen for these samples."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return self
        pair = self._checked(x, y, a, b)
        if pair.batch:
            raise ValueError("epsilon is chosen for each pair of a batch: resolve one pair at a time, or give a number")
        return replace(self, epsilon=float(self._single(*(t.detach() for t in (pair.x, pair.y, pair.a, pair.b))).epsilon))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One epsilon for all rows, from z; rows of weights, which sum to one, are solved one by one."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return super().pooled(z, generator=generator)
        return Discrepancy.pooled(replace(self, epsilon=self._pooled_epsilon(z)), z)

    def _pooled_epsilon(self, z: Any) -> float:
        """The share of the mean cost between two independent points of z (N, d)."""
        cloud = sample(z, "z").detach().double()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        self._check_size(len(cloud), len(cloud))
        even = torch.full((len(cloud),), 1 / len(cloud), dtype=torch.float64)
        return self._epsilon(self.cost.matrix(cloud, cloud).double(), even, even)


def _singles(pair: SamplePair) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The pairs of a batch, one by one."""
    d = pair.x.shape[-1]
    x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
    a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
    return zip(x, y, a, b, strict=True)


__all__ = ["PartialSinkhorn"]
