"""Entropic and debiased barycenters as fixed points of scalings.

Plans P_k = diag(u_k) K diag(v_k) with K = exp(-C / epsilon) are scaled to their columns b_k, and the u_k to one common row sum
a = d prod_k (K v_k)^(w_k): Bregman projections in turn. Plain barycenters have d = 1; debiased ones the scaling of a's own
problem, d K d = a.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrepancy.transport.barycenters.answer import Answer
from discrepancy.transport.barycenters.fixed_point import fixed_point
from discrepancy.transport.barycenters.gibbs import GibbsKernel


def entropic(kernel: GibbsKernel, b: Tensor, w: Tensor, *, debiased: bool, tolerance: float, limit: int) -> Answer:
    """The barycenters of measures b (B, K, m) under shares w (B, K), in float64."""
    size, count, m = b.shape
    n = math.prod(kernel.left)

    def parts(state: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phi (A, K, n), log K v (A, K, n) and log a (A, n) at a state."""
        phi = state[:, : count * n].reshape(-1, count, n)
        s = kernel.there_and_back(phi.reshape(-1, n), b[at].reshape(-1, m)).reshape(phi.shape)
        log_a = torch.einsum("bk,bkn->bn", w[at], s)
        return phi, s, log_a + state[:, count * n :] if debiased else log_a

    def step(state: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        phi, s, log_a = parts(state, at)
        a = log_a.exp()
        error = torch.einsum("bk,bk->b", w[at], ((phi + s).exp() - a[:, None]).abs().sum(-1))
        image = (log_a[:, None] - s).reshape(len(state), -1)
        weight = a.repeat(1, count)
        if debiased:
            own = state[:, count * n :]
            log_sums = kernel.log_sums(own)
            error = error + ((own + log_sums).exp() - a).abs().sum(-1)
            # Averaged: the plain step d <- a / K d only swaps two values.
            image = torch.cat([image, (own + log_a - log_sums) / 2], -1)
            weight = torch.cat([weight, a], -1)
        return image, error, weight

    width = (count + debiased) * n
    found = fixed_point(step, torch.zeros(size, width, dtype=torch.float64), tolerance=tolerance, limit=limit)
    phi, s, log_a = parts(found.state, torch.arange(size))
    epsilon = kernel.epsilon
    log_sums = kernel.log_sums(phi.reshape(-1, n), transposed=True).reshape(size, count, m)
    a = log_a.exp()
    a = a / a.sum(-1, keepdim=True)
    slopes = -epsilon * log_sums
    gap = None
    if debiased:
        # The slope of the objective in a, whose excess over its least value bounds what any other a could gain (convexity).
        slope = epsilon * (kernel.log_sums(found.state[:, n * count :]) - torch.einsum("bk,bkn->bn", w, s))
        gap = (a * slope).sum(-1) - slope.amin(-1)
        # The potentials of a are epsilon (phi - log a) and, against itself, epsilon (log d - log a).
        phi_less = phi - found.state[:, None, n * count :]
        slopes = slopes + epsilon * self_log_sums(kernel, b.reshape(-1, m), tolerance).reshape(b.shape)
    else:
        phi_less = phi
    terms = epsilon * (a[:, None] * phi_less).sum(-1) + (b * slopes).sum(-1)

    def plan(k: int) -> Tensor:
        if len(kernel.costs) > 1:
            raise TypeError("plans between grids are not formed: they have n^2 entries")
        log_v = b[:, k].log() - log_sums[:, k]
        return torch.exp(phi[:, k, :, None] + log_v[:, None] - kernel.costs[0] / epsilon)

    return Answer(a, terms, slopes, found.error, gap, found.iterations, found.outcome, plan)


def self_log_sums(kernel: GibbsKernel, b: Tensor, tolerance: float, limit: int = 1000) -> Tensor:
    """log K t for rows b (r, m) of masses, t the solution of t K t = b: the potential of b against itself, -epsilon times this.

    Averaged steps, which contract by 1/3 at every epsilon.
    """
    log_b = b.log()
    log_sums = kernel.log_sums(log_b / 2)
    x = -log_sums
    for sweep in range(limit):
        log_sums = kernel.log_sums(log_b + x)
        change = (b * (x + log_sums).expm1().abs()).sum(-1)
        if float(change.max()) <= tolerance:
            break
        x = x + (0.5 if sweep < 2 else 2 / 3) * (-log_sums - x)
    return log_sums


__all__ = ["entropic", "self_log_sums"]
