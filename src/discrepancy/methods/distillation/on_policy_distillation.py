"""On-policy distillation: the student learns from what the teacher says behind the student's own prefixes.

L = E_x E_{y ~ mix} (1 / |y|) sum_t D(T(. | x, y_<t) || S(. | x, y_<t)), with P the teacher T and Q the student S. With
probability `on_policy` (the survey's lambda) a batch holds student samples, else data or teacher samples. D is any
`Divergence`: JSD(beta) of generalised knowledge distillation is `gkd_divergence(beta)`, DistiLLM's skewed KL
`KL().skewed(0.1)`. `SequenceLevel()` adds the effect of tokens on later prefixes (MiniLLM for reverse KL), `Outcome(reward)`
replaces the teacher's law by rewards.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import at_least, generator_or_default, positive, whole_number
from discrepancy.divergences import Divergence, JensenShannon
from discrepancy.language_models import generate, logits_of, sequence_mean
from discrepancy.learning import Training
from discrepancy.methods.distillation.mixture_model import MixtureModel
from discrepancy.methods.distillation.prefix_gradient import (
    Level,
    Outcome,
    SequenceLevel,
    TokenLevel,
    accumulated_divergence_loss,
    outcome_loss,
)
from discrepancy.methods.distillation.responses import (
    Padded,
    chosen_log_probs,
    padded_prompts,
    padded_responses,
    response_logits,
    used_tokens,
)
from discrepancy.methods.distillation.teacher_cache import TeacherCache
from discrepancy.methods.distillation.token_divergence import ADMITS, Aggregation, matched_vocabularies, token_values

Tokens = Tensor | Sequence[Tensor]


@dataclass(frozen=True, repr=False)
class OnPolicyResult(Result):
    """A trained student: the last loss, the steps, how many of them used student samples, the record and the student."""

    loss: float
    steps: int
    on_policy_steps: int
    history: Mapping[str, list[float]] = field(repr=False)
    student: nn.Module = field(repr=False)


@dataclass(frozen=True)
class OnPolicyDistillation:
    """The trainer of the white-box family: which prefixes, which divergence, which granularity.

    `divergence` any `Divergence` (P teacher, Q student); `on_policy` in [0, 1] the probability of a batch of student samples,
    drawn at temperature 1 in evaluation mode, without gradient through sampling; `level` is `TokenLevel()`,
    `SequenceLevel(...)` or `Outcome(reward)`; `temperature` divides both logits in the loss; `top_tokens`, `vocabulary` and
    `aggregation` as in `token_divergence`. `cache` GiB hold the teacher's logits of data responses between epochs. A student
    should have been warmed up on data: its early samples are garbage. Raises ValueError and TypeError for options out of range.
    """

    divergence: Divergence = field(default_factory=JensenShannon)
    on_policy: float = 0.5
    level: Level = field(default_factory=TokenLevel)
    training: Training = field(default_factory=lambda: Training(steps=200, learning_rate=1e-4, warm_up=10, gradient_clip=1.0))
    batch: int = 16
    max_new_tokens: int = 128
    temperature: float = 1.0
    aggregation: Aggregation = sequence_mean
    top_tokens: int | None = None
    vocabulary: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    cache: float = 0.0

    references = ("on-policy-distillation", "agarwal-2024")

    def __post_init__(self) -> None:
        ADMITS.check(self.divergence)
        if not 0 <= self.on_policy <= 1:
            raise ValueError(f"on_policy must lie in [0, 1], got {self.on_policy!r}")
        if not isinstance(self.level, TokenLevel | SequenceLevel | Outcome):
            raise TypeError(f"level must be TokenLevel(), SequenceLevel() or Outcome(reward), got {self.level!r}")
        if isinstance(self.level, Outcome) and self.on_policy != 1:
            raise ValueError(f"rewards are of the student's own samples: Outcome needs on_policy=1, got {self.on_policy!r}")
        whole_number(self.batch, 1, "batch")
        whole_number(self.max_new_tokens, 1, "max_new_tokens")
        positive(self.temperature, "temperature")
        at_least(self.cache, 0.0, "cache")
        for name in ("top_tokens", "vocabulary"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), 1, name)

    def train(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        prompts: Tokens,
        responses: Tokens | None = None,
        *,
        teacher_prompts: Tokens | None = None,
        generator: torch.Generator | None = None,
    ) -> OnPolicyResult:
        """Train the student in place; models are anything `language_models.logits_of` takes, sharing a vocabulary.

        prompts (n, P) or a list of vectors (padded on the left); responses (n, R) or a list are the off-policy data, and without
        them the teacher samples (sequence-level distillation). `teacher_prompts` (n, P') give the teacher another context, such
        as privileged information: self-distillation. Raises ValueError for vocabularies that differ (naming both), lengths that
        differ and missing pad tokens, TypeError for a missing teacher; warns where the teacher is in training mode, and puts it
        into evaluation mode.
        """
        data = _Data.of(self, prompts, responses, teacher_prompts)
        self._check_models(student, teacher, data)
        source = generator_or_default(generator, data.prompts.ids.device)
        cache = TeacherCache(self.cache)
        drawn_on_policy = 0
        order: list[Tensor] = []

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            nonlocal drawn_on_policy
            if not order:
                order.extend(reversed(torch.randperm(len(data.prompts), generator=source).split(self.batch)))
            rows = order.pop()
            own = self.on_policy > 0 and float(torch.rand((), generator=source)) < self.on_policy
            drawn_on_policy += own
            loss, length = (
                self._own(student, teacher, data, rows, source)
                if own
                else (self._given(student, teacher, data, rows, source, cache))
            )
            return loss, {"on-policy": float(own), "length": length}

        mode = student.training
        # Scores of one's own samples must be those of the law that was sampled: no dropout there.
        student.train(isinstance(self.level, TokenLevel))
        try:
            history = self.training.run([w for w in student.parameters() if w.requires_grad], step)
        finally:
            student.train(mode)
        return OnPolicyResult(history["loss"][-1], self.training.steps, drawn_on_policy, history, student)

    def _check_models(self, student: nn.Module, teacher: nn.Module | None, data: _Data) -> None:
        if teacher is None:
            if not isinstance(self.level, Outcome):
                raise TypeError("teacher is None: only Outcome(reward) does without one")
            return
        if teacher is student and data.teacher_prompts is None:
            raise ValueError("teacher and student are the same module: give teacher_prompts (self-distillation) or a copy")
        if teacher is student and self.cache > 0:
            raise ValueError("the teacher is the student and changes with it: its logits cannot be cached, use cache=0")
        if teacher is not student and teacher.training:
            warnings.warn("the teacher was in training mode: it is put into evaluation mode", UserWarning, stacklevel=3)
            teacher.eval()
        first = torch.zeros(1, dtype=torch.long)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine = logits_of(student, data.prompts.rows(first).ids)
            theirs = logits_of(teacher, data.for_teacher.rows(first).ids)
            matched_vocabularies(mine[:, -1], theirs[:, -1], self.vocabulary)

    def _own(
        self, student: nn.Module, teacher: nn.Module | None, data: _Data, rows: Tensor, source: torch.Generator
    ) -> tuple[Tensor, float]:
        prompts = data.prompts.rows(rows)
        level = self.level
        sampler, mixed = student, None
        if isinstance(level, SequenceLevel) and level.teacher_share > 0 and teacher is not None:
            sampler = mixed = MixtureModel(teacher, student, level.teacher_share)
        with torch.no_grad():
            drawn = generate(
                sampler,
                prompts.ids,
                attention_mask=None if bool(prompts.mask.all()) else prompts.mask,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=self.eos_token_id,
                pad_token_id=self.pad_token_id,
                processors=used_tokens(self.vocabulary),
                generator=source,
            )
        answers = drawn.responses
        mask = drawn.mask[:, drawn.prompt_length :]
        length = float(mask.sum(-1).double().mean())
        student_logits = response_logits(student, prompts, answers)
        if isinstance(level, Outcome):
            rewards = torch.as_tensor(level.reward(answers, mask))
            log_s = chosen_log_probs(student_logits[..., : self.vocabulary], answers)
            return outcome_loss(rewards, log_s, mask, gamma=level.gamma, position_baseline=level.position_baseline), length
        assert teacher is not None
        teacher_logits = self._teacher_logits(teacher, data.for_teacher.rows(rows), answers)
        values = self._values(student_logits, teacher_logits, mask)
        if isinstance(level, TokenLevel):
            return self.aggregation(values, mask), length
        log_s = chosen_log_probs(student_logits[..., : self.vocabulary], answers)
        behaviour = (
            None
            if mixed is None
            else chosen_log_probs(mixed.mixed(teacher_logits, student_logits.detach())[..., : self.vocabulary], answers)
        )
        return accumulated_divergence_loss(values, log_s, mask, level, behaviour_log_probs=behaviour), length

    def _given(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        data: _Data,
        rows: Tensor,
        source: torch.Generator,
        cache: TeacherCache,
    ) -> tuple[Tensor, float]:
        assert teacher is not None
        prompts, for_teacher = data.prompts.rows(rows), data.for_teacher.rows(rows)
        if data.responses is not None:
            given = data.responses.rows(rows)
            answers, mask = given.ids, given.mask
            fixed = data.responses

            def compute(missing: Tensor) -> Tensor:
                return self._teacher_logits(teacher, data.for_teacher.rows(missing), fixed.rows(missing).ids)

            teacher_logits = cache.get(rows, compute)
        else:
            drawn = generate(
                teacher,
                for_teacher.ids,
                attention_mask=None if bool(for_teacher.mask.all()) else for_teacher.mask,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=self.eos_token_id,
                pad_token_id=self.pad_token_id,
                processors=used_tokens(self.vocabulary),
                generator=source,
            )
            answers, mask = drawn.responses, drawn.mask[:, drawn.prompt_length :]
            teacher_logits = self._teacher_logits(teacher, for_teacher, answers)
        values = self._values(response_logits(student, prompts, answers), teacher_logits, mask)
        return self.aggregation(values, mask), float(mask.sum(-1).double().mean())

    @torch.no_grad()
    def _teacher_logits(self, teacher: nn.Module, prompts: Padded, answers: Tensor) -> Tensor:
        """The teacher's, in evaluation mode even where it is the student itself with another context."""
        mode = teacher.training
        teacher.eval()
        try:
            return response_logits(teacher, prompts, answers)
        finally:
            teacher.train(mode)

    def _values(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        return token_values(
            student_logits,
            teacher_logits,
            mask,
            self.divergence,
            temperature=self.temperature,
            top_tokens=self.top_tokens,
            vocabulary=self.vocabulary,
        )


@dataclass(frozen=True)
class _Data:
    """Prompts, data responses if there are any, and the teacher's own prompts where they differ."""

    prompts: Padded
    responses: Padded | None
    teacher_prompts: Padded | None

    @classmethod
    def of(cls, method: OnPolicyDistillation, prompts: Tokens, responses: Tokens | None, teacher_prompts: Tokens | None) -> _Data:
        pad = method.pad_token_id if method.pad_token_id is not None else method.eos_token_id
        own = padded_prompts(prompts, pad)
        given = None if responses is None else padded_responses(responses, pad, method.eos_token_id)
        other = None if teacher_prompts is None else padded_prompts(teacher_prompts, pad, "teacher_prompts")
        for name, rows in (("responses", given), ("teacher_prompts", other)):
            if rows is not None and len(rows) != len(own):
                raise ValueError(f"there are {len(own)} prompts and {len(rows)} {name}: one for each")
        return cls(own, given, other)

    @property
    def for_teacher(self) -> Padded:
        """The prompts that the teacher sees."""
        return self.prompts if self.teacher_prompts is None else self.teacher_prompts


__all__ = ["ADMITS", "OnPolicyDistillation", "OnPolicyResult"]
