"""Metrics on covariance matrices: flat ones, as coordinates, and the two curved ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import at_least, positive
from discrepancy.linalg import (
    affine_invariant_distance,
    congruence,
    symmetric_exp,
    symmetric_function,
    symmetric_log,
    symmetric_power,
)
from discrepancy.metric_spaces.descent import riemannian_mean
from discrepancy.metric_spaces.space import Center
from discrepancy.transport.gaussian.bures import factor, map_factor, squared_bures


class CovarianceMetric(ABC):
    """A metric on covariance matrices; `definite` says that singular ones lie outside (or infinitely far away)."""

    definite: ClassVar[bool] = False
    references: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def squared(self, a: Tensor, b: Tensor) -> Tensor:
        """d^2(a, b) for covariances (..., d, d), leading axes broadcast."""

    @abstractmethod
    def mean(self, Y: Tensor, w: Tensor) -> Center:
        """The Frechet means (*B, d, d) of Y (n, d, d) under weightings w (*B, n) of either sign."""


class FlatMetric(CovarianceMetric):
    """A metric that is Euclidean in coordinates of the matrix: `embed` gives them, `retract` the nearest covariance."""

    @abstractmethod
    def embed(self, S: Tensor) -> Tensor:
        """Coordinates of the same shape (..., d, d), whose Frobenius distance is the metric."""

    @abstractmethod
    def retract(self, z: Tensor) -> Tensor:
        """The covariance nearest to coordinates."""

    def squared(self, a: Tensor, b: Tensor) -> Tensor:
        """The squared Frobenius distance of the coordinates."""
        return (self.embed(a) - self.embed(b)).square().sum((-1, -2))

    def mean(self, Y: Tensor, w: Tensor) -> Center:
        """The weighted average of the coordinates, projected."""
        return Center(self.retract(torch.tensordot(w, self.embed(Y), dims=1)))


def positive_part(S: Tensor) -> Tensor:
    """The positive semidefinite matrix nearest to symmetric S in the Frobenius norm: negative eigenvalues become zero."""

    def slope(s: Tensor, t: Tensor) -> Tensor:
        gap = s - t
        inside = (s.clamp_min(0) - t.clamp_min(0)) / torch.where(gap == 0, torch.ones_like(gap), gap)
        return torch.where(gap == 0, (s > 0).to(s.dtype).expand_as(gap), inside)

    S = (S + S.mT) / 2
    negative = torch.linalg.eigvalsh(S.detach())[..., 0] < 0
    if not bool(negative.any()):
        return S
    clipped = symmetric_function(S, lambda v: v.clamp_min(0), slope)
    return torch.where(negative[..., None, None], (clipped + clipped.mT) / 2, S)


@dataclass(frozen=True)
class Frobenius(FlatMetric):
    """|A - B|_F. Means are averages; with negative weights, their positive part."""

    def embed(self, S: Tensor) -> Tensor:
        """The matrix."""
        return S

    def retract(self, z: Tensor) -> Tensor:
        """The positive part."""
        return positive_part(z)


@dataclass(frozen=True)
class PowerMetric(FlatMetric):
    """|A^alpha - B^alpha|_F / alpha for alpha > 0: Frobenius at 1, the root metric at 1/2, log-Euclidean as alpha -> 0.

    Source: Dryden, Koloydenko and Zhou (2009); Dryden, Pennec and Peyrat (2010).
    """

    alpha: float = 0.5
    references = ("dryden-2009",)

    def __post_init__(self) -> None:
        """Raise ValueError unless alpha > 0."""
        positive(self.alpha, "alpha")

    def embed(self, S: Tensor) -> Tensor:
        """S^alpha / alpha."""
        return symmetric_power(S, self.alpha) / self.alpha

    def retract(self, z: Tensor) -> Tensor:
        """The power 1/alpha of the positive part."""
        return symmetric_power(positive_part(z * self.alpha), 1 / self.alpha)


def _lower(S: Tensor) -> Tensor:
    return torch.linalg.cholesky(S)


@dataclass(frozen=True)
class Cholesky(FlatMetric):
    """|L_A - L_B|_F of the Cholesky factors, S = L L^T. Depends on the order of the variables. Source: Wang et al. (2004)."""

    definite = True
    references = ("dryden-2009",)

    def embed(self, S: Tensor) -> Tensor:
        """The factor L, lower triangular."""
        return _lower(S)

    def retract(self, z: Tensor) -> Tensor:
        """L L^T, with negative diagonal entries of L set to zero: the nearest factor."""
        lower = z.tril(-1) + torch.diag_embed(z.diagonal(dim1=-2, dim2=-1).clamp_min(0))
        return congruence(lower, torch.eye(z.shape[-1], dtype=z.dtype, device=z.device))


@dataclass(frozen=True)
class LogCholesky(FlatMetric):
    """sqrt(|strict lower parts of L_A - L_B|^2 + |log diag L_A - log diag L_B|^2): flat and complete, no projection ever.

    Depends on the order of the variables. Source: Lin (2019).
    """

    definite = True
    references = ("lin-2019",)

    def embed(self, S: Tensor) -> Tensor:
        """L with the logarithms of its diagonal."""
        lower = _lower(S)
        return lower.tril(-1) + torch.diag_embed(lower.diagonal(dim1=-2, dim2=-1).log())

    def retract(self, z: Tensor) -> Tensor:
        """L L^T after exponentials on the diagonal."""
        lower = z.tril(-1) + torch.diag_embed(z.diagonal(dim1=-2, dim2=-1).exp())
        return congruence(lower, torch.eye(z.shape[-1], dtype=z.dtype, device=z.device))


@dataclass(frozen=True)
class LogEuclidean(FlatMetric):
    """|log A - log B|_F. Invariant under rotations, inversion and scale. Source: Arsigny, Fillard, Pennec and Ayache (2007)."""

    definite = True
    references = ("arsigny-2007",)

    def embed(self, S: Tensor) -> Tensor:
        """log S."""
        return symmetric_log(S)

    def retract(self, z: Tensor) -> Tensor:
        """exp z."""
        return symmetric_exp((z + z.mT) / 2)


class _CurvedMetric(CovarianceMetric):
    """A curved metric: means by Riemannian descent from the |w|-weighted average, which is definite where any point is."""

    max_iterations: int = 500

    @abstractmethod
    def look(self, o: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def exp(self, o: Tensor, v: Tensor) -> Tensor: ...

    @abstractmethod
    def square_norm(self, o: Tensor, v: Tensor) -> Tensor: ...

    @abstractmethod
    def unit(self, o: Tensor) -> Tensor: ...

    def mean(self, Y: Tensor, w: Tensor) -> Center:
        """A local minimum by descent; without gradient."""
        size = w.abs() / w.abs().sum(-1, keepdim=True)
        start = torch.tensordot(size, Y, dims=1)
        return riemannian_mean(self, Y.detach(), w.detach(), start.detach(), max_iterations=self.max_iterations)


@dataclass(frozen=True)
class AffineInvariant(_CurvedMetric):
    """|log(A^-1/2 B A^-1/2)|_F: no congruence P -> M P M^T changes it; non-positive curvature, hence one mean for weights >= 0.

    Source: Pennec, Fillard and Ayache (2006); Moakher (2005).
    """

    max_iterations: int = 500
    definite = True
    references = ("pennec-2006",)

    def __post_init__(self) -> None:
        """Raise ValueError unless max_iterations >= 1."""
        at_least(self.max_iterations, 1, "max_iterations")

    def squared(self, a: Tensor, b: Tensor) -> Tensor:
        """The squared distance."""
        return affine_invariant_distance(a, b).square()

    def look(self, o: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """log(L^-1 Y L^-T) for o = L L^T, a velocity in an orthonormal frame, with its squared length."""
        inverse = _inverse_factor(_lower(o)).unsqueeze(1)
        velocity = symmetric_log(congruence(inverse, Y))
        return velocity.square().sum((-1, -2)), velocity

    def exp(self, o: Tensor, v: Tensor) -> Tensor:
        """L exp(v) L^T."""
        return congruence(_lower(o), symmetric_exp(v))

    def square_norm(self, o: Tensor, v: Tensor) -> Tensor:
        """|v|_F^2."""
        return v.square().sum((-1, -2))

    def unit(self, o: Tensor) -> Tensor:
        """sqrt(d): what a change of all eigenvalues by a factor e is worth."""
        return torch.full_like(o[..., 0, 0], o.shape[-1] ** 0.5)


def _inverse_factor(lower: Tensor) -> Tensor:
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device).expand_as(lower)
    return torch.linalg.solve_triangular(lower, eye, upper=False)


@dataclass(frozen=True)
class Bures(_CurvedMetric):
    """The Bures-Wasserstein distance, W_2 between centred Gaussians; singular matrices allowed, non-negative curvature.

    With weights >= 0 a full step of the descent is the fixed point of Alvarez-Esteban et al. (2016). Source: Bhatia, Jain and
    Lim (2019).
    """

    max_iterations: int = 500
    references = ("bhatia-2019", "alvarez-esteban-2016")

    def __post_init__(self) -> None:
        """Raise ValueError unless max_iterations >= 1."""
        at_least(self.max_iterations, 1, "max_iterations")

    def squared(self, a: Tensor, b: Tensor) -> Tensor:
        """The squared distance."""
        return squared_bures(a, b)

    def look(self, o: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """T - I for the transport map T from N(0, o) to N(0, Y), a velocity as a linear field, with squared distances.

        Where o is well conditioned, T = L^-T (L^T Y L)^1/2 L^-1 and |(T - I) L|_F^2; else by factors and their singular values.
        """
        eye = torch.eye(o.shape[-1], dtype=o.dtype, device=o.device)
        lower, info = torch.linalg.cholesky_ex(o)
        values = torch.linalg.eigvalsh(o)
        if bool((info == 0).all()) and bool((values[:, 0] > torch.finfo(o.dtype).eps ** 0.35 * values[:, -1]).all()):
            L = lower.unsqueeze(1)
            root = symmetric_power(congruence(L.mT, Y), 0.5)
            inverse = _inverse_factor(lower).unsqueeze(1)
            velocity = congruence(inverse.mT, root) - eye
            return (velocity @ L).square().sum((-1, -2)), velocity
        W = map_factor(factor(o).unsqueeze(1), factor(Y))
        return squared_bures(Y, o.unsqueeze(1)), W @ W.mT - eye

    def exp(self, o: Tensor, v: Tensor) -> Tensor:
        """(I + v) o (I + v)."""
        return congruence(v + torch.eye(v.shape[-1], dtype=v.dtype, device=v.device), o)

    def square_norm(self, o: Tensor, v: Tensor) -> Tensor:
        """tr v o v, the mean squared length of the field under N(0, o)."""
        return ((v @ o) * v).sum((-1, -2))

    def unit(self, o: Tensor) -> Tensor:
        """The root of the trace: the distance from zero."""
        return o.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()


__all__ = [
    "AffineInvariant",
    "Bures",
    "Cholesky",
    "CovarianceMetric",
    "FlatMetric",
    "Frobenius",
    "LogCholesky",
    "LogEuclidean",
    "PowerMetric",
    "positive_part",
]
