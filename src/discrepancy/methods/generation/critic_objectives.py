"""What a critic makes large: the dual of W_1 with a penalty on its slope, or the variational bound of an f-divergence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy.divergences import FDivergence
from discrepancy.divergences.admission import SMOOTH, Admission
from discrepancy.divergences.variational import log_ratio_values
from discrepancy.learning import GradientPenalty
from discrepancy.learning.gradient_penalty import slopes_between

Critic = Callable[[Tensor], Tensor]

ADMISSION = Admission(
    "NeuralNetDivergence", (FDivergence,), (SMOOTH,), examples=("WassersteinCritic()", "JensenShannon()", "KL()")
)


@dataclass(frozen=True)
class Terms:
    """Values a row: `real` (n,) and `model` (m,), whose means' difference is the objective, and the `penalty` (k,) taken off."""

    real: Tensor
    model: Tensor
    penalty: Tensor

    @property
    def value(self) -> Tensor:
        """mean(real) - mean(model) - mean(penalty)."""
        return self.real.mean() - self.model.mean() - self.penalty.mean()


class CriticObjective(ABC):
    """A distance of two laws as the largest objective of a family of critics."""

    @property
    @abstractmethod
    def slopes(self) -> GradientPenalty | None:
        """The penalty on the critic's slope, which is part of the value; None: the slope is free."""

    @abstractmethod
    def values(self, at_real: Tensor, at_model: Tensor) -> tuple[Tensor, Tensor]:
        """From scores at rows of either law: the terms whose means' difference is the objective."""

    def terms(self, critic: Critic, real: Tensor, model: Tensor, generator: torch.Generator, *, create_graph: bool) -> Terms:
        """The terms at rows real (n, ...) and model (m, ...), slopes at uniform points of segments between rows of the two."""
        at_real, at_model = self.values(critic(real), critic(model))
        if self.slopes is None:
            return Terms(at_real, at_model, torch.zeros_like(at_real[:1]))
        size = min(len(real), len(model))
        found = slopes_between(critic, real[:size], model[:size], generator=generator, create_graph=create_graph)
        return Terms(at_real, at_model, self.slopes.each(found))


@dataclass(frozen=True)
class WassersteinCritic(CriticObjective):
    """E_P f - E_Q f - weight E (|grad f| - 1)^2: W_1 up to the penalty, which is part of the value (the minimax variant).

    Without the penalty the difference of means is larger, and another number. Source: Gulrajani et al. (2017, 1704.00028).
    """

    penalty: GradientPenalty = field(default_factory=GradientPenalty)

    @property
    def slopes(self) -> GradientPenalty:
        """The penalty."""
        return self.penalty

    def values(self, at_real: Tensor, at_model: Tensor) -> tuple[Tensor, Tensor]:
        """The scores themselves."""
        return at_real, at_model


@dataclass(frozen=True)
class FDivergenceCritic(CriticObjective):
    """E_P f'(t) - E_Q f*(f'(t)) for a critic log t: a lower bound of D_f(P || Q), P the real law, at any critic.

    Admits smooth FDivergences; with a `penalty` on the slope of log t the value is that of the penalised critic. Source: Nowozin,
    Cseke and Tomioka (2016, 1606.00709).
    """

    divergence: FDivergence
    penalty: GradientPenalty | None = None

    def __post_init__(self) -> None:
        """Raise TypeError for a divergence that is not admitted."""
        ADMISSION.check(self.divergence)

    @property
    def slopes(self) -> GradientPenalty | None:
        """The penalty, if any."""
        return self.penalty

    def values(self, at_real: Tensor, at_model: Tensor) -> tuple[Tensor, Tensor]:
        """f'(t) and f*(f'(t))."""
        return log_ratio_values(self.divergence, at_real, at_model)


def objective_of(choice: Any) -> CriticObjective:
    """A CriticObjective as it is, an FDivergence as its critic; TypeError with the reason for anything else."""
    return choice if isinstance(choice, CriticObjective) else FDivergenceCritic(choice)


__all__ = ["ADMISSION", "Critic", "CriticObjective", "FDivergenceCritic", "Terms", "WassersteinCritic", "objective_of"]
