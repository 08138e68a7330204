"""Diver: where the next token is ambiguous, grow the candidates into spans and keep the one that explains the input best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError, Result
from discrepancy._validate import at_least, generator_or_default, whole_number
from discrepancy.methods.decoding.cached_model import CausalState, Cost, require_causal
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.spans import RightRisk, SpanRule, require_rule
from discrepancy.methods.decoding.text import decode, encode
from discrepancy.methods.decoding.verification import (
    BackwardTemplate,
    PointwiseMutualInformation,
    Scores,
    Verifier,
)

# (x, prefix, spans) -> scores (k,)
PlainVerifier = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]


def first_token(log_likelihoods: Sequence[Tensor]) -> Tensor:
    """The log-probability of each span's first token: spans of different lengths compare."""
    return torch.stack([span[0] for span in log_likelihoods])


def span_mean(log_likelihoods: Sequence[Tensor]) -> Tensor:
    """The mean log-probability of each span's tokens (our extension): the sum would favour short spans."""
    return torch.stack([span.mean() for span in log_likelihoods])


def _default_candidates() -> PlausibleSet:
    return PlausibleSet(0.3, most=4)


@dataclass(frozen=True)
class Diver:
    """The method's choices. At a step with several plausible tokens v_i, spans s_i that begin with them are grown greedily, and
    the largest likelihood_i + w PMI(x; s_i | y_<t) is appended whole.

    `candidates`: the plausible set of the next token, {p >= alpha max p} cut to the most probable; `span`: how far spans grow;
    `pmi_weight` = w; `likelihood`: `first_token` (the paper's log p(v_i | x, y_<t)) or `span_mean`; `temperature` 0 takes the
    best, and otherwise a span is drawn from softmax(score / temperature). With w = 0 and temperature 0 this is greedy decoding,
    token by token. alpha = 0.3, four candidates, w = 1 and spans of at most 16 are our choices. Source: Lu, Wang and Zhang 2024.
    """

    candidates: PlausibleSet = field(default_factory=_default_candidates)
    span: SpanRule = field(default_factory=RightRisk)
    pmi_weight: float = 1.0
    likelihood: Callable[[Sequence[Tensor]], Tensor] = first_token
    temperature: float = 0.0

    references: ClassVar[tuple[str, ...]] = ("diver-decoding",)

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.candidates, PlausibleSet):
            raise TypeError(f"candidates must be a PlausibleSet such as PlausibleSet(0.3, most=4), got {self.candidates!r}")
        require_rule(self.span)
        at_least(self.pmi_weight, 0.0, "pmi_weight")
        at_least(self.temperature, 0.0, "temperature")


@dataclass(frozen=True, repr=False)
class DivergenceStep(Result):
    """One choice between spans: where it was made, the candidates' first tokens, their likelihoods and verification scores (empty
    with weight 0), the spans, and which was taken."""

    position: int
    tokens: tuple[int, ...]
    log_likelihoods: tuple[float, ...]
    scores: tuple[float, ...]
    spans: tuple[tuple[int, ...], ...]
    choice: int


@dataclass(frozen=True, repr=False)
class DiverResult(Result):
    """The output tokens of one input, and how they came about.

    `tokens` (n,) with the end token where it was reached, `text` where a tokenizer was given; `steps`: the divergence steps;
    `decisions`: steps in all, plain ones and divergence steps; `forward_tokens`, `verifier_tokens`: tokens that the two models
    read; `cost`: both over what greedy decoding reads.
    """

    tokens: Tensor
    steps: tuple[DivergenceStep, ...]
    decisions: int
    forward_tokens: int
    verifier_tokens: int
    cost: float
    text: str | None = None

    @property
    def divergence_share(self) -> float:
        """The share of decisions that were divergence steps."""
        return len(self.steps) / self.decisions if self.decisions else 0.0


def diver_decoding(
    model: nn.Module,
    prompt_ids: Tensor,
    *,
    verifier: Verifier | PlainVerifier,
    settings: Diver | None = None,
    x_ids: Tensor | None = None,
    max_new_tokens: int,
    eos_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> DiverResult:
    """Continue one prompt (T,) by span-level verification against the input `x_ids` (n,), by default the prompt itself.

    `verifier` is `PointwiseMutualInformation(model, template)` for any causal model with the same tokens, another `Verifier`, or
    a callable (x, prefix, spans) -> scores (k,). One sequence at a time: loop over a batch. Time: a divergence step reads k spans
    forward and k + 1 times span, template and input backward. Memory: k copies of the caches.
    Raises ValueError for an empty prompt or input, or a verifier whose vocabulary has another size, NumericalError where a score
    is NaN.
    """
    settings = Diver() if settings is None else settings
    require_causal(model)
    whole_number(max_new_tokens, 1, "max_new_tokens")
    x = prompt_ids if x_ids is None else x_ids
    for name, ids in (("prompt_ids", prompt_ids), ("x_ids", x)):
        if ids.ndim != 1 or len(ids) == 0:
            raise ValueError(
                f"{name} must be token indices (n,) with at least one token, got shape {tuple(ids.shape)}: loop over a batch"
            )
    _require_one_vocabulary(model, verifier)
    scores, verifier_cost = verifier.begin(x) if isinstance(verifier, Verifier) else (_bound(verifier, x), Cost())
    generator = generator_or_default(generator, prompt_ids.device)
    state = CausalState(model, prompt_ids[None])
    written, steps, decisions = prompt_ids[:0], [], 0
    while len(written) < max_new_tokens:
        law = state.log_probs[0]
        tokens = settings.candidates.tokens(law)
        decisions += 1
        room = max_new_tokens - len(written)
        if len(tokens) == 1:
            chosen, branch = tokens, state
        else:
            branch, spans, likelihoods = _grown(state, tokens, settings, room, eos_token_id)
            step = _verified(written, spans, likelihoods, scores, settings, eos_token_id, generator)
            steps.append(step)
            chosen = spans[step.choice]
        written = torch.cat([written, chosen])
        if eos_token_id is not None and int(chosen[-1]) == eos_token_id:
            break
        if len(written) < max_new_tokens:
            if branch is state:
                state.feed(chosen[None], keep=1)
            else:
                branch.select(torch.tensor([steps[-1].choice], device=written.device))
                state = branch
    greedy = len(prompt_ids) + len(written) - 1
    cost = (state.cost.tokens + verifier_cost.tokens) / greedy
    return DiverResult(written, tuple(steps), decisions, state.cost.tokens, verifier_cost.tokens, cost)


def _bound(verifier: PlainVerifier, x: Tensor) -> Scores:
    if not callable(verifier):
        raise TypeError(
            f"verifier must be a PointwiseMutualInformation(model, template) or a callable (x, prefix, spans) -> scores, "
            f"got {type(verifier).__name__}"
        )
    return lambda prefix, spans: verifier(x, prefix, spans)


def _require_one_vocabulary(model: nn.Module, verifier: Any) -> None:
    if not isinstance(verifier, PointwiseMutualInformation):
        return
    sizes = [getattr(getattr(m, "config", None), "vocab_size", None) for m in (model, verifier.model)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ValueError(
            f"the model has {sizes[0]} tokens and the verifier {sizes[1]}: their tokens differ, "
            "use TextMutualInformation with both tokenizers"
        )


def _grown(
    state: CausalState, tokens: Tensor, settings: Diver, room: int, eos: int | None
) -> tuple[CausalState, list[Tensor], list[Tensor]]:
    """The candidates continued greedily in one batch: the state behind them, the spans (cut behind an end), and their tokens'
    log-probabilities."""
    branch, k = state.fork(len(tokens)), len(tokens)
    columns, values = [tokens], [state.log_probs[0][tokens]]
    end = -1 if eos is None else eos
    alive = tokens != end
    ever = torch.zeros_like(alive)
    limit = min(settings.span.longest, room)
    while True:
        if len(columns) < room:  # behind the last token that fits nothing is asked any more
            branch.feed(columns[-1][:, None], keep=1)
        if len(columns) >= limit or not bool(alive.any()):
            break
        law = branch.log_probs
        at_risk = settings.candidates.mask(law).sum(-1) > 1
        ever = ever | at_risk
        if settings.span.stops(len(columns), at_risk, ever, alive):
            break
        following = torch.where(alive, law.argmax(-1), torch.full_like(tokens, max(end, 0)))
        columns.append(following)
        values.append(law[torch.arange(k, device=law.device), following])
        alive = alive & (following != end)
    rows, likelihoods = torch.stack(columns, 1), torch.stack(values, 1).double()
    lengths = [int((row == end).nonzero()[0]) + 1 if bool((row == end).any()) else len(row) for row in rows]
    spans = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    return branch, spans, [v[:n] for v, n in zip(likelihoods, lengths, strict=True)]


def _verified(
    written: Tensor,
    spans: list[Tensor],
    likelihoods: list[Tensor],
    scores: Scores,
    settings: Diver,
    eos: int | None,
    generator: torch.Generator,
) -> DivergenceStep:
    likelihood = settings.likelihood(likelihoods)
    total, found = likelihood, torch.empty(0)
    if settings.pmi_weight > 0:
        # The end token is no part of the output that explains the input.
        bare = [s[:-1] if eos is not None and int(s[-1]) == eos else s for s in spans]
        found = scores(written, bare)
        if not isinstance(found, Tensor) or found.shape != (len(spans),):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the verifier must return {len(spans)} scores as a tensor ({len(spans)},), got {what}")
        total = likelihood + settings.pmi_weight * found.double()
    if bool(torch.isnan(total).any()):
        raise NumericalError(f"output position {len(written)}: a verification score is NaN ({found.tolist()})")
    if settings.temperature == 0 or bool(torch.isinf(total).all()):
        choice = int(total.argmax())
    else:
        choice = int(torch.multinomial(torch.softmax(total / settings.temperature, -1), 1, generator=generator))
    return DivergenceStep(
        len(written),
        tuple(int(s[0]) for s in spans),
        tuple(float(v) for v in likelihood),
        tuple(float(v) for v in found),
        tuple(tuple(int(t) for t in s) for s in spans),
        choice,
    )


def diver_generate(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    *,
    source: str | None = None,
    verifier: Verifier | PlainVerifier | nn.Module | None = None,
    backward_template: str = "Given the output: {y}\nThe input was: {x}",
    settings: Diver | None = None,
    max_new_tokens: int = 128,
    **options: Any,
) -> DiverResult:
    """`diver_decoding` on a text: `source` is the input x that must be explained (default: the whole prompt).

    `verifier` is a causal model with the same tokenizer (default: the model itself), read through `backward_template`, which has
    {y} and ends with {x}; or anything that `diver_decoding` takes. The end token defaults to the tokenizer's.
    Raises ValueError for an empty prompt or input, and for a template without both fields.
    """
    x = encode(tokenizer, prompt if source is None else source)
    if len(x) == 0:
        raise ValueError("the input is empty: no output explains nothing (its PMI is undefined)")
    if verifier is None or isinstance(verifier, nn.Module):
        reader = model if verifier is None else verifier
        verifier = PointwiseMutualInformation(reader, BackwardTemplate.from_text(backward_template, tokenizer))
    options = {"eos_token_id": getattr(tokenizer, "eos_token_id", None)} | options
    ids = encode(tokenizer, prompt, special=True)
    made = diver_decoding(model, ids, verifier=verifier, settings=settings, x_ids=x, max_new_tokens=max_new_tokens, **options)
    return DiverResult(
        made.tokens,
        made.steps,
        made.decisions,
        made.forward_tokens,
        made.verifier_tokens,
        made.cost,
        decode(tokenizer, made.tokens),
    )


__all__ = [
    "Diver",
    "DiverResult",
    "DivergenceStep",
    "diver_decoding",
    "diver_generate",
    "first_token",
    "span_mean",
]
