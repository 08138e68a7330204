"""Layers of networks on symmetric positive definite matrices: bilinear maps, eigenvalue floors, logarithms; the network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from discrepancy._validate import generator_or_default, positive
from discrepancy.linalg import symmetric_floor, symmetric_log
from discrepancy.methods.representation.bures_wasserstein_normalization import SPDBatchNorm, spd_matrices


class BiMap(nn.Module):
    """X -> W^T X W with W (inputs, outputs) of orthonormal columns, outputs <= inputs: a smaller SPD matrix for each input.

    X (..., inputs, inputs) -> (..., outputs, outputs). The columns stay orthonormal under any optimiser, since W is a function of
    an unconstrained parameter. W starts at a random frame drawn with `generator`. Raises ValueError for outputs > inputs, which
    would make every output singular. Source: 1608.04233 (2017).
    """

    references: ClassVar[tuple[str, ...]] = ("huang-van-gool-2017",)
    weight: Tensor

    def __init__(self, inputs: int, outputs: int, *, generator: torch.Generator | None = None) -> None:
        """Draw the frame."""
        super().__init__()
        if not 0 < outputs <= inputs:
            raise ValueError(f"outputs must lie in 1 .. {inputs} (a larger matrix would be singular), got {outputs}")
        draw = torch.randn(inputs, outputs, dtype=torch.float64, generator=generator_or_default(generator))
        self.weight = nn.Parameter(torch.linalg.qr(draw).Q)
        orthogonal(self, "weight")

    def forward(self, X: Float[Tensor, "... i i"]) -> Float[Tensor, "... o o"]:
        """W^T X W, symmetric to the last bit."""
        W = self.weight.to(X.dtype)
        product = W.mT @ X @ W
        return (product + product.mT) / 2


class ReEig(nn.Module):
    """Raises eigenvalues below `floor` to it: the network's nonlinearity, and a guard against singular matrices."""

    references: ClassVar[tuple[str, ...]] = ("huang-van-gool-2017",)

    def __init__(self, floor: float = 1e-5) -> None:
        """Check the floor."""
        super().__init__()
        self.floor = positive(floor, "floor")

    def forward(self, X: Float[Tensor, "... n n"]) -> Float[Tensor, "... n n"]:
        """U max(lambda, floor) U^T."""
        return symmetric_floor(X, self.floor)


class LogEig(nn.Module):
    """X -> the n (n + 1) / 2 entries of log X, off-diagonal ones times sqrt 2: lengths are log-Euclidean distances."""

    references: ClassVar[tuple[str, ...]] = ("huang-van-gool-2017",)

    def forward(self, X: Float[Tensor, "... n n"]) -> Float[Tensor, "... k"]:
        """The scaled upper triangle of log X."""
        n = X.shape[-1]
        row, column = torch.triu_indices(n, n, device=X.device)
        factor = torch.where(row == column, 1.0, math.sqrt(2)).to(X.dtype)
        return symmetric_log(X)[..., row, column] * factor


class SPDNet(nn.Module):
    """Classifies SPD matrices: for each step of `sizes` BiMap, a normalisation and ReEig, then LogEig and a linear layer.

    X (b, n, n), as covariance estimators give them, -> logits (b, classes), float64 parameters. sizes: the widths, `sizes[0]`
    that of the data. normalization: called with a width, returns the layer that stands behind each BiMap; None for none.
    input_normalization: the same for a layer in front. floor: that of ReEig. `SPDBatchNorm` layers use the statistics of the
    domain that `forward(X, domain=k)` names.
    Raises ValueError for sizes that grow and for what `spd_matrices` refuses. Source: 1608.04233 (2017).
    """

    references: ClassVar[tuple[str, ...]] = ("huang-van-gool-2017",)

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        *,
        normalization: Callable[[int], nn.Module] | None = SPDBatchNorm,
        input_normalization: Callable[[int], nn.Module] | None = None,
        floor: float = 1e-5,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the layers; `generator` draws the frames and the linear layer."""
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes must name the data's width and at least one more, got {tuple(sizes)}")
        layers: list[nn.Module] = [] if input_normalization is None else [input_normalization(sizes[0])]
        for inputs, outputs in itertools.pairwise(sizes):
            layers.append(BiMap(inputs, outputs, generator=generator))
            if normalization is not None:
                layers.append(normalization(outputs))
            layers.append(ReEig(floor))
        self.layers = nn.ModuleList(layers)
        self.logarithm = LogEig()
        width = sizes[-1] * (sizes[-1] + 1) // 2
        self.head = nn.Linear(width, classes, dtype=torch.float64)
        bound = 1 / math.sqrt(width)
        with torch.no_grad():
            for parameter in (self.head.weight, self.head.bias):
                parameter.uniform_(-bound, bound, generator=generator_or_default(generator))

    def features(self, X: Any, domain: int = 0) -> Float[Tensor, "b k"]:
        """What the linear layer sees: the logarithms of the last matrices."""
        X = spd_matrices(X)
        for layer in self.layers:
            X = layer(X, domain=domain) if isinstance(layer, SPDBatchNorm) else layer(X)
        return self.logarithm(X)

    def forward(self, X: Any, domain: int = 0) -> Float[Tensor, "b c"]:
        """The logits."""
        found = self.features(X, domain)
        return nn.functional.linear(found, self.head.weight.to(found.dtype), self.head.bias.to(found.dtype))


__all__ = ["BiMap", "LogEig", "ReEig", "SPDNet"]
