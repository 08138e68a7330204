"""Gaussian-process regression on energies and gradients, hyper-parameters by maximum a posteriori."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import as_tensor, at_least, positive, require_finite
from discrepancy.methods.physics.gradient_kernels import GradientKernel

_JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)  # times the largest variance, tried in turn until the covariance factors


@dataclass(frozen=True)
class VarianceBarrier:
    """- mu log(maximum - log v) added to the loss: the signal variance v cannot run away as data accumulate.

    mu = min(start + growth n, limit) for n data. Energies must be scaled so that variances around exp(maximum) suffice.
    """

    maximum: float = math.log(2)
    start: float = 1e-4
    growth: float = 1e-3
    limit: float = 0.5

    def __post_init__(self) -> None:
        """Check the strengths."""
        for name in ("start", "growth", "limit"):
            at_least(getattr(self, name), 0, name)

    def strength(self, n: int) -> float:
        """mu for n data."""
        return min(self.start + self.growth * n, self.limit)


@dataclass(frozen=True)
class Hyperparameters:
    """log v of the signal variance, and the log inverse length scales."""

    log_variance: float
    log_inverse_lengths: tuple[float, ...]

    def vector(self) -> np.ndarray:
        """All of them in a row."""
        return np.array([self.log_variance, *self.log_inverse_lengths])


@dataclass(frozen=True)
class GPWithGradients:
    """A Gaussian process whose data are values and gradients of one function; `fit` answers with a `GradientPosterior`.

    kernel: see `gradient_kernels`. noise: the variance of the errors of energies and gradients alike. Before the data, log v is
    normal about 0 and the log inverse lengths about -log(`length`), both with standard deviation `prior_spread`;
    `variance_barrier` caps v, or None. `max_iterations` limits L-BFGS. Cost of a fit: (m (1 + D))^3 an iteration with m the data
    that the hyper-parameters are fitted on, and (n (1 + D))^3 once for all n. float64 throughout.
    """

    kernel: GradientKernel
    noise: float = 1e-7
    variance_barrier: VarianceBarrier | None = field(default_factory=VarianceBarrier)
    length: float = 1.0
    prior_spread: float = 1.0
    max_iterations: int = 50

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("noise", "length", "prior_spread"):
            positive(getattr(self, name), name)
        if not isinstance(self.kernel, GradientKernel):
            raise TypeError(f"kernel must be a GradientKernel such as CartesianKernel(2), got {type(self.kernel).__name__}")

    def fit(
        self,
        X: Any,
        E: Any,
        G: Any,
        *,
        optimize_on: Sequence[int] | None = None,
        start: Hyperparameters | None = None,
        reference: float | None = None,
    ) -> GradientPosterior:
        """The posterior given X (n, D), energies E (n,) and gradients G (n, D), all n of them used.

        optimize_on: the rows on which the hyper-parameters are fitted; None for all, () to keep `start`. start: where the fit
        begins (its prior's centre where omitted). reference: the energy that counts as zero, E[0] where omitted.
        Raises ValueError for shapes that do not fit and values that are not finite.
        """
        X, E, G = (as_tensor(v, n).detach().double() for v, n in ((X, "X"), (E, "E"), (G, "G")))
        shape = (len(X), self.kernel.dimension)
        if X.shape != shape or G.shape != shape or E.shape != shape[:1]:
            raise ValueError(
                f"X and G must have shape (n, {self.kernel.dimension}) and E (n,), got {tuple(X.shape)}, {tuple(G.shape)} and "
                f"{tuple(E.shape)}"
            )
        for value, name in ((X, "X"), (E, "E"), (G, "G")):
            require_finite(value, name)
        zero = float(E[0]) if reference is None else reference
        hyper = self._initial() if start is None else start
        rows = list(range(len(X))) if optimize_on is None else [int(i) for i in optimize_on]
        if rows:
            hyper = self.hyperparameters(X[rows], E[rows] - zero, G[rows], hyper)
        return GradientPosterior.given(self, X, E - zero, G, hyper, zero)

    def loss(self, X: Tensor, E: Tensor, G: Tensor, hyper: Hyperparameters) -> tuple[float, np.ndarray]:
        """The negative log posterior of the hyper-parameters, up to a constant, and its gradient."""
        return self._loss(self.kernel.features(X), torch.cat([E, G.flatten()]), hyper.vector())

    def _initial(self) -> Hyperparameters:
        log_variance = 0.0
        if self.variance_barrier is not None:
            log_variance = min(log_variance, self.variance_barrier.maximum - 0.5)
        return Hyperparameters(log_variance, (-math.log(self.length),) * self.kernel.lengths)

    def _loss(self, features: tuple[Tensor, Tensor], y: Tensor, w: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        K = self.kernel.covariance(features, leaf[0], leaf[1:])
        lower, _ = factored(K.detach(), self.noise)
        alpha = torch.cholesky_solve(y[:, None], lower)[:, 0]
        value = float(y @ alpha) / 2 + float(lower.diagonal().log().sum())
        # d(loss)/dK = (K^-1 - alpha alpha^T) / 2, so one product with it differentiates in all hyper-parameters.
        slope = torch.cholesky_inverse(lower).sub_(alpha[:, None] * alpha).div_(2)
        (gradient,) = torch.autograd.grad((K * slope).sum(), leaf)
        away = w - np.array([0.0, *[-math.log(self.length)] * (len(w) - 1)])
        value += float(away @ away) / (2 * self.prior_spread**2)
        total = gradient.numpy() + away / self.prior_spread**2
        if self.variance_barrier is not None:
            strength, room = self.variance_barrier.strength(len(features[0])), self.variance_barrier.maximum - w[0]
            if room <= 0:
                return math.inf, total
            value -= strength * math.log(room)
            total[0] += strength / room
        return value, total

    def hyperparameters(self, X: Tensor, E: Tensor, G: Tensor, start: Hyperparameters | None = None) -> Hyperparameters:
        """The most probable hyper-parameters given float64 data, energies relative to the reference, searched from `start`."""
        from scipy.optimize import minimize

        features, y = self.kernel.features(X), torch.cat([E, G.flatten()])
        edge = 20.0 if self.variance_barrier is None else self.variance_barrier.maximum - 1e-6
        # Ten e-folds either way: beyond that the prior's price exceeds any likelihood that these data could offer.
        bounds = [(-20.0, edge)] + [(-math.log(self.length) - 10, -math.log(self.length) + 10)] * self.kernel.lengths
        first = np.clip((start or self._initial()).vector(), [b[0] for b in bounds], [b[1] for b in bounds])
        found = minimize(
            lambda w: self._loss(features, y, w),
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": self.max_iterations, "maxfun": 2 * self.max_iterations, "gtol": 1e-3},
        )
        if not np.isfinite(found.fun):
            raise NumericalError("fitting the hyper-parameters: the loss is not finite at any point tried")
        return Hyperparameters(float(found.x[0]), tuple(float(v) for v in found.x[1:]))


def factored(K: Tensor, noise: float) -> tuple[Tensor, float]:
    """The Cholesky factor of K + noise I, and the jitter that took, a share of K's largest entry; NumericalError above 1e-4."""
    largest = float(K.diagonal().max())
    for jitter in _JITTERS:
        added = noise + jitter * largest
        lower, info = torch.linalg.cholesky_ex(K + torch.eye(len(K), dtype=K.dtype) * added)
        if int(info) == 0:
            return lower, jitter
    raise NumericalError(f"the covariance of {len(K)} values does not factor: data too close together for their length scales")


@dataclass(frozen=True)
class GradientPosterior:
    """The function given the data: `energy_and_gradient(x)` at a point, `predict(X)` at many, `standard_error(X)` of energies.

    `hyper` are the fitted hyper-parameters, `jitter` what factoring took beyond the noise (a share of the largest variance).
    """

    gp: GPWithGradients = field(repr=False)
    hyper: Hyperparameters
    jitter: float
    reference: float
    _features: tuple[Tensor, Tensor] = field(repr=False)
    _lower: Tensor = field(repr=False)
    _u: Tensor = field(repr=False)  # scaled features of the data (n, F)
    _alpha: Tensor = field(repr=False)  # weights of energies (n,)
    _beta: Tensor = field(repr=False)  # weights of gradients, in feature space (n, F)

    @classmethod
    def given(
        cls, gp: GPWithGradients, X: Tensor, E: Tensor, G: Tensor, hyper: Hyperparameters, reference: float
    ) -> GradientPosterior:
        """Condition on data whose energies are already relative to `reference`."""
        features = gp.kernel.features(X)
        w = torch.as_tensor(hyper.vector())
        lower, jitter = factored(gp.kernel.covariance(features, w[0], w[1:]), gp.noise)
        weights = torch.cholesky_solve(torch.cat([E, G.flatten()])[:, None], lower)[:, 0]
        inverse = w[1:].exp()[gp.kernel.groups]
        u, A = features[0] * inverse, features[1] * inverse[:, None]
        beta = torch.einsum("nfd,nd->nf", A, weights[len(X) :].reshape(X.shape))
        return cls(gp, hyper, jitter, reference, features, lower, u, weights[: len(X)], beta)

    @torch.no_grad()
    def predict(self, X: Any) -> tuple[Float[Tensor, " k"], Float[Tensor, "k D"]]:
        """The posterior mean of energies (k,) and gradients (k, D) at X (k, D). k n F time."""
        X = as_tensor(X, "X").double()
        phi, jacobian = self.gp.kernel.features(X)
        inverse = self._inverse()
        z = (phi * inverse)[:, None] - self._u[None]
        k = (self.hyper.log_variance - z.square().sum(-1) / 2).exp()
        inner = self._alpha + (z * self._beta).sum(-1)
        slope = k @ self._beta - ((k * inner)[..., None] * z).sum(1)
        return (k * inner).sum(1) + self.reference, torch.einsum("kf,kfd->kd", slope * inverse, jacobian)

    def energy_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Both at one point (D,)."""
        energy, gradient = self.predict(x[None])
        return float(energy[0]), gradient[0]

    @torch.no_grad()
    def standard_error(self, X: Any) -> Float[Tensor, " k"]:
        """The posterior standard deviation of the energies at X (k, D). (n (1 + D))^2 k time."""
        X = as_tensor(X, "X").double()
        phi, _ = self.gp.kernel.features(X)
        inverse = self._inverse()
        z = (phi * inverse)[:, None] - self._u[None]
        k = (self.hyper.log_variance - z.square().sum(-1) / 2).exp()
        slopes = k[..., None] * torch.einsum("knf,nfd->knd", z, self._features[1] * inverse[:, None])
        cross = torch.cat([k, slopes.flatten(1)], 1)
        explained = torch.linalg.solve_triangular(self._lower, cross.mT, upper=False).square().sum(0)
        return (math.exp(self.hyper.log_variance) - explained).clamp_min(0).sqrt()

    def _inverse(self) -> Tensor:
        return torch.tensor(self.hyper.log_inverse_lengths, dtype=torch.float64).exp()[self.gp.kernel.groups]


__all__ = ["GPWithGradients", "GradientPosterior", "Hyperparameters", "VarianceBarrier", "factored"]
