"""The logistic loss of a preference: the Bradley-Terry likelihood of a pair under implicit rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import as_tensor

_ROUNDING = 1e-3  # a sum of float32 log-probabilities may exceed zero by rounding, and by no more


@dataclass(frozen=True, repr=False)
class PreferenceLoss(Result):
    """A preference loss a pair: `losses` (n,) with its gradient, and the implicit rewards (n,) of both responses, detached.

    Implicit rewards are known up to a constant a prompt, which differs between divergences: compare margins within one only.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean loss, to be minimised."""
        return self.losses.mean()

    @property
    def margin(self) -> float:
        """The mean of chosen minus rejected reward."""
        return float((self.chosen_rewards - self.rejected_rewards).mean())

    @property
    def accuracy(self) -> float:
        """The share of pairs whose chosen response has the larger reward; ties count half."""
        difference = self.chosen_rewards - self.rejected_rewards
        return float(((difference > 0).double() + (difference == 0).double() / 2).mean())


def pair_log_probs(
    policy_chosen: Any, policy_rejected: Any, reference_chosen: Any, reference_rejected: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four tensors (n,) of sequence log-probabilities, half precision as float32.

    Raises ValueError for different shapes, an empty batch, what is not finite, or a log-probability above zero.
    """
    given = {
        "policy_chosen": policy_chosen,
        "policy_rejected": policy_rejected,
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
    }
    like = next((t for t in given.values() if isinstance(t, Tensor) and t.is_floating_point()), None)
    checked = [checked_log_probs(t, name, like=like) for name, t in given.items()]
    shapes = {name: tuple(t.shape) for name, t in zip(given, checked, strict=True)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the four log-probabilities must have one shape, got {shapes}")
    if checked[0].numel() == 0:
        raise ValueError("there is no pair: the log-probabilities are empty")
    return checked[0], checked[1], checked[2].detach(), checked[3].detach()


def checked_log_probs(values: Any, name: str, *, like: Tensor | None = None) -> Tensor:
    """A tensor of finite log-probabilities, or ValueError naming what is wrong."""
    log_probs = as_tensor(values, name, like=like)
    seen = log_probs.detach()
    bad = ~torch.isfinite(seen)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{name} has {int(bad.sum())} value(s) that are not finite, the first at index {where}: "
            "a response must have positive probability under the policy and under the reference"
        )
    if seen.numel() and float(seen.max()) > _ROUNDING:
        raise ValueError(
            f"{name} must hold log-probabilities, which are at most 0, got {float(seen.max()):.4g}: pass log pi, not pi"
        )
    return log_probs


def logistic_preference_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, label_smoothing: float | Tensor = 0.0
) -> PreferenceLoss:
    """-(1 - s) log sigmoid(m) - s log sigmoid(-m), m = chosen - rejected reward, s the probability that a label is wrong.

    `label_smoothing` is a number in [0, 1/2) or a tensor (n,) in [0, 1] (soft labels). Raises ValueError outside.
    """
    margin = chosen_rewards - rejected_rewards
    if isinstance(label_smoothing, Tensor):
        noise = label_smoothing.to(margin.dtype)
        if noise.shape != margin.shape or not bool(((noise >= 0) & (noise <= 1)).all()):
            raise ValueError(f"label_smoothing must be of shape {tuple(margin.shape)} in [0, 1], got shape {tuple(noise.shape)}")
        losses = -(1 - noise) * nn.functional.logsigmoid(margin) - noise * nn.functional.logsigmoid(-margin)
    else:
        noise = checked_smoothing(label_smoothing)
        losses = -nn.functional.logsigmoid(margin)
        if noise:
            losses = (1 - noise) * losses - noise * nn.functional.logsigmoid(-margin)
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def checked_smoothing(value: float) -> float:
    """A probability below one half, or ValueError."""
    if not 0 <= float(value) < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {value!r}: at one half a label says nothing")
    return float(value)


__all__ = ["PreferenceLoss", "checked_log_probs", "checked_smoothing", "logistic_preference_loss", "pair_log_probs"]
