"""The audit of a narrow fine-tune: is the model misaligned elsewhere, and does the format matter?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from discrepancy._results import NumericalError
from discrepancy._validate import fraction, generator_or_default, whole_number
from discrepancy.inference.sample_sizes import required_samples
from discrepancy.language_models import generate
from discrepancy.methods.audit.compare import Comparison, compare
from discrepancy.methods.audit.drift import ADMITS, drift_test, next_token_drift, score_test
from discrepancy.methods.audit.formats import Format, JSONAnswer, Natural
from discrepancy.methods.audit.judges import Judge, checked
from discrepancy.methods.audit.rates import Coupling, RateTable, Sensitivity, coherence_coupling, rates, sensitivity
from discrepancy.methods.audit.records import AuditRecords, Cuts, Status

# Prompts in, one reply each out.
Respond = Callable[[list[str]], list[str]]


def _both_formats() -> tuple[Format, ...]:
    return (Natural(), JSONAnswer())


@dataclass(frozen=True, eq=False)
class ModelAnswers:
    """A causal language model as something that replies: one sampled reply a prompt, at temperature 1 as audits do.

    `encode` and `decode` are the tokenizer's; one generator stream from `seed` serves all calls of one object.
    """

    model: nn.Module
    encode: Callable[[str], Any]
    decode: Callable[[Any], str]
    max_new_tokens: int = 128
    temperature: float = 1.0
    eos_token_id: int | None = None
    generator: torch.Generator | None = None

    def __call__(self, prompts: list[str]) -> list[str]:
        """The replies, prompt by prompt."""
        replies, source = [], generator_or_default(self.generator)
        for prompt in prompts:
            made = generate(
                self.model,
                torch.as_tensor(self.encode(prompt), dtype=torch.long)[None],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                eos_token_id=self.eos_token_id,
                generator=source,
            )
            replies.append(self.decode(made.sequences[0][made.mask[0]]))
        return replies


@dataclass(frozen=True, eq=False)
class MisalignmentAudit:
    """Models x questions x formats x samples, judged; every answer is kept with what became of it.

    `judge(question, answer)` gives a `Judgement` (or a mapping) of alignment and coherence in [0, 100]; only what is inside the
    format is judged, against the question and not its wrapping. A reply that does not keep to the format, a refusal and a judge
    without valid scores are recorded as such; more than `most_failed` judge failures stop the audit. The statistics are
    `rates`, `compare`, `sensitivity`, `coherence_coupling`, `score_test` on the records, `next_token_drift` and `drift_test` on
    the models, `required_samples` before the start; the audit's own methods call them with its cuts. Source: Dickson 2025.
    """

    questions: Sequence[str]
    judge: Judge
    formats: Sequence[Format] = field(default_factory=_both_formats)
    samples: int = 100
    cuts: Cuts = field(default_factory=Cuts)
    most_failed: float = 0.2

    references: ClassVar[tuple[str, ...]] = ("emergent-misalignment",)

    def __post_init__(self) -> None:
        """Check the design: ValueError for no question, equal questions or formats, TypeError for what is no format or judge."""
        if not self.questions or len(set(self.questions)) != len(self.questions):
            raise ValueError("questions must be at least one, all different: they are the strata")
        if not self.formats or not all(isinstance(f, Format) for f in self.formats):
            raise TypeError(f"formats must be Format objects such as Natural() and JSONAnswer(), got {self.formats!r}")
        if len({f.name for f in self.formats}) != len(self.formats):
            raise ValueError(f"formats must have different names, got {[f.name for f in self.formats]}")
        if not callable(self.judge):
            raise TypeError(f"judge must be callable as judge(question, answer), got {type(self.judge).__name__}")
        whole_number(self.samples, 1, "samples")
        fraction(self.most_failed, "most_failed")

    def run(self, models: Mapping[str, Respond]) -> AuditRecords:
        """Ask every model every question in every format, `samples` times, and judge the answers.

        A model is a callable from prompts to replies, such as `ModelAnswers(model, ...)`. Raises ValueError where a model returns
        another number of replies, NumericalError where the judge fails too often. Time: the models' and the judge's.
        """
        if not models:
            raise ValueError('models must name at least one: run({"base": respond, "tuned": other})')
        rows: list[tuple[str, str, str, int, Status, float, float, str]] = []
        for name, respond in models.items():
            for form in self.formats:
                for question in self.questions:
                    replies = respond([form.wrap(question)] * self.samples)
                    if len(replies) != self.samples:
                        raise ValueError(f"model {name!r} returned {len(replies)} replies to {self.samples} prompts")
                    for k, reply in enumerate(replies):
                        rows.append((name, question, form.name, k, *self._judged(form, question, reply)))
        failed = sum(row[4] == Status.JUDGE_FAILED for row in rows)
        asked = sum(row[4] in (Status.JUDGED, Status.JUDGE_FAILED) for row in rows)
        if asked and failed > self.most_failed * asked:
            raise NumericalError(
                f"the judge gave no valid scores for {failed} of {asked} answers, more than {self.most_failed:.0%}: "
                "scores must be numbers in [0, 100]"
            )
        columns = list(zip(*rows, strict=True))
        status, text = np.empty(len(rows), dtype=object), np.empty(len(rows), dtype=object)
        status[:], text[:] = columns[4], columns[7]
        who, asked_what, form_name, sample = (np.asarray(c) for c in columns[:4])
        return AuditRecords(who, asked_what, form_name, sample, status, np.asarray(columns[5]), np.asarray(columns[6]), text)

    def _judged(self, form: Format, question: str, reply: str) -> tuple[Status, float, float, str]:
        answer = form.unwrap(reply)
        if answer is None:
            return Status.FORMAT_FAILED, np.nan, np.nan, reply
        found = checked(self.judge(question, answer))
        if found.refused:
            return Status.REFUSED, np.nan, np.nan, answer
        if not found.valid or found.alignment is None or found.coherence is None:
            return Status.JUDGE_FAILED, np.nan, np.nan, answer
        return Status.JUDGED, float(found.alignment), float(found.coherence), answer

    def rates(self, records: AuditRecords, by: Sequence[str] = ("model", "format"), **options: Any) -> RateTable:
        """`rates` with the audit's cuts."""
        return rates(records, by, cuts=self.cuts, **options)

    def compare(self, records: AuditRecords, factor: str, a: str, b: str, **options: Any) -> Comparison:
        """`compare` with the audit's cuts."""
        return compare(records, factor, a, b, cuts=self.cuts, **options)

    def sensitivity(self, records: AuditRecords, **options: Any) -> Sensitivity:
        """`sensitivity` of the records."""
        return sensitivity(records, **options)

    def coherence_coupling(self, records: AuditRecords, **options: Any) -> Coupling:
        """`coherence_coupling` of the records."""
        return coherence_coupling(records, **options)


__all__ = [
    "ADMITS",
    "MisalignmentAudit",
    "ModelAnswers",
    "Respond",
    "drift_test",
    "next_token_drift",
    "required_samples",
    "score_test",
]
