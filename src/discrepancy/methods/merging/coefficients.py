"""Coefficients of a merge learned by gradient descent: one a task, or one a task and layer; the loop that learns them."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.learning import Training
from discrepancy.methods.merging.merge import MergedModel, merged_model
from discrepancy.methods.merging.predictions import Predictions
from discrepancy.methods.merging.task_vectors import BoundModel, TaskVectors


class Level(ABC):
    """Which parameters share a coefficient."""

    @abstractmethod
    def group(self, name: str) -> str:
        """The group of a parameter."""


@dataclass(frozen=True)
class Task(Level):
    """One coefficient a task."""

    def group(self, name: str) -> str:
        """All are one."""
        return "model"


_BLOCK = re.compile(r"^(.*?(?:^|\.)\d+)\.")


@dataclass(frozen=True)
class Layer(Level):
    """One coefficient a task and layer: a numbered block (`transformer.h.0`), or else the module that owns the parameter."""

    def group(self, name: str) -> str:
        """The path up to the first number, else without the parameter's own name."""
        block = _BLOCK.match(name)
        return block[1] if block else name.rpartition(".")[0] or name


@dataclass(frozen=True)
class Descent:
    """How coefficients are learned: Adam at `learning_rate` for `epochs` passes over the inputs, `batch` of each task a step.

    `start` is the first value of every coefficient, None for 1 / n.
    """

    epochs: int = 4
    batch: int = 4
    learning_rate: float = 1e-2
    start: float | None = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        whole_number(self.epochs, 1, "epochs")
        whole_number(self.batch, 1, "batch")
        positive(self.learning_rate, "learning_rate")
        if self.start is not None and not math.isfinite(self.start):
            raise ValueError(f"start must be finite or None (1 / n), got {self.start!r}")


@dataclass(frozen=True, repr=False)
class LearnedMerge(MergedModel):
    """A merged model with its `coefficients` (n, L): of each expert in each of the `groups` of parameters.

    `objective` is the mean of the loss over the last epoch; `history` has the recorded steps by name.
    """

    coefficients: Tensor
    groups: tuple[str, ...]
    objective: float
    history: dict[str, list[float]] = field(repr=False)


def combined(vectors: TaskVectors, coefficients: Tensor, places: dict[str, int]) -> dict[str, Tensor]:
    """sum_t Gamma_t tau_t by parameter, differentiable in the coefficients (n, L)."""
    return {k: torch.tensordot(coefficients[:, places[k]].to(u), u, 1) for k, u in vectors.updates.items()}


def learn_coefficients(
    vectors: TaskVectors,
    tasks: list[list[Predictions]],
    loss: Callable[[BoundModel, Predictions], Tensor],
    *,
    method: str,
    level: Level,
    descent: Descent,
    generator: torch.Generator | None,
) -> LearnedMerge:
    """Minimise the sum over tasks of `loss(merged model, batch)` over the coefficients of theta_0 + sum_t Gamma_t tau_t.

    The model runs in evaluation mode, only the coefficients get gradients. Time: a forward and a backward pass a task and step;
    memory one merged model and its graph.
    """
    n = len(vectors)
    labels = {name: level.group(name) for name in vectors.names}
    groups = tuple(dict.fromkeys(labels.values()))
    places = {name: groups.index(label) for name, label in labels.items()}
    start = 1 / n if descent.start is None else descent.start
    gamma = nn.Parameter(torch.full((n, len(groups)), start, dtype=torch.float64))
    chance = generator_or_default(generator)
    statistics = vectors.statistics()
    drawn = [_Batches(task, descent.batch, chance) for task in tasks]
    per_epoch = max(b.count for b in drawn)
    steps = descent.epochs * per_epoch

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        model = vectors.bound(vectors.moved(combined(vectors, gamma, places)) | statistics)
        losses = [loss(model, batches.draw()) for batches in drawn]
        return torch.stack(losses).sum(), {f"task {i}": value.detach() for i, value in enumerate(losses)}

    training = Training(steps=steps, learning_rate=descent.learning_rate, final_share=1.0, record_every=1)
    with vectors.evaluating():
        history = training.run([gamma], step)
    last = history["loss"][-per_epoch:]
    with torch.no_grad():
        update = combined(vectors, gamma, places)
    extra: dict[str, Any] = {
        "coefficients": gamma.detach(), "groups": groups, "objective": math.fsum(last) / len(last), "history": history,
    }  # fmt: skip
    return LearnedMerge(**merged_model(method, vectors, update, **extra))


class _Batches:
    """A task's inputs in random order, epoch after epoch, never mixing batches of a loader (their lengths may differ)."""

    def __init__(self, parts: list[Predictions], batch: int, generator: torch.Generator) -> None:
        self.parts, self.batch, self.generator = parts, batch, generator
        self.count = sum(math.ceil(len(p) / batch) for p in parts)
        self.waiting: list[Predictions] = []

    def draw(self) -> Predictions:
        if not self.waiting:
            made = []
            for part in self.parts:
                order = torch.randperm(len(part), generator=self.generator)
                made += [part.rows(index) for index in order.split(self.batch)]
            self.waiting = [made[i] for i in torch.randperm(len(made), generator=self.generator).tolist()]
        return self.waiting.pop()


__all__ = ["Descent", "Layer", "LearnedMerge", "Level", "Task", "combined", "learn_coefficients"]
