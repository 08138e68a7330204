"""Sampling from a causal language model, reproducible from a `torch.Generator` and with the model's cache where it has one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import at_least, generator_or_default, whole_number
from discrepancy.language_models.log_probs import logits_of

# (tokens so far, (B, T), scores of the next token, (B, V)) -> scores: the convention of Hugging Face's logits processors.
Processor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Generation:
    """Sequences (B, T) with their prompts in front, the prompts' length, and which tokens are a response's, (B, T) boolean.

    `attention_mask` (B, T) is False on padding. The end token, where one was drawn, belongs to the response.
    """

    sequences: Tensor
    prompt_length: int
    mask: Tensor
    attention_mask: Tensor

    def labels(self, ignore_index: int = -100) -> Tensor:
        """The sequences with everything but the responses set to `ignore_index`, as `token_log_probs` takes them."""
        return torch.where(self.mask, self.sequences, torch.full_like(self.sequences, ignore_index))

    @property
    def responses(self) -> Tensor:
        """The tokens behind the prompts, (B, T - prompt_length)."""
        return self.sequences[:, self.prompt_length :]


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    processors: tuple[Processor, ...] = (),
    generator: torch.Generator | None = None,
) -> Generation:
    """Continue prompts (B, T0), left-padded where `attention_mask` is False, token by token until `eos_token_id` or the limit.

    `temperature` 0 takes the most probable token, 1 samples the model's own law; `top_k` keeps the k most probable. Padding
    behind an end is `pad_token_id` (default: the end token). `processors` change the scores first. The model is put into
    evaluation mode for the time and keeps its weights.
    Time: one forward pass a token, of one token where the model returns `past_key_values`.
    Raises ValueError for options out of range or an empty prompt, NumericalError where the scores have a NaN.
    """
    whole_number(max_new_tokens, 1, "max_new_tokens")
    at_least(temperature, 0.0, "temperature")
    if top_k is not None:
        whole_number(top_k, 1, "top_k")
    if prompt_ids.ndim != 2 or prompt_ids.shape[1] == 0:
        raise ValueError(f"prompt_ids must be (B, T) with at least one token, got shape {tuple(prompt_ids.shape)}")
    generator = generator_or_default(generator, prompt_ids.device)
    attention = torch.ones_like(prompt_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    sequences, running = prompt_ids, torch.ones(len(prompt_ids), dtype=torch.bool, device=prompt_ids.device)
    padding = pad_token_id if pad_token_id is not None else (eos_token_id if eos_token_id is not None else 0)
    written = torch.zeros_like(attention)
    training = model.training
    model.eval()
    try:
        reader = _Reader(model, padded=not bool(attention.all()))
        for step in range(max_new_tokens):
            scores = reader.next_scores(sequences, attention)
            for process in processors:
                scores = process(sequences, scores)
            if bool(torch.isnan(scores).any()):
                raise NumericalError(f"generation step {step}: the scores of the next token have a NaN")
            token = _choose(scores, temperature, top_k, generator)
            token = torch.where(running, token, torch.full_like(token, padding))
            sequences = torch.cat([sequences, token.unsqueeze(-1)], -1)
            attention = torch.cat([attention, running.unsqueeze(-1)], -1)
            written = torch.cat([written, running.unsqueeze(-1)], -1)
            if eos_token_id is not None:
                running = running & (token != eos_token_id)
                if not bool(running.any()):
                    break
    finally:
        model.train(training)
    return Generation(sequences, prompt_ids.shape[1], written, attention)


def _choose(scores: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return scores.argmax(-1)
    scores = scores.float() / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k, -1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    return torch.multinomial(torch.softmax(scores, -1), 1, generator=generator).squeeze(-1)


class _Reader:
    """Scores of the next token, through the model's cache where it keeps one."""

    def __init__(self, model: nn.Module, *, padded: bool) -> None:
        # Only padding on the left needs the mask: what stands behind the end of a finished row is never read.
        self.model, self.padded = model, padded
        named = inspect.signature(model.forward).parameters
        # PEFT wraps forward(*args, **kwargs): what it wraps decides.
        inner = getattr(model, "base_model", None)
        if "past_key_values" not in named and isinstance(inner, nn.Module):
            named = inspect.signature(getattr(inner, "model", inner).forward).parameters
        self.cached = "past_key_values" in named and "use_cache" in named
        self.past: Any = None

    def next_scores(self, sequences: Tensor, attention: Tensor) -> Tensor:
        """The scores (B, V) of the token behind the sequences."""
        if not self.cached:
            return logits_of(self.model, sequences, attention if self.padded else None)[:, -1]
        fresh = sequences if self.past is None else sequences[:, -1:]
        positions = (attention.long().cumsum(-1) - 1).clamp_min(0)[:, -fresh.shape[1] :]
        output = self.model(
            input_ids=fresh,
            attention_mask=attention.long(),
            position_ids=positions,
            past_key_values=self.past,
            use_cache=True,
        )
        self.past = output.past_key_values
        return output.logits[:, -1]


__all__ = ["Generation", "Processor", "generate"]
