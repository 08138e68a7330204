"""Sentence embeddings from a model folder on this machine, by transformers; nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from discrepancy.comparison.errors import OptionError


def load_embedding(folder: str, *, batch: int = 64, most_tokens: int = 256) -> Callable[[Sequence[str]], np.ndarray]:
    """A function from texts to embeddings (n, width) float32: the mean of the last layer's tokens, of unit length.

    `folder` holds a model and its tokenizer in the format of transformers. Texts are cut at `most_tokens` tokens.
    Raises OptionError if the folder, the library or a usable model is not there.
    """
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise OptionError(f"embedding must name a local model folder with a config.json, got {folder!r}")
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ModuleNotFoundError as error:
        raise OptionError(
            f"embedding needs the package {error.name}: pip install transformers, or compare length and characters without it"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        # Weights as safetensors only: the older format is a pickle, which can run code.
        model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"embedding {folder!r} holds no model that can be loaded ({reason[:160]})") from None

    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch):
                tokens = tokenizer(
                    list(texts[start : start + batch]), padding=True, truncation=True, max_length=most_tokens, return_tensors="pt"
                )
                states = model(**tokens).last_hidden_state
                mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
                mean = (states * mask).sum(1) / mask.sum(1)
                rows.append(torch.nn.functional.normalize(mean, dim=-1).float().numpy())
        return np.concatenate(rows)

    return embed
