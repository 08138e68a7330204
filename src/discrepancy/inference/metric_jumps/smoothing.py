"""Kernels on the line, their one-sided moments, and the weights of local linear regression."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Side(enum.Enum):
    """Which points a local fit at x0 sees."""

    LEFT = "x < x0"
    RIGHT = "x >= x0"
    BOTH = "all"


class SmoothingKernel(ABC):
    """A symmetric density on [-1, 1] that says how much a point at u bandwidths counts."""

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """K(u), zero where |u| >= 1."""

    def half_moment(self, power: int, *, squared: bool = False) -> float:
        """int_0^1 u^power K(u) du, or of K(u)^2: exact for kernels that are polynomials on [0, 1] of low degree."""
        nodes, weights = _gauss_legendre()
        K = self(nodes)
        return float((weights * nodes**power * (K.square() if squared else K)).sum())

    def boundary_variance(self) -> float:
        """S_K = int_0^1 (k_2 - u k_1)^2 K(u)^2 du / (k_0 k_2 - k_1^2)^2 with k_j the half moments of K.

        The variance factor of a local linear fit at the end of the data, 4.498 for Epanechnikov's kernel; two-sided moments
        would give a seventh of it.
        """
        k0, k1, k2 = (self.half_moment(j) for j in range(3))
        top = sum(c * self.half_moment(j, squared=True) for j, c in enumerate((k2**2, -2 * k1 * k2, k1**2)))
        return top / (k0 * k2 - k1**2) ** 2

    def boundary_kernel(self, u: Tensor) -> Tensor:
        """(k_2 - u k_1) K(u) / (k_0 k_2 - k_1^2), u >= 0: the equivalent kernel of a local linear fit at the end of the data."""
        k0, k1, k2 = (self.half_moment(j) for j in range(3))
        return (k2 - u * k1) * self(u) / (k0 * k2 - k1**2)


def _gauss_legendre(points: int = 16) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], from the eigenvectors of the Jacobi matrix (Golub and Welsch); exact up to degree 31."""
    k = torch.arange(1, points, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0].square()


@dataclass(frozen=True)
class Epanechnikov(SmoothingKernel):
    """K(u) = 3/4 (1 - u^2)."""

    def __call__(self, u: Tensor) -> Tensor:
        """K(u)."""
        return 0.75 * (1 - u.square()).clamp_min(0)


@dataclass(frozen=True)
class Triangular(SmoothingKernel):
    """K(u) = 1 - |u|: the smallest variance at the end of the data."""

    def __call__(self, u: Tensor) -> Tensor:
        """K(u)."""
        return (1 - u.abs()).clamp_min(0)


@dataclass(frozen=True)
class Rectangular(SmoothingKernel):
    """K(u) = 1/2 for |u| < 1: ordinary least squares within the bandwidth."""

    def __call__(self, u: Tensor) -> Tensor:
        """K(u)."""
        return 0.5 * (u.abs() < 1)


@dataclass(frozen=True)
class LocalWeights:
    """Weights (m, n) of local linear fits at m places, each row summing to one, some entries negative; `count` (m,) points with
    a positive kernel; `solvable` (m,) says where they see two different x at least (rows of zeros elsewhere)."""

    weights: Float[Tensor, "m n"]
    count: Tensor
    solvable: Tensor


def local_linear_weights(
    x: Float[Tensor, " n"], at: Float[Tensor, " m"], h: float, kernel: SmoothingKernel, side: Side, seen: Tensor | None = None
) -> LocalWeights:
    """w_i = K_i (s_2 - s_1 u_i) / (s_0 s_2 - s_1^2), u_i = (x_i - x_0)/h, K_i = K(u_i), s_j = sum_i K_i u_i^j, at each x_0.

    The value at x_0 of the weighted least squares line through the points of the side: it reproduces linear functions exactly.
    `seen` (m, n) restricts the points further. m n time and memory.
    """
    u = (x - at[:, None]) / h
    K = kernel(u)
    if side is not Side.BOTH:
        K = K * ((u >= 0) if side is Side.RIGHT else (u < 0))
    if seen is not None:
        K = K * seen
    s0, s1, s2 = (K.sum(-1, keepdim=True), (K * u).sum(-1, keepdim=True), (K * u.square()).sum(-1, keepdim=True))
    determinant = s0 * s2 - s1.square()
    solvable = determinant > 1e-10 * s0 * s2  # equal x leave a determinant of rounding size
    w = torch.where(solvable, K * (s2 - s1 * u) / torch.where(solvable, determinant, torch.ones_like(s0)), 0.0)
    return LocalWeights(w, (K > 0).sum(-1), solvable[:, 0])


def _spread(x: Tensor) -> float:
    """min(sd, IQR / 1.34), the one that is positive where the other is zero; x is not constant."""
    quartiles = torch.quantile(x, torch.tensor([0.25, 0.75], dtype=x.dtype, device=x.device))
    return min(s for s in (float(x.std()), float(quartiles[1] - quartiles[0]) / 1.34) if s > 0)


def density_at(x: Float[Tensor, " n"], place: float) -> float:
    """The density of x at a place, by Gaussian kernels with Silverman's rule of thumb 0.9 min(sd, IQR / 1.34) n^(-1/5)."""
    width = 0.9 * _spread(x) * len(x) ** -0.2
    z = (x - place) / width
    return float(torch.exp(-z.square() / 2).mean()) / (width * math.sqrt(2 * math.pi))


def density_jump_p(x: Float[Tensor, " n"], cutoff: float, h: float, kernel: SmoothingKernel) -> float:
    """The p-value of no jump of the density of x at the cutoff: z^2 = n h (f_+ - f_-)^2 / (S_K (f_+ + f_-)).

    f_+ and f_- are densities on either side by the boundary kernel, unbiased up to h^2 for smooth densities; h is the one given,
    or the rule of thumb 2.34 min(sd, IQR / 1.34) n^(-1/5) where that is smaller. Units that could choose their side make p small.
    Source: after McCrary (2008).
    """
    h = min(h, 2.34 * _spread(x) * len(x) ** -0.2)
    u = (x - cutoff) / h
    right = float((kernel.boundary_kernel(u.abs()) * (u >= 0)).sum()) / (len(x) * h)
    left = float((kernel.boundary_kernel(u.abs()) * (u < 0)).sum()) / (len(x) * h)
    total = max(left, 0.0) + max(right, 0.0)
    if total == 0:
        return 1.0
    z = (right - left) / math.sqrt(kernel.boundary_variance() * total / (len(x) * h))
    return math.erfc(abs(z) / math.sqrt(2))


__all__ = [
    "Epanechnikov",
    "LocalWeights",
    "Rectangular",
    "Side",
    "SmoothingKernel",
    "Triangular",
    "density_at",
    "density_jump_p",
    "local_linear_weights",
]
