"""How to take what a second law predicts out of the first: contrast of log-probabilities, or subtraction of probabilities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least
from discrepancy.methods.decoding.candidates import PlausibleSet


class Mode(ABC):
    """A rule from two laws of the next token to one; a subclass is a frozen dataclass."""

    @abstractmethod
    def log_probs(self, log_p: Tensor, log_q: Tensor, plausible: PlausibleSet) -> Tensor:
        """Log-probabilities (..., V) of the new law, -inf off the plausible set."""


@dataclass(frozen=True)
class Contrast(Mode):
    """softmax of (1 + w) log p - w log q over the tokens that are plausible under p.

    Without the plausible set, tokens that neither prompt expects would win. Where q(v) = 0 on some plausible tokens the score is
    infinite: the law is then its limit as those q fall to zero together, p^(1 + w) on them. With w = 0 it is p itself, cut.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the weight."""
        at_least(self.weight, 0.0, "weight")

    def log_probs(self, log_p: Tensor, log_q: Tensor, plausible: PlausibleSet) -> Tensor:
        kept = plausible.mask(log_p)
        if self.weight == 0:
            return torch.log_softmax(log_p.masked_fill(~kept, -torch.inf), -1)
        unseen = kept & (log_q == -torch.inf)
        kept = torch.where(unseen.any(-1, keepdim=True), unseen, kept)
        against = log_q.masked_fill(unseen | ~kept, 0.0)
        score = (1 + self.weight) * log_p.masked_fill(~kept, 0.0) - self.weight * against
        return torch.log_softmax(score.masked_fill(~kept, -torch.inf), -1)


@dataclass(frozen=True)
class Subtract(Mode):
    """The p* of the mixture p = (1 - rho) p* + rho q: (p - rho q) / (1 - rho), clipped at 0 and renormalised.

    `rate` = rho in [0, 1). The plausible set is taken of p*, which always has one; p* <= p / (1 - rho), so that no token is
    raised from noise.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        """Check the rate."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"the rate of noise must lie in [0, 1), got {self.rate!r}")

    def log_probs(self, log_p: Tensor, log_q: Tensor, plausible: PlausibleSet) -> Tensor:
        if self.rate == 0:
            log_star = log_p
        else:
            # log(p - rho q) = log p + log(1 - e^(log rho + log q - log p)); where rho q >= p nothing is left.
            excess = math.log(self.rate) + log_q - log_p
            left = (log_p > -torch.inf) & (excess < 0)
            inner = torch.where(left, excess, torch.full_like(excess, -1.0))
            log_star = torch.where(left, log_p + torch.log(-torch.expm1(inner)), torch.full_like(log_p, -torch.inf))
        return torch.log_softmax(log_star.masked_fill(~plausible.mask(log_star), -torch.inf), -1)


__all__ = ["Contrast", "Mode", "Subtract"]
