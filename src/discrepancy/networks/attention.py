"""Attention among the points of a set, in three kinds: quadratic, linear by features, and linear by learned mixtures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._validate import whole_number
from discrepancy.networks.linear import linear


class Attention(ABC):
    """How values V (..., n, v) are averaged for queries Q and keys K (..., n, k); `symmetric` says whether a permutation of the
    points permutes the answer alike."""

    symmetric: ClassVar[bool] = True

    @abstractmethod
    def build(self, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> nn.Module:
        """A module (Q, K, V) -> (..., n, v)."""


class _Softmax(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


@dataclass(frozen=True)
class SoftmaxAttention(Attention):
    """softmax(Q K^T / sqrt k) V: every point looks at every other; O(n^2) time and memory. Source: Vaswani et al. (2017)."""

    def build(self, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> nn.Module:
        """The module; it has no weights of its own."""
        return _Softmax()


class _Efficient(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q, -1) @ (torch.softmax(k, -2).mT @ v)


@dataclass(frozen=True)
class EfficientAttention(Attention):
    """softmax over features of Q, times (softmax over points of K)^T V; O(n k v) time. Source: Shen et al. (2021)."""

    def build(self, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> nn.Module:
        """The module; it has no weights of its own."""
        return _Efficient()


class _Linear(nn.Module):
    def __init__(self, points: int, rank: int, generator: torch.Generator | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.points = points
        self.keys = linear(points, rank, bias=False, generator=generator, dtype=dtype)
        self.values = linear(points, rank, bias=False, generator=generator, dtype=dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[-2] != self.points:
            raise ValueError(
                f"this attention was built for {self.points} points and got {q.shape[-2]}: take EfficientAttention()"
            )
        keys, values = self.keys(k.mT).mT, self.values(v.mT).mT
        return torch.softmax(q @ keys.mT / math.sqrt(q.shape[-1]), -1) @ values


@dataclass(frozen=True)
class LinearAttention(Attention):
    """Keys and values mixed along the points into `rank` learned ones, then softmax attention; O(n rank) time.

    Built for sets of exactly `points` points in a fixed order: a permutation of them changes the answer. Any other number
    raises ValueError. Source: Wang et al. (2020).
    """

    points: int
    rank: int = 64
    symmetric: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise ValueError unless both numbers are at least 1."""
        for name in ("points", "rank"):
            value = getattr(self, name)
            whole_number(value, 1, name)

    def build(self, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> nn.Module:
        """The module with its two mixing matrices (rank, points)."""
        return _Linear(self.points, self.rank, generator, dtype)


__all__ = ["Attention", "EfficientAttention", "LinearAttention", "SoftmaxAttention"]
