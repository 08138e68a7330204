"""One-for-all distillation: exits put a student's intermediate features into logit space, where any teacher can be matched."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._results import Result
from discrepancy._validate import at_least, positive
from discrepancy.divergences import Divergence
from discrepancy.divergences.admission import Admission
from discrepancy.learning.features import features_of, logits_in, outputs_and_features
from discrepancy.methods.distillation.exits import AutomaticExit, Exit, exit_branches
from discrepancy.methods.distillation.logits import Reduction, Rows, logit_rows

ADMITS = Admission("one-for-all distillation", kinds=(Divergence,))
_EXIT = AutomaticExit()


def ofa_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 1.0,
    temperature: float = 1.0,
    divergence: Divergence | None = None,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """-sum_i w_i log softmax(student / T)_i with w = (p + e)^gamma - e, p = softmax(teacher / T) and e the one-hot target.

    At gamma = 1 the soft cross-entropy: distillation up to the teacher's entropy. gamma > 1 shrinks the other classes to p^gamma
    and lifts the target's weight to (1 + p)^gamma - 1 >= p, the more the surer the teacher is of the label; gamma < 1 suppresses
    it, and warns. The weights do not sum to one (their mass grows with gamma), so this is no divergence and not zero at equality.
    No T^2.

    divergence (our extension): D(w / sum w || softmax(student / T)) instead, with the enhanced teacher as P; `KL()` is the loss
    divided by the mass of w, up to the entropy of w / sum w. Logits (B, C, ...), target (B, ...) class indices, or a vector
    (B, C) of soft labels, of which the largest counts. No gradient reaches the teacher. O(B C).
    Raises as `logit_rows`; ValueError for gamma <= 0, TypeError for what is no divergence.
    Source: Hao, Guo, Han, Tang, Hu, Wang and Xu (2023, 2310.19444).
    """
    check_gamma(gamma)
    positive(temperature, "temperature")
    if divergence is not None:
        ADMITS.check(divergence)
    rows = logit_rows(student_logits, teacher_logits, _hard(target, student_logits), ignore_index=ignore_index)
    return reduction(_values(rows, gamma, temperature, divergence))


def _hard(target: Any, logits: Tensor) -> Tensor:
    """Class indices: of soft labels, the largest."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor of class indices or of soft labels, got {type(target).__name__}")
    return target.argmax(1) if target.is_floating_point() and target.shape == logits.shape else target


def _values(rows: Rows, gamma: float, temperature: float, divergence: Divergence | None) -> Tensor:
    assert rows.target is not None
    log_p = torch.log_softmax(rows.teacher / temperature, -1)
    own = log_p.gather(1, rows.target[:, None])
    # expm1 and log1p: (1 + p)^gamma - 1 by itself cancels for the small p of a teacher that is wrong.
    lifted = torch.expm1(gamma * torch.log1p(own.exp()))
    if divergence is not None:
        enhanced = (gamma * log_p).scatter(1, rows.target[:, None], lifted.log())
        return divergence.from_logits(enhanced, rows.student / temperature)
    weight = (gamma * log_p).exp().scatter(1, rows.target[:, None], lifted)
    log_q = torch.log_softmax(rows.student / temperature, -1)
    # A class without weight costs nothing, even where the student excludes it.
    return -torch.where(
        weight > 0, weight * torch.where(weight > 0, log_q, torch.zeros_like(log_q)), torch.zeros_like(weight)
    ).sum(-1)


def check_gamma(gamma: float) -> float:
    """A positive number; ValueError otherwise, a warning below one."""
    positive(gamma, "gamma")
    if gamma < 1:
        warnings.warn(
            f"gamma = {gamma:g} < 1 suppresses the target: its weight (1 + p)^gamma - 1 falls below p; take gamma >= 1",
            UserWarning,
            stacklevel=3,
        )
    return gamma


@dataclass(frozen=True, repr=False)
class OFATerms(Result):
    """One batch: the weighted `loss`, and its parts unweighted: `task`, `distillation`, and `exits`, one value each."""

    loss: Tensor
    task: Tensor
    distillation: Tensor
    exits: tuple[Tensor, ...]


class OFADistiller(nn.Module):
    """task_weight CE + weight L(student) + exit_weight sum_k s_k L(exit_k(features_k)), with L the `ofa_loss`.

    stages: names of the student's submodules whose outputs get an exit, first to last (a mapping gives each its share s_k, else
    1). gamma: one for all, or one for each exit and a last one for the logits. example: a batch of inputs, to see the shapes.
    exit: how a branch is made from features of a shape, `AutomaticExit()` by rank, or one a name; they end on `width` features
    (None: the larger of the last stage's and the input of the teacher's last linear layer).

    Parameters: the student's and the exits'; gradients flow from every exit into the student. The teacher is no submodule: it
    is kept in evaluation mode, gets no gradient, and `train()` does not reach it. The exits are thrown away afterwards: the
    student's state and cost are what they were. With weights of one and four exits the distillation terms outweigh the task about
    5 to 1: compare learning rates at equal totals.
    Raises KeyError for a stage that is not there (naming those close by), ValueError for features of rank 1 or above 4, numbers
    of gammas and of classes that do not fit, TypeError for what is no divergence.
    Source: Hao, Guo, Han, Tang, Hu, Wang and Xu (2023, 2310.19444).
    """

    references: ClassVar[tuple[str, ...]] = ("ofa-kd",)

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        stages: Sequence[str] | Mapping[str, float],
        example: Tensor,
        *,
        gamma: float | Sequence[float] = 1.0,
        temperature: float = 1.0,
        divergence: Divergence | None = None,
        task_weight: float = 1.0,
        weight: float = 1.0,
        exit_weight: float = 1.0,
        exit: Exit | dict[str, Exit] = _EXIT,
        width: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if isinstance(stages, str):
            raise TypeError(f"stages must be a sequence of module names, got the single name {stages!r}: write [{stages!r}]")
        names = list(stages)
        if len(set(names)) != len(names):
            raise ValueError(f"stages must be different modules, got {names}")
        self.shares = tuple(float(stages[n]) if isinstance(stages, Mapping) else 1.0 for n in names)
        given = [gamma] if isinstance(gamma, int | float) else list(gamma)
        if len(given) not in (1, len(names) + 1):
            raise ValueError(
                f"gamma must be one number or {len(names) + 1} (one an exit, the last for the logits), got {len(given)}"
            )
        self.gammas = tuple(check_gamma(float(g)) for g in (given * (len(names) + 1) if len(given) == 1 else given))
        for name, number in (("task_weight", task_weight), ("weight", weight), ("exit_weight", exit_weight)):
            at_least(number, 0, name)
        self.task_weight, self.weight, self.exit_weight = task_weight, weight, exit_weight
        self.temperature = positive(temperature, "temperature")
        self.divergence = None if divergence is None else ADMITS.check(divergence)
        logits, features = features_of(student, example, names)
        truth, _ = features_of(teacher, example, [])
        if logits.shape[1] != truth.shape[1]:
            raise ValueError(f"the student has {logits.shape[1]} classes and the teacher {truth.shape[1]}: they must be the same")
        shapes = {name: f.shape for name, f in features.items()}
        if width is None:
            # Channels are in dimension 1 of images and vectors, last in tokens.
            ends = [s[-1] if len(s) == 3 else s[1] for s in list(shapes.values())[-1:] if len(s) > 1]
            width = max([*ends, *[m.in_features for m in teacher.modules() if isinstance(m, nn.Linear)][-1:], 1])
        branches = exit_branches(shapes, logits.shape[1], width, exit, generator=generator)
        self.student = student
        self.stages = tuple(names)
        self.exits = nn.ModuleList(branches[name] for name in names).to(device=logits.device, dtype=logits.dtype)
        # In a tuple, so that it is no submodule.
        self._teacher = (teacher,)

    @property
    def teacher(self) -> nn.Module:
        """The teacher, no part of this module's state."""
        return self._teacher[0]

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch of inputs with its target."""
        return self.terms(x, target).loss

    def terms(self, x: Tensor, target: Tensor) -> OFATerms:
        """The loss with its parts; the teacher sees the batch too."""
        self.teacher.eval()
        with torch.no_grad():
            truth = logits_in(self.teacher(x))
        return self.against(x, truth, target)

    def against(self, x: Tensor, teacher_logits: Tensor, target: Tensor) -> OFATerms:
        """The same with the teacher's logits for the batch given, where they were computed once."""
        output, features = outputs_and_features(self.student, x, self.stages)
        logits = logits_in(output)

        def loss(u: Tensor, gamma: float) -> Tensor:
            rows = logit_rows(u, teacher_logits, _hard(target, u))
            return _values(rows, gamma, self.temperature, self.divergence).mean()

        task = F.cross_entropy(logits, target)
        distillation = loss(logits, self.gammas[-1])
        exits = tuple(
            loss(branch(features[name]), g) for name, branch, g in zip(self.stages, self.exits, self.gammas, strict=False)
        )
        total = self.task_weight * task + self.weight * distillation
        for share, value in zip(self.shares, exits, strict=True):
            total = total + self.exit_weight * share * value
        return OFATerms(total, task.detach(), distillation.detach(), tuple(v.detach() for v in exits))


__all__ = ["ADMITS", "OFADistiller", "OFATerms", "check_gamma", "ofa_loss"]
