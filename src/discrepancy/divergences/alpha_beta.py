"""The alpha-beta divergences: power divergences between powers of the densities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.elementary import exp_excess, log_ratio
from discrepancy.divergences.measures import MeasureDivergence, power_at_zero, safe_log, with_edge_slopes
from discrepancy.divergences.power import Alpha
from discrepancy.divergences.streamed import transformed

_TINY = 1e-100


@dataclass(frozen=True)
class AlphaBeta(MeasureDivergence):
    """The alpha-beta divergence of vectors of any mass,

        D = -1/(a b) sum(p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)),

    with its limits at a = 0, b = 0, a + b = 0 and a = b = 0 (half the squared distance of the logarithms). With s = a + b it is
    the power divergence Alpha(a/s) between p^s and q^s, over s^2, and is computed so, smoothly through every limit.
    On the line a + b = 1 it is Alpha(a), at (1, 1) half the squared Euclidean distance, at (1, 0) KL (of any masses), at
    (1, -1) Itakura-Saito; b > 0 with a = 1 is the density power (beta) divergence. It is +inf where one law alone misses a
    category, unless a, b > 0 (p = 0 needs a > 0, q = 0 needs b > 0, both a + b > 0).
    Exponents below 1e-100 in size are taken as zero. Raises ValueError for one that is not finite.
    """

    alpha: float = 0.5
    beta: float = 0.5

    references = ("cichocki-2011",)

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
            # Squares of smaller ones underflow, and the limit is exact far beyond rounding.
            number = float(value)
            object.__setattr__(self, name, number if abs(number) >= _TINY else 0.0)

    def _prices(self) -> tuple[float, float]:
        """What q^s costs where p = 0, and p^s where q = 0: the limits of the power divergence, over s^2."""
        s = self.alpha + self.beta
        if s <= 0:
            return math.inf, math.inf
        at_zero = 1 / (self.alpha * s) if self.alpha > 0 else math.inf
        return at_zero, 1 / (self.beta * s) if self.beta > 0 else math.inf

    def _terms(self, log_p: Tensor, log_q: Tensor, u: Tensor) -> Tensor:
        """The summands where both are positive; u = log p/q."""
        s = self.alpha + self.beta
        if s != 0:
            return Alpha(self.alpha / s)._perspective(s * log_p, s * log_q, s * u) / (s * s)
        if self.alpha == 0:
            return u * u / 2
        return exp_excess(self.alpha * u) / (self.alpha * self.alpha)

    def _evaluate(self, log_p: Tensor, log_q: Tensor, u: Tensor, flat: Tensor | None = None) -> Tensor:
        """The sum over categories, -inf logarithms being no mass; rows marked `flat` (..., 1) are taken as equal laws."""
        s = self.alpha + self.beta
        empty_p, empty_q = log_p == -torch.inf, log_q == -torch.inf
        edge = empty_p | empty_q
        zero = torch.zeros_like(u)
        if flat is not None:
            edge, empty_p, empty_q = edge | flat, empty_p & ~flat, empty_q & ~flat
        lp, lq, ratio = (torch.where(edge, zero, t) for t in (log_p, log_q, u))
        terms = torch.where(edge, zero, self._terms(lp, lq, ratio))
        for here, log_mass, price in zip((empty_p & ~empty_q, empty_q & ~empty_p), (log_q, log_p), self._prices()):
            cost = torch.full_like(zero, torch.inf)
            if math.isfinite(price):
                cost = price * torch.exp(s * torch.where(here, log_mass, zero))
            terms = torch.where(here, cost, terms)
        value = terms.sum(-1)
        infinite = ~torch.isfinite(value.detach())
        if flat is None and (transformed() or bool(infinite.any())):
            # Zero times infinity in a backward pass is NaN: rows of infinite value are evaluated at equality instead.
            again = self._evaluate(log_p, log_q, u, infinite.unsqueeze(-1))
            return torch.where(infinite, torch.full_like(again, torch.inf), again)
        return value

    def _from_values(self, p: Tensor, q: Tensor) -> Tensor:
        both = (p > 0) & (q > 0)
        one = torch.ones_like(p)
        u = log_ratio(torch.where(both, p, one), torch.where(both, q, one))
        value = self._evaluate(safe_log(p), safe_log(q), u)
        value = with_edge_slopes(value, p, self._slope_at_zero(self.alpha, self.beta, q))
        return with_edge_slopes(value, q, self._slope_at_zero(self.beta, self.alpha, p))

    def _slope_at_zero(self, a: float, b: float, other: Tensor) -> Tensor:
        """d/dx of the summand at x = 0, (x^(s-1) - x^(a-1) other^b) / b, given the other density."""
        s = a + b
        if b == 0:  # the limit is x^(s-1) log(x / other)
            return torch.full_like(other, 0.0 if s > 1 else -math.inf)
        own, cross = power_at_zero(s - 1), power_at_zero(a - 1)
        if not (math.isfinite(own) and math.isfinite(cross)):
            return torch.full_like(other, -math.inf)
        mixed = cross * torch.exp(b * safe_log(other)) if cross else torch.zeros_like(other)
        return (own - mixed) / b

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        empty = (log_p == -torch.inf) | (log_q == -torch.inf)
        zero = torch.zeros_like(log_p)
        return self._evaluate(log_p, log_q, torch.where(empty, zero, log_p) - torch.where(empty, zero, log_q))

    def reversed(self) -> Divergence:
        """AlphaBeta(beta, alpha)."""
        return AlphaBeta(self.beta, self.alpha)


__all__ = ["AlphaBeta"]
