"""Experts that arrive one after another, merged without going back to their data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import fraction
from discrepancy.methods.merging.baselines import require_merge
from discrepancy.methods.merging.gcwm import GCWM, GatedLayer
from discrepancy.methods.merging.merge import Merge
from discrepancy.methods.merging.task_vectors import TaskVectors


@dataclass(frozen=True)
class History:
    """Each step merges all experts so far; memory grows by one model a step."""


@dataclass(frozen=True)
class StateAndCurrent:
    """Each step merges two updates, the state so far and the new expert; memory does not grow."""


@dataclass(frozen=True, repr=False)
class ContinualStep(Result):
    """One step: how many experts so far, how far the state is from the base, how far it moved, and the gates of each layer."""

    step: int
    state_norm: float
    moved: float
    layers: tuple[GatedLayer, ...]


class ContinualMerger:
    """theta_t = theta_{t-1} + rate (Delta_t - Delta_{t-1}), with Delta_t what `method` makes of the active updates from the base.

    `active` is `History()` or `StateAndCurrent()`. A rate of 1 jumps to the merge of all; small ones follow it from behind.
    Expert and base are copied: both may be trained on. Source: 2605.09608 (2026), which takes 0.1 and finds 0.3 better on
    average.
    """

    references: ClassVar[tuple[str, ...]] = ("gcwm",)

    def __init__(
        self,
        base: Any,
        method: Merge | None = None,
        *,
        rate: float = 0.1,
        active: History | StateAndCurrent = History(),
    ) -> None:
        """Start at the base. Raises ValueError for a rate outside (0, 1], TypeError for options of the wrong kind."""
        self.method = GCWM() if method is None else method
        require_merge(self.method, "method")
        self.rate = rate if rate == 1 else fraction(rate, "rate")
        if not isinstance(active, History | StateAndCurrent):
            raise TypeError(f"active must be History() or StateAndCurrent(), got {type(active).__name__}")
        self.active = active
        self._base = copy.deepcopy(base) if isinstance(base, nn.Module) else base
        self._experts: list[dict[str, Tensor]] = []
        self._vectors: TaskVectors | None = None
        self._state: dict[str, Tensor] = {}
        self._merged: dict[str, Tensor] = {}
        self._statistics: dict[str, Tensor] = {}
        self._steps: list[ContinualStep] = []

    @property
    def report_(self) -> tuple[ContinualStep, ...]:
        """What happened at each step."""
        return tuple(self._steps)

    @torch.no_grad()
    def update(self, expert: Any, *, generator: torch.Generator | None = None) -> ContinualStep:
        """Take in one more expert, a fine-tuning of the same base; returns what happened."""
        single = TaskVectors(self._base, [expert])
        new = single.expert(0)
        if isinstance(self.active, History) or not self._experts:
            self._experts.append(new)
            active = self._experts
        else:
            self._experts = [new]
            active = [single.moved(self._state) | self._statistics, new]
        vectors = TaskVectors(self._base, active) if len(active) > 1 else single
        result = self.method.merge(vectors, generator=generator)
        zero = {k: torch.zeros_like(v) for k, v in vectors.base.items()}
        before, previous = self._state or zero, self._merged or zero
        self._state = {k: before[k] + self.rate * (result.update[k] - previous[k]) for k in vectors.names}
        self._merged, self._statistics, self._vectors = result.update, result.statistics, vectors
        moved = _norm({k: self._state[k] - before[k] for k in self._state})
        layers = getattr(result, "layers", ())
        self._steps.append(ContinualStep(len(self._steps) + 1, _norm(self._state), moved, layers))
        return self._steps[-1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state's parameters and statistics by name."""
        vectors = self._seen()
        return vectors.moved(self._state) | self._statistics

    def state_dict(self) -> dict[str, Tensor]:
        """The state as a full state dict in the base's dtypes."""
        return self._seen().state_dict(self.tensors)

    def model(self) -> nn.Module:
        """A copy of the base module that is the state."""
        return self._seen().model(self.tensors)

    def _seen(self) -> TaskVectors:
        if self._vectors is None:
            raise AttributeError("this ContinualMerger has seen no expert: call update(expert) first")
        return self._vectors


def _norm(update: dict[str, Tensor]) -> float:
    return float(sum(v.double().square().sum() for v in update.values())) ** 0.5


__all__ = ["ContinualMerger", "ContinualStep", "History", "StateAndCurrent"]
