"""The max-sliced Wasserstein distance: the one direction along which two samples differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate, Outcome
from discrepancy._validate import SamplePair, positive, sample, whole_number
from discrepancy.directions import Directions, Orthogonal
from discrepancy.linalg import root
from discrepancy.transport.bundle_ascent import Summit, bundle_ascent
from discrepancy.transport.contrasts import contrasts
from discrepancy.transport.first_order import first_order_only
from discrepancy.transport.line import ADVICE, line_cost, line_costs
from discrepancy.transport.projections import GROUP, direction_costs
from discrepancy.transport.sphere_ascent import sphere_ascent
from discrepancy.transport.wasserstein import check_order

_COARSE_STEP, _COARSE_ITERATIONS = 1e-2, 30  # of the climb of all starts, which only has to tell the highest hill


@dataclass(frozen=True, repr=False)
class MaxSlicedEstimate(Estimate):
    """A max-sliced distance with the `direction` (..., d) that attains it, the ascent's `iterations` and its `outcome`."""

    direction: Tensor | None = None
    iterations: int = 0
    outcome: Outcome = Outcome.CONVERGED


@dataclass(frozen=True)
class _Found:
    cost: Tensor
    direction: Tensor
    iterations: int
    outcome: Outcome


class _AtMaximum(torch.autograd.Function):
    """The maximal cost (B,) with the derivatives that the envelope theorem gives it."""

    @staticmethod
    def forward(ctx, x, y, a, b, cost, slopes):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        ctx.slopes = slopes
        return cost.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        out = [
            None
            if s is None
            else first_order_only(grad.detach().reshape(-1, *[1] * (s.ndim - 1)) * s, ADVICE, grad, *ctx.saved_tensors)
            for s in ctx.slopes
        ]
        return (*out, None, None)


@dataclass(frozen=True)
class MaxSlicedWasserstein(Discrepancy):
    """max over unit vectors theta of W_p(theta.x, theta.y): the worst line through the data, a distance in units of x.

    All `starts` and two directions that the data suggest (the difference of the means, the axis whose variances differ most)
    climb a little; from the highest a bundle ascent goes on to rounding, across the kinks where the order of projections
    changes. The answer is a local maximum, hence a lower bound of the maximum, which is itself at most W_p and a metric; the
    answer itself need not keep the triangle inequality. The drawn starts come from `seed`, so that the value is a function of
    the data (the `generator` of a call is not used). In one dimension it is W_p.

    Gradients in points and weights are those of the maximum (envelope theorem): at a kink they combine the orders that meet
    there with the multipliers of the ascent. First derivatives only. `.solve` has the direction and the outcome. The ascent ends
    when the gain that its model predicts falls below `tolerance` times W_p^p, in ten to a hundred steps for samples of hundreds;
    thousands of points that hardly differ have kinks everywhere and want `tolerance=1e-4`. At `max_iterations` it warns.

    Time for each pair of samples: about 30 (starts + 2) sorts of the projections, then up to max_iterations of
    K (n + m) d + n log n + n d^2 with K <= 2 d + 30 orders kept (from d = 129 on without the last term, and more steps); memory
    (starts + 2 + K) (n + m), and the samples in float64. Raises ValueError for p < 1 or infinite, starts or max_iterations out of
    range. Source: Deshpande et al. (2019); Kiwiel (1985).
    """

    p: float = 2
    starts: Directions = field(default_factory=lambda: Orthogonal(8))
    tolerance: float = 1e-12
    max_iterations: int = 500
    seed: int = 0
    claims: ClassVar[Claims] = Claims(degree=1.0)
    references: ClassVar[tuple[str, ...]] = ("deshpande-2019", "kiwiel-1985")

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options that make no sense."""
        if math.isinf(check_order(self.p)):
            raise ValueError("p must be finite: the ascent follows the gradient of W_p^p")
        if not isinstance(self.starts, Directions):
            raise TypeError(f"starts must be an object such as Orthogonal(8), got {self.starts!r}")
        whole_number(self.max_iterations, 1, "max_iterations")
        positive(self.tolerance, "tolerance")
        if not isinstance(self.seed, int):
            raise TypeError(f"seed must be a whole number, got {self.seed!r}")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The distance over the batch."""
        found = self._found(pair)
        found.outcome.warn(type(self).__name__, stacklevel=5)
        return root(found.cost, self.p).to(pair.x.dtype).reshape(pair.batch)

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> MaxSlicedEstimate:
        """The distance with the direction that attains it; no standard error: nothing is averaged."""
        pair = self._checked(x, y, a, b)
        found = self._found(pair)
        found.outcome.warn(type(self).__name__)
        return MaxSlicedEstimate(
            root(found.cost, self.p).to(pair.x.dtype).reshape(pair.batch),
            method=repr(self),
            note="a local maximum over directions",
            direction=found.direction.to(pair.x.dtype).reshape(*pair.batch, -1),
            iterations=found.iterations,
            outcome=found.outcome,
        )

    def _found(self, pair: SamplePair) -> _Found:
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d).double() for t in (pair.x, pair.y))
        centre = (x.detach().mean(-2, keepdim=True) + y.detach().mean(-2, keepdim=True)) / 2
        x, y = x - centre, y - centre
        a, b = (w.reshape(-1, w.shape[-1]).double() for w in (pair.a, pair.b))
        equal = (pair.uniform_a, pair.uniform_b)
        if d == 1:
            cost = line_cost(x[..., 0], y[..., 0], a, b, self.p, equal_a=equal[0], equal_b=equal[1])
            return _Found(cost, torch.ones_like(x[:, 0].detach()), 0, Outcome.CLOSED_FORM)
        with torch.no_grad():
            tops = self._summits(x.detach(), y.detach(), a.detach(), b.detach(), equal)
            direction, cost = (torch.stack([getattr(t, name) for t in tops]) for name in ("direction", "value"))
            slopes = self._slopes((x, y, a, b), equal, tops, direction)
        value = _AtMaximum.apply(x, y, a, b, cost, slopes)
        worst = next((t.outcome for t in tops if not t.outcome.ok), Outcome.CONVERGED)
        return _Found(value, direction, max(t.iterations for t in tops), worst)  # type: ignore[arg-type]

    def _slopes(
        self, given: tuple[Tensor, ...], equal: tuple[bool, bool], tops: list[Summit], direction: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The derivatives of the maximal cost in x, y, a and b, each only where it is wanted."""
        x, y, a, b = given
        in_points = [
            torch.stack([getattr(t, name) for t in tops]) if points.requires_grad else None
            for name, points in (("grad_x", x), ("grad_y", y))
        ]
        if not (a.requires_grad or b.requires_grad):
            return (*in_points, None, None)
        # Tied projections have one potential: any order gives the derivative in the weights.
        u, v = (torch.einsum("bnd,bd->bn", t.detach(), direction) for t in (x, y))
        left, right = None if equal[0] else a.detach(), None if equal[1] else b.detach()
        line = line_costs(u, v, left, right, self.p, weights=True)
        return (*in_points, line.grad_a if a.requires_grad else None, line.grad_b if b.requires_grad else None)

    def _summits(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, equal: tuple[bool, bool]) -> list[Summit]:
        """A local maximum for each pair of the batch."""
        size, d = x.shape[0], x.shape[-1]
        source = torch.Generator(device=x.device).manual_seed(self.seed)
        drawn = self.starts.draw(d, source, x.dtype, x.device)
        theta = torch.cat([contrasts(x, y, a, b), drawn.expand(size, -1, -1)], 1)

        def evaluate(theta: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                at = theta.detach().requires_grad_()
                cost = direction_costs(x, y, a, b, at, self.p, equal_a=equal[0], equal_b=equal[1])
                (slope,) = torch.autograd.grad(cost.sum(), at)
            return cost.detach(), slope

        theta, cost, _ = sphere_ascent(evaluate, theta, iterations=_COARSE_ITERATIONS, smallest_step=_COARSE_STEP)
        best = theta[torch.arange(size, device=x.device), cost.argmax(-1)]
        same = equal[0] and equal[1] and x.shape[1] == y.shape[1]
        return [
            bundle_ascent(
                x[k],
                y[k],
                None if same else a[k],
                None if same else b[k],
                float(self.p),
                best[k],
                iterations=self.max_iterations,
                tolerance=self.tolerance,
            )
            for k in range(size)
        ]

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """Each pair of weight rows has an ascent of its own, from the same drawn starts."""
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        count = cloud.shape[0]
        step = max(1, GROUP // (count * (self.starts.count + 2)))

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            values = []
            for start in range(0, A.shape[0], step):
                a, b = (w[start : start + step] for w in (A, B))
                spread = cloud.expand(a.shape[0], *cloud.shape)
                values.append(self._value(SamplePair(spread, spread, a, b, False, False), None))
            return torch.cat(values)

        return torch.no_grad()(statistic)


__all__ = ["MaxSlicedEstimate", "MaxSlicedWasserstein"]
