"""All rotations of R^d, acting on one point or on several labelled points at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.groups.group import Group


@dataclass(frozen=True)
class Rotation(Group):
    """The rotations of R^d about the origin, SO(d), or with `reflections` all orthogonal maps, O(d).

    A row holds `points` labelled points of d coordinates each, one after the other (a molecule, landmarks), which turn
    together. `align` is the closed form of Kabsch (1976): from the singular value decomposition U S V^T of sum_k x_k y_k^T the
    rotation is U diag(1, ..., 1, det(U V^T)) V^T; O(points d^2 + d^3) a row. Move the points to their centroid first if position
    means nothing.
    """

    d: int
    points: int = 1
    reflections: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless d is at least 2 (1 with reflections) and points at least 1."""
        whole_number(self.d, 1 if self.reflections else 2, "d")
        whole_number(self.points, 1, "points")

    @property
    def order(self) -> None:
        """Infinite."""
        return None

    @property
    def dimension(self) -> int:
        """points * d."""
        return self.points * self.d

    def align(self, x: Tensor, y: Tensor) -> Tensor:
        """Every y_i turned to lie best on x_i."""
        x, y = torch.broadcast_tensors(x, y)
        moved = self._points(y)
        with torch.no_grad():
            target, given = self._points(x.detach()).double(), moved.detach().double()
            left, _, right = torch.linalg.svd(target.mT @ given)
            if not self.reflections:
                sign = torch.linalg.det(left @ right)
                left = torch.cat([left[..., :-1], left[..., -1:] * sign[..., None, None]], -1)
            turn = (left @ right).to(y.dtype)
            turned = given @ turn.double().mT
            # Where turning gains nothing the point stays as it is: equal points are then exactly at distance zero.
            gains = (target - turned).square().sum((-2, -1)) < (target - given).square().sum((-2, -1))
        return torch.where(gains[..., None], (moved @ turn.mT).flatten(-2), y)

    def random(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Every row turned by a rotation of its own from the uniform (Haar) law. Source: Stewart (1980)."""
        source = generator_or_default(generator, x.device)
        normal = torch.randn(*x.shape[:-1], self.d, self.d, generator=source, device=x.device, dtype=torch.float64)
        turn, upper = torch.linalg.qr(normal)
        turn = turn * torch.sign(upper.diagonal(dim1=-2, dim2=-1))[..., None, :]
        if not self.reflections:
            sign = torch.linalg.det(turn)
            turn = torch.cat([turn[..., :-1], turn[..., -1:] * sign[..., None, None]], -1)
        return (self._points(x) @ turn.to(x.dtype).mT).flatten(-2)

    def _points(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.points, self.d))


__all__ = ["Rotation"]
