"""Language models small enough for exact expectations: the next token's law as a table over the last few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrepancy._validate import whole_number
from discrepancy.divergences import Divergence
from discrepancy.language_models import logits_of

_MOST_CONTEXTS = 2**20


class ContextTable(nn.Module):
    """A causal language model of finite memory: logits (B, T, V) read from a table (V + 1)^order x V by the last `order` tokens.

    Tokens are 0 .. V - 1, and V begins a text: a prompt is [[V]], and what lies before it counts as V too.
    """

    def __init__(self, logits: Tensor, order: int) -> None:
        """Start at logits ((V + 1)^order, V), rows ordered with the most recent token last."""
        super().__init__()
        whole_number(order, 1, "order")
        size = logits.shape[-1] if logits.ndim == 2 else 0
        if size == 0 or logits.shape[0] != (size + 1) ** order:
            raise ValueError(f"logits must be ((V + 1)^{order}, V), got shape {tuple(logits.shape)}")
        self.table = nn.Parameter(logits.detach().clone())
        self.order, self.size = order, size

    def forward(self, input_ids: Tensor) -> Tensor:
        """The logits of the token behind each position."""
        begun = torch.full((len(input_ids), self.order - 1), self.size, dtype=input_ids.dtype, device=input_ids.device)
        windows = torch.cat([begun, input_ids], -1).unfold(-1, self.order, 1)
        powers = (self.size + 1) ** torch.arange(self.order - 1, -1, -1, device=input_ids.device)
        return self.table[(windows * powers).sum(-1)]


def contexts(size: int, order: int) -> Tensor:
    """All contexts ((V + 1)^order, order) over V tokens and the beginning V. Raises ValueError beyond a million."""
    count = (size + 1) ** order
    if count > _MOST_CONTEXTS:
        raise ValueError(f"{size + 1}^{order} contexts are too many (at most {_MOST_CONTEXTS}): sample instead")
    return torch.cartesian_prod(*[torch.arange(size + 1)] * order).reshape(count, order)


def prefix_law(probs: Tensor, order: int, length: int) -> Tensor:
    """The law (length, C) of the context at each position when tokens are drawn from probs (C, V), C = (V + 1)^order.

    By recursion from the empty text: O(length C V) time. Differentiable in probs.
    """
    whole_number(length, 1, "length")
    count, size = probs.shape
    if count != (size + 1) ** order:
        raise ValueError(f"probs must be ((V + 1)^{order}, V), got shape {tuple(probs.shape)}")
    law = torch.zeros(count, dtype=probs.dtype)
    law[-1] = 1.0  # every place holds the beginning, V
    base, kept = size + 1, count // (size + 1)
    laws = [law]
    for _ in range(length - 1):
        flow = (law.unsqueeze(-1) * probs).reshape(base, kept, size).sum(0)  # the oldest token is forgotten
        law = torch.cat([flow, flow.new_zeros(kept, 1)], -1).reshape(count)
        laws.append(law)
    return torch.stack(laws)


def exact_prefix_divergence(
    student: nn.Module,
    teacher: nn.Module,
    divergence: Divergence,
    *,
    size: int,
    order: int,
    length: int,
    on_policy: float = 0.0,
    through_prefixes: bool = False,
) -> Tensor:
    """E D(T(. | y_<t), S(. | y_<t)) at each position (length,), exactly, for models whose memory is at most `order` tokens.

    Prefixes are the student's with weight `on_policy`, else the teacher's; the student's prefix law carries a gradient only with
    `through_prefixes`. Differentiable in the student. Time O((V + 1)^order V length).
    """
    ids = contexts(size, order)
    student_logits = logits_of(student, ids)[:, -1]
    with torch.no_grad():
        teacher_logits = logits_of(teacher, ids)[:, -1]
        law = torch.zeros(length, len(ids), dtype=teacher_logits.dtype)
        if on_policy < 1:
            law = (1 - on_policy) * prefix_law(torch.softmax(teacher_logits, -1), order, length)
    if on_policy > 0:
        own = torch.softmax(student_logits if through_prefixes else student_logits.detach(), -1)
        law = law + on_policy * prefix_law(own, order, length)
    return law @ divergence.from_logits(teacher_logits, student_logits)


__all__ = ["ContextTable", "contexts", "exact_prefix_divergence", "prefix_law"]
