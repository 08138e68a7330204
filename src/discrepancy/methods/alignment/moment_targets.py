"""Distributional constraints: the law nearest to a base that has given moments, p proportional to a(x) exp(lambda . phi(x))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from discrepancy._results import NumericalError, Outcome, Result
from discrepancy._validate import positive, whole_number
from discrepancy.methods.alignment.energy_based import EnergyBasedModel, LinearScorer, checked_features


class Sampler(Protocol):
    """A base model to draw from and to score with."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """n samples."""
        ...

    def log_prob(self, samples: Any, /) -> Tensor:
        """log a(x) (n,)."""
        ...


@dataclass(frozen=True, repr=False)
class MomentFit(Result):
    """The coefficients lambda (k,) that give the moments, with their Monte Carlo standard errors (None for exact weights).

    `moments` are those reached, `log_normaliser` is log E_a exp(lambda . phi), `effective_sample_size` that of the tilted
    weights. `target` is the `EnergyBasedModel`, where a base was given.
    """

    coefficients: Tensor
    standard_errors: Tensor | None
    moments: Tensor
    log_normaliser: float
    effective_sample_size: float
    iterations: int
    outcome: Outcome
    target: EnergyBasedModel | None = field(default=None, repr=False)


def tilt_to_moments(
    features: Tensor,
    moments: Tensor,
    log_weights: Tensor | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 100,
) -> MomentFit:
    """Minimise the convex dual log sum_i w_i exp(lambda . phi_i) - lambda . mu by damped Newton steps.

    features (n, k) at samples of the base (equal weights), or at all its points with log_weights (n,), their log-probabilities;
    moments mu (k,). Computed in float64; time O(n k^2) an iteration. The information projection onto E[phi] = mu
    (Khalifa, Elsahar and Dymetman, 2021, 2012.11635). Raises ValueError for shapes, and NumericalError where mu lies outside what
    the weighted points can reach, so that no coefficients exist.
    """
    phi = checked_features(features).double()
    mu = torch.as_tensor(moments, dtype=torch.float64)
    positive(tolerance, "tolerance")
    whole_number(max_iterations, 1, "max_iterations")
    n, k = phi.shape
    if mu.shape != (k,) or not bool(torch.isfinite(mu).all()):
        raise ValueError(f"moments must be {k} finite number(s), one a feature, got {moments}")
    if log_weights is None:
        log_w = torch.zeros(n, dtype=torch.float64)
    else:
        log_w = log_weights.detach().double()
        if log_w.shape != (n,):
            raise ValueError(f"log_weights must be ({n},), got shape {tuple(log_w.shape)}")
    log_w = torch.log_softmax(log_w, 0)
    _require_reachable(phi[log_w > -torch.inf], mu)
    # Centred and scaled features make the Hessian's size of order one, and the tolerance one in units of the features' spread.
    scale = phi.std(0).clamp_min(torch.finfo(torch.float64).tiny) if n > 1 else torch.ones(k, dtype=torch.float64)
    centred = (phi - mu) / scale
    theta = torch.zeros(k, dtype=torch.float64)

    def dual(at: Tensor) -> Tensor:
        return torch.logsumexp(log_w + centred @ at, 0)

    value, outcome, done = dual(theta), Outcome.ITERATION_LIMIT, 0
    for done in range(1, max_iterations + 1):
        p = torch.softmax(log_w + centred @ theta, 0)
        gradient = p @ centred
        if float(gradient.abs().max()) <= tolerance:
            outcome = Outcome.CONVERGED
            break
        hessian = (centred * p.unsqueeze(-1)).T @ centred - torch.outer(gradient, gradient)
        step = _newton_step(hessian, gradient, mu, done)
        rate, slope = 1.0, float(gradient @ step)
        while not float(dual(theta - rate * step)) <= float(value) - 1e-4 * rate * slope and rate > 1e-10:
            rate /= 2
        if rate <= 1e-10:
            outcome = Outcome.EXHAUSTED
            break
        theta = theta - rate * step
        value = dual(theta)
        if float(theta.abs().max()) > 1e4:
            raise NumericalError(_unreachable(mu, done))
    outcome.warn("tilt_to_moments")
    p = torch.softmax(log_w + centred @ theta, 0)
    errors = None
    if log_weights is None and n > 1:
        # Sandwich formula: lambda solves mean_i u_i (phi_i - mu) = 0 with u_i = exp(lambda . (phi_i - mu)).
        pull = centred * (n * p).unsqueeze(-1)
        inverse = torch.linalg.pinv((centred * p.unsqueeze(-1)).T @ centred)
        errors = (inverse @ (pull.T @ pull / n) @ inverse / n).diagonal().clamp_min(0).sqrt() / scale
    coefficients = theta / scale
    return MomentFit(
        coefficients=coefficients,
        standard_errors=errors,
        moments=p @ phi,
        log_normaliser=float(torch.logsumexp(log_w + phi @ coefficients, 0)),
        effective_sample_size=float(1 / p.square().sum()),
        iterations=done,
        outcome=outcome,
    )


def fit_moments(
    base: Sampler,
    features: Callable[[Any], Tensor],
    moments: Any,
    *,
    samples: int = 2**13,
    tolerance: float = 1e-9,
    max_iterations: int = 100,
    generator: torch.Generator | None = None,
) -> MomentFit:
    """The target p proportional to a(x) exp(lambda . phi(x)) with E_p[phi] = moments, lambda fitted on samples of the base a.

    `features(samples)` gives phi (n, k). Of all laws with these moments p is the one of least KL(p || a). Raises as
    `tilt_to_moments`; NumericalError also where the tilted weights rest on fewer than ten samples.
    """
    whole_number(samples, 2, "samples")
    drawn = base.sample(samples, generator=generator)
    mu = torch.as_tensor(moments, dtype=torch.float64).reshape(-1)
    fit = tilt_to_moments(features(drawn), mu, tolerance=tolerance, max_iterations=max_iterations)
    if fit.effective_sample_size < min(10, samples / 2):
        raise NumericalError(
            f"the moments rest on {fit.effective_sample_size:.1f} effective of {samples} samples: "
            "draw more, or ask for moments nearer to the base's"
        )
    target = EnergyBasedModel(base, (LinearScorer(features, fit.coefficients),))
    return MomentFit(**{**{name: getattr(fit, name) for name in fit.__dataclass_fields__}, "target": target})


def _newton_step(hessian: Tensor, gradient: Tensor, mu: Tensor, done: int) -> Tensor:
    """The least-norm Newton step; along directions in which the features do not vary the dual must be flat, not sloping."""
    values, vectors = torch.linalg.eigh(hessian)
    along = vectors.T @ gradient
    flat = values <= 1e-13 * max(1.0, float(values[-1]))
    if bool((along[flat].abs() > 1e-7).any()):
        raise NumericalError(_unreachable(mu, done))
    return vectors @ torch.where(flat, torch.zeros_like(along), along / torch.where(flat, torch.ones_like(values), values))


def _unreachable(mu: Tensor, done: int) -> str:
    return (
        f"moments {mu.tolist()} cannot be reached: the dual falls without end (step {done}). They lie outside the convex hull "
        "of the features at the base's points"
    )


def _require_reachable(phi: Tensor, mu: Tensor) -> None:
    low, high = phi.amin(0), phi.amax(0)
    for j in range(len(mu)):
        fixed = bool(low[j] == high[j])
        if (fixed and bool(mu[j] != low[j])) or (not fixed and not bool(low[j] < mu[j]) & bool(mu[j] < high[j])):
            raise NumericalError(
                f"moment {j} is {float(mu[j]):.6g} and the feature lies in [{float(low[j]):.6g}, {float(high[j]):.6g}] at the "
                "base's points: only a value strictly between can be reached"
            )


__all__ = ["MomentFit", "fit_moments", "tilt_to_moments"]
