"""Skewed f-divergences: one argument is mixed into the other, which keeps every value finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import fraction
from discrepancy.divergences.cone import require_f_divergence
from discrepancy.divergences.f_divergence import FDivergence, Limits


@dataclass(frozen=True)
class SkewedDivergence(FDivergence):
    """D_f(P || w P + (1 - w) Q), 0 < w < 1: with m = w t + 1 - w its generator is m f(t / m).

    Finite even where Q misses mass of P. Raises ValueError for w outside (0, 1).
    """

    base: FDivergence
    weight: float

    references = ("lee-1999",)

    def __post_init__(self) -> None:
        require_f_divergence(self.base)
        object.__setattr__(self, "weight", fraction(self.weight, "weight"))

    def __repr__(self) -> str:
        return f"{self.base!r}.skewed({self.weight:g})"

    def _limits(self) -> Limits:
        f, w = self.base, self.weight
        slope = f.slope_at_zero + w * f.at_zero if math.isfinite(f.slope_at_zero) else -math.inf
        return Limits((1 - w) * f.at_zero, slope, w * self._base_at_top()[0], f.smooth)

    def _base_at_top(self) -> tuple[float, float]:
        top = torch.tensor(1 / self.weight, dtype=torch.float64)
        return float(self.base.generator(top)), float(self.base.derivative(top))

    def _mixed(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log m - log q, log m - log p and log(p/m) at p/q = e^u, each with bounded exponentials."""
        left = u <= 0
        zero = torch.zeros_like(u)
        over_q = torch.log1p(self.weight * torch.expm1(torch.where(left, u, zero)))
        over_p = torch.log1p((1 - self.weight) * torch.expm1(torch.where(left, zero, -u)))
        return (
            torch.where(left, over_q, over_p + u),
            torch.where(left, over_q - u, over_p),
            torch.where(left, u - over_q, -over_p),
        )

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        over_q, over_p, log_s = self._mixed(log_t)
        log_m = torch.where(log_t <= 0, log_q + over_q, log_p + over_p)
        return self.base._perspective(log_p, log_m, log_s)

    def _derivative(self, u: Tensor) -> Tensor:
        log_m, _, log_s = self._mixed(u)
        value = self.base._perspective(log_s, torch.zeros_like(u), log_s)
        return self.weight * value + (1 - self.weight) * torch.exp(-log_m) * self.base._derivative(log_s)

    def _curvature(self, u: Tensor) -> Tensor:
        log_m, _, log_s = self._mixed(u)
        return (1 - self.weight) ** 2 * torch.exp(-3 * log_m) * self.base._curvature(log_s)

    def _conjugate_at_limit(self) -> float:
        value, slope = self._base_at_top()
        return (1 - self.weight) * (slope / self.weight - value)

    def reversed(self) -> FDivergence:
        """D_f(Q || w Q + (1 - w) P) = D_g((1 - w) P + w Q || Q) for the reversed generator g."""
        return SmoothedDivergence(self.base.reversed(), self.weight)


@dataclass(frozen=True)
class SmoothedDivergence(FDivergence):
    """D_g((1 - w) P + w Q || Q), 0 < w < 1, with generator g((1 - w) t + w): what a skewed divergence becomes when reversed."""

    base: FDivergence
    weight: float

    def __post_init__(self) -> None:
        require_f_divergence(self.base)
        object.__setattr__(self, "weight", fraction(self.weight, "weight"))

    def __repr__(self) -> str:
        return f"{self.base.reversed()!r}.skewed({self.weight:g}).reversed()"

    def _limits(self) -> Limits:
        g, w = self.base, self.weight
        floor = torch.tensor(w, dtype=torch.float64)
        slope = (1 - w) * float(g.derivative(floor))
        return Limits(float(g.generator(floor)), slope, (1 - w) * g.slope_at_infinity, g.smooth)

    def _mixed(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log m - log q and log m - log p for m = (1 - w) p + w q at p/q = e^u."""
        left = u <= 0
        zero = torch.zeros_like(u)
        over_q = torch.log1p((1 - self.weight) * torch.expm1(torch.where(left, u, zero)))
        over_p = torch.log1p(self.weight * torch.expm1(torch.where(left, zero, -u)))
        return torch.where(left, over_q, over_p + u), torch.where(left, over_q - u, over_p)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        over_q, over_p = self._mixed(log_t)
        log_m = torch.where(log_t <= 0, log_q + over_q, log_p + over_p)
        return self.base._perspective(log_m, log_q, over_q)

    def _derivative(self, u: Tensor) -> Tensor:
        return (1 - self.weight) * self.base._derivative(self._mixed(u)[0])

    def _curvature(self, u: Tensor) -> Tensor:
        return (1 - self.weight) ** 2 * self.base._curvature(self._mixed(u)[0])

    def _conjugate(self, s: Tensor) -> Tensor:
        r = s / (1 - self.weight)
        return self.base._conjugate(r) - self.weight * r

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        log_m = self.base._inverse_derivative(s / (1 - self.weight))
        # t = (m - w) / (1 - w), relative to m on the right of one and to one on the left.
        right = log_m > 0
        zero = torch.zeros_like(log_m)
        above = torch.log1p(-self.weight / (1 - self.weight) * torch.expm1(torch.where(right, -log_m, zero)))
        below = torch.log1p(torch.expm1(torch.where(right, zero, log_m)) / (1 - self.weight))
        return torch.where(right, log_m + above, below)

    def _conjugate_at_limit(self) -> float:
        return self.base._conjugate_at_limit() - self.weight * self.base.slope_at_infinity

    def reversed(self) -> FDivergence:
        """The skewed divergence that this is the reversal of."""
        return SkewedDivergence(self.base.reversed(), self.weight)


__all__ = ["SkewedDivergence", "SmoothedDivergence"]
