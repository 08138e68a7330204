"""Baselines of a policy gradient as options: the mean of past rewards, or of the others in the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.learning import MovingBaseline, leave_one_out


class RunningBaseline(Protocol):
    """The state of a baseline during a training."""

    def before(self, rewards: Tensor, importance: Tensor) -> Tensor | float:
        """The baseline of a batch of rewards (n,) with weights pi / q (n,); the batch is remembered afterwards."""
        ...


class Baseline(ABC):
    """What is subtracted from rewards to lower the gradient's variance; a subclass is a frozen dataclass."""

    @abstractmethod
    def start(self) -> RunningBaseline:
        """Fresh state for one training."""


@dataclass(frozen=True)
class PastRewards(Baseline):
    """The mean of the last `window` rewards of past batches, pi / q-weighted off-policy: the gradient stays unbiased."""

    window: int = 1024

    def __post_init__(self) -> None:
        whole_number(self.window, 1, "window")

    def start(self) -> RunningBaseline:
        """An empty window: the first batch has its leave-one-out mean, for want of a past."""
        return _Past(MovingBaseline(self.window))


@dataclass(frozen=True)
class OtherSamples(Baseline):
    """The leave-one-out mean of the same batch: unbiased, needs no memory, a little noisier than a long window."""

    def start(self) -> RunningBaseline:
        """Nothing to remember."""
        return _Others()


@dataclass
class _Past:
    moving: MovingBaseline
    empty: bool = True

    def before(self, rewards: Tensor, importance: Tensor) -> Tensor | float:
        weighted = rewards * importance
        value: Tensor | float = leave_one_out(weighted) if self.empty else self.moving.value
        self.moving.update(weighted)
        self.empty = False
        return value


@dataclass
class _Others:
    def before(self, rewards: Tensor, importance: Tensor) -> Tensor | float:
        return leave_one_out(rewards * importance)


__all__ = ["Baseline", "OtherSamples", "PastRewards", "RunningBaseline"]
