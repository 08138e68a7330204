"""How well an output explains its input: pointwise mutual information by reading the input back behind the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from discrepancy.methods.decoding.cached_model import CausalState, Cost, require_causal
from discrepancy.methods.decoding.text import decode, encode

# (tokens of the output so far (t,), candidate spans) -> scores (k,), the higher the better
Scores = Callable[[Tensor, Sequence[Tensor]], Tensor]


@runtime_checkable
class Verifier(Protocol):
    """What verifies spans: `begin(x)` gives the scores of one generation and what they cost. A plain callable
    (x, prefix, spans) -> scores (k,) will do as well."""

    def begin(self, x_ids: Tensor) -> tuple[Scores, Cost]:
        """The scores for the input x (n,), and the meter of the model's work."""
        ...


@dataclass(frozen=True, eq=False)
class BackwardTemplate:
    """The prompt that asks for the input given the output: tokens `before` the output and `between` output and input.

    log p(x | y) is that of x's own tokens behind before + y + between. Raises ValueError where `before` is empty: the first token
    of a text has no probability under a causal model (the beginning-of-sequence token is enough).
    """

    before: Tensor
    between: Tensor

    def __post_init__(self) -> None:
        """Check the parts."""
        for name in ("before", "between"):
            part = getattr(self, name)
            if not isinstance(part, Tensor) or part.ndim != 1 or part.is_floating_point():
                raise ValueError(f"{name} must be token indices (n,), got {part!r}")
        if len(self.before) == 0:
            raise ValueError("the template has no token before the output: begin with a beginning-of-sequence token")

    @classmethod
    def from_text(cls, text: str, tokenizer: Any) -> BackwardTemplate:
        """From "Given the output: {y}\\nThe input was: {x}": both fields once, y first and x last.

        The parts are tokenised apart, so that no token joins the template with the output. Raises ValueError otherwise.
        """
        before, between = split_template(text)
        return cls(encode(tokenizer, before, special=True), encode(tokenizer, between))


def split_template(text: str) -> tuple[str, str]:
    """The texts before {y} and between {y} and {x}; ValueError unless the template has both, in this order, and ends with {x}."""
    if text.count("{y}") != 1 or text.count("{x}") != 1 or not text.endswith("{x}") or text.index("{y}") > text.index("{x}"):
        raise ValueError(f"the template must have {{y}} (the output) once and end with {{x}} (the input), got {text!r}")
    before, rest = text.split("{y}")
    return before, rest.removesuffix("{x}")


# What a score in nats is divided by: (log p(x | y), the number of tokens of x) -> a positive number.
Scale = Callable[[float, int], float]


def in_nats(log_prior: float, tokens: int) -> float:
    """Nothing: the information in nats, which grows with the length of the input."""
    return 1.0


def per_token(log_prior: float, tokens: int) -> float:
    """The number of tokens of the input: comparable between inputs of different lengths."""
    return float(tokens)


def share_of_surprise(log_prior: float, tokens: int) -> float:
    """-log p(x | y_<t): the share of the input's surprise that the span explains, at most 1."""
    return max(-log_prior, math.ulp(1.0))


@dataclass(frozen=True, eq=False)
class PointwiseMutualInformation:
    """PMI(x; s | y_<t) = log p(x | y_<t, s) - log p(x | y_<t), by a causal model that reads x back behind the output.

    `template` is the backward prompt; `scale` is `in_nats` (default), `per_token` or `share_of_surprise`. The output so far is
    kept in the model's cache; a divergence step reads k spans with the template and the input behind them, and the input once
    without a span. The model shares its tokens with the one that generates; `TextMutualInformation` is for others.
    Raises ValueError for an encoder-decoder or an empty input.
    """

    model: nn.Module
    template: BackwardTemplate
    scale: Scale = in_nats

    def __post_init__(self) -> None:
        """Check the model and the template."""
        require_causal(self.model, "the verifier")
        if not isinstance(self.template, BackwardTemplate):
            raise ValueError(
                f"template must be a BackwardTemplate, got {type(self.template).__name__}: "
                "BackwardTemplate.from_text(text, tokenizer)"
            )

    def begin(self, x_ids: Tensor) -> tuple[Scores, Cost]:
        """The scores of one generation for the input x (n,)."""
        reader = _BackwardReader(self.model, self.template, require_input(x_ids))

        def scores(prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
            found = reader.log_likelihoods(prefix, [prefix[:0], *spans])
            return _information(found, self.scale, len(x_ids))

        return scores, reader.cost

    def __call__(self, x_ids: Tensor, prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
        """The scores (k,) of spans behind a prefix (t,), in float64."""
        return self.begin(x_ids)[0](prefix, spans)


def require_input(x_ids: Tensor) -> Tensor:
    """The input x (n,); ValueError where it has no token."""
    if x_ids.ndim != 1 or len(x_ids) == 0:
        raise ValueError(
            f"the input x must be (n,) with at least one token, got shape {tuple(x_ids.shape)}: its PMI is undefined"
        )
    return x_ids


def _information(log_likelihoods: Tensor, scale: Scale, tokens: int) -> Tensor:
    prior = float(log_likelihoods[0])
    return (log_likelihoods[1:] - prior) / scale(prior, tokens)


class _BackwardReader:
    """log p(x | y) for outputs that grow, with what they have in common read once."""

    def __init__(self, model: nn.Module, template: BackwardTemplate, x: Tensor) -> None:
        self.model, self.template, self.x = model, template, x
        self.cost = Cost()
        self._output = x[:0]
        self._state: CausalState | None = None

    def log_likelihoods(self, prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
        """log p(x | prefix, span) (k,) for spans of any lengths, in float64."""
        state = self._behind(prefix)
        tails = [torch.cat([s, self.template.between.to(s.device), self.x.to(s.device)]) for s in spans]
        width, n = max(len(t) for t in tails), len(self.x)
        rows = torch.stack([torch.cat([t, t.new_zeros(width - len(t))]) for t in tails])  # padding comes behind: nothing reads it
        first = state.log_probs
        branch = state.fork(len(spans))
        laws = torch.cat([first.expand(len(spans), -1).unsqueeze(1), branch.feed(rows)], 1).double()
        found = []
        for law, tail in zip(laws, tails, strict=True):
            start = len(tail) - n  # x's first token is predicted by the law behind `start` tokens
            found.append(law[start : start + n].gather(-1, tail[start:].unsqueeze(-1)).sum())
        return torch.stack(found)

    def _behind(self, prefix: Tensor) -> CausalState:
        known = len(self._output)
        if self._state is None or known > len(prefix) or not torch.equal(prefix[:known], self._output):
            before = torch.cat([self.template.before.to(prefix.device), prefix])
            self._state = CausalState(self.model, before[None], cost=self.cost)
        elif known < len(prefix):
            self._state.feed(prefix[None, known:], keep=1)
        self._output = prefix
        return self._state


@dataclass(frozen=True, eq=False)
class TextMutualInformation:
    """The same score by a model with another tokenizer: outputs and inputs pass through text.

    `tokenizer` belongs to `model`, `source` to the model that generates; `template` is a text with {y} and {x}. Every span is
    read from the start. Raises ValueError where a text does not survive the verifier's tokenizer.
    """

    model: nn.Module
    tokenizer: Any
    source: Any
    template: str
    scale: Scale = in_nats

    def __post_init__(self) -> None:
        """Check the model and the template."""
        require_causal(self.model, "the verifier")
        split_template(self.template)

    def begin(self, x_ids: Tensor) -> tuple[Scores, Cost]:
        """The scores of one generation for the input x (n,), in the generating model's tokens."""
        x = self._translated(require_input(x_ids))
        template, cost = BackwardTemplate.from_text(self.template, self.tokenizer), Cost()

        def scores(prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
            found = []
            for span in (prefix[:0], *spans):
                reader = _BackwardReader(self.model, template, x)
                reader.cost = cost
                found.append(reader.log_likelihoods(self._translated(torch.cat([prefix, span])), [x[:0]]))
            return _information(torch.cat(found), self.scale, len(x))

        return scores, cost

    def __call__(self, x_ids: Tensor, prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
        """The scores (k,) of spans behind a prefix (t,), in float64."""
        return self.begin(x_ids)[0](prefix, spans)

    def _translated(self, ids: Tensor) -> Tensor:
        text = decode(self.source, ids)
        found = encode(self.tokenizer, text)
        if decode(self.tokenizer, found) != text:
            raise ValueError(f"the verifier's tokenizer does not give back {text!r}: the two share no text, use another verifier")
        return found


__all__ = [
    "BackwardTemplate",
    "PointwiseMutualInformation",
    "Scale",
    "Scores",
    "TextMutualInformation",
    "Verifier",
    "in_nats",
    "per_token",
    "require_input",
    "share_of_surprise",
    "split_template",
]
