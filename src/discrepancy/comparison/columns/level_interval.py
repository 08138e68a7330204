"""The intervals of total variation and of the Jensen-Shannon divergence between the level shares of two tables.

Total variation of a table with many levels holds the noise of every level, also of those that did not change. A ray
through the observed shares takes that noise for change: where two of 50 levels had moved, its lower end missed the truth in
14 to 57 % of data sets. The ray therefore goes through shares from which what may be noise is taken out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts
from discrepancy.comparison.columns.influence import design_effect, standard_error
from discrepancy.comparison.columns.interval import AGREEMENT, Z_975, Interval
from discrepancy.comparison.columns.noise import multinomial_shares, reduce_cells, share_noise
from discrepancy.comparison.columns.norms import LevelNorms
from discrepancy.comparison.columns.ray import PATHS, Ray

_DENSE = 30.0  # rows expected in every level of both tables, from which on the normal law serves
_MANY_LEVELS = 20  # levels from which on only rare ones need their own law, since their errors average out
_COUNTED = 5.0  # rows expected below which a level is rare there (the normal law is 1.3 % off in mean size at 5)
_HALVED = 100  # levels from which on half the paths are drawn
_LIKELY = 1.5  # deviations that a level must have moved to count in the corrected distance
LOG_2 = math.log(2.0)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The Jensen-Shannon divergence in nats of shares (..., L) twice: KL(p || m)/2 + KL(q || m)/2, m = (p + q)/2."""
    from scipy.special import rel_entr

    middle = (p + q) / 2
    # Each level's two terms together are non-negative; rounding may leave them an ulp below.
    return np.maximum((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2, 0.0)


def level_interval(
    norms: LevelNorms, difference: np.ndarray, p_plain: float, rng: np.random.Generator
) -> tuple[Interval, dict[str, float | None]] | None:
    """The interval of TV and that of Jensen-Shannon from p - q (L,); None where a table has fewer than two rows or units.

    high = TV + 1.96 se. low along a ray on which only levels beyond sqrt(2 log L) deviations move, which noise alone hardly
    reaches, and at least T - q with q the 95 % point of the noise (the triangle inequality). `corrected` along one on which
    levels beyond 1.5 deviations do, all of them if none is. Jensen-Shannon, both ends, along the ray of the observed
    shares: it is quadratic near equality, so that its noise hardly depends on which levels moved.
    O(400 L) a point of a ray, 200 paths from 100 levels on.
    """
    counts = norms.counts
    cells = slice(0, counts.values)
    psi = np.sign(difference) / 2
    se = standard_error(counts, psi, cells)
    if math.isnan(se):
        return None
    value = float(np.abs(difference).sum() / 2)
    deviation = float(norms.deviations()[0]) * math.sqrt(design_effect(counts, psi, cells))
    if not value > 0:
        # The widest direction, as for ordered columns; and Jensen-Shannon is at most TV log 2.
        high = min(1.0, Z_975 * deviation)
        return Interval(0.0, high, 0.0, deviation), {"value": 0.0, "low": 0.0, "high": high * LOG_2}
    noise = LevelNoise.of(counts, rng)
    low = 0.0 if p_plain > AGREEMENT else _low(noise, value)
    corrected = max(low, _corrected(noise, value))
    interval = Interval(low, min(1.0, value + Z_975 * se), corrected, max(se, deviation))
    return interval, _jensen_shannon_interval(noise, p_plain)


@dataclass(frozen=True)
class LevelNoise:
    """Draws of both tables' shares around given ones: p, q (L,) observed, h pooled, rows (effective) of both.

    Multinomial where some level is rare; over 20 levels Poisson counts for the rare ones and normal noise for the others;
    normal where none is rare, and with weights or dependent rows. The normal noise (paths, L) is drawn once.
    """

    p: np.ndarray
    q: np.ndarray
    h: np.ndarray
    rows: tuple[float, float]
    deviations: np.ndarray
    paths: int
    rng: np.random.Generator
    normal: tuple[np.ndarray, np.ndarray] | None
    rare: np.ndarray

    @staticmethod
    def of(counts: KnotCounts, rng: np.random.Generator) -> LevelNoise:
        """The noise of a level column."""
        p, q = (side.mass / side.total for side in counts.sides)
        n, m = counts.effective()
        h = (n * p + m * q) / (n + m)
        paths = PATHS if len(h) < _HALVED else PATHS // 2
        expected = h * min(n, m)
        counted = counts.whole and not counts.dependent
        deviations = np.sqrt(np.maximum(h * (1 - h), 0.0) * (1 / n + 1 / m))
        if counted and len(h) <= _MANY_LEVELS and float(expected[h > 0].min()) < _DENSE:
            return LevelNoise(p, q, h, (n, m), deviations, paths, rng, None, np.empty(0, dtype=np.intp))
        reduced = reduce_cells(counts)
        one, two = (share_noise(s, share, reduced, counts, paths, rng) for s, share in zip(counts.sides, (p, q), strict=True))
        rare = np.flatnonzero((expected < _COUNTED) & (h > 0)) if counted else np.empty(0, dtype=np.intp)
        if counts.dependent:
            deviations = (one - two).std(0)
        return LevelNoise(p, q, h, (n, m), deviations, paths, rng, (one, two), rare)

    def moved(self, beyond: float) -> tuple[np.ndarray, np.ndarray]:
        """The observed shares with every level back at its pooled share that moved less than `beyond` deviations."""
        keep = np.abs(self.p - self.q) > beyond * self.deviations
        P, Q = np.where(keep, self.p, self.h), np.where(keep, self.q, self.h)
        return P / P.sum(), Q / Q.sum()

    def draw(self, t: float, P: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares (paths, L) of both tables if the true ones were h + t (P - h) and h + t (Q - h)."""
        drawn = []
        for side, (share, rows) in enumerate(zip((P, Q), self.rows, strict=True)):
            mean = self.h + t * (share - self.h)
            if self.normal is None:
                drawn.append(multinomial_shares(rows, mean, self.paths, self.rng))
                continue
            path = mean + self.normal[side]
            if len(self.rare):
                expected = np.maximum(mean[self.rare], 0.0) * rows
                path[:, self.rare] = self.rng.poisson(expected, (self.paths, len(self.rare))) / rows
                total = path.sum(1, keepdims=True)
                path /= np.where(total > 0, total, 1.0)  # a table of rare levels only may have drawn no row at all
            drawn.append(path)
        return drawn[0], drawn[1]

    def variation(self, t: float, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """Total variation of each draw (paths,)."""
        one, two = self.draw(t, P, Q)
        one -= two
        return np.abs(one, out=one).sum(1) / 2


def _ray(noise: LevelNoise, value: float, beyond: float) -> tuple[Ray, float] | None:
    """The ray of TV on which only levels beyond some deviations move, and its TV at t = 1; None if none is."""
    P, Q = noise.moved(beyond)
    D = float(np.abs(P - Q).sum() / 2)
    if not D > 0:
        return None
    return Ray(lambda t: noise.variation(t, P, Q)[:, None], np.array([value])), D


def _low(noise: LevelNoise, value: float) -> float:
    null = noise.variation(0.0, noise.p, noise.q)
    by_triangle = max(0.0, value - float(np.quantile(null, 0.95)))
    found = _ray(noise, value, math.sqrt(2 * math.log(max(2, int((noise.h > 0).sum())))))
    return by_triangle if found is None else min(value, max(by_triangle, found[0].low() * found[1]))


def _corrected(noise: LevelNoise, value: float) -> float:
    found = _ray(noise, value, _LIKELY) or _ray(noise, value, 0.0)
    return 0.0 if found is None else min(value, found[0].median() * found[1])


def _jensen_shannon_interval(noise: LevelNoise, p_plain: float) -> dict[str, float | None]:
    value = float(jensen_shannon(noise.p, noise.q))

    def simulate(t: float) -> np.ndarray:
        P, Q = noise.draw(t, noise.p, noise.q)
        # The root is of the size of a norm, as the ray's grid expects; quantiles do not mind.
        return np.sqrt(np.maximum(_entropy((P + Q) / 2) - (_entropy(P) + _entropy(Q)) / 2, 0.0))[:, None]

    def at(t: float) -> float:
        P, Q = (np.maximum(noise.h + t * (share - noise.h), 0.0) for share in (noise.p, noise.q))
        return float(jensen_shannon(P / P.sum(), Q / Q.sum()))

    ray = Ray(simulate, np.sqrt(np.array([value])))
    low = 0.0 if p_plain > AGREEMENT else min(value, at(ray.low()))
    return {"value": value, "low": low, "high": min(LOG_2, max(value, at(ray.high())))}


def _entropy(p: np.ndarray) -> np.ndarray:
    """-sum p log p over the last axis, negative shares (Gaussian noise) counting as 0. Faster than exact terms of JS."""
    # log of the smallest normal number times 0 is 0: no infinity meets a zero.
    return -np.einsum("ij,ij->i", np.maximum(p, 0.0), np.log(np.maximum(p, np.finfo(np.float64).tiny)))
