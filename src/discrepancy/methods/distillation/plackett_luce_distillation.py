"""PLD: the student learns one ranking, the true class first and then the teacher's order, each choice weighted by the teacher.

The paper's names: worths are logits, pi* the ranking, alpha_k the weights, tau_T the temperature of `Confidence`. No divergence
enters; what can be swapped is how the choices are weighted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import positive, whole_number
from discrepancy.methods.distillation.logits import Reduction, logit_rows
from discrepancy.methods.distillation.plackett_luce import stage_log_probs

# (teacher logits (N, C), ranking (N, K)) -> weights (N, K) of the K choices.
Weighting = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Confidence:
    """alpha_k = softmax(teacher / temperature) of the class at rank k: the paper's weights.

    They follow the class, so the first is the teacher's probability of the true class, even where the teacher errs.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError unless the temperature is positive."""
        positive(self.temperature, "temperature")

    def __call__(self, teacher_logits: Tensor, ranking: Tensor) -> Tensor:
        """The weights (N, K)."""
        return torch.softmax(teacher_logits / self.temperature, -1).gather(-1, ranking)


@dataclass(frozen=True)
class UniformRanks:
    """alpha_k = 1/C: the likelihood of the whole ranking over C (ListMLE)."""

    def __call__(self, teacher_logits: Tensor, ranking: Tensor) -> Tensor:
        """The weights (N, K)."""
        return torch.full_like(teacher_logits, 1 / teacher_logits.shape[-1]).gather(-1, ranking)


@dataclass(frozen=True)
class PositionRanks:
    """alpha_k proportional to 2^(C - k) - 1 and summing to one over the C ranks (position-aware ListMLE)."""

    def __call__(self, teacher_logits: Tensor, ranking: Tensor) -> Tensor:
        """The weights (N, K)."""
        classes = teacher_logits.shape[-1]
        if classes == 1:
            return torch.zeros_like(teacher_logits)
        # Divided by 2^C, so that a thousand classes do not overflow.
        rank = torch.arange(1, classes + 1, dtype=torch.float64, device=teacher_logits.device)
        weight = torch.exp2(-rank) - 2.0**-classes
        return (weight / weight.sum()).to(teacher_logits.dtype)[: ranking.shape[-1]].expand(ranking.shape)


@dataclass(frozen=True)
class TopOne:
    """alpha = (1, 0, ..., 0): plain cross-entropy."""

    def __call__(self, teacher_logits: Tensor, ranking: Tensor) -> Tensor:
        """The weights (N, K)."""
        weights = torch.zeros(ranking.shape, dtype=teacher_logits.dtype, device=teacher_logits.device)
        weights[:, 0] = 1
        return weights


def teacher_ranking(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """(N, C) -> (N, C): the true class, then the others by falling teacher logit, ties in the order of the classes."""
    # +inf goes into a copy: the caller's logits are left alone.
    raised = teacher_logits.detach().scatter(1, target[:, None], torch.inf)
    return torch.argsort(raised, dim=1, descending=True, stable=True)


def plackett_luce_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    weights: Weighting = Confidence(),
    top: int | None = None,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """sum_k alpha_k [logsumexp_{j >= k} s_{pi_j} - s_{pi_k}], pi the true class and then the others by falling teacher logit.

    Logits (B, C, ...) with classes in dimension 1, target (B, ...) class indices. Convex in the student's logits, at least zero,
    unchanged by a shift of either's logits. There is no temperature on the student and no weight of a cross-entropy: the first
    choice is the cross-entropy. `top` keeps the first K choices (their weights as they are), the other classes count in the sums
    only. `weights` is called with the teacher's logits (N, C) and the ranking (N, K). `reduction` takes the vector of values at
    the positions that count. No gradient reaches the teacher or the weights. O(B C log C) time, O(B C) memory.
    Raises as `logit_rows` for logits that are not finite or do not fit, TypeError for soft targets, ValueError for weights of
    another shape or below zero, and NumericalError if `weights` returns what is not finite.
    """
    if target is None:
        raise TypeError("target must be given: the ranking starts with the true class")
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index, finite=True)
    assert rows.target is not None
    classes = rows.student.shape[1]
    kept = classes if top is None else whole_number(top, 1, "top")
    if kept > classes:
        raise ValueError(f"top must be at most the number of classes, {classes}, got {kept}")
    ranking = teacher_ranking(rows.teacher, rows.target)[:, :kept]
    with torch.no_grad():
        alpha = weights(rows.teacher, ranking)
        if not isinstance(alpha, Tensor) or alpha.shape != ranking.shape:
            got = tuple(alpha.shape) if isinstance(alpha, Tensor) else type(alpha).__name__
            raise ValueError(f"weights must return one weight a choice, shape {tuple(ranking.shape)}, got {got}")
        if not bool(torch.isfinite(alpha).all()):
            raise NumericalError("the weights of the choices are not finite")
        if bool((alpha < 0).any()):
            raise ValueError(f"weights must be non-negative, or the loss is not convex, got {float(alpha.min()):.4g}")
    return reduction(-(alpha.to(rows.student.dtype) * stage_log_probs(rows.student, ranking)).sum(-1))


class PlackettLuceDistillation(nn.Module):
    """`plackett_luce_distillation_loss` as a module, with its options fixed."""

    references: ClassVar[tuple[str, ...]] = ("plackett-luce-distillation",)

    def __init__(
        self,
        weights: Weighting = Confidence(),
        *,
        top: int | None = None,
        ignore_index: int = -100,
        reduction: Reduction = torch.mean,
    ) -> None:
        super().__init__()
        if not callable(weights):
            raise TypeError(f"weights must be callable as weights(teacher_logits, ranking), got {type(weights).__name__}")
        if top is not None:
            whole_number(top, 1, "top")
        self.weights, self.top, self.ignore_index, self.reduction = weights, top, ignore_index, reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return plackett_luce_distillation_loss(
            student_logits,
            teacher_logits,
            target,  # type: ignore[arg-type]
            weights=self.weights,
            top=self.top,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """How the choices are weighted."""
        return repr(self.weights)


__all__ = [
    "Confidence",
    "PlackettLuceDistillation",
    "PositionRanks",
    "TopOne",
    "UniformRanks",
    "Weighting",
    "plackett_luce_distillation_loss",
    "teacher_ranking",
]
