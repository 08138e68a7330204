"""The power family: Alpha(a) for every real a, and the members that have names of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.divergences.elementary import entropy_excess, exp_excess
from discrepancy.divergences.f_divergence import FDivergence, Limits, halves, mirrored


def _alpha_below(a: float, log_w: Tensor, u: Tensor) -> Tensor:
    """w f_a(e^u) for u <= 0, smooth in a through 0 and 1, where the printed form is 0/0."""
    w, b = torch.exp(log_w), a - 1.0
    slope = b if a >= 0.5 else a
    near = (slope * u).abs() <= 1
    v = torch.where(near, u, torch.zeros_like(u))
    if a >= 0.5:
        # t^a = t e^(b u) gives f_a = (f_1 + t (e^(b u) - 1 - b u) / b) / a.
        if b == 0:
            return w * entropy_excess(u)
        close = torch.exp(v) * exp_excess(b * v)
        far = torch.exp(a * u) - torch.exp(u) * (1 + b * u)
        return w * (entropy_excess(u) + torch.where(near, close, far) / b) / a
    if a == 0:
        return w * exp_excess(u)
    # f_a = (f_0 - (e^(a u) - 1 - a u) / a) / (1 - a); far out the linear terms cancel exactly and are left out.
    close = w * (exp_excess(u) - exp_excess(a * v) / a)
    beyond = torch.where(near, torch.zeros_like(u), a * u)
    if a > 0:
        far = w * (torch.expm1(u) + 1 / a - torch.exp(beyond) / a)
    else:  # one exponent for w t^a, which may be moderate where t^a overflows
        far = torch.exp(log_w + beyond) * ((torch.expm1(u) + 1 / a) * torch.exp(-beyond) - 1 / a)
    return torch.where(near, close, far) / (1 - a)


@dataclass(frozen=True)
class Alpha(FDivergence):
    """The power divergence, f(t) = (t^a - a t + a - 1) / (a (a - 1)), for any real a.

    a = 1 is KL and a = 0 ReverseKL, exactly; Alpha(2) = ChiSquared / 2, Alpha(1/2) = 4 SquaredHellinger,
    Alpha(-1) = NeymanChiSquared / 2. Large a covers the mass of P, small a seeks its modes.
    Raises ValueError for a that is not finite.
    """

    a: float = 0.5

    references = ("cressie-read-1984", "amari-2009")

    def __post_init__(self) -> None:
        if isinstance(self.a, bool) or not isinstance(self.a, int | float) or not math.isfinite(self.a):
            raise ValueError(f"a must be a finite number, got {self.a!r}")

    def _limits(self) -> Limits:
        a = self.a
        return Limits(1 / a if a > 0 else math.inf, 1 / (1 - a) if a > 1 else -math.inf, 1 / (1 - a) if a < 1 else math.inf)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        a = float(self.a)
        return halves(lambda w, u: _alpha_below(a, w, u), lambda w, u: _alpha_below(1 - a, w, u), log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        b = self.a - 1
        return torch.expm1(b * u) / b if b else u

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp((self.a - 2) * u)

    def _conjugate(self, s: Tensor) -> Tensor:
        u = self._inverse_derivative(s)
        return torch.expm1(self.a * u) / self.a if self.a else u

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        b = self.a - 1
        return torch.log1p(b * s) / b if b else s

    def _conjugate_at_limit(self) -> float:
        return -1 / self.a if self.a < 0 else math.inf

    def powers(self) -> Mapping[float, float]:
        """Itself."""
        return {float(self.a): 1.0}

    def reversed(self) -> FDivergence:
        """Alpha(1 - a)."""
        return Alpha(1 - self.a)


def _hellinger_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * torch.expm1(u / 2) ** 2 / 2


@dataclass(frozen=True)
class SquaredHellinger(FDivergence):
    """1 - E_Q sqrt(dP/dQ), f(t) = (1 - sqrt t)^2 / 2: symmetric, in [0, 1], one minus the Bhattacharyya coefficient."""

    references = ("hellinger-1909",)

    def _limits(self) -> Limits:
        return Limits(0.5, -math.inf, 0.5)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return mirrored(_hellinger_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return -torch.expm1(-u / 2) / 2

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp(-1.5 * u) / 4

    def _conjugate(self, s: Tensor) -> Tensor:
        return s / (1 - 2 * s)

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return -2 * torch.log1p(-2 * s)

    def powers(self) -> Mapping[float, float]:
        """SquaredHellinger is Alpha(1/2) / 4."""
        return {0.5: 0.25}

    def reversed(self) -> FDivergence:
        """Itself."""
        return self


def _chi_squared_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * torch.expm1(u) ** 2


def _neyman_below(log_w: Tensor, u: Tensor) -> Tensor:
    # One exponent for w / t, which may be moderate where 1/t overflows.
    return torch.exp(log_w - u) * torch.expm1(u) ** 2


@dataclass(frozen=True)
class ChiSquared(FDivergence):
    """Pearson's E_Q[(dP/dQ - 1)^2], f(t) = (t - 1)^2: the variance of the density ratio."""

    references = ("pearson-1900",)

    def _limits(self) -> Limits:
        return Limits(1.0, -2.0, math.inf)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return halves(_chi_squared_below, _neyman_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return 2 * torch.expm1(u)

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.full_like(u, 2.0)

    def _conjugate(self, s: Tensor) -> Tensor:
        return s + s * s / 4

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return torch.log1p(s / 2)

    def powers(self) -> Mapping[float, float]:
        """ChiSquared is 2 Alpha(2)."""
        return {2.0: 2.0}

    def reversed(self) -> FDivergence:
        """NeymanChiSquared."""
        return NeymanChiSquared()


@dataclass(frozen=True)
class NeymanChiSquared(FDivergence):
    """Neyman's E_Q[(dP/dQ - 1)^2 dQ/dP], f(t) = (t - 1)^2 / t: Pearson's with the arguments exchanged."""

    references = ("neyman-1949",)

    def _limits(self) -> Limits:
        return Limits(math.inf, -math.inf, 1.0)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return halves(_neyman_below, _chi_squared_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return -torch.expm1(-2 * u)

    def _curvature(self, u: Tensor) -> Tensor:
        return 2 * torch.exp(-3 * u)

    def _conjugate(self, s: Tensor) -> Tensor:
        return 2 * s / (1 + torch.sqrt(1 - s))

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return -torch.log1p(-s) / 2

    def _conjugate_at_limit(self) -> float:
        return 2.0

    def powers(self) -> Mapping[float, float]:
        """NeymanChiSquared is 2 Alpha(-1)."""
        return {-1.0: 2.0}

    def reversed(self) -> FDivergence:
        """ChiSquared."""
        return ChiSquared()


__all__ = ["Alpha", "ChiSquared", "NeymanChiSquared", "SquaredHellinger"]
