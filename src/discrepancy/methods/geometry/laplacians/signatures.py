"""Heat and wave kernel signatures: what a point looks like from the shape's own vibrations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import positive, whole_number
from discrepancy.methods.geometry.laplacians.basis import LaplacianBasis


def _positive_values(basis: LaplacianBasis, what: str) -> tuple[Tensor, Tensor]:
    """The eigenpairs with values above rounding of zero; ValueError unless there are two at least."""
    keep = basis.values > 1e-7 * basis.values[-1]
    if int(keep.sum()) < 2 or bool(basis.values[keep][0] == basis.values[-1]):
        raise ValueError(f"{what} needs two different positive eigenvalues at least, got {int(keep.sum())}: raise k")
    return basis.values[keep], basis.vectors[:, keep]


def _check_count(count: int) -> None:
    whole_number(count, 1, "count")


@dataclass(frozen=True)
class HeatKernelSignature:
    """How much heat remains at a point after a time: HKS(x, t) = sum_k exp(-lambda_k t) phi_k(x)^2, divided by its integral.

    `count` times, even in their logarithm from 4 ln 10 / lambda_max to 4 ln 10 / lambda_1, over the eigenvalues at hand. Called
    on a basis it returns (n, count). The same for isometric shapes; blind to their reflections. Raises ValueError where fewer
    than two eigenvalues are positive. Time n k count. Source: Sun, Ovsjanikov and Guibas (2009).
    """

    count: int = 16

    def __post_init__(self) -> None:
        """Check the options."""
        _check_count(self.count)

    def __call__(self, basis: LaplacianBasis) -> Float[Tensor, "n t"]:
        """The signature of every point."""
        values, _ = _positive_values(basis, "the heat kernel signature")
        ends = (4 * torch.tensor(10.0, dtype=values.dtype).log() / torch.stack([values[-1], values[0]])).log()
        share = torch.linspace(0, 1, self.count, dtype=values.dtype, device=values.device)
        times = (ends[0] + (ends[1] - ends[0]) * share).exp()
        decay = (-basis.values[:, None] * times).exp()
        return basis.vectors.square() @ decay / decay.sum(0)


@dataclass(frozen=True)
class WaveKernelSignature:
    """Where a quantum particle of a given energy is found: WKS(x, e) = sum_k phi_k(x)^2 w_k(e) / sum_k w_k(e) with
    w_k(e) = exp(-(e - log lambda_k)^2 / (2 sigma^2)) over the positive eigenvalues.

    `count` energies e, even between log lambda_1 and log lambda_max with a margin of 2 sigma at both ends; sigma is `width` times
    their distance. Called on a basis it returns (n, count). The same for isometric shapes; blind to their reflections. Raises
    ValueError where fewer than two eigenvalues are positive. Time n k count. Source: Aubry, Schlickewei and Cremers (2011).
    """

    count: int = 128
    width: float = 7.0

    def __post_init__(self) -> None:
        """Check the options."""
        _check_count(self.count)
        positive(self.width, "width")

    def __call__(self, basis: LaplacianBasis) -> Float[Tensor, "n e"]:
        """The signature of every point."""
        values, vectors = _positive_values(basis, "the wave kernel signature")
        logs = values.log()
        # The margins take 4 sigma of the whole span: sigma = width * span / count, energies span less 4 sigma.
        sigma = self.width * (logs[-1] - logs[0]) / (self.count + 4 * self.width)
        share = torch.linspace(0, 1, self.count, dtype=logs.dtype, device=logs.device)
        energies = logs[0] + 2 * sigma + (logs[-1] - logs[0] - 4 * sigma) * share
        weight = torch.softmax(-((energies - logs[:, None]) ** 2) / (2 * sigma**2), dim=0)
        return vectors.square() @ weight


__all__ = ["HeatKernelSignature", "WaveKernelSignature"]
