"""The affine-invariant geometry of symmetric positive definite matrices: congruences P -> A P A^T change no distance.

With P = L L^T everything is a function of the whitened matrix L^-1 Q L^-T: the choice of factor does not matter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import NumericalError, Outcome
from discrepancy.linalg.roots import root
from discrepancy.linalg.symmetric import symmetric_exp, symmetric_log, symmetric_power


def congruence(A: Float[Tensor, "... d k"], S: Float[Tensor, "... k k"]) -> Float[Tensor, "... d d"]:
    """A S A^T for symmetric S, symmetric to the last bit."""
    product = A @ S @ A.mT
    return (product + product.mT) / 2


def _through(P: Tensor, Q: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """L f(L^-1 Q L^-T) L^T with P = L L^T."""
    lower = _cholesky(P)
    return congruence(lower, function(_whitened(lower, Q)))


def _cholesky(P: Tensor) -> Tensor:
    lower, info = torch.linalg.cholesky_ex(P)
    if bool((info > 0).any()):
        raise ValueError("the affine-invariant geometry needs positive definite matrices: a singular one is infinitely far away")
    return lower


def _whitened(lower: Tensor, Q: Tensor) -> Tensor:
    half = torch.linalg.solve_triangular(lower, Q, upper=False)
    full = torch.linalg.solve_triangular(lower, half.mT, upper=False)
    return (full + full.mT) / 2


def affine_invariant_distance(P: Float[Tensor, "... d d"], Q: Float[Tensor, "... d d"]) -> Float[Tensor, "..."]:
    """|log(P^-1/2 Q P^-1/2)|_F = sqrt(sum log^2 of the eigenvalues of P^-1 Q), for positive definite matrices.

    No unit; differentiable, with gradient zero at coincidence, where it is exactly zero; symmetric up to rounding. Invariant
    under congruence and inversion. Raises ValueError where P is not positive definite. d^3 time. Source: Pennec, Fillard and
    Ayache (2006).
    """
    P, Q = torch.broadcast_tensors(P, Q)
    squared = symmetric_log(_whitened(_cholesky(P), Q)).square().sum((-1, -2))
    same = (P == Q).flatten(-2).all(-1)
    return root(torch.where(same, torch.zeros_like(squared), squared), 2)


def affine_invariant_log(P: Float[Tensor, "... d d"], Q: Float[Tensor, "... d d"]) -> Float[Tensor, "... d d"]:
    """The velocity at P of the geodesic that reaches Q at time 1, P^1/2 log(P^-1/2 Q P^-1/2) P^1/2. d^3 time."""
    return _through(P, Q, symmetric_log)


def affine_invariant_exp(P: Float[Tensor, "... d d"], V: Float[Tensor, "... d d"]) -> Float[Tensor, "... d d"]:
    """Where the geodesic from P with velocity V is at time 1, P^1/2 exp(P^-1/2 V P^-1/2) P^1/2. d^3 time."""
    return _through(P, V, symmetric_exp)


def affine_invariant_geodesic(P: Float[Tensor, "... d d"], Q: Float[Tensor, "... d d"], t: float) -> Float[Tensor, "... d d"]:
    """P^1/2 (P^-1/2 Q P^-1/2)^t P^1/2: P at t = 0, Q at t = 1, the geometric mean at t = 1/2. d^3 time."""
    return _through(P, Q, lambda inner: symmetric_power(inner, t))


@torch.no_grad()
def affine_invariant_mean(
    matrices: Float[Tensor, "k d d"],
    weights: Float[Tensor, " k"],
    *,
    start: Float[Tensor, "d d"] | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 100,
) -> Float[Tensor, "d d"]:
    """The matrix G that minimises sum_k w_k d(G, P_k)^2, unique; `weights` sum to one.

    G <- G^1/2 exp(s sum_k w_k log(G^-1/2 P_k G^-1/2)) G^1/2 from the weighted arithmetic mean (or `start`), with s = 1, halved
    whenever the mean logarithm, which vanishes at G, would grow. Stops when its Frobenius norm is at most `tolerance` (or 8 d
    roundings), or warns (`ConvergenceWarning`). K d^3 an iteration, usually fewer than ten. Source: Moakher (2005).
    """
    center = torch.einsum("k,kde->de", weights, matrices) if start is None else start
    tolerance = max(tolerance, 8 * center.shape[-1] * torch.finfo(center.dtype).eps)

    def mean_log(at: Tensor) -> tuple[Tensor, Tensor]:
        lower = _cholesky(at)
        return lower, torch.einsum("k,kde->de", weights, symmetric_log(_whitened(lower, matrices)))

    (lower, slope), rate = mean_log(center), 1.0
    size, outcome = float(slope.norm()), Outcome.ITERATION_LIMIT
    for _ in range(max_iterations):
        if not size < torch.inf:
            raise NumericalError("affine_invariant_mean: the mean logarithm is not finite; are all matrices positive definite?")
        if size <= tolerance or rate < 1e-3:
            outcome = Outcome.CONVERGED if size <= tolerance else Outcome.EXHAUSTED
            break
        trial = congruence(lower, symmetric_exp(rate * slope))
        next_lower, next_slope = mean_log(trial)
        next_size = float(next_slope.norm())
        if next_size > size:
            rate /= 2
            continue
        center, lower, slope, size = trial, next_lower, next_slope, next_size
    else:
        outcome = Outcome.CONVERGED if size <= tolerance else Outcome.ITERATION_LIMIT
    outcome.warn("affine_invariant_mean")
    return center


__all__ = [
    "affine_invariant_distance",
    "affine_invariant_exp",
    "affine_invariant_geodesic",
    "affine_invariant_log",
    "affine_invariant_mean",
    "congruence",
]
