"""The perspective q f(p / q) of a generator on whole tensors: support handling, and gradients that are never NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from discrepancy.divergences.elementary import log_ratio

if TYPE_CHECKING:
    from discrepancy.divergences.f_divergence import FDivergence


def finite_or_flat(formula: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """formula(u), elementwise, where an infinite value has gradient zero."""
    value = formula(u)
    infinite = torch.isinf(value.detach())
    if not (value.requires_grad and bool(infinite.any())):
        return value
    again = formula(torch.where(infinite, torch.zeros_like(u), u))
    return torch.where(infinite, torch.full_like(again, torch.inf), again)


def log_perspective(f: FDivergence, log_p: Tensor, log_q: Tensor) -> Tensor:
    """q f(p / q), elementwise, from log-probabilities of which -inf is no mass; the terms at an edge of the support are
    q f(0) and p f'(inf)."""
    empty_p, empty_q = log_p == -torch.inf, log_q == -torch.inf
    edge = empty_p | empty_q
    zero = torch.zeros_like(log_p)
    lp, lq = torch.where(edge, zero, log_p), torch.where(edge, zero, log_q)
    terms = torch.where(edge, zero, f._perspective(lp, lq, lp - lq))
    for here, log_mass, price in ((empty_p & ~empty_q, log_q, f.at_zero), (empty_q & ~empty_p, log_p, f.slope_at_infinity)):
        if math.isfinite(price):
            cost = price * torch.exp(torch.where(here, log_mass, zero))
        else:
            cost = torch.full_like(zero, torch.inf)
        # A mass that underflows still costs infinitely much: it is not zero.
        terms = torch.where(here, cost, terms)
    return terms


_PIECE = 1 << 16  # entries whose temporaries the second-level cache holds


def _by_pieces(formula: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """formula of tensors of one shape, elementwise, a piece at a time: its temporaries are not of the tensors' size."""
    first = tensors[0]
    if first.numel() <= _PIECE or torch.is_grad_enabled():
        return formula(*tensors)
    flat = [t.reshape(-1) for t in tensors]
    out = torch.empty_like(flat[0])
    for start in range(0, out.numel(), _PIECE):
        here = slice(start, start + _PIECE)
        out[here] = formula(*(t[here] for t in flat))
    return out.view(first.shape)


class _Perspective(torch.autograd.Function):
    """The gradient in p is f'(p/q) and in q that of the reversed generator, at q/p; infinite slopes contribute nothing."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, f: FDivergence) -> Tensor:
        ctx.save_for_backward(p, q)
        ctx.f = f
        return _by_pieces(lambda a, b: _terms(f, a, b), p, q)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        p, q = ctx.saved_tensors
        f: FDivergence = ctx.f
        need_p, need_q, _ = ctx.needs_input_grad
        return (
            _by_pieces(lambda g, a, b: g * _ratio_slope(f, a, b), grad, p, q) if need_p else None,
            _by_pieces(lambda g, a, b: g * _ratio_slope(f.reversed(), b, a), grad, p, q) if need_q else None,
            None,
        )


def _terms(f: FDivergence, p: Tensor, q: Tensor) -> Tensor:
    inside = (p > 0) & (q > 0)
    one = torch.ones_like(p)
    sp, sq = torch.where(inside, p, one), torch.where(inside, q, one)
    terms = torch.where(inside, f._perspective(sp.log(), sq.log(), log_ratio(sp, sq)), torch.zeros_like(p))
    for here, mass, price in (((p == 0) & (q > 0), q, f.at_zero), ((q == 0) & (p > 0), p, f.slope_at_infinity)):
        terms = torch.where(here, torch.where(here, mass, one) * price, terms)
    return terms


def _ratio_slope(f: FDivergence, p: Tensor, q: Tensor) -> Tensor:
    inside = (p > 0) & (q > 0)
    one = torch.ones_like(p)
    u = log_ratio(torch.where(inside, p, one), torch.where(inside, q, one))
    return _slope(f, u, inside, (p == 0) & (q > 0), (q == 0) & (p > 0))


def _slope(f: FDivergence, u: Tensor, inside: Tensor, at_zero: Tensor, at_infinity: Tensor) -> Tensor:
    zero = torch.zeros_like(u)
    slope = torch.where(inside, f._derivative(u), zero)
    slope = torch.where(torch.isfinite(slope), slope, zero)
    for here, limit in ((at_zero, f.slope_at_zero), (at_infinity, f.slope_at_infinity)):
        if math.isfinite(limit):
            slope = torch.where(here, torch.full_like(u, limit), slope)
    return slope


def perspective(f: FDivergence, p: Tensor, q: Tensor) -> Tensor:
    """q f(p / q), elementwise, from probabilities: q f(0) where p = 0, p f'(inf) where q = 0, nothing where both are."""
    return _Perspective.apply(p, q, f)  # type: ignore[return-value]


__all__ = ["finite_or_flat", "log_perspective", "perspective"]
