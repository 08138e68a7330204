"""A plain convolutional network for images: halving convolutions, then a linear layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number


@dataclass(frozen=True)
class ConvolutionalNet:
    """Convolutions of stride 2 with `channels` outputs and odd `kernel` width, `activation` after each, then a linear layer.

    Weights are Gaussian of variance 2 / fan-in, biases zero; nothing is normalised, so that rows do not see one another.
    Raises ValueError for no channels or an even kernel. Sources: Radford, Metz and Chintala (2016, 1511.06434) for the
    shape; He, Zhang, Ren and Sun (2015, 1502.01852) for the weights.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    kernel: int = 5
    activation: Callable[[], nn.Module] = nn.SiLU

    def __post_init__(self) -> None:
        """Check the options."""
        if not self.channels:
            raise ValueError("channels must name at least one layer, got ()")
        for count in self.channels:
            whole_number(count, 1, "channels")
        if whole_number(self.kernel, 1, "kernel") % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")

    def build(
        self,
        image: tuple[int, int, int],
        outputs: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Sequential:
        """The network from images (..., channels, height, width) of the shape `image` to R^outputs."""
        source = generator_or_default(generator)
        inputs, height, width = image
        layers: list[nn.Module] = []
        for count in self.channels:
            layer = nn.Conv2d(inputs, count, self.kernel, stride=2, padding=self.kernel // 2, dtype=dtype)
            _drawn(layer, inputs * self.kernel**2, source)
            layers += [layer, self.activation()]
            inputs, height, width = count, (height + 1) // 2, (width + 1) // 2
        last = nn.Linear(inputs * height * width, outputs, dtype=dtype)
        _drawn(last, inputs * height * width, source)
        return nn.Sequential(*layers, nn.Flatten(), last)


@torch.no_grad()
def _drawn(layer: nn.Conv2d | nn.Linear, fan_in: int, generator: torch.Generator) -> None:
    weight: Tensor = layer.weight
    weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * math.sqrt(2 / fan_in))
    assert layer.bias is not None
    layer.bias.zero_()


__all__ = ["ConvolutionalNet"]
