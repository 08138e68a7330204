"""What the recipes on merging share: one network, and experts of it on handwritten digits seen in four ways.

The tasks are the same digits upright, turned by 90 degrees, mirrored, and transposed. A base is trained briefly on the mixture of
all four, then each expert goes on from it on its own task.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy.datasets import digits
from discrepancy.learning import Training
from discrepancy.methods.merging import MergedModel, TaskVectors, average_normalized_performance

_VIEWS = ("upright", "turned", "mirrored", "transposed")

_BASE_RATE = 3e-3  # the rate at which averaging two experts does as the paper card's pilot says, two thirds of them
_TRAIN = 1200  # of 1797 images; the others are for tests


def _seen(images: Tensor, view: str) -> Tensor:
    squares = images.reshape(-1, 8, 8)
    if view == "turned":
        squares = torch.rot90(squares, 1, (1, 2))
    elif view == "mirrored":
        squares = squares.flip(2)
    elif view == "transposed":
        squares = squares.mT
    return squares.reshape(-1, 64).contiguous()


@dataclass(frozen=True)
class Family:
    """A base, its experts and their tasks: `vectors`, unlabelled `inputs`, test sets, and the experts' accuracies there."""

    vectors: TaskVectors
    inputs: list[Tensor]
    tests: list[tuple[Tensor, Tensor]]
    experts: list[float]

    def accuracies(self, merged: MergedModel | nn.Module) -> list[float]:
        """Accuracy on each task's test set."""
        model = merged.model() if isinstance(merged, MergedModel) else merged
        return [accuracy(model, *test) for test in self.tests]

    def performance(self, merged: MergedModel | nn.Module) -> float:
        """ANP: the mean over tasks of accuracy over the expert's."""
        return average_normalized_performance(self.accuracies(merged), self.experts)

    def first(self, count: int) -> Family:
        """The first tasks only."""
        models = [self.vectors.model(self.vectors.expert(i)) for i in range(count)]
        vectors = TaskVectors(self.vectors.module, models)
        return Family(vectors, self.inputs[:count], self.tests[:count], self.experts[:count])


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, classes: Tensor) -> float:
    """The share of inputs whose largest output is their class's."""
    return float((model.eval()(x).argmax(-1) == classes).float().mean())


def network(generator: torch.Generator, width: int = 64) -> nn.Sequential:
    """64 - width - width - 10 with rectifiers, uniform initial weights of size 1 / sqrt(inputs)."""
    sizes = (64, width, width, 10)
    layers: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        linear = nn.Linear(inputs, outputs)
        for weight in (linear.weight, linear.bias):
            nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [linear] if k == 2 else [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def fit_classifier(
    model: nn.Module, x: Tensor, classes: Tensor, steps: int, generator: torch.Generator, *, learning_rate: float = 1e-3
) -> nn.Module:
    """Adam on the cross-entropy of batches of 128; in place."""

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        rows = torch.randint(len(x), (128,), generator=generator)
        return nn.functional.cross_entropy(model(x[rows]), classes[rows]), {}

    model.train()
    weights = [w for w in model.parameters() if w.requires_grad]
    Training(steps=steps, learning_rate=learning_rate, final_share=1.0).run(weights, step)
    return model.eval()


@cache
def digit_family(seed: int, tasks: int = 4, steps: int = 600, unlabelled: int = 100) -> Family:
    """The base after 60 steps on the mixture of the first `tasks` tasks, and an expert of each after `steps` more."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits()
    order = np.random.default_rng(seed).permutation(len(images))
    x, y = torch.tensor(images[order], dtype=torch.float32), torch.tensor(labels[order])
    views = [_seen(x, view) for view in _VIEWS[:tasks]]
    train = [(v[:_TRAIN], y[:_TRAIN]) for v in views]
    tests = [(v[_TRAIN:], y[_TRAIN:]) for v in views]
    base = network(generator)
    fit_classifier(base, torch.cat([v for v, _ in train]), torch.cat([c for _, c in train]), 60, generator, learning_rate=_BASE_RATE)
    experts = [fit_classifier(copy.deepcopy(base), *task, steps, generator) for task in train]
    inputs = [v[torch.randperm(_TRAIN, generator=generator)[:unlabelled]] for v, _ in train]
    return Family(TaskVectors(base, experts), inputs, tests, [accuracy(m, *t) for m, t in zip(experts, tests, strict=True)])
