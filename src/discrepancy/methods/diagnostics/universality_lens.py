"""The universality lens: regret of a Bayesian mixture is governed by the prior weight of the hypotheses close to the truth."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, positive, weights, whole_number
from discrepancy.divergences import KL, Divergence
from discrepancy.divergences.divergence import InfiniteDivergenceWarning

_CELLS = 2**22  # entries of a block of types x hypotheses
_DOUBLE = torch.empty(0, dtype=torch.float64)  # lists are read in double: the exact sums below are worth it


@dataclass(frozen=True)
class MixturePredictor:
    """Q = sum_k w_k P_k over finitely many hypotheses, in the log domain: `log_weights` (K,), normalised.

    Begin with `MixturePredictor.of(prior)`; `updated` by the log-likelihoods of data it is the posterior mixture. It averages
    probabilities: the mean of logits or of parameters is another predictor, without the guarantee.
    """

    log_weights: Tensor

    references = ("universality-lens",)

    @staticmethod
    def of(prior: Any, *, renormalise: bool = False) -> MixturePredictor:
        """From prior weights (K,). Raises ValueError where they are negative or, unless `renormalise`, do not sum to one."""
        given = as_tensor(prior, "prior")
        if given.ndim != 1:
            raise ValueError(f"prior must be a vector of weights, got shape {tuple(given.shape)}")
        mass = "positive" if renormalise else "probability"
        w = weights(given, given.shape, "prior", like=given, mass=mass)
        return MixturePredictor(torch.log(w / w.sum()))

    def updated(self, log_likelihoods: Any) -> MixturePredictor:
        """The posterior after data of log-likelihoods log P_k(data), (..., K), summed over leading dimensions.

        Raises ValueError where every hypothesis gives the data probability zero.
        """
        likelihood = as_tensor(log_likelihoods, "log_likelihoods", like=self.log_weights).to(self.log_weights)
        likelihood = likelihood.reshape(-1, likelihood.shape[-1]).sum(0)
        joint = self.log_weights + likelihood
        if bool(torch.isnan(joint).any()) or float(joint.max()) == -math.inf:
            raise ValueError(
                "every hypothesis of positive weight gives the data probability zero (or NaN): there is no posterior"
            )
        return MixturePredictor(joint - torch.logsumexp(joint, 0))

    def predict_log_prob(self, log_probs: Any) -> Tensor:
        """log sum_k w_k P_k for log P_k (..., K): (...)."""
        each = as_tensor(log_probs, "log_probs", like=self.log_weights)
        return torch.logsumexp(each + self.log_weights.to(each), -1)


@torch.no_grad()
def online_regret(truth: Any, hypotheses: Any, prior: Any = None, *, n: int) -> float:
    """(1/n) KL(P_0^n || Q), in nats a symbol: P_0 = truth (A,), Q the mixture of hypotheses (K, A) under prior (K,) (None:
    equal).

    Exact, by the types of n draws from A letters, of which there are C(n + A - 1, A - 1). +inf where Q misses what P_0 can draw.
    Raises ValueError for what are no probabilities, n < 1, and more than 2,000,000 types. Time O(types K), in blocks.
    """
    whole_number(n, 1, "n")
    given, rows = (as_tensor(v, s, like=_DOUBLE).double() for v, s in ((truth, "truth"), (hypotheses, "hypotheses")))
    if given.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(given):
        raise ValueError(f"truth must be (A,) and hypotheses (K, A), got shapes {tuple(given.shape)} and {tuple(rows.shape)}")
    p = weights(given, given.shape, "truth", like=given, tolerance=1e-6)
    P = weights(rows, rows.shape, "hypotheses", like=rows, tolerance=1e-6)
    w = weights(prior, P.shape[:1], "prior", like=P, tolerance=1e-6)
    letters = p > 0
    p, P = p[letters], P[:, letters]  # a letter that the truth never draws is in no type
    count = math.comb(n + len(p) - 1, len(p) - 1)
    if count > 2_000_000:
        raise ValueError(
            f"{len(p)} letters and n = {n} make {count} types, more than 2,000,000: take fewer letters or a smaller n"
        )
    types = _types(n, len(p))
    sizes = torch.lgamma(torch.tensor(n + 1.0, dtype=torch.float64)) - torch.lgamma(types + 1).sum(1)
    truth_log = types @ p.log()
    log_P, log_w = P.log(), w.log()
    total = 0.0
    for rows_of in torch.arange(count).split(max(1, _CELLS // len(P))):
        some = types[rows_of]
        log_q = torch.logsumexp(_log_products(some, log_P) + log_w, 1)
        total += float((torch.exp(sizes[rows_of] + truth_log[rows_of]) * (truth_log[rows_of] - log_q)).sum())
    return total / n


def _log_products(types: Tensor, log_P: Tensor) -> Tensor:
    """types @ log_P', where 0 times -inf is 0: a hypothesis without a letter is excluded by the types that have it only."""
    never = torch.isinf(log_P)
    if not bool(never.any()):
        return types @ log_P.T
    excluded = (types > 0).double() @ never.double().T > 0
    return (types @ log_P.masked_fill(never, 0.0).T).masked_fill(excluded, -math.inf)


def _types(n: int, letters: int) -> Tensor:
    """All vectors of `letters` counts that sum to n, (count, letters), float64."""
    rows = torch.arange(n + 1, dtype=torch.float64)[:, None]
    for _ in range(letters - 2):
        left = (n - rows.sum(1)).long()
        rows = torch.repeat_interleave(rows, left + 1, 0)
        starts = torch.repeat_interleave((left + 1).cumsum(0) - (left + 1), left + 1)
        rows = torch.cat([rows, (torch.arange(len(rows)) - starts)[:, None].double()], 1)
    if letters == 1:
        return torch.full((1, 1), float(n), dtype=torch.float64)
    return torch.cat([rows, n - rows.sum(1, keepdim=True)], 1)


@dataclass(frozen=True, repr=False)
class WeightCurve(Result):
    """log W(eps), the log prior weight of {theta: KL(P_0 || P_theta) <= eps}, in nats a symbol, for ascending `epsilons`.

    `standard_errors` of log W (0: exact), `upper`: its upper 97.5 % limit, finite also where no draw fell into the ball and the
    estimate is -inf. `bounds_regret`: whether the ball is that of KL, as the bound on the regret asks.
    """

    epsilons: tuple[float, ...]
    log_weights: tuple[float, ...]
    standard_errors: tuple[float, ...]
    upper: tuple[float, ...]
    method: str
    bounds_regret: bool = True


def finite_weight_curve(truth: Any, hypotheses: Any, prior: Any = None, divergence: Divergence | None = None) -> WeightCurve:
    """The exact curve of finitely many hypotheses (K, A) under prior (K,), with a step at each KL(truth || P_k) that is finite.

    P is the truth, given; a hypothesis that excludes a possible outcome has an infinite KL and is in no ball. `divergence`
    other than KL() is for exploration: the regret is bounded by the ball of KL only, and the curve says so.
    """
    D = KL() if divergence is None else divergence
    given, rows = (as_tensor(v, s, like=_DOUBLE).double() for v, s in ((truth, "truth"), (hypotheses, "hypotheses")))
    w = weights(prior, rows.shape[:1], "prior", like=rows, tolerance=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfiniteDivergenceWarning)  # such a hypothesis is in no ball, which is said here
        near = D.from_probs(given.expand(rows.shape), rows)
    epsilons, place = torch.unique(near[torch.isfinite(near)], return_inverse=True)
    mass = torch.zeros_like(epsilons).index_add_(0, place, w[torch.isfinite(near)]).cumsum(0)
    logs = tuple(mass.clamp_max(1).log().tolist())
    zero = (0.0,) * len(logs)
    return WeightCurve(tuple(epsilons.tolist()), logs, zero, logs, "exact", isinstance(D, KL))


@dataclass(frozen=True, repr=False)
class RegretBound(Result):
    """min over eps of eps + log(1/W(eps)) / n, in nats a symbol, where it is attained, and the weight there."""

    value: float
    epsilon: float | None
    log_weight: float | None
    note: str | None = None


def regret_bound(curve: WeightCurve, n: int) -> RegretBound:
    """The bound on the regret of the mixture after n symbols, or on its supervised regret averaged over sizes 0 to n - 1.

    The least over the curve's epsilons: right for any grid, best for a fine one. It bounds the expected regret of the mixture; a
    single trained network is not covered. An estimated curve makes an estimate of the bound. +inf, with a note, where no
    hypothesis of positive weight is within a finite KL. Source: Feder, Urbanke and Fogel (2025).
    """
    whole_number(n, 1, "n")
    known = [(e - v / n, e, v) for e, v in zip(curve.epsilons, curve.log_weights, strict=True) if v > -math.inf]
    if not known:
        return RegretBound(math.inf, None, None, "no hypothesis of positive weight is within a finite divergence of the truth")
    note = None if curve.bounds_regret else "no bound: the ball is not that of KL(truth || hypothesis)"
    value, epsilon, log_weight = min(known)
    return RegretBound(value, epsilon, log_weight, note)


def regular_log_weight(epsilon: float, log_prior_density: float, fisher: Any) -> float:
    """log W(eps) of a regular class for small eps: log w(theta_0) + (d/2) log(2 pi eps) - log Gamma(d/2 + 1) - (1/2) log det F.

    fisher: the d eigenvalues of the Fisher information at theta_0, all positive; a flat minimum has a small determinant and a
    large weight. The bound then is about (d / 2 n) log n.
    """
    spectrum = as_tensor(fisher, "fisher").double()
    if spectrum.ndim != 1 or not bool((spectrum > 0).all()):
        raise ValueError("fisher must be positive eigenvalues: drop flat directions, whose count is no dimension")
    half = len(spectrum) / 2
    volume = half * math.log(2 * math.pi * positive(epsilon, "epsilon")) - math.lgamma(half + 1)
    return log_prior_density + volume - 0.5 * float(spectrum.log().sum())


def effective_dimension(fisher: Any, n: int) -> float:
    """sum_i lambda_i / (lambda_i + 1/n): how many directions n rows see, for eigenvalues in the coordinates of the prior."""
    spectrum = as_tensor(fisher, "fisher").double()
    if bool((spectrum < 0).any()):
        raise ValueError(f"fisher must be non-negative eigenvalues, got a least of {float(spectrum.min()):.6g}")
    return float((spectrum / (spectrum + 1 / whole_number(n, 1, "n"))).sum())


def bernoulli(rates: Any) -> Tensor:
    """Rates (K,) of an outcome as hypotheses over {0, 1}: (K, 2)."""
    theta = as_tensor(rates, "rates").double()
    return torch.stack([1 - theta, theta], -1)


__all__ = [
    "MixturePredictor",
    "RegretBound",
    "WeightCurve",
    "bernoulli",
    "effective_dimension",
    "finite_weight_curve",
    "online_regret",
    "regret_bound",
    "regular_log_weight",
]
