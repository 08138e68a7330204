"""From a number a token to one number: the three means that methods differ by, over the tokens that a mask keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over all kept tokens of the batch: long responses weigh more. Raises ValueError for an empty mask."""
    values, mask = _checked(values, mask)
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum()


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over sequences of the mean over their kept tokens: every response weighs the same.

    Sequences without a kept token are left out. Raises ValueError for an empty mask.
    """
    values, mask = _checked(values, mask)
    lengths = mask.sum(-1)
    means = torch.where(mask, values, torch.zeros_like(values)).sum(-1) / lengths.clamp_min(1)
    return means.sum() / (lengths > 0).sum()


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over sequences of the sum over their kept tokens, as for log-probabilities of whole responses.

    Sequences without a kept token are left out. Raises ValueError for an empty mask.
    """
    values, mask = _checked(values, mask)
    return torch.where(mask, values, torch.zeros_like(values)).sum() / (mask.sum(-1) > 0).sum()


def _checked(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True keeps a token), got {mask.dtype}")
    if values.shape != mask.shape or values.ndim < 1:
        raise ValueError(f"values has shape {tuple(values.shape)} and mask {tuple(mask.shape)}: they must be equal, (..., T)")
    if not bool(mask.any()):
        raise ValueError(f"mask keeps none of the {mask.numel()} tokens: nothing is left to average")
    return values, mask


__all__ = ["sequence_mean", "sequence_sum", "token_mean"]
