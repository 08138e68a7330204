"""Trained models from packages: they load, and do what their makers say. Those of tier 2 are skipped where not installed."""

from __future__ import annotations

import pytest
import torch

from discrepancy.datasets import MissingCarrier, catalogue, chgnet_weights, digits, library_text, mnist_cnn, path, smollm2


def _needs(*names: str) -> None:
    for name in names:
        try:
            path(name)
        except MissingCarrier as missing:
            pytest.skip(str(missing))


def test_the_digit_classifier_reads_digits():
    _needs("mnist-cnn", "mnist-5k")
    images, classes = digits("mnist-5k")
    chosen = torch.arange(0, 5000, 10)
    x = torch.as_tensor(images, dtype=torch.float32)[chosen].reshape(-1, 1, 28, 28)
    with torch.no_grad():
        found = mnist_cnn()(x).argmax(-1)
    assert float((found == torch.as_tensor(classes)[chosen]).float().mean()) > 0.98


def test_two_checkpoints_of_one_potential_can_be_merged():
    _needs("chgnet-0.3.0", "chgnet-r2scan")
    base, tuned = chgnet_weights("0.3.0"), chgnet_weights("r2scan")
    assert {k: v.shape for k, v in base.items()} == {k: v.shape for k, v in tuned.items()}
    assert sum(v.numel() for v in base.values()) == catalogue()["chgnet-0.3.0"].rows
    assert any(not torch.equal(base[k], tuned[k]) for k in base)
    with pytest.raises(ValueError, match="version must be"):
        chgnet_weights("0.4.0")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_language_model_speaks():
    _needs("smollm2")
    from discrepancy.language_models import generate

    model, tokenizer = smollm2()
    assert sum(w.numel() for w in model.parameters()) == catalogue()["smollm2"].rows
    ids = torch.tensor([tokenizer("The capital of France is").input_ids])
    drawn = generate(model, ids, max_new_tokens=2, temperature=0.0)
    assert "Paris" in tokenizer.decode(drawn.responses[0])


def test_the_library_text_is_long_plain_and_the_same_each_time():
    text = library_text()
    assert len(text) > 300_000
    assert text.isascii()
    assert "raise" in text
    assert library_text() is text
