"""The von Mises-Fisher law on the unit sphere, with reparameterised draws: directions that gather around one of them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from discrepancy._validate import generator_or_default

_LARGEST = 1e150  # concentration whose square is a number; draws are the axis itself long before
_NODES = 192
_WIDTHS = 20.0  # of the Laplace approximation, on either side of the peak; the rest weighs less than rounding


class _UnitSphere(constraints.Constraint):
    """Vectors of length one, within the rounding of their precision."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector has length one."""
        tolerance = 1e-8 if value.dtype == torch.float64 else 1e-4
        return (torch.linalg.vector_norm(value, dim=-1) - 1).abs() <= tolerance


unit_sphere = _UnitSphere()


@cache
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _polar_law(concentration: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """log Z and E[1 - cos phi] for the polar angle, whose density is exp(kappa (cos phi - 1)) sin(phi)^(d-2) / Z on [0, pi].

    Gauss-Legendre quadrature where the integrand has its mass; right to rounding for every kappa and d, with no Bessel
    function that over- or underflows. The window is held fixed in the derivative, which it hardly changes.
    """
    kappa = concentration.double()
    k = kappa.detach()
    s = d - 2.0
    cosine = torch.where(k > 0, 2 * k / (s + (s * s + 4 * k * k).sqrt()), torch.zeros_like(k))
    peak = torch.acos(cosine.clamp(-1, 1)) if s > 0 else torch.zeros_like(k)
    # acos loses half the digits near 1: there the angle is the small one whose squared sine is s cos / kappa.
    if s > 0:
        peak = torch.where(cosine > 0.5, torch.asin((s * cosine / k).clamp(0, 1).sqrt()), peak)
    stiff = k * cosine + (s / peak.sin().square() if s > 0 else torch.zeros_like(k))
    width = stiff.rsqrt()
    low, high = (peak - _WIDTHS * width).clamp_min(0), (peak + _WIDTHS * width).clamp_max(math.pi)
    nodes, weights = (t.to(k.device) for t in _legendre())
    half = (high - low) / 2
    angle = low[..., None] + half[..., None] * (nodes + 1)
    fall = 2 * (angle / 2).sin().square()  # 1 - cos without cancellation
    log_mass = -kappa[..., None] * fall + s * angle.sin().log() + (half[..., None] * weights).log()
    log_normaliser = torch.logsumexp(log_mass, -1)
    return log_normaliser, (torch.exp(log_mass - log_normaliser[..., None]) * fall).sum(-1)


def mean_resultant_length(concentration: Tensor, d: int) -> Tensor:
    """A_d(kappa) = |E theta| = I_{d/2}(kappa) / I_{d/2-1}(kappa), in float64: coth(kappa) - 1/kappa for d = 3."""
    return 1 - _polar_law(concentration, d)[1]


def log_partition(concentration: Tensor, d: int) -> Tensor:
    """log of the integral of exp(kappa loc.theta) over the unit sphere of R^d, in float64, for kappa >= 0."""
    return _log_area(d - 1) + _polar_law(concentration, d)[0] + concentration.double()


def _log_area(d: int) -> float:
    """log of the area of the unit sphere of R^d."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    # The middle of a cell of the generator's grid: neither 0, whose logarithm is not finite, nor 1.
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device) + 2.0**-54


def _falls_in_space(concentration: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """1 - cos of the polar angle for d = 3, by inverting its distribution function (Ulrich, 1984)."""
    u = _uniform(shape, generator)
    # log(u + (1 - u) exp(-2 kappa)): the first form is exact for small kappa, the second for large.
    capped = concentration.clamp_max(1.0)
    small = torch.log1p((1 - u) * torch.expm1(-2 * capped))
    large = torch.logaddexp(u.log(), torch.log1p(-u) - 2 * concentration)
    return -torch.where(concentration < 1, small, large) / concentration


def _falls_by_rejection(concentration: Tensor, d: int, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """1 - cos of the polar angle for any d, by Wood's rejection (1994) from a transformed Beta variable."""
    kappa = concentration.expand(shape).reshape(-1)
    spread = (4 * kappa.square() + (d - 1) ** 2).sqrt()
    b = (d - 1) / (2 * kappa + spread)
    a = ((d - 1) + 2 * kappa + spread) / 4
    c = 4 * a * b / (1 + b) - (d - 1) * math.log(d - 1)
    falls = torch.empty_like(kappa)
    waiting = torch.arange(kappa.numel(), device=kappa.device)
    while waiting.numel():
        z = torch.randn(waiting.numel(), d, generator=generator, dtype=torch.float64, device=generator.device)
        # A coordinate of a uniform direction is Beta((d-1)/2, (d-1)/2), stretched to [-1, 1].
        e = (1 - z[:, 0] / torch.linalg.vector_norm(z, dim=-1)) / 2
        bw, aw, cw = b[waiting], a[waiting], c[waiting]
        scale = 1 / (1 - (1 - bw) * e)
        t = 2 * aw * bw * scale
        taken = (d - 1) * t.log() - t + cw > _uniform(waiting.shape, generator).log()
        falls[waiting[taken]] = (2 * bw * e * scale)[taken]
        waiting = waiting[~taken]
    return falls.reshape(shape)


def polar_draw(concentration: Tensor, d: int, shape: torch.Size, generator: torch.Generator | None = None) -> Tensor:
    """Draws (*shape, d) in float64 from the law around the first axis; `shape` ends with concentration's shape.

    For d = 3 they carry gradients in the concentration. Concentration +inf gives the axis itself.
    """
    source = generator_or_default(generator, concentration.device)
    kappa = concentration.double().to(source.device)
    finite = kappa.clamp_max(_LARGEST)
    falls = _falls_in_space(finite, shape, source) if d == 3 else _falls_by_rejection(finite, d, shape, source)
    falls = torch.where(torch.isinf(kappa), torch.zeros_like(falls), falls)
    around = torch.randn(*shape, d - 1, generator=source, dtype=torch.float64, device=source.device)
    around = around / torch.linalg.vector_norm(around, dim=-1, keepdim=True)
    radius = (falls * (2 - falls)).clamp_min(0)
    positive = radius > 0
    radius = torch.where(positive, torch.where(positive, radius, torch.ones_like(radius)).sqrt(), torch.zeros_like(radius))
    return torch.cat([1 - falls[..., None], radius[..., None] * around], -1).to(concentration.device)


def turn_from_first_axis(points: Tensor, loc: Tensor) -> Tensor:
    """The points (..., d) under an orthogonal map that sends the first axis to the unit vector loc (..., d); gradients in both.

    Where loc has a non-negative first coordinate, the half turn about the bisector of the two; otherwise the reflection
    that exchanges them: each is smooth where it is used, so that no small denominator needs an allowance.
    """
    side = torch.where(loc.detach()[..., :1] >= 0, 1.0, -1.0).to(loc.dtype)
    first = torch.zeros_like(loc)
    first[..., 0] = 1
    bisector = first + side * loc
    bisector = bisector / torch.linalg.vector_norm(bisector, dim=-1, keepdim=True)
    return side * (2 * (points * bisector).sum(-1, keepdim=True) * bisector - points)


class VonMisesFisher(Distribution):
    """The von Mises-Fisher law: density proportional to exp(kappa loc.theta) over the unit sphere of R^d, d >= 2.

    loc (..., d) of length one (within 1e-8, in float32 1e-4; then normalised exactly) and concentration kappa (...) > 0
    broadcast; kappa -> 0 is the uniform law, kappa -> infinity the point loc. `rsample` is exact (d = 3: Ulrich's inverse,
    else Wood's rejection) and carries gradients in loc, and for d = 3 in the concentration. Numbers are drawn in float64 and
    then cast: a generator's state means the same directions in either precision. Raises ValueError for d < 2, loc not of
    length one, and a concentration that is not positive and finite. Cost d a draw, times the number of tries (below two on
    average). Source: Ulrich (1984), Wood (1994).
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.positive}  # pyright: ignore
    support = unit_sphere  # pyright: ignore
    has_rsample = True
    references = ("ulrich-1984", "wood-1994")

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        """Check and broadcast the parameters."""
        if not isinstance(loc, Tensor) or not loc.is_floating_point():
            raise TypeError(f"loc must be a tensor of real numbers, got {type(loc).__name__}")
        if loc.ndim == 0 or loc.shape[-1] < 2:
            raise ValueError(
                f"loc must have at least 2 coordinates: the sphere of R^1 is two points, got shape {tuple(loc.shape)}"
            )
        kappa = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        if not bool(((kappa > 0) & torch.isfinite(kappa)).all()):
            raise ValueError(
                f"concentration must be positive and finite, got {concentration!r}: the limit 0 is directions.Uniform"
            )
        if not bool(unit_sphere.check(loc.detach()).all()):
            raise ValueError("loc must have length 1: divide it by its norm")
        batch = torch.broadcast_shapes(loc.shape[:-1], kappa.shape)
        self.loc = (loc / torch.linalg.vector_norm(loc, dim=-1, keepdim=True)).expand(*batch, loc.shape[-1])
        self.concentration = kappa.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> VonMisesFisher:
        """The same law with a larger batch shape."""
        shape = torch.Size(batch_shape)
        return VonMisesFisher(
            self.loc.expand(*shape, *self.event_shape), self.concentration.expand(shape), validate_args=self._validate_args
        )

    def rsample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws of shape (*sample_shape, ..., d) with gradients in loc, and for d = 3 in the concentration.

        Raises ValueError where gradients in the concentration are asked for and d is not 3: rejection has none.
        """
        d = self.event_shape[0]
        if self.concentration.requires_grad and torch.is_grad_enabled() and d != 3:
            raise ValueError(f"draws carry gradients in the concentration for d = 3 only, got d = {d}: detach it, or use sample")
        shape = torch.Size(sample_shape) + self.batch_shape
        around = polar_draw(self.concentration, d, shape, generator)
        return turn_from_first_axis(around, self.loc.double()).to(self.loc.dtype)

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """The draws of `rsample`, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def _log_normaliser(self) -> Tensor:
        """log of the integral of exp(kappa (loc.theta - 1)) over the sphere, in float64."""
        d = self.event_shape[0]
        return _log_area(d - 1) + _polar_law(self.concentration, d)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density at unit vectors (..., d); safe for any concentration."""
        if self._validate_args:
            self._validate_sample(value)
        # |value - loc|^2 / 2 is 1 - loc.value for unit vectors, without cancellation.
        fall = (value.double() - self.loc.double()).square().sum(-1) / 2
        return (-self.concentration.double() * fall - self._log_normaliser()).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """E theta = A_d(kappa) loc."""
        length = mean_resultant_length(self.concentration, self.event_shape[0])
        return length[..., None].to(self.loc.dtype) * self.loc

    @property
    def mode(self) -> Tensor:
        """The direction of largest density, loc."""
        return self.loc

    def entropy(self) -> Tensor:
        """-E log density, in nats."""
        log_z, fall = _polar_law(self.concentration, self.event_shape[0])
        offset = self._log_normaliser() - log_z
        return (offset + log_z + self.concentration.double() * fall).to(self.loc.dtype)


__all__ = ["VonMisesFisher", "log_partition", "mean_resultant_length", "polar_draw", "turn_from_first_axis", "unit_sphere"]
