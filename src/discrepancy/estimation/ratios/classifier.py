"""Density ratios from any scikit-learn classifier, and from a neural network, both with the class shares taken out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import fraction, whole_number
from discrepancy.estimation.ratios.calibration import logistic_line
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.scaling import Scaling
from discrepancy.learning import EarlyStopping, Training
from discrepancy.networks import MLP


@dataclass(frozen=True)
class ClassifierModel(RatioModel):
    """log r(x) = a + b score(x) of a fitted classifier."""

    classifier: Any
    intercept: float
    slope: float
    words: str

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The calibrated score at points (k, d). Raises NumericalError where the classifier is certain, which no ratio is."""
        u = self.intercept + self.slope * _scores(self.classifier, points, sigmoid=self.slope != 1.0)
        bad = int((~torch.isfinite(u)).sum())
        if bad:
            raise NumericalError(
                f"the classifier gives probability 0 or 1 to {bad} of {len(u)} points, hence no finite ratio: take calibrate=True"
            )
        return u.to(points)

    def describe(self) -> str:
        """The classifier and its calibration."""
        return self.words


@dataclass(frozen=True)
class Classifier(RatioMethod):
    """log p/q from the odds of a classifier with scikit-learn's `fit` and `predict_proba` (or `decision_function`).

    log p/q = log odds - log(n / m): the shares of the samples are taken out. calibrate: a + b score, fitted by logistic
    regression on scores of rows that the classifier has not seen (3 folds, Platt's method, both samples weighing one half),
    without which the odds of trees, boosting and support vectors are no probabilities; the score is the decision function or,
    without one, the probability. The classifier is cloned, its `random_state` drawn from the generator where it has one. Its own
    bias and rate. Time: one fit, three more with calibration. Needs scikit-learn.
    Raises TypeError for what is no classifier. Source: Qin (1998); Platt (1999).
    """

    classifier: Any
    calibrate: bool = True

    references: ClassVar[tuple[str, ...]] = ("qin-1998", "platt-1999")
    least: ClassVar[int] = 6

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        offers = hasattr(self.classifier, "predict_proba") or hasattr(self.classifier, "decision_function")
        if isinstance(self.classifier, type) or not (hasattr(self.classifier, "fit") and offers):
            raise TypeError(
                f"classifier must be an object with fit and predict_proba or decision_function, got {self.classifier!r}"
            )

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> ClassifierModel:
        """The ratio between samples x (n, d) of P and y (m, d) of Q."""
        name = type(self.classifier).__name__
        if x.device.type != "cpu":
            raise ValueError(f"scikit-learn's classifiers take tensors on the CPU, got {x.device}: move x and y")
        fitted = self._trained(x, y, generator)
        if not self.calibrate:
            if not hasattr(self.classifier, "predict_proba"):
                raise ValueError(f"{name} has no probabilities, only scores: take calibrate=True")
            return ClassifierModel(fitted, math.log(len(y) / len(x)), 1.0, f"{name}, prior taken out")
        held = [torch.empty(len(s), dtype=torch.float64) for s in (x, y)]
        pieces = [torch.randperm(len(s), generator=generator).tensor_split(3) for s in (x, y)]
        for k in range(3):
            rest = [torch.cat([p for j, p in enumerate(part) if j != k]) for part in pieces]
            model = self._trained(x[rest[0]], y[rest[1]], generator)
            for values, s, part in zip(held, (x, y), pieces, strict=True):
                values[part[k]] = _scores(model, s[part[k]], sigmoid=True)
        a, b = logistic_line(*held)
        if not math.isfinite(b):
            raise NumericalError(f"held-out scores of {name} separate the samples: no finite ratio follows; take TimeScore()")
        # A slope of exactly one would be read as no calibration, and is none for scores that are log-odds.
        return ClassifierModel(
            fitted, a, b if b != 1.0 else math.nextafter(1.0, 2.0), f"{name}, calibrated by {a:.3g} + {b:.3g} score"
        )

    def _trained(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Any:
        from sklearn.base import clone

        model: Any = clone(self.classifier)
        if "random_state" in model.get_params():
            model.set_params(random_state=int(torch.randint(2**31 - 1, (), generator=generator)))
        rows = torch.cat([x, y]).cpu().numpy()
        return model.fit(rows, np.r_[np.ones(len(x), dtype=int), np.zeros(len(y), dtype=int)])


def _scores(classifier: Any, points: Tensor, *, sigmoid: bool) -> Tensor:
    """The scores to calibrate (`sigmoid`), or the log-odds, of points (k, d): (k,) in float64."""
    rows = points.cpu().numpy()
    if sigmoid and hasattr(classifier, "decision_function"):
        return torch.from_numpy(np.asarray(classifier.decision_function(rows), dtype=np.float64)).to(points.device)
    p = torch.from_numpy(np.asarray(classifier.predict_proba(rows), dtype=np.float64)).to(points.device)
    return p[:, 1] if sigmoid else torch.log(p[:, 1]) - torch.log(p[:, 0])


@dataclass(frozen=True)
class NetworkModel(RatioModel):
    """log r(x) = network(scaled x)."""

    scaling: Scaling
    network: nn.Module
    words: str

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The network's output at points (k, d)."""
        inside = self.scaling(points).float()
        return self.network(inside)[:, 0].to(points)

    def describe(self) -> str:
        """The network and where its training ended."""
        return self.words


@dataclass(frozen=True)
class NeuralLogistic(RatioMethod):
    """log p/q as a network, trained on the logistic loss with both samples weighing one half, up to its best held-out loss.

    Batches take half of their rows from each sample, so that no prior has to be taken out. `held_out` of both samples is kept
    from the training, and decides when it ends. Trained in float32. Saturates where P and Q hardly overlap: what the loss sees of
    the ratio there is exp(-|log r|).
    Time: `training.steps` passes of a batch. Raises ValueError for options out of range.
    """

    network: MLP = field(default_factory=lambda: MLP(64, 2))
    training: Training = field(default_factory=lambda: Training(2000, 2e-3))
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    batch_size: int = 256
    held_out_share: float = 0.2

    references: ClassVar[tuple[str, ...]] = ("qin-1998",)
    least: ClassVar[int] = 20

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        whole_number(self.batch_size, 2, "batch_size")
        fraction(self.held_out_share, "held_out_share")

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> NetworkModel:
        """The ratio between samples x (n, d) of P and y (m, d) of Q."""
        scaling = Scaling.of(x, y)
        inner, judged = [], []
        for s in (x, y):
            order = torch.randperm(len(s), generator=generator)
            cut = max(1, min(len(s) - 1, round(self.held_out_share * len(s))))
            rows = scaling(s).float()
            judged.append(rows[order[:cut]])
            inner.append(rows[order[cut:]])
        network = self.network.build(x.shape[1], 1, generator=generator).to(x.device)
        half = self.batch_size // 2

        def loss(p: Tensor, q: Tensor) -> Tensor:
            softplus = torch.nn.functional.softplus
            return (softplus(-network(p)).mean() + softplus(network(q)).mean()) / 2

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            p, q = (s[torch.randint(len(s), (half,), generator=generator)] for s in inner)
            return loss(p, q), {}

        watch = self.stopping.watch(network, lambda: -float(loss(*judged)))
        self.training.run(network.parameters(), step, after=watch)
        watch.keep()
        network.requires_grad_(False)
        return NetworkModel(scaling, network, f"network, best held-out loss {-watch.best:.4g} at step {watch.best_step + 1}")


__all__ = ["Classifier", "ClassifierModel", "NetworkModel", "NeuralLogistic"]
