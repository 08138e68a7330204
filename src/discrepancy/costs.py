"""Ground costs c(x, y) between points: what it takes to move a unit of mass from x to y.

A cost is an object with `matrix` (all pairs), `pairs` (row by row) and `contract` (the gradient of a plan's total cost,
which is all that an envelope gradient needs). A plain function of two broadcast tensors becomes one with `as_cost`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import positive, whole_number


class Cost(ABC):
    """A ground cost; a subclass is a frozen dataclass that implements `matrix` and `pairs`.

    symmetric               c(x, y) = c(y, x)
    translation_invariant   c(x + t, y + t) = c(x, y)
    degree                  c(s x, s y) = s^degree c(x, y) for s > 0, or None where there is no such law
    negative_definite       exp(-c / epsilon) is a positive-definite kernel for every epsilon > 0: then the Sinkhorn divergence
                            is non-negative
    premetric               c >= 0 and c(x, x) = 0: then a sample is at transport cost 0 from itself
    metric                  also symmetric, with the triangle inequality: then the transport cost is a norm of the difference of
                            the two measures (Kantorovich-Rubinstein)
    """

    symmetric: ClassVar[bool] = True
    translation_invariant: ClassVar[bool] = True
    degree: float | None = None
    negative_definite: bool = True
    premetric: ClassVar[bool] = False
    metric: bool = False

    @abstractmethod
    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """All costs c(x_i, y_j), shape (..., n, m), for x (..., n, d) and y (..., m, d); differentiable, quadratic memory."""

    @abstractmethod
    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs c(x_i, y_i) of paired rows, shape (..., n), for x and y (..., n, d); differentiable."""

    def check(self, x: Tensor, name: str) -> None:  # noqa: B027 - most costs take any point
        """Raise ValueError where a point lies outside the cost's domain."""

    def block_size(self, m: int, d: int, budget: int, itemsize: int) -> int:
        """How many rows against m points of dimension d one block may hold in `budget` bytes."""
        return max(1, budget // max(1, m * itemsize * 4))

    def contract(self, x: Tensor, y: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of sum_ij plan_ij c(x_i, y_j) in x (..., n, d) and in y (..., m, d), the plan held fixed."""
        with torch.enable_grad():
            left, right = x.detach().requires_grad_(), y.detach().requires_grad_()
            total = (plan.detach() * self.matrix(left, right)).sum()
            gx, gy = torch.autograd.grad(total, (left, right), allow_unused=True)
        return (torch.zeros_like(x) if gx is None else gx), (torch.zeros_like(y) if gy is None else gy)


def _distances(x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """|x_i - y_j|_p by direct differences; its gradient at coincidence is zero.

    The faster expansion |x|^2 + |y|^2 - 2 x.y loses half of the digits of a short distance, and the root shows it.
    """
    return torch.cdist(x.contiguous(), y.contiguous(), p=p, compute_mode="donot_use_mm_for_euclid_dist")


def _norm(v: Tensor) -> Tensor:
    """|v|_2 over the last axis, with gradient zero at v = 0."""
    square = v.square().sum(-1)
    moved = square > 0
    return torch.where(moved, torch.where(moved, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square))


def _power(distance: Tensor, p: float) -> Tensor:
    """distance^p with gradient zero at coincidence, whatever p."""
    if p == 1.0:
        return distance
    moved = distance > 0
    return torch.where(moved, torch.where(moved, distance, torch.ones_like(distance)) ** p, torch.zeros_like(distance))


@dataclass(frozen=True)
class SquaredEuclidean(Cost):
    """|x - y|^2, without a factor 1/2. Source: the quadratic cost of Brenier's theorem."""

    degree = 2.0
    premetric = True

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_j|^2: coordinate by coordinate in up to 4 dimensions, else by one matrix product about the common mean."""
        if x.shape[-1] <= 4:
            total = (x[..., :, None, 0] - y[..., None, :, 0]).square()
            for k in range(1, x.shape[-1]):
                total = total + (x[..., :, None, k] - y[..., None, :, k]).square()
            return total
        # Far from the origin the expansion would cancel; about the mean of y it is as accurate as the spread allows.
        centre = y.detach().mean(-2, keepdim=True)
        x, y = x - centre, y - centre
        product = torch.matmul(x, y.mT)
        return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * product).clamp_min(0)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_i|^2."""
        return (x - y).square().sum(-1)

    def contract(self, x: Tensor, y: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """2 (x r - P y) and 2 (y c - P^T x), with r and c the plan's marginals: two matrix products."""
        centre = y.detach().mean(-2, keepdim=True)
        x, y = x.detach() - centre, y.detach() - centre
        gx = 2 * (x * plan.sum(-1, keepdim=True) - torch.matmul(plan, y))
        gy = 2 * (y * plan.sum(-2)[..., None] - torch.matmul(plan.mT, x))
        return gx, gy


@dataclass(frozen=True)
class Euclidean(Cost):
    """|x - y|_2; its gradient at coincidence is zero."""

    degree = 1.0
    premetric = True
    metric = True

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_j|_2 by direct differences."""
        return _distances(x, y)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_i|_2."""
        return _norm(x - y)


@dataclass(frozen=True)
class Manhattan(Cost):
    """|x - y|_1, the sum of absolute differences; its slope in a coordinate that agrees is zero."""

    degree = 1.0
    premetric = True
    metric = True

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_j|_1."""
        return _distances(x, y, 1.0)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_i|_1."""
        return (x - y).abs().sum(-1)


@dataclass(frozen=True)
class PowerCost(Cost):
    """|x - y|_2^p for p > 0; for p <= 1 the slope at coincidence, infinite or undefined, is set to zero."""

    p: float
    premetric = True

    def __post_init__(self) -> None:
        """Raise ValueError unless p is positive and finite."""
        positive(self.p, "p")

    @property
    def metric(self) -> bool:  # type: ignore[override]
        """p <= 1: a concave power of a metric is one."""
        return self.p <= 1

    @property
    def degree(self) -> float:  # type: ignore[override]
        """p."""
        return float(self.p)

    @property
    def negative_definite(self) -> bool:  # type: ignore[override]
        """p <= 2 (Schoenberg)."""
        return self.p <= 2

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_j|_2^p by direct differences."""
        return _power(_distances(x, y), float(self.p))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_i|_2^p."""
        return _power(_norm(x - y), float(self.p))


@dataclass(frozen=True)
class Cosine(Cost):
    """1 - cos of the angle between x and y, in [0, 2]; a zero vector has no direction and is refused with ValueError."""

    translation_invariant = False
    degree = 0.0
    premetric = True

    def check(self, x: Tensor, name: str) -> None:
        """Raise ValueError if a row is zero."""
        zero = (x.detach() == 0).all(-1)
        if bool(zero.any()):
            raise ValueError(f"{name} has {int(zero.sum())} zero row(s), which have no direction: drop them, or use another cost")

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """1 - x_i.y_j / (|x_i| |y_j|), as half the squared distance of the directions, which does not cancel."""
        return SquaredEuclidean().matrix(x / _norm(x)[..., None], y / _norm(y)[..., None]) / 2

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """1 - x_i.y_i / (|x_i| |y_i|)."""
        return (x / _norm(x)[..., None] - y / _norm(y)[..., None]).square().sum(-1) / 2


@dataclass(frozen=True)
class Sphere(Cost):
    """The geodesic distance arccos(x.y) between unit vectors, in [0, pi].

    Computed as 2 atan2(|x - y|, |x + y|): accurate at both ends, and the slope, which arccos makes infinite there, has
    length one everywhere but at coincident and antipodal points, where it is zero. Rows must have norm one.
    """

    translation_invariant = False
    premetric = True
    metric = True

    def check(self, x: Tensor, name: str) -> None:
        """Raise ValueError unless all rows have norm one, within 1e-4 (float32) or 1e-6 (float64)."""
        worst = float((torch.linalg.vector_norm(x.detach(), dim=-1) - 1).abs().max())
        if not worst <= (1e-4 if x.dtype == torch.float32 else 1e-6):
            raise ValueError(
                f"{name} must have rows of norm 1 for the cost Sphere, got a norm off by {worst:.3g}: "
                f"divide by it, {name} / {name}.norm(dim=-1, keepdim=True)"
            )

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """2 atan2(|x_i - y_j|, |x_i + y_j|)."""
        return 2 * torch.atan2(_distances(x, y), _distances(x, -y))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """2 atan2(|x_i - y_i|, |x_i + y_i|)."""
        return 2 * torch.atan2(_norm(x - y), _norm(x + y))


@dataclass(frozen=True)
class SumOfEuclidean(Cost):
    """|x - x'|_2 + |y - y'|_2 between pairs (x, y) laid side by side, the first `width` coordinates being x: the sum metric of a
    product space."""

    width: int
    degree = 1.0
    premetric = True
    metric = True

    def __post_init__(self) -> None:
        """Raise ValueError unless width is a whole number of at least 1."""
        whole_number(self.width, 1, "width")

    def check(self, x: Tensor, name: str) -> None:
        """Raise ValueError unless something is left for y."""
        if x.shape[-1] <= self.width:
            raise ValueError(f"{name} must have more than {self.width} features, the width of its first part, got {x.shape[-1]}")

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of both parts' distances, all pairs."""
        k = self.width
        return _distances(x[..., :k], y[..., :k]) + _distances(x[..., k:], y[..., k:])

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of both parts' distances, row by row."""
        k = self.width
        return _norm(x[..., :k] - y[..., :k]) + _norm(x[..., k:] - y[..., k:])


@dataclass(frozen=True)
class FunctionCost(Cost):
    """A cost of your own: function(x, y) reduces the last axis of two tensors that broadcast, as (x - y).abs().sum(-1) does.

    Nothing is assumed of it: it may be asymmetric (`symmetric=True` lets a solver exploit symmetry), and it must be
    differentiable by autograd where gradients in the points are wanted. All pairs cost d times the memory of the matrix.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    symmetric: bool = False  # type: ignore[misc]
    translation_invariant = False
    negative_definite = False

    def __post_init__(self) -> None:
        """Raise TypeError unless the function can be called."""
        if not callable(self.function):
            raise TypeError(f"function must be callable as function(x, y), got {type(self.function).__name__}")

    def block_size(self, m: int, d: int, budget: int, itemsize: int) -> int:
        """How many rows fit when the function forms all differences."""
        return max(1, budget // max(1, m * itemsize * 4 * (d + 1)))

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """function(x_i, y_j) by broadcasting; ValueError if the function does not reduce the last axis."""
        return self._reduced(x[..., :, None, :], y[..., None, :, :])

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """function(x_i, y_i)."""
        return self._reduced(x, y)

    def _reduced(self, x: Tensor, y: Tensor) -> Tensor:
        costs = self.function(x, y)
        want = torch.broadcast_shapes(x.shape, y.shape)[:-1]
        if not isinstance(costs, Tensor) or costs.shape != want:
            got = tuple(costs.shape) if isinstance(costs, Tensor) else type(costs).__name__
            raise ValueError(f"the cost function must reduce the last axis to shape {tuple(want)}, got {got}")
        return costs


def as_cost(cost: Cost | Callable[[Tensor, Tensor], Tensor]) -> Cost:
    """A cost object from one, or from a function of two broadcast tensors; TypeError for anything else."""
    if isinstance(cost, Cost):
        return cost
    if isinstance(cost, type) or not callable(cost):
        raise TypeError(f"cost must be a cost object such as SquaredEuclidean(), or a function of (x, y), got {cost!r}")
    return FunctionCost(cost)


__all__ = [
    "Cosine",
    "Cost",
    "Euclidean",
    "FunctionCost",
    "Manhattan",
    "PowerCost",
    "Sphere",
    "SquaredEuclidean",
    "SumOfEuclidean",
    "as_cost",
]
