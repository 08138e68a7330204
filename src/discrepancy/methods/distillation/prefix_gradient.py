"""Gradients through the choice of prefixes: a token's effect on all later divergences, by the score function.

The objective is J = E_{y ~ S} sum_t D_t(y_<t), D_t the divergence between teacher and student behind the prefix y_<t. Its
gradient has an exact part, that of D_t at given prefixes, and grad log S(y_t) times the return, the sum over t' > t of
gamma^(t' - t) D_t'. For reverse KL and gamma = 1, J is KL(S || T) between whole sequences (chain rule), with each sampled
log-ratio replaced by its expectation over the token; gamma = 0 forgets the effect of tokens on later prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import fraction, whole_number
from discrepancy.learning import clipped_surrogate


@dataclass(frozen=True)
class TokenLevel:
    """Prefixes are taken as they come: no gradient through sampling."""


@dataclass(frozen=True)
class SequenceLevel:
    """Accumulated divergence along the student's own sequences, with the effect of tokens on later prefixes.

    `gamma` in [0, 1] discounts that effect; `position_baseline` subtracts the other sequences' mean return at the same
    position; `length_normalised` divides each return by the tokens it sums over (MiniLLM: biased, short answers no longer
    favoured); `teacher_share` samples from share * T + (1 - share) * S with importance weights, of the last `window` tokens'
    ratios (None: of the whole prefix, unbiased; MiniLLM takes 1); `clip` = (low, high) uses the clipped surrogate where samples
    are older than the student. Raises ValueError for options out of range.
    """

    gamma: float = 1.0
    position_baseline: bool = True
    length_normalised: bool = False
    teacher_share: float = 0.0
    window: int | None = None
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {self.gamma!r}")
        if self.teacher_share != 0:
            fraction(self.teacher_share, "teacher_share")
        if self.window is not None:
            whole_number(self.window, 1, "window")


@dataclass(frozen=True)
class Outcome:
    """Rewards replace the divergence: `reward(responses, mask)` gives one a sequence (B,) or one a token (B, L).

    The black-box mode, where a teacher's logits cannot be had or tokenizers differ.
    """

    reward: Callable[[Tensor, Tensor], Tensor]
    gamma: float = 1.0
    position_baseline: bool = True

    def __post_init__(self) -> None:
        if not callable(self.reward):
            raise TypeError(f"reward must be callable as reward(responses, mask), got {type(self.reward).__name__}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {self.gamma!r}")


def accumulated_divergence_loss(
    values: Tensor,
    log_probs: Tensor,
    mask: Tensor,
    level: SequenceLevel = SequenceLevel(),
    *,
    behaviour_log_probs: Tensor | None = None,
) -> Tensor:
    """The mean over sequences of sum_t D_t, a scalar whose gradient includes that through the sampled prefixes.

    values (B, L) are the differentiable D_t behind each prefix, log_probs (B, L) the student's log S(y_t | y_<t) of the tokens
    drawn, mask (B, L) True on them; behaviour_log_probs (B, L) those of the law that they were drawn from, where it is another.
    The value is that of J (importance-weighted). Time and memory O(B L). Raises ValueError for shapes and an empty mask.
    """
    _checked(mask, values=values, log_probs=log_probs, behaviour_log_probs=behaviour_log_probs)
    zero = torch.zeros_like(values)
    values, log_s = torch.where(mask, values, zero), torch.where(mask, log_probs, zero)
    weights = through = torch.ones_like(values)
    if behaviour_log_probs is not None and level.clip is None:
        log_ratio = torch.where(mask, log_s.detach() - behaviour_log_probs.detach(), zero)
        weights, through = _prefix_weights(log_ratio, level.window)
    costs = weights * values.detach()
    returns = _returns_after(costs, level.gamma)
    if level.length_normalised:
        later = mask.flip(-1).cumsum(-1).flip(-1) - mask.long()
        returns = returns / later.clamp_min(1)
    # The returns carry the weights of their prefixes in the costs; a baseline needs those of the tokens up to its own.
    advantages = -(returns - through * _position_means(returns, mask) if level.position_baseline else returns)
    if level.clip is not None:
        old = log_s if behaviour_log_probs is None else torch.where(mask, behaviour_log_probs, zero)
        gains = clipped_surrogate(log_s, old, advantages, clip=level.clip)
    else:
        gains = advantages * log_s
    rows = mask.any(-1).sum()
    score_part = -torch.where(mask, gains, zero).sum() / rows
    return (weights * values).sum() / rows + (score_part - score_part.detach())


def outcome_loss(
    rewards: Tensor, log_probs: Tensor, mask: Tensor, *, gamma: float = 1.0, position_baseline: bool = True
) -> Tensor:
    """A surrogate whose gradient is minus that of E_{y ~ S} sum_t r_t, rewards (B, L) a token or (B,) at each sequence's end.

    Each token is credited with the discounted rewards from its own on. log T(y_t) - log S(y_t) as rewards gives the sampled form
    of sequence-level reverse KL. The value is minus the mean return. Raises ValueError for shapes, rewards that are not finite,
    an empty mask.
    """
    if rewards.ndim == 1 and rewards.shape[0] == mask.shape[0]:
        last = mask.long().cumsum(-1).argmax(-1)
        spread = torch.zeros(mask.shape, dtype=rewards.dtype, device=rewards.device)
        rewards = spread.scatter(-1, last.unsqueeze(-1), rewards.unsqueeze(-1))
    _checked(mask, rewards=rewards, log_probs=log_probs)
    zero = torch.zeros_like(log_probs)
    own = torch.where(mask, rewards.detach().to(log_probs), zero)
    if not bool(torch.isfinite(own).all()):
        where = tuple(int(i) for i in (~torch.isfinite(own)).nonzero()[0])
        raise ValueError(f"rewards must be finite, got {float(own[where])} at index {where}")
    returns = own + _returns_after(own, gamma)
    if position_baseline:
        returns = returns - _position_means(returns, mask)
    rows = mask.any(-1).sum()
    surrogate = -torch.where(mask, returns * log_probs, zero).sum() / rows
    return -own.sum() / rows + (surrogate - surrogate.detach())


def _returns_after(costs: Tensor, gamma: float) -> Tensor:
    """sum over t' > t of gamma^(t' - t) c_t', from the back, without powers that underflow."""
    returns, running = [], torch.zeros_like(costs[..., 0])
    for t in range(costs.shape[-1] - 1, -1, -1):
        returns.append(running)
        running = gamma * (costs[..., t] + running)
    return torch.stack(returns[::-1], -1)


def _prefix_weights(log_ratio: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """The products of S / q over the tokens before t, and up to t; of the last `window` of them where that is given."""
    total = torch.cat([torch.zeros_like(log_ratio[..., :1]), log_ratio.cumsum(-1)], -1)
    if window is not None:
        forgotten = torch.zeros_like(total)
        forgotten[..., window:] = total[..., : max(total.shape[-1] - window, 0)]
        total = total - forgotten
    weights = torch.exp(total)
    return weights[..., :-1], weights[..., 1:]


def _position_means(returns: Tensor, mask: Tensor) -> Tensor:
    """For each token the mean return of the other sequences that have one at its position; zero where none has."""
    kept = torch.where(mask, returns, torch.zeros_like(returns))
    others = (mask.sum(0) - mask.long()).clamp_min(1)
    return (kept.sum(0) - kept) / others


def _checked(mask: Tensor, **tensors: Tensor | None) -> None:
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"mask must be boolean (B, L), got {mask.dtype} of shape {tuple(mask.shape)}")
    for name, value in tensors.items():
        if value is not None and value.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)} and mask {tuple(mask.shape)}: they must be equal")
    if not bool(mask.any()):
        raise ValueError(f"mask keeps none of the {mask.numel()} tokens: every label is masked")


Level = TokenLevel | SequenceLevel | Outcome
__all__ = ["Level", "Outcome", "SequenceLevel", "TokenLevel", "accumulated_divergence_loss", "outcome_loss"]
