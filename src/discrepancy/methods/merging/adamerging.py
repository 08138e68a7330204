"""AdaMerging: coefficients that make the merged model sure of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy.language_models import sequence_mean
from discrepancy.methods.merging.coefficients import Descent, Layer, LearnedMerge, Level, learn_coefficients
from discrepancy.methods.merging.predictions import Predictions, task_inputs
from discrepancy.methods.merging.task_vectors import BoundModel, TaskVectors


@dataclass(frozen=True)
class AdaMerging:
    """min over Gamma of sum_t E_{x ~ X_t} H(M(. | x; theta_0 + sum_s Gamma_s tau_s)), H the entropy: no labels, no experts'
    outputs.

    A baseline: with few inputs it collapses, since a constant answer given with certainty has no entropy at all. Source:
    2310.02575 (2024).
    """

    level: Level = field(default_factory=Layer)
    descent: Descent = field(default_factory=lambda: Descent(start=0.3))
    references: ClassVar[tuple[str, ...]] = ("yang-2024",)

    def merge(self, vectors: TaskVectors, inputs: Any, *, generator: torch.Generator | None = None) -> LearnedMerge:
        """Learn the coefficients and merge; arguments as in `DivMerge.merge`."""
        tasks = [[Predictions(batch) for batch in batches] for batches in task_inputs(vectors, inputs)]
        return learn_coefficients(
            vectors, tasks, _entropy, method=repr(self), level=self.level, descent=self.descent, generator=generator
        )


def _entropy(model: BoundModel, batch: Predictions) -> Tensor:
    """The mean entropy of the outputs, in nats; masked positions of a language model do not count."""
    log_p = torch.log_softmax(batch.outputs(model), -1)
    # An excluded class (-inf) has p log p = 0.
    terms = torch.where(log_p > -torch.inf, log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min), torch.zeros_like(log_p))
    entropy = -terms.sum(-1)
    mask = batch.inputs.get("attention_mask") if isinstance(batch.inputs, dict) else None
    return entropy.mean() if mask is None or entropy.ndim != 2 else sequence_mean(entropy, mask.bool())


__all__ = ["AdaMerging"]
