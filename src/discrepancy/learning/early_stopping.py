"""The end of a training by what a held-out score says, and the weights that had the best one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import whole_number
from discrepancy.learning.averaging import ExponentialAverage


@dataclass(frozen=True)
class EarlyStopping:
    """Look at a held-out score every `every` steps; end once it has not improved `patience` times in a row.

    Raises ValueError unless both are at least 1.
    """

    every: int = 25
    patience: int = 8

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.every, 1, "every")
        whole_number(self.patience, 1, "patience")

    def watch(self, module: nn.Module, score: Callable[[], float], *, average: ExponentialAverage | None = None) -> HeldOutWatch:
        """The watch over one training: pass it as `Training.run(..., after=watch)`, then call `watch.keep()`.

        `score()` is the held-out score of the module as it stands, larger is better, computed without gradients; with an
        `average` its weights are the ones scored and kept. Costs one copy of the weights.
        """
        return HeldOutWatch(self, module, score, average)


class HeldOutWatch:
    """The best held-out score so far, `best`, at step `best_step` (-1: before the first), and the weights that had it."""

    def __init__(
        self, rule: EarlyStopping, module: nn.Module, score: Callable[[], float], average: ExponentialAverage | None
    ) -> None:
        """Score the weights as they are before the first step."""
        self.rule, self.module, self.score, self.average = rule, module, score, average
        self.best, self.best_step, self.missed = -math.inf, -1, 0
        self.history: list[tuple[int, float]] = []
        self.state: dict[str, Tensor] = {}
        self._look(-1)

    def __call__(self, step: int) -> bool:
        """Follow the average, score every so often; True once the score has not improved for the patience allowed."""
        if self.average is not None:
            self.average.update()
        if (step + 1) % self.rule.every == 0:
            self._look(step)
        return self.missed >= self.rule.patience

    def keep(self) -> None:
        """Put the best weights into the module."""
        self.module.load_state_dict(self.state)

    @torch.no_grad()
    def _look(self, step: int) -> None:
        if self.average is None:
            self._compare(step)
        else:
            with self.average.applied():
                self._compare(step)

    def _compare(self, step: int) -> None:
        value = float(self.score())
        if math.isnan(value):
            raise NumericalError(f"training step {step}: the held-out score is NaN; lower the learning rate")
        self.history.append((step, value))
        if value > self.best:
            self.best, self.best_step, self.missed = value, step, 0
            self.state = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        else:
            self.missed += 1


__all__ = ["EarlyStopping", "HeldOutWatch"]
