"""`MeasureDivergence`: divergences that compare non-negative vectors of any mass, probability vectors among them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import require_finite
from discrepancy.divergences.divergence import Divergence, _aligned, _warned


@dataclass(frozen=True)
class MeasureDivergence(Divergence):
    """A divergence whose formula reads the entries of p and q as they are, not only their ratios under a common normalisation.

    `from_values` takes vectors of any mass; `from_probs` and `from_logits` normalise first. `domain` is the interval in
    which the entries must lie.
    """

    @property
    def domain(self) -> tuple[float, float]:
        """The smallest and the largest entry that `from_values` takes."""
        return (0.0, float("inf"))

    def from_values(self, p: Any, q: Any, dim: int = -1) -> Tensor:
        """The divergence between vectors p and q along `dim`, whatever their sums.

        p, q: (..., K, ...), finite, with entries in `domain`; the other dimensions broadcast and remain. Differentiable in
        both, as `from_probs`. Raises ValueError for an entry outside the domain, naming it. Time and memory O(size).
        """
        p, q, axis = _aligned(p, q, dim, "p", "q")
        p, q = p.movedim(axis, -1), q.movedim(axis, -1)
        for name, t in (("p", p), ("q", q)):
            require_finite(t, name)
            self._check_values(name, t.detach())
        return _warned(self, self._from_values(p, q))

    def _check_values(self, name: str, t: Tensor) -> None:
        low, high = self.domain
        for outside, worst in ((t < low, t.min()), (t > high, t.max())):
            if bool(outside.any()):
                raise ValueError(f"{self!r} compares values in [{low:g}, {high:g}], {name} has {float(worst):.6g}")

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        return self._from_values(p, q)

    @abstractmethod
    def _from_values(self, p: Tensor, q: Tensor) -> Tensor:
        """The value on validated vectors along the last dimension."""

    def reversed(self) -> Divergence:
        """The divergence with its arguments exchanged."""
        return ReversedMeasureDivergence(self)


@dataclass(frozen=True)
class ReversedMeasureDivergence(MeasureDivergence):
    """D(Q || P) as a divergence of (P, Q), for a base without a reversal of its own."""

    base: MeasureDivergence

    def __post_init__(self) -> None:
        if not isinstance(self.base, MeasureDivergence):
            raise TypeError(f"expected a MeasureDivergence such as Bregman(), got {self.base!r}")

    def __repr__(self) -> str:
        return f"{self.base!r}.reversed()"

    @property
    def domain(self) -> tuple[float, float]:
        """The base's."""
        return self.base.domain

    def _from_values(self, p: Tensor, q: Tensor) -> Tensor:
        return self.base._from_values(q, p)

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self.base._from_logits(log_q, log_p)

    def reversed(self) -> Divergence:
        """The base."""
        return self.base


def safe_log(p: Tensor) -> Tensor:
    """log p, -inf with gradient zero where p = 0."""
    positive = p > 0
    return torch.where(positive, torch.log(torch.where(positive, p, torch.ones_like(p))), torch.full_like(p, -torch.inf))


def power_at_zero(exponent: float) -> float:
    """lim of x^exponent as x -> 0+."""
    return 1.0 if exponent == 0 else 0.0 if exponent > 0 else float("inf")


def with_edge_slopes(value: Tensor, p: Tensor, slope: Tensor) -> Tensor:
    """The value with the one-sided slopes in the entries p = 0 added, of which a formula in log p knows nothing.

    slope (..., K) is read where p = 0; an infinite one contributes nothing, and neither does a row of infinite value.
    """
    kept = (p == 0) & torch.isfinite(slope) & torch.isfinite(value.detach()).unsqueeze(-1)
    return value + torch.where(kept, p * torch.where(kept, slope, torch.zeros_like(slope)), torch.zeros_like(p)).sum(-1)


__all__ = ["MeasureDivergence", "ReversedMeasureDivergence", "power_at_zero", "safe_log", "with_edge_slopes"]
