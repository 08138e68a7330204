"""The unit sphere with its geodesic distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, at_least, require_finite
from discrepancy.metric_spaces.descent import riemannian_mean
from discrepancy.metric_spaces.space import Center, MetricSpace, first_bad, rounding


class SphereGeometry:
    """Distances, logarithm and exponential of the unit sphere; vectors (..., d)."""

    def squared(self, a: Tensor, b: Tensor) -> Tensor:
        """(2 atan2(|a - b|, |a + b|))^2, the squared angle: exact near zero and pi, where arccos loses half of its digits."""
        apart, together = torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
        return (2 * torch.atan2(apart, together)).square()

    def look(self, o: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """Squared angles, and tangents as long as the angle; zero at the antipode, where no direction is shortest."""
        o = o.unsqueeze(1)
        across = Y - (o * Y).sum(-1, keepdim=True) * o
        length = torch.linalg.vector_norm(across, dim=-1, keepdim=True)
        squares = self.squared(o, Y)
        ratio = squares.sqrt().unsqueeze(-1) / torch.where(length > 0, length, torch.ones_like(length))
        return squares, torch.where(length > 0, across * ratio, 0.0)

    def exp(self, o: Tensor, v: Tensor) -> Tensor:
        """cos|v| o + sin|v| v/|v|, renormalised."""
        length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        moved = length.cos() * o + torch.special.sinc(length / torch.pi) * v
        return moved / torch.linalg.vector_norm(moved, dim=-1, keepdim=True)

    def square_norm(self, o: Tensor, v: Tensor) -> Tensor:
        """|v|^2."""
        return v.square().sum(-1)

    def unit(self, o: Tensor) -> Tensor:
        """One radian."""
        return torch.ones_like(o[..., 0])

    def mean(self, Y: Tensor, w: Tensor, max_iterations: int) -> Center:
        """Descent from the weighted average, normalised; where that vanishes, from the sample point of the smallest objective."""
        average = (w @ Y).detach()
        length = torch.linalg.vector_norm(average, dim=-1, keepdim=True)
        vague = length < rounding(Y) * w.detach().abs().sum(-1, keepdim=True)
        start = average / torch.where(vague, torch.ones_like(length), length)
        if bool(vague.any()):
            values = w.detach() @ self.squared(Y[:, None], Y[None, :]).detach()
            start = torch.where(vague, Y.detach()[values.argmin(-1)], start)
        return riemannian_mean(self, Y.detach(), w.detach(), start, max_iterations=max_iterations)


@dataclass(frozen=True)
class SphereSpace(MetricSpace):
    """Unit vectors (..., d) with the angle between them, in radians, as distance.

    Means by Riemannian descent from the normalised weighted average: unique for points within a quarter circle of one another
    and weights >= 0, else a local minimum. n d an iteration.
    """

    max_iterations: int = 500

    def __post_init__(self) -> None:
        """Raise ValueError unless max_iterations >= 1."""
        at_least(self.max_iterations, 1, "max_iterations")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Vectors (..., d) of length one, renormalised to rounding."""
        Y = as_tensor(Y, name)
        if Y.ndim == 0 or Y.shape[-1] == 0:
            raise ValueError(f"{name} must hold unit vectors (..., d), got shape {tuple(Y.shape)}")
        require_finite(Y, name)
        length = torch.linalg.vector_norm(Y, dim=-1, keepdim=True)
        bad = (length.detach()[..., 0] - 1).abs() > rounding(Y)
        if bool(bad.any()):
            raise ValueError(
                f"{name} has {int(bad.sum())} vector(s) that are not of length 1 (one of length "
                f"{float(length.detach()[..., 0][bad].flatten()[0]):.6g}): divide by the length"
            )
        return Y / length

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return SphereGeometry().squared(a, b)

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        return SphereGeometry().mean(Y, w, self.max_iterations)


def check_parts(Y: Any, name: str) -> Tensor:
    """Compositions (..., d): non-negative parts that sum to one."""
    Y = as_tensor(Y, name)
    if Y.ndim == 0 or Y.shape[-1] == 0:
        raise ValueError(f"{name} must hold compositions (..., d), got shape {tuple(Y.shape)}")
    require_finite(Y, name)
    if bool((Y < 0).any()):
        raise ValueError(f"{name} has negative parts at index {first_bad(Y < 0)}: compositions are shares")
    total = Y.sum(-1, keepdim=True)
    off = float((total.detach() - 1).abs().max())
    if off > rounding(Y):
        raise ValueError(f"{name} must sum to 1 along its last axis, got a sum off by {off:.3g}: divide by the sums")
    return Y / total


__all__ = ["SphereGeometry", "SphereSpace", "check_parts"]
