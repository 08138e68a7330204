"""`Merge`: a rule that makes one update of many; and what it gives, a `MergedModel`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import weights as checked_weights
from discrepancy.methods.merging.task_vectors import Parameters, TaskVectors


@dataclass(frozen=True, repr=False)
class MergedModel(Result):
    """A merged model: how it came to be (`method`), of how many `tasks`, and the `norm` of its change from the base.

    `update` is that change by parameter and `statistics` the floating-point buffers, both in the task vectors' precision.
    """

    method: str
    tasks: int
    norm: float
    update: dict[str, Tensor] = field(repr=False)
    statistics: dict[str, Tensor] = field(repr=False)
    vectors: TaskVectors = field(repr=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The merged parameters and statistics by name."""
        return self.vectors.moved(self.update) | self.statistics

    def state_dict(self) -> dict[str, Tensor]:
        """A full state dict in the base's dtypes: tied names, integer buffers and all."""
        return self.vectors.state_dict(self.tensors)

    def model(self) -> nn.Module:
        """A copy of the base module that is the merged model. Raises TypeError where the base was given as tensors."""
        return self.vectors.model(self.tensors)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .safetensors file, beside it first and then renamed."""
        return self.vectors.save(self.tensors, path)


def merged_model(
    method: str, vectors: TaskVectors, update: Parameters, weights: Tensor | None = None, **more: Any
) -> dict[str, Any]:
    """The fields of a `MergedModel` for an update."""
    held = {k: v.detach() for k, v in update.items()}
    norm = float(sum(v.double().square().sum() for v in held.values())) ** 0.5
    return {
        "method": method,
        "tasks": len(vectors),
        "norm": norm,
        "update": held,
        "statistics": vectors.statistics(weights),
        "vectors": vectors,
    } | more


def task_weights(vectors: TaskVectors, weights: Any) -> Tensor:
    """Weights (n,) of the experts: non-negative, sum one; equal where None."""
    like = next(iter(vectors.base.values()))
    return checked_weights(weights, torch.Size([len(vectors)]), "weights", like=like)


class Merge(ABC):
    """A rule that needs nothing but the task vectors; a subclass is a frozen dataclass of its options.

    It gives `combine` for one parameter; `merge` does all of them.
    """

    references: ClassVar[tuple[str, ...]] = ()

    @torch.no_grad()
    def merge(self, vectors: TaskVectors, weights: Any = None, *, generator: torch.Generator | None = None) -> MergedModel:
        """The merged model. weights (n,), non-negative with sum one, say how much each expert counts (equal where omitted)."""
        share = task_weights(vectors, weights)
        return MergedModel(**merged_model(repr(self), vectors, self._updates(vectors, share, generator), share))

    def _updates(self, vectors: TaskVectors, weights: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {k: self.combine(u, weights.to(u), generator=generator) for k, u in vectors.updates.items()}

    @abstractmethod
    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One update (*shape) of n (n, *shape) under weights (n,) that sum to one."""


__all__ = ["Merge", "MergedModel", "merged_model", "task_weights"]
