"""Plain decoding that the field compares with: greedy, and contrast at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from discrepancy.language_models import Generation, generate
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast
from discrepancy.methods.decoding.dual_prompt import ContrastiveGeneration, ContrastiveProcessor
from discrepancy.methods.decoding.gates import Always


def greedy(model: nn.Module, prompt_ids: Tensor, **options: Any) -> Generation:
    """The most probable token at every step; `options` as `discrepancy.language_models.generate` takes them."""
    return generate(model, prompt_ids, temperature=0.0, **options)


def contrastive_decoding(
    model: nn.Module,
    prompt_ids: Tensor,
    *,
    amateur: nn.Module | None = None,
    amateur_ids: Tensor | None = None,
    amateur_mask: Tensor | None = None,
    weight: float = 0.5,
    plausible: PlausibleSet | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    **options: Any,
) -> ContrastiveGeneration:
    """Contrast at every step with a smaller model, another prompt, or both, (1 + w) log p - w log q on the plausible set.

    `amateur` (default: the model itself) reads `amateur_ids` (default: the same prompts). The record tells what it cost.
    Raises ValueError where neither is given, or vocabularies differ. Source: Li et al. 2023.
    """
    if amateur is None and amateur_ids is None:
        raise ValueError("give an amateur model, amateur_ids (another prompt), or both: a law is not contrasted with itself")
    mask = amateur_mask if amateur_ids is not None else options.get("attention_mask")
    processor = ContrastiveProcessor(
        model if amateur is None else amateur,
        prompt_ids if amateur_ids is None else amateur_ids,
        mask,
        mode=Contrast(weight),
        gate=Always(),
        plausible=plausible,
        warn_of_repeats=amateur is None,
    )
    made = generate(model, prompt_ids, temperature=temperature, processors=(processor,), generator=generator, **options)
    return ContrastiveGeneration(made, processor.record)


__all__ = ["contrastive_decoding", "greedy"]
