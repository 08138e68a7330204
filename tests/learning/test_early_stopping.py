"""Early stopping: the best weights are kept, and the training ends when nothing improves."""

import math

import pytest
import torch
from torch import nn

from discrepancy import NumericalError
from discrepancy.learning import EarlyStopping, ExponentialAverage, Training


class Scalar(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))


def test_keeps_the_best_weights_and_stops():
    """The loss drives w from 0 to 3, the held-out score is best at 1."""
    module = Scalar(0.0)
    watch = EarlyStopping(every=1, patience=3).watch(module, lambda: -float((module.w - 1).abs()))
    history = Training(steps=500, learning_rate=0.05, final_share=1.0, record_every=1).run(
        module.parameters(), lambda _: ((module.w - 3).square(), {}), after=watch
    )
    watch.keep()
    assert float(module.w.detach()) == pytest.approx(1, abs=0.04)
    assert len(history["loss"]) == watch.best_step + 4
    assert watch.history[0] == (-1, -1.0)


def test_weights_that_never_help_are_not_kept():
    module = Scalar(0.0)
    watch = EarlyStopping(every=5, patience=2).watch(module, lambda: -abs(float(module.w)))
    history = Training(steps=100, learning_rate=0.1).run(
        module.parameters(), lambda _: ((module.w - 3).square(), {}), after=watch
    )
    watch.keep()
    assert float(module.w.detach()) == 0
    assert watch.best_step == -1
    assert history["step"][-1] == 9


def test_the_average_is_what_is_scored_and_kept():
    module = Scalar(0.0)
    average = ExponentialAverage(module, 0.9)
    seen = []

    def score() -> float:
        seen.append(float(module.w))
        return seen[-1]

    watch = EarlyStopping(every=1, patience=5).watch(module, score, average=average)
    Training(steps=20, learning_rate=0.1, final_share=1.0).run(module.parameters(), lambda _: (-module.w, {}), after=watch)
    own = float(module.w.detach())
    watch.keep()
    assert float(module.w.detach()) == seen[-1] < own


def test_bad_input():
    with pytest.raises(ValueError, match="every"):
        EarlyStopping(every=0)
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(NumericalError, match="NaN"):
        EarlyStopping().watch(Scalar(0.0), lambda: math.nan)
