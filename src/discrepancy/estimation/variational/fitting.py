"""Training a critic of pairs or of points, with an end by held-out rows, and its scores at held-out rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy.estimation.canonical import CanonicalGaussian, GaussianPair
from discrepancy.estimation.variational.critics import Critic, PairScores, shifted_products
from discrepancy.learning import AveragedTraining, EarlyStopping, Training

# A ratio of densities beyond e^50 is supported by no sample; a bounded critic is a critic, so that every bound stays one.
_LARGEST_SCORE = 50.0

Loss = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CriticTraining(AveragedTraining):
    """The options of a critic's training, whose held-out score is the bound itself."""

    loop: Training = field(default_factory=lambda: Training(steps=800, learning_rate=2e-3, gradient_clip=1.0, record_every=50))
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(every=25, patience=6))


@dataclass(frozen=True)
class GaussianStart:
    """The critic starts as the log ratio of Gaussian laws fitted to the training rows, and learns what that leaves.

    For pairs it is made of shrunken canonical correlations, for two samples of two means and covariances. Any function is a
    critic, so the bounds remain bounds.
    """

    def of_pairs(self, x: Tensor, y: Tensor) -> CanonicalGaussian:
        """From paired rows."""
        return CanonicalGaussian.fit(x, y)

    def of_points(self, x: Tensor, y: Tensor) -> GaussianPair:
        """From two samples."""
        return GaussianPair.fit(x, y)


class FittedCritic(nn.Module, ABC):
    """start + network, each of them on or off: what held-out rows say decides."""

    def __init__(self, net: nn.Module, negatives: int) -> None:
        """With the network's family's number of negatives."""
        super().__init__()
        self.net, self.negatives = net, negatives
        self.use_start = self.use_net = True

    def scores(self, rows: Rows, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Scores at draws of P (n,) and of Q, (n, K) for pairs and (m,) for points, in float64."""
        p, q = self._scores(rows, shifts)
        return p.double().clamp(-_LARGEST_SCORE, _LARGEST_SCORE), q.double().clamp(-_LARGEST_SCORE, _LARGEST_SCORE)

    @abstractmethod
    def _scores(self, rows: Rows, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """The scores before their bounds."""

    @abstractmethod
    def batch(self, rows: Rows, size: int, generator: torch.Generator) -> Rows:
        """Some of the rows."""


class PairCritic(FittedCritic):
    """f(x, y) against the product of the margins: x_i with the y of another row."""

    net: PairScores

    def __init__(self, net: PairScores, negatives: int, start: CanonicalGaussian | None) -> None:
        """`start` None: nothing but the network."""
        super().__init__(net, negatives)
        self.start = start

    def _scores(self, rows: Rows, shifts: Tensor) -> tuple[Tensor, Tensor]:
        x, y = rows
        p, q = x.new_zeros(len(x)), x.new_zeros(len(x), len(shifts))
        if self.use_net:
            p, q = self.net.joint(x, y), self.net.product(x, y, shifts)
        if self.start is not None and self.use_start:
            u, v = self.start.features(x, y)
            weighted, own_u, own_v = u * self.start.weight, self.start.own(u), self.start.own(v)
            columns = (torch.arange(len(x), device=x.device)[:, None] + shifts.to(x.device)) % len(x)
            p = p + own_u + own_v + (weighted * v).sum(-1)
            q = q + own_u[:, None] + own_v[columns] + shifted_products(weighted, v, shifts)
        return p, q

    def batch(self, rows: Rows, size: int, generator: torch.Generator) -> Rows:
        """Pairs drawn without replacement."""
        chosen = torch.randperm(len(rows[0]), generator=generator)[:size].to(rows[0].device)
        return rows[0][chosen], rows[1][chosen]


class PointCritic(FittedCritic):
    """f(z) at points of two samples."""

    def __init__(self, net: nn.Module, start: GaussianPair | None) -> None:
        """`start` None: nothing but the network."""
        super().__init__(net, 0)
        self.start = start

    def _scores(self, rows: Rows, shifts: Tensor) -> tuple[Tensor, Tensor]:
        values = []
        for z in rows:
            t = self.net(z) if self.use_net else z.new_zeros(len(z))
            values.append(t + self.start.log_ratio(z) if self.start is not None and self.use_start else t)
        return values[0], values[1]

    def batch(self, rows: Rows, size: int, generator: torch.Generator) -> Rows:
        """Points of each sample, drawn without replacement."""
        x, y = (z[torch.randperm(len(z), generator=generator)[:size].to(z.device)] for z in rows)
        return x, y


def pair_critic(critic: Critic, start: GaussianStart | None, rows: Rows, generator: torch.Generator) -> PairCritic:
    """The untrained critic of paired training rows."""
    x, y = rows
    net = critic.of_pairs(x.shape[1], y.shape[1], generator).to(x.device)
    return PairCritic(net, critic.negatives, None if start is None else start.of_pairs(x, y))


def point_critic(critic: Critic, start: GaussianStart | None, rows: Rows, generator: torch.Generator) -> PointCritic:
    """The untrained critic of points of two training samples."""
    net = critic.of_points(rows[0].shape[1], generator).to(rows[0].device)
    return PointCritic(net, None if start is None else start.of_points(*rows))


def draw_shifts(n: int, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` different shifts of n rows, none of them zero."""
    return 1 + torch.randperm(n - 1, generator=generator)[: min(most, n - 1)]


def train(
    fitted: FittedCritic,
    rows: Rows,
    held_out: Rows,
    loss: Loss,
    score: Score,
    training: CriticTraining,
    generator: torch.Generator,
) -> None:
    """Train the network where there is one to train, keep the weights with the best held-out score, and choose the parts.

    Of nothing, the start alone and start + network, what scores best on the held-out rows stays on; nothing scores zero.
    """
    watched = draw_shifts(len(held_out[0]), 64, generator)

    def held_out_score() -> float:
        return score(*fitted.scores(held_out, watched))

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        batch = fitted.batch(rows, training.batch_size, generator)
        return loss(*fitted.scores(batch, draw_shifts(len(batch[0]), fitted.negatives, generator))), {}

    with torch.no_grad():
        fitted.use_start = fitted.use_net = False
        options = {(False, False): held_out_score()}
        fitted.use_start = True
        options[True, False] = held_out_score()
    # A start that is worse than nothing on rows that it has not seen would cost the network its training to undo.
    fitted.use_start = options[True, False] > options[False, False]
    fitted.use_net = True
    watch, _ = training.run(fitted.net, step, held_out_score)
    options[fitted.use_start, True] = watch.best
    fitted.use_start, fitted.use_net = max(options, key=lambda parts: options[parts])


__all__ = [
    "CriticTraining",
    "FittedCritic",
    "GaussianStart",
    "Loss",
    "PairCritic",
    "PointCritic",
    "Rows",
    "Score",
    "draw_shifts",
    "pair_critic",
    "point_critic",
    "train",
]
