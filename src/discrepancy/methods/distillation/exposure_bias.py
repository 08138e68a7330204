"""Exposure bias: how much worse a student follows its teacher behind its own prefixes than behind the teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import Estimate, Result
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.divergences import KL, Divergence
from discrepancy.language_models import generate
from discrepancy.methods.distillation.responses import Padded, chosen_log_probs, padded_prompts, response_logits, used_tokens
from discrepancy.methods.distillation.token_divergence import ADMITS, token_values

_KL = KL()


@dataclass(frozen=True, repr=False)
class ExposureBias(Result):
    """Means over sampled sequences with their standard errors, in nats a token.

    `gap` is the divergence behind student prefixes minus that behind teacher prefixes; `accumulation` the ratio of the two,
    summed over positions (1: errors do not compound); `teacher_nll` is -log T of student samples (quality), `student_entropy`
    their -log S (diversity), `coverage` -log S of teacher samples. By position: `on_student`, `on_teacher` (L,) and their
    `counts`.
    """

    gap: Estimate
    accumulation: float
    teacher_nll: Estimate
    student_entropy: Estimate
    coverage: Estimate
    on_student: Tensor
    on_teacher: Tensor
    counts: Tensor = field(repr=False)

    def to_frame(self) -> Any:
        """One row a position: both divergences, the gap, the accumulated ratio, and the number of sequences that reach it."""
        import pandas

        student, teacher = self.on_student.double(), self.on_teacher.double()
        return pandas.DataFrame(
            {
                "position": range(1, len(student) + 1),
                "on student prefixes": student.tolist(),
                "on teacher prefixes": teacher.tolist(),
                "gap": (student - teacher).tolist(),
                "accumulated ratio": (student.cumsum(0) / teacher.cumsum(0)).tolist(),
                "student sequences": self.counts[0].tolist(),
                "teacher sequences": self.counts[1].tolist(),
            }
        )


def exposure_bias(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    divergence: Divergence = _KL,
    *,
    samples: int = 64,
    max_new_tokens: int = 64,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    vocabulary: int | None = None,
    chunk: int = 64,
    generator: torch.Generator | None = None,
) -> ExposureBias:
    """Sample `samples` continuations from each model, prompts in turn, and compare next-token laws behind both kinds of prefix.

    prompts (n, P) or a list of vectors; any `Divergence` with P the teacher, Q the student. Both models are left as they were.
    Errors are those of independent sequences. Time: 2 samples x max_new_tokens steps of generation and two forward passes of each
    model, `chunk` sequences at a time. Raises ValueError for vocabularies that differ.
    """
    ADMITS.check(divergence)
    for name, value in (("samples", samples), ("max_new_tokens", max_new_tokens), ("chunk", chunk)):
        whole_number(value, 2 if name == "samples" else 1, name)
    source = generator_or_default(generator)
    rows = padded_prompts(prompts, pad_token_id if pad_token_id is not None else eos_token_id)
    repeated = rows.rows(torch.arange(samples) % len(rows))
    by_sampler = []
    for sampler in (student, teacher):
        parts = []
        for index in torch.arange(samples).split(chunk):
            own = repeated.rows(index)
            drawn = generate(
                sampler,
                own.ids,
                attention_mask=None if bool(own.mask.all()) else own.mask,
                max_new_tokens=max_new_tokens,
                eos_token_id=eos_token_id,
                pad_token_id=pad_token_id,
                processors=used_tokens(vocabulary),
                generator=source,
            )
            answers, mask = drawn.responses, drawn.mask[:, drawn.prompt_length :]
            parts.append(_compared(student, teacher, own, answers, mask, divergence, vocabulary, max_new_tokens))
        by_sampler.append([torch.cat(group) for group in zip(*parts, strict=True)])
    (d_student, nll_student, entropy, m_student), (d_teacher, _, cover, m_teacher) = by_sampler
    on_student, on_teacher = _by_position(d_student, m_student), _by_position(d_teacher, m_teacher)
    a, b = _mean(d_student, m_student), _mean(d_teacher, m_teacher)
    gap_error = math.hypot(float(a.standard_error or 0), float(b.standard_error or 0))
    reached = (m_student.any(0) & m_teacher.any(0)).long()
    return ExposureBias(
        gap=_interval(float(a) - float(b), gap_error, "difference of two samples of sequences"),
        accumulation=float((on_student * reached).sum() / (on_teacher * reached).sum()),
        teacher_nll=_mean(nll_student, m_student),
        student_entropy=_mean(entropy, m_student),
        coverage=_mean(cover, m_teacher),
        on_student=on_student,
        on_teacher=on_teacher,
        counts=torch.stack([m_student.sum(0), m_teacher.sum(0)]),
    )


@torch.no_grad()
def _compared(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Padded,
    answers: Tensor,
    mask: Tensor,
    divergence: Divergence,
    vocabulary: int | None,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Divergence, -log T, -log S and the mask, (B, width) each, in evaluation mode."""
    modes = student.training, teacher.training
    student.eval()
    teacher.eval()
    try:
        mine, theirs = response_logits(student, prompts, answers), response_logits(teacher, prompts, answers)
    finally:
        student.train(modes[0])
        teacher.train(modes[1])
    found = (
        token_values(mine, theirs, mask, divergence, vocabulary=vocabulary),
        -chosen_log_probs(theirs[..., :vocabulary], answers),
        -chosen_log_probs(mine[..., :vocabulary], answers),
        mask,
    )
    missing = width - answers.shape[1]
    a, b, c, d = (torch.nn.functional.pad(t, (0, missing)) for t in found)
    return a, b, c, d


def _by_position(values: Tensor, mask: Tensor) -> Tensor:
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum(0) / mask.sum(0).clamp_min(1)


def _mean(values: Tensor, mask: Tensor) -> Estimate:
    """The mean over sequences of their mean over tokens."""
    lengths = mask.sum(-1)
    means = torch.where(mask, values, torch.zeros_like(values)).sum(-1)[lengths > 0] / lengths[lengths > 0]
    return _interval(float(means.mean()), float(means.double().std()) / math.sqrt(len(means)), f"mean of {len(means)} sequences")


def _interval(value: float, error: float, method: str) -> Estimate:
    half = 1.959963984540054 * error
    return Estimate(value, error, value - half, value + half, 0.95, method=method)


__all__ = ["ExposureBias", "exposure_bias"]
