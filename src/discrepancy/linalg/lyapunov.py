"""Lyapunov's operator V -> P V + V P of a symmetric positive semidefinite P: its inverse and its powers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


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


__all__ = ["lyapunov"]
