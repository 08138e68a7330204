"""Intervals for a discrepancy: how sure is the number?"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from discrepancy._kinds import Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, fraction, generator_or_default, positive
from discrepancy.inference.designs import make_design
from discrepancy.inference.influence import Influence, effective_size, influence
from discrepancy.inference.permutation import BesagClifford, count_exceedances, numpy_stream, single_pair
from discrepancy.inference.ray import NormRay, QuadraticRay, Ray, lower_end


def bootstrap(
    x: Any,
    y: Any,
    D: Discrepancy,
    a: Any = None,
    b: Any = None,
    *,
    level: float = 0.95,
    resamples: int = 400,
    generator: torch.Generator | None = None,
    memory: float = 1.0,
) -> Estimate:
    """The discrepancy with its standard error and an interval that stays valid where the distance is zero.

    The percentile bootstrap never reaches zero and a normal interval covers a zero distance in a third to a half of all
    cases; so each end has an argument of its own. With T = D^(1/k) for D = ||F - G||^k (`claims.norm_power`), T = D for
    other metrics and T = sqrt(D) for other discrepancies that are zero, with zero slope, at equality:

    - high: T + z se, se from the influence function of T. A norm is convex, so this holds near zero too.
    - low: by the ray (`ray.lower_end`): the smallest multiple of the observed difference that does not make the observed
      T surprisingly large, under Gaussian noise (norms) or multinomial resampling with its linear and quadratic part
      (others).
    - agreement: low = 0 where the permutation test of the same D does not reject at 1 - level. So at equality the interval
      misses with probability at most 1 - level, for every D and every sample size.

    An unbiased estimate (`MMD()`) gets the interval of its biased companion, widened where needed to hold the estimate,
    which may be negative. What is drawn at random (directions) is drawn once, and its own error, where D.solve tells
    it, is added in quadrature. Bandwidths and the like are fixed at the value that the data chose.

    x (n, d), y (m, d), a (n,), b (m,); level in (0, 1); resamples >= 4 / (1 - level). Returns floats: `value` D(x, y, a, b);
    `standard_error` from the influence function; `low`, `high` None where no interval is valid, and `note` says why.
    Where it falls short: an unregularised transport distance in 3 or more dimensions is biased upward by more than its
    standard error; heavy tails; fewer than about 50 rows. Time: one gradient of D, `resamples` permutations (fewer where
    nothing differs) and at most 7 `resamples` evaluations of the pooled statistic. Memory: D's own, and rows in chunks within
    `memory` GiB. Raises TypeError, ValueError for arguments that do not fit, NumericalError for a value that is not finite.
    Source: Feldman and Cousins 1998; Hong and Li 2018 (why the plain bootstrap fails at zero).
    """
    pair = single_pair(x, y, D, a, b)
    fraction(level, "level")
    if int(resamples) != resamples or resamples < 4 / (1 - level) - 1e-9:
        raise ValueError(
            f"resamples must be a whole number of at least {4 / (1 - level):.0f} at level {level}, got {resamples!r}"
        )
    positive(memory, "memory")
    pair = _with_mass(pair)
    gen = generator_or_default(generator, pair.x.device)
    seed = int(numpy_stream(gen).integers(2**62))
    fixed = D.resolved(pair.x, pair.y, pair.a, pair.b)
    if min(effective_size(pair.a), effective_size(pair.b)) < 1.5:
        value = float(fixed(pair.x, pair.y, pair.a, pair.b, generator=_generator(seed, pair)))
        return Estimate(value, level=level, method=repr(fixed), note="a single (effective) row has no standard error")
    return _Problem(fixed, pair, level, int(resamples), seed, memory).estimate()


def _with_mass(pair: SamplePair) -> SamplePair:
    keep_a, keep_b = pair.a > 0, pair.b > 0
    return SamplePair(pair.x[keep_a], pair.y[keep_b], pair.a[keep_a], pair.b[keep_b], pair.uniform_a, pair.uniform_b)


def _generator(seed: int, pair: SamplePair) -> torch.Generator:
    return torch.Generator(device=pair.x.device).manual_seed(seed)


def _biased_companion(D: Discrepancy) -> Discrepancy | None:
    """The V-statistic beside an unbiased estimator with a `biased` option, if it is a power of a norm."""
    if D.claims.non_negative or not is_dataclass(D) or "biased" not in {f.name for f in fields(D)}:
        return None
    companion = replace(D, biased=True)
    return companion if companion.claims.norm_power is not None else None


def _is_root(D: Discrepancy) -> bool:
    """Whether D^2 is smooth at equality: metrics, also where a control variate's noise breaks their triangle inequality."""
    if D.claims.metric or not is_dataclass(D) or "control_variate" not in {f.name for f in fields(D)}:
        return D.claims.metric
    return replace(D, control_variate=None).claims.metric


@dataclass(frozen=True)
class _Problem:
    """One bootstrap: resolved discrepancy, rows with mass, and the seed of everything drawn."""

    D: Discrepancy
    pair: SamplePair
    level: float
    resamples: int
    seed: int
    memory: float

    @property
    def z(self) -> float:
        """The two-sided normal quantile of the level."""
        from scipy.special import ndtri

        return float(ndtri(0.5 + self.level / 2))

    def estimate(self) -> Estimate:
        """The interval by the route that the claims of D open."""
        psi = influence(self.D, self.pair, self.seed, memory=self.memory)
        companion = _biased_companion(self.D)
        if companion is not None:
            return self._unbiased(psi, companion)
        if self.D.claims.norm_power is None and not self.D.claims.non_negative:
            return self._normal(psi)
        return self._two_ended(psi)

    def _two_ended(self, psi: Influence) -> Estimate:
        """Low by the ray and the agreement rule, high by the normal limit of the root."""
        claims, pair, value = self.D.claims, self.pair, psi.value
        power = claims.norm_power if claims.norm_power is not None else (1 if _is_root(self.D) else 2)
        error, root = psi.standard_error(pair), max(value, 0.0) ** (1 / power)
        how = f"{self.D!r}; standard error from the influence function ({psi.how})"
        if claims.norm_power is None and error == 0 and value > 0:
            note = "no row has a first-order influence on the value (a supremum, or constant samples): no valid interval"
            return Estimate(value, level=self.level, method=how, note=note)
        statistic = self.D.pooled(torch.cat([pair.x, pair.y]), generator=_generator(self.seed, pair))
        p = self._permutation_p(statistic)
        notes: list[str] = []
        low = 0.0
        noise = self._coincident_noise(statistic, psi, root, power) if p == 1 or root == 0 else None
        if noise is not None:
            high = noise
            notes.append("the samples agree to rounding: high is the level-quantile of the noise alone")
        else:
            root_error = error / (power * root ** (power - 1))
            high = root + self.z * root_error
            if p > 1 - self.level + 1e-12:
                notes.append(f"low is 0: the permutation test does not reject (p = {p:.3g})")
            else:
                low = root * min(lower_end(self._ray(statistic, psi), self.level, root_error / root), 1.0)
        low, high = low**power, high**power
        drawn = self._drawing_error()
        if drawn > 0:
            error = math.hypot(error, drawn)
            low = max(0.0, value - math.hypot(value - low, self.z * drawn)) if low > 0 else 0.0
            high = value + math.hypot(high - value, self.z * drawn)
            how += "; the error of the random draw added in quadrature"
        model = "Gaussian noise" if claims.norm_power is not None else "linear and quadratic part of multinomial resamples"
        how += f"; low by the ray ({model}, {self.resamples} draws), high from the normal limit"
        if min(effective_size(pair.a), effective_size(pair.b)) < 50:
            notes.append("approximate: fewer than 50 effective rows in a sample")
        # Rounding may leave an end a few ulp on the wrong side of the value.
        low, high = min(low, value), max(high, value)
        return Estimate(value, error, low, high, self.level, method=how, note="; ".join(notes) or None)

    def _ray(self, statistic: PooledStatistic, psi: Influence) -> Ray:
        claims, seed = self.D.claims, self.seed + 1
        if claims.norm_power is not None:
            return NormRay(statistic, self.pair, claims.norm_power, self.resamples, seed, memory=self.memory)
        return QuadraticRay(statistic, self.pair, psi, self.resamples, seed, square=_is_root(self.D), memory=self.memory)

    def _coincident_noise(self, statistic: PooledStatistic, psi: Influence, root: float, power: int) -> float | None:
        """Where the samples coincide up to rounding, the level-quantile of T under noise alone; else None.

        The influence vanishes there, and T + z se with it; what remains is the triangle inequality, truth <= T + noise.
        """
        draws = np.maximum(self._ray(statistic, psi).draws(0.0), 0.0)
        if self.D.claims.norm_power is None and _is_root(self.D):
            power = 2  # the ray is that of the squared metric
        noise = draws ** (1 / power)
        if root > 0.01 * float(np.median(noise)):
            return None
        return root + float(np.quantile(noise, self.level))

    def _permutation_p(self, statistic: PooledStatistic) -> float:
        """The permutation p-value, stopped as soon as it is known to exceed 1 - level."""
        pair, rng = self.pair, np.random.default_rng(self.seed + 2)
        stop = BesagClifford(math.floor((1 - self.level) * self.resamples + 1e-9))
        design = make_design(len(pair.a), len(pair.b))
        found = count_exceedances(statistic, pair, design, self.resamples - 1, rng, early_stop=stop, memory=self.memory)
        return found.exceedances / found.draws if found.stopped else (1 + found.exceedances) / (1 + found.draws)

    def _drawing_error(self) -> float:
        """The Monte Carlo error of what D draws at random, as D.solve tells it."""
        if not self.D.claims.random:
            return 0.0
        pair = self.pair
        solved = self.D.solve(pair.x, pair.y, pair.a, pair.b, generator=_generator(self.seed, pair))
        error = getattr(solved, "standard_error", None)
        return 0.0 if error is None else float(error)

    def _unbiased(self, psi: Influence, companion: Discrepancy) -> Estimate:
        """The interval of the biased companion around an unbiased value."""
        found = replace(self, D=companion).estimate()
        if found.low is None or found.high is None:
            return replace(found, value=psi.value)
        note = "the interval is that of the biased companion; the quantity itself is not negative"
        return replace(
            found,
            value=psi.value,
            standard_error=psi.standard_error(self.pair),
            low=min(float(found.low), psi.value),
            high=max(float(found.high), psi.value),
            method=f"{self.D!r}; interval from {found.method}",
            note="; ".join(filter(None, (found.note, note))),
        )

    def _normal(self, psi: Influence) -> Estimate:
        """value +- z se, for what claims neither a norm nor a sign."""
        error = psi.standard_error(self.pair)
        how = f"{self.D!r}; normal limit, standard error from the influence function ({psi.how})"
        note = "valid away from where the influence vanishes: this discrepancy claims neither a norm nor a sign"
        low, high = psi.value - self.z * error, psi.value + self.z * error
        return Estimate(psi.value, error, low, high, self.level, method=how, note=note)
