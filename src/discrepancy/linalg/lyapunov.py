"""Lyapunov's operator V -> P V + V P of a symmetric positive semidefinite P: its inverse and its powers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy.linalg.symmetric import power_slope


class _Lyapunov(torch.autograd.Function):
    """The solution of P S + S P = V; its adjoint is the same equation."""

    @staticmethod
    def forward(ctx, P, V):  # type: ignore[override]
        values, vectors = torch.linalg.eigh(P)
        ctx.save_for_backward(values, vectors)
        solution = _in_basis(values, vectors, V)
        ctx.solution = solution
        return solution

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        values, vectors = ctx.saved_tensors
        adjoint = _in_basis(values, vectors, (grad + grad.mT) / 2)
        product = adjoint @ ctx.solution
        return -(product + product.mT), adjoint


def _in_basis(values: Tensor, vectors: Tensor, V: Tensor) -> Tensor:
    total = values[..., :, None] + values[..., None, :]
    inner = vectors.mT @ V @ vectors
    solved = torch.where(total > 0, inner / torch.where(total > 0, total, torch.ones_like(total)), torch.zeros_like(inner))
    return vectors @ solved @ vectors.mT


def lyapunov(P: Float[Tensor, "... d d"], V: Float[Tensor, "... d d"]) -> Float[Tensor, "... d d"]:
    """S with P S + S P = V for symmetric positive semidefinite P and symmetric V; differentiable in both.

    On the null space of P, where there is no solution unless V vanishes there, S is zero. d^3 time.
    """
    return _Lyapunov.apply(P, V)  # type: ignore[return-value]


class _LyapunovPower(torch.autograd.Function):
    """L^e V in the eigenbasis of P: entry (i, j) times (l_i + l_j)^e; for the derivative in P, divided differences of s^e."""

    @staticmethod
    def forward(ctx, P, V, exponent):  # type: ignore[override]
        values, vectors = torch.linalg.eigh(P)
        values = values.clamp_min(0)
        inner = vectors.mT @ V @ vectors
        total = values[..., :, None] + values[..., None, :]
        factors = torch.where(
            total > 0, torch.where(total > 0, total, torch.ones_like(total)) ** exponent, torch.zeros_like(total)
        )
        ctx.save_for_backward(total, vectors, inner, factors)
        ctx.exponent, ctx.shape = exponent, P.shape
        return vectors @ (factors * inner) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        total, vectors, inner, factors = ctx.saved_tensors
        outer = vectors.mT @ ((grad + grad.mT) / 2) @ vectors
        slope = None
        if ctx.needs_input_grad[0]:
            # <G, d(L^e) V> sums over the index that the two eigenvalues of a divided difference are paired with.
            divided = power_slope(total[..., :, None, :], total[..., None, :, :], ctx.exponent)
            half = torch.einsum("...abj,...aj,...bj->...ab", divided, outer, inner)
            slope = (vectors @ (half + half.mT) @ vectors.mT).sum_to_size(ctx.shape)
        return slope, vectors @ (factors * outer) @ vectors.mT if ctx.needs_input_grad[1] else None, None


def lyapunov_power(P: Float[Tensor, "... d d"], V: Float[Tensor, "... d d"], exponent: float) -> Float[Tensor, "... d d"]:
    """L^e V for Lyapunov's operator L: V -> P V + V P of symmetric positive semidefinite P, and symmetric V; differentiable.

    e = -1 is `lyapunov`. In the Bures-Wasserstein geometry (L / 2)^1/2 carries tangent vectors of covariance matrices from the
    identity to P, and (L / 2)^-1/2 back, without changing their length. On the null space of L the answer is zero. d^3 time,
    d^3 memory for the derivative in P. Leading axes broadcast.
    """
    shape = torch.broadcast_shapes(P.shape[:-2], V.shape[:-2])
    return _LyapunovPower.apply(P, V.expand(*shape, *V.shape[-2:]), exponent)  # type: ignore[return-value]


__all__ = ["lyapunov", "lyapunov_power"]
