"""Policies that answer prompts: what the methods of this field train, for language models and for finite answer sets alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, generator_or_default, whole_number
from discrepancy.language_models import generate, logits_of, token_log_probs


@runtime_checkable
class ResponsePolicy(Protocol):
    """pi(response | prompt): any `nn.Module` with these two methods can be trained.

    Prompts are tensors (n, ...), one row a prompt; responses are integer tensors (n, c, L), c for each prompt.
    """

    def sample(self, prompts: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`count` responses for each prompt, (n, count, L), without gradients."""
        ...

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the tokens of responses (n, c, L), and the boolean mask of those that count, both (n, c, L)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights, as `nn.Module` gives them."""
        ...


class CategoricalPolicy(nn.Module):
    """softmax(network(prompt)) over K answers: a bandit's policy, every response one token long.

    `network` maps prompts (n, ...) to logits (n, K): a linear layer on features, a small net, `nn.Embedding(n, K)` for a table.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def laws(self, prompts: Tensor) -> Tensor:
        """log pi (n, K), differentiable."""
        logits = self.network(prompts)
        if logits.ndim != 2:
            raise ValueError(f"network must map prompts (n, ...) to logits (n, K), got shape {tuple(logits.shape)}")
        return torch.log_softmax(logits, -1)

    @torch.no_grad()
    def sample(self, prompts: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`count` answers for each prompt, (n, count, 1)."""
        probs = self.laws(prompts).exp()
        source = generator_or_default(generator, probs.device)
        return torch.multinomial(probs, whole_number(count, 1, "count"), replacement=True, generator=source).unsqueeze(-1)

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """log pi of answers (n, c, 1)."""
        _check_responses(prompts, responses)
        if responses.shape[-1] != 1:
            raise ValueError(f"an answer of a finite set is one token, got responses of shape {tuple(responses.shape)}")
        chosen = self.laws(prompts).gather(-1, responses.squeeze(-1)).unsqueeze(-1)
        return chosen, torch.ones_like(responses, dtype=torch.bool)


class CausalResponses(nn.Module):
    """Responses of a causal language model (Hugging Face, PEFT, or one's own) of up to `max_new_tokens` tokens.

    Prompts (n, T) are token ids, left-padded with `pad_token_id`; responses end with `eos_token_id`, which counts, and are padded
    behind it. `temperature` divides the logits in sampling and scoring alike: the law sampled from is the law scored.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        max_new_tokens: int,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Raises ValueError for options out of range."""
        super().__init__()
        self.model = model
        self.max_new_tokens = whole_number(max_new_tokens, 1, "max_new_tokens")
        self.eos_token_id, self.pad_token_id = eos_token_id, pad_token_id
        self.temperature = at_least(temperature, 1e-6, "temperature")

    def _attention(self, prompts: Tensor) -> Tensor:
        """True from the first token on that is no padding."""
        if prompts.ndim != 2 or prompts.is_floating_point():
            raise ValueError(f"prompts must be token ids (n, T), got {prompts.dtype} of shape {tuple(prompts.shape)}")
        if self.pad_token_id is None:
            return torch.ones_like(prompts, dtype=torch.bool)
        started = (prompts != self.pad_token_id).long().cumsum(-1) > 0
        if not bool(started.any(-1).all()):
            raise ValueError("a prompt consists of padding only")
        return started

    def sample(self, prompts: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`count` responses for each prompt, (n, count, max_new_tokens)."""
        whole_number(count, 1, "count")
        attention = self._attention(prompts)
        responses = generate(
            self.model,
            prompts.repeat_interleave(count, 0),
            attention_mask=attention.repeat_interleave(count, 0),
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            generator=generator,
        ).responses
        missing = self.max_new_tokens - responses.shape[1]
        # Generation stops when all have ended, so an end token stands before whatever is added here.
        fill = self.pad_token_id if self.pad_token_id is not None else self.eos_token_id
        responses = nn.functional.pad(responses, (0, missing), value=0 if fill is None else fill)
        return responses.reshape(len(prompts), count, self.max_new_tokens)

    def _check_vocabulary(self, ids: Tensor) -> None:
        embedding = getattr(self.model, "get_input_embeddings", lambda: None)()
        size = getattr(embedding, "num_embeddings", None)
        if size is not None and bool(((ids < 0) | (ids >= size)).any()):
            worst = int(ids.max()) if int(ids.max()) >= size else int(ids.min())
            raise ValueError(
                f"the token {worst} is outside the vocabulary of {size}: the model and the tokenizer do not belong together"
            )

    def counted(self, responses: Tensor) -> Tensor:
        """Which tokens of responses (..., L) count: up to the first end token, without trailing padding."""
        keep = torch.ones_like(responses, dtype=torch.bool)
        if self.eos_token_id is not None:
            ends = (responses == self.eos_token_id).long()
            keep = (ends.cumsum(-1) - ends) == 0
        if self.pad_token_id is not None and self.pad_token_id != self.eos_token_id:
            later = (responses != self.pad_token_id).long().flip(-1).cumsum(-1).flip(-1)
            keep = keep & (later > 0)
        return keep

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Token log-probabilities of responses (n, c, L) and the mask of tokens that count."""
        _check_responses(prompts, responses)
        n, c, length = responses.shape
        keep = self.counted(responses).reshape(n * c, length)
        flat = responses.reshape(n * c, length)
        ids = torch.cat([prompts.repeat_interleave(c, 0), flat], -1)
        attention = torch.cat([self._attention(prompts).repeat_interleave(c, 0), keep], -1)
        self._check_vocabulary(ids)
        labels = ids.masked_fill(
            torch.cat([torch.zeros_like(prompts.repeat_interleave(c, 0), dtype=torch.bool), keep], -1).logical_not(), -100
        )
        logits = logits_of(self.model, ids, None if bool(attention.all()) else attention)
        # Only the positions that predict a response's tokens are normalised.
        scored = token_log_probs(logits[:, -length - 1 :] / self.temperature, labels[:, -length - 1 :])[0]
        return scored.reshape(n, c, length), keep.reshape(n, c, length)


def response_log_probs(policy: ResponsePolicy, prompts: Tensor, responses: Tensor) -> Tensor:
    """log pi(response | prompt), (n, c): sums over the tokens that count. Raises ValueError for a response without any."""
    values, mask = policy.log_probs(prompts, responses)
    if not bool(mask.any(-1).all()):
        where = tuple(int(i) for i in (~mask.any(-1)).nonzero()[0])
        raise ValueError(f"the response at index {where} has no token that counts: it is empty or padding only")
    return torch.where(mask, values, torch.zeros_like(values)).sum(-1)


def without_adapters(policy: Any) -> AbstractContextManager[Any]:
    """Within it a PEFT model answers as its base; any other policy is left as it is."""
    disable = getattr(getattr(policy, "model", policy), "disable_adapter", None)
    entered: AbstractContextManager[Any] = disable() if callable(disable) else nullcontext()  # type: ignore[assignment]
    return entered


def trained_weights(policy: ResponsePolicy) -> list[nn.Parameter]:
    """The weights that require a gradient. Raises ValueError where there is none."""
    found = [w for w in policy.parameters() if w.requires_grad]
    if not found:
        raise ValueError(f"{type(policy).__name__} has no weight that requires a gradient: nothing to train")
    return found


def snapshot(policy: ResponsePolicy) -> list[Tensor]:
    """Copies of the trained weights: with an adapter, of the adapter only."""
    return [w.detach().clone() for w in trained_weights(policy)]


@torch.no_grad()
def restore(policy: ResponsePolicy, weights: list[Tensor]) -> None:
    """Write a snapshot back."""
    for w, kept in zip(trained_weights(policy), weights, strict=True):
        w.copy_(kept)


@contextmanager
def as_of(policy: ResponsePolicy, weights: list[Tensor]) -> Iterator[None]:
    """Within it the policy has the weights of a snapshot; no gradient is recorded."""
    present = snapshot(policy)
    restore(policy, weights)
    try:
        with torch.no_grad():
            yield
    finally:
        restore(policy, present)


def _check_responses(prompts: Tensor, responses: Tensor) -> None:
    if responses.ndim != 3 or responses.is_floating_point() or len(responses) != len(prompts):
        raise ValueError(
            f"responses must be integers (n, c, L) for the {len(prompts)} prompts, got {responses.dtype} of shape "
            f"{tuple(responses.shape)}"
        )


__all__ = [
    "CategoricalPolicy",
    "CausalResponses",
    "ResponsePolicy",
    "as_of",
    "response_log_probs",
    "restore",
    "snapshot",
    "trained_weights",
    "without_adapters",
]
