"""The sliced Wasserstein distance: one-dimensional transport, averaged over directions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate, Number
from discrepancy._validate import SamplePair, sample
from discrepancy.control_variates import control_variate_mean, control_variate_value
from discrepancy.directions import Directions, Uniform
from discrepancy.linalg import root
from discrepancy.transport.pooled_line import PooledLines
from discrepancy.transport.projections import GROUP, direction_costs
from discrepancy.transport.sliced_controls import Controls, ControlVariate
from discrepancy.transport.wasserstein import check_order


@dataclass(frozen=True, repr=False)
class SlicedEstimate(Estimate):
    """A sliced distance with its Monte Carlo error over directions.

    `raw` is the mean of W_p^p over directions before clamping at zero and taking the root (with control variates it can be
    slightly negative), `raw_error` its standard error, `directions` their number; with control variates `gamma` holds the
    coefficients, `plain` the uncorrected mean of W_p^p, and `variance_ratio` the estimated variance after over before.
    """

    raw: Number = 0.0
    raw_error: Number | None = None
    directions: int = 0
    gamma: Tensor | None = None
    plain: Number | None = None
    variance_ratio: Number | None = None


@dataclass(frozen=True)
class SlicedWasserstein(Discrepancy):
    """The sliced Wasserstein distance SW_p = (E_theta W_p^p(theta.x, theta.y))^(1/p), theta uniform on the unit sphere.

    Estimated by the mean over `directions`; a distance in units of x for any fixed set of directions. The mean of W_p^p is
    unbiased over directions (its root is biased downward by O(1/L)); with a `control_variate` its variance falls, by a
    factor of 100 where the means differ, at a bias of O(1/L) unless cross-fitted, and a mean below zero is clamped at zero
    (for the root only: `.solve` has it as `raw`). In one dimension it is W_p itself.

    Time L (n d + n log n), gradients included; memory that of the samples and of one group of projections, never n x L.
    Raises ValueError for too few directions for the control variate (3 for a single one, 5 for BothBounds).
    Source: Rabin et al. (2011), Bonneel et al. (2015); control variates: Nguyen and Ho (2024).
    """

    p: float = 2
    directions: Directions = field(default_factory=Uniform)
    control_variate: ControlVariate | None = None
    claims: ClassVar[Claims] = Claims(metric=True, degree=1.0, random=True)
    references: ClassVar[tuple[str, ...]] = ("rabin-2011", "bonneel-2015", "nguyen-ho-2024")

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options that make no sense."""
        if math.isinf(check_order(self.p)):
            raise ValueError("p must be finite: a mean of W_p^p over directions does not exist for p = inf")
        if not isinstance(self.directions, Directions):
            raise TypeError(f"directions must be an object such as Uniform(100), got {self.directions!r}")
        if self.control_variate is not None and not isinstance(self.control_variate, ControlVariate):
            raise TypeError(
                f"control_variate must be LowerBound(), UpperBound(), BothBounds() or None, got {self.control_variate!r}"
            )
        plain = self.control_variate is None
        claims = Claims(metric=plain, degree=1.0, norm_power=1 if self.p == 1 and plain else None, random=True)
        object.__setattr__(self, "claims", claims)

    def _directions(self, d: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        if d == 1:  # both directions see the same
            return torch.ones(1, 1, dtype=like.dtype, device=like.device)
        return self.directions.draw(d, generator, like.dtype, like.device)

    def _costs(self, pair: SamplePair, theta: Tensor) -> Tensor:
        """W_p^p at each direction, (..., L) in float64."""
        d = pair.x.shape[-1]
        # Transport does not see a common shift, single precision does.
        centre = (pair.x.detach().mean(-2, keepdim=True) + pair.y.detach().mean(-2, keepdim=True)) / 2
        x, y = ((t - centre).reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        costs = direction_costs(x, y, a, b, theta, self.p, equal_a=pair.uniform_a, equal_b=pair.uniform_b)
        return costs.reshape(*pair.batch, -1)

    def _controls(self, pair: SamplePair, theta: Tensor) -> Controls | None:
        if self.control_variate is None or theta.shape[-1] == 1:
            return None
        controls = self.control_variate.evaluate(theta, pair)
        return Controls(controls.values.double(), controls.means.double())

    def _mean(self, costs: Tensor, controls: Controls | None) -> Tensor:
        """The mean of W_p^p over the directions (...), by the control variate if there is one."""
        cv = self.control_variate
        if cv is None or controls is None:
            return costs.mean(-1)
        return control_variate_value(costs, *controls, detach_gamma=cv.detach_gamma, cross_fit=cv.cross_fit)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """SW_p over the batch."""
        theta = self._directions(pair.x.shape[-1], generator, pair.x)
        mean = self._mean(self._costs(pair, theta), self._controls(pair, theta))
        return root(mean.clamp_min(0), self.p).to(pair.x.dtype)

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None, level: float = 0.95
    ) -> SlicedEstimate:
        """The distance with the standard error and interval of its Monte Carlo mean over directions.

        The error is that of the directions, the samples held fixed. It needs independent directions: for others it is None and
        the note says so.
        """
        pair = self._checked(x, y, a, b)
        theta = self._directions(pair.x.shape[-1], generator, pair.x)
        count = theta.shape[0]
        costs, controls, cv = self._costs(pair, theta), self._controls(pair, theta), self.control_variate
        found = None
        if cv is not None and controls is not None:
            found = control_variate_mean(costs, *controls, detach_gamma=cv.detach_gamma, cross_fit=cv.cross_fit)
        mean, costs = costs.mean(-1) if found is None else found.value, costs.detach()
        value = root(mean.clamp_min(0), self.p).to(pair.x.dtype)
        shared: dict[str, Any] = {"value": value, "method": f"{self!r}", "raw": mean.detach(), "directions": count}
        if found is not None:
            shared |= {"gamma": found.gamma, "plain": found.plain.detach(), "variance_ratio": found.ratio}
        if theta.shape[-1] == 1:
            return SlicedEstimate(
                **shared, standard_error=0.0, raw_error=0.0, note="one dimension: no directions to average over"
            )
        if not self.directions.independent:
            return SlicedEstimate(
                **shared, note="no standard error: these directions are not independent; repeat with other draws"
            )
        if count < 2:
            return SlicedEstimate(**shared, note="no standard error: a single direction")
        error = (costs.var(-1) / count if found is None else found.variance).sqrt()
        z = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
        raw = mean.detach()
        low, high = (root((raw + s * z * error).clamp_min(0), self.p) for s in (-1, 1))
        slope = self.p * value.detach().double() ** (self.p - 1)
        # By the delta method; where the root has no slope, half the width of the interval.
        spread = torch.where(slope > 0, error / torch.where(slope > 0, slope, torch.ones_like(slope)), (high - low) / (2 * z))
        return SlicedEstimate(
            **shared, standard_error=spread, low=low, high=high, level=level, raw_error=error, note="error over directions only"
        )

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One draw of directions and one sort each; a pair of weight rows then costs one pass a direction. p = 1: signed rows
        too."""
        cloud = sample(z, "z")
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        cloud = cloud.detach()
        theta = self._directions(cloud.shape[-1], generator, cloud)
        lines = PooledLines(torch.matmul(theta, (cloud - cloud.mean(0)).mT), self.p)
        step = max(1, GROUP // cloud.numel())

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            costs = lines(A, B)
            if self.control_variate is None or theta.shape[-1] == 1:
                mean = costs.mean(-1)
            else:
                parts = []
                for start in range(0, costs.shape[0], step):
                    rows = slice(start, start + step)
                    a, b = A[rows].to(cloud.dtype), B[rows].to(cloud.dtype)
                    spread = cloud.expand(a.shape[0], *cloud.shape)
                    controls = self._controls(SamplePair(spread, spread, a, b, False, False), theta)
                    parts.append(self._mean(costs[rows], controls))
                mean = torch.cat(parts)
            return root(mean.clamp_min(0), self.p).to(cloud.dtype)

        return torch.no_grad()(statistic)


__all__ = ["SlicedEstimate", "SlicedWasserstein"]
