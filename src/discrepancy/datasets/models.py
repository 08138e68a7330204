"""Trained models that ordinary packages carry: a language model, a digit classifier, three checkpoints of one potential."""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from discrepancy.datasets.carriers import path

Checkpoint = Literal["0.2.0", "0.3.0", "r2scan"]


def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct (Allal et al., 2025, 2502.02737) as (transformers' LlamaForCausalLM in float32, its tokenizer).

    134.5 million weights, read from a 4-bit file of 98 MB and expanded to 540 MB; loading takes some five seconds of one core.
    Raises `MissingCarrier` with the install line, ModuleNotFoundError naming the extra where transformers is missing.
    """
    file = path("smollm2")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('smollm2 needs transformers: pip install "discrepancy[language,data]"') from error
    # Its progress bars go to standard error and cannot be switched off one and all.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True
        )
    return model.eval(), tokenizer


def mnist_cnn() -> nn.Sequential:
    """A classifier of MNIST digits, (n, 1, 28, 28) in [0, 1] to 10 logits: three convolutions, two linear layers, 0.39 M weights.

    Pixels are standardised by the mean .1307 and the deviation .3081 of MNIST in its first layer. The features in front of
    its head are the output of `model[:-1]`, 256 wide. Raises `MissingCarrier` with the install line.
    """
    layers: list[nn.Module] = [_Standardised(0.1307, 0.3081)]
    channels = (1, 32, 64, 128)
    for inner, outer in itertools.pairwise(channels):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 256), nn.ReLU(), nn.Linear(256, 10))
    stored = torch.load(path("mnist-cnn"), map_location="cpu", weights_only=True)
    # The file's names belong to the package's own class; the order of the tensors is that of the layers.
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    return model.eval()


def chgnet_weights(version: Checkpoint = "0.3.0") -> dict[str, Tensor]:
    """The weights by name of one checkpoint of CHGNet (Deng et al., 2023, 2302.14231), a graph network potential.

    "0.3.0" and "r2scan" (fine-tuned from it on another density functional) have the same 412,525 numbers in 136 tensors; "0.2.0"
    is an older design. Raises ValueError for another version, `MissingCarrier` with the install line.
    """
    if version not in ("0.2.0", "0.3.0", "r2scan"):
        raise ValueError(f"version must be '0.2.0', '0.3.0' or 'r2scan', got {version!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is in torch's older format
        stored = torch.load(path(f"chgnet-{version}"), map_location="cpu", weights_only=True)
    return {name: tensor.clone() for name, tensor in stored["model"]["state_dict"].items()}


class _Standardised(nn.Module):
    """(x - mean) / deviation."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


__all__ = ["chgnet_weights", "mnist_cnn", "smollm2"]
