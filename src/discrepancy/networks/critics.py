"""Critics: networks that score a pair, for bounds on mutual information and dual distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default
from discrepancy.networks.mlp import MLP


class BilinearCritic(nn.Module):
    """f(u, v) = u^T W v between features u (n, k) and v (m, l): all pairs (n, m) by `forward`, row by row (n,) by `pairs`.

    W starts Gaussian with variance 1 / (k l), so that scores of unit-variance features have unit variance.
    """

    def __init__(
        self, left: int, right: int, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """A critic of features of widths `left` and `right`."""
        super().__init__()
        source = generator_or_default(generator)
        self.weight = nn.Parameter(torch.randn(left, right, generator=source, dtype=dtype) / math.sqrt(left * right))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of all pairs."""
        return u @ self.weight @ v.mT

    def pairs(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of u_i with v_i."""
        return ((u @ self.weight) * v).sum(-1)


class ConcatenatedCritic(nn.Module):
    """f(u, v) = network([u, v]) with the same two calls; all pairs cost n m passes through the network."""

    def __init__(
        self,
        left: int,
        right: int,
        network: MLP | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """A critic of features of widths `left` and `right`; `network` describes its layers."""
        super().__init__()
        self.net = (MLP() if network is None else network).build(left + right, 1, generator=generator, dtype=dtype)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of all pairs."""
        n, m = u.shape[-2], v.shape[-2]
        return self.pairs(u[:, None].expand(n, m, -1), v[None].expand(n, m, -1))

    def pairs(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of u_i with v_i."""
        return self.net(torch.cat([u, v], -1))[..., 0]


class SeparableCritic(nn.Module):
    """f(u, v) = g(u)^T h(v) with two networks of `features` outputs: all pairs cost n + m passes and one matrix product."""

    def __init__(
        self,
        left: int,
        right: int,
        network: MLP | None = None,
        features: int = 32,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """A critic of points of widths `left` and `right`; `network` describes the layers of g and h."""
        super().__init__()
        shape = MLP() if network is None else network
        self.left = shape.build(left, features, generator=generator, dtype=dtype)
        self.right = shape.build(right, features, generator=generator, dtype=dtype)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of all pairs."""
        return self.left(u) @ self.right(v).mT

    def pairs(self, u: Tensor, v: Tensor) -> Tensor:
        """Scores of u_i with v_i."""
        return (self.left(u) * self.right(v)).sum(-1)


__all__ = ["BilinearCritic", "ConcatenatedCritic", "SeparableCritic"]
