"""The pair that distillation's recipes share: a convolutional teacher and a small fully connected student on MNIST-1D.

Every loss meets the same data, the same first weights and the same batches for one seed; a teacher is trained once a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy.datasets import mnist1d
from discrepancy.inference import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from discrepancy.methods.distillation.training import Distilled, Epochs, distil, outputs_of
from discrepancy.networks.linear import linear

CLASSES, LENGTH = 10, 40


class Outputs(NamedTuple):
    """Logits (B, 10), and the features (B, ...) after each hidden layer, first to last."""

    logits: Tensor
    features: tuple[Tensor, ...]


class Data(NamedTuple):
    """Training and test signals (n, 40), float32, with their classes (n,)."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


@cache
def data() -> Data:
    """MNIST-1D as tensors: 4,000 signals for training and 1,000 for testing."""
    signals = mnist1d()
    return Data(
        torch.tensor(signals.train),
        torch.tensor(signals.train_classes),
        torch.tensor(signals.test),
        torch.tensor(signals.test_classes),
    )


class SignalCNN(nn.Module):
    """Three convolutions of 32 channels, width 5 and stride 2, each with a ReLU, and a linear layer on the 160 features."""

    def __init__(self, channels: int = 32, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        sizes = [1, channels, channels, channels]
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(nn.Conv1d, sizes[k], sizes[k + 1], 5, stride=2, padding=2) for k in range(3)
        )
        for layer in self.convolutions:
            bound = float(5 * int(layer.in_channels)) ** -0.5  # type: ignore[arg-type]
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.head = linear(5 * channels, CLASSES, generator=generator)

    def with_features(self, x: Tensor) -> Outputs:
        """Logits, and the features (B, 32, 20), (B, 32, 10) and (B, 160)."""
        features: list[Tensor] = []
        h = x.unsqueeze(1)
        for layer in self.convolutions:
            h = torch.relu(layer(h))
            features.append(h)
        features[-1] = h.flatten(1)
        return Outputs(self.head(features[-1]), tuple(features))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of signals (B, 40)."""
        return self.with_features(x).logits


class SignalMLP(nn.Module):
    """40 - 64 - 64 - 10 with ReLU."""

    def __init__(self, width: int = 64, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([linear(LENGTH, width, generator=generator), linear(width, width, generator=generator)])
        self.head = linear(width, CLASSES, generator=generator)

    def with_features(self, x: Tensor) -> Outputs:
        """Logits, and the features (B, 64) of both hidden layers."""
        features: list[Tensor] = []
        for layer in self.hidden:
            x = torch.relu(layer(x))
            features.append(x)
        return Outputs(self.head(x), tuple(features))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of signals (B, 40)."""
        return self.with_features(x).logits


def with_features(model: nn.Module, x: Tensor) -> Outputs:
    """For `distil(forward=...)`: logits beside features."""
    return model.with_features(x)  # type: ignore[operator]


def cross_entropy(student: Tensor | Outputs, _: Any, target: Tensor) -> Tensor:
    """Training without a teacher."""
    return F.cross_entropy(student.logits if isinstance(student, Outputs) else student, target)


@cache
def teacher(seed: int, epochs: int = 40) -> SignalCNN:
    """The teacher of a seed, trained by cross-entropy on all training signals, frozen and in evaluation mode."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    model = SignalCNN(generator=generator)
    known = data()
    distil(model, known.train, known.train_classes, cross_entropy, epochs=Epochs(epochs), generator=generator)
    return model.requires_grad_(False)  # type: ignore[return-value]


@cache
def teacher_outputs(seed: int, epochs: int = 40) -> Outputs:
    """What the teacher of a seed says of all training signals."""
    return outputs_of(teacher(seed, epochs).with_features, data().train)


def student(seed: int, *, width: int = 64) -> SignalMLP:
    """The untrained student of a seed: every loss starts from the same weights."""
    return SignalMLP(width, generator=torch.Generator().manual_seed(20_000 + seed))


def distilled(
    seed: int,
    loss: Callable[..., Any],
    *,
    epochs: int = 40,
    teacher_epochs: int = 40,
    features: bool = False,
    start: nn.Module | None = None,
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
) -> Distilled:
    """A student of the pair trained with a loss of (student, teacher, target); with `features`, both are `Outputs`.

    Adam at 3e-3 on a cosine, batches of 100. `start` replaces the seed's untrained student, `forward(student, x)` what is called.
    """
    said = teacher_outputs(seed, teacher_epochs)
    known = data()
    return distil(
        student(seed) if start is None else start,
        known.train,
        known.train_classes,
        loss,
        teacher=said if features else said.logits,
        epochs=Epochs(epochs),
        forward=with_features if features and forward is None else forward,
        generator=torch.Generator().manual_seed(30_000 + seed),
    )


@dataclass(frozen=True)
class Scores:
    """On the test signals: accuracy in per cent, calibration errors with 15 bins, Brier score, log loss, mean entropy in nats."""

    accuracy: float
    ece: float
    adaptive_ece: float
    brier: float
    nll: float
    entropy: float


def scores(model: nn.Module) -> Scores:
    """How a model does on the 1,000 test signals."""
    known = data()
    log_probs = torch.log_softmax(outputs_of(model, known.test).double(), -1)
    probs, classes = log_probs.exp(), known.test_classes
    return Scores(
        accuracy=100 * float((probs.argmax(-1) == classes).double().mean()),
        ece=expected_calibration_error(probs, classes),
        adaptive_ece=adaptive_calibration_error(probs, classes),
        brier=brier_score(probs, classes),
        nll=negative_log_likelihood(probs, classes),
        entropy=float(-(probs * log_probs).sum(-1).mean()),
    )


__all__ = [
    "Data",
    "Outputs",
    "Scores",
    "SignalCNN",
    "SignalMLP",
    "cross_entropy",
    "data",
    "distilled",
    "scores",
    "student",
    "teacher",
    "teacher_outputs",
    "with_features",
]
