"""The log-affinity log sum p^a q^(1-a) of two laws: what Renyi, Cauchy-Schwarz and Hoelder divergences are functions of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy.divergences.power import Alpha
from discrepancy.divergences.streamed import transformed

_NEAR = 0.4  # |log affinity| below which it is log1p of a power divergence: every digit is kept next to equality

Rows = Callable[[Tensor], Tensor]


def log_affinity(order: float, log_p: Tensor, log_q: Tensor, power: Rows | None = None) -> Tensor:
    """log sum_k p_k^a q_k^(1-a) along the last dimension, for log-probabilities with -inf where there is no mass.

    +inf where a power of zero is infinite (q = 0 < p with a > 1, p = 0 < q with a < 0), -inf where the supports are disjoint
    and 0 <= a <= 1; both with gradient zero. Next to equality the sum is 1 + a (a - 1) D for the power divergence
    D = Alpha(a), whose terms do not cancel; `power(rows)` computes D of the rows marked True (of equal laws elsewhere) where
    the caller knows p / q better than by the difference of logarithms. Time and memory O(size).
    """
    a = float(order)
    empty_p, empty_q = log_p == -torch.inf, log_q == -torch.inf
    empty = empty_p | empty_q
    infinite = torch.zeros_like(empty)
    if a > 1:
        infinite = empty_q & ~empty_p
    elif a < 0:
        infinite = empty_p & ~empty_q
    infinite, disjoint = infinite.any(-1), empty.all(-1)
    special = (infinite | disjoint).unsqueeze(-1)
    zero = torch.zeros_like(log_p)
    lp, lq = torch.where(empty | special, zero, log_p), torch.where(empty | special, zero, log_q)
    mixed = (lp + lq) / 2 if a == 0.5 else lq + a * (lp - lq)  # exactly symmetric where the sum is
    exponent = torch.where(empty & ~special, torch.full_like(zero, -torch.inf), mixed)
    value = torch.logsumexp(exponent, -1)
    if a in (0.0, 1.0):  # one law's mass on the other's support: one minus what it misses, exactly one where that is nothing
        missed = empty_p & ~special if a == 0 else empty_q & ~special
        mass = torch.where(missed, torch.exp(torch.where(missed, log_q if a == 0 else log_p, zero)), zero)
        mass = torch.where(missed & ((log_q if a == 0 else log_p) == -torch.inf), zero, mass).sum(-1)
        small = mass < 0.5
        value = torch.where(small, torch.log1p(-torch.where(small, mass, torch.zeros_like(mass))), value)
    else:
        near = (value.detach().abs() < _NEAR) & ~special.squeeze(-1)
        if transformed() or bool(near.any()):
            if power is None:
                keep = near.unsqueeze(-1)
                divergence = Alpha(a)._from_logits(torch.where(keep, log_p, zero), torch.where(keep, log_q, zero))
            else:
                divergence = power(near)
            change = torch.where(near, a * (a - 1) * divergence, torch.zeros_like(value))
            value = torch.where(near, torch.log1p(change), value)
    value = torch.where(disjoint, torch.full_like(value, -torch.inf), value)
    return torch.where(infinite, torch.full_like(value, torch.inf), value)


__all__ = ["log_affinity"]
