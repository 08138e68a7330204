"""Networks on sets of points: one map for all points, then the maximum over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default
from discrepancy.networks.linear import linear


def _chain(sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype | None, *, last: bool) -> nn.Sequential:
    """Linear layers through `sizes` with ReLU between them, and after the last one too if `last`."""
    layers: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers.append(linear(inputs, outputs, generator=generator, dtype=dtype))
        if last or k < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _check_widths(widths: tuple[int, ...], name: str) -> None:
    if not isinstance(widths, tuple) or not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"{name} must be a tuple of whole numbers of at least 1, got {widths!r}")


class PointNetModule(nn.Module):
    """Sets (..., n, dim) to features (..., k): the same in any order of the points."""

    def __init__(self, shared: nn.Module) -> None:
        """Keep the map of a single point."""
        super().__init__()
        self.shared = shared

    def forward(self, points: Tensor) -> Tensor:
        """The largest feature over the points."""
        return self.shared(points).amax(-2)


@dataclass(frozen=True)
class PointNet:
    """A map of each point through layers of `widths` with ReLU, then the maximum over points. Source: Qi et al. (2017)."""

    widths: tuple[int, ...] = (64, 128)

    def __post_init__(self) -> None:
        """Raise ValueError unless every width is at least 1."""
        _check_widths(self.widths, "widths")

    def build(self, dim: int, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> PointNetModule:
        """The network from sets of points in R^dim to widths[-1] features."""
        return PointNetModule(_chain((dim, *self.widths), generator_or_default(generator), dtype, last=True))


class PointCloudAutoencoderModule(nn.Module):
    """Sets (..., n, dim) to sets (..., points, dim) through one feature vector."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, points: int, dim: int) -> None:
        """Keep both halves and the shape of what comes out."""
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.points, self.dim = points, dim

    def forward(self, clouds: Tensor) -> Tensor:
        """The reconstructions."""
        return self.decoder(self.encoder(clouds)).unflatten(-1, (self.points, self.dim))


@dataclass(frozen=True)
class PointCloudAutoencoder:
    """A `PointNet` encoder and a fully connected decoder with layers of `decoder` units and ReLU."""

    encoder: PointNet = PointNet()
    decoder: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        """Raise ValueError unless every width is at least 1."""
        _check_widths(self.decoder, "decoder")

    def build(
        self, points: int, dim: int, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> PointCloudAutoencoderModule:
        """The network from clouds (..., n, dim) of any size to clouds (..., points, dim)."""
        source = generator_or_default(generator)
        encoder = self.encoder.build(dim, generator=source, dtype=dtype)
        decoder = _chain((self.encoder.widths[-1], *self.decoder, points * dim), source, dtype, last=False)
        return PointCloudAutoencoderModule(encoder, decoder, points, dim)


__all__ = ["PointCloudAutoencoder", "PointCloudAutoencoderModule", "PointNet", "PointNetModule"]
