"""Sinkhorn distillation: the output distributions of a batch of students are transported onto those of the teacher's batch."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._validate import at_least, generator_or_default, positive, whole_number
from discrepancy.costs import Manhattan
from discrepancy.divergences import KL, Divergence
from discrepancy.divergences.admission import Admission
from discrepancy.methods.distillation.logits import Rows, logit_rows, task_loss
from discrepancy.methods.distillation.output_costs import CostTransport, as_output_cost, check_transport
from discrepancy.transport import Sinkhorn

ADMITS = Admission("Sinkhorn distillation", kinds=(Divergence,))
_KL, _L1, _TRANSPORT = KL(), Manhattan(), Sinkhorn(0.1)


def batch_transport_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    ground: Any = _L1,
    transport: CostTransport = _TRANSPORT,
    temperature: float = 2.0,
    debias: bool = False,
    unit_mass: bool = True,
    max_rows: int | None = 512,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The transport value between the batches of laws p_i = softmax(student_i / T), q_j = softmax(teacher_j / T), equal weights.

    ground: the cost between p_i and q_j, a cost of points on probabilities (`Manhattan()`, the paper's), any divergence
    D(q_j || p_i), or an `OutputCost`. transport: `Sinkhorn(epsilon)` is the regularised optimum with envelope gradients (ours);
    `UnrolledSinkhorn(0.1, 20)` the bare cost of a truncated loop, differentiated through (the paper's); `OptimalTransport()`,
    `InexactProximal()`, or any object with `solve_cost`. debias: minus half of each batch against itself (a Sinkhorn divergence,
    zero at equal batches). unit_mass=False gives the plan the mass b of the released code, a sum over the batch.

    The value does not change when the teacher's rows are permuted: it compares sets, and does not say which sample should get
    which prediction. It needs a term that does. Shapes, dtypes and errors as `logit_rows` (classes in dimension 1); a batch of
    one warns: nothing is left but c(p, q). More than max_rows rows are subsampled, the same of both. Time b^2 C and a solve of
    b x b; memory b^2.
    """
    rows = logit_rows(student_logits, teacher_logits)
    positive(temperature, "temperature")
    return _transport_term(rows, ground, transport, temperature, debias, unit_mass, max_rows, generator)


def _transport_term(
    rows: Rows,
    ground: Any,
    transport: CostTransport,
    temperature: float,
    debias: bool,
    unit_mass: bool,
    max_rows: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    cost = as_output_cost(ground)
    check_transport(transport)
    student, teacher = rows.student / temperature, rows.teacher / temperature
    if len(student) == 1:
        warnings.warn("a batch of one: the transport term is the cost between its two predictions", UserWarning, stacklevel=4)
    if max_rows is not None and len(student) > whole_number(max_rows, 2, "max_rows"):
        kept = torch.randperm(len(student), generator=generator_or_default(generator))[:max_rows].to(student.device)
        student, teacher = student[kept], teacher[kept]

    def value(u: Tensor, v: Tensor) -> Tensor:
        return torch.as_tensor(transport.solve_cost(cost.matrix(u, v)).value)

    total = value(student, teacher)
    if debias:
        total = total - (value(student, student) + value(teacher, teacher)) / 2
    return total if unit_mass else len(student) * total


def sinkhorn_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    divergence: Divergence = _KL,
    ground: Any = _L1,
    transport: CostTransport = _TRANSPORT,
    temperature: float = 2.0,
    weight: float = 0.9,
    task_weight: float = 0.1,
    transport_weight: float = 0.8,
    debias: bool = False,
    unit_mass: bool = True,
    max_rows: int | None = 512,
    ignore_index: int = -100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """task_weight CE + weight T^2 mean_i D(q_i || p_i) + transport_weight L, with L the `batch_transport_loss`: SinKD's total.

    The paper's alpha and beta are weight = alpha, task_weight = 1 - alpha and transport_weight = beta, with KL for D (teacher
    first: P is the teacher). T^2 is the factor of `distillation_loss`, which this is at transport_weight = 0. The released code's
    L is 1e-3 times a sum of mass b: ours is a mean, so that beta does not depend on the batch size.

    One class means a regression head: then the loss is task_weight MSE(student, target) + transport_weight
    MSE(student / T, teacher / T). target (B, ...) are class indices (or, for one class, numbers (B,)), None leaves the task out.
    Raises as `logit_rows`; TypeError for what is no divergence, cost or transport; ValueError for options out of range.
    Source: Cui, Qin, Gao, Zhang, Xu, Wu, Li, Sun, Zhou and Li (2024, 2402.17110).
    """
    ADMITS.check(divergence)
    positive(temperature, "temperature")
    for name, number in (("weight", weight), ("task_weight", task_weight), ("transport_weight", transport_weight)):
        at_least(number, 0, name)
    if isinstance(student_logits, Tensor) and student_logits.ndim >= 2 and student_logits.shape[1] == 1:
        return _regression(student_logits, teacher_logits, target, temperature, task_weight, transport_weight)
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index)
    T = temperature
    value = (weight * T * T * divergence.from_logits(rows.teacher / T, rows.student / T) + task_weight * task_loss(rows)).mean()
    if transport_weight == 0:
        return value
    moved = _transport_term(rows, ground, transport, T, debias, unit_mass, max_rows, generator)
    return value + transport_weight * moved


def _regression(student: Tensor, teacher: Tensor, target: Tensor | None, T: float, task: float, transport: float) -> Tensor:
    """Scores instead of classes: mean squared errors, to the teacher's at the temperature and to the target's."""
    rows = logit_rows(student, teacher)
    value = transport * F.mse_loss(rows.student / T, rows.teacher / T)
    if target is None:
        return value
    truth = target.to(rows.student).reshape(-1)
    if len(truth) != len(rows.student):
        raise ValueError(f"target must have a number for each of the {len(rows.student)} scores, got shape {tuple(target.shape)}")
    return value + task * F.mse_loss(rows.student[:, 0], truth)


class SinkhornKD(nn.Module):
    """`sinkhorn_kd_loss` as a module, with its options fixed; unknown options raise TypeError."""

    references: ClassVar[tuple[str, ...]] = ("sinkhorn-kd", "cuturi-2013")

    def __init__(
        self, divergence: Divergence = _KL, *, ground: Any = _L1, transport: CostTransport = _TRANSPORT, **options: Any
    ) -> None:
        """Check the objects at once, the numbers as well."""
        super().__init__()
        self.divergence = ADMITS.check(divergence)
        self.ground, self.transport = as_output_cost(ground), check_transport(transport)
        self.options = {name: _NUMBERS[name] for name in _NUMBERS} | options
        unknown = sorted(set(options) - set(_NUMBERS))
        if unknown:
            raise TypeError(f"SinkhornKD takes the options {', '.join(_NUMBERS)}, got {', '.join(unknown)}")
        positive(self.options["temperature"], "temperature")
        for name in ("weight", "task_weight", "transport_weight"):
            at_least(self.options[name], 0, name)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        target: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of a batch."""
        chosen: dict[str, Any] = {"divergence": self.divergence, "ground": self.ground, "transport": self.transport}
        return sinkhorn_kd_loss(student_logits, teacher_logits, target, generator=generator, **chosen, **self.options)

    def extra_repr(self) -> str:
        """The objects and the weights."""
        return ", ".join(
            [repr(self.divergence), repr(self.ground), repr(self.transport), *(f"{k}={v}" for k, v in self.options.items())]
        )


_NUMBERS: dict[str, Any] = {
    "temperature": 2.0,
    "weight": 0.9,
    "task_weight": 0.1,
    "transport_weight": 0.8,
    "debias": False,
    "unit_mass": True,
    "max_rows": 512,
    "ignore_index": -100,
}


class AnswerRows(NamedTuple):
    """The supervised positions of a batch of sequences: student (N, V), teacher (N, V), target (N,)."""

    student: Tensor
    teacher: Tensor
    target: Tensor


def answer_rows(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> AnswerRows:
    """The positions of causal language models (B, L, V) that predict a label (B, L) other than `ignore_index`, as rows.

    The logits at t predict the label at t + 1, as Hugging Face's heads do. Raises ValueError for shapes that do not fit,
    vocabularies that differ (naming both), and if no position is supervised.
    """
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        if logits.ndim != 3 or logits.shape[:2] != labels.shape:
            raise ValueError(
                f"{name} must have shape (B, L, V) with labels (B, L), got {tuple(logits.shape)}, {tuple(labels.shape)}"
            )
    if student_logits.shape[-1] != teacher_logits.shape[-1]:
        raise ValueError(
            f"the student's vocabulary has {student_logits.shape[-1]} tokens, the teacher's {teacher_logits.shape[-1]}"
        )
    target = labels[:, 1:]
    kept = target != ignore_index
    if not bool(kept.any()):
        raise ValueError(f"no position is supervised: every label after the first is ignore_index = {ignore_index}")
    return AnswerRows(student_logits[:, :-1][kept], teacher_logits[:, :-1][kept].detach(), target[kept])


__all__ = ["ADMITS", "AnswerRows", "SinkhornKD", "answer_rows", "batch_transport_loss", "sinkhorn_kd_loss"]
