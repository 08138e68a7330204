"""A training judged by the moving average of its weights on rows held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy._validate import fraction, whole_number
from discrepancy.learning.averaging import ExponentialAverage
from discrepancy.learning.early_stopping import EarlyStopping, HeldOutWatch
from discrepancy.learning.training import Training


@dataclass(frozen=True)
class AveragedTraining:
    """At most `loop.steps` steps on batches of `batch_size` rows, ended early by a held-out score.

    `average` is the decay of the moving average of the weights, which is what is scored and kept.
    Raises ValueError for a batch of fewer than two rows and a decay outside (0, 1).
    """

    loop: Training = field(default_factory=Training)
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    batch_size: int = 256
    average: float = 0.99

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.batch_size, 2, "batch_size")
        fraction(self.average, "average")

    def run(
        self, module: nn.Module, step: Callable[[int], tuple[Tensor, dict[str, Tensor | float]]], score: Callable[[], float]
    ) -> tuple[HeldOutWatch, dict[str, list[float]]]:
        """Train the module, leave the averaged weights of the best held-out score in it, and return the watch and the record.

        `step` is that of `Training.run`, `score()` the held-out score of the module as it stands, larger is better.
        """
        with torch.enable_grad():
            watch = self.stopping.watch(module, score, average=ExponentialAverage(module, self.average))
            history = self.loop.run(module.parameters(), step, after=watch)
        watch.keep()
        return watch, history


__all__ = ["AveragedTraining"]
