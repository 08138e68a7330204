"""Divergences to the midpoint (P + Q) / 2: Jensen-Shannon and Le Cam. Both are symmetric and bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.divergences.f_divergence import FDivergence, Limits, mirrored

_LOG2 = math.log(2.0)


def _jensen_shannon_below(log_w: Tensor, u: Tensor) -> Tensor:
    near = u > -1
    zero = torch.zeros_like(u)
    v = torch.where(near, u, zero)
    # With r = (t - 1)/(t + 1) = tanh(u/2): f = (1 + t)/4 * (r u + log(1 - r^2)), both of order u^2 and of ratio -2.
    r = torch.tanh(v / 2)
    close = (1 + torch.exp(v)) / 4 * (r * v + torch.log1p(-r * r))
    t = torch.exp(u)
    far = (t * u - (1 + t) * (torch.log1p(t) - _LOG2)) / 2
    return torch.exp(log_w) * torch.where(near, close, far)


@dataclass(frozen=True)
class JensenShannon(FDivergence):
    """(KL(P || M) + KL(Q || M)) / 2 with M = (P + Q)/2, f(t) = (t log t - (1 + t) log((1 + t)/2)) / 2: at most log 2 nats.

    Its square root is a metric.
    """

    references = ("lin-1991",)

    def _limits(self) -> Limits:
        return Limits(_LOG2 / 2, -math.inf, _LOG2 / 2)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return mirrored(_jensen_shannon_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        near = u.abs() < 1
        close = torch.log1p(torch.tanh(torch.where(near, u, torch.zeros_like(u)) / 2))
        far = _LOG2 - torch.logaddexp(torch.zeros_like(u), -u)
        return torch.where(near, close, far) / 2

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp(-u) * torch.sigmoid(-u) / 2

    def _conjugate(self, s: Tensor) -> Tensor:
        return -torch.log1p(-torch.expm1(2 * s)) / 2

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return 2 * s - torch.log1p(-torch.expm1(2 * s))

    def reversed(self) -> FDivergence:
        """Itself."""
        return self


def _le_cam_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * torch.expm1(u) ** 2 / (2 * (1 + torch.exp(u)))


@dataclass(frozen=True)
class LeCam(FDivergence):
    """Triangular discrimination, f(t) = (t - 1)^2 / (2 (t + 1)): symmetric, at most 1."""

    references = ("le-cam-1986",)

    def _limits(self) -> Limits:
        return Limits(0.5, -1.5, 0.5)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return mirrored(_le_cam_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        r = torch.tanh(u / 2)
        return r * (2 - r) / 2

    def _curvature(self, u: Tensor) -> Tensor:
        return 4 * torch.sigmoid(-u) ** 3

    def _conjugate(self, s: Tensor) -> Tensor:
        r = torch.sqrt(1 - 2 * s)
        return s * (3 - r) / (1 + r)

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        # t = 2/r - 1 with r = sqrt(1 - 2 s), written so that it is exact near s = 0, where t = 1.
        r = torch.sqrt(1 - 2 * s)
        return torch.log1p(4 * s / (r * (1 + r)))

    def _conjugate_at_limit(self) -> float:
        return 1.5

    def reversed(self) -> FDivergence:
        """Itself."""
        return self


__all__ = ["JensenShannon", "LeCam"]
