"""Group-relative policy optimisation: a clipped policy gradient whose baseline is the mean of a prompt's other responses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.language_models import token_mean
from discrepancy.learning import Training, clipped_surrogate, group_advantages
from discrepancy.methods.alignment.penalties import DivergencePenalty
from discrepancy.methods.alignment.response_policy import ResponsePolicy, trained_weights, without_adapters

# (prompts (n, ...), responses (n, c, L)) -> rewards (n, c).
Reward = Callable[[Tensor, Tensor], Tensor]
# (values, mask) -> number: token_mean, sequence_mean or sequence_sum of discrepancy.language_models.
Aggregate = Callable[[Tensor, Tensor], Tensor]


def grpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    clip: tuple[float, float] = (0.2, 0.28),
    aggregate: Aggregate = token_mean,
    penalty: DivergencePenalty | None = None,
    reference_log_probs: Tensor | None = None,
) -> Tensor:
    """-aggregate(min(rho A, clip(rho) A)) + penalty, rho = pi / pi_old a token.

    log_probs, old_log_probs, mask (..., L), advantages (...), one a response. Raises ValueError for shapes, an empty mask, or a
    penalty without `reference_log_probs`.
    """
    if log_probs.shape != old_log_probs.shape or log_probs.shape != mask.shape or advantages.shape != mask.shape[:-1]:
        raise ValueError(
            "log_probs, old_log_probs and mask must be (..., L) and advantages (...), got shapes "
            f"{tuple(log_probs.shape)}, {tuple(old_log_probs.shape)}, {tuple(mask.shape)} and {tuple(advantages.shape)}"
        )
    gain = clipped_surrogate(log_probs, old_log_probs, advantages.unsqueeze(-1).expand_as(log_probs), clip=clip)
    loss = -aggregate(gain, mask)
    if penalty is None:
        return loss
    if reference_log_probs is None:
        raise ValueError("a penalty needs reference_log_probs (..., L): the same tokens under the reference")
    return loss + aggregate(penalty.terms(log_probs, reference_log_probs), mask)


@dataclass(frozen=True, repr=False)
class PolicyFit(Result):
    """What training came to: the mean reward of the last record; `history` has all records."""

    reward: float
    history: dict[str, list[float]] = field(repr=False)


_TRAINING = Training(steps=400, learning_rate=3e-3)


@dataclass(frozen=True)
class GRPO:
    """Trains a policy on rewards (Shao et al., 2024, with the asymmetric clip of Yu et al., 2025).

    A step draws `prompts` prompts and `group` responses for each; they serve `reuse` updates, from the second on clipped.
    `scaled=False` leaves the standard deviation out of the advantages. A penalty is measured against the policy as it comes,
    scored once a batch: that takes a copy of the model, or, with PEFT, the model without its adapters.
    """

    group: int = 8
    prompts: int = 32
    reuse: int = 1
    clip: tuple[float, float] = (0.2, 0.28)
    scaled: bool = True
    aggregate: Aggregate = token_mean
    penalty: DivergencePenalty | None = None
    training: Training = _TRAINING

    references = ("shao-2024", "yu-2025")

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.group, 2, "group")
        whole_number(self.prompts, 1, "prompts")
        whole_number(self.reuse, 1, "reuse")
        low, high = self.clip
        if not (0 < low <= 1 and high > 0):
            raise ValueError(f"clip must be (low, high) with 0 < low <= 1 and high > 0, got {self.clip!r}")

    def fit(
        self,
        policy: ResponsePolicy,
        prompts: Tensor,
        reward: Reward,
        *,
        reference: ResponsePolicy | None = None,
        extra: Callable[[], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> PolicyFit:
        """Train in place on prompts (n, ...); `extra()` is a further loss of the step, `reference` what a penalty compares with.

        Time a step: generation of prompts x group responses every `reuse` steps, one forward and backward pass.
        Raises ValueError where there is no prompt or a penalty has no reference, NumericalError for a reward that is not finite.
        """
        if len(prompts) == 0:
            raise ValueError("there is no prompt: nothing to learn")
        if self.penalty is not None and reference is None:
            raise ValueError("a penalty needs a reference policy (for PEFT models: the policy itself)")
        source = generator_or_default(generator, prompts.device)
        batch = _Batch(torch.empty(0), torch.empty(0), torch.empty(0), torch.empty(0), None, math.nan)

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            nonlocal batch
            if k % self.reuse == 0:
                batch = self._draw(policy, prompts, reward, reference, source)
            log_probs, mask = policy.log_probs(batch.prompts, batch.responses)
            old = log_probs.detach() if k % self.reuse == 0 else batch.log_probs
            batch.log_probs = old
            loss = grpo_loss(
                log_probs, old, mask, batch.advantages,
                clip=self.clip, aggregate=self.aggregate, penalty=self.penalty, reference_log_probs=batch.reference,
            )  # fmt: skip
            return loss if extra is None else loss + extra(), {"reward": batch.reward}

        history = self.training.run(trained_weights(policy), step)
        return PolicyFit(history["reward"][-1], history)

    def _draw(
        self, policy: ResponsePolicy, prompts: Tensor, reward: Reward, reference: ResponsePolicy | None, source: torch.Generator
    ) -> _Batch:
        chosen = prompts[torch.randint(len(prompts), (self.prompts,), generator=source, device=source.device)]
        responses = policy.sample(chosen, self.group, generator=source)
        rewards = checked_rewards(reward(chosen, responses), responses)
        scored = None
        if self.penalty is not None and reference is not None:
            with torch.no_grad(), without_adapters(reference):
                scored = reference.log_probs(chosen, responses)[0]
        advantages = group_advantages(rewards, scale=self.scaled)
        return _Batch(chosen, responses, advantages, torch.empty(0), scored, float(rewards.mean()))


@dataclass
class _Batch:
    prompts: Tensor
    responses: Tensor
    advantages: Tensor
    log_probs: Tensor
    reference: Tensor | None
    reward: float


def checked_rewards(rewards: Tensor, responses: Tensor) -> Tensor:
    """Rewards (n, c) as floating point; ValueError for another shape or a value that is not finite."""
    rewards = torch.as_tensor(rewards)
    if rewards.shape != responses.shape[:2]:
        raise ValueError(
            f"a reward must give one number a response, {tuple(responses.shape[:2])}, got shape {tuple(rewards.shape)}"
        )
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError(f"{int((~torch.isfinite(rewards)).sum())} of {rewards.numel()} rewards are not finite")
    return rewards


__all__ = ["GRPO", "Aggregate", "PolicyFit", "Reward", "checked_rewards", "grpo_loss"]
