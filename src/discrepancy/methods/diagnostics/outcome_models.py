"""What a network's outputs mean: the likelihoods under which log-loss, mixtures and divergences are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Likelihood(Protocol):
    """A law over finitely many outcomes from a network's outputs."""

    def log_probs(self, outputs: Tensor) -> Tensor:
        """log P (..., n, K) from outputs of n rows."""
        ...


@dataclass(frozen=True)
class CategoricalLogits:
    """Outputs (..., n, K) are logits of K classes."""

    def log_probs(self, outputs: Tensor) -> Tensor:
        """The log-softmax."""
        if outputs.shape[-1] < 2:
            raise ValueError(f"categorical logits need two classes or more, got {outputs.shape[-1]}: try BernoulliLogits()")
        return torch.log_softmax(outputs, -1)


@dataclass(frozen=True)
class BernoulliLogits:
    """Outputs (..., n, 1) or (..., n) are logits of outcome 1; outcomes are 0 and 1."""

    def log_probs(self, outputs: Tensor) -> Tensor:
        """log P(0), log P(1)."""
        logit = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs
        return torch.nn.functional.logsigmoid(torch.stack([-logit, logit], -1))


@dataclass(frozen=True)
class Probabilities:
    """Outputs (..., n, K) are probabilities already, a softmax layer at the end say; `floor` > 0 raises them to at least that.

    Raises ValueError where they are negative or do not sum to one within 1e-4. A probability of zero makes an infinite log-loss:
    that is no rounding to be hidden, hence no floor by default.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError unless 0 <= floor < 1/2."""
        if not 0 <= self.floor < 0.5:
            raise ValueError(f"floor must lie in [0, 1/2), got {self.floor!r}")

    def log_probs(self, outputs: Tensor) -> Tensor:
        """The logarithm."""
        total = outputs.detach().sum(-1)
        if bool((outputs.detach() < 0).any()) or bool(((total - 1).abs() > 1e-4).any()):
            raise ValueError("the outputs are no probabilities: logits need CategoricalLogits() or BernoulliLogits()")
        raised = outputs.clamp_min(self.floor) if self.floor else outputs
        return torch.log(raised / raised.sum(-1, keepdim=True))


def require_likelihood(likelihood: Likelihood | None) -> Likelihood:
    """The likelihood, or TypeError: whether outputs are logits or probabilities is not to be guessed."""
    if not hasattr(likelihood, "log_probs"):
        raise TypeError(
            "likelihood must say what the outputs are, CategoricalLogits(), BernoulliLogits() or Probabilities(), "
            f"got {likelihood!r}"
        )
    return likelihood  # type: ignore[return-value]


__all__ = ["BernoulliLogits", "CategoricalLogits", "Likelihood", "Probabilities", "require_likelihood"]
