"""Low-rank Sinkhorn: the cheapest coupling that factors through `rank` intermediate points, in linear memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Outcome, TransportResult
from discrepancy._validate import SamplePair, generator_or_default, positive, sample_pair, whole_number
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.low_rank.factors import Factors, project
from discrepancy.transport.low_rank.ground import Ground
from discrepancy.transport.low_rank.landmarks import landmarks

# Rows of the projections are met to this L1 error inside the iteration, and to a smaller one at its end.
_INNER, _INNER_LIMIT = 1e-7, 60
_LAST, _LAST_LIMIT = 1e-10, 5000
# The first mirror step moves no exponent by more than this; the line search takes it from there.
_FIRST_STEP = 5.0
# Accepted steps over which the cost must fall.
_WINDOW = 10
# Blocks of a cost matrix that has no factorisation.
_BLOCK_BYTES = 64 << 20


class _FixedPlanCost(torch.autograd.Function):
    """<P, C> with its gradients in the points at fixed plan."""

    @staticmethod
    def forward(ctx, x, y, value, ground, factors):  # type: ignore[override]
        ctx.ground, ctx.factors, ctx.dtypes = ground, factors, (x.dtype, y.dtype)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        gx, gy = ctx.ground.contract(ctx.factors.q, ctx.factors.r, ctx.factors.g)
        return (grad * gx).to(ctx.dtypes[0]), (grad * gy).to(ctx.dtypes[1]), None, None, None


@dataclass(frozen=True, repr=False)
class LowRankResult(TransportResult):
    """A TransportResult whose plan is q diag(1/weights) r^T: q (n, k), r (m, k), weights (k,), k at most rank + 1.

    The factors meet the marginals to rounding; a last column holds the mass that the iteration left unmet, of about 1e-10.
    There is no dual: f and g are None and dual_gap is NaN. `.apply(v)` takes time and memory linear in n + m.
    """

    q: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    r: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    weights: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)


@dataclass(frozen=True)
class LowRankSinkhorn:
    """min <P, C> over couplings P = Q diag(1/g) R^T of non-negative rank at most `rank`, by mirror descent on (Q, R, g).

    The value is the cost of a feasible plan, hence an upper bound on the transport cost; it falls to it as the rank grows. The
    problem is not convex: the answer is a stationary point that depends on where it starts (landmarks of x by k-means++, drawn
    from `generator`), which is why this is no `Discrepancy`: it does not promise the same bits for rows in another order. A step
    is a multiplicative update and a projection onto the constraints; its length grows while the cost falls and is cut where
    it would rise, so the cost never rises. Stops when the cost falls by less than `tolerance`, relative, over ten steps.

    Under the squared Euclidean cost a step takes (n + m) rank (d + iterations of the projection) operations and nothing of size
    n m is formed; under other costs it passes over all pairs, in blocks. Gradients in the points hold the plan fixed; weights
    that require gradients are refused. One pair of samples a call. Source: Scetbon, Cuturi and Peyre (2021); Scetbon and Cuturi
    (2022).
    """

    rank: int = 10
    cost: Cost = field(default_factory=SquaredEuclidean)
    tolerance: float = 1e-4
    max_iterations: int = 1000
    references: ClassVar[tuple[str, ...]] = ("scetbon-2021", "scetbon-cuturi-2022")

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options out of range; a function becomes a cost."""
        for name in ("rank", "max_iterations"):
            value = getattr(self, name)
            whole_number(value, 1, name)
        positive(self.tolerance, "tolerance")
        object.__setattr__(self, "cost", as_cost(self.cost))

    def __call__(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The cost of the low-rank plan between x (n, d) and y (m, d), differentiable in both."""
        value = self.solve(x, y, a, b, generator=generator).value
        assert isinstance(value, Tensor)
        return value

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> LowRankResult:
        """The cost with its factors; ValueError for a batch of samples and for weights that require gradients."""
        pair = self._checked(x, y, a, b)
        left, right, first, second = (t.detach().double() for t in (pair.x, pair.y, pair.a, pair.b))
        heavy_a, heavy_b = first > 0, second > 0
        ground = Ground.of(left[heavy_a], right[heavy_b], self.cost, _BLOCK_BYTES)
        with torch.no_grad():
            found, steps, outcome = self._descend(ground, first[heavy_a], second[heavy_b], pair, generator)
        outcome.warn(type(self).__name__)
        dtype = pair.x.dtype
        factors = Factors(_spread(found.q, heavy_a), _spread(found.r, heavy_b), found.g, found.error)
        cost = _cost(ground, found)
        whole = Ground.of(pair.x, pair.y, self.cost, _BLOCK_BYTES)
        value = _FixedPlanCost.apply(pair.x, pair.y, cost, whole, factors)
        assert isinstance(value, Tensor)

        def apply(v: Tensor) -> Tensor:
            return factors.apply(v.double()).to(dtype)

        return LowRankResult(
            value=value.to(dtype),
            cost=cost.to(dtype),
            f=None,
            g=None,
            marginal_error=found.error,
            dual_gap=float("nan"),
            iterations=steps,
            epsilon=0.0,
            outcome=outcome,
            rungs=(f"mirror descent at rank {self.rank}: {steps} steps",),
            q=factors.q.to(dtype),
            r=factors.r.to(dtype),
            weights=factors.g.to(dtype),
            _plan=lambda: ((factors.q / factors.g) @ factors.r.mT).to(dtype),
            _apply=apply,
        )

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        pair = sample_pair(x, y, a, b)
        if pair.batch:
            raise ValueError(f"LowRankSinkhorn takes one pair of samples a call, got the batch {tuple(pair.batch)}: loop over it")
        if pair.a.requires_grad or pair.b.requires_grad:
            raise ValueError("a low-rank coupling has no gradient in the weights a and b: detach them, or use Sinkhorn")
        self.cost.check(pair.x, "x")
        self.cost.check(pair.y, "y")
        return pair

    def _descend(
        self, ground: Ground, a: Tensor, b: Tensor, pair: SamplePair, generator: torch.Generator | None
    ) -> tuple[Factors, int, Outcome]:
        """Mirror descent from landmarks; the factors rounded to the marginals, the steps taken, how it ended."""
        x, y = ground.x, ground.y
        rank = min(self.rank, len(a), len(b))
        z, mass = landmarks(x, a, rank, self.cost, generator_or_default(generator, x.device))
        near, far = self.cost.matrix(x, z), self.cost.matrix(y, z)
        width = float(a @ near.amin(1)) or float((a @ near).mean()) or 1.0  # cells as blurred as they are wide
        now = project((-near / width, -far / width, mass.log()), a, b, tolerance=_INNER, max_iterations=_INNER_LIMIT)
        value, slopes = _gradient(ground, now)
        steepest = max(float(s.abs().max()) for s in slopes)
        step = _FIRST_STEP / steepest if steepest > 0 else 1.0
        history, outcome, steps, last = [value], Outcome.ITERATION_LIMIT, 0, 0.0

        def scaled(step: float) -> tuple[Tensor, Tensor] | None:
            """The scalings of the last step are its multipliers times its length: where the next projection begins."""
            if last == 0 or now.scalings is None:
                return None
            one, two = now.scalings
            return one * (step / last), two * (step / last)

        while steps < self.max_iterations:
            steps += 1
            logs: tuple[Tensor, Tensor, Tensor] = tuple(
                _log(t) - step * s for t, s in zip((now.q, now.r, now.g), slopes, strict=True)
            )  # type: ignore[assignment]
            trial = project(logs, a, b, tolerance=_INNER, max_iterations=_INNER_LIMIT, start=scaled(step))
            trial_value, trial_slopes = _gradient(ground, trial)
            # A kernel too uneven to be projected in a few rounds is as good a sign of too long a step as a rising cost.
            projected = trial.error <= _INNER or step * steepest < _FIRST_STEP
            if projected and trial_value <= value + (1e-12 + now.error + trial.error) * abs(value):
                now, value, slopes, last, step = trial, trial_value, trial_slopes, step, 1.3 * step
            else:
                step = step / 2
                if step * steepest < 1e-9:
                    outcome = Outcome.CONVERGED
                    break
                continue
            history.append(value)
            if len(history) > _WINDOW and history[-1 - _WINDOW] - value <= self.tolerance * abs(value):
                outcome = Outcome.CONVERGED
                break
        final = project((_log(now.q), _log(now.r), _log(now.g)), a, b, tolerance=_LAST, max_iterations=_LAST_LIMIT)
        return final.rounded(a, b), steps, outcome


def _gradient(ground: Ground, at: Factors) -> tuple[float, tuple[Tensor, Tensor, Tensor]]:
    """<P, C> and its gradients in Q, R and g: C R / g, C^T Q / g, -diag(Q^T C R) / g^2."""
    forth, back = ground.products(at.q / at.g, at.r / at.g)
    paid = (at.q * forth).sum(0)
    return float(paid.sum()), (forth, back, -paid / at.g)


def _log(t: Tensor) -> Tensor:
    """The logarithm, finite where a factor has underflowed: the projection's floor lies far above."""
    return t.clamp_min(1e-300).log()


def _cost(ground: Ground, at: Factors) -> Tensor:
    """<P, C> as a tensor."""
    forth, _ = ground.products(at.q / at.g, at.r / at.g)
    return (at.q * forth).sum()


def _spread(rows: Tensor, heavy: Tensor) -> Tensor:
    """Rows of zeros where a point has no weight."""
    out = torch.zeros(len(heavy), rows.shape[1], dtype=rows.dtype, device=rows.device)
    out[heavy] = rows
    return out


__all__ = ["LowRankResult", "LowRankSinkhorn"]
