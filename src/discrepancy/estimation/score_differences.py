"""Which scores mutual information is made of, and how it is read off them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.estimation.noise_network import View


class Variant(ABC):
    """Which scores mutual information is made of."""

    views: ClassVar[tuple[View, ...]]

    @abstractmethod
    def gain(self, parts: Sequence[Tensor]) -> Tensor:
        """What the squares `parts`, one (n,) a view, say of the information: large where knowing the other variable helps."""

    @abstractmethod
    def apart(self, noises: Sequence[Tensor]) -> Tensor:
        """The squared distance (n,) of the noises with and without the dependence."""


@dataclass(frozen=True)
class Conditional(Variant):
    """I = E KL(P_{X|Y} || P_X): the score of X alone and of X given Y. The paper's "c"."""

    views = (View((True, False), (False, False)), View((True, False), (False, True)))

    def gain(self, parts: Sequence[Tensor]) -> Tensor:
        """Without minus with."""
        return parts[0] - parts[1]

    def apart(self, noises: Sequence[Tensor]) -> Tensor:
        """|e(X) - e(X | Y)|^2."""
        return (noises[0] - noises[1]).square().sum(1)


@dataclass(frozen=True)
class Joint(Variant):
    """I = H(X, Y) - H(X | Y) - H(Y | X): the score of both together, and of each given the other. The paper's "j"."""

    views = (
        View((True, True), (False, False)),
        View((True, False), (False, True)),
        View((False, True), (True, False)),
    )

    def gain(self, parts: Sequence[Tensor]) -> Tensor:
        """Of both minus of each given the other."""
        return parts[0] - parts[1] - parts[2]

    def apart(self, noises: Sequence[Tensor]) -> Tensor:
        """|e(X, Y) - (e(X | Y), e(Y | X))|^2."""
        return (noises[0] - torch.cat([noises[1], noises[2]], 1)).square().sum(1)


class ScoreDifference(ABC):
    """How information is read off the noises that the network guesses, e of size one a coordinate, one a view."""

    @abstractmethod
    def integrand(
        self, variant: Variant, guesses: Sequence[Tensor], truth: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> Tensor:
        """(n,): half its integral over log(sigma^2) is the information. `reference` is what a Gaussian N(0, s^2) would guess."""

    deviation: float = 1.0


@dataclass(frozen=True)
class Inside(ScoreDifference):
    """|difference of the scores|^2: never negative, and too large by the square of what the network errs."""

    def integrand(
        self, variant: Variant, guesses: Sequence[Tensor], truth: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> Tensor:
        """The squared distance of the guesses."""
        return variant.apart(guesses)


@dataclass(frozen=True)
class Outside(ScoreDifference):
    """A difference of entropies, each from the squared distance to the score of N(0, deviation^2): less biased, of any sign.

    The paper's "sigma" estimators.
    """

    deviation: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError unless the deviation is positive."""
        positive(self.deviation, "deviation")

    def integrand(
        self, variant: Variant, guesses: Sequence[Tensor], truth: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> Tensor:
        """The squared distances to the reference's guess; what is known more exactly lies further from it."""
        return -variant.gain([(g - r).square().sum(1) for g, r in zip(guesses, reference, strict=True)])


@dataclass(frozen=True)
class DenoisingLoss(ScoreDifference):
    """How much less noise is left when the other variable is known: a difference of held-out losses.

    What the scores of X given Y err counts as a loss, never as information: learned by heart, they give too little. Errors enter
    to second order, with opposite signs for the two sides of the difference. Of any sign, and noisier than `Inside`: take 40
    passes or more.
    """

    def integrand(
        self, variant: Variant, guesses: Sequence[Tensor], truth: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> Tensor:
        """The squared errors."""
        return variant.gain([(g - e).square().sum(1) for g, e in zip(guesses, truth, strict=True)])


__all__ = ["Conditional", "DenoisingLoss", "Inside", "Joint", "Outside", "ScoreDifference", "Variant"]
