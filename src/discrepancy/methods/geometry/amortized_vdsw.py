"""Sliced losses whose slicing law a network predicts, and point-cloud autoencoders trained with them or with any distance."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._validate import positive, sample, sample_pair, whole_number
from discrepancy.directions.von_mises_fisher import polar_draw, turn_from_first_axis
from discrepancy.learning import Training
from discrepancy.linalg import root
from discrepancy.networks import PointCloudAutoencoder
from discrepancy.transport.projections import direction_costs
from discrepancy.transport.wasserstein import check_order


class AmortizedSlicedLoss:
    """v-DSW_p(X, Y) = (E W_p^p(theta.X, theta.Y))^(1/p), theta from the von Mises-Fisher law around slicer(X, Y).

    The `slicer` (a module from a pair of point sets to unit vectors, such as `SelfAttentionSlicer`) stands in for the maximum
    over centres that `VonMisesFisherSliced` finds for each pair by an ascent: a lower bound of it. Its training is a game:
    `update_slicer` raises the loss by one step of Adam on the slicer (betas 0 and 0.9), the samples detached; calling the loss
    gives values differentiable in X and Y, the centre detached. `concentration=math.inf` looks along the centre only: amortised
    max-sliced. Distances are means over points, not the sums of the paper's code (a factor n), and the root is taken of the mean
    over slices, in units of X. Zero at equal samples; symmetric for a symmetric slicer; a metric for a fixed centre only, since
    the centre moves with the pair. Time B L (n d + n log n).

    X (B, n, d) and Y (B, m, d), or (n, d) and (m, d) for a single pair. Raises ValueError for options out of range,
    different batch sizes, different dimensions and non-finite values. In one dimension, where there is nothing to predict, it
    warns and is the plain distance. Source: Nguyen, Nguyen and Ho (2023).
    """

    references = ("amortized-vdsw",)

    def __init__(
        self,
        slicer: nn.Module,
        *,
        concentration: float = 1.0,
        directions: int = 100,
        p: float = 2,
        learning_rate: float = 1e-3,
    ) -> None:
        """Check the options; the slicer's optimiser is made here."""
        if not isinstance(slicer, nn.Module):
            raise TypeError(f"slicer must be a torch module such as SelfAttentionSlicer(3), got {slicer!r}")
        if not (isinstance(concentration, int | float) and concentration > 0):
            raise ValueError(f"concentration must be positive, got {concentration!r}: 0 is the uniform law, SlicedWasserstein")
        if math.isinf(check_order(p)):
            raise ValueError("p must be finite: a mean of W_p^p over directions does not exist for p = inf")
        whole_number(directions, 1, "directions")
        self.slicer, self.concentration, self.directions, self.p = slicer, float(concentration), directions, p
        self._optimiser = torch.optim.Adam(slicer.parameters(), lr=positive(learning_rate, "learning_rate"), betas=(0.0, 0.9))

    def _pairs(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        x, y = sample(x, "x"), sample(y, "y")
        if x.shape[:-2] != y.shape[:-2]:
            raise ValueError(f"x has batch shape {tuple(x.shape[:-2])} and y {tuple(y.shape[:-2])}: a loss takes pairs")
        pair = sample_pair(x, y)
        return pair.x, pair.y

    def _mean_cost(self, x: Tensor, y: Tensor, centre: Tensor, generator: torch.Generator | None) -> Tensor:
        """E W_p^p for each pair (B,), in float64, over `directions` draws around its centre (B, d)."""
        count = 1 if math.isinf(self.concentration) else self.directions
        kappa = torch.tensor(self.concentration, dtype=torch.float64, device=x.device)
        around = polar_draw(kappa, x.shape[-1], torch.Size((x.shape[0], count)), generator)
        theta = turn_from_first_axis(around.to(centre.dtype), centre[:, None])
        equal = torch.full((x.shape[0], x.shape[1]), 1 / x.shape[1], dtype=x.dtype, device=x.device)
        other = torch.full((y.shape[0], y.shape[1]), 1 / y.shape[1], dtype=y.dtype, device=y.device)
        return direction_costs(x, y, equal, other, theta.to(x.dtype), self.p, equal_a=True, equal_b=True).mean(-1)

    def update_slicer(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> float:
        """One ascent step of the slicer on mean_b E W_p^p, samples detached; returns that mean before the step."""
        x, y = (t.detach().reshape(-1, *t.shape[-2:]) for t in self._pairs(x, y))
        if x.shape[-1] == 1:
            return float(self._line(x, y).detach().mean())
        with torch.enable_grad():
            objective = self._mean_cost(x, y, self.slicer(x, y), generator).mean()
            self._optimiser.zero_grad(set_to_none=True)
            (-objective).backward()
        self._optimiser.step()
        return float(objective.detach())

    def _line(self, x: Tensor, y: Tensor) -> Tensor:
        warnings.warn("one dimension has a single direction: the value is the plain Wasserstein distance", stacklevel=3)
        theta = x.new_ones(1, 1)
        equal, other = (t.new_full(t.shape[:2], 1 / t.shape[1]) for t in (x, y))
        return direction_costs(x, y, equal, other, theta, self.p, equal_a=True, equal_b=True)[:, 0]

    def __call__(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """The distance for each pair, of the batch shape; gradients in x and y, none in the slicer."""
        x, y = self._pairs(x, y)
        flat_x, flat_y = (t.reshape(-1, *t.shape[-2:]) for t in (x, y))
        if x.shape[-1] == 1:
            mean = self._line(flat_x, flat_y)
        else:
            with torch.no_grad():
                centre = self.slicer(flat_x, flat_y)
            mean = self._mean_cost(flat_x, flat_y, centre, generator)
        return root(mean, self.p).to(x.dtype).reshape(x.shape[:-2])


@dataclass(frozen=True)
class Reconstruction:
    """Trains a point-cloud autoencoder: minimises mean_b D(X_b, decoder(encoder(X_b)))^exponent over the network.

    D is any `Discrepancy`, or an `AmortizedSlicedLoss`, whose slicer then takes one ascent step before each step of the network.
    """

    network: PointCloudAutoencoder = field(default_factory=PointCloudAutoencoder)
    training: Training = field(default_factory=lambda: Training(steps=300, learning_rate=2e-3))
    batch_size: int = 32
    exponent: float = 2.0

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        whole_number(self.batch_size, 1, "batch_size")
        positive(self.exponent, "exponent")

    def fit(
        self, clouds: Tensor, loss: Discrepancy | AmortizedSlicedLoss, *, generator: torch.Generator | None = None
    ) -> tuple[nn.Module, dict[str, list[float]]]:
        """The trained network and the record of its loss, for clouds (N, n, d).

        The generator draws the network, the batches and the loss's directions. Raises TypeError for a loss of another kind,
        ValueError for clouds of another shape, NumericalError where the loss stops being finite.
        """
        if not isinstance(loss, Discrepancy | AmortizedSlicedLoss):
            raise TypeError(f"loss must be a Discrepancy or an AmortizedSlicedLoss, got {type(loss).__name__}")
        clouds = sample(clouds, "clouds")
        if clouds.ndim != 3:
            raise ValueError(f"clouds must have shape (N, n, d), got {tuple(clouds.shape)}")
        count, points, dim = clouds.shape
        network = self.network.build(points, dim, generator=generator, dtype=clouds.dtype)
        batch = min(self.batch_size, count)
        order: list[Tensor] = []

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            if not order:  # a new pass over the clouds, in a new order
                order.extend(torch.randperm(count, generator=generator)[: count - count % batch].split(batch))
            chosen = clouds[order.pop()]
            rebuilt = network(chosen)
            if isinstance(loss, AmortizedSlicedLoss):
                loss.update_slicer(chosen, rebuilt, generator=generator)
            return (loss(chosen, rebuilt, generator=generator) ** self.exponent).mean(), {}

        return network, self.training.run(network.parameters(), step)


__all__ = ["AmortizedSlicedLoss", "Reconstruction"]
