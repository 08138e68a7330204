"""Batch normalisation of symmetric positive definite matrices in a Riemannian metric of choice, Bures-Wasserstein by default."""

from __future__ import annotations

import enum
import warnings
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from discrepancy._validate import as_tensor, fraction, positive, require_finite
from discrepancy.linalg import congruence, symmetric_exp, symmetric_log, symmetric_power
from discrepancy.methods.representation.spd_metrics import GeneralizedBuresWasserstein, SPDMetric

_ASYMMETRY = 1e-6  # of the largest entry
_SINGLE_CONDITION = 1e6  # beyond which float32 keeps no digit of the smallest eigenvalue


class Dispersion(enum.Enum):
    """What a layer divides by: the mean squared distance of the batch to its mean, or to the identity (the paper's program)."""

    ABOUT_MEAN = "about the batch mean: the Frechet variance"
    ABOUT_IDENTITY = "about the identity, before centring: what the paper's program computes"


class _Exponential(nn.Module):
    """A positive definite parameter as the exponential of an unconstrained symmetric one."""

    def forward(self, raw: Tensor) -> Tensor:
        return symmetric_exp((raw + raw.mT) / 2)

    def right_inverse(self, matrix: Tensor) -> Tensor:
        return symmetric_log(spd_matrices(matrix, "the parameter"))


def spd_matrices(X: Any, name: str = "X") -> Float[Tensor, "... n n"]:
    """A stack of symmetric positive definite matrices, checked; a warning where float32 cannot hold their condition numbers.

    Raises ValueError for what is not square, symmetric within 1e-6 of the largest entry, finite and positive definite.
    """
    X = as_tensor(X, name)
    if X.ndim < 2 or X.shape[-1] != X.shape[-2] or X.numel() == 0:
        raise ValueError(f"{name} must be a stack of square matrices (..., n, n), got shape {tuple(X.shape)}")
    require_finite(X, name)
    plain = X.detach()
    size = plain.abs().amax((-1, -2)).clamp_min(torch.finfo(X.dtype).tiny)
    asymmetry = float(((plain - plain.mT).abs().amax((-1, -2)) / size).max())
    if asymmetry > _ASYMMETRY:
        raise ValueError(
            f"{name} is not symmetric: entries differ by {asymmetry:.2g} of the largest; pass (X + X.mT) / 2 if that is noise"
        )
    if bool((torch.linalg.cholesky_ex(plain).info > 0).any()):
        lowest = float(torch.linalg.eigvalsh(plain)[..., 0].min())
        raise ValueError(
            f"{name} is not positive definite (smallest eigenvalue {lowest:.3g}): put ReEig before, or shrink the covariances, "
            "(1 - s) S + s tr(S) / n I"
        )
    if X.dtype == torch.float32:
        values = torch.linalg.eigvalsh(plain)
        worst = float((values[..., -1] / values[..., 0].clamp_min(torch.finfo(X.dtype).tiny)).max())
        if worst > _SINGLE_CONDITION:
            warnings.warn(
                f"{name} has a condition number of {worst:.2g}, too large for float32: use float64", UserWarning, stacklevel=3
            )
    return (X + X.mT) / 2


class SPDBatchNorm(nn.Module):
    """Centres, scales and biases a batch of SPD matrices along geodesics, with running statistics for evaluation.

    In coordinates Y = M^-1/2 X^power M^-1/2 with batch mean G and dispersion v, every point goes to
    Exp_W'(T(s / sqrt(v + eps) T(Log_G(Y)))) and back to X, where T transports by way of the identity, W' is the learned bias in
    Y's coordinates and s the learned scale. After it, a batch has mean W' and dispersion s^2 (in the metric divided by power^2)
    as far as the mean has converged and nothing is clipped. Statistics are detached, as in the paper.

    X (b, n, n) or (b, h, n, n) positive definite, all b h matrices forming the batch; the output has X's shape and dtype.
    Parameters are float64 unless the module is moved: `bias` W and, for metrics that learn it, `reference` M, both exponentials
    of symmetric matrices starting at the identity, and `scale` s = exp(`log_scale`).

    metric: an `SPDMetric`. power: the exponent of the deformation, not zero. momentum: the weight of a new batch in the running
    statistics. mean_iterations: fixed-point steps from the arithmetic mean; one is biased and enough for training. affine: learn
    bias and scale. dispersion: see `Dispersion`. domains: how many sets of running statistics to keep (subjects, sessions);
    `forward(X, domain=k)` uses the k-th. `clipped` counts the eigenvalues that left the domain of the exponential since the last
    reset.

    Raises ValueError for a power of 0 (its limit is `LogEuclidean()`), a training batch of one matrix (its dispersion is zero),
    and what `spd_matrices` refuses. Some six eigendecompositions of n x n a matrix. Source: the Bures-Wasserstein normalisation
    of 2504.00660 (2025), whose program takes the dispersion about the identity; here it is about the mean unless asked for.
    """

    references: ClassVar[tuple[str, ...]] = ("bures-normalization-2025",)
    running_mean: Tensor
    running_variance: Tensor
    clipped: Tensor
    bias: Tensor
    reference: Tensor

    def __init__(
        self,
        n: int,
        *,
        metric: SPDMetric | None = None,
        power: float = 1.0,
        momentum: float = 0.1,
        eps: float = 1e-5,
        mean_iterations: int = 1,
        affine: bool = True,
        dispersion: Dispersion = Dispersion.ABOUT_MEAN,
        domains: int = 1,
    ) -> None:
        """Check the options and set parameters and statistics to the identity."""
        super().__init__()
        for name, count in (("n", n), ("mean_iterations", mean_iterations), ("domains", domains)):
            if not isinstance(count, int) or count < (0 if name == "mean_iterations" else 1):
                raise ValueError(f"{name} must be a positive whole number, got {count!r}")
        metric = GeneralizedBuresWasserstein() if metric is None else metric
        if not isinstance(metric, SPDMetric):
            raise TypeError(f"metric must be an SPDMetric such as BuresWasserstein(), got {type(metric).__name__}")
        if not isinstance(dispersion, Dispersion):
            raise TypeError(f"dispersion must be Dispersion.ABOUT_MEAN or .ABOUT_IDENTITY, got {dispersion!r}")
        if power == 0 or not abs(power) < float("inf"):
            raise ValueError(f"power must be finite and not 0, got {power!r}: its limit at 0 is metric=LogEuclidean()")
        self.n, self.metric, self.power, self.dispersion = n, metric, float(power), dispersion
        self.momentum = 1.0 if momentum == 1 else fraction(momentum, "momentum")
        self.eps, self.mean_iterations, self.affine = positive(eps, "eps"), mean_iterations, affine
        names = [name for name, there in (("bias", affine), ("reference", metric.learns_reference)) if there]
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.eye(n, dtype=torch.float64)))
            parametrize.register_parametrization(self, name, _Exponential(), unsafe=True)
        if affine:
            self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("running_mean", torch.eye(n, dtype=torch.float64).repeat(domains, 1, 1))
        self.register_buffer("running_variance", torch.ones(domains, dtype=torch.float64))
        self.register_buffer("clipped", torch.zeros((), dtype=torch.int64))

    def reset_running_statistics(self) -> None:
        """Set means to the identity, dispersions to one and the count of clips to zero."""
        self.running_mean.copy_(torch.eye(self.n, dtype=self.running_mean.dtype, device=self.running_mean.device))
        self.running_variance.fill_(1.0)
        self.clipped.zero_()

    def coordinates(self, X: Float[Tensor, "... n n"]) -> Float[Tensor, "... n n"]:
        """Y = M^-1/2 X^power M^-1/2, the coordinates in which means and dispersions are those of the plain metric."""
        Y = X if self.power == 1 else symmetric_power(X, self.power)
        if not self.metric.learns_reference:
            return Y
        return congruence(symmetric_power(self.reference.to(X.dtype), -0.5), Y)

    def undo(self, Y: Float[Tensor, "... n n"]) -> Float[Tensor, "... n n"]:
        """X = (M^1/2 Y M^1/2)^(1/power), the inverse of `coordinates`."""
        if self.metric.learns_reference:
            Y = congruence(symmetric_power(self.reference.to(Y.dtype), 0.5), Y)
        return Y if self.power == 1 else symmetric_power(Y, 1 / self.power)

    def forward(self, X: Any, domain: int = 0) -> Float[Tensor, "... n n"]:
        """The normalised matrices, of X's shape; in training mode the statistics of `domain` are updated."""
        X = spd_matrices(X)
        if X.ndim not in (3, 4) or X.shape[-1] != self.n:
            raise ValueError(f"X must have shape (b, {self.n}, {self.n}) or (b, h, {self.n}, {self.n}), got {tuple(X.shape)}")
        if not isinstance(domain, int) or not 0 <= domain < len(self.running_variance):
            raise ValueError(f"domain must lie in 0 .. {len(self.running_variance) - 1}, got {domain!r}")
        flat = X.reshape(-1, self.n, self.n)
        if self.training and len(flat) < 2:
            raise ValueError("a training batch of one matrix has dispersion zero: give at least two, or call .eval()")
        with parametrize.cached():
            return self._normalized(flat, domain).reshape(X.shape)

    def _normalized(self, X: Tensor, domain: int) -> Tensor:
        Y = self.coordinates(X)
        mean = self.metric.mean(Y.detach(), self.mean_iterations) if self.training else self.running_mean[domain].to(Y.dtype)
        V = self.metric.to_tangent(Y, mean)
        variance = self._dispersion(Y, V) if self.training else self.running_variance[domain].to(Y.dtype)
        if self.training:
            self._record(mean, variance, domain)
        V = V / (variance + self.eps).sqrt()
        center = torch.eye(self.n, dtype=Y.dtype, device=Y.device)
        if self.affine:
            V = V * self.log_scale.exp().to(Y.dtype)
            center = self.bias.to(Y.dtype)
        Z, clipped = self.metric.from_tangent(V, self.coordinates(center))
        self.clipped += clipped
        return self.undo(Z)

    @property
    def scale(self) -> Tensor:
        """s, the dispersion's root after the layer."""
        return self.log_scale.exp() if self.affine else torch.ones(())

    @torch.no_grad()
    def _dispersion(self, Y: Tensor, V: Tensor) -> Tensor:
        if self.dispersion is Dispersion.ABOUT_MEAN:
            return self.metric.squared_norm(V).mean() / self.power**2
        eye = torch.eye(self.n, dtype=Y.dtype, device=Y.device)
        return self.metric.squared_norm(self.metric.to_tangent(Y, eye)).mean() / self.power**2

    @torch.no_grad()
    def _record(self, mean: Tensor, variance: Tensor, domain: int) -> None:
        old = self.running_mean[domain]
        self.running_mean[domain] = self.metric.geodesic(old, mean.to(old.dtype), self.momentum)
        self.running_variance[domain] = torch.lerp(self.running_variance[domain], variance.to(old.dtype), self.momentum)

    def extra_repr(self) -> str:
        """The options, for print."""
        return f"{self.n}, metric={self.metric!r}, power={self.power:g}, dispersion={self.dispersion.name}"


__all__ = ["Dispersion", "SPDBatchNorm", "spd_matrices"]
