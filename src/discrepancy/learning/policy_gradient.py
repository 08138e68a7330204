"""Gradients of expectations over a policy's own samples: the score-function estimator, its baselines, the clipped surrogate.

Conventions: `log_probs` carry the gradient, rewards and weights never do; a surrogate's value means nothing, its gradient does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, whole_number


def score_function_loss(log_probs: Tensor, rewards: Tensor, *, baseline: Any = 0.0, weights: Tensor | None = None) -> Tensor:
    """The surrogate -mean_i w_i (R_i - b) log pi(x_i), whose gradient is minus that of E_pi[R] (Williams, 1992).

    log_probs (n,) of samples x_i of the policy pi, or of a proposal q with weights w_i = pi(x_i) / q(x_i); rewards (n,);
    `baseline` a number or (n,), which must not depend on x_i. Unbiased; the variance falls with a baseline near E[R].
    Raises ValueError for unequal shapes or a reward that is not finite, naming the first.
    """
    if log_probs.shape != rewards.shape:
        raise ValueError(f"log_probs has shape {tuple(log_probs.shape)} and rewards {tuple(rewards.shape)}: they must be equal")
    rewards = rewards.detach()
    bad = ~torch.isfinite(rewards)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(f"rewards has {int(bad.sum())} value(s) that are not finite, the first at index {where}")
    advantage = rewards - (baseline.detach() if isinstance(baseline, Tensor) else baseline)
    if weights is not None:
        if weights.shape != rewards.shape:
            raise ValueError(f"weights has shape {tuple(weights.shape)} and rewards {tuple(rewards.shape)}: they must be equal")
        advantage = advantage * weights.detach()
    return -(advantage * log_probs).mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """For each sample, the mean reward of the others along the last dimension: an unbiased baseline (Kool et al., 2019)."""
    n = rewards.shape[-1] if rewards.ndim else 0
    if n < 2:
        raise ValueError(f"a leave-one-out baseline needs at least two samples, got shape {tuple(rewards.shape)}")
    rewards = rewards.detach()
    return (rewards.sum(-1, keepdim=True) - rewards) / (n - 1)


def group_advantages(rewards: Tensor, *, scale: bool = True, floor: float = 1e-6) -> Tensor:
    """(R - mean) / (standard deviation + floor) within each group, along the last dimension (Shao et al., 2024, 2402.03300).

    `floor` keeps a group of equal rewards at zero instead of 0/0; `scale=False` only centres. The standard deviation is the
    unbiased one. Raises ValueError for groups of one.
    """
    if rewards.ndim == 0 or rewards.shape[-1] < 2:
        raise ValueError(f"a group needs at least two samples, got rewards of shape {tuple(rewards.shape)}")
    rewards = rewards.detach()
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + floor) if scale else centred


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: tuple[float, float] = (0.2, 0.2)
) -> Tensor:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), elementwise, rho = pi / pi_old: to be maximised.

    Schulman et al., 2017, 1707.06347. All of one shape (advantages may broadcast); `clip` is (low, high).
    Raises ValueError for clips outside 0 < low < 1, high > 0.
    """
    low, high = clip
    if not (0 < low <= 1 and high > 0):
        raise ValueError(f"clip must be (low, high) with 0 < low <= 1 and high > 0, got {clip!r}")
    ratio = torch.exp(log_probs - old_log_probs.detach())
    advantages = advantages.detach()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


@dataclass
class MovingBaseline:
    """The mean of the last `window` rewards: the baseline of past batches, which leaves the gradient unbiased.

    `value` before the first update is zero. Mutable on purpose: it is a piece of a training loop's state.
    """

    window: int = 1024
    _rewards: deque[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the option."""
        whole_number(self.window, 1, "window")
        self._rewards = deque(maxlen=self.window)

    @property
    def value(self) -> float:
        """The present baseline."""
        return sum(self._rewards) / len(self._rewards) if self._rewards else 0.0

    def update(self, rewards: Any) -> None:
        """Append a batch; values that are not finite are refused."""
        values = as_tensor(rewards, "rewards").detach().double().flatten()
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"rewards has {int((~torch.isfinite(values)).sum())} value(s) that are not finite")
        self._rewards.extend(values.tolist())


__all__ = ["MovingBaseline", "clipped_surrogate", "group_advantages", "leave_one_out", "score_function_loss"]
