"""Which prompts the reference has mastered, and correct answers of its own to rehearse on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import whole_number
from discrepancy.methods.alignment.preference_loss import checked_log_probs
from discrepancy.methods.alignment.response_policy import ResponsePolicy, without_adapters

# (prompts (n, ...), responses (n, c, L)) -> rewards in [0, 1], (n, c).
Verifier = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class PresampleSplit(Result):
    """Prompts to explore, (e, ...), and rehearsal data on the mastered ones.

    `rehearsal_prompts` (s, ...), `rehearsal_responses` (s, 1, L), one correct answer a row, their token log-probabilities under
    the reference `rehearsal_log_probs` (s, 1, L) and the boolean `rehearsal_mask`. `accuracy` (n,) is that of each prompt given;
    `mastered` (n,) is boolean. Raises ValueError for shapes that do not fit (log-probabilities of another tokeniser).
    """

    accuracy: Tensor
    mastered: Tensor
    explore: Tensor
    rehearsal_prompts: Tensor = field(repr=False)
    rehearsal_responses: Tensor = field(repr=False)
    rehearsal_log_probs: Tensor = field(repr=False)
    rehearsal_mask: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the stored answers belong together."""
        shapes = {n: tuple(getattr(self, f"rehearsal_{n}").shape) for n in ("responses", "log_probs", "mask")}
        if len(set(shapes.values())) > 1 or len(self.rehearsal_prompts) != len(self.rehearsal_responses):
            raise ValueError(
                f"stored responses, log-probabilities and mask must be of the same tokens, got shapes {shapes} for "
                f"{len(self.rehearsal_prompts)} prompts: were they stored with another tokeniser?"
            )
        checked_log_probs(self.rehearsal_log_probs, "rehearsal_log_probs")

    @property
    def rehearsed(self) -> int:
        """The number of stored answers."""
        return len(self.rehearsal_responses)

    def to_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"mastered": int(self.mastered.sum()), "explore": len(self.explore), "rehearsed": self.rehearsed}


@torch.no_grad()
def presample_split(
    reference: ResponsePolicy,
    prompts: Tensor,
    verifier: Verifier,
    *,
    k: int = 8,
    threshold: float = 7 / 8,
    rehearsals: int = 1,
    generator: torch.Generator | None = None,
) -> PresampleSplit:
    """Draw k answers a prompt: a mean reward of `threshold` or more means mastered; then store correct answers to those.

    For each mastered prompt `rehearsals` more answers are drawn (the paper: one) and those with reward 1 are kept, with their
    log-probabilities under the reference. All other prompts are to be explored. Time: n k + m `rehearsals` generations.
    Raises ValueError for rewards outside [0, 1] and options out of range.
    """
    whole_number(k, 1, "k")
    whole_number(rehearsals, 1, "rehearsals")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold!r}")
    if len(prompts) == 0:
        raise ValueError("there is no prompt")
    with without_adapters(reference):
        first = reference.sample(prompts, k, generator=generator)
        accuracy = _graded(verifier, prompts, first).mean(-1)
        mastered = accuracy >= threshold - 1e-9
        known = prompts[mastered]
        if len(known) == 0:
            shape = (0, 1, first.shape[-1])
            empty = torch.empty(shape, device=first.device)
            none = torch.empty(shape, dtype=torch.long, device=first.device)
            return PresampleSplit(accuracy, mastered, prompts, known, none, empty, empty.bool())
        more = reference.sample(known, rehearsals, generator=generator)
        right = _graded(verifier, known, more) == 1
        log_probs, mask = reference.log_probs(known, more)
    rows = right.nonzero()[:, 0]
    return PresampleSplit(
        accuracy, mastered, prompts[~mastered], known[rows],
        more[right].unsqueeze(1), log_probs[right].unsqueeze(1), mask[right].unsqueeze(1),
    )  # fmt: skip


def _graded(verifier: Verifier, prompts: Tensor, responses: Tensor) -> Tensor:
    rewards = torch.as_tensor(verifier(prompts, responses)).double()
    if rewards.shape != responses.shape[:2]:
        raise ValueError(
            f"a verifier gives one reward a response, {tuple(responses.shape[:2])}, got shape {tuple(rewards.shape)}"
        )
    if not bool(((rewards >= 0) & (rewards <= 1)).all()):
        raise ValueError(
            f"a verifier's rewards must lie in [0, 1], got values from {float(rewards.min()):.4g} to {float(rewards.max()):.4g}"
        )
    return rewards


__all__ = ["PresampleSplit", "Verifier", "presample_split"]
