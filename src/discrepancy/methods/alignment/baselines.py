"""Plain methods that papers on alignment compare with: DPO, and a divergence penalty inside the reward; GRPO is next door."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.methods.alignment.penalties import DivergencePenalty
from discrepancy.methods.alignment.preference_loss import PreferenceLoss, logistic_preference_loss, pair_log_probs


def dpo_loss(
    policy_chosen: Any,
    policy_rejected: Any,
    reference_chosen: Any,
    reference_rejected: Any,
    *,
    beta: float = 0.1,
    label_smoothing: float | Tensor = 0.0,
) -> PreferenceLoss:
    """-log sigmoid(beta [log pi/ref (chosen) - log pi/ref (rejected)]) a pair, from log-probabilities (n,) of whole responses.

    The leash is KL(policy || reference), `ReverseKL()` here. Raises ValueError for shapes, log-probabilities above 0, beta <= 0.
    Source: Rafailov et al. (2023), 2305.18290; label smoothing: Mitchell (2023).
    """
    chosen, rejected, reference_c, reference_r = pair_log_probs(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected
    )
    beta = positive(beta, "beta")
    return logistic_preference_loss(beta * (chosen - reference_c), beta * (rejected - reference_r), label_smoothing)


def penalised_rewards(
    rewards: Tensor, log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, penalty: DivergencePenalty
) -> Tensor:
    """rewards minus the penalty of a response's tokens, (...): the leash of Ziegler et al. (2019) with any f-divergence.

    rewards (...), log_probs, reference_log_probs and boolean mask (..., L) of samples of the policy; without gradients, as a
    reward is. Raises ValueError for shapes that do not fit.
    """
    if rewards.shape != mask.shape[:-1] or log_probs.shape != mask.shape:
        raise ValueError(
            f"rewards must be (...) and log_probs, mask (..., L), got shapes {tuple(rewards.shape)}, {tuple(log_probs.shape)} "
            f"and {tuple(mask.shape)}"
        )
    terms = penalty.terms(log_probs.detach(), reference_log_probs)
    return rewards - torch.where(mask, terms, torch.zeros_like(terms)).sum(-1)


__all__ = ["dpo_loss", "penalised_rewards"]
