"""When to contrast: gates open where the next-token law looks uncertain, or near what the second prompt predicts."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy.divergences import Divergence, InfiniteDivergenceWarning
from discrepancy.divergences.admission import Admission

ADMITS = Admission(method="a divergence gate", examples=("JensenShannon()", "KL()", "TotalVariation()"))


class Gate(ABC):
    """Decides step by step whether to contrast; a subclass is a frozen dataclass.

    `needs_second` says that the decision looks at the second prompt's law, which then is computed at every step.
    """

    needs_second: ClassVar[bool] = False

    @abstractmethod
    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        """Which rows to contrast, boolean (B,), from the raw log-probabilities (B, V) under the two prompts."""


def _threshold(value: float, name: str) -> None:
    if not (math.isfinite(float(value)) and value >= 0):
        raise ValueError(f"{name}'s threshold must be a finite number of at least 0, got {value!r}")


@dataclass(frozen=True)
class Always(Gate):
    """Contrast at every step."""

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        return torch.ones(log_p.shape[:-1], dtype=torch.bool, device=log_p.device)


@dataclass(frozen=True)
class StandardDeviation(Gate):
    """Contrast where sqrt(V) std(p) = sqrt(sum (p - 1/V)^2) < threshold: a flat law is uncertain.

    0 for the uniform law, sqrt(1 - 1/V) for a certain one, whatever the vocabulary. With threshold 0 it never opens.
    """

    threshold: float = 0.6

    def __post_init__(self) -> None:
        """Check the threshold."""
        _threshold(self.threshold, "StandardDeviation")

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        # The centred sum, and not sum p^2 - 1/V, which cancels for nearly flat laws.
        return (log_p.exp() - 1 / log_p.shape[-1]).square().sum(-1).sqrt() < self.threshold


@dataclass(frozen=True)
class NormalisedEntropy(Gate):
    """Contrast where H(p) / log V > threshold, in [0, 1]; needs at least two tokens."""

    threshold: float = 0.3

    def __post_init__(self) -> None:
        """Check the threshold."""
        _threshold(self.threshold, "NormalisedEntropy")

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        if log_p.shape[-1] < 2:
            raise ValueError("a vocabulary of one token has no entropy to normalise by")
        p = log_p.exp()
        entropy = -torch.where(p > 0, p * log_p, torch.zeros_like(p)).sum(-1)
        return entropy / math.log(log_p.shape[-1]) > self.threshold


@dataclass(frozen=True)
class Margin(Gate):
    """Contrast where the two largest probabilities differ by less than the threshold."""

    threshold: float = 0.3

    def __post_init__(self) -> None:
        """Check the threshold."""
        _threshold(self.threshold, "Margin")

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        top = log_p.topk(min(2, log_p.shape[-1]), -1).values.exp()
        return top[..., 0] - (top[..., 1] if top.shape[-1] > 1 else 0.0) < self.threshold


@dataclass(frozen=True)
class DivergenceGate(Gate):
    """Contrast where D(P || Q) < threshold: the prediction P is close to the noise Q, in the divergence's own units.

    P is the law under the standard prompt, Q that under the second one; any `Divergence` will do, and an infinite value keeps the
    gate closed. A threshold j on the Jensen-Shannon divergence in bits is `DivergenceGate(JensenShannon(), j * log 2)`.
    """

    divergence: Divergence
    threshold: float
    needs_second: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        ADMITS.check(self.divergence)
        _threshold(self.threshold, "DivergenceGate")

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        if log_q is None:
            raise ValueError("a divergence gate needs the second prompt's law")
        with warnings.catch_warnings():
            # Infinite is a plain answer here: far apart, keep closed.
            warnings.simplefilter("ignore", InfiniteDivergenceWarning)
            return self.divergence.from_logits(log_p, log_q) < self.threshold


@dataclass(frozen=True)
class CallableGate(Gate):
    """One's own rule: function(p, q) -> boolean (B,) from the probabilities (B, V) under the two prompts."""

    function: Callable[[Tensor, Tensor], Tensor]
    needs_second: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that the rule can be called."""
        if not callable(self.function):
            raise TypeError(
                f"gate must be a Gate such as StandardDeviation(0.6) or a callable (p, q) -> bool tensor, got {self.function!r}"
            )

    def opens(self, log_p: Tensor, log_q: Tensor | None) -> Tensor:
        if log_q is None:
            raise ValueError("a callable gate needs the second prompt's law")
        found = self.function(log_p.exp(), log_q.exp())
        if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != log_p.shape[:-1]:
            what = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(f"gate must return a boolean tensor of shape {tuple(log_p.shape[:-1])}, got {what}")
        return found


__all__ = ["ADMITS", "Always", "CallableGate", "DivergenceGate", "Gate", "Margin", "NormalisedEntropy", "StandardDeviation"]
