"""Prompts and responses as rectangles, and a model's logits at the positions that predict the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy.language_models import logits_of


@dataclass(frozen=True)
class Padded:
    """Token indices (n, L) and which of them are real, (n, L) boolean."""

    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.ids)

    def rows(self, index: Tensor) -> Padded:
        """Some of the rows, in the given order."""
        return Padded(self.ids[index], self.mask[index])


def padded_prompts(prompts: Tensor | Sequence[Tensor], pad_token_id: int | None, name: str = "prompts") -> Padded:
    """Prompts (n, P), or a list of vectors, padded on the left. Raises ValueError where padding is needed and has no token."""
    return _padded(prompts, pad_token_id, name, left=True)


def padded_responses(responses: Tensor | Sequence[Tensor], pad_token_id: int | None, eos_token_id: int | None) -> Padded:
    """Responses (n, R), or a list of vectors, padded on the right; what follows the first end token is no part of a response."""
    found = _padded(responses, pad_token_id, "responses", left=False)
    if eos_token_id is None:
        return found
    ends = (found.ids == eos_token_id).long()
    return Padded(found.ids, found.mask & ((ends.cumsum(-1) - ends) == 0))


def _padded(given: Tensor | Sequence[Tensor], pad_token_id: int | None, name: str, *, left: bool) -> Padded:
    if isinstance(given, Tensor):
        if given.ndim != 2 or given.numel() == 0 or given.is_floating_point():
            raise ValueError(f"{name} must be integer token indices (n, L), got {given.dtype} of shape {tuple(given.shape)}")
        return Padded(given, torch.ones_like(given, dtype=torch.bool))
    if not given:
        raise ValueError(f"{name} is empty")
    lengths = [len(row) for row in given]
    if min(lengths) == 0:
        raise ValueError(f"{name}[{lengths.index(0)}] is empty: a text needs one token at least, such as the beginning")
    if min(lengths) == max(lengths):
        return _padded(torch.stack(list(given)), pad_token_id, name, left=left)
    if pad_token_id is None:
        raise ValueError(
            f"{name} have lengths from {min(lengths)} to {max(lengths)} and there is no pad token: pass pad_token_id "
            "(the end token will do, the mask keeps it out)"
        )
    width = max(lengths)
    ids = torch.full((len(given), width), pad_token_id, dtype=given[0].dtype)
    mask = torch.zeros(len(given), width, dtype=torch.bool)
    for i, row in enumerate(given):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, True
    return Padded(ids, mask)


def response_logits(model: nn.Module, prompts: Padded, responses: Tensor) -> Tensor:
    """The logits (B, R, V) that predict each token of responses (B, R) behind their prompts.

    Padding on the right needs no attention mask in a causal model, so that one is passed only where prompts are padded.
    """
    ids = torch.cat([prompts.ids, responses], -1)
    attention = None
    if not bool(prompts.mask.all()):
        attention = torch.cat([prompts.mask, torch.ones_like(responses, dtype=torch.bool)], -1)
    return logits_of(model, ids, attention)[:, prompts.ids.shape[1] - 1 : -1]


def used_tokens(vocabulary: int | None) -> tuple[Callable[[Tensor, Tensor], Tensor], ...]:
    """The processor of `generate` that never draws a token that only pads the vocabulary; none where all are in use."""
    if vocabulary is None:
        return ()

    def only_used(_: Tensor, scores: Tensor) -> Tensor:
        return scores[:, :vocabulary]

    return (only_used,)


def chosen_log_probs(logits: Tensor, answers: Tensor) -> Tensor:
    """log p of the tokens drawn, (B, R), in float32 at least."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return scores.gather(-1, answers.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(scores, -1)


__all__ = ["Padded", "chosen_log_probs", "padded_prompts", "padded_responses", "response_logits", "used_tokens"]
