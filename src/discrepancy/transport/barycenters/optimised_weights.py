"""Free-support barycenters whose weights are found together with their points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import whole_number
from discrepancy.transport.barycenters.exact import weights_and_plans


@dataclass(frozen=True)
class OptimisedWeights:
    """Have `barycenter` find the weights of its points too, instead of giving all the same.

    Alternates two exact minimisations: weights and plans at fixed points (a linear programme), points at fixed plans (means), so
    that the objective falls at every step. For `OptimalTransport()` with the squared cost, and small problems: size times all
    points of all clouds are at most `max_unknowns` (ValueError). Points may end with weight zero; they stay where they are.
    """

    max_unknowns: int = 300_000

    def __post_init__(self) -> None:
        """Raise ValueError unless the limit is a positive whole number."""
        whole_number(self.max_unknowns, 1, "max_unknowns")


@dataclass(frozen=True)
class Alternation:
    """Points (k, d) with weights (k,), the objective along the way, and how it ended."""

    points: Tensor
    weights: Tensor
    values: list[float]
    outcome: Outcome


def alternate(
    samples: list[Tensor],
    masses: list[Tensor],
    share: Tensor,
    points: Tensor,
    limit: int,
    tolerance: float,
    option: OptimisedWeights,
) -> Alternation:
    """Weights and plans, then points, in turn from `points` (k, d)."""
    unknowns = len(points) * sum(len(c) for c in samples)
    if unknowns > option.max_unknowns:
        raise ValueError(
            f"{len(points)} points against {sum(len(c) for c in samples)} make {unknowns} unknowns, more than max_unknowns = "
            f"{option.max_unknowns}: take a smaller size, or equal weights"
        )
    dtype = points.dtype
    clouds = [c.double().numpy() for c in samples]
    given = [m.double().numpy() for m in masses]
    w = share.double().numpy()
    z = points.double().numpy()
    values: list[float] = []
    outcome = Outcome.ITERATION_LIMIT
    while True:
        tables = [np.square(z[:, None] - c).sum(-1) for c in clouds]
        a, terms, _, _, _, plans = weights_and_plans(tables, given, w)
        values.append(float(w @ terms))
        if len(values) > 1 and values[-2] - values[-1] <= tolerance * abs(values[-2]):
            outcome = Outcome.CONVERGED
            break
        if len(values) > limit:
            break
        means = sum(s * (p @ c) for s, p, c in zip(w, plans, clouds, strict=True))
        live = a > 0
        z = np.where(live[:, None], means / np.where(live, a, 1.0)[:, None], z)
    return Alternation(torch.from_numpy(z).to(dtype), torch.from_numpy(a).to(dtype), values, outcome)


__all__ = ["Alternation", "OptimisedWeights", "alternate"]
