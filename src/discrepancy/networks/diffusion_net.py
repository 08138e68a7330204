"""DiffusionNet: learned heat diffusion on a shape, between small networks at every point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.networks.mlp import MLP


class SpectralBasis(Protocol):
    """Eigenfunctions of a Laplacian: `vectors` Phi (n, k), `values` lambda (k,), `mass` M (n,), with Phi^T M Phi = I."""

    @property
    def vectors(self) -> Float[Tensor, "n k"]:
        """Phi."""
        ...

    @property
    def values(self) -> Float[Tensor, " k"]:
        """lambda."""
        ...

    @property
    def mass(self) -> Float[Tensor, " n"]:
        """The diagonal of M."""
        ...


class _Block(nn.Module):
    """x + net([x, diffused x]): channel c diffuses for its own learned time."""

    def __init__(self, width: int, generator: torch.Generator, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.log_times = nn.Parameter(torch.empty(width, dtype=dtype))
        with torch.no_grad():
            # From a hundredth of the slowest mode's time to that time, so that channels start at different scales.
            self.log_times.uniform_(-4.6, 0.0, generator=generator)
        self.net = MLP(width, 1, nn.ReLU).build(2 * width, width, generator=generator, dtype=dtype)

    def forward(self, x: Tensor, vectors: Tensor, values: Tensor, mass: Tensor) -> Tensor:
        decay = torch.exp(-values[:, None] * self.log_times.exp())
        diffused = vectors @ (decay * (vectors.mT @ (x * mass[:, None])))
        return x + self.net(torch.cat([x, diffused], -1))


class DiffusionNetModule(nn.Module):
    """The network that `DiffusionNet` builds: (features (n, inputs), basis) -> (n, outputs)."""

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: int, generator: torch.Generator, dtype: torch.dtype | None
    ) -> None:
        """Draw the weights from `generator`."""
        super().__init__()
        self.first = _linear(inputs, width, generator, dtype)
        self.blocks = nn.ModuleList(_Block(width, generator, dtype) for _ in range(blocks))
        self.last = _linear(width, outputs, generator, dtype)

    def forward(self, features: Float[Tensor, "n c"], basis: SpectralBasis) -> Float[Tensor, "n o"]:
        """The features of every point."""
        # In units of the lowest positive eigenvalue, so that neither the shape's size nor the unit of its coordinates matters.
        lowest = basis.values[basis.values > 1e-7 * basis.values[-1]]
        values = basis.values / lowest[0] if len(lowest) else basis.values
        x = self.first(features)
        for block in self.blocks:
            x = block(x, basis.vectors, values, basis.mass)
        return self.last(x)


def _linear(inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


@dataclass(frozen=True)
class DiffusionNet:
    """A network on functions of a shape that forgets how the shape is triangulated: `blocks` times
    x <- x + net([x, exp(-t L) x]), with a learned time t a channel and a network of two layers shared by all points.

    Diffusion is spectral, Phi exp(-t lambda) Phi^T M x with lambda in units of the lowest positive eigenvalue. Built without the
    original's gradient features, which need tangent planes: it takes meshes, graphs and point clouds alike, and does not see
    orientation, so that it cannot tell a shape's left from its right. Time n (k + width) width a block.
    Source: Sharp et al. (2022).
    """

    width: int = 64
    blocks: int = 4

    def __post_init__(self) -> None:
        """Raise ValueError unless width and blocks are at least 1."""
        for name in ("width", "blocks"):
            value = getattr(self, name)
            whole_number(value, 1, name)

    def build(
        self, inputs: int, outputs: int, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> DiffusionNetModule:
        """The network from (n, inputs) to (n, outputs); a seed fixes its weights."""
        return DiffusionNetModule(inputs, outputs, self.width, self.blocks, generator_or_default(generator), dtype)


__all__ = ["DiffusionNet", "DiffusionNetModule", "SpectralBasis"]
