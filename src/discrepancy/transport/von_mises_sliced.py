"""The sliced distance under the von Mises-Fisher law of directions that tells two samples apart best."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, generator_or_default, sample, whole_number
from discrepancy.directions.von_mises_fisher import polar_draw, turn_from_first_axis
from discrepancy.linalg import root
from discrepancy.transport.contrasts import contrasts
from discrepancy.transport.projections import GROUP, direction_costs
from discrepancy.transport.sphere_ascent import sphere_ascent
from discrepancy.transport.wasserstein import check_order

_CANDIDATES = 8
_SMALLEST_STEP = 1e-6  # radians: the value then is flat to about the square
Location = tuple[Any, ...]  # coordinates, nested as deep as the batch


@dataclass(frozen=True, repr=False)
class VonMisesFisherSlicedEstimate(Estimate):
    """A sliced distance under a von Mises-Fisher law, with the law's centre `location` (..., d) and the number of `directions`.

    The standard error is that of the mean over directions, at this location.
    """

    location: Tensor | None = None
    directions: int = 0


@dataclass(frozen=True)
class VonMisesFisherSliced(Discrepancy):
    """(max over unit vectors eps of E W_p^p(theta.x, theta.y))^(1/p), theta from the von Mises-Fisher law around eps.

    Between the sliced distance (concentration -> 0) and the max-sliced one (concentration -> infinity), in units of x. The
    centre eps is found by `steps` of projected stochastic ascent (Adam, `directions` new draws a step), from the best of the
    difference of the means, the axis whose variances differ most and drawn ones: a local maximum up to the noise of the ascent,
    hence a lower bound; the true maximum is a metric, this answer need not keep the triangle inequality. The ascent draws from
    `seed`, so that eps is a function of the data; the value is a mean over `directions` draws around eps from the `generator`.
    `location` fixes eps instead (`resolved` does). Gradients in points and weights hold eps fixed, which at the maximum is
    right to first order. In one dimension it is W_p, with a warning. Time (steps + 1) L (n d + n log n), memory of one group of
    projections. The paper draws anew at every step and steps by Adam; one set of draws makes eps reproducible to rounding.
    Source: Nguyen, Ho, Pham and Bui (2021), Nguyen, Nguyen and Ho (2023). Raises ValueError for options out of
    range (concentration 0 is `SlicedWasserstein`).
    """

    concentration: float = 1.0
    directions: int = 100
    p: float = 2
    steps: int = 50
    seed: int = 0
    location: Location | None = None
    claims: ClassVar[Claims] = Claims(degree=1.0, random=True)
    references: ClassVar[tuple[str, ...]] = ("nguyen-2021", "amortized-vdsw")

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options that make no sense."""
        if not (isinstance(self.concentration, int | float) and self.concentration > 0 and math.isfinite(self.concentration)):
            raise ValueError(
                f"concentration must be positive and finite, got {self.concentration!r}: 0 is SlicedWasserstein, infinity "
                "MaxSlicedWasserstein"
            )
        if math.isinf(check_order(self.p)):
            raise ValueError("p must be finite: a mean of W_p^p over directions does not exist for p = inf")
        for name in ("directions", "steps"):
            value = getattr(self, name)
            whole_number(value, 1, name)
        if not isinstance(self.seed, int):
            raise TypeError(f"seed must be a whole number, got {self.seed!r}")
        if self.location is not None and not isinstance(self.location, tuple):
            raise TypeError(f"location must be a tuple of coordinates, got {type(self.location).__name__}")

    def _around_first_axis(self, count: int, d: int, source: torch.Generator) -> Tensor:
        kappa = torch.tensor(float(self.concentration), dtype=torch.float64, device=source.device)
        return polar_draw(kappa, d, torch.Size((count,)), source)

    def _ascended(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, equal: tuple[bool, bool]) -> Tensor:
        """The centres (B, d) for samples (B, n, d), (B, m, d), without gradients."""
        source = torch.Generator(device=x.device).manual_seed(self.seed)
        d = x.shape[-1]
        drawn = torch.randn(_CANDIDATES, d, generator=source, dtype=torch.float64, device=x.device).to(x.dtype)
        drawn = drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
        starts = torch.cat([contrasts(x, y, a, b), drawn.expand(x.shape[0], -1, -1)], 1)
        rows = torch.arange(x.shape[0], device=x.device)

        def costs(theta: Tensor) -> Tensor:
            return direction_costs(x, y, a, b, theta, self.p, equal_a=equal[0], equal_b=equal[1])

        around = self._around_first_axis(self.directions, d, source).to(x.dtype)

        def evaluate(centre: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                unit = centre.detach().requires_grad_()
                value = costs(turn_from_first_axis(around, unit[:, None])).mean(-1)
                (slope,) = torch.autograd.grad(value.sum(), unit)
            return value.detach(), slope

        start = starts[rows, costs(starts).argmax(-1)]
        return sphere_ascent(evaluate, start, iterations=self.steps, smallest_step=_SMALLEST_STEP)[0]

    def _centres(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, equal: tuple[bool, bool]) -> Tensor:
        """`_ascended` on samples of any size and place, or the fixed location (B, d)."""
        size, d = x.shape[0], x.shape[-1]
        if self.location is not None:
            given = torch.tensor(self.location, dtype=x.dtype, device=x.device)
            if given.shape[-1] != d or (given.ndim > 1 and given.reshape(-1, d).shape[0] != size):
                raise ValueError(f"location has shape {tuple(given.shape)}, which does not fit {size} pair(s) in {d} dimensions")
            given = given / torch.linalg.vector_norm(given, dim=-1, keepdim=True)
            return given.reshape(-1, d).expand(size, d)
        x, y, a, b = (t.detach().double() for t in (x, y, a, b))
        return self._ascended(x, y, a, b, equal)

    def _costs(self, pair: SamplePair, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """W_p^p along draws around the centres (B, L), and the centres (B, d)."""
        d = pair.x.shape[-1]
        centre = (pair.x.detach().mean(-2, keepdim=True) + pair.y.detach().mean(-2, keepdim=True)) / 2
        x, y = ((t - centre).reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        source = generator_or_default(generator, x.device)
        if d == 1:
            warnings.warn("one dimension has a single direction: the value is the plain Wasserstein distance", stacklevel=4)
            centres, theta = x.new_ones(x.shape[0], 1), x.new_ones(1, 1)
        else:
            centres = self._centres(x, y, a, b, (pair.uniform_a, pair.uniform_b))
            around = self._around_first_axis(self.directions, d, source)
            theta = turn_from_first_axis(around, centres.double()[:, None]).to(x.dtype)
        return direction_costs(x, y, a, b, theta, self.p, equal_a=pair.uniform_a, equal_b=pair.uniform_b), centres

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The distance over the batch."""
        costs, _ = self._costs(pair, generator)
        return root(costs.mean(-1), self.p).to(pair.x.dtype).reshape(pair.batch)

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None, level: float = 0.95
    ) -> VonMisesFisherSlicedEstimate:
        """The distance with the centre it found and the Monte Carlo error of the mean over directions around that centre."""
        pair = self._checked(x, y, a, b)
        costs, centres = self._costs(pair, generator)
        mean, count = costs.mean(-1), costs.shape[-1]
        value = root(mean, self.p).to(pair.x.dtype).reshape(pair.batch)
        shared: dict[str, Any] = {
            "value": value,
            "method": repr(self),
            "location": centres.detach().to(pair.x.dtype).reshape(*pair.batch, -1),
            "directions": count,
        }
        if count < 2:
            return VonMisesFisherSlicedEstimate(**shared, note="no standard error: a single direction")
        raw, error = mean.detach(), (costs.detach().var(-1) / count).sqrt()
        z = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
        low, high = (root((raw + s * z * error).clamp_min(0), self.p).reshape(pair.batch) for s in (-1, 1))
        spread = (high - low) / (2 * z)
        return VonMisesFisherSlicedEstimate(
            **shared, standard_error=spread, low=low, high=high, level=level, note="error over directions at this location only"
        )

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> VonMisesFisherSliced:
        """The same with the centre of the law fixed at the one found for these samples."""
        if self.location is not None:
            return self
        pair = self._checked(x, y, a, b)
        if pair.x.shape[-1] == 1:
            return replace(self, location=(1.0,))
        d = pair.x.shape[-1]
        centre = (pair.x.detach().mean(-2, keepdim=True) + pair.y.detach().mean(-2, keepdim=True)) / 2
        flat_x, flat_y = ((t - centre).reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        found = self._centres(flat_x, flat_y, a, b, (pair.uniform_a, pair.uniform_b))
        return replace(self, location=_nested(found.reshape(*pair.batch, d).tolist()))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The draws around the centre are fixed once; each pair of weight rows has an ascent of its own, from the same seed."""
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        points, d = cloud - cloud.mean(0), cloud.shape[-1]
        source = generator_or_default(generator, cloud.device)
        around = cloud.new_ones(1, 1) if d == 1 else self._around_first_axis(self.directions, d, source)
        step = max(1, GROUP // (points.shape[0] * (self.directions + points.shape[1])))

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            values = []
            for start in range(0, A.shape[0], step):
                a, b = (w[start : start + step].to(cloud.dtype) for w in (A, B))
                spread = points.expand(a.shape[0], *points.shape)
                theta = around.to(cloud.dtype)
                if d > 1:
                    centres = self._centres(spread, spread, a, b, (False, False))
                    theta = turn_from_first_axis(around, centres.double()[:, None]).to(cloud.dtype)
                values.append(direction_costs(spread, spread, a, b, theta, self.p).mean(-1))
            return root(torch.cat(values), self.p).to(cloud.dtype)

        return torch.no_grad()(statistic)


def _nested(values: Any) -> Any:
    return tuple(_nested(v) for v in values) if isinstance(values, list) else values


__all__ = ["VonMisesFisherSliced", "VonMisesFisherSlicedEstimate"]
