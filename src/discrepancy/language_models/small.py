"""Small causal language models: built at random from a configuration, and trained on a text while one waits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.language_models.log_probs import logits_of
from discrepancy.learning import Training


def tiny_gpt2(
    vocabulary: int, *, layers: int = 2, width: int = 64, heads: int = 4, positions: int = 256, seed: int = 0, **options: Any
) -> Any:
    """A randomly initialised `transformers.GPT2LMHeadModel` without dropout, in evaluation mode.

    `options` go to its GPT2Config (bos_token_id, eos_token_id, pad_token_id ...). The weights follow from `seed`; torch's global
    random state is left as it was. Raises ValueError where heads do not divide the width, ModuleNotFoundError naming the extra
    where transformers is missing.
    """
    for name, value in (
        ("vocabulary", vocabulary),
        ("layers", layers),
        ("width", width),
        ("heads", heads),
        ("positions", positions),
    ):
        whole_number(value, 1, name)
    if width % heads:
        raise ValueError(f"heads must divide the width, got width {width} and heads {heads}")
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('tiny_gpt2 needs transformers: pip install "discrepancy[language]"') from error
    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None} | options
    config = GPT2Config(
        vocab_size=vocabulary, n_layer=layers, n_embd=width, n_head=heads, n_positions=positions,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **special,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()


def fit_language_model(
    model: nn.Module,
    ids: Tensor,
    *,
    steps: int,
    batch: int = 16,
    length: int = 64,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> dict[str, list[float]]:
    """Train on next-token cross-entropy of random windows of a text `ids` (n,); returns the record, "loss" in nats a token.

    Raises ValueError where the text is shorter than a window. Time O(steps x batch x length) tokens forward and backward.
    """
    whole_number(batch, 1, "batch")
    whole_number(length, 2, "length")
    if ids.ndim != 1 or len(ids) < length:
        raise ValueError(f"ids must be (n,) with at least length = {length} tokens, got shape {tuple(ids.shape)}")
    generator = generator_or_default(generator, ids.device)
    offsets = torch.arange(length, device=ids.device)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        starts = torch.randint(len(ids) - length + 1, (batch, 1), generator=generator)
        windows = ids[starts + offsets]
        logits = logits_of(model, windows)
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten()), {}

    training = model.training
    model.train()
    try:
        return Training(steps=steps, learning_rate=learning_rate, warm_up=min(20, steps // 10), gradient_clip=1.0).run(
            [w for w in model.parameters() if w.requires_grad], step
        )
    finally:
        model.train(training)


__all__ = ["fit_language_model", "tiny_gpt2"]
