"""One answer read under two prompts: a logits processor that keeps the second prompt's law beside the first."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import whole_number
from discrepancy.language_models import Generation
from discrepancy.methods.decoding.cached_model import CausalState, Cost, require_causal
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast, Mode
from discrepancy.methods.decoding.gates import CallableGate, Gate, StandardDeviation


class SecondPrompt:
    """The law of the next token behind a second prompt, for the tokens generated behind the first one.

    `prompt_ids` (P, L), left-padded where `mask` is False; R = n P sequences are followed, n neighbours a prompt. Tokens are read
    when the law is asked for, so that skipped steps cost nothing but a longer feed later. What is kept is a cache: the law
    depends on the prompt and the generated tokens only. Rows that change places (beam search) take their cache along.

    A generation is new when its sequences do not extend those seen last by one token; what is there at the first call of it is
    its prompt (or the first `prompt_length` tokens).
    """

    def __init__(
        self, model: nn.Module, prompt_ids: Tensor, mask: Tensor | None = None, *, prompt_length: int | None = None
    ) -> None:
        """Raises ValueError for a prompt that is not (P, L) with L >= 1, a mask of another shape, or padding on the right."""
        require_causal(model)
        if prompt_ids.ndim != 2 or prompt_ids.shape[1] == 0 or prompt_ids.is_floating_point():
            raise ValueError(
                f"the second prompt must be token indices (P, L) with at least one token, got {prompt_ids.dtype} "
                f"{tuple(prompt_ids.shape)}: give the beginning-of-sequence token for an empty one"
            )
        mask = torch.ones_like(prompt_ids, dtype=torch.bool) if mask is None else mask.bool()
        if mask.shape != prompt_ids.shape:
            raise ValueError(
                f"the second prompt is {tuple(prompt_ids.shape)} and its mask {tuple(mask.shape)}: they must be equal"
            )
        if not bool(mask[:, -1].all()):
            raise ValueError("the second prompt must be padded on the left: its last column has padding")
        if prompt_length is not None:
            whole_number(prompt_length, 1, "prompt_length")
        self.model, self.prompt_ids, self.mask = model, prompt_ids, mask
        self.cost = Cost()
        self._given_length = prompt_length
        self.reset()

    def reset(self) -> None:
        """Forget the generation: the next call begins one."""
        self._seen: Tensor | None = None
        self._start = 0
        self._state: CausalState | None = None
        self._read = 0

    def follow(self, input_ids: Tensor) -> bool:
        """Note the sequences (R, T) of this step, prompt in front; True where a generation begins.

        Raises ValueError where R is no multiple of the number of second prompts.
        """
        if len(input_ids) % len(self.prompt_ids):
            raise ValueError(
                f"{len(input_ids)} sequences are generated behind {len(self.prompt_ids)} second prompts: give one each"
            )
        parents = self._parents(input_ids)
        if parents is None:
            self.reset()
            self._start = input_ids.shape[1] if self._given_length is None else self._given_length
        elif self._state is not None and not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
            self._state.select(parents)
        self._seen = input_ids.clone()
        return parents is None

    def _parents(self, input_ids: Tensor) -> Tensor | None:
        """Which row of the last step each row extends by one token, of the same prompt; None where there is none for some row."""
        seen, rows = self._seen, len(input_ids)
        if seen is None or len(seen) != rows or input_ids.shape[1] != seen.shape[1] + 1:
            return None
        place = torch.arange(rows, device=input_ids.device)
        if torch.equal(input_ids[:, :-1], seen):
            return place
        prompt = place // (rows // len(self.prompt_ids))
        same = (input_ids[:, None, :-1] == seen).all(-1) & (prompt[:, None] == prompt)
        return same.long().argmax(-1) if bool(same.any(-1).all()) else None

    def log_probs(self) -> Tensor:
        """log q (R, V) of the next token behind the second prompt and all tokens generated so far."""
        if self._seen is None:
            raise RuntimeError("no sequence yet: call follow(input_ids) first")
        written = self._seen[:, self._start :]
        if self._state is None:
            copies = len(written) // len(self.prompt_ids)
            ids = torch.cat([self.prompt_ids.to(written.device).repeat_interleave(copies, 0), written], 1)
            mask = self.mask.to(written.device).repeat_interleave(copies, 0)
            mask = torch.cat([mask, torch.ones_like(written, dtype=torch.bool)], 1)
            self._state = CausalState(self.model, ids, mask, cost=self.cost)
        elif self._read < written.shape[1]:
            self._state.feed(written[:, self._read :], keep=1)
        self._read = written.shape[1]
        return self._state.log_probs

    def repeats(self, input_ids: Tensor) -> bool:
        """Whether every second prompt is the very prompt of its sequences."""
        copies = len(input_ids) // len(self.prompt_ids)
        rows = self.prompt_ids.repeat_interleave(copies, 0), self.mask.repeat_interleave(copies, 0)
        start = input_ids[:, : self._start]
        for prompt, mask, first in zip(*rows, start.to(self.prompt_ids.device), strict=True):
            if not (torch.equal(prompt[mask], first) or torch.equal(prompt, first)):
                return False
        return True


@dataclass(frozen=True, repr=False)
class ContrastRecord(Result):
    """What a contrastive generation did: at how many `steps`, the share of (row, step) pairs with an open gate, and the second
    prompt's `calls` of the model and `tokens` read. `open` has the pairs themselves, one boolean tuple a step.
    """

    steps: int
    share_open: float
    calls: int
    tokens: int
    open: tuple[tuple[bool, ...], ...] = ()

    def _shown(self) -> dict[str, Any]:
        return {name: value for name, value in super()._shown().items() if name != "open"}


@dataclass(frozen=True)
class ContrastiveGeneration:
    """The generated sequences, what the processor did, and the text where a tokenizer was given."""

    generation: Generation
    record: ContrastRecord
    text: str | None = None


class ContrastiveProcessor:
    """A logits processor, (input_ids (R, T), scores (R, V)) -> scores, for Hugging Face's `generate(logits_processor=[...])` and
    for `discrepancy.language_models.generate(processors=(...))`.

    Where the gate is open, the scores become the log-probabilities that `mode` makes of the law p = softmax(scores) and the law q
    behind the second prompt; elsewhere they pass unchanged, bit for bit. The gate sees p as it comes: put this processor first,
    since a penalty or a temperature before it changes what "uncertain" means. Works in batches, with several sequences a prompt,
    and in beam search. Hugging Face's own repetition penalty runs before all processors that one hands over: hand over a
    `RepetitionPenaltyLogitsProcessor` behind this one instead.
    """

    def __init__(
        self,
        model: nn.Module,
        prompt_ids: Tensor,
        mask: Tensor | None = None,
        *,
        mode: Mode | None = None,
        gate: Gate | Callable[[Tensor, Tensor], Tensor] | None = None,
        plausible: PlausibleSet | None = None,
        bos_token_id: int | None = None,
        prompt_length: int | None = None,
        warn_of_repeats: bool = True,
    ) -> None:
        """`prompt_ids` (P, L) is the second prompt; with L = 0 it becomes `bos_token_id` (default: the model's own).

        `warn_of_repeats`: warn where the second prompt is the first one (with a second model that is as it should be).

        Raises TypeError and ValueError for options of the wrong kind and prompts that do not fit.
        """
        mode = Contrast() if mode is None else mode
        if not isinstance(mode, Mode):
            raise TypeError(f"mode must be Contrast(weight) or Subtract(rate), got {mode!r}")
        plausible = PlausibleSet() if plausible is None else plausible
        if not isinstance(plausible, PlausibleSet):
            raise TypeError(f"plausible must be a PlausibleSet such as PlausibleSet(0.1), got {plausible!r}")
        gate = StandardDeviation() if gate is None else gate
        self.gate = gate if isinstance(gate, Gate) else CallableGate(gate)
        self.mode, self.plausible = mode, plausible
        if prompt_ids.ndim == 2 and prompt_ids.shape[1] == 0:
            first = bos_token_id if bos_token_id is not None else getattr(getattr(model, "config", None), "bos_token_id", None)
            if first is None:
                raise ValueError("the second prompt is empty and the model names no beginning token: give bos_token_id")
            prompt_ids, mask = torch.full((len(prompt_ids), 1), first, dtype=torch.long), None
        self.second = SecondPrompt(model, prompt_ids, mask, prompt_length=prompt_length)
        self.warn_of_repeats = warn_of_repeats
        self._open: list[tuple[bool, ...]] = []

    @property
    def record(self) -> ContrastRecord:
        """What was done since construction or the last `reset`."""
        total = sum(len(row) for row in self._open)
        share = sum(sum(row) for row in self._open) / total if total else 0.0
        return ContrastRecord(len(self._open), share, self.second.cost.calls, self.second.cost.tokens, tuple(self._open))

    def reset(self) -> None:
        """Forget the generation and the record."""
        self.second.reset()
        self.second.cost = Cost()
        self._open = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of the next token, (R, V). Raises ValueError where the two laws have different vocabularies."""
        if self.second.follow(input_ids) and self.warn_of_repeats and self.second.repeats(input_ids):
            warnings.warn(
                "the second prompt is the prompt itself: the contrast of a law with itself only cuts it to its plausible tokens",
                stacklevel=2,
            )
        raw = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
        log_p = torch.log_softmax(raw, -1)
        log_q = self._second_law(log_p) if self.gate.needs_second else None
        opened = self.gate.opens(log_p, log_q)
        self._open.append(tuple(bool(v) for v in opened.tolist()))
        if not bool(opened.any()):
            return scores
        log_q = self._second_law(log_p) if log_q is None else log_q
        contrasted = self.mode.log_probs(log_p, log_q.to(log_p.dtype), self.plausible)
        return torch.where(opened.unsqueeze(-1), contrasted, raw)

    def _second_law(self, log_p: Tensor) -> Tensor:
        log_q = self.second.log_probs()
        if log_q.shape[-1] != log_p.shape[-1]:
            raise ValueError(
                f"the scores have {log_p.shape[-1]} tokens and "
                f"the second prompt's model {log_q.shape[-1]}: they must share one vocabulary"
            )
        return log_q


__all__ = ["ContrastRecord", "ContrastiveGeneration", "ContrastiveProcessor", "SecondPrompt"]
