"""The Cauchy-Schwarz information bottleneck: a code that keeps what predicts the target and forgets the rest of the input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Dependence, Discrepancy
from discrepancy._results import Result
from discrepancy._validate import at_least, paired_rows, sample
from discrepancy.kernel_methods import CauchySchwarzInformation, ConditionalCauchySchwarz
from discrepancy.kernels import Gaussian, MedianHeuristic

PointLoss = Callable[[Tensor, Tensor], Tensor]
Prediction = ConditionalCauchySchwarz | Discrepancy | PointLoss

# Below this many rows the sums over pairs say nothing about conditional laws.
_LEAST_ROWS = 8
# Widths measured on other splits than the recipe judges: near neighbours in x (a fifth of the median distance), and a wide kernel
# on y, under which the divergence asks that residuals of neighbours cancel, not that each vanishes: noise is not learnt.
PREDICTION = ConditionalCauchySchwarz(Gaussian(MedianHeuristic(0.2)), Gaussian(MedianHeuristic(4.0)))
COMPRESSION = CauchySchwarzInformation(normalized=True)


@dataclass(frozen=True, repr=False)
class BottleneckTerms(Result):
    """One batch: the `loss` = prediction + beta compression, and its two parts unweighted."""

    loss: Tensor
    prediction: Tensor
    compression: Tensor


class CSInformationBottleneck(nn.Module):
    """The loss D(p(y|x); q(y_hat|x)) + beta I(x; t) of a batch, t the code and y_hat the prediction read off it.

    P is the law of the target y (given), Q that of the prediction y_hat (trained).

    prediction: a `ConditionalCauchySchwarz` (the default has a fifth of the median distance in x and four times that in y as
    widths), any `Discrepancy`, which then compares the joint samples (x, y) and (x, y_hat), or a plain function
    (y_hat, y) -> scalar such as `torch.nn.functional.mse_loss`.
    compression: any `Dependence` between x and t (`CauchySchwarzInformation`, `HSIC`, ...); not evaluated at beta = 0. A
    deterministic code has a finite value.

    The loss is one number of the whole batch, no mean over rows: it changes with the batch size, and micro-batches do not add up.
    x should be standardised, so that kernel widths fit. Time and memory O(n^2) in the batch. Raises ValueError for beta < 0,
    fewer than 8 rows, rows that are not paired and non-finite values, TypeError for parts of other kinds.
    Natural logarithms: the released code has log2, so that its beta is this one; of its loss this is log 2 times.
    Source: Yu, Yu, Lokse, Jenssen and Principe (2024, 2404.17951); deviations in `ConditionalCauchySchwarz`.
    """

    references: ClassVar[tuple[str, ...]] = ("cs-information-bottleneck",)

    def __init__(self, prediction: Prediction = PREDICTION, compression: Dependence = COMPRESSION, *, beta: float = 1e-2) -> None:
        """Check the options."""
        super().__init__()
        if isinstance(prediction, type) or not callable(prediction):
            raise TypeError(
                "prediction must be ConditionalCauchySchwarz(), a Discrepancy or a function (y_hat, y) -> scalar, "
                f"got {prediction!r}"
            )
        if not isinstance(compression, Dependence):
            raise TypeError(f"compression must be a Dependence such as CauchySchwarzInformation(), got {compression!r}")
        self.prediction, self.compression = prediction, compression
        self.beta = at_least(beta, 0, "beta")

    def forward(self, x: Tensor, t: Tensor, y: Tensor, y_hat: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss on inputs x (n, d), codes t (n, k), targets y and predictions y_hat (n, m) or (n,)."""
        return self.terms(x, t, y, y_hat, generator=generator).loss

    def terms(
        self, x: Tensor, t: Tensor, y: Tensor, y_hat: Tensor, *, generator: torch.Generator | None = None
    ) -> BottleneckTerms:
        """The loss with its parts."""
        inputs, targets, _ = paired_rows(x, y)
        predictions = sample(y_hat, "y_hat", like=targets)
        if predictions.shape != targets.shape:
            raise ValueError(
                f"y has shape {tuple(targets.shape)} and y_hat {tuple(predictions.shape)}: a prediction for each target is needed"
            )
        if inputs.shape[-2] < _LEAST_ROWS:
            raise ValueError(f"a batch needs at least {_LEAST_ROWS} rows to compare conditional laws, got {inputs.shape[-2]}")
        distance = self._distance(inputs, targets, predictions, generator)
        if self.beta == 0:
            return BottleneckTerms(distance, distance, torch.zeros_like(distance))
        kept = self.compression(x, t, generator=generator)
        return BottleneckTerms(distance + self.beta * kept, distance, kept)

    def _distance(self, x: Tensor, y: Tensor, y_hat: Tensor, generator: torch.Generator | None) -> Tensor:
        if isinstance(self.prediction, ConditionalCauchySchwarz):
            return self.prediction(x, y, y_hat)
        if isinstance(self.prediction, Discrepancy):
            return self.prediction(torch.cat([x, y], -1), torch.cat([x, y_hat], -1), generator=generator)
        return self.prediction(y_hat, y)

    def extra_repr(self) -> str:
        """The options."""
        return f"prediction={self.prediction!r}, compression={self.compression!r}, beta={self.beta:g}"


def cs_information_bottleneck(
    x: Tensor,
    t: Tensor,
    y: Tensor,
    y_hat: Tensor,
    *,
    beta: float = 1e-2,
    prediction: Prediction = PREDICTION,
    compression: Dependence = COMPRESSION,
) -> Tensor:
    """The loss of `CSInformationBottleneck` as a function."""
    return CSInformationBottleneck(prediction, compression, beta=beta)(x, t, y, y_hat)


@dataclass(frozen=True, repr=False)
class InformationPlanePoint(Result):
    """Where a code lies in the information plane: `about_target` in bits, `about_input` in the unit of the dependence used."""

    about_target: float
    about_input: float


@torch.no_grad()
def information_plane(x: Any, t: Any, y: Any, y_hat: Any, compression: Dependence = COMPRESSION) -> InformationPlanePoint:
    """The Gaussian proxy log2(Var y / MSE) / 2 of what the code says about the target, not below 0, and I(x; t).

    The first is the information of a Gaussian channel with that error, summed over outputs; unbounded where the error
    vanishes. Values of I(x; t) compare at equal n only.
    """
    targets, predictions, _ = paired_rows(y, y_hat)
    if targets.shape != predictions.shape:
        raise ValueError(f"y has shape {tuple(targets.shape)} and y_hat {tuple(predictions.shape)}: they must be the same")
    error = (targets - predictions).square().mean(0).double()
    variance = targets.var(0, correction=0).double()
    bits = 0.5 * (torch.log2(variance) - torch.log2(error)).clamp_min(0.0)
    value = float(torch.where(variance > 0, bits, torch.zeros_like(bits)).sum())
    return InformationPlanePoint(value if not math.isnan(value) else 0.0, float(compression(x, t)))


__all__ = [
    "COMPRESSION",
    "PREDICTION",
    "BottleneckTerms",
    "CSInformationBottleneck",
    "InformationPlanePoint",
    "cs_information_bottleneck",
    "information_plane",
]
