"""Log-probabilities of given tokens under a causal language model, masked and in at least single precision."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


def logits_of(model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The logits (B, T, V) of a causal language model on token indices (B, T).

    `model` is anything called as model(input_ids=..., attention_mask=...) or model(input_ids) that returns a tensor or an object
    with `.logits`: Hugging Face and PEFT models, or a module of one's own. Position ids follow the attention mask, so that left
    padding does not shift a sequence. Raises TypeError for another return, ValueError for indices that are not
    (B, T) integers, lie outside the vocabulary, or a mask that the module does not take.
    """
    if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids must be integer indices (B, T), got {input_ids.dtype} of shape {tuple(input_ids.shape)}")
    options: dict[str, Any] = {}
    if attention_mask is not None:
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}: "
                "they must be equal"
            )
        named = inspect.signature(model.forward).parameters
        if "attention_mask" not in named and not any(p.kind is p.VAR_KEYWORD for p in named.values()):
            raise ValueError(
                f"{type(model).__name__}.forward takes no attention_mask: give it sequences without padding, of one length"
            )
        options["attention_mask"] = attention_mask.long()
        if "config" in dir(model) and not bool(attention_mask.all()):
            options["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
    try:
        output = model(input_ids, **options)
    except IndexError as error:
        raise ValueError(
            f"{type(model).__name__} has no token or no position for some of input_ids, which lie in [{int(input_ids.min())}, "
            f"{int(input_ids.max())}] in sequences of {input_ids.shape[1]}: the model and the tokenizer must belong together"
        ) from error
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise TypeError(
            f"{type(model).__name__} must return logits (B, T, V) as a tensor or in `.logits`, got {type(output).__name__}"
        )
    return logits


def token_log_probs(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """log p(y_t | y_<t) of each label but the first, (B, T - 1), and the mask of those that count.

    logits (B, T, V), labels (B, T) as Hugging Face models take them: position t of the logits predicts label t + 1, and labels
    equal to `ignore_index` (prompt, padding) do not count; their log-probability is given as 0. Half precision is computed in
    single. Differentiable; memory: one copy of the logits at most, in the backward pass.
    Raises ValueError for shapes that do not fit or labels outside the vocabulary.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"logits must be (B, T, V) and labels (B, T), got shapes {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.shape[1] < 2:
        raise ValueError("a causal model predicts the next token: sequences need at least two, got length 1")
    targets = labels[:, 1:]
    mask = targets != ignore_index
    size = logits.shape[-1]
    kept = torch.where(mask, targets, torch.zeros_like(targets))
    if bool(((kept < 0) | (kept >= size)).any()):
        bad = kept[(kept < 0) | (kept >= size)]
        raise ValueError(
            f"labels has the token {int(bad[0])}, outside the vocabulary of {size}: the model and the tokenizer do not belong "
            f"together, or padding is not marked by {ignore_index}"
        )
    scores = logits[:, :-1]
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    chosen = scores.gather(-1, kept.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(scores, -1)
    return torch.where(mask, chosen, torch.zeros_like(chosen)), mask


def sequence_log_probs(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
    """log p(response | prompt), (B,): the sum of `token_log_probs` over the labels that count."""
    return token_log_probs(logits, labels, ignore_index=ignore_index)[0].sum(-1)


__all__ = ["logits_of", "sequence_log_probs", "token_log_probs"]
