"""`Bregman`: the gap between a convex function and its tangent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy.divergences.bregman_generators import BregmanGenerator, SquaredNorm
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.elementwise_generator import ElementwiseGenerator
from discrepancy.divergences.measures import MeasureDivergence
from discrepancy.divergences.streamed import transformed


@dataclass(frozen=True)
class Bregman(MeasureDivergence):
    """D(P || Q) = phi(p) - phi(q) - <grad phi(q), p - q> for a convex phi.

    phi: `SquaredNorm()` (the default: |p - q|^2), `NegativeEntropy()` (KL of any masses), `ItakuraSaito()`, `FermiDirac()`, an
    `ElementwiseGenerator(f, low, high)`, or a plain function f on x >= 0, an elementwise torch function whose sum is phi; its
    convexity is verified once. `from_values` takes vectors in phi's `domain`, which need be no probabilities.
    Its `reversed()` is in general no Bregman divergence. Raises TypeError for what is no convex function.
    """

    phi: BregmanGenerator | Callable[[Tensor], Tensor] = field(default_factory=SquaredNorm)

    references = ("bregman-1967", "banerjee-2005")

    def __post_init__(self) -> None:
        if isinstance(self.phi, BregmanGenerator):
            return
        if isinstance(self.phi, type) or not callable(self.phi):
            raise TypeError(f"phi must be an object such as SquaredNorm() or a function of a tensor, got {self.phi!r}")
        object.__setattr__(self, "phi", ElementwiseGenerator(self.phi))

    @property
    def convex(self) -> BregmanGenerator:
        """phi as the object that a plain function became."""
        assert isinstance(self.phi, BregmanGenerator)
        return self.phi

    @property
    def domain(self) -> tuple[float, float]:
        """The interval in which the entries lie: phi's."""
        return self.convex.domain

    def _from_values(self, p: Tensor, q: Tensor) -> Tensor:
        return _flat_where_infinite(self.convex.divergence, p, q)

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        self._check_values("p", p.detach())
        self._check_values("q", q.detach())
        return self._from_values(p, q)

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        if self.domain[0] > 0 or self.domain[1] < 1:
            self._check_values("softmax(u)", torch.exp(log_p.detach()))
            self._check_values("softmax(v)", torch.exp(log_q.detach()))
        return _flat_where_infinite(self.convex.log_divergence, log_p, log_q)

    def reversed(self) -> Divergence:
        """D(Q || P); SquaredNorm's divergence is symmetric."""
        return self if isinstance(self.phi, SquaredNorm) else super().reversed()


def _flat_where_infinite(formula: Callable[[Tensor, Tensor], Tensor], p: Tensor, q: Tensor) -> Tensor:
    """formula(p, q), where a row of infinite value has gradient zero: it is evaluated at equality instead."""
    value = formula(p, q)
    infinite = torch.isinf(value.detach())
    if not transformed() and not (value.requires_grad and bool(infinite.any())):
        return value
    row, fixed = infinite.unsqueeze(-1), q.detach()
    again = formula(torch.where(row, fixed, p), torch.where(row, fixed, q))
    return torch.where(infinite, torch.full_like(again, torch.inf), again)


__all__ = ["Bregman"]
