"""BD-KD: forward and reverse divergence balanced sample by sample, and networks that are distilled into one another online.

P is the partner (the teacher), Q the network that is trained: the paper's forward KL(p^t || p^s) is `KL()`, its reverse
KL(p^s || p^t) is `ReverseKL()`. The teacher's regulariser KL(p^t || sg(p^s)) has P = student and Q = teacher: `ReverseKL()`
again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import at_least, positive
from discrepancy.divergences import KL, Divergence, ReverseKL
from discrepancy.divergences.admission import Admission
from discrepancy.methods.distillation.baselines import KnowledgeDistillation
from discrepancy.methods.distillation.logits import Reduction, logit_rows, task_loss
from discrepancy.methods.distillation.training import Epochs

ADMITS = Admission("balanced distillation", kinds=(Divergence,))

_PAIR = (KL(), ReverseKL())
_EPOCHS = Epochs()

# (student logits (N, C), teacher logits (N, C)) -> weights (N, 2) of the first and the second divergence.
BalanceRule = Callable[[Tensor, Tensor], Tensor]


class InvertedRuleWarning(UserWarning):
    """A factor below one turns the rule round: the divergence that should count more counts less."""


def row_entropies(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) along the last dimension, in nats; a probability of zero contributes nothing."""
    log_probs = torch.log_softmax(logits, -1)
    probs = log_probs.exp()
    return -torch.where(probs > 0, probs * log_probs, torch.zeros_like(probs)).sum(-1)


@dataclass(frozen=True)
class EntropyGap:
    """Where the student's entropy is below the teacher's, the first divergence counts `delta` times the second; elsewhere the
    second counts `delta` times the first.

    The two weights sum to two. Entropies are of the logits as they are, at temperature 1: hotter, they are nearly constant.
    `swap` exchanges the sides. Warns `InvertedRuleWarning` for delta < 1.
    """

    delta: float = 2.0
    swap: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless delta is positive."""
        positive(self.delta, "delta")
        if self.delta < 1:
            warnings.warn(
                f"delta = {self.delta} is below one, which inverts the rule: use {1 / self.delta:g}, or swap=True if meant",
                InvertedRuleWarning,
                stacklevel=3,
            )

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The weights (N, 2)."""
        confident = (row_entropies(student_logits) < row_entropies(teacher_logits)) != self.swap
        first = torch.where(confident, 2 * self.delta / (1 + self.delta), 2 / (1 + self.delta)).to(student_logits.dtype)
        return torch.stack([first, 2 - first], -1)


@dataclass(frozen=True)
class SoftEntropyGap:
    """First weight 2 sigmoid((H_teacher - H_student) / scale), second 2 minus it: `EntropyGap` without
    the jump. The scale is in nats."""

    scale: float = 0.5
    swap: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the scale is positive."""
        positive(self.scale, "scale")

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The weights (N, 2)."""
        gap = row_entropies(teacher_logits) - row_entropies(student_logits)
        first = 2 * torch.sigmoid((-gap if self.swap else gap) / self.scale)
        return torch.stack([first, 2 - first], -1)


@dataclass(frozen=True)
class FixedWeights:
    """The same two weights for every sample: (1, 1) the plain sum, (1, 0) the first divergence alone."""

    first: float = 1.0
    second: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a negative weight."""
        at_least(self.first, 0, "first")
        at_least(self.second, 0, "second")

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The weights (N, 2)."""
        return student_logits.new_tensor([self.first, self.second]).expand(len(student_logits), 2)


def balanced_divergence_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    divergences: tuple[Divergence, Divergence] = _PAIR,
    rule: BalanceRule = EntropyGap(),
    temperature: float = 2.0,
    weight: float = 1.0,
    task_weight: float = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """task_weight CE(student, target) + weight T^2 [a_i D_1(p_i || q_i) + b_i D_2(p_i || q_i)], (a_i, b_i) from the rule.

    p, q = softmax of teacher's and student's logits over T; logits (B, C, ...) with classes in dimension 1, target (B, ...) or
    None: then the first term is left out. `rule` sees the logits (N, C) at temperature 1 and gives (N, 2) weights that carry no
    gradient, and neither does the teacher. `reduction` takes the vector of values at the positions that count. O(B C).
    Raises as `logit_rows`; TypeError for what is no divergence; ValueError for options out of range and weights of another shape
    or below zero; NumericalError if the rule returns what is not finite.
    """
    _checked(divergences, temperature, weight, task_weight)
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index)
    with torch.no_grad():
        balance = rule(rows.student.detach(), rows.teacher)
    if not isinstance(balance, Tensor) or balance.shape != (len(rows.student), 2):
        got = tuple(balance.shape) if isinstance(balance, Tensor) else type(balance).__name__
        raise ValueError(f"rule must return two weights a sample, shape ({len(rows.student)}, 2), got {got}")
    if not bool(torch.isfinite(balance).all()):
        raise NumericalError("the rule's weights are not finite")
    if bool((balance < 0).any()):
        raise ValueError(f"rule must return non-negative weights, got {float(balance.min()):.4g}")
    p, q = rows.teacher / temperature, rows.student / temperature
    value = torch.zeros_like(q[:, 0])
    for k, divergence in enumerate(divergences):
        here = balance[:, k] > 0
        # A divergence of weight zero is not evaluated: it may be infinite.
        if bool(here.any()):
            part = balance[here, k].to(q.dtype) * divergence.from_logits(p[here], q[here])
            value = value.index_put((here,), part, accumulate=True)
    return reduction(weight * temperature**2 * value + task_weight * task_loss(rows))


def _checked(divergences: Sequence[Divergence], temperature: float, weight: float, task_weight: float) -> None:
    if not isinstance(divergences, tuple | list) or len(divergences) != 2:
        raise TypeError(f"divergences must be a pair such as (KL(), ReverseKL()), got {divergences!r}")
    for divergence in divergences:
        ADMITS.check(divergence)
    positive(temperature, "temperature")
    at_least(weight, 0, "weight")
    at_least(task_weight, 0, "task_weight")


class BalancedDivergence(nn.Module):
    """`balanced_divergence_loss` as a module: BD-KD's loss of the student, with any pair of divergences and any rule."""

    references: ClassVar[tuple[str, ...]] = ("bd-kd",)

    def __init__(
        self,
        divergences: tuple[Divergence, Divergence] = _PAIR,
        *,
        rule: BalanceRule = EntropyGap(),
        temperature: float = 2.0,
        weight: float = 1.0,
        task_weight: float = 1.0,
        ignore_index: int = -100,
        reduction: Reduction = torch.mean,
    ) -> None:
        super().__init__()
        _checked(divergences, temperature, weight, task_weight)
        if not callable(rule):
            raise TypeError(f"rule must be callable as rule(student_logits, teacher_logits), got {type(rule).__name__}")
        self.divergences = tuple(divergences)
        self.options: dict[str, Any] = {
            "rule": rule,
            "temperature": temperature,
            "weight": weight,
            "task_weight": task_weight,
            "ignore_index": ignore_index,
            "reduction": reduction,
        }

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        first, second = self.divergences
        return balanced_divergence_loss(student_logits, teacher_logits, target, divergences=(first, second), **self.options)

    def extra_repr(self) -> str:
        """The pair, the rule and the temperature."""
        return f"{self.divergences!r}, rule={self.options['rule']!r}, temperature={self.options['temperature']}"


def teacher_regulariser(temperature: float = 2.0, weight: float = 0.1) -> KnowledgeDistillation:
    """BD-KD's loss of the teacher: CE + weight T^2 KL(teacher || student), the student held fixed."""
    return KnowledgeDistillation(ReverseKL(), temperature=temperature, weight=weight, task_weight=1.0)


class OnlineDistiller(nn.Module):
    """Networks that train together, each with its own loss towards every other one, which it sees as a constant.

    networks: two or more modules with logits of one shape, first the teacher by convention; losses: one each, called as
    loss(own_logits, partner's_logits, target) and averaged over the partners (default: BD-KD's, `teacher_regulariser()` for the
    first and `BalancedDivergence()` for the others). Raises ValueError for fewer than two networks, one network twice, and
    another number of losses.
    """

    references: ClassVar[tuple[str, ...]] = ("bd-kd",)

    def __init__(self, networks: Sequence[nn.Module], losses: Sequence[Callable[..., Tensor]] | None = None) -> None:
        super().__init__()
        if len(networks) < 2:
            raise ValueError(f"networks must be two or more that learn from one another, got {len(networks)}")
        if len({id(network) for network in networks}) < len(networks):
            raise ValueError("networks names one module twice: a network has nothing to learn from itself; give a copy")
        if losses is None:
            losses = [teacher_regulariser(), *(BalancedDivergence() for _ in networks[1:])]
        if len(losses) != len(networks):
            raise ValueError(f"losses must be one for each of the {len(networks)} networks, got {len(losses)}")
        self.networks = nn.ModuleList(networks)
        self.losses = tuple(losses)
        # Registered, so that what a loss itself learns is trained and saved with the networks.
        self.learned_losses = nn.ModuleList([loss for loss in losses if isinstance(loss, nn.Module)])

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all networks' losses on a batch, and each loss by name ("network 0", ...); one backward serves all."""
        logits = [network(x) for network in self.networks]
        terms: dict[str, Tensor] = {}
        for k, own in enumerate(logits):
            partners = [partner.detach() for j, partner in enumerate(logits) if j != k]
            terms[f"network {k}"] = torch.stack([self.losses[k](own, partner, target) for partner in partners]).mean()
        return torch.stack(list(terms.values())).sum(), {name: value.detach() for name, value in terms.items()}

    def fit(
        self, inputs: Tensor, targets: Tensor, *, epochs: Epochs = _EPOCHS, generator: torch.Generator | None = None
    ) -> dict[str, list[float]]:
        """Train all networks on shuffled batches of (n, ...) inputs and their targets; returns the record of the losses.

        One Adam serves all networks: its steps are taken a coordinate at a time, so that this is one optimiser each.
        Raises ValueError for lengths that differ, NumericalError if a loss or a gradient is not finite.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"there are {len(inputs)} inputs and {len(targets)} targets: one for each")
        return epochs.minimise([self], lambda rows: self(inputs[rows], targets[rows]), len(inputs), generator=generator)


__all__ = [
    "ADMITS",
    "BalanceRule",
    "BalancedDivergence",
    "EntropyGap",
    "FixedWeights",
    "InvertedRuleWarning",
    "OnlineDistiller",
    "SoftEntropyGap",
    "balanced_divergence_loss",
    "row_entropies",
    "teacher_regulariser",
]
