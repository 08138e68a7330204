"""What one set of features tells of another, as a loss: variational information distillation."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.networks.linear import linear

# Without a floor the variance of a channel that is predicted exactly falls to zero and the loss to -inf.
_LEAST_VARIANCE = 1e-5


class VariationalTransfer(nn.Module):
    """mean of ((mu(s) - t)^2 / v + log v) / 2 over samples, channels, places: minus a lower bound of I(t; s), but for constants.

    mu is a regressor from the features s (B, F, ...) to the teacher's t (B, T, ...), three linear maps of the channels at each
    place with ReLU between and no bias (1 x 1 convolutions for images); v_c = softplus(rho_c) + 1e-5 is a variance a channel,
    `variance` at the start. Both are parameters of this module: hand them to the optimiser with the network's, or nothing is
    learned. No gradient reaches the teacher. I(t; s) >= H(t) - loss - log(2 pi) / 2 a channel, so that lowering it raises the
    bound.

    Raises ValueError for widths below 1 and a variance that is not above 1e-5.
    Source: Ahn, Hu, Damianou, Lawrence and Dai (2019).
    """

    references: ClassVar[tuple[str, ...]] = ("ahn-2019", "holder-divergence")

    def __init__(
        self,
        source_channels: int,
        target_channels: int,
        *,
        variance: float = 5.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [whole_number(source_channels, 1, "source_channels"), whole_number(target_channels, 1, "target_channels")]
        if not positive(variance, "variance") > _LEAST_VARIANCE:
            raise ValueError(f"variance must be above {_LEAST_VARIANCE:g}, got {variance!r}")
        source = generator_or_default(generator)
        layers: list[nn.Module] = []
        for fan_in, fan_out in ((widths[0], widths[0]), (widths[0], widths[0]), (widths[0], widths[1])):
            layers += [linear(fan_in, fan_out, bias=False, generator=source), nn.ReLU()]
        self.regressor = nn.Sequential(*layers[:-1])
        excess = variance - _LEAST_VARIANCE
        # softplus^-1, without overflow for large variances.
        start = excess + math.log(-math.expm1(-excess))
        self.rho = nn.Parameter(torch.full((widths[1],), start))

    @property
    def variance(self) -> Tensor:
        """v (T,), one a channel."""
        return nn.functional.softplus(self.rho) + _LEAST_VARIANCE

    def predicted(self, source: Tensor) -> Tensor:
        """mu(s) (B, T, ...) for features s (B, F, ...)."""
        weight = self.regressor[0].weight
        return self.regressor(source.movedim(1, -1).to(weight.dtype)).movedim(-1, 1)  # type: ignore[arg-type]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The loss of features s (B, F, ...) and t (B, T, ...) of the same samples and places.

        Raises TypeError for what are no floating tensors; ValueError for other widths, batches or places.
        """
        first, last = self.regressor[0], self.regressor[-1]
        for name, value, width in (("source", source, first.in_features), ("target", target, last.out_features)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise TypeError(f"{name} features must be a floating tensor (B, C, ...), got {type(value).__name__}")
            if value.ndim < 2 or value.shape[1] != width:
                raise ValueError(f"{name} features must have shape (B, {width}, ...), got {tuple(value.shape)}")
        if source.shape[0] != target.shape[0] or source.shape[2:] != target.shape[2:]:
            raise ValueError(
                f"features must be of the same samples and places, got shapes {tuple(source.shape)} and {tuple(target.shape)}: "
                "resize one to the other's grid first"
            )
        predicted = self.predicted(source)
        v = self.variance.reshape(-1, *[1] * (target.ndim - 2))
        return (((predicted - target.detach().to(predicted.dtype)).square() / v + v.log()) / 2).mean()


__all__ = ["VariationalTransfer"]
