"""What a report draws of one column: quantiles and densities, or the shares of levels. Plain numbers, safe for JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from discrepancy.comparison.model import ColumnPair

PROBABILITIES = (
    0.0, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0,
)  # fmt: skip
MOST_BINS = 60
TOP_LEVELS = 30
MISSING = "(missing)"


def quantiles(values: np.ndarray, weights: np.ndarray | None, probabilities: tuple[float, ...] = PROBABILITIES) -> list[float]:
    """Quantiles of `values` (n,): linearly interpolated, or, with weights (n,), the smallest value whose share reaches p.

    [] for no values. O(n log n).
    """
    if not len(values):
        return []
    if weights is None:
        # Interpolation subtracts neighbours, which overflows for numbers at both ends of the range: halve those.
        half = 0.5 if np.abs(values).max() > np.finfo(np.float64).max / 4 else 1.0
        # Rounding may leave interpolated neighbours out of order by an ulp; quantiles are monotone.
        return (np.maximum.accumulate(np.quantile(values * half, probabilities)) / half).tolist()
    order = np.argsort(values, kind="stable")
    order = order[weights[order] > 0]
    if not len(order):
        return []
    share = np.cumsum(weights[order])
    at = np.searchsorted(share / share[-1], np.asarray(probabilities), side="left")
    return values[order][np.minimum(at, len(order) - 1)].tolist()


def moments(values: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    """Count, mean, standard deviation (n - 1; None below two values), min and max; None where there is no value."""
    n = len(values)
    total = float(n) if weights is None else float(weights.sum())
    if not n or total <= 0:
        return {"count": n, "mean": None, "sd": None, "min": None, "max": None}
    # Divided by the largest first: squares of values near the end of the number range would overflow.
    size = float(np.abs(values).max()) or 1.0
    w = np.ones(n) if weights is None else weights
    mean = float(w @ (values / size)) / total
    spread = float(w @ (values / size - mean) ** 2) / total
    n_eff = total * total / float(w @ w)
    sd = math.sqrt(spread * n_eff / (n_eff - 1)) * size if n_eff > 1 else None
    return {"count": n, "mean": mean * size, "sd": sd, "min": float(values.min()), "max": float(values.max())}


def _edges(pooled: np.ndarray, whole: bool) -> np.ndarray:
    """Common bins for both tables: one a value for few whole numbers, else equal bins over all but the far tails."""
    low, high = float(pooled.min()), float(pooled.max())
    if low == high:
        half = max(abs(low) * 1e-3, 0.5)
        return np.array([low - half, low + half])
    if whole and high - low < MOST_BINS:
        return np.arange(low - 0.5, high + 1)
    core_low, core_high = (float(q) for q in np.quantile(pooled, (0.005, 0.995)))
    room = 0.1 * (core_high - core_low)
    if room > 0:
        low, high = max(low, core_low - room), min(high, core_high + room)
    bins = int(min(MOST_BINS, max(12, math.ceil(2 * len(pooled) ** (1 / 3)))))
    return np.unique(np.linspace(low, high, bins + 1))


def ordered_summary(
    x: np.ndarray, y: np.ndarray, weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None), *, whole: bool = False
) -> dict[str, Any]:
    """The display data of an ordered column from its finite values x (n,), y (m,) and their weights.

    Keys: `probabilities`, and for each table `quantiles`, `count`, `mean`, `sd`, `min`, `max`; `histogram` with common
    `edges` and a density per table (area: the share of values inside the edges), `below` and `above`: the shares outside
    them. `whole`: the values are whole numbers. O((n + m) log(n + m)).
    """
    sides = {}
    for name, values, w in (("reference", x, weights[0]), ("current", y, weights[1])):
        sides[name] = {**moments(values, w), "quantiles": quantiles(values, w)}
    out: dict[str, Any] = {"probabilities": list(PROBABILITIES), **sides, "histogram": None}
    pooled = np.concatenate([x, y])
    if not len(pooled) or not math.isfinite(float(pooled.max()) - float(pooled.min())):
        return out
    edges = _edges(pooled, whole)
    if len(edges) < 2:
        return out
    histogram: dict[str, Any] = {"edges": edges.tolist()}
    for name, values, w in (("reference", x, weights[0]), ("current", y, weights[1])):
        total = float(len(values)) if w is None else float(w.sum())
        if not total > 0:
            histogram[name] = {"density": [], "below": None, "above": None}
            continue
        mass = np.histogram(values, edges, weights=w)[0] / total
        outside = [
            float((np.ones(int(o.sum())) if w is None else w[o]).sum()) / total for o in (values < edges[0], values > edges[-1])
        ]
        histogram[name] = {"density": (mass / np.diff(edges)).tolist(), "below": outside[0], "above": outside[1]}
    out["histogram"] = histogram
    return out


def level_summary(
    names: tuple[str, ...], reference: np.ndarray, current: np.ndarray, *, missing: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    """The display data of a level column from the mass of each level in both tables (L,) and that of missing cells.

    `levels`: the 30 most frequent, each with mass and share of all rows in both tables, missing cells as "(missing)";
    `rest`: how many more; `novel`, `vanished`: up to 30 level names with their mass, most frequent first, and
    `novel_count`, `vanished_count`. O(L log L).
    """
    counts = np.stack([np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)])
    labels = list(names)
    if missing[0] > 0 or missing[1] > 0:
        counts = np.concatenate([counts, np.array(missing)[:, None]], axis=1)
        labels.append(MISSING)
    totals = counts.sum(1)
    shares = counts / np.where(totals > 0, totals, 1.0)[:, None]
    order = np.argsort(-shares.sum(0), kind="stable")
    order = order[counts.sum(0)[order] > 0]
    shown = [
        {
            "level": labels[k],
            "reference": float(counts[0, k]),
            "current": float(counts[1, k]),
            "reference_share": float(shares[0, k]),
            "current_share": float(shares[1, k]),
        }
        for k in order[:TOP_LEVELS]
    ]
    out: dict[str, Any] = {"levels": shown, "distinct": len(order), "rest": max(0, len(order) - TOP_LEVELS)}
    for name, here, there in (("novel", 1, 0), ("vanished", 0, 1)):
        only = [int(k) for k in order if counts[here, k] > 0 and counts[there, k] == 0 and k < len(names)]
        only.sort(key=lambda k: -counts[here, k])
        out[name] = [{"level": labels[k], "count": float(counts[here, k])} for k in only[:TOP_LEVELS]]
        out[f"{name}_count"] = len(only)
    return out


def summarise(pair: ColumnPair, weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None)) -> dict[str, Any]:
    """The display data of a column pair under row weights; {} for kinds that are not compared by value."""
    if pair.kind.ordered:
        parts, inside = [], []
        for column, w in zip((pair.reference, pair.current), weights, strict=True):
            finite = ~column.missing & np.isfinite(column.values)
            parts.append(column.values[finite])
            inside.append(None if w is None else w[finite])
        return ordered_summary(parts[0], parts[1], (inside[0], inside[1]), whole=pair.kind == "integer")
    if pair.levels is None:
        return {}
    mass = []
    for column, w in zip((pair.reference, pair.current), weights, strict=True):
        codes = np.where(column.missing, len(pair.levels), column.values).astype(np.int64)
        mass.append(np.bincount(codes, w, minlength=len(pair.levels) + 1).astype(np.float64))
    return level_summary(pair.levels, mass[0][:-1], mass[1][:-1], missing=(float(mass[0][-1]), float(mass[1][-1])))
