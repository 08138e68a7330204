"""Total variation: the one member of the table that is not smooth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.divergences.f_divergence import FDivergence, Limits, mirrored


def _total_variation_below(log_w: Tensor, u: Tensor) -> Tensor:
    # The absolute value, and not a minus sign, so that the gradient at equality is the subgradient zero.
    return torch.exp(log_w) * torch.expm1(u).abs() / 2


@dataclass(frozen=True)
class TotalVariation(FDivergence):
    """sup over events of |P(A) - Q(A)|, f(t) = |t - 1| / 2: symmetric, in [0, 1], a metric. Subgradient zero where p = q."""

    references = ("devroye-gyorfi-1985",)

    def _limits(self) -> Limits:
        return Limits(0.5, -0.5, 0.5, smooth=False)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return mirrored(_total_variation_below, log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return torch.sign(u) / 2

    def _curvature(self, u: Tensor) -> Tensor:
        raise TypeError("TotalVariation() is not smooth and has no curvature: use a smooth one such as JensenShannon()")

    def _conjugate(self, s: Tensor) -> Tensor:
        return s.clone()

    def _conjugate_at_limit(self) -> float:
        return 0.5

    def reversed(self) -> FDivergence:
        """Itself."""
        return self


__all__ = ["TotalVariation"]
