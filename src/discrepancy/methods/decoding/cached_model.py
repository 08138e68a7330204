"""A causal language model with what it has read so far: feed tokens, fork into candidates, keep one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy.language_models import logits_of


class Cost:
    """What a model was asked for: `calls` of forward, and `tokens` fed, rows times columns."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.calls = 0
        self.tokens = 0


def accepted(model: nn.Module) -> Mapping[str, Any]:
    """The named arguments of the forward pass that decides, below an adapter's forward(*args, **kwargs)."""
    named = inspect.signature(model.forward).parameters
    inner = getattr(model, "base_model", None)
    if "past_key_values" not in named and isinstance(inner, nn.Module):
        named = inspect.signature(getattr(inner, "model", inner).forward).parameters
    return named


def require_causal(model: Any, name: str = "model") -> None:
    """Raise TypeError for what is no module, ValueError for an encoder-decoder."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a causal language model (nn.Module), got {type(model).__name__}")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"{name} is an encoder-decoder ({type(model).__name__}), which does not continue its input: "
            "use a causal model, or give a callable verifier that scores with it"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time, without gradients; training mode is restored."""
    training = model.training
    if training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            model.train()


class CausalState:
    """Sequences (B, T) read by a causal model, and `log_probs` (B, V) of what comes next.

    Models that keep a key-value cache (Hugging Face, PEFT) read every token once; others (a module that returns logits) read the
    whole sequence again at every feed. `mask` (B, T) is False on left padding. `cost` adds up over all forks of a state.
    """

    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor | None = None, *, cost: Cost | None = None) -> None:
        """Read the first tokens. Raises ValueError unless ids is (B, T) with at least one token."""
        if ids.ndim != 2 or ids.shape[1] == 0 or ids.is_floating_point():
            raise ValueError(f"ids must be token indices (B, T) with at least one token, got {ids.dtype} {tuple(ids.shape)}")
        self.model, self.cost = model, Cost() if cost is None else cost
        self._named = accepted(model)
        self._cached = "past_key_values" in self._named and "use_cache" in self._named
        self._past: Any = None
        self._ids = ids[:, :0]
        self._mask = torch.zeros_like(ids[:, :0], dtype=torch.bool)
        self.log_probs = torch.empty(0)
        self.feed(ids, mask, keep=1)

    @property
    def rows(self) -> int:
        """The number of sequences."""
        return len(self._ids)

    def feed(self, tokens: Tensor, mask: Tensor | None = None, *, keep: int | None = None) -> Tensor:
        """Read tokens (B, t); the log-probabilities behind the last `keep` of them (default all), (B, keep, V), float32 up."""
        keep = tokens.shape[1] if keep is None else keep
        fresh = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        self._mask = torch.cat([self._mask, fresh], 1)
        self._ids = torch.cat([self._ids, tokens], 1)
        self.cost.calls += 1
        with evaluating(self.model):
            if self._cached:
                self.cost.tokens += tokens.numel()
                logits = self._through_cache(tokens, keep)
            else:
                self.cost.tokens += self._ids.numel()
                logits = logits_of(self.model, self._ids, None if bool(self._mask.all()) else self._mask)
        logits = logits[:, logits.shape[1] - keep :]
        found = torch.log_softmax(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, -1)
        self.log_probs = found[:, -1]
        return found

    def _through_cache(self, tokens: Tensor, keep: int) -> Tensor:
        options: dict[str, Any] = {"past_key_values": self._past, "use_cache": True, "attention_mask": self._mask.long()}
        if "position_ids" in self._named:
            options["position_ids"] = (self._mask.long().cumsum(-1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        if "logits_to_keep" in self._named:
            options["logits_to_keep"] = keep
        output = self.model(input_ids=tokens, **options)
        self._past = output.past_key_values
        return output.logits

    def fork(self, copies: int) -> CausalState:
        """A state of its own with every row `copies` times, neighbours together; this one stays as it is."""
        other = copy.copy(self)
        rows = torch.arange(self.rows, device=self._ids.device).repeat_interleave(copies)
        if self._cached:
            other._past = copy.deepcopy(self._past)
        other.select(rows)
        return other

    def select(self, rows: Tensor) -> None:
        """Keep these rows (R,), in this order; a row may come more than once."""
        self._ids, self._mask, self.log_probs = self._ids[rows], self._mask[rows], self.log_probs[rows]
        if self._cached:
            self._past.reorder_cache(rows)


__all__ = ["CausalState", "Cost", "accepted", "evaluating", "require_causal"]
