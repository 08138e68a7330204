"""A teacher and a student mixed token by token, as one language model to sample from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrepancy.language_models import logits_of


class MixtureModel(nn.Module):
    """share * T + (1 - share) * S as a language model to sample from, token by token."""

    def __init__(self, teacher: nn.Module, student: nn.Module, share: float) -> None:
        super().__init__()
        # Not registered: putting the mixture into evaluation mode must not change theirs for good.
        self._models, self.share = (teacher, student), share

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        theirs, mine = (logits_of(m, input_ids, None if attention_mask is None else attention_mask.bool()) for m in self._models)
        return self.mixed(theirs, mine)

    def mixed(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """The mixture's log-probabilities, on the smaller vocabulary."""
        size = min(teacher_logits.shape[-1], student_logits.shape[-1])
        share = torch.tensor(self.share, dtype=student_logits.dtype)
        return torch.logaddexp(
            torch.log_softmax(teacher_logits[..., :size], -1) + torch.log(share),
            torch.log_softmax(student_logits[..., :size], -1) + torch.log1p(-share),
        )


__all__ = ["MixtureModel"]
