"""Functions of symmetric matrices, differentiable where eigenvalues coincide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Scalar = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]


class _SymmetricFunction(torch.autograd.Function):
    """U f(lambda) U^T, differentiated by Daleckii and Krein: the derivative in the eigenbasis is f's divided difference."""

    @staticmethod
    def forward(ctx, matrix, f, divided):  # type: ignore[override]
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.divided = divided
        return (vectors * f(values)[..., None, :]) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        values, vectors = ctx.saved_tensors
        inner = vectors.mT @ ((grad + grad.mT) / 2) @ vectors
        slope = ctx.divided(values[..., :, None], values[..., None, :])
        return vectors @ (inner * slope) @ vectors.mT, None, None


def symmetric_function(matrix: Float[Tensor, "... d d"], f: Scalar, divided: Slope) -> Float[Tensor, "... d d"]:
    """f applied to the eigenvalues of symmetric matrices; gradients stay finite where eigenvalues coincide.

    divided(s, t) is the divided difference (f(s) - f(t)) / (s - t), f'(s) where they are equal: autograd through an
    eigendecomposition divides by s - t instead and returns NaN there. One eigendecomposition, d^3 time. First derivatives
    only. Source: Daleckii and Krein (1965).
    """
    return _SymmetricFunction.apply(matrix, f, divided)  # type: ignore[return-value]


def _log_ratio(s: Tensor, t: Tensor) -> Tensor:
    """log(s / t) for positive s and t, to full relative accuracy where they nearly agree."""
    return torch.log1p((s - t) / t)


def _quotient(numerator: Tensor, denominator: Tensor, limit: Tensor) -> Tensor:
    """numerator / denominator with the limit where the denominator is zero."""
    same = denominator == 0
    return torch.where(same, limit, numerator / torch.where(same, torch.ones_like(denominator), denominator))


def power_slope(s: Tensor, t: Tensor, exponent: float) -> Tensor:
    """(s^e - t^e) / (s - t), e s^(e - 1) where s = t, for s, t >= 0; nothing cancels, and a zero counts as 0^e = 0, slope 0."""
    s, t = s.clamp_min(0), t.clamp_min(0)
    if exponent == 0.5:
        total = s.sqrt() + t.sqrt()
        return torch.where(total > 0, 1 / torch.where(total > 0, total, torch.ones_like(total)), torch.zeros_like(total))
    both = (s > 0) & (t > 0)
    u, v = torch.where(both, s, torch.ones_like(s)), torch.where(both, t, torch.ones_like(t))
    r = _log_ratio(u, v)
    inside = v ** (exponent - 1) * _quotient(torch.expm1(exponent * r), torch.expm1(r), torch.full_like(r, exponent))
    top = torch.maximum(s, t)  # one of the two is zero
    safe = torch.where(top > 0, top, torch.ones_like(top))
    edge = torch.where(top > 0, safe ** (exponent - 1), torch.zeros_like(top))
    return torch.where(both, inside, edge)


def symmetric_power(matrix: Float[Tensor, "... d d"], exponent: float) -> Float[Tensor, "... d d"]:
    """matrix^exponent for symmetric positive definite matrices, differentiable.

    With an exponent in (0, 1] eigenvalues that are zero, or negative by rounding, count as zero, with derivative zero there;
    any other exponent of a singular matrix gives infinities. d^3 time.
    """

    def f(values: Tensor) -> Tensor:
        return values.clamp_min(0) ** exponent

    return symmetric_function(matrix, f, lambda s, t: power_slope(s, t, exponent))


def symmetric_log(matrix: Float[Tensor, "... d d"]) -> Float[Tensor, "... d d"]:
    """The logarithm of symmetric positive definite matrices, differentiable. d^3 time."""

    def divided(s: Tensor, t: Tensor) -> Tensor:
        r = _log_ratio(s, t)
        return _quotient(r, torch.expm1(r), torch.ones_like(r)) / t

    return symmetric_function(matrix, torch.log, divided)


def symmetric_exp(matrix: Float[Tensor, "... d d"]) -> Float[Tensor, "... d d"]:
    """The exponential of symmetric matrices, differentiable. d^3 time."""

    def divided(s: Tensor, t: Tensor) -> Tensor:
        gap = s - t
        return t.exp() * _quotient(torch.expm1(gap), gap, torch.ones_like(gap))

    return symmetric_function(matrix, torch.exp, divided)


def symmetric_floor(matrix: Float[Tensor, "... d d"], floor: float) -> Float[Tensor, "... d d"]:
    """Symmetric matrices with eigenvalues below `floor` raised to it: the nearest with spectrum at least that. Differentiable.

    At an eigenvalue that equals the floor the derivative is zero. d^3 time.
    """

    def divided(s: Tensor, t: Tensor) -> Tensor:
        above_s, above_t = s > floor, t > floor
        mixed = (torch.maximum(s, t) - floor) / torch.where(above_s != above_t, (s - t).abs(), torch.ones_like(s))
        return torch.where(above_s == above_t, (above_s & above_t).to(s.dtype), mixed)

    return symmetric_function(matrix, lambda values: values.clamp_min(floor), divided)


__all__ = ["power_slope", "symmetric_exp", "symmetric_floor", "symmetric_function", "symmetric_log", "symmetric_power"]
