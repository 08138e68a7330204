"""Maps and potentials of entropic transport at points that were not in the samples.

Given the potential g at y, the optimal plan extends to any point z: it sends z to the points y_j with shares

    w_j(z) = softmax_j((g_j - c(z, y_j)) / epsilon + log b_j),

whose mean is the entropic map (barycentric projection) and whose normaliser is the soft-minimum that defines f(z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from discrepancy._results import TransportResult
from discrepancy._validate import sample
from discrepancy.costs import Cost
from discrepancy.transport.entropic.setting import Setting

# Bytes of one block of pairs, forward and backward.
_BLOCK_BYTES = 64 << 20

Step = Callable[[Tensor], Tensor]
Answer = TypeVar("Answer", bound=TransportResult)


@dataclass(frozen=True)
class _Proximal:
    """The proximal step of a relaxed marginal at fixed epsilon."""

    step: Callable[[Tensor, Tensor], Tensor]
    epsilon: Tensor

    def __call__(self, s: Tensor) -> Tensor:
        return self.step(s, self.epsilon.double()[..., None])


@dataclass(frozen=True)
class SoftMinimum:
    """A potential as a function of points: f(z) = -epsilon log sum_j b_j exp((g_j - c(z, y_j)) / epsilon).

    Called on z (..., k, d), whose batch broadcasts against that of the samples; returns (..., k) in the samples' dtype,
    differentiable in z. Computes in float64, in blocks of z: n m time and memory of one block, backward too. `targets` is y,
    (..., m, d), `flipped` says that the cost is c(y, z). `step`, a proximal step, makes it the potential of a relaxed marginal.
    """

    targets: Tensor
    log_weights: Tensor
    potential: Tensor
    epsilon: Tensor
    cost: Cost
    flipped: bool = False
    step: Step | None = None

    def __call__(self, z: Any) -> Tensor:
        """f at the rows of z; ValueError where z does not fit the samples."""
        points = self._points(z)

        def values(block: Tensor) -> Tensor:
            return -self._level * torch.logsumexp(self._exponents(block), -1)

        found = self._in_blocks(values, points)
        return (found if self.step is None else self.step(found)).to(self.targets.dtype)

    @property
    def _level(self) -> Tensor:
        return self.epsilon.double()[..., None]

    def _points(self, z: Any) -> Tensor:
        points = sample(z, "z", like=self.targets)
        if points.shape[-1] != self.targets.shape[-1]:
            raise ValueError(f"z has {points.shape[-1]} features and the samples have {self.targets.shape[-1]}")
        self.cost.check(points, "z")
        batch = torch.broadcast_shapes(points.shape[:-2], self.targets.shape[:-2])
        return points.expand(*batch, *points.shape[-2:]).double()

    def _exponents(self, block: Tensor) -> Tensor:
        """(g_j - c(z, y_j)) / epsilon + log b_j, shape (..., k, m)."""
        y = self.targets.double().expand(*block.shape[:-2], *self.targets.shape[-2:])
        cost = self.cost.matrix(y, block).mT if self.flipped else self.cost.matrix(block, y)
        return (self.potential.double()[..., None, :] - cost) / self._level[..., None] + self.log_weights.double()[..., None, :]

    def _in_blocks(self, function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        """The function on blocks of rows; a block is computed again for its gradient instead of being kept."""
        m, d = self.targets.shape[-2:]
        batch = max(1, points[..., 0, 0].numel())
        step = self.cost.block_size(m * batch, d, _BLOCK_BYTES, 8)
        pieces = []
        for start in range(0, points.shape[-2], step):
            block = points[..., start : start + step, :]
            if block.requires_grad and torch.is_grad_enabled():
                pieces.append(checkpoint(function, block, use_reentrant=False))
            else:
                pieces.append(function(block))
        return torch.cat(pieces, -1 if pieces[0].ndim < points.ndim else -2)  # type: ignore[arg-type]


@dataclass(frozen=True)
class EntropicMap:
    """T(z) = sum_j w_j(z) y_j, the mean of where the extended plan sends z: the barycentric projection out of sample.

    At a sample x_i it is sum_j P_ij y_j / sum_j P_ij. Under the squared Euclidean cost T(z) = z - grad f(z) / 2, which estimates
    the optimal (Brenier) map with bias O(epsilon); under other costs it is a mean of targets and nothing more: they must live in
    a space where means make sense. `itself`, that of x onto itself, gives the debiased map z + T(z) - T_x(z): the identity
    where the samples agree and z - (grad f - grad f_x) / 2 under the squared cost. Called on z (..., k, d); returns (..., k, d),
    differentiable in z; memory of one block. Source: Pooladian and Niles-Weed (2021); Pooladian, Cuturi and Niles-Weed (2022).
    """

    shares: SoftMinimum
    itself: SoftMinimum | None = None

    def __call__(self, z: Any) -> Tensor:
        """T at the rows of z; ValueError where z does not fit the samples."""
        found = self._mean(self.shares, z)
        if self.itself is not None:
            points = self.shares._points(z)
            found = points + (found - self._mean(self.itself, z))
        return found.to(self.shares.targets.dtype)

    @staticmethod
    def _mean(shares: SoftMinimum, z: Any) -> Tensor:
        targets = shares.targets.double()

        def means(block: Tensor) -> Tensor:
            return torch.matmul(shares._exponents(block).softmax(-1), targets)

        return shares._in_blocks(means, shares._points(z))


@dataclass(frozen=True)
class OutOfSample:
    """The potentials of a solved pair as functions, in the user's order of the two samples."""

    f: SoftMinimum
    g: SoftMinimum
    itself: SoftMinimum | None = None

    @classmethod
    def of(
        cls,
        setting: Setting,
        f: Tensor,
        g: Tensor,
        epsilon: Tensor,
        *,
        selves: tuple[Tensor, Tensor] | None = None,
        steps: tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]] | None = None,
    ) -> OutOfSample:
        """From the potentials f (B, n), g (B, m) of a setting, both in its order of the sides.

        selves: the potentials of the two self problems, for a debiased map; steps: the proximal steps of relaxed marginals, as
        functions of (soft-minimum, epsilon).
        """
        batch = setting.batch
        level = epsilon.reshape(batch)

        def soft(points: Tensor, weights: Tensor, potential: Tensor, which: int, flipped: bool) -> SoftMinimum:
            step = None if steps is None else _Proximal(steps[which], level)
            return SoftMinimum(
                points.detach().reshape(*batch, *points.shape[1:]),
                weights.detach().double().log().reshape(*batch, weights.shape[-1]),
                potential.detach().reshape(*batch, potential.shape[-1]),
                level,
                setting.cost,
                flipped,
                step,
            )

        over_y = soft(setting.y, setting.b, g, 0, False)  # a function on x's space
        over_x = soft(setting.x, setting.a, f, 1, True)
        itself = None
        if setting.swapped:  # then the cost is symmetric, and flipping is free
            over_x, over_y = over_y, over_x
        if selves is not None:
            points, weights, own = (setting.x, setting.a, selves[0])
            if setting.swapped:
                points, weights, own = (setting.y, setting.b, selves[1])
            itself = soft(points, weights, own, 0, False)
        return cls(over_y, over_x, itself)

    def known_to(self, result: Answer) -> Answer:
        """The result with its map and its potentials as functions."""
        return replace(result, _map=self.map, _functions=self.potentials)

    def map(self) -> EntropicMap:
        """The map from x's space along the plan."""
        return EntropicMap(self.f, self.itself)

    def potentials(self) -> tuple[SoftMinimum, SoftMinimum]:
        """f on x's space and g on y's."""
        return self.f, self.g


__all__ = ["EntropicMap", "OutOfSample", "SoftMinimum"]
