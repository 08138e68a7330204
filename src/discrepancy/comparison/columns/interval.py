"""The interval of a distance: two ends, two arguments. Here those of ordered columns and of shares.

high = T + 1.96 se: the norm is convex, so T - D is at least a mean-zero linear statistic, near zero too. low by inversion
along the ray, and 0 whenever the plain test of that distance does not reject at 5 % (the agreement rule, which repairs
tables with many unseen levels). Not a bootstrap percentile interval, whose lower end is never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts
from discrepancy.comparison.columns.influence import design_effect, kantorovich_potential, mean_variance, standard_error
from discrepancy.comparison.columns.noise import reduce_cells, share_noise
from discrepancy.comparison.columns.norms import OrderedNorms
from discrepancy.comparison.columns.ray import PATHS, Ray

Z_975 = 1.959963984540054
Z_95 = 1.6448536269514722
AGREEMENT = 0.05


@dataclass(frozen=True)
class Interval:
    """95 % interval [low, high] of a distance, `corrected`: the distance whose median statistic is the observed one, and
    `reach`: the larger of the standard error and the largest one that any change of that shape could have (equivalence)."""

    low: float
    high: float
    corrected: float
    reach: float


def ordered_interval(
    norms: OrderedNorms, difference: np.ndarray, value: float, p_plain: float, rng: np.random.Generator, *, statistic: str = "W1"
) -> Interval | None:
    """The interval of W1 or KS from F_n - G_m at the knots (K - 1,); None where a table has fewer than two rows or units.

    value: T in the units to report, in which low, high and corrected come. p_plain: the plain permutation p of that
    statistic. 400 paths at up to 300 knots: O(400 * 300) a point of the ray, about 15 points.
    """
    counts = norms.counts
    cells = slice(0, counts.values)
    knots = counts.values - 1
    F = difference[:knots]
    if statistic == "W1":
        psi = kantorovich_potential(F, norms.gaps)
    else:
        where = int(np.argmax(np.abs(F))) if knots else 0
        psi = np.where(np.arange(counts.values) <= where, np.sign(F[where]) if knots else 0.0, 0.0)
    se = standard_error(counts, psi, cells)
    if math.isnan(se):
        return None
    deviation = float(norms.deviations()[norms.names.index(statistic)]) * math.sqrt(design_effect(counts, psi, cells))
    if not value > 0:
        # The data do not say which direction attains the norm: the widest one does.
        return Interval(0.0, Z_975 * deviation, 0.0, deviation)
    high = value + Z_975 * se
    reduced = reduce_cells(counts)
    assert reduced.knots is not None
    gaps = np.diff(reduced.knots)
    one, two = (np.cumsum(share)[:-1] for share in reduced.shares)
    d = one - two
    paths = [share_noise(s, share, reduced, counts, PATHS, rng) for s, share in zip(counts.sides, reduced.shares, strict=True)]
    B = np.cumsum(paths[0] - paths[1], axis=1)[:, :-1]

    def norm(path: np.ndarray) -> np.ndarray:
        np.abs(path, out=path)
        return (path @ gaps if statistic == "W1" else path.max(1))[:, None]

    observed = norm(d[None].copy())[0]
    if not observed[0] > 0:
        return Interval(0.0, high, 0.0, max(se, deviation))
    ray = Ray(lambda t: norm(t * d + B), observed)
    return _ends(ray, value, high, p_plain, max(se, deviation))


def _ends(ray: Ray, value: float, high: float, p_plain: float, reach: float) -> Interval:
    low = 0.0 if p_plain > AGREEMENT else min(1.0, ray.low()) * value
    return Interval(low, high, min(1.0, ray.median()) * value, reach)


def share_interval(counts: KnotCounts, cell: int, p_plain: float) -> Interval | None:
    """The interval of the absolute difference of the shares of one cell among all rows; None below two rows or units.

    low: the ray in closed form, |t d + se Z|. high: Newcombe's score interval of the difference, which keeps its meaning
    where a share is 0 or 1; the sizes in it are those that give each share its variance under weights and units.
    Source: Newcombe 1998.
    """
    from scipy.special import ndtr

    psi = np.zeros(counts.cells)
    psi[cell] = 1.0
    shares, sizes, variance = [], [], 0.0
    for side in counts.sides:
        own = mean_variance(side, psi, dependent=counts.dependent)
        if math.isnan(own):
            return None
        share = float(side.mass[cell]) / side.total
        full = float(len(side.units)) if counts.dependent and side.units is not None else side.effective()
        shares.append(share)
        # own = share (1 - share) / (size - 1): the size of a plain sample with that variance.
        sizes.append(share * (1 - share) / own + 1 if own > 0 else full)
        variance += own
    difference, se = shares[1] - shares[0], math.sqrt(variance)
    value = abs(difference)
    wilson = [_wilson(share, size) for share, size in zip(shares, sizes, strict=True)]
    (l1, u1), (l2, u2) = wilson
    below = difference - math.hypot(shares[1] - l2, u1 - shares[0])
    above = difference + math.hypot(u2 - shares[1], shares[0] - l1)
    high = min(1.0, max(abs(below), abs(above)))
    reach = max(se, 0.5 * math.sqrt(sum(1 / size for size in sizes)) if min(sizes) > 0 else math.inf)
    if p_plain > AGREEMENT or value == 0:
        return Interval(0.0, high, 0.0, reach)
    if se == 0:
        low = below if difference > 0 else -above
        return Interval(max(0.0, low), high, value, reach)
    t = np.linspace(0.0, 1.0, 1001)
    not_below = ndtr((t - 1) * value / se) + ndtr((-t - 1) * value / se)
    median = _folded_median(t * value / se)
    rho = np.minimum(1.0, 2 * 2 * ndtr(-median))
    enough = not_below >= 0.025 * (1 + rho)
    return Interval(float(t[np.argmax(enough)]) * value, high, value, reach)


def _folded_median(shift: np.ndarray) -> np.ndarray:
    """The median of |shift + Z|, Z standard normal: the root of Phi(x - shift) - Phi(-x - shift) = 1/2."""
    from scipy.special import ndtr

    low, high = np.maximum(shift - 1.0, 0.0), shift + 1.0
    for _ in range(40):
        middle = (low + high) / 2
        less = ndtr(middle - shift) - ndtr(-middle - shift) < 0.5
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return (low + high) / 2


def _wilson(share: float, size: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share from `size` rows."""
    z2 = Z_975**2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = Z_975 / (1 + z2 / size) * math.sqrt(share * (1 - share) / size + z2 / (4 * size * size))
    return max(0.0, centre - half), min(1.0, centre + half)
