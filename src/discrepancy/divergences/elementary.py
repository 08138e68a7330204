"""Elementary functions that divergences share, without cancellation near equality."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _exp_excess(v: Tensor) -> Tensor:
    small = v.abs() < 1
    w = torch.where(small, v, torch.zeros_like(v))
    s = w * w
    # sinh(w) - w = w^3/3! + w^5/5! + ... in nested form; with |w| < 1 the first term left out is below w^3 * 1e-17.
    series = torch.ones_like(s)
    for denominator in (342.0, 272.0, 210.0, 156.0, 110.0, 72.0, 42.0, 20.0):
        series = 1 + s / denominator * series
    near = 2 * torch.sinh(w / 2) ** 2 + w * s / 6 * series
    far = torch.where(v == torch.inf, v, torch.expm1(v) - torch.where(v == torch.inf, torch.zeros_like(v), v))
    return torch.where(small, near, far)


class _ExpExcess(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return _exp_excess(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        return grad * torch.expm1(v)

    jvp = backward  # type: ignore[assignment]  (one input, one output, elementwise)


class _EntropyExcess(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor) -> Tensor:
        small = u.abs() < 1
        near = torch.exp(u) * _exp_excess(torch.where(small, -u, torch.zeros_like(u)))
        return torch.where(small, near, torch.exp(u) * u - torch.expm1(u))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        return grad * u * torch.exp(u)

    jvp = backward  # type: ignore[assignment]  (one input, one output, elementwise)


def exp_excess(v: Tensor) -> Tensor:
    """e^v - 1 - v >= 0, to full relative accuracy; derivative e^v - 1. Elementwise."""
    return _ExpExcess.apply(v)  # type: ignore[return-value]


def entropy_excess(u: Tensor) -> Tensor:
    """t log t - t + 1 >= 0 at t = e^u, to full relative accuracy; derivative in u is u e^u. Elementwise, u finite."""
    return _EntropyExcess.apply(u)  # type: ignore[return-value]


def log_ratio(p: Tensor, q: Tensor) -> Tensor:
    """log(p / q) for p, q > 0, exactly antisymmetric and accurate where p is close to q. Elementwise."""
    small, large = torch.minimum(p, q), torch.maximum(p, q)
    close = small > large / 2
    # For p within a factor 2 of q the difference is exact in floating point, so log1p keeps its relative accuracy.
    near = torch.log1p(torch.where(close, (small - large) / large, torch.zeros_like(p)))
    far = torch.where(close, torch.ones_like(p), small).log() - torch.where(close, torch.ones_like(p), large).log()
    size = torch.where(close, near, far)
    return torch.where(p <= q, size, -size)


class _WrightOmega(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        # w + log w = z by Newton in v = log w: e^v + v - z is convex and increasing, so that the iteration descends to the root.
        v = torch.where(z > 1, torch.log(torch.where(z > 1, z, torch.ones_like(z))), z)
        for _ in range(12):
            w = torch.exp(v)
            v = v - (w + v - z) / (w + 1)
        return torch.exp(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (w,) = ctx.saved_tensors
        return grad * w / (1 + w)


def wright_omega(z: Tensor) -> Tensor:
    """The w > 0 with w + log w = z, that is Lambert's W(e^z) without overflow; derivative w / (1 + w). Elementwise."""
    return _WrightOmega.apply(z)  # type: ignore[return-value]


__all__ = ["entropy_excess", "exp_excess", "log_ratio", "wright_omega"]
