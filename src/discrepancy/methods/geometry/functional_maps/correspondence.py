"""Soft correspondences between the points of two shapes, from their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import positive, whole_number
from discrepancy.transport import RelativeEpsilon, Sinkhorn


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Two matrices with rows that sum to one: `xy` (n_x, n_y) takes functions on Y to functions on X, `yx` (n_y, n_x) those on X
    to Y. Row i of `yx` says which points of X the i-th point of Y may be."""

    xy: Float[Tensor, "n m"]
    yx: Float[Tensor, "m n"]

    def detach(self) -> Correspondence:
        """Without gradient."""
        return Correspondence(self.xy.detach(), self.yx.detach())


@runtime_checkable
class SoftCorrespondence(Protocol):
    """Features (n, c) and (m, c) to a `Correspondence`."""

    def __call__(self, features_x: Tensor, features_y: Tensor) -> Correspondence:
        """The correspondence, differentiable in the features."""
        ...


def unit_rows(features: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Rows at length one; a zero row stays zero and has gradient zero."""
    length = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return torch.where(
        length > 0, features / torch.where(length > 0, length, torch.ones_like(length)), torch.zeros_like(features)
    )


@dataclass(frozen=True)
class SoftmaxCorrespondence:
    """Pi_xy = softmax over rows of <f_x, f_y> / temperature for features of length one, Pi_yx the same with the roles exchanged.

    A point without features corresponds to all points alike. Memory and time n_x n_y. Raises ValueError for a temperature that
    is not positive.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Check the temperature."""
        positive(self.temperature, "temperature")

    def __call__(self, features_x: Float[Tensor, "n c"], features_y: Float[Tensor, "m c"]) -> Correspondence:
        """The correspondence, differentiable in the features."""
        similarity = unit_rows(features_x) @ unit_rows(features_y).mT / self.temperature
        return Correspondence(torch.softmax(similarity, -1), torch.softmax(similarity.mT, -1))


@dataclass(frozen=True)
class EntropicCorrespondence:
    """Entropic transport between the points, by `sweeps` normalisations of rows and columns in the log domain, whose gradient is
    that of these sweeps.

    log P = -D / (2 sigma^2), D the squared feature distances over their mean; a last normalisation of rows gives Pi_xy, one of
    columns Pi_yx. Every point of either shape must be used, which `SoftmaxCorrespondence` does not ask. Memory and time
    n_x n_y `sweeps` with gradient. Raises ValueError for options out of range.
    """

    sigma: float = 0.1
    sweeps: int = 10

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.sigma, "sigma")
        whole_number(self.sweeps, 1, "sweeps")

    def __call__(self, features_x: Float[Tensor, "n c"], features_y: Float[Tensor, "m c"]) -> Correspondence:
        """The correspondence, differentiable in the features."""
        centre = torch.cat([features_x, features_y]).detach().mean(0)
        x, y = features_x - centre, features_y - centre
        # By the matrix product: negative by rounding at most, which a logarithm of a plan does not mind.
        squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.mT
        mean = squares.mean()
        # All points alike: no distance tells them apart, and the plan is the product one.
        log_plan = -squares / torch.where(mean > 0, mean, torch.ones_like(mean)) / (2 * self.sigma**2)
        # Potentials and not the plan are updated: one reduction over the matrix a normalisation.
        f, g = torch.zeros_like(log_plan[:, :1]), torch.zeros_like(log_plan[:1])
        for _ in range(self.sweeps):
            f = -torch.logsumexp(log_plan + g, 1, keepdim=True)
            g = -torch.logsumexp(log_plan + f, 0, keepdim=True)
        return Correspondence(torch.softmax(log_plan + g, 1), torch.softmax(log_plan + f, 0).mT)


@dataclass(frozen=True)
class TransportCorrespondence:
    """The same plan solved to the end: the rows and columns of `problem`'s optimal plan between the features, at sum one.

    problem: a `Sinkhorn`; its epsilon is relative to the mean cost by default, 2 sigma^2 in terms of `EntropicCorrespondence`.
    Gradients are those of the optimal plan, by implicit differentiation: one linear solve, whatever the iterations were. Memory
    n_x n_y. Raises TypeError for another object.
    """

    problem: Sinkhorn = field(default_factory=lambda: Sinkhorn(RelativeEpsilon(0.02)))

    def __post_init__(self) -> None:
        """Check the problem."""
        if not isinstance(self.problem, Sinkhorn):
            raise TypeError(f"problem must be a Sinkhorn(...), which has a plan with a gradient, got {self.problem!r}")

    def __call__(self, features_x: Float[Tensor, "n c"], features_y: Float[Tensor, "m c"]) -> Correspondence:
        """The correspondence, differentiable in the features."""
        plan = self.problem.solve(features_x, features_y, differentiable=True).plan()
        return Correspondence(plan / plan.sum(1, keepdim=True), (plan / plan.sum(0)).mT)


__all__ = [
    "Correspondence",
    "EntropicCorrespondence",
    "SoftCorrespondence",
    "SoftmaxCorrespondence",
    "TransportCorrespondence",
    "unit_rows",
]
