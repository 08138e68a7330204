"""Networks as graph Laplacians, with the Frobenius distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import as_tensor, require_finite
from discrepancy.metric_spaces.space import Center, MetricSpace, first_bad, rounding


@dataclass(frozen=True)
class LaplacianSpace(MetricSpace):
    """Weighted undirected graphs on d labelled nodes as Laplacians L = diag(A 1) - A (..., d, d), Frobenius distance.

    Points are symmetric, have zero row sums and off-diagonal entries in [-max_weight, 0]. A mean is the weighted average; where
    negative weights have pushed edges out of [0, max_weight], the nearest Laplacian (a quadratic program in the edges, solved by
    accelerated projected gradients: clipping the edges alone is not the projection, since the diagonal moves with them).
    d^2 a distance. Source: Zhou and Mueller (2022).
    """

    max_weight: float = math.inf
    max_iterations: int = 5000
    point_ndim = 2
    references = ("zhou-muller-2022",)

    def __post_init__(self) -> None:
        """Raise ValueError unless max_weight > 0 and max_iterations >= 1."""
        if not self.max_weight > 0:
            raise ValueError(f"max_weight must be positive, got {self.max_weight!r}")
        if not self.max_iterations >= 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations!r}")

    @staticmethod
    def from_adjacency(A: Any) -> Tensor:
        """The Laplacians of weighted adjacency matrices (..., d, d), symmetric and non-negative; the diagonal is ignored."""
        A = as_tensor(A, "A")
        if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
            raise ValueError(f"A must be square adjacency matrices (..., d, d), got shape {tuple(A.shape)}")
        require_finite(A, "A")
        if bool((A.mT != A).any()):
            raise ValueError("A must be symmetric: these are undirected graphs")
        edges = A - torch.diag_embed(A.diagonal(dim1=-2, dim2=-1))
        if bool((edges < 0).any()):
            raise ValueError(f"A must have non-negative weights, got {float(edges.min()):.6g}")
        return _laplacian(edges)

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Graph Laplacians (..., d, d); ValueError names the first that is none, and why."""
        Y = as_tensor(Y, name)
        if Y.ndim < 2 or Y.shape[-1] != Y.shape[-2] or Y.shape[-1] == 0:
            raise ValueError(f"{name} must be square Laplacians (..., d, d), got shape {tuple(Y.shape)}; see from_adjacency()")
        require_finite(Y, name)
        L = Y.detach()
        slack = rounding(L) * L.abs().amax((-1, -2)).clamp_min(torch.finfo(L.dtype).tiny)
        off = L - torch.diag_embed(L.diagonal(dim1=-2, dim2=-1))
        for what, size in (
            ("not symmetric", (L - L.mT).abs().amax((-1, -2))),
            ("without zero row sums", L.sum(-1).abs().amax(-1)),
            ("with positive off-diagonal entries", off.amax((-1, -2))),
            (f"with an edge above max_weight = {self.max_weight:g}", (-off - self.max_weight).amax((-1, -2))),
        ):
            bad = size > slack
            if bool(bad.any()):
                where = f", the first at index {first_bad(bad)}" if bad.ndim else ""
                raise ValueError(f"{name} has {int(bad.sum())} point(s) {what}{where}: no Laplacian; see from_adjacency()")
        return (Y + Y.mT) / 2

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum((-1, -2))

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        average = torch.tensordot(w, Y, dims=1)
        edges = -average.detach() + torch.diag_embed(average.detach().diagonal(dim1=-2, dim2=-1))
        if not bool(((edges < 0) | (edges > self.max_weight)).any()):
            return Center(average)
        return nearest_laplacian(edges, self.max_weight, max_iterations=self.max_iterations)


def _laplacian(edges: Tensor) -> Tensor:
    return torch.diag_embed(edges.sum(-1)) - edges


@torch.no_grad()
def nearest_laplacian(edges: Tensor, max_weight: float = math.inf, *, max_iterations: int = 5000) -> Center:
    """The Laplacian in the Frobenius norm nearest to that of signed edge weights (..., d, d), symmetric with zero diagonal.

    With e the edges and r = E 1 the strengths, |L - L_0|^2 = sum_ij (e - e_0)^2 + sum_i (r - r_0)_i^2 over 0 <= e <= max_weight,
    whose Hessian has eigenvalues in [2, 2d]: Nesterov's constant momentum contracts by about 1 - 1/sqrt(d) an iteration of d^2.
    Stops when a step moves less than 1e-12 (1e-6 in float32) of the largest edge. Without gradient.
    """
    d = edges.shape[-1]
    tolerance = (1e-12 if edges.dtype == torch.float64 else 1e-6) * float(edges.abs().max())
    momentum = (math.sqrt(d) - 1) / (math.sqrt(d) + 1)
    x = ahead = edges.clamp(0, max_weight)
    moved, done = math.inf, 0
    while done < max_iterations and moved > tolerance:
        gap = ahead - edges
        r = gap.sum(-1)
        slope = 2 * gap + r[..., :, None] + r[..., None, :]
        following = (ahead - slope / (2 * d)).clamp(0, max_weight)
        following.diagonal(dim1=-2, dim2=-1).zero_()
        moved = float((following - ahead).abs().max())
        ahead = following + momentum * (following - x)
        x, done = following, done + 1
    residual = moved / max(float(edges.abs().max()), torch.finfo(edges.dtype).tiny)
    outcome = Outcome.CONVERGED if moved <= tolerance else Outcome.ITERATION_LIMIT
    return Center(_laplacian((x + x.mT) / 2), done, residual, outcome)


__all__ = ["LaplacianSpace", "nearest_laplacian"]
