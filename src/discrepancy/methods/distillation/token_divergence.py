"""Divergences between a teacher's and a student's next-token laws, position by position, with masks of the response.

P is the teacher, Q the student: the survey's FKL is `KL()`, its RKL `ReverseKL()`, JSD(beta) `gkd_divergence(beta)`, skewed KL
KL(T || a T + (1 - a) S) `KL().skewed(a)`, skewed RKL KL(S || (1 - a) T + a S) `KL().skewed(a).reversed()`, and the ratio-weighted
mixture of both directions `RatioWeightedKL()`. Any other `Divergence` serves as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import positive, whole_number
from discrepancy.divergences import KL, Divergence, FDivergence, JensenShannon, ReverseKL, SkewedJensenShannon
from discrepancy.divergences.admission import Admission
from discrepancy.divergences.truncated import TruncatedLogits, truncated
from discrepancy.language_models import sequence_mean

ADMITS = Admission("on_policy_distillation", kinds=(Divergence,))
Aggregation = Callable[[Tensor, Tensor], Tensor]
_JENSEN_SHANNON = JensenShannon()


class VocabularyWarning(UserWarning):
    """Teacher and student pad one vocabulary to different sizes; the unused entries were cut off."""


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    divergence: Divergence = _JENSEN_SHANNON,
    *,
    temperature: float = 1.0,
    aggregation: Aggregation = sequence_mean,
    top_tokens: int | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """The aggregate over kept positions of D(softmax(teacher / tau) || softmax(student / tau)), a scalar in nats for KL.

    Logits (B, T, V), mask (B, T) boolean: True where a response token is predicted. `aggregation` is `sequence_mean` (a mean
    per sequence, then over the batch), `token_mean` or `sequence_sum`. `top_tokens` = k compares the teacher's k most probable
    tokens and one bin for the rest: a lower bound, by data processing. `vocabulary`, the number of tokens in use, lets models
    that pad it to different sizes be compared. Positions that do not count may hold anything and cost nothing. No gradient
    reaches the teacher, and there is no factor tau^2. Half precision is computed in float32. Raises ValueError for shapes,
    different vocabularies (naming both) and an empty mask. Time O(kept x V).
    """
    values = token_values(
        student_logits,
        teacher_logits,
        mask,
        divergence,
        temperature=temperature,
        top_tokens=top_tokens,
        vocabulary=vocabulary,
    )
    return aggregation(values, mask)


def token_values(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    divergence: Divergence = _JENSEN_SHANNON,
    *,
    temperature: float = 1.0,
    top_tokens: int | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """The divergence at each position (B, T), zero where the mask is False; see `token_divergence`."""
    ADMITS.check(divergence)
    positive(temperature, "temperature")
    student, teacher = matched_vocabularies(student_logits, teacher_logits, vocabulary)
    if student.shape != teacher.shape or student.ndim < 2:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)}: both must be (B, T, V)"
        )
    if mask.dtype != torch.bool or mask.shape != student.shape[:-1]:
        raise ValueError(
            f"mask must be boolean of shape {tuple(student.shape[:-1])}, got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if not bool(mask.any()):
        raise ValueError(f"mask keeps none of the {mask.numel()} positions: every label is masked, so there is nothing to distil")
    teacher = teacher.detach()
    if temperature != 1.0:
        student, teacher = student / temperature, teacher / temperature
    if top_tokens is None or whole_number(top_tokens, 1, "top_tokens") >= teacher.shape[-1]:
        return divergence.from_logits(teacher, student, where=mask)
    found = truncated(divergence, TruncatedLogits.of(teacher[mask], top_tokens), student[mask])
    return found.new_zeros(mask.shape).masked_scatter(mask, found)


def matched_vocabularies(student_logits: Tensor, teacher_logits: Tensor, vocabulary: int | None) -> tuple[Tensor, Tensor]:
    """Both logits on one vocabulary: as they are where sizes agree, cut to `vocabulary` where they pad it differently.

    Raises ValueError naming both sizes where they differ and `vocabulary` does not say that the surplus is unused.
    """
    mine, theirs = student_logits.shape[-1], teacher_logits.shape[-1]
    if mine == theirs:
        return student_logits, teacher_logits
    if vocabulary is None:
        raise ValueError(
            f"the student has a vocabulary of {mine} and the teacher one of {theirs}. If both pad one tokenizer's vocabulary, "
            "pass vocabulary=len(tokenizer); if the tokenizers differ, token laws cannot be compared: use Outcome(reward)"
        )
    whole_number(vocabulary, 1, "vocabulary")
    if vocabulary > min(mine, theirs):
        raise ValueError(
            f"the student has a vocabulary of {mine}, the teacher one of {theirs}, and vocabulary = {vocabulary} tokens are in "
            "use: the smaller lacks some of them, so that the two do not share a tokenizer"
        )
    warnings.warn(
        f"the student's {mine} and the teacher's {theirs} logits are cut to the {vocabulary} tokens in use",
        VocabularyWarning,
        stacklevel=4,
    )
    return student_logits[..., :vocabulary], teacher_logits[..., :vocabulary]


class TokenDivergence(nn.Module):
    """`token_divergence` as a module: forward(student_logits, teacher_logits, mask) -> scalar."""

    references = ("on-policy-distillation",)

    def __init__(
        self,
        divergence: Divergence = _JENSEN_SHANNON,
        *,
        temperature: float = 1.0,
        aggregation: Aggregation = sequence_mean,
        top_tokens: int | None = None,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        self.divergence = ADMITS.check(divergence)
        self.temperature = positive(temperature, "temperature")
        self.aggregation, self.top_tokens, self.vocabulary = aggregation, top_tokens, vocabulary

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        """The scalar."""
        return token_divergence(
            student_logits,
            teacher_logits,
            mask,
            self.divergence,
            temperature=self.temperature,
            aggregation=self.aggregation,
            top_tokens=self.top_tokens,
            vocabulary=self.vocabulary,
        )


def gkd_divergence(beta: float, *, rescaled: bool = False) -> FDivergence:
    """JSD(beta) of generalised knowledge distillation: beta KL(T || M) + (1 - beta) KL(S || M), M = beta T + (1 - beta) S.

    The formula tends to zero at both ends, where by convention (Agarwal et al., 2024, 2306.13649, and TRL) beta = 0 is KL(T || S)
    and beta = 1 is KL(S || T). `rescaled` divides by beta (1 - beta), which connects the ends continuously.
    Raises ValueError for beta outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1], got {beta!r}")
    if beta == 0:
        return KL()
    if beta == 1:
        return ReverseKL()
    mixture = SkewedJensenShannon(float(beta))
    return (1 / (beta * (1 - beta))) * mixture if rescaled else mixture


@dataclass(frozen=True)
class RatioWeightedKL(Divergence):
    """sum_v w_v T log(T / S) + (1 - w_v) S log(S / T), w_v = T / (T + S) held fixed: each token gets the direction that hurts.

    Its value is exactly that of Jeffreys (w t log t - (1 - w) log t = (t - 1) log t at w = t / (1 + t)); only its gradient
    differs, since the weights carry none. Where the student is too low the term is forward KL's, where too high reverse KL's.
    Source: Jung, Yoon, Kim and Lee (2025, 2505.16297).
    """

    references = ("jung-2025",)

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        return self._from_logits(
            torch.where(p > 0, torch.log(torch.where(p > 0, p, torch.ones_like(p))), -torch.inf),
            torch.where(q > 0, torch.log(torch.where(q > 0, q, torch.ones_like(q))), -torch.inf),
        )

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        nowhere_p, nowhere_q = log_p == -torch.inf, log_q == -torch.inf
        infinite = (nowhere_p != nowhere_q).any(-1, keepdim=True)
        flat = infinite | (nowhere_p & nowhere_q)
        # Rows of infinite value, and categories that neither law has, are evaluated at equality: no gradient, no NaN.
        u, v = torch.where(flat, torch.zeros_like(log_p), log_p), torch.where(flat, torch.zeros_like(log_q), log_q)
        weight = torch.sigmoid((u - v).detach())
        terms = weight * torch.exp(u) * (u - v) + (1 - weight) * torch.exp(v) * (v - u)
        value = torch.where(flat, torch.zeros_like(terms), terms).sum(-1)
        return torch.where(infinite.squeeze(-1), torch.full_like(value, torch.inf), value)

    def reversed(self) -> Divergence:
        """Itself: exchanging the laws exchanges the weights."""
        return self


__all__ = [
    "ADMITS",
    "RatioWeightedKL",
    "TokenDivergence",
    "VocabularyWarning",
    "gkd_divergence",
    "matched_vocabularies",
    "token_divergence",
    "token_values",
]
