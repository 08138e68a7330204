"""Renyi's and Tsallis' divergences: two readings of one integral, the affinity of p^a and q^(1-a)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy.divergences.affinity import log_affinity
from discrepancy.divergences.elementary import log_ratio
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.kullback_leibler import KL
from discrepancy.divergences.measures import safe_log
from discrepancy.divergences.power import Alpha
from discrepancy.divergences.ratio import RatioDivergence


def _order(order: Any, name: str, *, infinite: bool) -> float:
    number = isinstance(order, Real) and not isinstance(order, bool) and not math.isnan(order)
    if not number or order < 0 or (not infinite and math.isinf(order)):
        wanted = "a number from 0 to inf" if infinite else "a finite number of at least 0"
        raise ValueError(f"the order of {name} must be {wanted}, got {order!r}")
    return float(order)


@dataclass(frozen=True)
class Renyi(RatioDivergence):
    """Renyi's divergence of order a, log(E_Q[(dP/dQ)^a]) / (a - 1) in nats, for 0 <= a <= inf; it grows with a.

    Order 0 is -log Q(p > 0), order 1 is KL, order inf is log sup p/q: the limits, exactly. -2 log of the Bhattacharyya
    coefficient at 1/2. +inf where the supports are disjoint (a < 1) or Q misses mass of P (a >= 1).
    Raises ValueError for an order below 0 (those are Renyi(1 - a).reversed(), negatively scaled) or NaN.
    """

    order: float = 0.5

    references = ("renyi-1961", "van-erven-harremoes-2014")

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", _order(self.order, "Renyi", infinite=True))

    def _as_f_divergence(self) -> FDivergence | None:
        return KL() if self.order == 1 else None

    def _log_inner(self, u: Tensor) -> Tensor:
        a = self.order
        if math.isinf(a):
            raise TypeError(f"{self!r} is a supremum and no function of an expectation: use a finite order")
        if a == 0:  # h is the indicator of p > 0
            return torch.where(u == -torch.inf, u, torch.zeros_like(u))
        return a * u

    def _outer(self, log_mean: Tensor) -> Tensor:
        return log_mean / (self.order - 1)

    def from_log_ratio(self, log_r: Any, weights: Any = None, linear: float = 0.0, *, level: float = 0.95) -> Estimate:
        """As for every `RatioDivergence`; of order inf the largest log-ratio seen, which is biased downwards and has no error."""
        if math.isfinite(self.order):
            return super().from_log_ratio(log_r, weights, linear, level=level)
        # Another order validates the arguments and counts the samples.
        checked = Renyi(2.0).from_log_ratio(log_r, weights, 0.0, level=level)
        u = torch.as_tensor(log_r).to(checked.value.dtype)  # type: ignore[union-attr]
        counted = torch.ones_like(u) if weights is None else torch.as_tensor(weights, dtype=u.dtype).expand(u.shape)
        value = torch.where(counted > 0, u, torch.full_like(u, -torch.inf)).amax(-1)
        note = "no standard error: the largest ratio of a sample is a lower bound of the supremum"
        return Estimate(value, method=f"largest log-ratio of {u.shape[-1]} samples", note=note)

    def _supremum(self, log_p: Tensor, log_q: Tensor, u: Tensor) -> Tensor:
        """log max p/q over the categories where p > 0; u is log p/q where both are positive."""
        infinite = ((log_q == -torch.inf) & (log_p > -torch.inf)).any(-1)
        value = torch.where(log_p == -torch.inf, torch.full_like(u, -torch.inf), u)
        value = torch.where(infinite.unsqueeze(-1), torch.zeros_like(u), value).amax(-1)
        # The largest ratio of two laws is at least one, whatever rounding says.
        value = torch.where(value.detach() < 0, torch.zeros_like(value), value)
        return torch.where(infinite, torch.full_like(value, torch.inf), value)

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        if self.order == 1:
            return KL()._from_probs(p, q)
        if math.isinf(self.order):
            both = (p > 0) & (q > 0)
            one = torch.ones_like(p)
            return self._supremum(safe_log(p), safe_log(q), log_ratio(torch.where(both, p, one), torch.where(both, q, one)))

        def power(rows: Tensor) -> Tensor:
            # Flat laws stand in for the other rows.
            flat, keep = torch.full_like(p, 1 / p.shape[-1]), rows.unsqueeze(-1)
            return Alpha(self.order)._from_probs(torch.where(keep, p, flat), torch.where(keep, q, flat))

        return self._outer(log_affinity(self.order, safe_log(p), safe_log(q), power)) + 0.0  # no negative zero

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        if self.order == 1:
            return KL()._from_logits(log_p, log_q)
        if math.isinf(self.order):
            inside = (log_p > -torch.inf) & (log_q > -torch.inf)
            zero = torch.zeros_like(log_p)
            return self._supremum(log_p, log_q, torch.where(inside, log_p, zero) - torch.where(inside, log_q, zero))
        return self._outer(log_affinity(self.order, log_p, log_q)) + 0.0


@dataclass(frozen=True)
class Tsallis(RatioDivergence):
    """Tsallis' divergence of order a, (E_Q[(dP/dQ)^a] - 1) / (a - 1) for a >= 0: a times the power divergence Alpha(a).

    Order 1 is KL and order 0 is Q(p = 0), exactly; order 2 is ChiSquared. Between 0 and 1 it is at most 1 / (1 - a).
    Raises ValueError for an order below 0 or not finite.
    """

    order: float = 0.5

    references = ("tsallis-1998",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", _order(self.order, "Tsallis", infinite=False))

    def _as_f_divergence(self) -> FDivergence | None:
        return self.order * Alpha(self.order) if self.order > 0 else None

    def _log_inner(self, u: Tensor) -> Tensor:
        return Renyi(self.order)._log_inner(u)

    def _outer(self, log_mean: Tensor) -> Tensor:
        return torch.expm1(log_mean) / (self.order - 1)

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        same = self._as_f_divergence()
        return self._from_logits(safe_log(p), safe_log(q)) if same is None else same._from_probs(p, q)

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        same = self._as_f_divergence()
        if same is None:  # order 0: the mass of Q where P has none
            return -torch.expm1(log_affinity(0.0, log_p, log_q)) + 0.0
        return same._from_logits(log_p, log_q)


__all__ = ["Renyi", "Tsallis"]
