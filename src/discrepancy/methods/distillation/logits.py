"""The boundary of every loss on logits: pairs of logit tensors and their targets, checked and laid out as rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# One value for each kept position, to one number; a value a position with `lambda values: values`.
Reduction = Callable[[Tensor], Tensor]


class ProbabilitiesWarning(UserWarning):
    """Every row of a tensor of logits is a probability vector: it was probably sent through a softmax already."""


class Rows(NamedTuple):
    """Kept positions as rows: student (N, C), with gradient; teacher (N, C), without; target (N,) or None."""

    student: Tensor
    teacher: Tensor
    target: Tensor | None


def logit_rows(
    student_logits: Any, teacher_logits: Any, target: Any = None, *, ignore_index: int = -100, finite: bool = False
) -> Rows:
    """Student and teacher logits of one shape (B, C, ...), classes in dimension 1, as rows; positions whose target is
    `ignore_index` are dropped.

    Half precision becomes float32, unequal dtypes are promoted, and the teacher carries no gradient. -inf excludes a class; with
    `finite`, it is refused. Warns `ProbabilitiesWarning` where the rows of either are probabilities.
    Raises TypeError for what are not floating tensors and for soft targets; ValueError for other numbers of classes (naming
    both), shapes that differ, NaN or +inf, targets out of range, and if no position is left.
    """
    named = (("student_logits", student_logits), ("teacher_logits", teacher_logits))
    for name, value in named:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} must be a floating tensor of logits (B, C, ...), got {got}")
    student, teacher = student_logits, teacher_logits.detach()
    if student.ndim < 2 or teacher.ndim < 2:
        raise ValueError(f"logits must have shape (B, C, ...), got {tuple(student.shape)} and {tuple(teacher.shape)}")
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"the student has {student.shape[1]} classes (shape {tuple(student.shape)}) and the teacher {teacher.shape[1]} "
            f"({tuple(teacher.shape)}), in dimension 1: map both to one set of classes first"
        )
    if student.shape != teacher.shape:
        raise ValueError(f"student_logits has shape {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)}")
    if student.device != teacher.device:
        raise ValueError(f"student_logits is on {student.device} and teacher_logits on {teacher.device}: move one of them")
    classes = student.shape[1]
    labels = None if target is None else _labels(target, student, classes, ignore_index)
    # float32 inside: a logsumexp over a thousand classes loses most of half precision's digits.
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    student, teacher = (t.to(dtype).movedim(1, -1).reshape(-1, classes) for t in (student, teacher))
    given = len(student)
    if labels is not None:
        kept = labels != ignore_index
        if not bool(kept.all()):
            student, teacher, labels = student[kept], teacher[kept], labels[kept]
    if len(student) == 0:
        why = f"every target is ignore_index = {ignore_index}" if given else "the batch is empty"
        raise ValueError(f"no position is left to average over: {why}")
    for name, value in (("student_logits", student), ("teacher_logits", teacher)):
        _checked_values(value.detach(), name, finite)
    return Rows(student, teacher, labels)


def _labels(target: Any, student: Tensor, classes: int, ignore_index: int) -> Tensor:
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor of class indices, got {type(target).__name__}")
    if target.is_floating_point():
        raise TypeError(
            f"target must hold class indices of an integer type, got {target.dtype}: soft labels have no one true class; "
            "use target.argmax(1)"
        )
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"target must hold class indices of an integer type, got {target.dtype}")
    expected = (student.shape[0], *student.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(f"target must have shape {expected} for logits {tuple(student.shape)}, got {tuple(target.shape)}")
    labels = target.to(student.device).reshape(-1).long()
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bool(wrong.any()):
        raise ValueError(
            f"target must lie in [0, {classes - 1}] (or be ignore_index = {ignore_index}), got {int(labels[wrong][0])} "
            f"and {int(wrong.sum()) - 1} more"
        )
    return labels


def _checked_values(rows: Tensor, name: str, finite: bool) -> None:
    bad = ~torch.isfinite(rows) if finite else torch.isnan(rows) | (rows == torch.inf)
    if bool(bad.any()):
        what = "not finite" if finite else "NaN or +inf"
        raise ValueError(f"{name} has {int(bad.sum())} of {rows.numel()} value(s) that are {what}")
    if bool((rows == -torch.inf).all(-1).any()):
        raise ValueError(f"{name} has a row whose logits are all -inf: it has no class")
    if rows.shape[1] > 1 and bool((rows >= 0).all()) and bool(((rows.sum(-1) - 1).abs() < 1e-4).all()):
        warnings.warn(
            f"every row of {name} is non-negative and sums to one: these look like probabilities, and the loss wants logits; "
            f"pass their logarithm",
            ProbabilitiesWarning,
            stacklevel=4,
        )


def task_loss(rows: Rows) -> Tensor:
    """-log softmax(student)_target, (N,); zero where there is no target."""
    if rows.target is None:
        return rows.student.new_zeros(len(rows.student))
    return F.cross_entropy(rows.student, rows.target, reduction="none")


__all__ = ["ProbabilitiesWarning", "Reduction", "Rows", "logit_rows", "task_loss"]
