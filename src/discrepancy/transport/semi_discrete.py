"""Semi-discrete transport: from a law that can be sampled to weighted points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Estimate, Number
from discrepancy._validate import at_least, fraction, generator_or_default, sample, weights, whole_number
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.maps import EntropicMap, SoftMinimum
from discrepancy.transport.entropic.problem import point_problem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.laguerre import LaguerreCells

Source = Callable[[int, torch.Generator], Tensor]

# The discrete problem that the ascent starts from: points of the source per target, at most, and its epsilon as a share of the
# mean cost.
_START_POINTS, _START_EPSILON, _START_ERROR = 2000, 0.01, 1e-3
# The step of the ascent falls as t^-2/3, between the 1/2 of no curvature and the 1 of known one; averages take the last half.
_DECAY = 2 / 3


@dataclass(frozen=True, repr=False)
class SemiDiscreteEstimate(Estimate):
    """The dual value with its error over a held-out sample, the potentials `g` (m,) of the targets, and `cell_error`.

    `value` estimates without bias the dual value of g, which is at most the transport cost: what is missing to it vanishes with
    `cell_error`, the L1 distance of the cells' masses in the held-out sample from the weights (sampling noise of about sqrt(m /
    held_out) included). Differentiable in the targets and their weights by the envelope theorem.
    """

    g: Tensor = field(default_factory=lambda: torch.empty(0))
    epsilon: float = 0.0
    cell_error: Number = float("nan")
    _cells: LaguerreCells | None = field(default=None, repr=False, compare=False)
    _soft: SoftMinimum | None = field(default=None, repr=False, compare=False)

    def assign(self, x: Any) -> Tensor:
        """The target that each row of x (k, d) is nearest to in c(x, y_j) - g_j: its Laguerre cell, indices (k,)."""
        assert self._cells is not None
        return self._cells.assign(x)

    def map(self) -> Callable[[Any], Tensor]:
        """The transport map: x to the target of its cell; with epsilon > 0 the mean of the targets, differentiable."""
        assert self._cells is not None
        return self._cells.map if self._soft is None else EntropicMap(self._soft)

    def potential(self) -> Callable[[Any], Tensor]:
        """f as a function of points: the minimum of c(x, y_j) - g_j over the targets, or its soft-minimum."""
        assert self._cells is not None
        return self._cells.value if self._soft is None else self._soft


class _HeldOutValue(torch.autograd.Function):
    """A dual value with the gradients in targets and weights that were found with it."""

    @staticmethod
    def forward(ctx, y, b, value, slope_y, slope_b):  # type: ignore[override]
        ctx.save_for_backward(slope_y, slope_b)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        slope_y, slope_b = ctx.saved_tensors
        return grad * slope_y, grad * slope_b, None, None, None


@dataclass(frozen=True)
class SemiDiscrete:
    """W(mu, sum_j b_j delta(y_j)) = max_g E_mu[f(X)] + <b, g> with f(x) = min_j c(x, y_j) - g_j, for a law mu that is sampled.

    epsilon > 0 is the entropic problem with KL(P | mu x b), f then the soft-minimum; epsilon = 0 the exact one, whose map sends
    Laguerre cells to targets. Starts from the discrete problem between a sample of mu and the targets, then ascends by averaged
    stochastic gradients on fresh samples, each potential at its own scale (its weight, and the mean margin between the best two
    targets); the value and its standard error come from a held-out sample. The error of g, hence of the value, falls with steps x
    batch at the Monte Carlo rate; the value estimate is of a lower bound. `source(n, generator)` returns n independent points
    (n, d). Targets of weight zero have no cell. Time (steps x batch + held_out) m; memory of one block. Source: Genevay, Cuturi,
    Peyre and Bach (2016).
    """

    cost: Cost = field(default_factory=SquaredEuclidean)
    epsilon: float = 0.0
    steps: int = 1000
    batch: int = 1024
    held_out: int = 65_536
    level: float = 0.95
    references: ClassVar[tuple[str, ...]] = ("genevay-2016",)

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options out of range; a function becomes a cost."""
        for name, least in (("steps", 0), ("batch", 1), ("held_out", 2)):
            value = getattr(self, name)
            whole_number(value, least, name)
        at_least(self.epsilon, 0, "epsilon")
        fraction(self.level, "level")
        object.__setattr__(self, "cost", as_cost(self.cost))

    def solve(self, source: Source, y: Any, b: Any = None, *, generator: torch.Generator | None = None) -> SemiDiscreteEstimate:
        """The estimate for targets y (m, d) with weights b (m,), equal where omitted.

        Raises TypeError if source is no function, ValueError for a batch of targets or points of another dimension.
        """
        if not callable(source):
            raise TypeError(
                "source must be a function (n, generator) -> points (n, d), as lambda n, rng: torch.randn(n, 2, generator=rng), "
                f"got {type(source).__name__}; two samples are what OptimalTransport and Sinkhorn take"
            )
        targets = sample(y, "y")
        if targets.ndim != 2:
            raise ValueError(f"y must be one set of targets (m, d), got {tuple(targets.shape)}")
        self.cost.check(targets, "y")
        mass = weights(b, targets.shape[:1], "b", like=targets)
        rng = generator_or_default(generator, targets.device)
        heavy = mass.detach() > 0
        points, share = targets.detach()[heavy].double(), mass.detach()[heavy].double()

        def draw(n: int) -> Tensor:
            found = sample(source(n, rng), "the source's points", like=targets)
            if found.shape != (n, targets.shape[1]):
                raise ValueError(
                    f"source({n}, generator) must return points of shape ({n}, {targets.shape[1]}), got {tuple(found.shape)}"
                )
            self.cost.check(found, "the source's points")
            return found.detach().double()

        with torch.no_grad():
            g = self._ascend(draw, points, share)
            g = g - (share * g).sum()
        return self._estimate(draw, targets, mass, heavy, g)

    def _ascend(self, draw: Callable[[int], Tensor], y: Tensor, b: Tensor) -> Tensor:
        """Averaged stochastic gradient ascent from the potentials of a discrete problem."""
        first = draw(_START_POINTS)
        equal = torch.full((1, len(first)), 1 / len(first), dtype=torch.float64, device=y.device)
        problem = point_problem(first[None], y[None], equal, b[None], self.cost, 1.0)
        epsilon = torch.clamp(_START_EPSILON * problem.mean_cost(), min=self.epsilon)
        epsilon = torch.where(epsilon > 0, epsilon, torch.ones_like(epsilon))
        g = SemiDualNewton(tolerance=_START_ERROR).solve(problem, epsilon).g[0]
        if self.epsilon == 0:  # the weights stand inside the entropic potential
            g = g + epsilon[0] * b.log()
        scale = max(float(LaguerreCells(y, g, self.cost).margin(first).mean()), self.epsilon)
        mean, count = torch.zeros_like(g), 0
        for step in range(self.steps):
            found = torch.zeros_like(b)
            for block in draw(self.batch).split(self._rows(y)):
                found += self._shares(block, y, b, g).sum(0)
            pull = ((b - found / self.batch) / b).clamp(-3, 3)
            g = g + scale * (step + 1) ** -_DECAY * pull
            if 2 * step >= self.steps:
                count += 1
                mean += (g - mean) / count
        return mean if count else g

    def _rows(self, y: Tensor) -> int:
        return self.cost.block_size(y.shape[0], y.shape[1], 64 << 20, 8)

    def _shares(self, x: Tensor, y: Tensor, b: Tensor, g: Tensor) -> Tensor:
        """To which targets each point goes, (k, m): one of them, or shares that sum to one."""
        gain = g - self.cost.matrix(x, y)
        if self.epsilon > 0:
            return (gain / self.epsilon + b.log()).softmax(-1)
        return torch.zeros_like(gain).scatter_(1, gain.argmax(1, keepdim=True), 1.0)

    def _estimate(
        self, draw: Callable[[int], Tensor], targets: Tensor, mass: Tensor, heavy: Tensor, g: Tensor
    ) -> SemiDiscreteEstimate:
        """The held-out mean of f(X) + <b, g>, its error, and its slopes in targets and weights."""
        y, b = targets.detach()[heavy].double(), mass.detach()[heavy].double()
        fresh = draw(self.held_out)
        values, cells, slope = [], torch.zeros_like(b), torch.zeros_like(y)
        needed = targets.requires_grad
        for block in fresh.split(self._rows(y)):
            with torch.no_grad():
                shares = self._shares(block, y, b, g)
                reduced = self.cost.matrix(block, y) - g
                if self.epsilon > 0:
                    values.append(-self.epsilon * torch.logsumexp(-reduced / self.epsilon + b.log(), -1))
                else:
                    values.append(reduced.amin(-1))
                cells += shares.sum(0)
            if needed:
                slope += self.cost.contract(block, y, shares)[1]
        found = torch.cat(values)
        error = float(found.std()) / math.sqrt(self.held_out)
        held = cells / self.held_out
        whole_g = torch.full_like(mass.detach().double(), -math.inf)
        whole_g[heavy] = g
        slope_y = torch.zeros_like(targets.detach().double())
        slope_y[heavy] = slope / self.held_out
        # d/db of <b, g> - epsilon E log sum_j b_j exp(...): what the soft shares add is held / b.
        slope_b = torch.zeros_like(mass.detach().double())
        slope_b[heavy] = g - (self.epsilon * held / b if self.epsilon > 0 else 0.0)
        total = found.mean() + (b * g).sum()
        value = _HeldOutValue.apply(targets, mass, total.to(targets.dtype), slope_y.to(targets.dtype), slope_b.to(targets.dtype))
        z = math.sqrt(2) * float(torch.erfinv(torch.tensor(self.level, dtype=torch.float64)))
        soft = None
        if self.epsilon > 0:
            level = torch.tensor(self.epsilon, dtype=torch.float64, device=y.device)
            soft = SoftMinimum(y.to(targets.dtype), b.log(), g, level, self.cost)
        finite = torch.where(heavy, whole_g, torch.full_like(whole_g, -math.inf))
        return SemiDiscreteEstimate(
            value=value,  # type: ignore[arg-type]
            standard_error=error,
            low=float(total) - z * error,
            high=float(total) + z * error,
            level=self.level,
            method=f"{self!r}: {self.steps * self.batch} points of the source, held out {self.held_out}",
            note="an interval for the dual value of g, which is at most the transport cost",
            g=whole_g.to(targets.dtype),
            epsilon=self.epsilon,
            cell_error=float((held - b).abs().sum()),
            _cells=LaguerreCells(targets.detach(), finite, self.cost),
            _soft=soft,
        )


__all__ = ["SemiDiscrete", "SemiDiscreteEstimate"]
