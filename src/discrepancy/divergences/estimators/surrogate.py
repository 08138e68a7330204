"""Scalars whose gradient is the divergence's in expectation, where Q is trained and its samples are all there is.

Differentiating a Monte Carlo value at samples of Q misses that the samples move with the parameters: through Centred() on
ReverseKL (k3) the expected gradient is that of KL(P || Q), and through Plain() (k1) it is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.divergences.cone import require_f_divergence
from discrepancy.divergences.estimators.evaluation import log_ratios
from discrepancy.divergences.estimators.terms import Centred
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.learning import leave_one_out


def surrogate_from_q(f: FDivergence, log_p: Tensor, log_q: Tensor, *, baseline: bool = True) -> Tensor:
    """mean of g(t) log q with g(t) = f(t) - t f'(t) held fixed: its gradient is unbiased for that of D_f(P || Q) in Q.

    log_p, log_q (n,): log-probabilities of n samples of Q, with Q's gradient in log_q; t = p/q. Since grad D_f = E_Q[g(t) grad
    log q] (the score function). `baseline` takes the mean of the other samples' g off, which keeps it unbiased and takes most
    of the variance; it needs two samples. The value of the result means nothing.
    Raises ValueError for shapes that differ, for NaN, and where g is infinite: a sample of Q that P excludes, under a divergence
    that forbids it.
    """
    _require_pair(f, log_p, log_q)
    u = log_ratios((log_p - log_q).detach())
    reward = f.reversed().derivative(log_t=-u)
    if not bool(torch.isfinite(reward).all()):
        count = int((~torch.isfinite(reward)).sum())
        raise ValueError(
            f"{f!r} has an infinite slope at {count} of {u.numel()} sample(s), which P excludes: skew it, or smooth P"
        )
    if baseline:
        reward = reward - leave_one_out(reward)
    return (reward.to(log_q.dtype) * log_q).mean()


def surrogate_from_p(f: FDivergence, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The centred Monte Carlo value at samples of P, which Q's parameters do not move: differentiating it is unbiased.

    log_p, log_q (n,): log-probabilities of n samples of P, with Q's gradient in log_q. Value and gradient are both unbiased.
    """
    _require_pair(f, log_p, log_q)
    u = log_ratios(log_q - log_p.detach())
    return Centred().terms(f.reversed(), u, torch.full_like(u, 1 / u.numel())).mean().to(log_q.dtype)


def _require_pair(f: FDivergence, log_p: Tensor, log_q: Tensor) -> None:
    require_f_divergence(f)
    if log_p.ndim != 1 or log_p.shape != log_q.shape:
        raise ValueError(f"log_p and log_q must have one shape (n,), got {tuple(log_p.shape)} and {tuple(log_q.shape)}")


__all__ = ["surrogate_from_p", "surrogate_from_q"]
