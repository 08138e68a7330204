"""Density ratios from logistic regression: the odds that a point is from P rather than Q."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive
from discrepancy.estimation.ratios.features import Features, Joined, KernelFeatures, Map, Quadratic
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.scaling import Scaling

_RIDGES = tuple(10.0**k for k in (-1, -2, -3, -4, -5, -6))
_STEPS = 100


@dataclass(frozen=True)
class LogisticModel(RatioModel):
    """log r(x) = intercept + coefficients . (features(x) - centre) / spread."""

    scaling: Scaling
    features: Map
    centre: Tensor
    spread: Tensor
    beta: Tensor
    ridge: float

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The linear form of the features."""
        rows = (self.features(self.scaling(points)) - self.centre) / self.spread
        return (self.beta[0] + rows @ self.beta[1:]).to(points.dtype)

    def describe(self) -> str:
        """The number of features and the ridge."""
        return f"logistic regression on {len(self.beta) - 1} features, ridge {self.ridge:.3g}"


@dataclass(frozen=True)
class Logistic(RatioMethod):
    """log p/q as a linear form of features, by penalised logistic regression with both samples weighing one half.

    Minimises E_P softplus(-u) / 2 + E_Q softplus(u) / 2 + ridge |beta|^2 / 2 over u = b_0 + beta . features, of unit variance
    each; since the samples weigh alike, whatever their sizes, u is log p/q itself and no prior has to be taken out. features:
    kernels at 100 points, and coordinates with their products, which are exact for Gaussians. ridge: a number, or None for that
    of six from 0.1 to 1e-6 with the least approximate leave-one-out loss. Consistent where log p/q is in the span; Newton's
    method. Time O((n + m) F min(F, n + m)) a step, memory O((n + m) F).
    Source: Qin (1998); Sugiyama, Suzuki and Kanamori (2012); leave-one-out: Rad and Maleki (2020).
    Raises ValueError for a ridge that is not positive, TypeError for features that are none.
    """

    features: Features = field(default_factory=lambda: Joined((Quadratic(), KernelFeatures())))
    ridge: float | None = None

    references: ClassVar[tuple[str, ...]] = ("qin-1998", "sugiyama-suzuki-kanamori-2012", "rad-maleki-2020")

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not isinstance(self.features, Features):
            raise TypeError(f"features must be features such as Quadratic() or KernelFeatures(), got {self.features!r}")
        if self.ridge is not None:
            positive(self.ridge, "ridge")

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> LogisticModel:
        """The regression on samples x (n, d) of P and y (m, d) of Q."""
        scaling = Scaling.of(x, y)
        z = torch.cat([scaling(x), scaling(y)])
        features = self.features.build(z, generator)
        rows = features(z)
        weight = torch.cat([z.new_full((len(x),), 0.5 / len(x)), z.new_full((len(y),), 0.5 / len(y))])
        centre = weight @ rows
        variance = weight @ (rows - centre).square()
        # A constant feature stays at zero, whatever its unit.
        spread = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
        standard, basis = (rows - centre) / spread, None
        if standard.shape[1] > len(standard):
            # The penalised optimum lies in the span of the rows: coordinates there, and the same lengths.
            basis, triangle = torch.linalg.qr(standard.mT)
            standard = triangle.mT
        design = torch.cat([torch.ones_like(rows[:, :1]), standard], 1)
        sign = torch.cat([z.new_ones(len(x)), -z.new_ones(len(y))])
        best: tuple[float, float, Tensor] | None = None
        beta = z.new_zeros(design.shape[1])
        for ridge in _RIDGES if self.ridge is None else (self.ridge,):
            beta, outcome = _newton(design, sign, weight, ridge, beta)
            outcome.warn("logistic regression of a density ratio")
            score = _left_out_loss(design, sign, weight, ridge, beta) if self.ridge is None else 0.0
            if best is None or score < best[0]:
                best = (score, ridge, beta)
            elif score > best[0] + 0.01:
                break  # the loss of smaller ridges rises: the path is warm-started, and steps at separable data are many
        assert best is not None
        _, ridge, beta = best
        if basis is not None:
            beta = torch.cat([beta[:1], basis @ beta[1:]])
        return LogisticModel(scaling, features, centre, spread, beta, ridge)


def _penalty(design: Tensor, ridge: float) -> Tensor:
    penalty = design.new_full((design.shape[1],), ridge)
    penalty[0] = 0.0
    return penalty


def _curvature(design: Tensor, sign: Tensor, weight: Tensor, ridge: float, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of each row's loss in its u, second derivative in its u, and the Cholesky factor of the Hessian."""
    p = torch.sigmoid(-sign * (design @ beta))
    slope, curve = -weight * sign * p, weight * p * (1 - p)
    hessian = (design * curve[:, None]).T @ design + torch.diag(_penalty(design, ridge))
    hessian[0, 0] += 1e-12  # labels all certain would leave the intercept without curvature
    return slope, curve, torch.linalg.cholesky(hessian)


def _newton(design: Tensor, sign: Tensor, weight: Tensor, ridge: float, beta: Tensor) -> tuple[Tensor, Outcome]:
    penalty = _penalty(design, ridge)

    def loss(b: Tensor) -> float:
        return float((weight * torch.nn.functional.softplus(-sign * (design @ b))).sum() + (penalty * b.square()).sum() / 2)

    value = loss(beta)
    for _ in range(_STEPS):
        slope, _, factor = _curvature(design, sign, weight, ridge, beta)
        gradient = design.T @ slope + penalty * beta
        step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        decrement = float(gradient @ step)
        if decrement < 1e-12:
            return beta - step, Outcome.CONVERGED
        size = 1.0
        while (trial := loss(beta - size * step)) > value - 1e-4 * size * decrement and size > 1e-10:
            size /= 2
        if trial >= value:
            return beta, Outcome.CONVERGED  # rounding: the promised decrease is below what the loss resolves
        beta, value = beta - size * step, trial
    return beta, Outcome.ITERATION_LIMIT


def _left_out_loss(design: Tensor, sign: Tensor, weight: Tensor, ridge: float, beta: Tensor) -> float:
    """The loss at each row without it, to first order: u_i + l'_i h_i / (1 - l''_i h_i), h the diagonal of D H^-1 D^T."""
    slope, curve, factor = _curvature(design, sign, weight, ridge, beta)
    h = torch.linalg.solve_triangular(factor, design.T, upper=False).square().sum(0)
    u = design @ beta + slope * h / (1 - curve * h).clamp_min(1e-6)
    value = float((weight * torch.nn.functional.softplus(-sign * u)).sum())
    return value if math.isfinite(value) else math.inf


__all__ = ["Logistic", "LogisticModel"]
