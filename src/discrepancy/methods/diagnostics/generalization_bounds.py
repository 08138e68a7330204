"""Bounds on the generalisation gap from how far the law of a training point's representation is from that of a test point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate, Result
from discrepancy._validate import as_tensor, at_least, positive, whole_number
from discrepancy.divergences import KL, FDivergence

_GROUPS = 20


def kl_generalization_bound(divergences: Any, sigma: float = 0.5) -> Tensor:
    """|gen| <= (sqrt(2) sigma / n) sum_i sqrt(D_i), for D_i = KL(P_{T_i, Y_i | W} || P_{T, Y | W} | P_W) (..., n) at one layer.

    P is the law of training point i's representation and label given the weights, Q that of a fresh point, the divergence
    averaged over the weights. The loss is sigma-sub-Gaussian under Q; a loss in [0, 1] has sigma = 1/2. The root is inside the
    sum: the root of the mean is larger. D_i, and so the bound, shrinks from layer to layer by data processing; +inf is a bound
    too. Returns (...). Raises ValueError for sigma <= 0, NaN or negative divergences. Source: He and Goldfeld (2024), theorem 1.
    """
    positive(sigma, "sigma")
    return math.sqrt(2) * sigma * _non_negative(divergences, "divergences").sqrt().mean(-1)


def wasserstein_generalization_bound(distances: Any, lipschitz: Any) -> Tensor:
    """|gen| <= (1/n) sum_i E_W[rho W_1(P_{T_i, Y_i | W}, P_{T, Y | W})] for W_1 (..., n) and rho the loss's constant given T.

    lipschitz: a number or anything that broadcasts against `distances`: rho <= Lip(loss) prod_{j > l} |W_j|_op Lip(activation).
    Not monotone in the layer: W_1 obeys no data-processing inequality; its least value is at the funnel layer. Returns (...).
    """
    rho = _non_negative(lipschitz, "lipschitz")
    return (rho * _non_negative(distances, "distances")).mean(-1)


def contracted_bounds(divergences: Any, coefficients: Sequence[float], sigma: float = 0.5) -> Tensor:
    """The KL bound after each noisy layer: D_i eta_1 ... eta_l, for divergences (n,) at the input: (1 + layers,)."""
    rows = _non_negative(divergences, "divergences")
    etas = _non_negative(list(coefficients), "coefficients").to(rows.dtype)
    if bool((etas > 1).any()):
        raise ValueError(f"contraction coefficients lie in [0, 1], got {float(etas.max()):.6g}")
    shares = torch.cat([etas.new_ones(1), etas.cumprod(0)])
    return kl_generalization_bound(shares[:, None] * rows, sigma)


def gibbs_bound(inverse_temperature: float, n: int, sigma: float = 0.5) -> float:
    """gen <= 2 sigma^2 a / n for the Gibbs posterior pi(w) exp(-a mean loss) / Z; a / (2 n) for a loss in [0, 1]; gen >= 0."""
    positive(sigma, "sigma")
    return 2 * sigma**2 * at_least(inverse_temperature, 0, "inverse_temperature") / whole_number(n, 1, "n")


def gibbs_posterior(losses: Any, inverse_temperature: float, log_prior: Any = None) -> Tensor:
    """pi(w) exp(-a L_S(w)) / Z over finitely many w, from their training losses L_S (..., W), in the log domain."""
    mean = as_tensor(losses, "losses")
    logits = -at_least(inverse_temperature, 0, "inverse_temperature") * mean
    return torch.softmax(logits if log_prior is None else logits + as_tensor(log_prior, "log_prior", like=mean), -1)


def finite_class_bound(hypotheses: int, n: int, sigma: float = 0.5) -> float:
    """|gen| <= sigma sqrt(2 log|W| / n), because I(S; W) <= log|W|."""
    positive(sigma, "sigma")
    return sigma * math.sqrt(2 * math.log(whole_number(hypotheses, 1, "hypotheses")) / whole_number(n, 1, "n"))


@dataclass(frozen=True, repr=False)
class GaussianLinearCase(Result):
    """Layer by layer: the `ranks` of the product up to it, the exact divergence `per_sample`, and the `bounds`; layer 0 is the
    input, of rank d."""

    ranks: tuple[int, ...]
    per_sample: tuple[float, ...]
    bounds: tuple[float, ...]

    references = ("generalization-bounds",)


def gaussian_linear_case(n: int, dimension: int, ranks: Sequence[int] = (), sigma: float = 0.5) -> GaussianLinearCase:
    """Y X ~ N(mu, s^2 I_d), a linear network whose product direction is the mean of n training points.

    Given the mean w, a training point is N(w, s^2 (1 - 1/n) I), and its expected KL to a fresh one after projection to r
    dimensions is -(r/2) log(1 - 1/n), whatever mu and s. `ranks`: of the product after each layer, not increasing.
    Raises ValueError for n <= 1 and for ranks that grow or exceed the dimension. Source: He and Goldfeld (2024), section 5.
    """
    whole_number(n, 2, "n")
    levels = [whole_number(dimension, 1, "dimension"), *(whole_number(r, 1, "ranks") for r in ranks)]
    if levels != sorted(levels, reverse=True):
        raise ValueError(f"ranks of a product cannot grow, nor exceed the dimension {dimension}: got {list(ranks)}")
    each = [-(r / 2) * math.log1p(-1 / n) for r in levels]
    return GaussianLinearCase(tuple(levels), tuple(each), tuple(math.sqrt(2) * sigma * math.sqrt(v) for v in each))


def gaussian_conditional_divergence(trained: Any, fresh: Any, weights: Any, divergence: FDivergence | None = None) -> Estimate:
    """E_W D(P_{T_i | W} || P_{T | W}) from R retrainings of a tiny model, with Gaussian conditionals fitted by regression on W.

    trained (R, r): the representation of training point i in each run; fresh (R, r): of a fresh point; weights (R, k). Bias of
    order (r + k) / R from the fitted moments, upward; the standard error is the jackknife's over 20 groups of runs.
    `divergence`: any with a closed form between Gaussians (default KL). Raises ValueError for fewer than 40 runs or
    2 (r + k + 2), and for runs that do not pair.
    """
    T, F, W = (as_tensor(v, name).double() for v, name in ((trained, "trained"), (fresh, "fresh"), (weights, "weights")))
    T, F, W = (v[:, None] if v.ndim == 1 else v for v in (T, F, W))
    if not (T.ndim == F.ndim == W.ndim == 2 and T.shape == F.shape and len(T) == len(W)):
        raise ValueError(f"trained, fresh, weights must be (R, r), (R, r), (R, k), got {[tuple(v.shape) for v in (T, F, W)]}")
    if len(T) < max(2 * _GROUPS, 2 * (T.shape[1] + W.shape[1] + 2)):
        raise ValueError(f"{len(T)} runs are too few for {T.shape[1]} coordinates given {W.shape[1]} weights")
    f = KL() if divergence is None else divergence

    def value(keep: Tensor) -> float:
        P, Q = _conditional(T[keep], W[keep]), _conditional(F[keep], W[keep])
        return float(torch.as_tensor(f.between(P, Q).value).mean())

    group = torch.arange(len(T)) % _GROUPS
    without = torch.tensor([value(group != k) for k in range(_GROUPS)], dtype=torch.float64)
    error = math.sqrt((_GROUPS - 1) * float(without.var(correction=0)))
    return Estimate(value(group >= 0), error, method=f"Gaussian conditionals by regression over {len(T)} runs")


def _conditional(T: Tensor, W: Tensor) -> torch.distributions.MultivariateNormal:
    design = torch.cat([torch.ones(len(W), 1, dtype=W.dtype), W], 1)
    fit = design @ torch.linalg.lstsq(design, T).solution
    left = T - fit
    covariance = left.T @ left / (len(T) - design.shape[1])
    return torch.distributions.MultivariateNormal(fit, covariance.expand(len(T), *covariance.shape))


def _non_negative(values: Any, name: str) -> Tensor:
    numbers = as_tensor(values, name)
    if bool(torch.isnan(numbers).any()) or bool((numbers < 0).any()):
        raise ValueError(f"{name} must be non-negative numbers, got a least of {float(numbers.min()):.6g}")
    return numbers


__all__ = [
    "GaussianLinearCase",
    "contracted_bounds",
    "finite_class_bound",
    "gaussian_conditional_divergence",
    "gaussian_linear_case",
    "gibbs_bound",
    "gibbs_posterior",
    "kl_generalization_bound",
    "wasserstein_generalization_bound",
]
