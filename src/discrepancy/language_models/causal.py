"""A causal language model with one prompt as a policy over responses: sample, and the log-probability of what was sampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, whole_number
from discrepancy.language_models.generation import generate
from discrepancy.language_models.log_probs import logits_of, token_log_probs


@dataclass(frozen=True)
class CausalPolicy:
    """pi(y | prompt) of a causal language model, y up to `max_new_tokens` tokens or the end token.

    `prompt_ids` (T0,) is the prompt. A response is padded behind its end with `pad_token_id` (default: the end token), and its
    log-probability counts the end token and no padding. `temperature` divides the logits in sampling and in `log_prob` alike, so
    that the law sampled from is the law scored.
    """

    model: nn.Module
    prompt_ids: Tensor
    max_new_tokens: int
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.max_new_tokens, 1, "max_new_tokens")
        at_least(self.temperature, 1e-6, "temperature")
        if self.prompt_ids.ndim != 1 or len(self.prompt_ids) == 0:
            raise ValueError(f"prompt_ids must be (T0,) with at least one token, got shape {tuple(self.prompt_ids.shape)}")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n responses (n, L), L at most `max_new_tokens`."""
        whole_number(n, 1, "n")
        return generate(
            self.model,
            self.prompt_ids.expand(n, -1),
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            generator=generator,
        ).responses

    def log_prob(self, sequences: Tensor) -> Tensor:
        """log pi(y | prompt) (n,) of responses (n, L), differentiable in the model's weights."""
        n = len(sequences)
        ids = torch.cat([self.prompt_ids.expand(n, -1), sequences], -1)
        labels = ids.clone()
        labels[:, : len(self.prompt_ids)] = -100
        if self.eos_token_id is not None:
            ended = (sequences == self.eos_token_id).long().cumsum(-1)
            # Everything behind the first end token is padding.
            behind = (ended - (sequences == self.eos_token_id).long()) > 0
            labels[:, len(self.prompt_ids) :].masked_fill_(behind, -100)
        logits = logits_of(self.model, ids) / self.temperature
        return token_log_probs(logits, labels)[0].sum(-1)

    def parameters(self) -> list[nn.Parameter]:
        """The model's weights that are trained."""
        return [w for w in self.model.parameters() if w.requires_grad]


__all__ = ["CausalPolicy"]
