"""Wasserstein contrastive representation distillation: features that share information with the teacher's, sample by sample."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Estimate, Result
from discrepancy._validate import at_least, fraction, generator_or_default, paired_rows, positive
from discrepancy.costs import Cosine
from discrepancy.learning import Training
from discrepancy.methods.distillation.contrastive import (
    ContrastiveForm,
    MemoryBank,
    NoiseContrastive,
    batch_negatives,
    require_negatives,
)
from discrepancy.methods.distillation.feature_matching import feature_pair
from discrepancy.networks import SpectralLinear
from discrepancy.transport import InexactProximal

_FORM = NoiseContrastive()
# Steps relative to the mean cost: embeddings that agree would make an absolute one as long as it is vain.
_LOCAL = InexactProximal(cost=Cosine(), tolerance=0.05)


class LipschitzHead(nn.Module):
    """A `SpectralLinear` and then the unit sphere, h / |h|, or with `ball` the unit ball, h / max(1, |h|).

    The ball is 1-Lipschitz everywhere; the sphere is not near h = 0. Inner products of two heads lie in [-1, 1]. Features are
    taken into the head's dtype, so that half precision is raised. Raises ValueError for features of another width.
    """

    def __init__(self, inputs: int, width: int, *, ball: bool = False, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.linear, self.ball = SpectralLinear(inputs, width, generator=generator), ball

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, width) of features (b, inputs)."""
        if x.shape[-1] != self.linear.weight.shape[1]:
            raise ValueError(f"the head was made for {self.linear.weight.shape[1]} features, got {x.shape[-1]}")
        h = self.linear(x.to(self.linear.weight.dtype))
        square = h.square().sum(-1, keepdim=True)
        outside = square > (1.0 if self.ball else 0.0)
        return h / torch.where(outside, square, torch.ones_like(square)).sqrt()


@dataclass(frozen=True, repr=False)
class WCoRDTerms(Result):
    """One batch: the weighted `loss`, and its parts unweighted: the `contrast` (global) and the transport cost (`local`)."""

    loss: Tensor
    contrast: Tensor
    local: Tensor


class WCoRD(nn.Module):
    """global_weight contrast + local_weight D(teacher embeddings, student embeddings), to be added to the task's loss.

    Both features go through a head of their own (a linear layer of spectral norm one, then the unit sphere); the score of a pair
    is <g_T(h_T), g_S(h_S)> / temperature, (1 / temperature)-Lipschitz in the head's outputs before the sphere.
    contrast: `NoiseContrastive()` (default: bounded), `DualForm()`, whose minimum is minus a Wasserstein dependency of the two
    features, or `InfoNCE()`. local: any `Discrepancy` between the two sets of embeddings; the default is the transport cost
    under 1 - cosine by inexact proximal steps. It compares sets: permuting the teacher's rows leaves it unchanged, so it needs
    the contrast, or a task, beside it.

    Negatives: the other samples of the batch (`negatives` of them, None: all); or with a bank, `negatives` (None: 4096 or all)
    random entries, the teacher's against student anchors and the reverse, the loss being the mean of the two; the bank is
    updated at every call in training mode. With labels and `supervised_negatives` samples of the same class are none.

    The heads are trained with the student and thrown away: give `parameters()` to the optimiser (a warning says so if they have
    not moved after two backward passes). The teacher gets no gradient. Time b^2 width (b M width with a bank) and that of D.
    Raises as `feature_pair`; ValueError for a batch of one without bank, an index missing with a bank or labels missing with
    supervised_negatives, more negatives than there are; TypeError for what is no form, no discrepancy or no bank.
    Source: Chen, Wang, Gan, Liu, Henao and Carin (2021, 2012.08674); Tian, Krishnan and Isola (2020) for the bank.
    """

    references: ClassVar[tuple[str, ...]] = ("wcord", "tian-2020", "xie-2020")

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        *,
        width: int = 128,
        form: ContrastiveForm = _FORM,
        local: Discrepancy = _LOCAL,
        temperature: float = 0.1,
        global_weight: float = 0.8,
        local_weight: float = 0.05,
        bank: MemoryBank | None = None,
        negatives: int | None = None,
        supervised_negatives: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(form, ContrastiveForm):
            raise TypeError(f"form must be NoiseContrastive(), DualForm() or InfoNCE(), got {form!r}")
        if not isinstance(local, Discrepancy):
            raise TypeError(f"local must be a Discrepancy such as SinkhornDivergence(), got {local!r}")
        if bank is not None and (not isinstance(bank, MemoryBank) or bank.width != width):
            raise TypeError(f"bank must be a MemoryBank of width {width}, got {getattr(bank, 'width', bank)!r}")
        self.form, self.local, self.bank, self.negatives = form, local, bank, negatives
        self.temperature = positive(temperature, "temperature")
        self.global_weight = at_least(global_weight, 0, "global_weight")
        self.local_weight = at_least(local_weight, 0, "local_weight")
        self.supervised_negatives = supervised_negatives
        if bank is not None and negatives is not None and negatives > bank.size - 1:
            raise ValueError(f"negatives must be at most size - 1 = {bank.size - 1} of the memory bank, got {negatives}")
        source = generator_or_default(generator)
        self.student_head = LipschitzHead(student_width, width, generator=source)
        self.teacher_head = LipschitzHead(teacher_width, width, generator=source)
        self._seen: int | None = None
        self._idle, self._backward = 0, False
        self.student_head.linear.weight.register_post_accumulate_grad_hook(self._noted)

    def _noted(self, _: Tensor) -> None:
        self._backward = True

    def _watch(self) -> None:
        """Warn once if two backward passes went by and no optimiser moved the heads."""
        version = self.student_head.linear.weight._version
        if self._backward:
            self._idle = self._idle + 1 if version == self._seen else -(10**9)
            if self._idle == 2:
                warnings.warn(
                    "the heads of WCoRD have gradients and do not move: add loss.parameters() to the optimiser",
                    UserWarning,
                    stacklevel=4,
                )
        self._seen, self._backward = version, False

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of features (b, d_S), (b, d_T) of the same samples, of numbers index (b,) and classes labels (b,)."""
        return self.terms(student, teacher, index, labels, generator=generator).loss

    def terms(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> WCoRDTerms:
        """The loss with its parts; a part of weight zero is not computed and 0."""
        if isinstance(teacher, Tensor) and teacher.requires_grad:
            warnings.warn(
                "teacher features require a gradient: they are detached, the teacher is not trained", UserWarning, stacklevel=3
            )
        student, teacher = feature_pair(student, teacher)
        if self.supervised_negatives and labels is None:
            raise ValueError("labels are missing: supervised_negatives=True leaves out samples of the same class")
        if self.bank is not None and index is None:
            raise ValueError("index is missing: a memory bank needs the number of each sample")
        if self.training and torch.is_grad_enabled():
            self._watch()
        u, v = self.student_head(student), self.teacher_head(teacher)
        nothing = u.new_zeros(())
        contrast = self._contrast(u, v, index, labels, generator) if self.global_weight else nothing
        local = self.local(v, u, generator=generator) if self.local_weight else nothing
        return WCoRDTerms(self.global_weight * contrast + self.local_weight * local, contrast.detach(), local.detach())

    def _contrast(
        self, u: Tensor, v: Tensor, index: Tensor | None, labels: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        known = labels if self.supervised_negatives else None
        own = (u * v).sum(-1) / self.temperature
        if self.bank is None:
            kept = batch_negatives(len(u), self.negatives, known, generator=generator).to(u.device)
            return self.form.loss(own, v @ u.mT / self.temperature, kept)
        bank = self.bank
        assert index is not None
        rows = bank.draw(index, min(4096, bank.size - 1) if self.negatives is None else self.negatives, generator=generator)
        kept = torch.ones_like(rows, dtype=torch.bool)
        if known is not None:
            kept = bank.classes[rows] != known[:, None]  # an entry of unknown class, -1, may be a negative
            require_negatives(kept)
        sides = []
        for anchor, entries in ((u, bank.teacher), (v, bank.student)):
            scores = _scores(anchor, entries.to(anchor.dtype), rows) / self.temperature
            sides.append(self.form.loss(own, scores, kept))
        if self.training:
            bank.update(index, u.detach(), v.detach(), labels)
        return (sides[0] + sides[1]) / 2


def _scores(anchor: Tensor, entries: Tensor, rows: Tensor) -> Tensor:
    """<anchor_i, entries_r> for the rows r (b, M) of each anchor, by whichever way takes less memory."""
    if len(entries) <= rows.shape[1] * anchor.shape[1]:
        # A copy: the bank is moved in place before the backward pass.
        return (anchor @ entries.clone().mT).gather(1, rows)
    return torch.einsum("bw,bmw->bm", anchor, entries[rows])


_TRAINING = Training(steps=500, learning_rate=1e-2)


def dual_dependency(
    x: Any,
    y: Any,
    *,
    width: int = 64,
    training: Training = _TRAINING,
    held_out: float = 0.5,
    generator: torch.Generator | None = None,
) -> Estimate:
    """A lower bound of the Wasserstein dependency of x and y: the dual of W_1 with a trained critic, on rows it has not seen.

    The critic is <g(x), h(y)> of two heads into the unit ball, 1-Lipschitz under |x - x'| + |y - y'|. Its mean over the joint law
    minus that over the product is the trace of the cross-covariance of the embeddings, and at most W_1 between the two. Trained
    on a share 1 - held_out of the rows, evaluated without bias on the others: its expectation is zero under independence, and
    never above the dependency. x (n, d1), y (n, d2) paired; in units of the data. The standard error is that over held-out rows.
    Time training.steps n (d1 + d2) width. Raises ValueError for rows that are not paired or fewer than 8.
    Source: Ozair, Lynch, Bengio, van den Oord, Levine and Sermanet (2019, 1903.11780).
    """
    left, right, _ = paired_rows(x, y)
    if left.ndim != 2 or left.shape[0] < 8:
        raise ValueError(f"x and y must be single samples (n, d) of at least 8 paired rows, got shape {tuple(left.shape)}")
    fraction(held_out, "held_out")
    source = generator_or_default(generator)
    left, right = left.detach(), right.detach()
    order = torch.randperm(len(left), generator=source).to(left.device)
    cut = min(len(order) - 2, max(2, round(len(order) * (1 - held_out))))
    heads = nn.ModuleList(LipschitzHead(t.shape[1], width, ball=True, generator=source).to(t) for t in (left, right))

    def products(rows: Tensor) -> Tensor:
        u, v = heads[0](left[rows]), heads[1](right[rows])
        return ((u - u.mean(0)) * (v - v.mean(0))).sum(-1) * (len(rows) / (len(rows) - 1))

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return -products(order[:cut]).mean(), {}

    training.run(heads.parameters(), step)
    heads.eval()
    for head in heads:
        head.linear.settle()  # type: ignore[union-attr]  # the bound is one for a Lipschitz constant of one
    with torch.no_grad():
        values = products(order[cut:])
    error = float(values.std() / math.sqrt(len(values)))
    return Estimate(
        float(values.mean()), error, method=f"dual of W_1 with linear heads of width {width}, {len(values)} held-out rows"
    )


__all__ = ["LipschitzHead", "WCoRD", "WCoRDTerms", "dual_dependency"]
