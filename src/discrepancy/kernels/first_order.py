"""Gradients that are computed in closed form have no second derivative to follow: asking for one is refused, not ignored."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


class _Refusal(torch.autograd.Function):
    """The identity, whose derivative is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError("this gradient is in closed form and cannot be differentiated again: only first derivatives exist")


def first_order(backward: Backward) -> Backward:
    """Decorate the backward pass of an autograd function whose gradients are constants to autograd.

    Under create_graph=True (a gradient penalty, a Hessian) the gradients come out marked, and differentiating them raises
    RuntimeError; without the mark a second derivative would silently be zero.
    """

    @wraps(backward)
    def refusing(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        return tuple(None if g is None else _Refusal.apply(g.detach().requires_grad_()) for g in found)

    return refusing
