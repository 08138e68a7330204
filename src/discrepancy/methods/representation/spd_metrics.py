"""Metrics on symmetric positive definite matrices, as a normalisation uses them: through the tangent space at the identity.

A metric carries a point Y to the tangent vector V = T(Log_G(Y)) at the identity, with G the centre and T the transport from G to
the identity, measures V there, and carries V back to the point Exp_W(T(V)) about another centre W.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy.linalg import (
    affine_invariant_distance,
    affine_invariant_geodesic,
    congruence,
    lyapunov_power,
    symmetric_exp,
    symmetric_floor,
    symmetric_log,
    symmetric_power,
)
from discrepancy.transport.gaussian.bures import aligned, factor, squared_bures

# Bures-Wasserstein exponentials are one-to-one while I + L_W[V] is positive definite; vectors beyond are brought back to here.
_EDGE = 5e-4


def _transport_map(P: Tensor, Q: Tensor) -> Tensor:
    """T = P^-1/2 (P^1/2 Q P^1/2)^1/2 P^-1/2, with T P T = Q; differentiable in both."""
    return congruence(symmetric_power(P, -0.5), symmetric_power(congruence(symmetric_power(P, 0.5), Q), 0.5))


class SPDMetric(ABC):
    """A Riemannian metric on positive definite matrices (..., n, n); a subclass is a frozen dataclass.

    `learns_reference` says whether a layer that uses it also learns the matrix M of the pull-back X -> M^-1/2 X M^-1/2.
    """

    learns_reference: ClassVar[bool] = False
    references: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def to_tangent(self, Y: Float[Tensor, "b n n"], G: Float[Tensor, "n n"]) -> Float[Tensor, "b n n"]:
        """Log_G(Y), transported from G to the identity. Differentiable in Y, not in G."""

    @abstractmethod
    def from_tangent(self, V: Float[Tensor, "b n n"], W: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "b n n"], int]:
        """Exp_W of V transported from the identity to W, and how many eigenvalues were clipped for that. Differentiable."""

    @abstractmethod
    def squared_norm(self, V: Float[Tensor, "b n n"]) -> Float[Tensor, " b"]:
        """The squared length of a tangent vector at the identity."""

    @abstractmethod
    def squared_distance(self, P: Float[Tensor, "... n n"], Q: Float[Tensor, "... n n"]) -> Float[Tensor, "..."]:
        """The squared geodesic distance."""

    @abstractmethod
    def geodesic(self, P: Float[Tensor, "n n"], Q: Float[Tensor, "n n"], t: float) -> Float[Tensor, "n n"]:
        """The point at time t on the way from P to Q."""

    @torch.no_grad()
    def mean(self, Y: Float[Tensor, "b n n"], iterations: int) -> Float[Tensor, "n n"]:
        """The Frechet mean after so many fixed-point steps G <- Exp_G(mean of Log_G(Y)) from the arithmetic mean."""
        G = Y.mean(0)
        for _ in range(iterations):
            # The transport to G is linear, so the mean may be taken at the identity.
            G, _ = self.from_tangent(self.to_tangent(Y, G).mean(0, keepdim=True), G)
            G = G[0]
        return G


@dataclass(frozen=True)
class BuresWasserstein(SPDMetric):
    """d^2(P, Q) = tr P + tr Q - 2 tr (P^1/2 Q P^1/2)^1/2: the transport metric of centred Gaussians, finite on singular matrices.

    With the transport map T = P^-1/2 (P^1/2 Q P^1/2)^1/2 P^-1/2 and Lyapunov's operator L_P[S] = P S + S P: Log_P(Q) =
    L_P[T - I], Exp_P(V) = (I + S) P (I + S) with L_P[S] = V, transport between P and the identity (L_P / 2)^(1/2), and
    |V|^2 = tr V^2 / 4 at the identity. Where I + S is not positive definite the exponential folds back: eigenvalues of S below
    -1 + 5e-4 are clipped and counted. Source: Malago, Montrucchio and Pistone (2018); Bhatia, Jain and Lim (2019).
    """

    references: ClassVar[tuple[str, ...]] = ("malago-2018", "bhatia-2019")

    def to_tangent(self, Y: Tensor, G: Tensor) -> Tensor:
        """sqrt 2 L_G^(1/2)[T - I] with T the transport map from G to Y."""
        eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
        return math.sqrt(2) * lyapunov_power(G, _transport_map(G, Y) - eye, 0.5)

    def from_tangent(self, V: Tensor, W: Tensor) -> tuple[Tensor, int]:
        """(I + S) W (I + S) with S = L_W^(-1/2)[V] / sqrt 2, clipped where I + S would not be positive definite."""
        S = lyapunov_power(W, V, -0.5) / math.sqrt(2)
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        clipped = 0
        if bool((torch.linalg.cholesky_ex(S.detach() + (1 - _EDGE) * eye).info > 0).any()):
            clipped = int((torch.linalg.eigvalsh(S.detach()) < _EDGE - 1).sum())
            S = symmetric_floor(S, _EDGE - 1)
        return congruence(eye + S, W), clipped

    @torch.no_grad()
    def mean(self, Y: Tensor, iterations: int) -> Tensor:
        """G <- T G T with T the mean of the transport maps from G: the same step, without a detour by the identity."""
        G = Y.mean(0)
        for _ in range(iterations):
            G = congruence(_transport_map(G, Y).mean(0), G)
        return G

    def squared_norm(self, V: Tensor) -> Tensor:
        """tr V^2 / 4."""
        return V.square().sum((-1, -2)) / 4

    def squared_distance(self, P: Tensor, Q: Tensor) -> Tensor:
        """The squared Bures distance, exact on singular and nearly equal matrices."""
        return squared_bures(P, Q)

    def geodesic(self, P: Tensor, Q: Tensor, t: float) -> Tensor:
        """((1 - t) I + t T) P ((1 - t) I + t T), from factors."""
        A, B = aligned(factor(P), factor(Q))
        moved = (1 - t) * A + t * B
        return moved @ moved.mT


@dataclass(frozen=True)
class GeneralizedBuresWasserstein(BuresWasserstein):
    """Bures-Wasserstein after X -> M^-1/2 X M^-1/2 with a learned positive definite M, the layer's `reference`.

    In those coordinates the maths is that of `BuresWasserstein`. Source: Han et al. (2023).
    """

    learns_reference: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = ("han-2023", "malago-2018")


@dataclass(frozen=True)
class AffineInvariant(SPDMetric):
    """d(P, Q) = |log(P^-1/2 Q P^-1/2)|_F: blind to congruences, infinitely far from singular matrices.

    Source: Pennec, Fillard and Ayache (2006).
    """

    references: ClassVar[tuple[str, ...]] = ("pennec-2006",)

    def to_tangent(self, Y: Tensor, G: Tensor) -> Tensor:
        """log(G^-1/2 Y G^-1/2). Raises NumericalError where rounding leaves the whitened matrix without a logarithm."""
        whitened = congruence(symmetric_power(G, -0.5), Y)
        lost = int((torch.linalg.cholesky_ex(whitened.detach()).info > 0).sum())
        if lost:
            raise NumericalError(
                f"centring: {lost} of {len(whitened)} whitened matrices have an eigenvalue <= 0 by rounding: they are too "
                "ill-conditioned for AffineInvariant(); shrink them, or use BuresWasserstein()"
            )
        return symmetric_log(whitened)

    def from_tangent(self, V: Tensor, W: Tensor) -> tuple[Tensor, int]:
        """W^1/2 exp(V) W^1/2; nothing is ever clipped."""
        return congruence(symmetric_power(W, 0.5), symmetric_exp(V)), 0

    def squared_norm(self, V: Tensor) -> Tensor:
        """tr V^2."""
        return V.square().sum((-1, -2))

    def squared_distance(self, P: Tensor, Q: Tensor) -> Tensor:
        """The sum of squared logarithms of the eigenvalues of P^-1 Q."""
        return affine_invariant_distance(P, Q).square()

    def geodesic(self, P: Tensor, Q: Tensor, t: float) -> Tensor:
        """P^1/2 (P^-1/2 Q P^-1/2)^t P^1/2."""
        return affine_invariant_geodesic(P, Q, t)


@dataclass(frozen=True)
class LogEuclidean(SPDMetric):
    """d(P, Q) = |log P - log Q|_F: flat in logarithms; the limit of power deformations at zero.

    Source: Arsigny et al. (2007).
    """

    references: ClassVar[tuple[str, ...]] = ("arsigny-2007",)

    def to_tangent(self, Y: Tensor, G: Tensor) -> Tensor:
        """log Y - log G."""
        return symmetric_log(Y) - symmetric_log(G)

    def from_tangent(self, V: Tensor, W: Tensor) -> tuple[Tensor, int]:
        """exp(log W + V); nothing is ever clipped."""
        return symmetric_exp(symmetric_log(W) + V), 0

    def squared_norm(self, V: Tensor) -> Tensor:
        """tr V^2."""
        return V.square().sum((-1, -2))

    def squared_distance(self, P: Tensor, Q: Tensor) -> Tensor:
        """|log P - log Q|_F^2."""
        return (symmetric_log(P) - symmetric_log(Q)).square().sum((-1, -2))

    def geodesic(self, P: Tensor, Q: Tensor, t: float) -> Tensor:
        """exp((1 - t) log P + t log Q)."""
        return symmetric_exp((1 - t) * symmetric_log(P) + t * symmetric_log(Q))


__all__ = ["AffineInvariant", "BuresWasserstein", "GeneralizedBuresWasserstein", "LogEuclidean", "SPDMetric"]
