"""Networks that name, for a pair of point sets, the direction to look along."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import whole_number
from discrepancy.networks import MLP, Attention, EfficientAttention
from discrepancy.networks.linear import linear


def _unit(z: Tensor) -> Tensor:
    """z over its length; where it is zero no direction is preferred and the first axis serves."""
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    first = torch.zeros_like(z)
    first[..., 0] = 1
    return torch.where(length > 0, z / torch.where(length > 0, length, torch.ones_like(length)), first)


def _check_dim(dim: Any) -> int:
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 2:
        raise ValueError(f"dim must be a whole number of at least 2, the coordinates of a point, got {dim!r}")
    return dim


class SelfAttentionSlicer(nn.Module):
    """f(X, Y) = (A(X) + A(Y)) / |A(X) + A(Y)|, where A(X) is the mean over points of one head of self-attention on X.

    X (..., n, dim) and Y (..., m, dim) give unit vectors (..., dim). Queries and keys have `key_dim` features, values `dim`. The
    same for (Y, X), and, for an attention that is symmetric in the points (`SoftmaxAttention`, `EfficientAttention`; not
    `LinearAttention`), in any order of the points. Weights are drawn from `generator`. Source: Nguyen, Nguyen and Ho (2023).
    """

    def __init__(
        self,
        dim: int,
        key_dim: int = 64,
        attention: Attention | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the projections and the attention (`EfficientAttention()` if None)."""
        super().__init__()
        _check_dim(dim)
        whole_number(key_dim, 1, "key_dim")
        kind = EfficientAttention() if attention is None else attention
        if not isinstance(kind, Attention):
            raise TypeError(f"attention must be an object such as EfficientAttention(), got {attention!r}")
        self.kind = kind
        self.query = linear(dim, key_dim, generator=generator, dtype=dtype)
        self.key = linear(dim, key_dim, generator=generator, dtype=dtype)
        self.value = linear(dim, dim, generator=generator, dtype=dtype)
        self.attention = kind.build(generator=generator, dtype=dtype)

    def _summary(self, points: Tensor) -> Tensor:
        return self.attention(self.query(points), self.key(points), self.value(points)).mean(-2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The direction for each pair."""
        return _unit(self._summary(x) + self._summary(y))


class LinearSlicer(nn.Module):
    """f(X, Y) = unit vector along outer(c + sum_i w_i inner(x_i) + sum_j v_j inner(y_j)): the earlier amortised models.

    With neither network it is the linear one, with `inner` (a map of each point) the generalised linear, with `outer` the
    non-linear one. Built for n = m = `points` in a fixed order: a permutation of the points, or exchanging X and Y, changes the
    answer; other numbers of points raise ValueError. Source: Nguyen and Ho (2022), compared with in Nguyen et al. (2023).
    """

    def __init__(
        self,
        dim: int,
        points: int,
        *,
        inner: MLP | None = None,
        outer: MLP | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the mixing weights and the networks."""
        super().__init__()
        _check_dim(dim)
        whole_number(points, 1, "points")
        self.points = points
        mixing = linear(2 * points, dim, generator=generator, dtype=dtype)
        self.weights = nn.Parameter(mixing.weight[0].detach().clone())
        self.offset = nn.Parameter(mixing.bias.detach().clone())
        self.inner = nn.Identity() if inner is None else inner.build(dim, dim, generator=generator, dtype=dtype)
        self.outer = nn.Identity() if outer is None else outer.build(dim, dim, generator=generator, dtype=dtype)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The direction for each pair."""
        for name, points in (("x", x), ("y", y)):
            if points.shape[-2] != self.points:
                raise ValueError(f"this slicer was built for {self.points} points and {name} has {points.shape[-2]}")
        both = self.inner(torch.cat([x, y], -2))
        return _unit(self.outer(self.offset + (self.weights[:, None] * both).sum(-2)))


__all__ = ["LinearSlicer", "SelfAttentionSlicer"]
