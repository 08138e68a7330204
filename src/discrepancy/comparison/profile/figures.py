"""What a report draws of a column that is known by its counts: the same record as from rows, read off the cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from discrepancy.comparison.columns.summary import MOST_BINS, PROBABILITIES, level_summary
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile.levels import OTHER, LevelCounts
from discrepancy.comparison.profile.ordered import OrderedCounts, rebinned


def ordered_figures(sides: tuple[OrderedCounts, OrderedCounts], kind: Kind) -> dict[str, Any]:
    """Quantiles, moments and a histogram of both tables: exact where a knot is hit, interpolated inside cells. O(K)."""
    out: dict[str, Any] = {"probabilities": list(PROBABILITIES)}
    for name, c in zip(("reference", "current"), sides, strict=True):
        n = c.count
        sd = math.sqrt(c.square / (n - 1)) if n > 1 and math.isfinite(c.square) else None
        some = n > 0
        out[name] = {
            "count": int(n),
            "mean": c.mean if some and math.isfinite(c.mean) else None,
            "sd": sd,
            "min": float(c.knots[0]) if some else None,
            "max": float(c.knots[-1]) if some else None,
            "quantiles": quantiles(c, np.array(PROBABILITIES)).tolist(),
        }
    out["histogram"] = _histogram(sides, kind)
    return out


def quantiles(c: OrderedCounts, probabilities: np.ndarray) -> np.ndarray:
    """Quantiles (k,): the smallest value whose share reaches p where all values are known, else linear inside a cell."""
    n = c.count
    if n <= 0:
        return np.empty(0)
    F = np.cumsum(c.mass)
    at = np.minimum(np.searchsorted(F, probabilities * n - 1e-9, side="left"), len(F) - 1)
    if c.complete:
        return c.knots[at]
    left = np.maximum(at - 1, 0)
    gap = F[at] - F[left]
    inside = np.where((at > 0) & (gap > 0), (probabilities * n - F[left]) / np.where(gap > 0, gap, 1.0), 1.0)
    found = c.knots[left] + np.clip(inside, 0.0, 1.0) * (c.knots[at] - c.knots[left])
    return np.maximum.accumulate(np.where(at > 0, found, c.knots[0]))


def _histogram(sides: tuple[OrderedCounts, OrderedCounts], kind: Kind) -> dict[str, Any] | None:
    full = [c for c in sides if c.count > 0]
    if not full:
        return None
    low, high = min(float(c.knots[0]) for c in full), max(float(c.knots[-1]) for c in full)
    if not math.isfinite(high - low):
        return None
    if low == high:
        half = max(abs(low) * 1e-3, 0.5)
        edges = np.array([low - half, low + half])
    elif kind is Kind.INTEGER and high - low < MOST_BINS:
        edges = np.arange(low - 0.5, high + 1)
    else:
        core = [float(f(quantiles(c, np.array([p]))[0] for c in full)) for f, p in ((min, 0.005), (max, 0.995))]
        room = 0.1 * (core[1] - core[0])
        if room > 0:
            low, high = max(low, core[0] - room), min(high, core[1] + room)
        edges = np.unique(np.linspace(low, high, MOST_BINS + 1))
    if len(edges) < 2:
        return None
    out: dict[str, Any] = {"edges": edges.tolist()}
    for name, c in zip(("reference", "current"), sides, strict=True):
        n = c.count
        if not n > 0:
            out[name] = {"density": [], "below": None, "above": None}
            continue
        # The left edge belongs to the first bin, as the smallest value may lie on it.
        first = np.nextafter(edges[0], -np.inf)
        whole = rebinned(c, np.unique(np.concatenate([c.knots[[0, -1]], [first], edges])))
        F = np.cumsum(whole.mass) / n
        shares = F[np.searchsorted(whole.knots, np.concatenate([[first], edges[1:]]))]
        density = np.maximum(np.diff(shares), 0.0) / np.diff(edges)
        out[name] = {"density": density.tolist(), "below": float(shares[0]), "above": max(0.0, float(1 - shares[-1]))}
    return out


def level_figures(
    names: tuple[str, ...], masses: tuple[np.ndarray, np.ndarray], sides: tuple[LevelCounts, LevelCounts]
) -> dict[str, Any]:
    """Counts and shares of levels in both tables, those that are not listed as one."""
    found = level_summary(names, masses[0], masses[1], missing=(sides[0].missing, sides[1].missing))
    for key in ("novel", "vanished"):
        kept = [item for item in found[key] if item["level"] != OTHER]
        found[f"{key}_count"] -= len(found[key]) - len(kept)
        found[key] = kept
    return found
