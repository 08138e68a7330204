"""Random fields whose laws are known: Gaussian ones with a power-law spectrum, and rain made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import fraction, generator_or_default, positive


def gaussian_random_field(
    n: int,
    size: tuple[int, int],
    slope: float = 3.0,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """n stationary periodic Gaussian fields (n, H, W) of mean 0 and variance 1 at every cell, of power |k|^(-slope).

    White noise is multiplied by the root of the spectrum between two Fourier transforms; the wave number zero is left out, so
    every field has mean zero. n H W log(H W).
    """
    h, w = size
    source = generator_or_default(generator)
    white = torch.randn(n, h, w, generator=source, dtype=torch.float64)
    ky, kx = (torch.fft.fftfreq(k, 1 / k, dtype=torch.float64) for k in (h, w))
    length = torch.hypot(*torch.meshgrid(ky, kx, indexing="ij"))
    power = torch.where(length > 0, length.clamp_min(1).pow(-slope), torch.zeros_like(length))
    # The variance of a cell is the mean of the multiplier over all wave numbers.
    return torch.fft.ifft2(torch.fft.fft2(white) * (power / power.mean()).sqrt()).real.to(dtype)


@dataclass(frozen=True)
class SyntheticRain:
    """Rain amounts unit * max(0, exp(g) - t), g a Gaussian field of power |k|^(-slope): dry areas, and a log-normal tail.

    t is set so that a cell is wet with probability `wet`. `quantile(u)` is the exact law of a cell. In mm a day for unit = 10.
    """

    size: tuple[int, int] = (24, 24)
    slope: float = 3.0
    wet: float = 0.3
    unit: float = 10.0

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        fraction(self.wet, "wet")
        positive(self.unit, "unit")

    @property
    def threshold(self) -> float:
        """t: the (1 - wet)-quantile of exp(g)."""
        return math.exp(float(torch.special.ndtri(torch.tensor(1 - self.wet, dtype=torch.float64))))

    def draw(self, n: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """n fields (n, 1, H, W)."""
        g = gaussian_random_field(n, self.size, self.slope, generator=generator)
        return (self.unit * (g.exp() - self.threshold).clamp_min(0)).to(dtype)[:, None]

    def quantile(self, u: Tensor) -> Tensor:
        """The quantile function of the amount in a cell."""
        return self.unit * (torch.exp(torch.special.ndtri(u.double())) - self.threshold).clamp_min(0)


__all__ = ["SyntheticRain", "gaussian_random_field"]
