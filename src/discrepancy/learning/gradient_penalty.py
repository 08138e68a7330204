"""The penalty on a critic's slope: what keeps a network near the functions of Lipschitz constant one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least, generator_or_default, positive


@dataclass(frozen=True)
class GradientPenalty:
    """weight E (|grad f| - slope)^2 at points between two laws; with `one_sided` only slopes above `slope` count.

    Raises ValueError for a negative weight or a slope that is not positive. Source: Gulrajani, Ahmed, Arjovsky, Dumoulin and
    Courville (2017, 1704.00028).
    """

    weight: float = 10.0
    slope: float = 1.0
    one_sided: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        at_least(self.weight, 0, "weight")
        positive(self.slope, "slope")

    def of(self, slopes: Tensor) -> Tensor:
        """The penalty of gradient norms (B,)."""
        return self.weight * self._squares(slopes).mean()

    def each(self, slopes: Tensor) -> Tensor:
        """Its terms (B,), whose mean is the penalty."""
        return self.weight * self._squares(slopes)

    def _squares(self, slopes: Tensor) -> Tensor:
        over = slopes - self.slope
        return (over.clamp_min(0) if self.one_sided else over).square()


def slopes_at(score: Callable[..., Tensor], *points: Tensor, create_graph: bool = True) -> Tensor:
    """|grad score| (B,) in all arguments together at points (B, ...), for a score (B,) that treats row by row.

    Differentiable in the score's weights with `create_graph`. Where the gradient is zero, so is its slope, with gradient zero.
    """
    at = [p.detach().requires_grad_() for p in points]
    with torch.enable_grad():
        gradients = torch.autograd.grad(score(*at).sum(), at, create_graph=create_graph, materialize_grads=True)
    square = torch.stack([g.flatten(1).square().sum(-1) for g in gradients]).sum(0)
    flat = square == 0
    return torch.where(flat, torch.zeros_like(square), torch.where(flat, torch.ones_like(square), square).sqrt())


def uniform_between(near: Tensor, far: Tensor, share: Tensor) -> Tensor:
    """near + share (far - near) with one share (B,) a row of near and far (B, ...)."""
    t = share.reshape(-1, *[1] * (near.ndim - 1)).to(near.dtype)
    return near + t * (far - near)


def slopes_between(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator | None = None,
    create_graph: bool = True,
) -> Tensor:
    """|grad score| (B,) at a uniform point of each segment from x_i to y_i, x and y (B, ...)."""
    share = torch.rand(x.shape[0], generator=generator_or_default(generator), dtype=x.dtype).to(x.device)
    return slopes_at(score, uniform_between(x, y, share), create_graph=create_graph)


__all__ = ["GradientPenalty", "slopes_at", "slopes_between", "uniform_between"]
