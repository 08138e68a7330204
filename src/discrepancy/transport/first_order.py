"""Gradients by the envelope theorem are first derivatives: differentiating one again is refused, not silently wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Marked(torch.autograd.Function):
    """A gradient as it is, tied to what it depends on, so that a second derivative arrives here and is refused."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, advice: str, *anchors: Tensor) -> Tensor:
        ctx.advice = advice
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"a gradient by the envelope theorem has no second derivative here: {ctx.advice}")


def first_order_only(gradient: Tensor | None, advice: str, *anchors: Tensor) -> Tensor | None:
    """The gradient, marked under create_graph=True so that its derivative in any of the anchors raises RuntimeError with the
    advice."""
    if gradient is None or not torch.is_grad_enabled():
        return gradient
    return _Marked.apply(gradient.detach(), advice, *anchors)  # type: ignore[return-value]


__all__ = ["first_order_only"]
