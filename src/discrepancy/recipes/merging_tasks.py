"""What the recipes on merging share: one network, and experts of it on handwritten digits seen in several ways.

The tasks are the same digits upright, turned by 90 degrees, mirrored, and transposed. A base is trained briefly on their mixture,
then each expert goes on from it on its own task: all of its weights, or a low-rank change of each matrix.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy.datasets import digits
from discrepancy.learning import Training
from discrepancy.methods.merging import MergedModel, TaskVectors, adapted, average_normalized_performance

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


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, classes: Tensor) -> float:
    """The share of inputs whose largest output is their class's."""
    return float((model.eval()(x).argmax(-1) == classes).float().mean())


def network(generator: torch.Generator, inputs: int = 64) -> nn.Sequential:
    """inputs - 64 - 64 - 10 with rectifiers, uniform initial weights of size 1 / sqrt(inputs)."""
    sizes = (inputs, 64, 64, 10)
    layers: list[nn.Module] = []
    for k, (width, outputs) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(width, outputs)
        for weight in (linear.weight, linear.bias):
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5, generator=generator)
        layers += [linear] if k == 2 else [linear, nn.ReLU()]
    return nn.Sequential(*layers)


class LowRank(nn.Module):
    """A frozen linear layer and a change B A of low rank that is trained; A starts at random, B at zero."""

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator, seen: Tensor | None = None) -> None:
        """`seen` (inputs,) boolean keeps the change to some of the inputs."""
        super().__init__()
        self.linear = linear.requires_grad_(False)
        start = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        self.A = nn.Parameter(start if seen is None else start * seen)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """W x + b + B A x."""
        return self.linear(x) + x @ self.A.mT @ self.B.mT


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


def _sets(seed: int, tasks: int) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Training and test set of each task, the images in an order that follows from the seed."""
    images, labels = digits()
    order = np.random.default_rng(seed).permutation(len(images))
    x, y = torch.tensor(images[order], dtype=torch.float32), torch.tensor(labels[order])
    views = [_seen(x, view) for view in _VIEWS[:tasks]]
    return [(v[:_TRAIN], y[:_TRAIN]) for v in views], [(v[_TRAIN:], y[_TRAIN:]) for v in views]


def _base(
    train: list[tuple[Tensor, Tensor]], generator: torch.Generator, *, inputs: int = 64, rate: float = _BASE_RATE
) -> nn.Sequential:
    base = network(generator, inputs)
    mixture = torch.cat([x for x, _ in train]), torch.cat([y for _, y in train])
    fit_classifier(base, *mixture, 60, generator, learning_rate=rate)
    return base


def _family(vectors: TaskVectors, inputs: list[Tensor], tests: list[tuple[Tensor, Tensor]]) -> Family:
    models = [vectors.model(vectors.expert(i)) for i in range(len(vectors))]
    return Family(vectors, inputs, tests, [accuracy(m, *t) for m, t in zip(models, tests, strict=True)])


@cache
def digit_family(seed: int, tasks: int = 4, steps: int = 600, base_rate: float = _BASE_RATE) -> Family:
    """The base after 60 steps at `base_rate` on the mixture of the first `tasks` tasks, an expert of each after `steps` more, and
    100 unlabelled images of each.
    """
    generator = torch.Generator().manual_seed(seed)
    train, tests = _sets(seed, tasks)
    base = _base(train, generator, rate=base_rate)
    experts = [fit_classifier(copy.deepcopy(base), *task, steps, generator) for task in train]
    inputs = [x[torch.randperm(_TRAIN, generator=generator)[:100]] for x, _ in train]
    return _family(TaskVectors(base, experts), inputs, tests)


@cache
def low_rank_family(seed: int, tasks: int = 4, steps: int = 600, rank: int = 4) -> Family:
    """The same base with experts that change every matrix by one of this rank."""
    generator = torch.Generator().manual_seed(seed)
    train, tests = _sets(seed, tasks)
    base = _base(train, generator)
    places = (0, 2, 4)
    experts = []
    for task in train:
        model = copy.deepcopy(base)
        for k in places:
            model[k] = LowRank(model[k], rank, generator)  # type: ignore[arg-type]
        fit_classifier(model, *task, steps, generator)
        experts.append(adapted(base, {f"{k}.lora_{side}.weight": getattr(model[k], side) for k in places for side in "AB"}))
    return _family(TaskVectors(base, experts), [], tests)


@cache
def separate_family(seed: int, steps: int = 600, rank: int = 8) -> Family:
    """Two tasks on orthogonal inputs: 128 pixels, of which the first task's digits fill one half and the second's the other.

    Experts change the first layer only, by a matrix of this rank whose rows see their task's half.
    """
    generator = torch.Generator().manual_seed(seed)
    halves = torch.arange(128) < 64

    def placed(sets: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        blank = torch.zeros_like(sets[0][0])
        return [(torch.cat([sets[0][0], blank], 1), sets[0][1]), (torch.cat([blank, sets[1][0]], 1), sets[1][1])]

    train, tests = (placed(sets) for sets in _sets(seed, 2))
    base = _base(train, generator, inputs=128)
    experts = []
    for task, seen in zip(train, (halves, ~halves), strict=True):
        model = copy.deepcopy(base).requires_grad_(False)
        model[0] = LowRank(model[0], rank, generator, seen)  # type: ignore[arg-type]
        fit_classifier(model, *task, steps, generator)
        experts.append(adapted(base, {f"0.lora_{side}.weight": getattr(model[0], side) for side in "AB"}))
    return _family(TaskVectors(base, experts), [], tests)
