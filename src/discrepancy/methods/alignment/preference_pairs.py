"""Pairs of responses of which one was preferred, with the reference's log-probabilities once they are known."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.methods.alignment.preference_loss import checked_log_probs
from discrepancy.methods.alignment.response_policy import ResponsePolicy, response_log_probs, without_adapters


@dataclass(frozen=True, eq=False)
class PreferencePairs:
    """`chosen` was preferred to `rejected`, (n, L) integer tensors (or (n,) answers), on prompts (n, ...).

    `reference` (n, 2) holds log-probabilities of chosen and rejected under the reference, `label_noise` (n,) the probability
    that a label is wrong (soft labels). Responses of different lengths are padded as the policy pads them.
    Raises ValueError for shapes that do not fit and warns of pairs whose responses are equal, which teach nothing.
    """

    prompts: Tensor
    chosen: Tensor
    rejected: Tensor
    reference: Tensor | None = None
    label_noise: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        for name in ("chosen", "rejected"):
            value = getattr(self, name)
            if value.is_floating_point() or value.ndim not in (1, 2):
                raise ValueError(f"{name} must be integers (n, L) or (n,), got {value.dtype} of shape {tuple(value.shape)}")
            if value.ndim == 1:
                object.__setattr__(self, name, value.unsqueeze(-1))
        if self.chosen.shape != self.rejected.shape or len(self.chosen) != len(self.prompts):
            raise ValueError(
                f"prompts, chosen and rejected must have one row a pair and one length, got shapes {tuple(self.prompts.shape)}, "
                f"{tuple(self.chosen.shape)} and {tuple(self.rejected.shape)}: pad the shorter responses"
            )
        if len(self.chosen) == 0:
            raise ValueError("there is no pair")
        if self.reference is not None:
            if self.reference.shape != (len(self), 2):
                raise ValueError(f"reference must be ({len(self)}, 2), got shape {tuple(self.reference.shape)}")
            object.__setattr__(self, "reference", checked_log_probs(self.reference, "reference").detach())
        if self.label_noise is not None:
            noise = self.label_noise
            if noise.shape != (len(self),) or not bool(((noise >= 0) & (noise <= 1)).all()):
                raise ValueError(f"label_noise must be ({len(self)},) in [0, 1], got shape {tuple(noise.shape)}")
        same = int((self.chosen == self.rejected).all(-1).sum())
        if same:
            warnings.warn(f"{same} of {len(self)} pairs have equal responses: they teach nothing", stacklevel=3)

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def responses(self) -> Tensor:
        """Chosen and rejected, (n, 2, L)."""
        return torch.stack([self.chosen, self.rejected], 1)

    @torch.no_grad()
    def with_reference(self, policy: ResponsePolicy, *, batch: int = 64) -> PreferencePairs:
        """These pairs with log-probabilities under a policy as it is now, computed `batch` pairs at a time.

        A PEFT model is asked without its adapters.
        """
        both = self.responses
        with without_adapters(policy):
            parts = [
                response_log_probs(policy, self.prompts[i : i + batch], both[i : i + batch]) for i in range(0, len(self), batch)
            ]
        return dataclasses.replace(self, reference=torch.cat(parts))


__all__ = ["PreferencePairs"]
