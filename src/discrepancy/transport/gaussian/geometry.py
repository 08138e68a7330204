"""Gaussians as points of a curved space: distance, map, geodesic, logarithm and exponential, barycenter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import as_tensor, weights
from discrepancy.linalg import lyapunov, root
from discrepancy.transport.gaussian.bures import aligned, factor, map_factor, map_matrix, squared_bures
from discrepancy.transport.gaussian.parameters import covariance, gaussians, mean


def bures_wasserstein(m1: Any, S1: Any, m2: Any, S2: Any, *, metric: Any = None) -> Float[Tensor, "..."]:
    """The distance W_2(N(m1, S1), N(m2, S2)) = sqrt(|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2).

    m1, m2 (..., d) means (None: zero), S1, S2 (..., d, d) covariances, singular ones allowed; leading axes broadcast. In
    units of the means. `metric`, a symmetric positive definite M (d, d), measures |x|^2 as x^T M^-1 x instead (the generalised
    metric). Differentiable in all, with gradient zero at coincidence. Exactly symmetric, zero at equality, relative error near
    rounding even where the two nearly agree. Raises ValueError for matrices that are no covariances. Three decompositions,
    d^3 time. Source: Bures (1969); Olkin and Pukelsheim (1982); Bhatia, Jain and Lim (2019).
    """
    m1, S1, m2, S2 = gaussians(m1, S1, m2, S2)
    if metric is not None:
        M = covariance(metric, "metric", like=S1)
        lower, info = torch.linalg.cholesky_ex(M)
        if bool((info > 0).any()):
            raise ValueError("metric must be positive definite: its inverse measures lengths")
        m1, m2 = (torch.linalg.solve_triangular(lower, m[..., None], upper=False)[..., 0] for m in (m1, m2))
        S1, S2 = (_congruence(lower, S) for S in (S1, S2))
    return root((m1 - m2).square().sum(-1) + squared_bures(S1, S2), 2)


def _congruence(lower: Tensor, S: Tensor) -> Tensor:
    half = torch.linalg.solve_triangular(lower, S, upper=False)
    full = torch.linalg.solve_triangular(lower, half.mT, upper=False)
    return (full + full.mT) / 2


@dataclass(frozen=True)
class GaussianMap:
    """x -> m2 + T (x - m1), the optimal map between two Gaussians for the squared Euclidean cost.

    `matrix` T (..., d, d) is symmetric positive semidefinite, `source` m1 and `target` m2 (..., d). Where the source is
    singular, T is zero off its range. Calling it on points (..., k, d) gives their images.
    """

    source: Tensor
    matrix: Tensor
    target: Tensor

    @classmethod
    def between(cls, m1: Any, S1: Any, m2: Any, S2: Any) -> GaussianMap:
        """The map from N(m1, S1) to N(m2, S2). d^3 time. Source: Olkin and Pukelsheim (1982)."""
        m1, S1, m2, S2 = gaussians(m1, S1, m2, S2)
        return cls(m1, map_matrix(S1, S2), m2)

    def __call__(self, x: Any) -> Float[Tensor, "... k d"]:
        """The images of points (..., k, d)."""
        points = as_tensor(x, "x", like=self.matrix)
        if points.ndim < 2 or points.shape[-1] != self.matrix.shape[-1]:
            raise ValueError(f"x must have shape (..., k, {self.matrix.shape[-1]}), got {tuple(points.shape)}")
        return self.target[..., None, :] + (points - self.source[..., None, :]) @ self.matrix


def bures_geodesic(m1: Any, S1: Any, m2: Any, S2: Any, t: float) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d d"]]:
    """The Gaussian at time t of the constant-speed geodesic, (1 - t) id + t T applied to N(m1, S1): its mean and covariance.

    In factors, (1 - t) A + t B O with O the rotation that brings B closest to A, which needs no inverse.

    t = 0 is the first, t = 1 the second; t outside [0, 1] extrapolates. Source: McCann (1997).
    """
    m1, S1, m2, S2 = gaussians(m1, S1, m2, S2)
    A, B = aligned(factor(S1), factor(S2))
    moved = (1 - t) * A + t * B
    S = moved @ moved.mT
    return (1 - t) * m1 + t * m2, S


def bures_log(P: Any, Q: Any) -> Float[Tensor, "... d d"]:
    """The tangent vector at P that points to Q, (P Q)^1/2 + (Q P)^1/2 - 2 P = T P + P T - 2 P; its norm at P is the distance.

    P (..., d, d) must be invertible. Source: Malago, Montrucchio and Pistone (2018).
    """
    _, P, _, Q = gaussians(None, P, None, Q)
    product = map_matrix(P, Q) @ P
    return product + product.mT - 2 * P


def bures_exp(P: Any, V: Any) -> Float[Tensor, "... d d"]:
    """The covariance that the geodesic from P with velocity V reaches at time 1, (I + L) P (I + L), L P + P L = V.

    The inverse of `bures_log` as long as I + L is positive definite. Differentiable.
    """
    P = covariance(P, "P")
    V = as_tensor(V, "V", like=P)
    step = lyapunov(P, (V + V.mT) / 2) + torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    moved = step @ P @ step
    return (moved + moved.mT) / 2


@dataclass(frozen=True)
class GaussianBarycenter:
    """A barycenter: `mean` (d,), `covariance` (d, d), the `variance` (the weighted mean of squared distances to it), the last
    step's `residual` (relative), `iterations` and the `outcome`."""

    mean: Tensor
    covariance: Tensor
    variance: Tensor
    residual: float
    iterations: int
    outcome: Outcome


def _well_conditioned(S: Tensor) -> bool:
    """Whether roots of products lose no more than half of the digits: no eigenvalue below 1e-4 of its matrix's largest."""
    values = torch.linalg.eigvalsh(S)
    return bool((values[:, 0] > 1e-4 * values[:, -1]).all())


def _by_roots(center: Tensor, S: Tensor, share: Tensor) -> Tensor:
    """T center T with T the mean of the maps to S (K, d, d): for center = L L^T, T = L^-T mean_k (L^T S_k L)^1/2 L^-1."""
    lower = torch.linalg.cholesky(center)
    values, vectors = torch.linalg.eigh(lower.mT @ (S @ lower))
    half = vectors * (share[:, None] * values.clamp_min(0).sqrt())[:, None, :]
    # The sum over k of half_k vectors_k^T as one product: (d, K d) with (K d, d).
    d = len(lower)
    middle = half.movedim(0, 1).reshape(d, -1) @ vectors.movedim(0, 1).reshape(d, -1).mT
    moved = torch.linalg.solve_triangular(lower.mT, (middle + middle.mT) / 2, upper=True)
    return moved @ moved.mT


def _by_factors(factors: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The same from factors of the covariances, right where these are singular."""

    def step(center: Tensor, S: Tensor, share: Tensor) -> Tensor:
        A = factor(center)
        W = map_factor(A, factors)
        moved = torch.einsum("k,kdr,krc->dc", share, W, W.mT @ A)
        return moved @ moved.mT

    return step


@torch.no_grad()
def bures_barycenter(
    means: Any, covariances: Any, w: Any = None, *, tolerance: float = 1e-10, max_iterations: int = 500
) -> GaussianBarycenter:
    """The Gaussian that minimises sum_k w_k W_2^2(., N(m_k, S_k)).

    means (K, d) or None, covariances (K, d, d), w (K,). Its mean is the mean of means; its covariance the fixed point of
    S <- S^-1/2 (sum_k w_k (S^1/2 S_k S^1/2)^1/2)^2 S^-1/2 = T S T with T the mean of the maps to the S_k, which descends. At
    least one S_k of positive weight must be invertible for uniqueness; singular ones are allowed. Stops when the covariance
    changes by less than `tolerance` relatively, or warns. K d^3 an iteration, 5-20 iterations. Source: Alvarez-Esteban et al.
    (2016).
    """
    S = covariance(covariances, "covariances")
    if S.ndim != 3:
        raise ValueError(f"covariances must have shape (K, d, d), got {tuple(S.shape)}")
    m = mean(means, "means", S).expand(S.shape[0], -1)
    share = weights(w, S.shape[:1], "w", like=S)
    center = torch.einsum("k,kde->de", share, S)
    step = _by_roots if _well_conditioned(S) else _by_factors(factor(S))
    change, done = torch.inf, 0
    while done < max_iterations:
        following = step(center, S, share)
        change = float((following - center).norm() / center.norm().clamp_min(torch.finfo(S.dtype).tiny))
        center, done = following, done + 1
        if change <= tolerance:
            break
    outcome = Outcome.CONVERGED if change <= tolerance else Outcome.ITERATION_LIMIT
    outcome.warn("bures_barycenter")
    middle = share @ m
    variance = (share * ((m - middle).square().sum(-1) + squared_bures(S, center))).sum()
    return GaussianBarycenter(middle, center, variance, change, done, outcome)


__all__ = [
    "GaussianBarycenter",
    "GaussianMap",
    "bures_barycenter",
    "bures_exp",
    "bures_geodesic",
    "bures_log",
    "bures_wasserstein",
]
