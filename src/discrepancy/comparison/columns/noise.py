"""Noise around the data: draws of (F_n - F) - (G_m - G) for the interval, and the reduction of knots for it.

Gaussian: B = bridge(F_n)/sqrt(n - 1) - bridge(G_m)/sqrt(m - 1) with a variance per cell of sum w^2, or with one normal
multiplier a unit where rows of a unit depend on each other. Multinomial where levels are too rare for a normal law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts, Side
from discrepancy.comparison.columns.knots import cosine_probabilities

MOST_KNOTS = 300


@dataclass(frozen=True)
class Reduced:
    """A column's value cells merged for the interval: (cell edges) and the shares of each table in the merged cells (L,)."""

    starts: np.ndarray
    shares: tuple[np.ndarray, np.ndarray]
    knots: np.ndarray | None


def reduce_cells(counts: KnotCounts) -> Reduced:
    """Merges the cells between at most 300 knots, chosen at cosine-spaced pooled shares; levels stay as they are."""
    K = counts.values
    if not counts.ordered:
        starts = np.arange(K)
        kept = None
    else:
        assert counts.line is not None
        last = np.arange(K)
        if K > MOST_KNOTS:
            share = np.cumsum(counts.pooled[:K])
            at = np.searchsorted(share / share[-1], cosine_probabilities(MOST_KNOTS - 1) - 1e-12)
            last = np.unique(np.append(np.clip(at, 0, K - 1), K - 1))
        starts = np.concatenate([[0], last[:-1] + 1])
        kept = counts.line.knots[last]
    shares = []
    for side in counts.sides:
        mass = np.add.reduceat(side.mass[:K], starts)
        total = mass.sum()
        shares.append(mass / total if total > 0 else mass)
    return Reduced(starts, (shares[0], shares[1]), kept)


def share_noise(
    side: Side, share: np.ndarray, reduced: Reduced, counts: KnotCounts, paths: int, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise of one table's shares of the merged cells: (paths, L), each row summing to zero.

    Rows e_k ~ N(0, sum of w^2 in cell k), then e/W - share * (sum e)/W, times sqrt(n_eff/(n_eff - 1)).
    """
    K = counts.values
    total = float(side.mass[:K].sum())
    if counts.dependent:
        assert side.units is not None
        mass = np.add.reduceat(side.units[:, :K], reduced.starts, axis=1)
        number = int((mass.sum(1) > 0).sum())
        e = rng.standard_normal((paths, len(mass))) @ mass
        grow = number / (number - 1)
    else:
        square = np.add.reduceat(side.square[:K], reduced.starts)
        e = rng.standard_normal((paths, len(square))) * np.sqrt(square)
        n = side.effective(slice(0, K))
        grow = n / (n - 1)
    e -= share * e.sum(1, keepdims=True)
    e *= np.sqrt(grow) / total
    return e


def multinomial_shares(rows: float, share: np.ndarray, paths: int, rng: np.random.Generator) -> np.ndarray:
    """Shares (paths, L) of multinomial tables of `rows` rows; what left the simplex is cut and the rest renormalised."""
    inside = np.maximum(share, 0.0)
    # The last level takes what is left, so that rounding cannot carry the sum above one.
    return rng.multinomial(max(1, round(rows)), inside / inside.sum(), size=paths) / max(1, round(rows))
