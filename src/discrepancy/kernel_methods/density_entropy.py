"""Renyi and Shannon entropies from kernel density estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import fraction, positive, sample

_PAIRS = 1 << 20  # entries of a block of distances: 8 MiB


@dataclass(frozen=True)
class KernelEntropy:
    """The entropy of order alpha, log(int p^alpha) / (1 - alpha) (order 1: -int p log p), in nats, from a density estimate.

    p^(alpha - 1) is averaged over the sample at p_i = (1 / (n - 1)) sum_(j != i) N(x_i; x_j, h^2 S), S the sample's covariance:
    leaving i out of its own density removes the bias of the diagonal. Order 2, the quadratic entropy, is that of the information
    potential. Equivariant under affine maps: H(A x + b) = H(x) + log |det A|.

    bandwidth: h in units of S^(1/2), by default the normal reference rule (4 / ((d + 2) n))^(1 / (d + 4)).
    Bias: the density is smoothed by h^2 S, which raises the entropy by about h^2 J / 2 (J Fisher's information in units of S: d
    for a normal law), of order n^(-2/(d+4)) and hence larger than the standard error: no interval is given. Nearest neighbours
    give a Shannon entropy with an interval; this one has any order.

    `entropy(x)` as the front door asks. Time O(n^2 d), memory O(n). Raises ValueError for an order or bandwidth that is not
    positive, fewer than d + 2 points, and points in a proper subspace (no density).
    Source: Principe, Xu, Zhao and Fisher (2000) for order 2; Ahmad and Lin (1976) for order 1.
    """

    order: float = 1.0
    bandwidth: float | None = None
    references: ClassVar[tuple[str, ...]] = ("principe-2000", "ahmad-lin-1976")
    _note: ClassVar[str] = "no interval: the smoothing bias, of order n^(-2/(d+4)) and mostly upward, exceeds the standard error"

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.order, "order")
        if self.bandwidth is not None:
            positive(self.bandwidth, "bandwidth")

    @torch.no_grad()
    def entropy(self, x: Any, *, level: float = 0.95, generator: torch.Generator | None = None) -> Estimate:
        """The entropy of a sample x (n, d) with its standard error; `level` and `generator` are accepted and unused."""
        fraction(level, "level")
        points = sample(x, "x").double()
        if points.ndim != 2:
            raise ValueError(f"x must be one sample (n, d), got shape {tuple(points.shape)}")
        n, d = points.shape
        if n < d + 2:
            raise ValueError(f"x has {n} points in {d} dimensions: a density needs at least d + 2 = {d + 2}")
        white, log_scale = _whitened(points)
        h = self.bandwidth if self.bandwidth is not None else (4 / ((d + 2) * n)) ** (1 / (d + 4))
        log_p = self._left_out(white, h) - log_scale
        a = self.order
        if a == 1:
            value, error = -log_p.mean(), log_p.std() / math.sqrt(n)
        else:
            powers = torch.exp((a - 1) * (log_p - log_p.max()))
            value = (powers.mean().log() + (a - 1) * log_p.max()) / (1 - a)
            error = a / abs(1 - a) * powers.std() / powers.mean() / math.sqrt(n)
        return Estimate(
            float(value), float(error), method=f"kernel density, order {a:g}, bandwidth {h:.4g} S^(1/2)", note=self._note
        )

    def _left_out(self, z: Tensor, h: float) -> Tensor:
        """log of the leave-one-out density at each row of z (n, d), in whitened units."""
        n, d = z.shape
        constant = math.log(n - 1) + d * math.log(h * math.sqrt(2 * math.pi))
        parts = []
        step = max(1, _PAIRS // n)
        for start in range(0, n, step):
            rows = z[start : start + step]
            s = torch.cdist(rows, z, compute_mode="donot_use_mm_for_euclid_dist").square() * (-0.5 / h**2)
            own = torch.arange(len(rows))
            s[own, start + own] = -torch.inf
            parts.append(torch.logsumexp(s, 1) - constant)
        return torch.cat(parts)


def _whitened(x: Tensor) -> tuple[Tensor, float]:
    """The points with unit covariance, and log det S^(1/2); ValueError where S is singular."""
    centred = x - x.mean(0)
    scale = centred.std(0)
    if bool((scale == 0).any()):
        raise ValueError(f"x has constant columns {(scale == 0).nonzero().flatten().tolist()}: no density; leave them out")
    covariance = (centred / scale).T @ (centred / scale) / (len(x) - 1)
    values = torch.linalg.eigvalsh(covariance)
    if float(values[0]) <= 1e-12 * float(values[-1]):
        raise ValueError("x lies in a proper subspace (its correlation matrix is singular): no density; drop a dependent column")
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (centred / scale).T, upper=False).T
    return white, float(root.diagonal().log().sum() + scale.log().sum())


__all__ = ["KernelEntropy"]
