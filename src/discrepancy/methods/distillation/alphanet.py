"""AlphaNet's loss: the worse of several f-divergences, sample by sample, with bounded ratios and the score-function gradient.

P is the teacher, Q the student; the paper's D_alpha(p || q) is `Alpha(alpha)`, so that its defaults alpha_- = -1 and alpha_+ = 1
are `Alpha(-1)`, half of `NeymanChiSquared()`, and `KL()`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import at_least, positive
from discrepancy.divergences import KL, Alpha, FDivergence, InfiniteDivergenceWarning, ReverseKL
from discrepancy.divergences.admission import Admission
from discrepancy.divergences.perspective import log_perspective
from discrepancy.methods.distillation.logits import Reduction, logit_rows, task_loss

ADMITS = Admission("the adaptive divergence loss", kinds=(FDivergence,))
_PAIR = (Alpha(-1.0), KL())


@dataclass(frozen=True)
class PowerClip:
    """Ratios t = p/q are held where every power t^a that a divergence is made of is at most `bound`.

    The bound is on t^a, not on t: for a < 0 it holds t from below, for a > 0 from above, for a = 0 (log t) it holds t itself from
    above. Powers in `exempt` are not held: with a = 1, the forward KL, the gradient p - q is bounded anyway, and the paper's
    program leaves it alone too. A divergence that is no combination of powers has t in [1/bound, bound].
    """

    bound: float = 5.0
    exempt: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Raise ValueError unless the bound exceeds one, the ratio at equality."""
        if not (positive(self.bound, "bound") > 1):
            raise ValueError(f"bound must exceed 1, the ratio at equality, got {self.bound!r}")

    def interval(self, divergence: FDivergence) -> tuple[float, float]:
        """The interval of log t that this divergence is evaluated on."""
        top = math.log(self.bound)
        powers = divergence.powers()
        if powers is None:
            return -top, top
        held = [a for a in powers if a not in self.exempt]
        low = max((top / a for a in held if a < 0), default=-math.inf)
        high = min((top / a if a > 0 else top for a in held if a >= 0), default=math.inf)
        return low, high


@dataclass(frozen=True, repr=False)
class AdaptiveDivergence(Result):
    """Of N samples: `value` (N,), the largest clipped divergence, without gradient; `surrogate` (N,), whose gradient is that of
    the chosen divergence with its ratios held in bounds; `chosen` (N,), the index of the divergence."""

    value: Tensor
    surrogate: Tensor
    chosen: Tensor


def adaptive_divergence(
    student: Tensor, teacher: Tensor, divergences: tuple[FDivergence, ...], clip: PowerClip | None = PowerClip()
) -> AdaptiveDivergence:
    """max over f of D_f(softmax(teacher) || softmax(student)) for each row of logits (N, C), with the gradient of the paper.

    For D_f = E_q f(t), t = p/q, the gradient is -E_q[rho_f(t) grad log q] with rho_f(t) = t f'(t) - f(t). The surrogate is
    -sum_c sg(q rho_f(t)) log q with t clipped first: differentiating the clipped value instead would lose the gradient just
    where the ratio is large. Without a clip it is the exact gradient. Ratios are formed from log-probabilities, in
    float64. A row whose value is infinite (unclipped) has no gradient, with one `InfiniteDivergenceWarning`. O(N C) for each
    divergence.
    """
    log_q = torch.log_softmax(student, -1)
    # In float64: beyond a log-ratio of 700 two large numbers are subtracted.
    log_p, base = torch.log_softmax(teacher.detach().double(), -1), torch.log_softmax(student.detach().double(), -1)
    values, scores = [], []
    for f in divergences:
        low, high = (-math.inf, math.inf) if clip is None else clip.interval(f)
        log_t = (log_p - base).clamp(low, high)
        terms = log_perspective(f, base + log_t, base)
        values.append(terms.sum(-1))
        scores.append(_weighted_rho(f, base, log_t, terms))
    value, chosen = torch.stack(values).max(0)
    score = torch.stack(scores).gather(0, chosen[None, :, None].expand(1, *base.shape))[0]
    value, score = value.to(log_q.dtype), score.to(log_q.dtype)
    broken = ~(torch.isfinite(value) & torch.isfinite(score).all(-1))
    if bool(broken.any()):
        warnings.warn(
            f"the divergence of {int(broken.sum())} of {len(value)} sample(s) is infinite: they have no gradient; give a clip",
            InfiniteDivergenceWarning,
            stacklevel=2,
        )
        value = torch.where(broken, torch.full_like(value, torch.inf), value)
        score = torch.where(broken[:, None], torch.zeros_like(score), score)
    return AdaptiveDivergence(value, -(score * log_q).sum(-1), chosen)


def _weighted_rho(f: FDivergence, log_q: Tensor, log_t: Tensor, terms: Tensor) -> Tensor:
    """q rho_f(t), where `terms` is q f(t).

    rho_f(t) = t f'(t) - f(t) is minus the reversed generator's slope at 1/t, which neither cancels nor overflows for small t.
    Where it overflows for large t though q rho need not (KL: q (t - 1) = p - q), the definition itself, in which p = q t is
    finite.
    """
    rho = -f.reversed().derivative(log_t=-log_t)
    product = torch.sign(rho) * torch.exp(log_q + torch.log(rho.abs()))
    return torch.where(torch.isinf(rho), torch.exp(log_q + log_t) * f.derivative(log_t=log_t) - terms, product)


def adaptive_divergence_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    divergences: tuple[FDivergence, ...] = _PAIR,
    clip: PowerClip | None = PowerClip(),
    temperature: float = 1.0,
    weight: float = 1.0,
    task_weight: float = 0.0,
    ignore_index: int = -100,
    reduction: Reduction = torch.mean,
) -> Tensor:
    """weight T^2 max_f D_f(softmax(teacher / T) || softmax(student / T)), the maximum taken for each sample, plus task_weight CE.

    Logits (B, C, ...) with classes in dimension 1, target (B, ...) or None. The value is that of the clipped divergences, the
    gradient `adaptive_divergence`'s, so finite differences agree with it without a clip only. Any one or more f-divergences;
    a single one is plain distillation with bounded ratios. Teacher logits that require a gradient get none. `reduction` takes the
    vector of values at the positions that count. O(B C) for each divergence.
    Raises as `logit_rows`, logits that are not finite included; TypeError for what is no f-divergence; ValueError for options out
    of range.
    """
    _checked(divergences, clip, temperature, weight, task_weight)
    rows = logit_rows(student_logits, teacher_logits, target, ignore_index=ignore_index, finite=True)
    found = adaptive_divergence(rows.student / temperature, rows.teacher / temperature, divergences, clip)
    infinite = torch.isinf(found.value)
    # Infinity minus itself is NaN, and so is its gradient: an infinite row is a constant.
    step = found.surrogate - found.surrogate.detach()
    value = torch.where(infinite, found.value, found.value + torch.where(infinite, torch.zeros_like(step), step))
    value = weight * temperature**2 * value
    return reduction(value + task_weight * task_loss(rows)) if task_weight else reduction(value)


def _checked(
    divergences: tuple[FDivergence, ...], clip: PowerClip | None, temperature: float, weight: float, task_weight: float
) -> None:
    if not isinstance(divergences, tuple | list) or not divergences:
        raise TypeError(f"divergences must be a tuple such as (Alpha(-1.0), KL()), got {divergences!r}")
    for divergence in divergences:
        ADMITS.check(divergence)
    if clip is not None and not isinstance(clip, PowerClip):
        raise TypeError(f"clip must be a PowerClip or None, got {clip!r}: write PowerClip(5.0)")
    positive(temperature, "temperature")
    at_least(weight, 0, "weight")
    at_least(task_weight, 0, "task_weight")


class AdaptiveDivergenceLoss(nn.Module):
    """`adaptive_divergence_loss` as a module, with its options fixed."""

    references: ClassVar[tuple[str, ...]] = ("alphanet",)

    def __init__(
        self,
        divergences: tuple[FDivergence, ...] = _PAIR,
        *,
        clip: PowerClip | None = PowerClip(),
        temperature: float = 1.0,
        weight: float = 1.0,
        task_weight: float = 0.0,
        ignore_index: int = -100,
        reduction: Reduction = torch.mean,
    ) -> None:
        super().__init__()
        _checked(divergences, clip, temperature, weight, task_weight)
        self.divergences, self.clip = tuple(divergences), clip
        self.temperature, self.weight, self.task_weight = temperature, weight, task_weight
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return adaptive_divergence_loss(
            student_logits,
            teacher_logits,
            target,
            divergences=self.divergences,
            clip=self.clip,
            temperature=self.temperature,
            weight=self.weight,
            task_weight=self.task_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """The divergences and their clip."""
        return f"{self.divergences!r}, clip={self.clip!r}, temperature={self.temperature}"


def power(alpha: float) -> FDivergence:
    """`Alpha(alpha)`, and at its limits 1 and 0 `KL()` and `ReverseKL()` by name."""
    return KL() if alpha == 1 else ReverseKL() if alpha == 0 else Alpha(float(alpha))


def adaptive_alpha(
    alpha_min: float = -1.0,
    alpha_max: float = 1.0,
    *,
    clip: PowerClip | None = PowerClip(),
    temperature: float = 1.0,
    reduction: Reduction = torch.mean,
) -> AdaptiveDivergenceLoss:
    """The paper's loss: the larger of two alpha-divergences; an alpha of 0 is the reverse KL, and not a missing value.

    Raises ValueError if alpha_min exceeds alpha_max.
    """
    if not alpha_min <= alpha_max:
        raise ValueError(f"alpha_min must not exceed alpha_max, got {alpha_min!r} and {alpha_max!r}")
    pair = (power(alpha_min), power(alpha_max))
    return AdaptiveDivergenceLoss(pair, clip=clip, temperature=temperature, reduction=reduction)


__all__ = [
    "ADMITS",
    "AdaptiveDivergence",
    "AdaptiveDivergenceLoss",
    "PowerClip",
    "adaptive_alpha",
    "adaptive_divergence",
    "adaptive_divergence_loss",
    "power",
]
