"""Uncertainty-aware selective contrastive decoding: take out what a prompt without examples predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import Estimate
from discrepancy.divergences import Divergence, JensenShannon
from discrepancy.language_models import generate, logits_of
from discrepancy.methods.decoding.cached_model import evaluating
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast, Mode
from discrepancy.methods.decoding.dual_prompt import ContrastiveGeneration, ContrastiveProcessor
from discrepancy.methods.decoding.gates import ADMITS, Gate, StandardDeviation
from discrepancy.methods.decoding.text import decode, encode, strip_examples


@dataclass(frozen=True)
class USCD:
    """The method's choices: at each step with an uncertain law p, decode from softmax((1 + w) log p - w log q) on {p >= a max p}.

    p is the law under the standard prompt (given), q the noise under the lame prompt: the same task without its examples. `gate`
    says what is uncertain, `mode` how q is taken out (`Contrast(w)`, or `Subtract(rho)` for a known mixture), `plausible` is the
    set with a. The paper's gate is the standard deviation of p; ours is normalised by sqrt(V), so that a threshold carries over
    to other vocabularies; it, w = 0.5 and a = 0.1 are our choices, since the paper's numbers are not known.
    With a gate that never opens this is the model's own decoding, exactly. A lame prompt that predicts something else than the
    noise does harm: look at `second_prompt_divergence` first. Source: Wang et al. 2024.
    """

    gate: Gate | Callable[[Tensor, Tensor], Tensor] = field(default_factory=StandardDeviation)
    mode: Mode = field(default_factory=Contrast)
    plausible: PlausibleSet = field(default_factory=PlausibleSet)

    references: ClassVar[tuple[str, ...]] = ("uscd",)

    def processor(
        self, model: nn.Module, lame_ids: Tensor, lame_mask: Tensor | None = None, **options: Any
    ) -> ContrastiveProcessor:
        """The logits processor for lame prompts (P, L), left-padded where `lame_mask` is False; see `ContrastiveProcessor`."""
        return ContrastiveProcessor(
            model, lame_ids, lame_mask, mode=self.mode, gate=self.gate, plausible=self.plausible, **options
        )  # fmt: skip


def uscd(
    model: nn.Module,
    prompt_ids: Tensor,
    lame_ids: Tensor,
    *,
    settings: USCD | None = None,
    attention_mask: Tensor | None = None,
    lame_mask: Tensor | None = None,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> ContrastiveGeneration:
    """Continue prompts (B, T) by selective contrast with lame prompts (B, L), both left-padded where their masks are False.

    Greedy by default; with a temperature the contrasted law is sampled. Time: greedy's, plus one forward of the lame prompt and
    of every generated token once a gate opened; skipped tokens are read together when the next gate opens. Memory: two caches.
    Raises ValueError where prompts or vocabularies do not fit, TypeError for settings of the wrong kind.
    """
    settings = USCD() if settings is None else settings
    processor = settings.processor(model, lame_ids, lame_mask)
    made = generate(
        model,
        prompt_ids,
        attention_mask=attention_mask,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        processors=(processor,),
        generator=generator,
    )
    return ContrastiveGeneration(made, processor.record)


def contrastive_generate(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    lame_prompt: str | None = None,
    *,
    lame_builder: Callable[[str], str] = strip_examples,
    settings: USCD | None = None,
    **options: Any,
) -> ContrastiveGeneration:
    """`uscd` on a text: the lame prompt is `lame_builder(prompt)` unless given; `.text` is the answer.

    `options` are those of `uscd` (max_new_tokens, temperature ...); the end token defaults to the tokenizer's.
    Raises ValueError for an empty prompt.
    """
    ids = encode(tokenizer, prompt, special=True)
    if len(ids) == 0:
        raise ValueError("prompt is empty: there is nothing to continue")
    lame = encode(tokenizer, lame_builder(prompt) if lame_prompt is None else lame_prompt, special=True)
    options = {"eos_token_id": getattr(tokenizer, "eos_token_id", None)} | options
    made = uscd(model, ids[None], lame[None], settings=settings, **options)
    written = made.generation.sequences[0][made.generation.mask[0]]
    return ContrastiveGeneration(made.generation, made.record, decode(tokenizer, written))


def second_prompt_divergence(
    model: nn.Module,
    prompt_ids: Tensor,
    lame_ids: Tensor,
    continuation_ids: Tensor,
    *,
    divergence: Divergence | None = None,
    base: float = 2.0,
) -> Estimate:
    """How far the two prompts' laws are, step by step along a continuation: the mean of D(P_t || Q_t), in bits by default.

    prompt_ids (T,), lame_ids (L,), continuation_ids (n,); D is the Jensen-Shannon divergence (the paper's statistic, reported as
    about 0.25), or any `Divergence`; `base` e gives nats. The standard error treats steps as independent, which neighbours
    are not. Raises ValueError for an empty prompt or continuation.
    """
    D = ADMITS.check(JensenShannon() if divergence is None else divergence)
    for name, ids in (("prompt_ids", prompt_ids), ("lame_ids", lame_ids), ("continuation_ids", continuation_ids)):
        if ids.ndim != 1 or len(ids) == 0:
            raise ValueError(f"{name} must be token indices (n,) with at least one token, got shape {tuple(ids.shape)}")
    n, laws = len(continuation_ids), []
    with evaluating(model):
        for prompt in (prompt_ids, lame_ids):
            logits = logits_of(model, torch.cat([prompt, continuation_ids])[None])[0]
            laws.append(logits[len(prompt) - 1 : -1])
    values = D.from_logits(*laws).double() / math.log(base)
    mean = float(values.mean())
    error = float(values.std() / math.sqrt(n)) if n > 1 else None
    method = f"mean over {n} steps of {D!r}, base {base:g}"
    if error is None:
        return Estimate(mean, method=method, note="one step has no standard error")
    return Estimate(mean, error, mean - 1.959964 * error, mean + 1.959964 * error, 0.95, method=method)


__all__ = ["ADMITS", "USCD", "ContrastiveGeneration", "contrastive_generate", "second_prompt_divergence", "uscd"]
