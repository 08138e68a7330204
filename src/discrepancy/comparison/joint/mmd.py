"""The maximum mean discrepancy of two tables at three kernel widths, its null, and the interval of the middle one.

T = |mean phi_ref - mean phi_cur| is a norm of F - G: with B the noise it is |D + B|, D the true difference. One set of
draws of B serves the plain test (D = 0), the minimum-effect test (|D| <= delta), and the interval.
Source: Gretton et al. (2012); Schrab et al. (2023) for several widths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.ray import PATHS, Ray
from discrepancy.comparison.joint.features import FACTORS, MIDDLE
from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.streams import stream

_Z = 1.959964


@dataclass(frozen=True)
class KernelDistance:
    """What the kernels say: `values` (3,), their noise norms `draws` (R, 3) and the noise `along` (R, 3) its widest direction.

    `spread` (3,) is the standard deviation in that direction, the largest of any: it bounds the tail of the null beyond its
    draws. `interval` is that of the middle width.
    """

    values: np.ndarray
    draws: np.ndarray
    along: np.ndarray
    spread: np.ndarray
    interval: tuple[float, float]

    def moved(self, delta: float) -> np.ndarray:
        """Draws (R, 3) of |D + B| for a true difference of norm delta in the widest direction of the noise B.

        Of all D with |D| <= delta this one has the heaviest upper tail (the mean of |D + B|^2 is that of any, its variance
        the largest), so rejecting beyond it is valid for all of them. The triangle inequality, |D + B| <= delta + |B|,
        is valid too, but D and B are nearly orthogonal in hundreds of directions and it costs most of the power.
        """
        return np.sqrt(np.maximum(self.draws**2 + 2 * delta * self.along + delta**2, 0.0))


def kernel_distance(sums: tuple[np.ndarray, np.ndarray], null: Null, seed: int) -> KernelDistance:
    """The three distances from unit sums (units, 3 x 256) of the two tables.

    Time O(R x units x 768), one matrix product. The interval is that of the middle width, in [0, sqrt 2].
    """
    k = null.count_reference
    joined = np.concatenate(sums)
    sizes = null.sizes
    centred = joined - sizes[:, None] * (joined.sum(0, dtype=np.float64) / sizes.sum())
    gap = centred[:k].sum(0, dtype=np.float64) / sizes[:k].sum() - centred[k:].sum(0, dtype=np.float64) / sizes[k:].sum()
    values = _norms(gap[None])[0]
    within = np.concatenate(
        [_inside(centred[:k], sizes[:k]) / sizes[:k].sum(), _inside(centred[k:], sizes[k:]) / sizes[k:].sum()]
    )
    width = joined.shape[1] // len(FACTORS)
    blocks = [slice(i * width, (i + 1) * width) for i in range(len(FACTORS))]
    widest = np.zeros((joined.shape[1], len(FACTORS)))
    spread = np.zeros(len(FACTORS))
    for i, block in enumerate(blocks):
        variances, directions = np.linalg.eigh(within[:, block].T @ within[:, block])
        spread[i] = math.sqrt(max(float(variances[-1]), 0.0))
        widest[block, i] = directions[:, -1]
    norms, projections = [], []
    for noise in null.differences(centred):
        norms.append(_norms(noise))
        projections.append(noise @ widest)
    draws, along = np.concatenate(norms), np.concatenate(projections)
    middle = blocks[MIDDLE]
    plain = (1 + np.count_nonzero(draws[:, MIDDLE] >= values[MIDDLE] - 1e-9)) / (len(draws) + 1)
    interval = norm_interval(gap[middle], within[:, middle], plain, seed)
    return KernelDistance(values, draws, along, spread, interval)


def _norms(rows: np.ndarray) -> np.ndarray:
    """The norm of each width's block of features, (r, 3)."""
    return np.sqrt((rows.reshape(len(rows), len(FACTORS), -1) ** 2).sum(-1))


def _inside(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Unit sums less their table's mean, scaled so that their squares add up to an unbiased variance."""
    mean = sums.sum(0, dtype=np.float64) / sizes.sum()
    count = len(sizes)
    return (sums - sizes[:, None] * mean) * math.sqrt(count / max(count - 1, 1))


def norm_interval(gap: np.ndarray, noise: np.ndarray, p_plain: float, seed: int) -> tuple[float, float]:
    """The 95 % interval of |true difference|, where the observed one is `gap` (p,) and `noise` (units, p) are the terms
    whose random combinations sum g_u noise_u, g standard normal, are its error.

    high = T + 1.96 se, se that of the linear functional gap/T: valid near zero too, since the norm is convex. low = t T by
    the ray |t gap + B|; 0 where the plain test of this distance does not reject at 5 %.
    """
    T = float(np.linalg.norm(gap))
    if T == 0.0:
        return 0.0, _Z * math.sqrt(float((noise**2).sum()))
    high = T + _Z * float(np.linalg.norm(noise @ gap)) / T
    if p_plain > 0.05:
        return 0.0, high
    B = stream(seed, "joint", "interval").standard_normal((PATHS, len(noise))) @ noise
    along, squared = B @ gap, (B**2).sum(1)
    ray = Ray(lambda t: np.sqrt(np.maximum(t * t * T * T + 2 * t * along + squared, 0.0))[:, None], np.array([T]))
    return ray.low() * T, high
