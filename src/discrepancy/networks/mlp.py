"""The fully connected network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.networks.linear import linear


@dataclass(frozen=True)
class MLP:
    """A fully connected network: `depth` hidden layers of `width` units, `activation` between them, a linear layer at the end."""

    width: int = 128
    depth: int = 3
    activation: Callable[[], nn.Module] = nn.GELU

    def __post_init__(self) -> None:
        """Raise ValueError unless width and depth are at least 1."""
        for name in ("width", "depth"):
            value = getattr(self, name)
            whole_number(value, 1, name)

    def build(
        self, inputs: int, outputs: int, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> nn.Sequential:
        """The network from R^inputs to R^outputs; weights and biases of a layer with k inputs are uniform on +-1/sqrt(k)."""
        sizes = [inputs, *[self.width] * self.depth, outputs]
        source = generator_or_default(generator)
        layers: list[nn.Module] = []
        for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layers.append(linear(fan_in, fan_out, generator=source, dtype=dtype))
            if k < self.depth:
                layers.append(self.activation())
        return nn.Sequential(*layers)


__all__ = ["MLP"]
