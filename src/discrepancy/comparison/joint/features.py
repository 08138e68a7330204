"""Random features of Gaussian kernels: a row becomes cosines and sines, a table their mean, a distance a norm.

k(x, y) = exp(-|x - y|^2 / (2 s^2)) = E cos(w'(x - y)) for w ~ N(0, I/s^2), here the average over 128 frequencies.
Source: Rahimi and Recht (2007), "Random Features for Large-Scale Kernel Machines".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.joint.scores import Representation
from discrepancy.comparison.joint.sides import Side
from discrepancy.comparison.streams import stream

FACTORS = (0.35, 0.7, 1.4)  # kernel widths in units of the median distance
FREQUENCIES = 128  # of each width
MIDDLE = 1  # the width whose distance is reported
CHUNK = 20_000  # rows whose features exist at one time
_MEDIAN_ROWS = 1_000


@dataclass(frozen=True)
class Features:
    """The feature map of three kernels: `frequencies` (d, 3 x 128), `median` the pooled median distance."""

    frequencies: np.ndarray
    median: float

    def of_width(self, number: int) -> Features:
        """The map of one kernel alone."""
        return Features(self.frequencies[:, number * FREQUENCIES : (number + 1) * FREQUENCIES], self.median)

    @property
    def width(self) -> int:
        """How many features a row has."""
        return 2 * self.frequencies.shape[1]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Features (k, 2 x frequencies) of rows (k, d) in float32: each width's cosines, then its sines; norm 1 a width."""
        return waves(x @ self.frequencies)


def waves(phase: np.ndarray) -> np.ndarray:
    """Cosines and sines of phases (k, w x 128), width by width, each width scaled to norm 1: (k, w x 256)."""
    k, total = phase.shape
    widths = total // FREQUENCIES
    phase = phase.reshape(k, widths, FREQUENCIES)
    out = np.empty((k, widths, 2, FREQUENCIES), dtype=phase.dtype)
    np.cos(phase, out=out[:, :, 0])
    np.sin(phase, out=out[:, :, 1])
    out *= out.dtype.type(1 / math.sqrt(FREQUENCIES))
    return out.reshape(k, 2 * total)


def features(representation: Representation, both: tuple[Side, Side], seed: int) -> Features | None:
    """The feature map for two tables, or None where all rows are equal.

    The median distance is that of 1,000 pooled rows (of those that differ, where over half do not); frequencies come from
    the stream (seed, "joint", "frequencies").
    """
    random = stream(seed, "joint", "median")
    lengths = [len(side.rows) for side in both]
    picks = random.choice(sum(lengths), min(_MEDIAN_ROWS, sum(lengths)), replace=False)
    sample = np.concatenate(
        [
            representation.pooled(False, both[0].rows[picks[picks < lengths[0]]]),
            representation.pooled(True, both[1].rows[picks[picks >= lengths[0]] - lengths[0]]),
        ]
    )
    return feature_map(sample, seed)


def feature_map(sample: np.ndarray, seed: int) -> Features | None:
    """The feature map whose widths come from the median distance of these rows (k, d); None where all are equal. O(k^2 d)."""
    sample = sample.astype(np.float64)
    norms = (sample**2).sum(1)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * sample @ sample.T, 0.0)[np.triu_indices(len(sample), 1)]
    # The expansion above leaves equal rows a distance of rounding size, not of zero.
    differ = squared[squared > 1e-9 * max(float(norms.max()), 1e-300)]
    if len(differ) == 0:
        return None
    median = math.sqrt(float(np.median(squared if 2 * len(differ) > len(squared) else differ)))
    draws = stream(seed, "joint", "frequencies").standard_normal((len(FACTORS), FREQUENCIES, sample.shape[1]))
    blocks = [draws[i].T / (factor * median) for i, factor in enumerate(FACTORS)]
    return Features(np.concatenate(blocks, axis=1).astype(np.float32), median)


def feature_sums(representation: Representation, both: tuple[Side, Side], phi: Features) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the features over each unit of each table, (units, width) each; streams, 20,000 rows at a time."""
    chunk = max(1, min(CHUNK, 40_000_000 // (phi.width + representation.width)))
    first, second = (
        side.sums(phi.width, lambda rows, current=current: phi(representation.pooled(current, rows)), chunk)
        for current, side in ((False, both[0]), (True, both[1]))
    )
    return first, second
