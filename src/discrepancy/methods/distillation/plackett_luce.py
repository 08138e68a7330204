"""The Plackett-Luce model of rankings: choose the best, then the best of the rest, with chances proportional to worths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, generator_or_default, require_finite, whole_number


def stage_log_probs(worths: Tensor, ranking: Tensor) -> Tensor:
    """log of the chance of each choice of a ranking among what was left: w_{r_k} - logsumexp_{j not in r_1 .. r_{k-1}} w_j.

    worths (..., C) are logarithms; ranking (..., K) with K <= C distinct items, best first. Returns (..., K); the last entry is
    exactly zero where K = C. O(C) a ranking; sums of exponentials stay in the log domain.
    """
    chosen = worths.gather(-1, ranking)
    left = torch.logcumsumexp(chosen.flip(-1), -1).flip(-1)
    if ranking.shape[-1] < worths.shape[-1]:
        unranked = torch.ones_like(worths, dtype=torch.bool).scatter(-1, ranking, False)
        rest = torch.logsumexp(worths.masked_fill(~unranked, -torch.inf), -1, keepdim=True)
        return chosen - torch.logaddexp(left, rest)
    # The last of a full ranking is chosen from itself alone; subtracted, rounding would leave a gradient.
    return torch.cat([(chosen - left)[..., :-1], torch.zeros_like(chosen[..., :1])], -1)


def plackett_luce_log_prob(worths: Any, ranking: Tensor) -> Tensor:
    """log P(ranking) = sum_k [w_{r_k} - logsumexp over what is left at stage k] under worths exp(w).

    worths (..., C), ranking (..., K <= C) of distinct item indices, best first: the top K of a longer ranking where K < C.
    Returns (...), differentiable in the worths and unchanged by w + c. O(C).
    Raises ValueError for items that repeat or do not exist, shapes that do not fit and worths that are not finite.
    """
    worths = as_tensor(worths, "worths")
    if worths.ndim == 0:
        raise ValueError("worths must have a dimension of items, got a single number")
    require_finite(worths, "worths")
    ranking = torch.as_tensor(ranking, device=worths.device)
    if ranking.is_floating_point() or ranking.dtype == torch.bool:
        raise TypeError(f"ranking must hold item indices of an integer type, got {ranking.dtype}")
    items = worths.shape[-1]
    if ranking.ndim == 0 or not 1 <= ranking.shape[-1] <= items:
        raise ValueError(f"ranking must hold from 1 to {items} items along its last dimension, got shape {tuple(ranking.shape)}")
    try:
        batch = torch.broadcast_shapes(worths.shape[:-1], ranking.shape[:-1])
    except RuntimeError:
        raise ValueError(f"worths {tuple(worths.shape)} and ranking {tuple(ranking.shape)} do not broadcast") from None
    ranking = ranking.long().expand(*batch, -1)
    if bool(((ranking < 0) | (ranking >= items)).any()):
        raise ValueError(f"ranking must hold items from 0 to {items - 1}, got {int(ranking.min())} to {int(ranking.max())}")
    ordered = ranking.sort(-1).values
    if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
        raise ValueError("ranking names an item twice: items are chosen without replacement")
    return stage_log_probs(worths.expand(*batch, -1), ranking).sum(-1)


def sample_rankings(worths: Any, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """`count` rankings (count, ..., C) from the Plackett-Luce model with log-worths (..., C): worths plus Gumbel noise, sorted.

    Exact; O(count C log C). Raises ValueError for worths that are not finite.
    """
    worths = as_tensor(worths, "worths").detach()
    require_finite(worths, "worths")
    whole_number(count, 1, "count")
    noise = torch.empty(count, *worths.shape, dtype=worths.dtype, device=worths.device)
    # -log of a unit exponential is standard Gumbel.
    noise.exponential_(generator=generator_or_default(generator, worths.device))
    return torch.argsort(worths - noise.log(), dim=-1, descending=True)


__all__ = ["plackett_luce_log_prob", "sample_rankings", "stage_log_probs"]
