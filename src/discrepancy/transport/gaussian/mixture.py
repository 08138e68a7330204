"""Transport between Gaussian mixtures that keeps to Gaussian mixtures: a small exact problem between components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import TransportResult
from discrepancy._validate import weights as checked_weights
from discrepancy.linalg import root
from discrepancy.transport.exact.optimal_transport import OptimalTransport
from discrepancy.transport.gaussian.bures import map_matrix, squared_bures
from discrepancy.transport.gaussian.parameters import covariance, mean


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weights_k N(means_k, covariances_k) with weights (K,), means (K, d), covariances (K, d, d); singular ones allowed."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __post_init__(self) -> None:
        """Raise ValueError for parameters that fit no mixture; array-likes become tensors."""
        S = covariance(self.covariances, "covariances")
        if S.ndim != 3:
            raise ValueError(f"covariances must have shape (K, d, d), got {tuple(S.shape)}")
        m = mean(self.means, "means", S)
        if m.shape != S.shape[:2]:
            raise ValueError(f"means must have shape {tuple(S.shape[:2])} to fit the covariances, got {tuple(m.shape)}")
        object.__setattr__(self, "covariances", S)
        object.__setattr__(self, "means", m)
        object.__setattr__(self, "weights", checked_weights(self.weights, S.shape[:1], "weights", like=S))

    @classmethod
    def fitted(cls, model: Any) -> GaussianMixture:
        """From a fitted `sklearn.mixture` model of any covariance type."""
        kind, S = getattr(model, "covariance_type", None), getattr(model, "covariances_", None)
        if S is None or kind is None:
            raise TypeError(f"model must be a fitted mixture of scikit-learn, got {type(model).__name__}")
        S, means = torch.as_tensor(S), torch.as_tensor(model.means_)
        size, d = means.shape
        if kind == "diag":
            S = torch.diag_embed(S)
        elif kind == "spherical":
            S = S[:, None, None] * torch.eye(d, dtype=S.dtype)
        elif kind == "tied":
            S = S.expand(size, d, d)
        share = torch.as_tensor(model.weights_)
        return cls(share / share.sum(), means, S)

    def responsibilities(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n K"]:
        """The posterior probability of each component at points x; every covariance must be invertible."""
        lower = torch.linalg.cholesky(self.covariances)
        gap = (x[None] - self.means[:, None]).mT
        whitened = torch.linalg.solve_triangular(lower, gap, upper=False)
        log_density = -whitened.square().sum(1) / 2 - lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)[:, None]
        return (log_density + self.weights.log()[:, None]).softmax(0).mT


def mixture_wasserstein(P: GaussianMixture, Q: GaussianMixture) -> TransportResult:
    """MW_2(P, Q) = sqrt(min over couplings w of the weights of sum_kl w_kl W_2^2(P_k, Q_l)): transport within Gaussian mixtures.

    In units of the means; a metric on mixtures, at least W_2, above it by at most twice the spread of the components. `value` is
    differentiable in the weights, means and covariances of both (envelope theorem), `cost` is its square, `plan()` (K, L) says
    how much of each component goes where, f and g are potentials of the components, and `map()` is the mean map
    T(x) = sum_k p_k(x) sum_l w_kl / w_k T_kl(x) with p_k the posterior of component k. Raises ValueError for mixtures of
    different dimensions. K L distances between Gaussians, d^3 each, and a K x L exact problem. Source: Delon and Desolneux
    (2020, 1907.05254).
    """
    for name, mixture in (("P", P), ("Q", Q)):
        if not isinstance(mixture, GaussianMixture):
            raise TypeError(f"{name} must be a GaussianMixture (.fitted takes scikit-learn's), got {type(mixture)}")
    if P.means.shape[1] != Q.means.shape[1]:
        raise ValueError(f"P has dimension {P.means.shape[1]} and Q {Q.means.shape[1]}: both must live in the same space")
    gap = (P.means[:, None] - Q.means[None]).square().sum(-1)
    cost = gap + squared_bures(P.covariances[:, None], Q.covariances[None])
    found = OptimalTransport().solve_cost(cost, P.weights, Q.weights)
    value = found.value
    assert isinstance(value, Tensor)
    distance = root(value.clamp_min(0), 2)
    return replace(found, value=distance, _map=lambda: _mean_map(P, Q, found.plan().to_dense()))


@torch.no_grad()
def _mean_map(P: GaussianMixture, Q: GaussianMixture, plan: Tensor) -> Callable[[Tensor], Tensor]:
    matrices = map_matrix(P.covariances[:, None], Q.covariances[None])
    total = plan.sum(1, keepdim=True)
    share = torch.where(total > 0, plan / torch.where(total > 0, total, torch.ones_like(total)), torch.zeros_like(plan))
    # The average over l of m_l + T_kl (x - m_k) is affine in x: one matrix and one offset a component.
    slopes = torch.einsum("kl,klde->kde", share, matrices)
    offsets = share @ Q.means

    def transport(x: Tensor) -> Tensor:
        images = offsets[:, None] + (x[None] - P.means[:, None]) @ slopes
        return torch.einsum("ik,kid->id", P.responsibilities(x), images)

    return transport


__all__ = ["GaussianMixture", "mixture_wasserstein"]
