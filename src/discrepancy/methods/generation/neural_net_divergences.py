"""Neural network divergences: how far a freshly trained critic tells a generator from held-out data, which copying cannot please.

P is the real law, Q the model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Estimate, NumericalError, Result
from discrepancy._validate import as_tensor, at_least, fraction, generator_or_default, require_finite, whole_number
from discrepancy.divergences import FDivergence
from discrepancy.learning import ExponentialAverage, Training
from discrepancy.methods.generation.critic_objectives import CriticObjective, Terms, WassersteinCritic, objective_of
from discrepancy.methods.generation.sample_streams import ModelStream, Resampled, Sampler, jittered
from discrepancy.networks import MLP
from discrepancy.networks.convolutional import ConvolutionalNet

# (shape of a row, generator) -> a network from rows (n, ...) to (n,) or (n, 1)
CriticBuilder = Callable[[tuple[int, ...], torch.Generator], nn.Module]


@dataclass(frozen=True, repr=False)
class CriticEstimate(Estimate):
    """A neural network divergence: `value` on rows that no critic was trained on, `train_value` on the rows that they were.

    The difference of the two is the critics' overfitting. `history` holds, for each fold, the recorded training objective. The
    interval is that of the value of these critics: it knows the samples that judge them, not what another training would give.
    """

    train_value: float = math.nan
    history: tuple[Mapping[str, list[float]], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class NeuralNetDivergence:
    """sup over critics f of one architecture and one training of E_P[f's term] - E_Q[f's term], judged on rows not trained on.

    The real rows are halved; a critic is trained on one half against fresh batches of the model, and its averaged weights are
    judged on the other half and on further fresh batches. With `folds=2` the halves then change places, and the values are
    averaged. The model is asked for new rows all the time: one that repeats its training rows gives itself away, the more easily
    the fewer they are. Architecture, training, noise and batch size are part of the metric: compare values of one object only.

    objective: `WassersteinCritic()` (the paper's: W_1's dual less the gradient penalty) or a smooth `FDivergence`, which becomes
    `FDivergenceCritic(f)`, a lower bound: `JensenShannon()` (the paper's value log 2 - BCE), `KL()` (NWJ), `ChiSquared()`.
    critic: an `MLP`, a `ConvolutionalNet` for images, or a function of the row's shape and a generator that builds a module.
    noise: standard deviation of Gaussian noise on the rows of both sides, in their units, for data on a grid.
    evaluation: how many fresh batches judge.
    Raises ValueError for options out of range, TypeError for an objective that is not admitted, naming why.
    Time: folds x steps passes, with the penalty a second derivative each. Source: Gulrajani, Raffel and Metz (2019, 2001.03653).
    """

    objective: CriticObjective | FDivergence = field(default_factory=WassersteinCritic)
    critic: MLP | ConvolutionalNet | CriticBuilder = field(default_factory=lambda: MLP(256, 2, nn.SiLU))
    training: Training = field(default_factory=lambda: Training(steps=3000, learning_rate=2e-4, final_share=0.0, record_every=50))
    batch_size: int = 128
    decay: float = 0.999
    noise: float = 0.0
    evaluation: int = 200
    folds: int = 2
    references: ClassVar[tuple[str, ...]] = ("neural-net-divergences",)

    def __post_init__(self) -> None:
        """Check the options."""
        objective_of(self.objective)
        if not isinstance(self.training, Training):
            raise TypeError(f"training must be a Training object, got {self.training!r}")
        if not callable(self.critic) and not isinstance(self.critic, MLP | ConvolutionalNet):
            raise TypeError(f"critic must be an MLP, a ConvolutionalNet or a function that builds one, got {self.critic!r}")
        whole_number(self.batch_size, 2, "batch_size")
        whole_number(self.evaluation, 1, "evaluation")
        fraction(self.decay, "decay")
        at_least(self.noise, 0, "noise")
        if self.folds not in (1, 2):
            raise ValueError(f"folds must be 1 or 2, got {self.folds!r}")

    def __call__(
        self, real: Any, model: Sampler | Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> CriticEstimate:
        """The divergence of the model from the real rows (n, ...), which neither the generator nor anything else was fitted to.

        model: a function (count, generator) -> rows, or a finite sample, of which it warns. Raises ValueError for fewer than four
        real rows, rows that do not match or are not finite; NumericalError naming the step where training breaks down.
        """
        x = as_tensor(real, "real")
        if x.ndim < 2 or len(x) < 4 or not x.is_floating_point():
            raise ValueError(f"real must be (n, ...) with n >= 4 real numbers, got {x.dtype} of shape {tuple(x.shape)}")
        require_finite(x, "real")
        level, source = fraction(level, "level"), generator_or_default(generator)
        stream = ModelStream(model, x, self.batch_size)
        order = torch.randperm(len(x), generator=source).to(x.device)
        halves = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
        fitted = [self._fold(halves[k], halves[1 - k], stream, source) for k in range(self.folds)]
        judged = [own for own, _, _ in fitted]
        value = sum(float(t.value) for t in judged) / self.folds
        error = math.sqrt(sum(_squared_error(t) for t in judged)) / self.folds
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        return CriticEstimate(
            value,
            error,
            value - half,
            value + half,
            level,
            method=repr(self),
            note="covers the value of the critics that were trained; another training gives others: repeat with other generators",
            train_value=sum(float(t.value) for _, t, _ in fitted) / self.folds,
            history=tuple(h for _, _, h in fitted),
        )

    def _fold(
        self, train: Tensor, held_out: Tensor, stream: ModelStream, source: torch.Generator
    ) -> tuple[Terms, Terms, Mapping[str, list[float]]]:
        """The terms on the rows held out and on the critic's own, and the record of its training."""
        objective, net = objective_of(self.objective), self._built(train, source)
        average = ExponentialAverage(net, self.decay)
        stage = "before training"

        def critic(rows: Tensor) -> Tensor:
            scores = net(rows)
            if scores.shape not in ((len(rows),), (len(rows), 1)):
                raise ValueError(f"the critic must give one score a row, got {tuple(scores.shape)} for {len(rows)} rows")
            if bool(torch.isnan(scores.detach()).any()):
                raise NumericalError(f"the critic gave NaN {stage}")
            return scores.reshape(-1)

        def batches(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
            picked = rows[torch.randint(len(rows), (count,), generator=source).to(rows.device)]
            drawn = stream.draw(count, source).to(rows.device)
            return jittered(picked, self.noise, source), jittered(drawn, self.noise, source)

        def step(k: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
            nonlocal stage
            stage = f"at training step {k}"
            terms = objective.terms(critic, *batches(train, self.batch_size), source, create_graph=True)
            return -terms.value, {"objective": terms.value.detach()}

        history = self.training.run(net.parameters(), step, after=lambda _: average.update())
        average.keep()
        net.eval()
        stage = "after training"
        return self._judged(critic, held_out, batches), self._judged(critic, train, batches), history

    def _judged(self, critic: Callable[[Tensor], Tensor], rows: Tensor, batches: Callable[..., tuple[Tensor, Tensor]]) -> Terms:
        """The terms at each of the rows once, and at fresh batches of the model."""
        objective, source = objective_of(self.objective), torch.Generator().manual_seed(0)
        parts = []
        for _ in range(self.evaluation):
            drawn = batches(rows, self.batch_size)
            parts.append(_detached(objective.terms(critic, *drawn, source, create_graph=False)))
        model, penalty = (torch.cat([getattr(p, name) for p in parts]) for name in ("model", "penalty"))
        own = []
        for chunk in rows.split(max(self.batch_size, 1024)):
            scores = critic(jittered(chunk, self.noise, source)).detach()
            own.append(objective.values(scores, scores)[0])
        return Terms(torch.cat(own), model, penalty)

    def _built(self, rows: Tensor, source: torch.Generator) -> nn.Module:
        shape = tuple(rows.shape[1:])
        if isinstance(self.critic, MLP):
            net = nn.Sequential(nn.Flatten(), self.critic.build(math.prod(shape), 1, generator=source, dtype=rows.dtype))
        elif isinstance(self.critic, ConvolutionalNet):
            if len(shape) != 3:
                raise ValueError(f"a ConvolutionalNet scores images (n, channels, height, width), got rows of shape {shape}")
            net = self.critic.build((shape[0], shape[1], shape[2]), 1, generator=source, dtype=rows.dtype)
        else:
            net = self.critic(shape, source)
        return net.to(rows.device)


def _detached(terms: Terms) -> Terms:
    return Terms(*(t.detach() for t in (terms.real, terms.model, terms.penalty)))


def _squared_error(terms: Terms) -> float:
    """The squared standard error of the difference of means; the rows of a half are few, the model's batches many."""
    parts = [float(t.var(correction=1)) / len(t) for t in (terms.real, terms.model, terms.penalty) if len(t) > 1]
    return sum(parts)


@dataclass(frozen=True, repr=False)
class MemorizationReport(Result):
    """By metric: its value for the `model`, for the `memoriser` of the training rows, and between two halves of held-out data."""

    values: Mapping[str, Mapping[str, Estimate]]

    def requires_generalization(self, metric: str) -> bool:
        """Whether the metric puts the memoriser behind the model."""
        found = self.values[metric]
        return float(found["memoriser"]) > float(found["model"])


def memorization_report(
    train: Any,
    held_out: Any,
    model: Sampler,
    metrics: Mapping[str, NeuralNetDivergence | Discrepancy],
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> MemorizationReport:
    """Does a metric see through copying? Each metric for the model, for the memoriser of `train`, and for real against real.

    train (n, ...): the generator's training rows, which the memoriser repeats with Gaussian `noise`; held_out (m, ...): real rows
    that nobody was fitted to; model: (count, generator) -> rows. metrics: by name, `NeuralNetDivergence` objects, which ask for
    fresh rows, and any `Discrepancy`, which sees m rows flattened. The larger the metric, the worse the sample. Real against real
    is between halves of held_out: what the metric shows where there is nothing, at half the size.
    Raises TypeError for other metrics, ValueError for samples that do not match.
    """
    if not metrics:
        raise ValueError('metrics must name at least one metric, such as {"MMD": MMD()}')
    for name, metric in metrics.items():
        if not isinstance(metric, NeuralNetDivergence | Discrepancy):
            raise TypeError(f"metric {name!r} must be a NeuralNetDivergence or a Discrepancy object, got {metric!r}")
    real = as_tensor(held_out, "held_out")
    copies = as_tensor(train, "train", like=real).to(real.dtype)
    if copies.shape[1:] != real.shape[1:]:
        raise ValueError(f"train has rows of shape {tuple(copies.shape[1:])} and held_out {tuple(real.shape[1:])}")
    source = generator_or_default(generator)
    half = len(real) // 2
    cases: dict[str, tuple[Tensor, Sampler]] = {
        "model": (real, model),
        "memoriser": (real, Resampled(copies, noise)),
        "real": (real[:half], Resampled(real[half:], noise)),
    }
    values: dict[str, dict[str, Estimate]] = {}
    for name, metric in metrics.items():
        values[name] = {}
        for case, (rows, sampler) in cases.items():
            if isinstance(metric, NeuralNetDivergence):
                values[name][case] = metric(rows, sampler, generator=source)
            else:
                drawn = real[half:] if case == "real" else ModelStream(sampler, rows, len(rows)).draw(len(rows), source)
                found = float(metric(rows.flatten(1), drawn.flatten(1), generator=source))
                values[name][case] = Estimate(found, method=repr(metric), note="no interval: inference.bootstrap gives one")
    return MemorizationReport(values)


__all__ = ["CriticEstimate", "MemorizationReport", "NeuralNetDivergence", "memorization_report"]
