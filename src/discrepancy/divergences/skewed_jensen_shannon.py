"""Jensen-Shannon with unequal shares: the generalised Jensen-Shannon divergence of two laws, an f-divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import fraction
from discrepancy.divergences.f_divergence import FDivergence, Limits
from discrepancy.divergences.kullback_leibler import KL


@dataclass(frozen=True)
class SkewedJensenShannon(FDivergence):
    """w KL(P || M) + (1 - w) KL(Q || M) with M = w P + (1 - w) Q, 0 < w < 1: at most the entropy of (w, 1 - w) nats.

    f(t) = w t log t - m log m with m = w t + 1 - w. JensenShannon at w = 1/2. Generalised knowledge distillation calls it
    JSD(beta) with beta = w on the teacher. Over w (1 - w) it tends to KL as w -> 0 and to ReverseKL as w -> 1.
    Raises ValueError for w outside (0, 1).
    """

    weight: float = 0.5

    references = ("lin-1991",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", fraction(self.weight, "weight"))

    def _limits(self) -> Limits:
        w = self.weight
        return Limits(-(1 - w) * math.log1p(-w), -math.inf, -w * math.log(w))

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        w = self.weight
        left = KL().skewed(w)._perspective(log_p, log_q, log_t)
        right = KL().skewed(1 - w)._perspective(log_q, log_p, -log_t)
        return w * left + (1 - w) * right

    def _log_over_mixture(self, u: Tensor) -> Tensor:
        """log(t / m), with bounded exponentials and exact next to t = 1."""
        left, zero = u <= 0, torch.zeros_like(u)
        below = torch.where(left, u, zero)
        at_most_one = below - torch.log1p(self.weight * torch.expm1(below))
        above = -torch.log1p((1 - self.weight) * torch.expm1(torch.where(left, zero, -u)))
        return torch.where(left, at_most_one, above)

    def _derivative(self, u: Tensor) -> Tensor:
        return self.weight * self._log_over_mixture(u)

    def _curvature(self, u: Tensor) -> Tensor:
        # f'' = w (1 - w) / (t m).
        w = self.weight
        return w * (1 - w) * torch.exp(self._log_over_mixture(u) - 2 * u)

    def _conjugate(self, s: Tensor) -> Tensor:
        w = self.weight
        return -(1 - w) * torch.log1p(-w * torch.expm1(s / w) / (1 - w))

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        w = self.weight
        return s / w - torch.log1p(-w * torch.expm1(s / w) / (1 - w))

    def reversed(self) -> FDivergence:
        """SkewedJensenShannon(1 - w)."""
        return SkewedJensenShannon(1 - self.weight)


__all__ = ["SkewedJensenShannon"]
