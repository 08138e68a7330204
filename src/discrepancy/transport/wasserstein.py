"""The Wasserstein distance between samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import NumericalError, TransportResult
from discrepancy._validate import SamplePair, as_tensor, sample
from discrepancy.costs import Cost, Euclidean, PowerCost, SquaredEuclidean
from discrepancy.linalg import root
from discrepancy.transport.exact.bottleneck import bottleneck_cost_result, bottleneck_result, bottleneck_values
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex
from discrepancy.transport.exact.inputs import check_solver
from discrepancy.transport.exact.optimal_transport import OptimalTransport
from discrepancy.transport.line import line_cost
from discrepancy.transport.pooled_line import PooledLines


def check_order(p: float) -> float:
    """The order of a Wasserstein distance: a number p >= 1, infinity included, or ValueError."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not p >= 1:
        raise ValueError(f"p must be a number of at least 1 (math.inf is allowed), got {p!r}")
    return p


@dataclass(frozen=True)
class Wasserstein(Discrepancy):
    """The metric W_p between weighted samples: W_p^p = min_P sum_ij P_ij |x_i - y_j|^p over couplings P, with |.| the Euclidean
    norm; W_inf is the smallest distance that some coupling does not exceed.

    x (..., n, d), y (..., m, d); sizes and weights may differ. In units of x, exact, and a metric: W_1 between the lines'
    distribution functions is the area between them. As a plug-in estimate of the distance between the laws it is biased upward:
    at equality by O(n^(-1/2)) for d = 1 (p = 1), by O(n^(-1/d)) for d > 2p, which no sample cures in high dimension
    (`SlicedWasserstein` and `SinkhornDivergence` do not suffer so).
    On the line the samples are sorted: n log n time, linear memory, any device. In more dimensions the `solver` finds the plan on
    the CPU (see `OptimalTransport`, also for gradients); for p = inf a bisection over the distances, whose n x m matrix must fit
    the solver's memory. Gradients in points and weights: at a tie on the line the midpoint of the subdifferential, at W_p = 0
    zero, W_inf moves with one pair of points that attains it. `.solve` has the plan, the potentials of W_p^p, and the gap.
    Source: Vallender (1974); Peyre and Cuturi (2019), sections 2.4 and 2.6.
    """

    p: float = 1
    solver: ExactSolver = field(default_factory=NetworkSimplex, repr=False)
    claims: ClassVar[Claims] = Claims(metric=True, degree=1.0, norm_power=1)
    references: ClassVar[tuple[str, ...]] = ("vallender-1974", "peyre-cuturi-2019", "bonneel-2011")

    def __post_init__(self) -> None:
        """Raise ValueError unless p >= 1; W_p is a norm of the difference of the measures for p = 1 only."""
        check_order(self.p)
        check_solver(self.solver)
        object.__setattr__(self, "claims", Claims(metric=True, degree=1.0, norm_power=1 if self.p == 1 else None))

    @property
    def transport(self) -> OptimalTransport:
        """The problem whose p-th root this is; ValueError for p = inf, which is none."""
        if math.isinf(self.p):
            raise ValueError("W_inf is no root of a transport cost: its plan minimises the largest distance, not a mean")
        cost: Cost = Euclidean() if self.p == 1 else SquaredEuclidean() if self.p == 2 else PowerCost(float(self.p))
        return OptimalTransport(cost, self.solver)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """W_p over the batch."""
        if pair.x.shape[-1] == 1:
            u, v = (t.squeeze(-1).reshape(-1, t.shape[-2]) for t in (pair.x, pair.y))
            a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
            cost = line_cost(u, v, a, b, self.p, equal_a=pair.uniform_a, equal_b=pair.uniform_b)
            return root(cost, self.p).to(pair.x.dtype).reshape(pair.batch)
        if math.isinf(self.p):
            return bottleneck_values(pair, self.solver)
        scale = _scale(pair.x, pair.y)
        unit = replace(pair, x=pair.x.double() / scale, y=pair.y.double() / scale)
        return (scale * root(self.transport._costs(unit), self.p)).to(pair.x.dtype).reshape(pair.batch)

    def solve(
        self,
        x: Any,
        y: Any,
        a: Any = None,
        b: Any = None,
        *,
        generator: torch.Generator | None = None,
        start: TransportResult | None = None,
    ) -> TransportResult:
        """W_p as `value` (differentiable), W_p^p as `cost`, with the plan and, in units of W_p^p, potentials and gap.

        For p = inf there are no potentials: `value` and `cost` are the distance, whose optimality is proved by the bisection.
        start: an earlier result for samples of the same sizes. Raises NumericalError where |x - y|^p leaves the range of float64.
        """
        if math.isinf(self.p):
            return bottleneck_result(self._checked(x, y, a, b), self.solver)
        pair = self._checked(x, y, a, b)
        extent = _scale(pair.x, pair.y)
        if abs(self.p * math.log10(extent)) > 280:
            raise NumericalError(
                f"|x - y|^{self.p:g} of samples of extent {extent:.3g} leaves the range of float64: rescale "
                "them, or call the object itself, which rescales them"
            )
        found = self.transport.solve(pair.x, pair.y, a, b, start=start)
        return replace(found, value=root(found.value, self.p))  # type: ignore[arg-type]

    def solve_cost(self, C: Any, a: Any = None, b: Any = None, *, start: TransportResult | None = None) -> TransportResult:
        """The same for a matrix C (..., n, m) of |x_i - y_j|^p (of distances for p = inf); the value is the root of the cost.

        +inf forbids a pair. Raises as `OptimalTransport.solve_cost` does, and ValueError for negative entries.
        """
        if math.isinf(self.p):
            return bottleneck_cost_result(C, a, b, self.solver)
        matrix = as_tensor(C, "C")
        if bool((matrix.detach() < 0).any()):
            raise ValueError(f"C must hold powers of distances, which are not negative, got {float(matrix.detach().min()):.6g}")
        found = self.transport.solve_cost(matrix, a, b, start=start)
        return replace(found, value=root(found.value, self.p))  # type: ignore[arg-type]

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One sort of z on the line, else its cost matrix once and a problem for each pair of weight rows.

        For p = 1 rows may be signed.
        """
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        if cloud.shape[-1] == 1:
            lines = PooledLines(cloud.mT, self.p)
            return torch.no_grad()(lambda A, B: root(lines(A, B)[:, 0], self.p).to(cloud.dtype))
        if math.isinf(self.p):
            return super().pooled(cloud)
        scale = _scale(cloud, cloud)
        plans = self.transport.pooled_costs(cloud.double() / scale)
        return torch.no_grad()(lambda A, B: (scale * root(plans(A, B), self.p)).to(cloud.dtype))


def _scale(x: Tensor, y: Tensor) -> float:
    """A power of two near the extent of both samples, so that powers of distances stay in range and scaling loses no bit."""
    low = min(float(t.detach().min()) for t in (x, y))
    high = max(float(t.detach().max()) for t in (x, y))
    extent = high - low
    return 2.0 ** math.floor(math.log2(extent)) if 0 < extent < math.inf else 1.0


__all__ = ["Wasserstein", "check_order"]
