"""The other joint test, on request: can a classifier tell the tables apart on rows that it has not seen?

Half of the units train it; on the other half the labels of whole units are permuted under the scores as they stand, so
the p-value is exact whatever was fitted. It halves the rows, and its distance is of ranks: 2 AUC - 1.
Source: Lopez-Paz and Oquab (2017), "Revisiting Classifier Two-Sample Tests".
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.joint.scores import Representation
from discrepancy.comparison.joint.sides import Side
from discrepancy.comparison.streams import stream

_FIT_ROWS = 20_000  # of each table
_RIDGE = 1.0
_STEPS = 50

Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Separation:
    """How well unseen rows are told apart: `value` = 2 AUC - 1, its null `draws` (R,), interval, and by what."""

    value: float
    draws: np.ndarray
    spread: float
    interval: tuple[float, float]
    shares: tuple[dict[str, Any], ...]
    classifier: str
    units: tuple[int, int]


def separation(representation: Representation, both: tuple[Side, Side], null: Null) -> Separation | None:
    """Train on one half of the units, test on the other; None where a half has fewer than five units of a table.

    Gradient boosting where scikit-learn is installed, else logistic regression with a ridge; the result names it. Shares
    of the columns are falls of the AUC when a column is shuffled among the unseen rows.
    """
    random = stream(null.seed, "joint", "classifier")
    train, test = [], []
    for side in both:
        if side.count < 10:
            return None
        mask = np.zeros(side.count, dtype=bool)
        mask[random.permutation(side.count)[: side.count // 2]] = True
        train.append(side.keep(mask))
        test.append(side.keep(~mask))
    x, label, weight = [], [], []
    for current, side in ((False, train[0]), (True, train[1])):
        where = side.some_rows(_FIT_ROWS, random)
        x.append(representation.pooled(current, side.rows[where]))
        label.append(np.full(len(where), float(current)))
        own = np.ones(len(where)) if side.weight is None else side.weight[where]
        weight.append(own / own.sum())  # both tables count alike: the size of a table is no difference
    score, name = _fit(np.concatenate(x), np.concatenate(label), np.concatenate(weight), null.seed)
    chunk = 20_000
    held = [
        np.concatenate(
            [representation.pooled(current, side.rows[s : s + chunk]) for s in range(0, len(side.rows), chunk)], dtype=np.float32
        )
        for current, side in ((False, test[0]), (True, test[1]))
    ]
    joined = np.concatenate(held)
    placed = _placements(score(joined), test)
    value, sums, sizes = _auc(placed.pooled, test)
    k = test[0].count
    held_null = Null(sizes, k, null.kind, null.draws, null.seed)
    centred = (sums - sizes * (sums.sum() / sizes.sum()))[:, None]
    draws = np.concatenate([-2 * block[:, 0] for block in held_null.differences(centred)])
    _, other, _ = _auc(placed.other, test)
    parts = [(other[p] - sizes[p] * (other[p].sum() / sizes[p].sum())) / sizes[p].sum() for p in (slice(None, k), slice(k, None))]
    se = 2 * math.sqrt(sum(float(p @ p) * len(p) / max(len(p) - 1, 1) for p in parts))
    shares = _shares(representation, joined, score, test, value, random)
    low, high = max(value - 1.959964 * se, 0.0), min(max(value + 1.959964 * se, 0.0), 1.0)
    if (1 + np.count_nonzero(draws >= value - 1e-9)) / (len(draws) + 1) > 0.05:
        low = 0.0
    return Separation(value, draws, float(draws.std()), (low, high), shares, name, (test[0].count, test[1].count))


def _auc(ranks: np.ndarray, test: list[Side]) -> tuple[float, np.ndarray, np.ndarray]:
    """2 AUC - 1 = 2 (mean pooled mid-rank of current - that of reference), and the rank sums and sizes by unit."""
    n = len(test[0].rows)
    sums, sizes = [], []
    for side, own in ((test[0], ranks[:n]), (test[1], ranks[n:])):
        weighted = own if side.weight is None else own * side.weight
        sums.append(np.bincount(side.unit, weights=weighted, minlength=side.count))
        sizes.append(side.sizes())
    mean = [float(s.sum() / z.sum()) for s, z in zip(sums, sizes, strict=True)]
    return 2 * (mean[1] - mean[0]), np.concatenate(sums), np.concatenate(sizes)


@dataclass(frozen=True)
class _Placements:
    """Mid-ranks in (0, 1) of each unseen row's score: in both tables `pooled`, and in the `other` table (for the error)."""

    pooled: np.ndarray
    other: np.ndarray


def _placements(score: np.ndarray, test: list[Side]) -> _Placements:
    """Mid-ranks under the weighted laws. With H any mixture of F and G, E_G H - E_F H = AUC - 1/2.

    The pooled law stays the same when labels are permuted, which keeps the test exact; the standard error is DeLong's,
    from each row's rank in the other table.
    """
    n = len(test[0].rows)
    mass = [np.ones(len(s.rows)) if s.weight is None else s.weight for s in test]
    distinct, inverse = np.unique(score, return_inverse=True)

    def middle(own: np.ndarray, weight: np.ndarray) -> np.ndarray:
        at = np.bincount(own, weights=weight, minlength=len(distinct)) / weight.sum()
        return np.cumsum(at) - at / 2

    pooled = middle(inverse, np.concatenate(mass))[inverse]
    reference, current = middle(inverse[:n], mass[0]), middle(inverse[n:], mass[1])
    return _Placements(pooled, np.concatenate([current[inverse[:n]], reference[inverse[n:]]]))


def _fit(x: np.ndarray, label: np.ndarray, weight: np.ndarray, seed: int) -> tuple[Scorer, str]:
    weight = weight * (len(weight) / weight.sum())
    if importlib.util.find_spec("sklearn") is not None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(max_iter=100, min_samples_leaf=20, random_state=seed % 2**32)
        model.fit(x, label, sample_weight=weight)
        return lambda rows: model.decision_function(rows), "gradient boosting"
    return _logistic(x.astype(np.float64), label, weight), "logistic regression"


def _logistic(x: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Scorer:
    """Ridge logistic regression by Newton's method with halved steps, the intercept unpenalised."""
    design = np.c_[np.ones(len(x)), x]
    penalty = np.full(design.shape[1], _RIDGE)
    penalty[0] = 0.0

    def loss(beta: np.ndarray) -> float:
        z = design @ beta
        return float(weight @ (np.logaddexp(0.0, z) - label * z) + 0.5 * penalty @ beta**2)

    beta = np.zeros(design.shape[1])
    value = loss(beta)
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh(0.5 * (design @ beta)))
        slope = design.T @ (weight * (p - label)) + penalty * beta
        curve = (design * (weight * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        curve[0, 0] += 1e-9 * len(x)  # all rows certain of their label would leave the intercept without curvature
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (trial := loss(beta - size * step)) > value and size > 1e-8:
            size /= 2
        beta, gain, value = beta - size * step, value - trial, trial
        if gain < 1e-9 * len(x):
            break
    return lambda rows: beta[0] + rows @ beta[1:]


def _shares(
    representation: Representation, x: np.ndarray, score: Scorer, test: list[Side], whole: float, random: np.random.Generator
) -> tuple[dict[str, Any], ...]:
    if whole <= 0 or len(representation.columns) > 200:
        return ()
    owner = representation.owner()
    falls = []
    for column in range(len(representation.columns)):
        own = np.flatnonzero(owner == column)
        kept = x[:, own].copy()
        x[:, own] = kept[random.permutation(len(x))]
        falls.append(max(0.0, whole - _auc(_placements(score(x), test).pooled, test)[0]))
        x[:, own] = kept
    total = sum(falls)
    if total <= 0:
        return ()
    found = [{"column": p.name, "share": f / total} for p, f in zip(representation.columns, falls, strict=True) if f > 0]
    return tuple(sorted(found, key=lambda item: -item["share"]))
