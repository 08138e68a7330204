"""Spaces known by their distances only: a matrix of them, any discrepancy between samples, a user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import NumericalError
from discrepancy._validate import as_tensor, positive, require_finite
from discrepancy.metric_spaces.space import Center, MetricSpace, first_bad, rounding


def medoid(squares: Tensor, w: Tensor) -> Tensor:
    """The index (*B,) of the sample point j that minimises sum_i w_i d^2_ij, the first where several do."""
    return (w @ squares).argmin(-1)


@dataclass(frozen=True, eq=False)
class DistanceMatrixSpace(MetricSpace):
    """n points known by their distances D (n, n) only; a point is its index.

    A mean is the medoid: the best of the sample's own points, flagged approximate. With negative weights it is not even
    a bound on the mean: the minimiser lies outside the sample. n^2 time for each weighting. Raises ValueError unless D is square,
    symmetric, non-negative, with zero diagonal.
    """

    distances: Any
    approximate = True
    point_ndim = 0

    def __post_init__(self) -> None:
        """Validate the matrix."""
        D = as_tensor(self.distances, "distances")
        if D.ndim != 2 or D.shape[0] != D.shape[1] or D.shape[0] == 0:
            raise ValueError(f"distances must be a square matrix (n, n), got shape {tuple(D.shape)}")
        require_finite(D, "distances")
        slack = rounding(D) * float(D.abs().max())
        if bool((D < 0).any()):
            raise ValueError(f"distances must be non-negative, got {float(D.min()):.6g}")
        if bool((D.diagonal() > slack).any()):
            raise ValueError(f"distances must be zero on the diagonal, got {float(D.diagonal().max()):.6g}")
        if bool(((D - D.mT).abs() > slack).any()):
            raise ValueError(f"distances must be symmetric, got a difference of {float((D - D.mT).abs().max()):.6g}")
        object.__setattr__(self, "distances", D)

    def __repr__(self) -> str:
        return f"DistanceMatrixSpace({len(self.distances)} points)"

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Indices of points, whole numbers from 0 to n - 1."""
        index = torch.as_tensor(Y, device=self.distances.device)
        if index.is_floating_point() or index.dtype == torch.bool or index.is_complex():
            raise TypeError(f"{name} must hold whole numbers, the indices of points, got {index.dtype}")
        bad = (index < 0) | (index >= len(self.distances))
        if bool(bad.any()):
            raise ValueError(f"{name} must hold indices from 0 to {len(self.distances) - 1}, got {int(index[bad].flatten()[0])}")
        return index.long()

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distances[a, b].square()

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        squares = self.distances[Y][:, Y].square()
        return Center(Y[medoid(squares, w.to(squares.dtype))])


@dataclass(frozen=True)
class SampleSpace(MetricSpace):
    """Samples (..., k, d) as points, any `Discrepancy` D between them as distance: d(x, y) = D(x, y)^(1/power).

    `power` is 1 for a distance (W_p, sliced) and 2 for a squared one (MMD, EnergyDistance, SinkhornDivergence);
    values below zero, which unbiased estimates give, count as zero. The mean is the medoid, flagged approximate; `barycenter`
    finds one outside the sample. Directions and other draws come from `seed`: the same for all pairs. n^2/2 evaluations of D.
    """

    D: Discrepancy
    power: float = 1.0
    seed: int = 0
    approximate = True
    point_ndim = 2

    def __post_init__(self) -> None:
        """Raise TypeError unless D is a Discrepancy, ValueError unless power > 0."""
        if not isinstance(self.D, Discrepancy):
            raise TypeError(f"D must be a Discrepancy such as SlicedWasserstein(), got {type(self.D).__name__}")
        positive(self.power, "power")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Samples (..., k, d)."""
        Y = as_tensor(Y, name)
        if Y.ndim < 2 or Y.shape[-1] == 0 or Y.shape[-2] == 0:
            raise ValueError(f"{name} must hold samples (..., k, d), got shape {tuple(Y.shape)}")
        require_finite(Y, name)
        return Y

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (t.expand(*shape, *t.shape[-2:]) for t in (a, b))
        source = torch.Generator(device=a.device).manual_seed(self.seed)
        value = self.D(a, b, generator=source).clamp_min(0)
        return value if self.power == 2 else value ** (2 / self.power)

    @torch.no_grad()
    def _squares(self, Y: Tensor) -> Tensor:
        squares = Y.new_zeros(len(Y), len(Y))
        for i in range(len(Y) - 1):  # one row at a time: a batch of all pairs would copy the samples n times
            squares[i, i + 1 :] = self._squared(Y[i], Y[i + 1 :])
        return squares + squares.mT

    def tabulated(self, sample: Tensor) -> tuple[MetricSpace, Tensor]:
        """The matrix of distances, and the indices of the points in it."""
        return DistanceMatrixSpace(self._squares(sample).sqrt()), torch.arange(len(sample), device=sample.device)

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        return Center(Y[medoid(self._squares(Y), w.detach())])


@dataclass(frozen=True)
class CustomSpace(MetricSpace):
    """A space by two functions: distance(Y, o), from points Y (k, *P) to one point o (*P) as (k,), and mean(Y, w), the point that
    minimises sum_i w_i d^2(Y_i, .) for w (n,) of either sign.

    Without `mean` the medoid is taken and flagged approximate. `point_ndim`: axes of a point. Points are any finite arrays. The
    functions are called once for each weighting. Raises NumericalError where a distance comes back negative, not finite, or in
    another shape.
    """

    distance_function: Callable[[Tensor, Tensor], Any]
    mean_function: Callable[[Tensor, Tensor], Any] | None = None
    point_ndim: int = 1

    @property
    def approximate(self) -> bool:  # type: ignore[override]
        """Whether means are medoids."""
        return self.mean_function is None

    def __post_init__(self) -> None:
        """Raise TypeError for what cannot be called, ValueError for a negative point_ndim."""
        for name in ("distance_function", "mean_function"):
            given = getattr(self, name)
            if not callable(given) and not (given is None and name == "mean_function"):
                raise TypeError(f"{name} must be a function, got {type(given).__name__}")
        if self.point_ndim < 0:
            raise ValueError(f"point_ndim must be at least 0, got {self.point_ndim!r}")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Finite arrays."""
        Y = as_tensor(Y, name)
        if Y.ndim < self.point_ndim:
            raise ValueError(f"{name} must hold points of {self.point_ndim} axes, got shape {tuple(Y.shape)}")
        require_finite(Y, name)
        return Y

    def _to_one(self, Y: Tensor, o: Tensor) -> Tensor:
        found = as_tensor(self.distance_function(Y, o), "the distance", like=Y).to(Y)
        if found.shape != (len(Y),):
            raise NumericalError(f"distance_function must return one distance a point, ({len(Y)},), got {tuple(found.shape)}")
        bad = ~(found >= 0) | ~torch.isfinite(found)
        if bool(bad.any()):
            raise NumericalError(f"distance_function returned {float(found[bad][0])} at index {first_bad(bad)}")
        return found.square()

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        P = self.point_ndim
        lead_a, lead_b = a.shape[: a.ndim - P], b.shape[: b.ndim - P]
        shape = torch.broadcast_shapes(lead_a, lead_b)
        if not shape:
            return self._to_one(a.unsqueeze(0), b)[0]
        # Rows of the last leading axis go to one call where one side is a single point there.
        a_one, b_one = (not lead or lead[-1] == 1 for lead in (lead_a, lead_b))
        a, b = (t.expand(*shape, *t.shape[t.ndim - P :]).reshape(-1, shape[-1], *t.shape[t.ndim - P :]) for t in (a, b))
        rows = []
        for y, o in zip(a, b, strict=True):
            if b_one:
                rows.append(self._to_one(y, o[0]))
            elif a_one:
                rows.append(self._to_one(o, y[0]))
            else:
                rows.append(torch.cat([self._to_one(y[k : k + 1], o[k]) for k in range(len(y))]))
        return torch.stack(rows).reshape(shape)

    @torch.no_grad()
    def _squares(self, Y: Tensor) -> Tensor:
        return torch.stack([self._to_one(Y, o) for o in Y], 1)

    def tabulated(self, sample: Tensor) -> tuple[MetricSpace, Tensor]:
        """Without a mean: the matrix of distances, and the indices of the points in it."""
        if self.mean_function is not None:
            return self, sample
        return DistanceMatrixSpace(self._squares(sample).sqrt()), torch.arange(len(sample), device=sample.device)

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        rows = w.reshape(-1, w.shape[-1])
        if self.mean_function is None:
            return Center(Y[medoid(self._squares(Y), w)])
        points = [as_tensor(self.mean_function(Y, row), "the mean", like=Y).to(Y) for row in rows]
        if points[0].shape != Y.shape[1:]:
            raise ValueError(f"mean_function must return a point of shape {tuple(Y.shape[1:])}, got {tuple(points[0].shape)}")
        return Center(torch.stack(points).reshape(*w.shape[:-1], *Y.shape[1:]))


__all__ = ["CustomSpace", "DistanceMatrixSpace", "SampleSpace", "medoid"]
