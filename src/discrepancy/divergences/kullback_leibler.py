"""Kullback-Leibler divergence, its reversal and their sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.divergences.elementary import entropy_excess, exp_excess, wright_omega
from discrepancy.divergences.f_divergence import FDivergence, Limits, halves, mirrored


def _kl_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * entropy_excess(u)


def _reverse_kl_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * exp_excess(u)


@dataclass(frozen=True)
class KL(FDivergence):
    """KL(P || Q) = E_P[log dP/dQ], f(t) = t log t - t + 1: Q must cover what P has. In nats."""

    references = ("kullback-leibler-1951",)

    def _limits(self) -> Limits:
        return Limits(1.0, -math.inf, math.inf)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return halves(_kl_below, _reverse_kl_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return u

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp(-u)

    def _conjugate(self, s: Tensor) -> Tensor:
        return torch.expm1(s)

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return s

    def powers(self) -> Mapping[float, float]:
        """KL is Alpha(1)."""
        return {1.0: 1.0}

    def reversed(self) -> FDivergence:
        """ReverseKL."""
        return ReverseKL()


@dataclass(frozen=True)
class ReverseKL(FDivergence):
    """KL(Q || P) = E_Q[log dQ/dP], f(t) = t - 1 - log t: Q seeks the modes of P. In nats."""

    references = ("kullback-leibler-1951",)

    def _limits(self) -> Limits:
        return Limits(math.inf, -math.inf, 1.0)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return halves(_reverse_kl_below, _kl_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return -torch.expm1(-u)

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp(-2 * u)

    def _conjugate(self, s: Tensor) -> Tensor:
        return -torch.log1p(-s)

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return -torch.log1p(-s)

    def _with_linear(self, u: Tensor, linear: float) -> Tensor:
        # t - 1 - log t + c (t - 1) with c = -1 is -log t, where both parts may overflow.
        return -u if linear == -1.0 else super()._with_linear(u, linear)

    def powers(self) -> Mapping[float, float]:
        """ReverseKL is Alpha(0)."""
        return {0.0: 1.0}

    def reversed(self) -> FDivergence:
        """KL."""
        return KL()


def _jeffreys_below(log_w: Tensor, u: Tensor) -> Tensor:
    return torch.exp(log_w) * u * torch.expm1(u)


@dataclass(frozen=True)
class Jeffreys(FDivergence):
    """KL(P || Q) + KL(Q || P), f(t) = (t - 1) log t: symmetric, infinite unless the supports are equal."""

    references = ("jeffreys-1946",)

    def _limits(self) -> Limits:
        return Limits(math.inf, -math.inf, math.inf)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return mirrored(_jeffreys_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return u - torch.expm1(-u)

    def _curvature(self, u: Tensor) -> Tensor:
        return torch.exp(-u) + torch.exp(-2 * u)

    def _conjugate(self, s: Tensor) -> Tensor:
        u = self._inverse_derivative(s)
        return torch.expm1(u) + u

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        # With w = 1/t, f'(t) = s reads w + log w = 1 - s, hence log t = -log w = w - 1 + s.
        w = wright_omega(1 - s)
        return torch.where(w > 0.5, -torch.log(w), w - 1 + s)

    def powers(self) -> Mapping[float, float]:
        """Jeffreys is Alpha(0) + Alpha(1)."""
        return {0.0: 1.0, 1.0: 1.0}

    def reversed(self) -> FDivergence:
        """Itself."""
        return self


__all__ = ["KL", "Jeffreys", "ReverseKL"]
