"""Couplings of low rank: Q diag(1/g) R^T with Q in Pi(a, g), R in Pi(b, g), and the projection onto such triples.

A mirror step leaves kernels (K1, K2, k3); their projection in the sense of Kullback-Leibler is Q = diag(u1) K1 diag(v1), R =
diag(u2) K2 diag(v2), g = k3 / (v1 v2), whose scalings maximise a concave dual by turns: rows, u1 = a / (K1 v1) and u2 = b / (K2
v2); then columns, for which g = (k3 s1 s2)^(1/3) with s1 = K1^T u1, s2 = K2^T u2 is the exact maximiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Kernel entries lie within e^-500 of their row's largest, so that no sum of them is zero and no scaling overflows.
_DEEPEST = -500.0


@dataclass(frozen=True)
class Factors:
    """q (n, r), r (m, r) and g (r,), positive, with q 1 = a, r 1 = b and q^T 1 = r^T 1 = g up to `error` (L1).

    `scalings`: log v1 and log v2 of the projection that made them.
    """

    q: Tensor
    r: Tensor
    g: Tensor
    error: float
    scalings: tuple[Tensor, Tensor] | None = None

    def rounded(self, a: Tensor, b: Tensor) -> Factors:
        """Factors that meet all marginals to rounding: columns, then rows are scaled down, and the missing mass is added as one
        more column. Its share is about `error`."""
        q, r, g = self.q, self.r, self.g
        for _ in range(2):
            q = q * (a / q.sum(1).clamp_min(1e-300)).clamp_max(1)[:, None]
            r = r * (b / r.sum(1).clamp_min(1e-300)).clamp_max(1)[:, None]
            g = torch.minimum(q.sum(0), r.sum(0))
            q, r = q * (g / q.sum(0).clamp_min(1e-300)), r * (g / r.sum(0).clamp_min(1e-300))
        kept = g > 0
        q, r, g = q[:, kept], r[:, kept], g[kept]
        left, right = (a - q.sum(1)).clamp_min(0), (b - r.sum(1)).clamp_min(0)
        total = (left.sum() + right.sum()) / 2
        if float(total) == 0:
            return Factors(q, r, g, 0.0)
        left, right = left * (total / left.sum()), right * (total / right.sum())
        q, r, g = torch.cat([q, left[:, None]], 1), torch.cat([r, right[:, None]], 1), torch.cat([g, total[None]])
        error = float((q.sum(1) - a).abs().sum() + (r.sum(1) - b).abs().sum())
        return Factors(q, r, g, error)

    def apply(self, v: Tensor) -> Tensor:
        """The plan times v (m, k): time and memory linear in n + m."""
        return self.q @ ((self.r.mT @ v) / self.g[:, None])

    def applied_back(self, v: Tensor) -> Tensor:
        """The plan's transpose times v (n, k)."""
        return self.r @ ((self.q.mT @ v) / self.g[:, None])


def project(
    logs: tuple[Tensor, Tensor, Tensor],
    a: Tensor,
    b: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> Factors:
    """The projection of kernels, given by their logarithms (n, r), (m, r) and (r,), onto couplings of a and b.

    Stops when the rows are met within `tolerance` (L1). start: log v1 and log v2 to begin from. Four products with an n x r or
    m x r matrix an iteration.
    """
    log_q, log_r, log_g = logs
    k1 = (log_q - log_q.amax(1, keepdim=True)).clamp_min(_DEEPEST).exp()
    k2 = (log_r - log_r.amax(1, keepdim=True)).clamp_min(_DEEPEST).exp()
    k3 = (log_g - log_g.amax()).clamp_min(_DEEPEST).exp()
    v1, v2 = (torch.ones_like(k3), torch.ones_like(k3)) if start is None else (s.clamp(-300, 300).exp() for s in start)
    u1, u2, g, error = a / (k1 @ v1), b / (k2 @ v2), k3, float("inf")
    for _ in range(max_iterations):
        s1, s2 = u1 @ k1, u2 @ k2
        g = (k3 * s1 * s2) ** (1 / 3)
        v1, v2 = g / s1, g / s2
        row1, row2 = k1 @ v1, k2 @ v2
        error = float((u1 * row1 - a).abs().sum() + (u2 * row2 - b).abs().sum())
        u1, u2 = a / row1, b / row2
        if error <= tolerance:
            break
    return Factors(u1[:, None] * k1 * v1, u2[:, None] * k2 * v2, g, error, (v1.log(), v2.log()))


__all__ = ["Factors", "project"]
