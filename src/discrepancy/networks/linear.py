"""A linear layer whose first weights come from the caller's generator."""

from __future__ import annotations

import math

import torch
from torch import nn

from discrepancy._validate import generator_or_default


def linear(
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Linear:
    """A layer R^inputs -> R^outputs, weights and biases uniform on +-1/sqrt(inputs), as torch draws them.

    They are drawn from `generator`, so that a seed fixes a network; torch's own initialisation takes the global one.
    """
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=dtype)
    assert isinstance(layer, nn.Linear)
    bound = 1 / math.sqrt(inputs)
    source = generator_or_default(generator)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=source)
    return layer


__all__ = ["linear"]
