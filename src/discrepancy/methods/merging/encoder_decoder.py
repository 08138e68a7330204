"""What encoder-decoder experts (T5, BART) answer greedily, and their laws of the next token along it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.methods.merging.predictions import EmptyGenerationWarning, Inputs, Predictions, Source, kept_logits
from discrepancy.methods.merging.task_vectors import BoundModel


@dataclass(frozen=True)
class GreedyDecoding(Source):
    """A Hugging Face encoder-decoder's laws of the next token along its own greedy answers, up to the end token, included.

    Inputs are token indices (n, T) or a mapping with `input_ids` and, where padded, `attention_mask`. The start, end and padding
    tokens are the configuration's where None. Answers of no more than the end token are left out with a warning; `top_k` as in
    `GreedyGeneration`. One pass of the encoder, one of the decoder a token.
    """

    max_new_tokens: int = 64
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    pad_token_id: int | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        whole_number(self.max_new_tokens, 1, "max_new_tokens")
        if self.top_k is not None:
            whole_number(self.top_k, 1, "top_k")

    def predict(self, expert: BoundModel, inputs: Inputs) -> Predictions | None:
        """Decode token by token; the laws met on the way are the expert's, so nothing is computed twice."""
        if not getattr(getattr(expert, "config", None), "is_encoder_decoder", False):
            raise TypeError("GreedyDecoding needs an encoder-decoder of Hugging Face; for causal models: GreedyGeneration")
        given: dict[str, Tensor] = {"input_ids": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        if "input_ids" not in given:
            raise ValueError("GreedyDecoding needs token indices: a tensor (n, T), or a mapping with input_ids")
        source = given["input_ids"]
        end, start = self._token(expert, "eos_token_id"), self._token(expert, "decoder_start_token_id")
        padding = next(t for t in (self._token(expert, "pad_token_id"), end, 0) if t is not None)
        if start is None:
            raise ValueError("the model's configuration has no decoder_start_token_id: pass it to GreedyDecoding")
        written = torch.full((len(source), 1), start, dtype=source.dtype, device=source.device)
        running = torch.ones(len(source), dtype=torch.bool, device=source.device)
        laws, masks = [], []
        for _ in range(self.max_new_tokens):
            output = expert(**given, decoder_input_ids=written)
            # The encoder's work is done once.
            given.setdefault("encoder_outputs", (output.encoder_last_hidden_state,))  # type: ignore[arg-type]
            scores = output.logits[:, -1]
            laws.append(scores)
            masks.append(running)
            token = torch.where(running, scores.argmax(-1), torch.full_like(written[:, 0], padding))
            written = torch.cat([written, token[:, None]], 1)
            if end is not None:
                running = running & (token != end)
                if not bool(running.any()):
                    break
        empty = torch.zeros_like(running) if end is None else written[:, 1] == end
        if bool(empty.any()):
            warnings.warn(
                f"the expert ended {int(empty.sum())} of {len(empty)} answers at once; those inputs are left out",
                EmptyGenerationWarning,
                stacklevel=2,
            )
            if bool(empty.all()):
                return None
        logits = kept_logits(torch.stack(laws, 1), self.top_k)
        text = {k: v for k, v in given.items() if k != "encoder_outputs"} | {"decoder_input_ids": written[:, :-1]}
        return Predictions(text, logits, torch.stack(masks, 1)).rows((~empty).nonzero()[:, 0])

    def _token(self, expert: BoundModel, name: str) -> int | None:
        own = getattr(self, name)
        return own if own is not None else getattr(expert.config, name, None)


__all__ = ["GreedyDecoding"]
