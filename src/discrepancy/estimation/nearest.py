"""Divergences from nearest-neighbour distances, with an interval from the influence of each point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import fraction, sample_pair
from discrepancy.divergences import Divergence, FDivergence
from discrepancy.divergences.ratio import RatioDivergence
from discrepancy.estimation.geometry import Neighborhoods, Space
from discrepancy.estimation.rank_extrapolation import RankExtrapolation
from discrepancy.estimation.reference import GaussianReference
from discrepancy.estimation.renyi_reading import power_of, read
from discrepancy.neighbors import nearest_neighbors

_COVERED = 5  # dimensions up to which the interval's coverage has been measured on Gaussian samples of 500
_EXTRAPOLATED = 3  # dimensions up to which the extrapolated interval has been measured, on Laplace, exponential and mixed laws
_NEGENTROPY = 0.05  # nats from Gaussian from which on the reference is not trusted with an interval, noise allowed for
_EFFECTIVE = 20.0  # points of the second sample that must share the work before a normal interval is believed
# Shares of a ball's noise that its neighbours' influences explain: they counted it already. Measured on Gaussian samples, for KL
# and for powers; the rest is second-order noise of a fixed k and stays in the variance. Coverage is checked on other draws.
_KL_SHARE = 0.8
_POWER_SHARE = 0.5


@dataclass(frozen=True)
class NearestNeighbors:
    """KL, every combination of power divergences, Renyi's and Tsallis' from the k-th nearest-neighbour distances.

    Around each x_i the ball to its k-th neighbour in x has volume V_i, that to the k-th in y volume W_i, and W_i/V_i estimates
    p/q (x_i). For KL
        D = mean_i log(W_i / V_i) + psi(m + 1) - psi(n),
    where the digamma terms remove the bias of a count of k exactly; for a power t^b, b = a - 1, mean_i (W_i/V_i)^b is divided by
    its expectation at p = q, a ratio of gamma functions, which needs k > |b|. Alpha(a) with a < 1/2 is taken at the y_i instead.
    What bias remains is that of a density that is not constant in the ball: `reference` removes the Gaussian part of it, after an
    affine map to unit pooled covariance (None: volumes as they are, the classical estimator).

    The interval is value +- z standard errors from the influence of each point: its own term, the terms of those that it is a
    neighbour of, and its part in the reference. In two dimensions and more, where the samples are not close to Gaussian, what
    bias remains is not small beside the standard error: there value and interval are those of the classical estimator at several
    k, as `extrapolation` combines them. With None, or without a reference, there is no interval then. Not differentiable, and
    deterministic. The value is nearly unbiased, and may hence be slightly negative. Bias O((k/n)^(2/d)) in general, next to none
    for nearly Gaussian samples.
    Time O(n log n) up to dimension 10 and O(n m d) above; memory O(n k).
    Raises ValueError for a k that is not a positive integer.
    """

    k: int = 10
    reference: GaussianReference | None = field(default_factory=GaussianReference)
    extrapolation: RankExtrapolation | None = field(default_factory=lambda: RankExtrapolation(ranks=(3, 5, 10, 20)))

    references = ("wang-kulkarni-verdu-2009", "poczos-schneider-2011", "lombardi-pant-2016")

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k must be a positive integer, got {self.k!r}")

    @torch.no_grad()
    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """The divergence D(P || Q) from samples x (n, d) of P and y (m, d) of Q.

        `generator` is accepted for the sake of one call for all estimators; nothing is drawn. Raises TypeError for a divergence
        that is no function of such a combination, ValueError for fewer than k + 1 points, batches, or k identical points.
        """
        if isinstance(divergence, RatioDivergence) and (power := power_of(divergence)) is not None:
            return read(divergence, self(power, x, y, level=level))
        terms = self._terms(divergence)
        level = fraction(level, "level")
        pair = sample_pair(x, y)
        if pair.batch:
            raise ValueError(
                f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: estimate each in turn"
            )
        n, m = pair.x.shape[0], pair.y.shape[0]
        if min(n, m) <= self.k:
            raise ValueError(f"k = {self.k} neighbours need more than {self.k} points in each sample, got {n} and {m}")
        space = Space.of(pair.x.double(), pair.y.double(), self.k, self.reference)
        value, variance = 0.0, 0.0
        influence_x, influence_y = pair.x.new_zeros(n, dtype=torch.float64), pair.y.new_zeros(m, dtype=torch.float64)
        effective = math.inf
        unbounded = False
        for forward in (True, False):
            side = {a: c for a, c in terms.items() if (a >= 0.5) == forward}
            if not side:
                continue
            hoods = space.neighborhoods(forward)
            # Alpha(a)(P || Q) = Alpha(1 - a)(Q || P), so that both directions read alike.
            for a, c in side.items():
                part = _Power(a if forward else 1 - a, hoods, self.k)
                value += c * part.value
                own, other = (influence_x, influence_y) if forward else (influence_y, influence_x)
                own += c * part.influence_own
                other += c * part.influence_other
                variance -= c * c * part.ball_noise
                effective = min(effective, part.effective)
                unbounded |= not math.isfinite(part.ball_noise)
        raw = float(influence_x.var()) / n + float(influence_y.var()) / m
        # The noise of a ball is the doing of its neighbours, whose influence has been counted: it is taken out of the own
        # term. At equality nearly all is noise, hence the floor.
        variance = max(raw + variance, 0.25 * raw) if not unbounded else math.nan
        notes = list(space.notes)
        # A law may be some way from Gaussian and still trusted, by the noise of its negentropy or by design.
        doubtful = _NEGENTROPY + 2 * math.sqrt(_trigamma(self.k) / min(n, m))
        far = space.dimension > 1 and (space.weight < 1 or space.negentropy > doubtful)
        if not far and space.dimension > _COVERED:
            notes.append(f"beyond {_COVERED} dimensions a bias of the size of the standard error is not in the interval")
        method = f"nearest neighbours, k = {self.k}, {space.describe()}"
        why = self._why_not(n, m, effective, unbounded) or (self._why_not_far(terms, space) if far else None)
        if why:
            notes.insert(0, f"no interval: {why}")
            return Estimate(value, None, None, None, None, method, "; ".join(notes))
        if far and self.extrapolation is not None:
            method = (
                f"nearest neighbours, k = {self.k}, {space.own_x.engine}, no reference: the samples are not close to Gaussian"
            )

            def statistic(samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
                return _classical(terms, samples[0], samples[1], ranks)

            pooled = [space.x, space.y]
            return self.extrapolation.estimate(statistic, pooled, self.k, paired=False, level=level, method=method, notes=notes)
        error = math.sqrt(variance)
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        return Estimate(value, error, value - half, value + half, level, method, "; ".join(notes) or None)

    def _terms(self, divergence: Divergence) -> Mapping[float, float]:
        terms = divergence.powers() if isinstance(divergence, FDivergence) else None
        if terms is None:
            raise TypeError(
                f"nearest neighbours do not estimate {divergence!r} without bias of a fixed size: admissible are KL, ReverseKL, "
                "Jeffreys, Alpha, SquaredHellinger, ChiSquared, NeymanChiSquared, their sums and multiples, Renyi and Tsallis of "
                "positive finite order; NearestNeighborRatios() takes every function of p/q"
            )
        for a in terms:
            need = max(abs(a - 1) if a >= 0.5 else abs(a), 0.0)
            if self.k <= need:
                raise ValueError(f"Alpha({a:g}) needs more than {need:g} neighbours for a finite correction, got k = {self.k}")
        return terms

    def _why_not(self, n: int, m: int, effective: float, unbounded: bool) -> str | None:
        if min(n, m) < 4 * self.k:
            return f"{min(n, m)} points are fewer than 4 k = {4 * self.k}"
        if unbounded:
            return f"the variance of a ball of k = {self.k} points is not finite at this power; raise k"
        if effective < _EFFECTIVE:
            return (
                f"the samples hardly overlap: the estimate hangs on some {effective:.0f} points of one sample near the other; "
                "the value is rather a lower bound"
            )
        return None

    def _why_not_far(self, terms: Mapping[float, float], space: Space) -> str | None:
        bias = "the samples are not close to Gaussian, and the smoothing bias of order (k/n)^(2/d) may exceed the standard error"
        if self.extrapolation is None or self.reference is None:
            return bias
        if space.dimension > _EXTRAPOLATED:
            return f"{bias} in {space.dimension} dimensions"
        steepest = max(abs(a - 1) if a >= 0.5 else abs(a) for a in terms)
        if min(self.extrapolation.ranks) <= 2 * steepest:
            return f"{bias}; its extrapolation from {min(self.extrapolation.ranks)} neighbours has no variance at this power"
        return None


def _classical(terms: Mapping[float, float], x: Tensor, y: Tensor, ranks: Sequence[int]) -> Tensor:
    """The estimates (T,) at T numbers of neighbours, volumes as they are."""
    columns, value = torch.tensor(ranks) - 1, torch.zeros(len(ranks), dtype=torch.float64)
    for forward in (True, False):
        side = {a if forward else 1 - a: c for a, c in terms.items() if (a >= 0.5) == forward}
        if not side:
            continue
        points, others = (x, y) if forward else (y, x)
        own = nearest_neighbors(points, points, max(ranks), exclude_self=True).distances[:, columns]
        other = nearest_neighbors(points, others, max(ranks)).distances[:, columns]
        t = points.shape[1] * (other.log() - own.log())
        n, m = len(points), len(others)
        for a, c in side.items():
            b = a - 1.0
            if b == 0:
                value += c * (t.mean(0) + _digamma(m + 1) - _digamma(n))
            else:
                bias = torch.tensor([_log_ball_moment(b, k, n, m) for k in ranks], dtype=torch.float64)
                value += c * (torch.exp(b * t - bias).mean(0) - 1) / (a * b)
    return value


class _Power:
    """Alpha(a), a >= 1/2, at the points of one sample: value, influences, and the variance that balls of k points add."""

    def __init__(self, a: float, hoods: Neighborhoods, k: int) -> None:
        n, m, b = hoods.n, hoods.m, a - 1.0
        t = hoods.log_ratio
        if b == 0:
            terms = t + _digamma(m + 1) - _digamma(n)
            slope = torch.ones_like(t)
            self.ball_noise = _KL_SHARE * (2 * _trigamma(k) - _trigamma(n) - _trigamma(m + 1)) / n
        else:
            log_bias = _log_ball_moment(b, k, n, m)
            power = torch.exp(b * t - log_bias)
            terms, slope = (power - 1) / (a * b), power / a
            if k > 2 * abs(b):
                kappa = math.expm1(_log_ball_moment(2 * b, k, n, m) - 2 * log_bias)
                noise = float(power.square().mean()) * kappa / (1 + kappa) / (a * b) ** 2 / n
                self.ball_noise = _POWER_SHARE * noise
            else:
                self.ball_noise = math.inf
        self.value = float(terms.mean())
        shared_own, shared_other = hoods.shared(slope / k)
        by_own, by_other = hoods.through_reference(slope)
        self.influence_own = terms + shared_own + by_own
        self.influence_other = -shared_other * (m / n) + by_other
        self.effective = float(shared_other.sum() ** 2 / shared_other.square().sum())


def _digamma(v: float) -> float:
    return float(torch.digamma(torch.tensor(float(v), dtype=torch.float64)))


def _trigamma(v: float) -> float:
    return float(torch.polygamma(1, torch.tensor(float(v), dtype=torch.float64)))


def _log_ball_moment(b: float, k: int, n: int, m: int) -> float:
    """log E[(Q(ball)/P(ball))^b]: Q(ball) is Beta(k, m - k + 1), P(ball) is Beta(k, n - k), independent. Needs k > |b|."""
    q = math.lgamma(k + b) - math.lgamma(k) + math.lgamma(m + 1) - math.lgamma(m + 1 + b)
    p = math.lgamma(k - b) - math.lgamma(k) + math.lgamma(n) - math.lgamma(n - b)
    return q + p


__all__ = ["NearestNeighbors"]
