"""The Monge gap: how far a map is from moving its points at least cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Number, NumericalError, Outcome, Result
from discrepancy._validate import SamplePair, paired_rows, sample
from discrepancy.costs import Cost, SquaredEuclidean
from discrepancy.transport.entropic.divergence import SinkhornDivergence
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.sinkhorn import Sinkhorn, check_options
from discrepancy.transport.entropic.solver import EntropicSolver


@dataclass(frozen=True, repr=False)
class MongeGapResult(Result):
    """The gap as `value` (differentiable), the mean cost `moved` of the map, the entropic `optimum` that it is compared with,
    the `epsilon` used and the solver's `outcome`."""

    value: Number
    moved: Number
    optimum: Number
    epsilon: Number
    outcome: Outcome


@dataclass(frozen=True)
class MongeGap:
    """M(T) = E c(x, T(x)) - W_eps(rho, T # rho), on paired rows x_i and T(x_i): zero iff T is an optimal transport map between
    its own ends.

    W_eps is the entropic optimum with -eps H(P), which is the value of `Sinkhorn` minus eps (H(a) + H(b)). With that
    convention M >= 0 for every map, since the identity pairing has entropy log n; with + eps KL it would be negative, down
    to -eps log n, at a perfect map. M exceeds the gap without regularisation by at most 2 eps log n, a bias that is there
    at an optimal map too and whose gradient draws T together. `debias` takes the mean cost minus the Sinkhorn divergence
    instead: the same biases, measured at (x, x) and (T(x), T(x)), are subtracted, which leaves zero at T = identity and may
    dip below zero by O(eps).

    gap(source, target, weights=None) takes paired rows (..., n, d); gap(map, points, weights=None) applies the map first.
    The rows must correspond: a target in another order is another map. Gradients in source, target and weights are envelope
    gradients; nothing is unrolled. epsilon is in units of the cost, by default 5 % of the mean cost between the rows,
    detached; in a training loop fix it at a number, since a share that grows with the map rewards it for spreading.

    Raises ValueError for different numbers of rows or features and for points outside the cost's domain, NumericalError for
    a map that returns NaN or infinity. Time and memory as `Sinkhorn`. Source: Uscidda and Cuturi (2023).
    """

    cost: Cost = field(default_factory=SquaredEuclidean)
    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    debias: bool = False
    solver: EntropicSolver = field(default_factory=SemiDualNewton)
    references: ClassVar[tuple[str, ...]] = ("uscidda-cuturi-2023",)

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for options that make no sense."""
        check_options(self)

    def __call__(self, source: Any, target: Any, weights: Any = None) -> Tensor:
        """The gap (...,) of paired rows, or of a map at points."""
        value = self.solve(source, target, weights).value
        assert isinstance(value, Tensor)
        return value

    def solve(self, source: Any, target: Any, weights: Any = None) -> MongeGapResult:
        """The gap with its two terms."""
        x, y, w = self._rows(source, target, weights)
        pair = SamplePair(x, y, w, w, weights is None, weights is None)
        moved = (w * self.cost.pairs(x, y)).sum(-1)
        optimum, epsilon, outcome = self._optimum(pair)
        return MongeGapResult(moved - optimum, moved.detach(), optimum.detach(), epsilon, outcome)

    def _optimum(self, pair: SamplePair) -> tuple[Tensor, Tensor, Outcome]:
        if self.debias:
            found = SinkhornDivergence(self.epsilon, self.cost, self.solver)._solved(pair)
            return found.value, found.epsilon.reshape(pair.batch), found.cross.outcome
        value, setting, _, potentials, chosen = Sinkhorn(self.epsilon, self.cost, self.solver)._solved(pair, None)
        epsilon = chosen.to(value.dtype).reshape(pair.batch)
        entropy = -torch.xlogy(setting.a, setting.a).sum(-1) - torch.xlogy(setting.b, setting.b).sum(-1)
        return value - epsilon * entropy.reshape(pair.batch), epsilon, potentials.outcome

    def _rows(self, source: Any, target: Any, weights: Any) -> tuple[Tensor, Tensor, Tensor]:
        if callable(source) and not isinstance(source, Tensor):
            points = sample(target, "points")
            source, target = points, mapped(source, points)
        x, y, w = paired_rows(source, target, weights)
        if x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"source has {x.shape[-1]} features and target has {y.shape[-1]}: the cost compares points of one space, "
                "and a map must return as many features as it takes"
            )
        self.cost.check(x, "source")
        self.cost.check(y, "target")
        return x, y, w


def mapped(transport_map: Callable[[Tensor], Any], points: Tensor, where: str = "") -> Tensor:
    """The map at the points; NumericalError if it is not finite there, TypeError if it is no tensor."""
    image = transport_map(points)
    if not isinstance(image, Tensor):
        raise TypeError(f"the map must return a tensor, got {type(image).__name__}")
    bad = int((~torch.isfinite(image.detach())).sum())
    if bad:
        raise NumericalError(f"{where}the map returned {bad} non-finite value(s) of {image.numel()}")
    return image


__all__ = ["MongeGap", "MongeGapResult", "mapped"]
