"""How far a tuned model moved from its base, on text that has nothing to do with the tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Estimate, Result, TestResult
from discrepancy.divergences import Divergence, JensenShannon
from discrepancy.divergences.admission import Admission
from discrepancy.inference import permutation_test, sign_flip_test
from discrepancy.kernel_methods import EnergyDistance
from discrepancy.language_models import logits_of
from discrepancy.methods.audit.records import AuditRecords, Status

ADMITS = Admission(method="next-token drift")


@dataclass(frozen=True, repr=False)
class Drift(Result):
    """The divergence of next-token laws, a number a text (`per_text`, (n,)) and its mean with a normal interval over texts."""

    mean: Estimate
    per_text: Tensor
    divergence: str


def next_token_drift(
    base: nn.Module,
    other: nn.Module,
    texts: Sequence[tuple[Tensor, Tensor]],
    *,
    divergence: Divergence | None = None,
) -> Drift:
    """The mean over a continuation's steps of D(P || Q), P the base's law of the next token (given), Q the other model's.

    `texts`: pairs of tokens (prompt (T,), continuation (n,)), the continuations sampled from the base on benign prompts; both
    models read them (teacher forcing). D: the Jensen-Shannon divergence, or any `Divergence`.
    Raises ValueError for fewer than two texts, an empty prompt or continuation, or vocabularies of different sizes.
    """
    D = ADMITS.check(JensenShannon() if divergence is None else divergence)
    if len(texts) < 2:
        raise ValueError(f"drift needs at least two texts for an interval, got {len(texts)}")
    values = []
    for k, (prompt, continuation) in enumerate(texts):
        if len(prompt) == 0 or len(continuation) == 0:
            raise ValueError(f"text {k} has an empty prompt or continuation: nothing is predicted")
        ids = torch.cat([prompt, continuation])[None]
        with torch.no_grad():
            p, q = (logits_of(m, ids)[0, len(prompt) - 1 : -1] for m in (base, other))
        if p.shape[-1] != q.shape[-1]:
            raise ValueError(f"the base has {p.shape[-1]} tokens and the other {q.shape[-1]}: one vocabulary is needed")
        values.append(D.from_logits(p, q).double().mean())
    found = torch.stack(values)
    mean, error = float(found.mean()), float(found.std() / math.sqrt(len(found)))
    estimate = Estimate(mean, error, mean - 1.959964 * error, mean + 1.959964 * error, 0.95, method=f"mean of {len(found)} texts")
    return Drift(estimate, found, repr(D))


def drift_test(
    drift: Drift, reference: Drift, *, permutations: int = 9999, generator: torch.Generator | None = None
) -> TestResult:
    """Is a drift larger than that of a reference on the same texts?

    A model differs from its base for many reasons: what counts is whether the tuned one moved further than one that only saw
    another seed. One-sided sign flips of the texts' differences.
    Raises ValueError for drifts of different texts' number, or different divergences.
    """
    if drift.per_text.shape != reference.per_text.shape:
        raise ValueError(
            f"both drifts must be of the same texts, got {len(drift.per_text)} and {len(reference.per_text)} of them"
        )
    if drift.divergence != reference.divergence:
        raise ValueError(f"both drifts must be of one divergence, got {drift.divergence} and {reference.divergence}")
    gaps = drift.per_text - reference.per_text
    return sign_flip_test(gaps, one_sided=True, permutations=permutations, generator=generator)


def score_test(
    records: AuditRecords,
    a: str,
    b: str,
    D: Discrepancy | None = None,
    *,
    within: Sequence[str] = ("question", "format"),
    permutations: int = 999,
    generator: torch.Generator | None = None,
) -> TestResult:
    """Do two models' pairs of scores (alignment, coherence) / 100 have one law? A permutation test inside questions and formats.

    D: the energy distance, or any `Discrepancy` of samples in the plane. Sees more than a rate past a cut, such as answers that
    are a little worse everywhere. Raises ValueError for a model without judged answers.
    """
    judged = records.where(records.status == Status.JUDGED)
    _, stratum = judged.keys(within)
    scores = np.stack([judged.alignment, judged.coherence], 1) / 100
    arms = [judged.model == name for name in (a, b)]
    for name, arm in zip((a, b), arms, strict=True):
        if not arm.any():
            raise ValueError(f"model {name!r} has no judged answer, there are {sorted(set(judged.model))}")
    return permutation_test(
        scores[arms[0]],
        scores[arms[1]],
        EnergyDistance() if D is None else D,
        strata=(stratum[arms[0]], stratum[arms[1]]),
        permutations=permutations,
        generator=generator,
    )


__all__ = ["ADMITS", "Drift", "drift_test", "next_token_drift", "score_test"]
