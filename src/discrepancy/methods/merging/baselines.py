"""The plain ways to merge: averages, sums, elected signs, random sparsity, means on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, positive
from discrepancy.methods.merging.merge import Merge
from discrepancy.methods.merging.task_vectors import TaskVectors, as_rows
from discrepancy.metric_spaces.sphere import SphereSpace


@dataclass(frozen=True)
class Averaging(Merge):
    """The weighted mean of the experts, sum_i w_i tau_i: "model soups". Source: 2203.05482 (2022)."""

    references: ClassVar[tuple[str, ...]] = ("wortsman-2022",)

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """sum_i w_i tau_i."""
        return torch.tensordot(weights, updates, 1)


@dataclass(frozen=True)
class TaskArithmetic(Merge):
    """`scale` times the sum of the task vectors, scale sum_i (n w_i) tau_i; 1/n is the average. Source: 2212.04089 (2023)."""

    scale: float = 0.5
    references: ClassVar[tuple[str, ...]] = ("ilharco-2023",)

    def __post_init__(self) -> None:
        """Raise ValueError for a scale that is not finite."""
        if not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite, got {self.scale!r}")

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """scale sum_i (n w_i) tau_i."""
        return torch.tensordot(weights * (self.scale * len(weights)), updates, 1)


@dataclass(frozen=True)
class TIES(Merge):
    """Trim, elect sign, merge what agrees: small entries are dropped, then each entry is averaged over the experts of its sign.

    1. of each task vector as a whole the share `density` of largest magnitude stays; 2. the sign of an entry is that of
    sum_i w_i tau_i over what stayed; 3. the entry is the mean, weighted by w, over the experts that stayed there with that sign,
    times `scale`. Entries that nobody keeps are zero. `combine` trims one parameter by itself. n log n. Source: 2306.01708
    (2023).
    """

    density: float = 0.2
    scale: float = 1.0
    references: ClassVar[tuple[str, ...]] = ("yadav-2023",)

    def __post_init__(self) -> None:
        """Raise ValueError for a density outside (0, 1] or a scale that is not positive."""
        if not 0 < self.density <= 1:
            raise ValueError(f"density must lie in (0, 1], got {self.density!r}")
        positive(self.scale, "scale")

    def _updates(self, vectors: TaskVectors, weights: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        floors = []
        for i in range(len(vectors)):
            floors.append(self._floor(torch.cat([u[i].abs().flatten() for u in vectors.updates.values()])))
        return {k: self._elected(u, weights.to(u), torch.stack(floors).to(u)) for k, u in vectors.updates.items()}

    def _floor(self, sizes: Tensor) -> Tensor:
        """The smallest magnitude that stays."""
        kept = max(1, round(self.density * sizes.numel()))
        return sizes.kthvalue(sizes.numel() - kept + 1).values

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The three steps on one parameter."""
        if updates[0].numel() == 0:
            return updates[0]
        return self._elected(updates, weights, torch.stack([self._floor(u.abs().flatten()) for u in updates]))

    def _elected(self, updates: Tensor, weights: Tensor, floors: Tensor) -> Tensor:
        spread = (-1, *[1] * (updates.ndim - 1))
        kept = torch.where(updates.abs() >= floors.reshape(spread), updates, torch.zeros_like(updates))
        sign = torch.tensordot(weights, kept, 1).sign()
        share = weights.reshape(spread) * ((kept != 0) & (kept.sign() == sign))
        total = share.sum(0)
        mean = (share * kept).sum(0) / torch.where(total > 0, total, torch.ones_like(total))
        return self.scale * mean


@dataclass(frozen=True)
class DARE(Merge):
    """Drop And REscale: each entry of a task vector is zeroed with probability `drop`, the rest divided by 1 - drop; then `then`.

    The expectation of each task vector stays. Draws with `generator`, experts in order, parameters in order.
    Source: 2311.03099 (2024).
    """

    drop: float = 0.9
    then: Merge = field(default_factory=Averaging)
    references: ClassVar[tuple[str, ...]] = ("yu-2024",)

    def __post_init__(self) -> None:
        """Raise ValueError for a probability outside [0, 1), TypeError where `then` is no merge."""
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop must lie in [0, 1), got {self.drop!r}")
        require_merge(self.then, "then")

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Drop, rescale, and combine what is left."""
        chance = torch.rand(
            updates.shape, generator=generator_or_default(generator, updates.device), dtype=updates.dtype, device=updates.device
        )
        kept = torch.where(chance >= self.drop, updates / (1 - self.drop), torch.zeros_like(updates))
        return self.then.combine(kept, weights, generator=generator)


@dataclass(frozen=True)
class Slerp(Merge):
    """The weighted mean of the task vectors' directions on the sphere, as long as the weighted mean of their lengths.

    Of two: spherical interpolation, sin((1 - t) a) / sin(a) tau_1 + sin(t a) / sin(a) tau_2 for vectors of one length, angle a
    and t = w_2. Of more: the Frechet mean of the directions ("multi-slerp"). It avoids the loss of length of an average. A task
    vector of zeros has no direction and only shortens the mean. The whole update is one vector; `combine` takes one parameter by
    itself. Opposite vectors have no single mean: the result then lies at one of them. Source: Shoemake (1985); 2403.13257 (2024).
    """

    references: ClassVar[tuple[str, ...]] = ("shoemake-1985", "goddard-2024")

    def _updates(self, vectors: TaskVectors, weights: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        flat = [as_rows(u).double() for u in vectors.updates.values()]
        products = torch.stack([rows @ rows.mT for rows in flat]).sum(0)
        shares = _spherical_shares(products, weights.double())
        return {k: torch.tensordot(shares.to(u), u, 1) for k, u in vectors.updates.items()}

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The mean of the directions of one parameter's updates."""
        flat = as_rows(updates).double()
        return torch.tensordot(_spherical_shares(flat @ flat.mT, weights.double()).to(updates), updates, 1)


def _spherical_shares(products: Tensor, weights: Tensor) -> Tensor:
    """The coefficients (n,) of the mean direction's multiple in the task vectors, from their inner products (n, n)."""
    lengths = products.diagonal().clamp_min(0).sqrt()
    live = (lengths > 0) & (weights > 0)
    out = torch.zeros_like(weights)
    if not bool(live.any()):
        return out
    cosines = products[live][:, live] / (lengths[live, None] * lengths[live])
    # Rows with these inner products: the mean lies in the span of the vectors, so n coordinates are enough.
    values, axes = torch.linalg.eigh((cosines + cosines.mT) / 2)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    rows = axes[:, kept] * values[kept].sqrt()
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    share = weights[live] / weights[live].sum()
    center = SphereSpace().frechet_mean(rows, share).point
    length = (weights * lengths).sum()
    out[live] = (torch.linalg.pinv(rows.mT) @ center) * length / lengths[live]
    return out


def require_merge(value: object, name: str) -> None:
    """TypeError unless `value` is a merge rule."""
    if not isinstance(value, Merge):
        raise TypeError(f"{name} must be a Merge such as Averaging() or TIES(), got {type(value).__name__}")


__all__ = ["DARE", "TIES", "Averaging", "Slerp", "TaskArithmetic", "require_merge"]
