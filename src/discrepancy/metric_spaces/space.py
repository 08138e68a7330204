"""What every metric space offers: points that are checked, distances, and Frechet means under signed weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, require_finite


@dataclass(frozen=True)
class Center:
    """Where a search for a mean ended: `point` (..., *P), its `iterations`, the relative `residual`, the `outcome`."""

    point: Tensor
    iterations: int = 0
    residual: float = 0.0
    outcome: Outcome = Outcome.CLOSED_FORM


@dataclass(frozen=True, repr=False)
class FrechetMean(Result):
    """A Frechet mean: the `point` (..., *P) that minimises sum_i w_i d^2(Y_i, .), and the `variance` (...), that minimum.

    `variance` is differentiable in points and weights (the mean held fixed: the envelope theorem), `point` in flat spaces only.
    `approximate` says that the search was among the sample's own points (a medoid). `iterations`, `residual` (relative) and
    `outcome` tell how it was found.
    """

    point: Tensor
    variance: Tensor
    iterations: int
    residual: float
    outcome: Outcome
    approximate: bool = False


def signed_weights(w: Any, n: int, like: Tensor, name: str = "weights") -> Tensor:
    """Weights (..., n) that sum to one and may be negative; None gives 1/n. ValueError says what is wrong."""
    if w is None:
        return torch.full((n,), 1.0 / n, dtype=like.dtype, device=like.device)
    given = as_tensor(w, name, like=like).to(like)
    if given.ndim == 0 or given.shape[-1] != n:
        raise ValueError(f"{name} must have one weight for each of the {n} points, got shape {tuple(given.shape)}")
    require_finite(given, name)
    total = given.sum(-1, keepdim=True)
    # Signed weights cancel: rounding of the sum is that of its terms.
    allowed = 1e-4 if like.dtype == torch.float32 else 1e-8
    off = float(((total.detach() - 1).abs() / given.detach().abs().sum(-1, keepdim=True).clamp_min(1)).max())
    if off > allowed:
        raise ValueError(f"{name} must sum to 1, got {float(total.detach().flatten()[0]):.8g}: divide by the sum")
    return given / total


class MetricSpace(ABC):
    """A metric space whose points are arrays of one shape P; a subclass is a frozen dataclass whose fields are its options.

    A subclass gives `points` (the check), `_squared` (elementwise squared distances) and `_mean` (means of one sample under many
    weightings). Where the geometry is flat, derive from `FlatSpace` and give coordinates instead.
    """

    references: ClassVar[tuple[str, ...]] = ()
    approximate: ClassVar[bool] = False  # means are searched among the sample's points only
    point_ndim: int = 1  # the number of axes of a point

    @abstractmethod
    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Points (..., *P) of this space, validated; ValueError says which is none and why."""

    @abstractmethod
    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        """Squared distances between validated points, leading axes broadcast."""

    @abstractmethod
    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        """The points (*B, *P) that minimise sum_i w_i d^2(Y_i, .), for a sample Y (n, *P) and weightings w (*B, n)."""

    def sample(self, Y: Any, name: str = "Y") -> Tensor:
        """A sample (n, *P) of at least one point, validated."""
        checked = self.points(Y, name)
        if checked.ndim != self.point_ndim + 1 or checked.shape[0] == 0:
            raise ValueError(
                f"{name} must be a sample of points with {self.point_ndim} axes each, hence {self.point_ndim + 1} axes in all, "
                f"got shape {tuple(checked.shape)}"
            )
        return checked

    def squared_distance(self, a: Any, b: Any) -> Tensor:
        """d^2(a, b) for points a (..., *P) and b (..., *P), whose leading axes broadcast. Differentiable where the metric is."""
        return self._squared(self.points(a, "a"), self.points(b, "b"))

    def distance(self, a: Any, b: Any) -> Tensor:
        """d(a, b), the root of `squared_distance`, with gradient zero where the points coincide."""
        squared = self.squared_distance(a, b)
        positive = squared > 0
        return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), torch.zeros_like(squared))

    def to_center(self, Y: Tensor, center: Tensor) -> Tensor:
        """d^2(Y_i, center) as (*B, n), for a validated sample Y (n, *P) and centers (*B, *P)."""
        return self._squared(Y, center.unsqueeze(-1 - self.point_ndim))

    def tabulated(self, sample: Tensor) -> tuple[MetricSpace, Tensor]:
        """A space with the same distances between the points of a validated sample, and the points in it, for many means of one
        sample. Itself, unless a mean is a search among the points: then a matrix of distances, whose points are indices."""
        return self, sample

    def frechet_mean(self, Y: Any, weights: Any = None) -> FrechetMean:
        """argmin over o of sum_i w_i d^2(Y_i, o), for a sample Y (n, *P) and weights (n,) or many weightings (..., n).

        Weights sum to one; negative ones, which local linear regression gives, are allowed. Raises ValueError for what is no
        sample or no weighting; warns `ConvergenceWarning` where an iteration stops early.
        """
        sample = self.sample(Y)
        w = signed_weights(weights, sample.shape[0], weights_like(sample))
        found = self._mean(sample, w)
        found.outcome.warn(f"the Frechet mean in {self!r}")
        variance = (w * self.to_center(sample, found.point.detach())).sum(-1)
        return FrechetMean(found.point, variance, found.iterations, found.residual, found.outcome, self.approximate)


def weights_like(Y: Tensor) -> Tensor:
    """What weights for these points look like: their dtype, or float64 where points are indices."""
    return Y if Y.is_floating_point() else torch.empty((), dtype=torch.float64, device=Y.device)


class FlatSpace(MetricSpace):
    """A metric space that is a convex set in Euclidean coordinates: its means are weighted averages, projected back onto it.

    A subclass gives `embed`, isometric coordinates (..., D), and `retract`, the point nearest to coordinates.
    """

    @abstractmethod
    def embed(self, Y: Tensor) -> Tensor:
        """Coordinates (..., D) of validated points (..., *P), whose Euclidean distance is the metric."""

    @abstractmethod
    def retract(self, z: Tensor) -> Tensor:
        """The points (..., *P) of this space nearest to coordinates z (..., D)."""

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.embed(a) - self.embed(b)).square().sum(-1)

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        return Center(self.retract(w @ self.embed(Y)))


@dataclass(frozen=True)
class EuclideanSpace(FlatSpace):
    """Vectors (..., d) with the Euclidean distance: means and variances are the usual ones, in the units of the coordinates."""

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Finite vectors (..., d)."""
        Y = as_tensor(Y, name)
        if Y.ndim == 0 or Y.shape[-1] == 0:
            raise ValueError(f"{name} must hold vectors (..., d), got shape {tuple(Y.shape)}")
        require_finite(Y, name)
        return Y

    def embed(self, Y: Tensor) -> Tensor:
        """The vectors themselves."""
        return Y

    def retract(self, z: Tensor) -> Tensor:
        """The vectors themselves."""
        return z


def first_bad(bad: Tensor) -> tuple[int, ...]:
    """The index of the first point that a check marked, for messages."""
    return tuple(int(i) for i in bad.nonzero()[0])


def rounding(Y: Tensor) -> float:
    """What the eye of a check forgives relative to the size of a point: the root of the dtype's rounding."""
    return math.sqrt(torch.finfo(Y.dtype).eps)


__all__ = [
    "Center",
    "EuclideanSpace",
    "FlatSpace",
    "FrechetMean",
    "MetricSpace",
    "first_bad",
    "rounding",
    "signed_weights",
    "weights_like",
]
