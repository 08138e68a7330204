"""What every distillation paper compares with: Hinton's distillation with any divergence, its decoupled form, and DIST."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, positive
from discrepancy.divergences import KL, Divergence
from discrepancy.divergences.admission import Admission
from discrepancy.methods.distillation.logits import Reduction, Rows, logit_rows, task_loss

ADMITS = Admission("knowledge distillation", kinds=(Divergence,))
_KL = KL()
_DKD = Admission("decoupled distillation", kinds=(Divergence,))


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    divergence: Divergence = _KL,
    temperature: float = 4.0,
    weight: float = 0.9,
    task_weight: float = 0.1,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """task_weight CE(student, target) + weight T^2 D(softmax(teacher / T) || softmax(student / T)).

    Logits (B, C, ...) with classes in dimension 1, target (B, ...) class indices or None: then the first term is left out. P is
    the teacher, Q the student, so `KL()` is Hinton's loss, `ReverseKL()` the mode-seeking one; T^2 keeps the gradient's size at
    any temperature. `reduction` takes the vector of values at the positions that count (target other than `ignore_index`).
    No gradient reaches the teacher. O(B C) time and memory.
    Raises as `logit_rows`; TypeError for what is no divergence, ValueError for options out of range.
    """
    ADMITS.check(divergence)
    _checked(temperature, weight, task_weight)
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index)
    T = temperature
    value = weight * T * T * divergence.from_logits(rows.teacher / T, rows.student / T)
    return reduction(value + task_weight * task_loss(rows))


def _checked(temperature: float, *weights: float) -> None:
    positive(temperature, "temperature")
    for weight in weights:
        at_least(weight, 0, "a loss's weight")


class KnowledgeDistillation(nn.Module):
    """`distillation_loss` as a module, with its options fixed: Hinton et al. 2015 with any `Divergence` for KL."""

    references: ClassVar[tuple[str, ...]] = ("hinton-2015",)

    def __init__(
        self,
        divergence: Divergence = _KL,
        *,
        temperature: float = 4.0,
        weight: float = 0.9,
        task_weight: float = 0.1,
        ignore_index: int = -100,
        reduction: Reduction = torch.mean,
    ) -> None:
        super().__init__()
        self.divergence = ADMITS.check(divergence)
        _checked(temperature, weight, task_weight)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "weight": weight,
            "task_weight": task_weight,
            "ignore_index": ignore_index,
            "reduction": reduction,
        }

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return distillation_loss(student_logits, teacher_logits, target, divergence=self.divergence, **self.options)

    def extra_repr(self) -> str:
        """The divergence and the weights."""
        return ", ".join([repr(self.divergence), *(f"{k}={self.options[k]}" for k in ("temperature", "weight", "task_weight"))])


def decoupled_terms(rows: Rows, divergence: Divergence, temperature: float) -> tuple[Tensor, Tensor]:
    """The divergences between (p_t, 1 - p_t) of teacher and student, and between their laws over the other classes: (N,) each.

    For KL, first + (1 - p_t of the teacher) second = KL between the whole laws, exactly.
    """
    assert rows.target is not None
    classes = rows.student.shape[1]
    others = torch.arange(classes - 1, device=rows.target.device).expand(len(rows.target), -1)
    others = others + (others >= rows.target[:, None]).long()
    binary, rest = [], []
    for logits in (rows.teacher, rows.student):
        logits = logits / temperature
        other = logits.gather(1, others)
        # log(1 - p_t) as a logsumexp: 1 - p_t itself is zero once p_t rounds to one.
        binary.append(torch.stack([logits.gather(1, rows.target[:, None])[:, 0], torch.logsumexp(other, 1)], 1))
        rest.append(other)
    return divergence.from_logits(*binary), divergence.from_logits(*rest)


def decoupled_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    divergence: Divergence = _KL,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    other_weight: float = 8.0,
    task_weight: float = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """task_weight CE + T^2 (target_weight D(b^t || b^s) + other_weight D(r^t || r^s)), b the law of "true class or not" and r
    that over the other classes.

    With KL and weights 1 and 1 - p_t it is distillation itself; a constant weight on the second part frees what a confident
    teacher's 1 - p_t suppresses. Shapes, target, reduction and errors as `distillation_loss`; a target and at least two classes
    are needed. O(B C). Zhao et al. 2022 (their alpha and beta are target_weight and other_weight).
    """
    _DKD.check(divergence)
    _checked(temperature, target_weight, other_weight, task_weight)
    rows = logit_rows(student_logits, teacher_logits, _required(target), ignore_index=ignore_index)
    if rows.student.shape[1] < 2:
        raise ValueError("decoupled distillation needs at least two classes, got one")
    first, second = decoupled_terms(rows, divergence, temperature)
    value = temperature**2 * (target_weight * first + other_weight * second)
    return reduction(value + task_weight * task_loss(rows))


def _required(target: Any) -> Any:
    if target is None:
        raise TypeError("target must be given: this loss needs the true class of every sample")
    return target


class DecoupledDistillation(nn.Module):
    """`decoupled_distillation_loss` as a module: Zhao et al. 2022 with any `Divergence` for KL."""

    references: ClassVar[tuple[str, ...]] = ("zhao-2022",)

    def __init__(
        self,
        divergence: Divergence = _KL,
        *,
        temperature: float = 4.0,
        target_weight: float = 1.0,
        other_weight: float = 8.0,
        task_weight: float = 1.0,
        ignore_index: int = -100,
        reduction: Reduction = torch.mean,
    ) -> None:
        super().__init__()
        self.divergence = _DKD.check(divergence)
        _checked(temperature, target_weight, other_weight, task_weight)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "target_weight": target_weight,
            "other_weight": other_weight,
            "task_weight": task_weight,
            "ignore_index": ignore_index,
            "reduction": reduction,
        }

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return decoupled_distillation_loss(
            student_logits, teacher_logits, _required(target), divergence=self.divergence, **self.options
        )


def _correlation_gap(p: Tensor, q: Tensor) -> Tensor:
    """1 - the Pearson correlation along the last dimension, as half the squared distance of the standardised vectors.

    In this form it is exactly zero at equality. Where a vector is constant, the correlation is undefined: the value is 1, without
    gradient.
    """
    p, q = p - p.mean(-1, keepdim=True), q - q.mean(-1, keepdim=True)
    sizes = [t.square().sum(-1, keepdim=True) for t in (p, q)]
    known = (sizes[0] > 0) & (sizes[1] > 0)
    p, q = (t / torch.where(known, s, torch.ones_like(s)).sqrt() for t, s in zip((p, q), sizes, strict=True))
    gap = (p - q).square().sum(-1) / 2
    return torch.where(known[..., 0], gap, torch.ones_like(gap))


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    between_weight: float = 1.0,
    within_weight: float = 1.0,
    task_weight: float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """task_weight CE + T^2 (between_weight mean_i [1 - r(p_i, q_i)] + within_weight mean_c [1 - r(p_c, q_c)]).

    r is Pearson's correlation of the probabilities of teacher and student: of one sample over the classes, and of one class over
    the samples of the batch; only relations are matched. Shapes, target and errors as `distillation_loss`; at least two classes
    and two samples. The second part is no mean over samples, hence no `reduction`. O(B C). Huang et al. 2022.
    """
    _checked(temperature, between_weight, within_weight, task_weight)
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index)
    if min(rows.student.shape) < 2:
        raise ValueError(f"a correlation needs two samples and two classes, got {tuple(rows.student.shape)}")
    p, q = (torch.softmax(t / temperature, -1) for t in (rows.teacher, rows.student))
    between, within = _correlation_gap(p, q).mean(), _correlation_gap(p.T, q.T).mean()
    relations = temperature**2 * (between_weight * between + within_weight * within)
    return relations + task_weight * task_loss(rows).mean()


class DIST(nn.Module):
    """`dist_loss` as a module: Huang et al. 2022."""

    references: ClassVar[tuple[str, ...]] = ("huang-2022",)

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        between_weight: float = 1.0,
        within_weight: float = 1.0,
        task_weight: float = 1.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        _checked(temperature, between_weight, within_weight, task_weight)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "between_weight": between_weight,
            "within_weight": within_weight,
            "task_weight": task_weight,
            "ignore_index": ignore_index,
        }

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return dist_loss(student_logits, teacher_logits, target, **self.options)


__all__ = [
    "ADMITS",
    "DIST",
    "DecoupledDistillation",
    "KnowledgeDistillation",
    "decoupled_distillation_loss",
    "decoupled_terms",
    "dist_loss",
    "distillation_loss",
]
