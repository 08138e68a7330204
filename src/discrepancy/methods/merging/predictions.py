"""What experts answer on unlabelled inputs, computed once and kept: outputs of a classifier, or along greedy generations."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.truncated import TruncatedLogits, truncated
from discrepancy.language_models import generate, sequence_mean
from discrepancy.methods.merging.task_vectors import BoundModel, TaskVectors

Inputs = Tensor | dict[str, Tensor]


class EmptyGenerationWarning(UserWarning):
    """An expert ended some of its answers at once; those inputs are left out."""


@dataclass(frozen=True)
class Predictions:
    """An expert's outputs on n inputs.

    `inputs` are a tensor (n, ...) or a mapping of such; `logits` the expert's (n, ..., K), or the largest of them with the rest
    as one class; `mask` (n, T) says which positions count; `first` is the position of the model's output that the expert's
    first one stands for, None for all.
    """

    inputs: Inputs
    logits: Tensor | TruncatedLogits | None = None
    mask: Tensor | None = None
    first: int | None = None

    def __len__(self) -> int:
        return len(self.inputs) if isinstance(self.inputs, Tensor) else len(next(iter(self.inputs.values())))

    def rows(self, index: Tensor) -> Predictions:
        """The same of some inputs."""
        inputs = self.inputs[index] if isinstance(self.inputs, Tensor) else {k: v[index] for k, v in self.inputs.items()}
        logits, mask = self.logits, self.mask
        if isinstance(logits, TruncatedLogits):
            logits = TruncatedLogits(logits.values[index], logits.indices[index], logits.log_rest[index])
        elif logits is not None:
            logits = logits[index]
        return replace(self, inputs=inputs, logits=logits, mask=None if mask is None else mask[index])

    def outputs(self, model: BoundModel) -> Tensor:
        """Another model's logits (n, ..., K) at the positions that the expert's stand for."""
        logits = run(model, self.inputs)
        return logits if self.first is None else logits[:, self.first : -1]

    def divergence(self, divergence: Divergence, model: BoundModel) -> Tensor:
        """The mean over inputs of the mean over positions of D(expert || model), a scalar, differentiable in the model."""
        logits = self.outputs(model)
        if isinstance(self.logits, TruncatedLogits):
            return self.mean(truncated(divergence, self.logits, logits, where=self.mask))
        return self.mean(divergence.from_logits(self.logits, logits, where=self.mask))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over inputs of the mean over the positions that count, of values (n, ...)."""
        return values.mean() if self.mask is None else sequence_mean(values, self.mask)


def run(model: BoundModel, inputs: Inputs) -> Tensor:
    """A model's logits on a tensor or, by keyword, on a mapping."""
    output = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return logits, as a tensor or in `.logits`, got {type(output).__name__}")
    return logits


def kept_logits(logits: Tensor, top_k: int | None) -> Tensor | TruncatedLogits:
    """What is cached of an expert's logits: all, or the `top_k` largest and the rest as one where that is fewer."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if top_k is None or top_k >= logits.shape[-1] - 1 else TruncatedLogits.of(logits, top_k)


class Source(ABC):
    """How an expert's outputs arise from inputs; a subclass is a frozen dataclass of its options."""

    @abstractmethod
    def predict(self, expert: BoundModel, inputs: Inputs) -> Predictions | None:
        """The expert's outputs on one batch; None where nothing is left of it."""


@dataclass(frozen=True)
class Direct(Source):
    """The model's outputs on the inputs themselves: classifiers, or language models on given text.

    Where inputs are a mapping with an `attention_mask` (n, T), masked positions do not count. `top_k` caches only so many classes
    and the rest as one.
    """

    top_k: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless top_k >= 1 or None."""
        if self.top_k is not None:
            whole_number(self.top_k, 1, "top_k")

    def predict(self, expert: BoundModel, inputs: Inputs) -> Predictions:
        """One forward pass."""
        logits = run(expert, inputs)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) and logits.ndim == 3 else None
        return Predictions(inputs, kept_logits(logits, self.top_k), None if mask is None else mask.bool())


@dataclass(frozen=True)
class GreedyGeneration(Source):
    """A causal language model's laws of the next token along its own greedy answers to prompts, up to the end token, included.

    Inputs are token indices (n, T), or a mapping with `input_ids` and, for prompts padded on the left, `attention_mask`. Answers
    of no more than the end token are left out with a warning. `top_k` caches only so many tokens and the rest as one: memory
    n x max_new_tokens x (top_k + 1) instead of the vocabulary.
    """

    max_new_tokens: int = 64
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        whole_number(self.max_new_tokens, 1, "max_new_tokens")
        if self.top_k is not None:
            whole_number(self.top_k, 1, "top_k")

    def predict(self, expert: BoundModel, inputs: Inputs) -> Predictions | None:
        """Generate, then one teacher-forced pass over prompts and answers."""
        prompts = inputs if isinstance(inputs, Tensor) else inputs.get("input_ids")
        if prompts is None:
            raise ValueError("GreedyGeneration needs token indices: a tensor (n, T), or a mapping with input_ids")
        attention = None if isinstance(inputs, Tensor) else inputs.get("attention_mask")
        made = generate(
            expert,
            prompts,
            attention_mask=attention,
            max_new_tokens=self.max_new_tokens,
            temperature=0,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
        )
        mask = made.mask[:, made.prompt_length :]
        empty = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        if self.eos_token_id is not None:
            empty = made.responses[:, 0] == self.eos_token_id
        if bool(empty.any()):
            warnings.warn(
                f"the expert ended {int(empty.sum())} of {len(empty)} answers at once; those inputs are left out",
                EmptyGenerationWarning,
                stacklevel=2,
            )
            if bool(empty.all()):
                return None
        # A causal model does not look at padding behind an answer; padding before a prompt it must be told of.
        text: Inputs = made.sequences
        if attention is not None and not bool(attention.bool().all()):
            positions = (made.attention_mask.long().cumsum(-1) - 1).clamp_min(0)
            text = {"input_ids": made.sequences, "attention_mask": made.attention_mask.long(), "position_ids": positions}
        kept = Predictions(text, mask=mask, first=made.prompt_length - 1).rows((~empty).nonzero()[:, 0])
        return replace(kept, logits=kept_logits(kept.outputs(expert), self.top_k))


def input_batches(inputs: Any, name: str) -> list[Inputs]:
    """The batches of a task: a tensor or mapping is one, an iterable (a loader) gives several."""
    batches = [inputs] if isinstance(inputs, Tensor | Mapping) else None
    if batches is None:
        if not isinstance(inputs, Iterable):
            raise TypeError(f"{name} must be a tensor, a mapping of tensors or a loader of such, got {type(inputs).__name__}")
        batches = list(inputs)
    checked: list[Inputs] = []
    for batch in batches:
        tensors = [batch] if isinstance(batch, Tensor) else list(batch.values()) if isinstance(batch, Mapping) else []
        if not tensors or not all(isinstance(t, Tensor) and t.ndim > 0 for t in tensors):
            got = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, list | tuple) else type(batch).__name__
            raise TypeError(f"{name} must give inputs only, a tensor or a mapping of tensors a batch, got {got}")
        if len({len(t) for t in tensors}) > 1:
            raise ValueError(f"{name} has a batch whose tensors differ in length: {[len(t) for t in tensors]}")
        if len(tensors[0]):
            checked.append(_wide(batch) if isinstance(batch, Tensor) else {k: _wide(v) for k, v in batch.items()})
    if not checked:
        raise ValueError(f"{name} has no inputs")
    return checked


def _wide(tensor: Tensor) -> Tensor:
    """Half precision becomes single, in which the task vectors' parameters are held."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def expert_predictions(vectors: TaskVectors, inputs: Any, source: Source) -> list[list[Predictions]]:
    """Each expert's outputs on its own task's inputs, by task and batch, without gradient.

    inputs: one entry an expert. Raises ValueError where there are more or fewer, or where nothing is left of a task.
    """
    tasks = task_inputs(vectors, inputs)
    out: list[list[Predictions]] = []
    with torch.no_grad(), vectors.evaluating():
        for i, batches in enumerate(tasks):
            expert = vectors.bound(vectors.expert(i))
            found = [made for batch in batches if (made := source.predict(expert, batch)) is not None]
            if not found:
                raise ValueError(f"inputs[{i}]: the expert ends every answer at once, nothing is left to compare")
            out.append(found)
    return out


def task_inputs(vectors: TaskVectors, inputs: Any) -> list[list[Inputs]]:
    """The batches of every task, one entry an expert."""
    given = list(inputs)
    if len(given) != len(vectors) or isinstance(inputs, Tensor | Mapping):
        got = f"one {type(inputs).__name__}" if isinstance(inputs, Tensor | Mapping) else f"{len(given)}"
        raise ValueError(f"inputs must be a list with one entry for each of the {len(vectors)} expert(s), got {got}")
    return [input_batches(task, f"inputs[{i}]") for i, task in enumerate(given)]


__all__ = [
    "Direct",
    "EmptyGenerationWarning",
    "GreedyGeneration",
    "Inputs",
    "Predictions",
    "Source",
    "expert_predictions",
    "input_batches",
    "kept_logits",
    "run",
    "task_inputs",
]
