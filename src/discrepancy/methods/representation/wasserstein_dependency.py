"""Representations from pairs by a Lipschitz critic: Wasserstein predictive coding, and the dual of the dependency measure.

The measure itself, on samples and with any discrepancy, is `discrepancy.transport.WassersteinDependency`; its test is
`discrepancy.independence_test`.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import generator_or_default
from discrepancy.learning import GradientPenalty
from discrepancy.learning.gradient_penalty import slopes_at, uniform_between


class Objective(ABC):
    """What the critic's scores f(x_i, y_j) (B, B) are to make large; row i and column i belong together."""

    @abstractmethod
    def value(self, scores: Tensor) -> Tensor:
        """The objective, a lower bound of the dependence that it is named for."""


@dataclass(frozen=True)
class PredictiveCoding(Objective):
    """mean_i [f_ii - log (1/B) sum_j exp f_ij]: InfoNCE, a bound on mutual information that never exceeds log B."""

    def value(self, scores: Tensor) -> Tensor:
        """The bound in nats."""
        size = scores.shape[-1]
        return (scores.diagonal() - torch.logsumexp(scores, -1) + math.log(size)).mean()


@dataclass(frozen=True)
class WassersteinDual(Objective):
    """mean_i f_ii - mean_(i != j) f_ij: for a 1-Lipschitz critic the dual of W_1 between the joint law and the product."""

    def value(self, scores: Tensor) -> Tensor:
        """The difference of the means, in units of the data."""
        size = scores.shape[-1]
        own = scores.diagonal()
        return own.mean() - (scores.sum() - own.sum()) / (size * (size - 1))


def pair_slopes(
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator | None = None,
    create_graph: bool = True,
) -> Tensor:
    """|grad_(x, y) score| (B,) at uniform points between joint pairs (x_i, y_i) and product pairs, differentiable.

    x (B, ...), y (B, ...) paired; score(x, y) -> (B,) row by row. Half of the product pairs keep x_i and take another y, which
    tests the slope at the data's own x; the others take both from elsewhere.
    """
    source = generator_or_default(generator)
    size = x.shape[0]
    partner, other = (torch.randperm(size, generator=source).to(x.device) for _ in range(2))
    keep = torch.arange(size, device=x.device)
    left = torch.where(keep < size // 2, keep, other)
    share = torch.rand(size, generator=source, dtype=x.dtype).to(x.device)
    points = uniform_between(x, x[left], share), uniform_between(y, y[partner], share)
    return slopes_at(score, *points, create_graph=create_graph)


@runtime_checkable
class PairCritic(Protocol):
    """What a critic offers: scores of all pairs by calling it, of paired rows by `pairs`."""

    def __call__(self, u: Tensor, v: Tensor) -> Tensor:
        """All pairs (B, B)."""
        ...

    def pairs(self, u: Tensor, v: Tensor) -> Tensor:
        """Row by row (B,)."""
        ...


_CODING, _PENALTY = PredictiveCoding(), GradientPenalty()


@dataclass(frozen=True, repr=False)
class PredictiveCodingTerms(Result):
    """One batch: the `objective`, the `penalty`, the `loss` = penalty - objective, and the median `slope` of the critic where it
    was looked at."""

    objective: Tensor
    penalty: Tensor
    loss: Tensor
    slope: Tensor


class WassersteinPredictiveCoding(nn.Module):
    """The loss  - objective(scores) + weight E (|grad_(x, y) f| - 1)^2  of two encoders and a critic on paired rows.

    f(x, y) = critic(encoder_x(x), encoder_y(y)). Without the penalty (`penalty=None`) and with `PredictiveCoding()` it is
    InfoNCE, which saturates at log B; the penalty makes the critic about 1-Lipschitz in the data, so that its value goes on
    growing with whatever else the pair shares. After training the critic is thrown away and `encoder_x` kept. A critic and
    encoders under `torch.nn.utils.parametrizations.spectral_norm` are another way to bound the slope, with `penalty=None`. With
    `penalise_embeddings` the slope is that in the encoders' outputs: the ground metric then lives in feature space, another
    measure, which a network can shrink.

    critic: all pairs by call, row by row by `pairs` (`networks.BilinearCritic`, `ConcatenatedCritic`). One batch costs B^2 scores
    and a second derivative of the encoders. Raises ValueError for a batch of one or unpaired lengths, TypeError for integer
    inputs, which have no gradient: penalise embeddings. Warns once of batch normalisation in an encoder, under which a row's
    gradient depends on the others. Source: Ozair, Lynch, Bengio, van den Oord, Levine and Sermanet (2019, 1903.11780).
    """

    references: ClassVar[tuple[str, ...]] = ("ozair-2019", "gulrajani-2017")

    def __init__(
        self,
        encoder_x: nn.Module,
        encoder_y: nn.Module,
        critic: nn.Module,
        *,
        objective: Objective = _CODING,
        penalty: GradientPenalty | None = _PENALTY,
        penalise_embeddings: bool = False,
    ) -> None:
        """Wrap the networks, which the loss trains together; TypeError for a critic without `pairs` or options of other kinds."""
        super().__init__()
        if not isinstance(critic, PairCritic):
            raise TypeError(f"critic must score all pairs by call and paired rows by `pairs`, got {type(critic).__name__}")
        if not isinstance(objective, Objective):
            raise TypeError(f"objective must be PredictiveCoding() or WassersteinDual(), got {objective!r}")
        if penalty is not None and not isinstance(penalty, GradientPenalty):
            raise TypeError(f"penalty must be a GradientPenalty or None, got {penalty!r}")
        self.encoder_x, self.encoder_y, self.critic = encoder_x, encoder_y, critic
        self.objective, self.penalty, self.penalise_embeddings = objective, penalty, penalise_embeddings
        normalised = [
            m for net in (encoder_x, encoder_y) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        if normalised and penalty is not None:
            warnings.warn(
                "an encoder normalises over the batch: a row's gradient then depends on the other rows, and the penalty bounds "
                "no Lipschitz constant; take layer normalisation",
                UserWarning,
                stacklevel=2,
            )

    def forward(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss on paired rows x (B, ...) and y (B, ...)."""
        return self.terms(x, y, generator=generator).loss

    def terms(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> PredictiveCodingTerms:
        """The loss with its parts."""
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"x and y must be paired row by row, got {x.shape[0]} and {y.shape[0]} rows")
        if x.shape[0] < 2:
            raise ValueError("a batch of one has no product pairs: take at least two rows")
        whole = [t.dtype for t in (x, y) if not t.is_floating_point()]
        on_inputs = self.penalty is not None and not self.penalise_embeddings
        if whole and on_inputs:
            raise TypeError(f"inputs of type {whole[0]} have no gradient: penalise embeddings instead, penalise_embeddings=True")
        u, v = self.encoder_x(x), self.encoder_y(y)
        scores = self.critic(u, v)
        if scores.shape != (x.shape[0], x.shape[0]):
            raise ValueError(f"the critic must score all pairs, ({x.shape[0]}, {x.shape[0]}), got {tuple(scores.shape)}")
        value = self.objective.value(scores)
        if self.penalty is None:
            nothing = torch.zeros_like(value)
            return PredictiveCodingTerms(value, nothing, -value, torch.full_like(value, math.nan))
        slopes = self.slopes(x, y, generator=generator) if on_inputs else self._embedded(u, v, generator)
        penalty = self.penalty.of(slopes)
        return PredictiveCodingTerms(value, penalty, penalty - value, slopes.detach().median())

    def slopes(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None, create_graph: bool = True) -> Tensor:
        """|grad_(x, y) f| (B,) between joint and product pairs."""

        def score(at_x: Tensor, at_y: Tensor) -> Tensor:
            return self.critic.pairs(self.encoder_x(at_x), self.encoder_y(at_y))  # type: ignore[operator]

        return pair_slopes(score, x, y, generator=generator, create_graph=create_graph)

    def _embedded(self, u: Tensor, v: Tensor, generator: torch.Generator | None) -> Tensor:
        return pair_slopes(self.critic.pairs, u, v, generator=generator)  # type: ignore[arg-type]


__all__ = [
    "Objective",
    "PredictiveCoding",
    "PredictiveCodingTerms",
    "WassersteinDual",
    "WassersteinPredictiveCoding",
    "pair_slopes",
]
