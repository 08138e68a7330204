"""KL from nearest neighbours between Gaussians whose divergence is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors as Trees

from discrepancy import KL
from discrepancy.estimation import NearestNeighbors
from side_by_side.measure import Case, Contender

_K, _SHIFT, _SCALE = 10, 0.5, 1.3


def _tree(x: np.ndarray, y: np.ndarray) -> float:
    """d mean log(s / r) + log(m / (n - 1)) of Wang, Kulkarni and Verdu, with SciPy's tree."""
    r = cKDTree(x).query(x, _K + 1)[0][:, -1]
    s = cKDTree(y).query(x, _K)[0][:, -1]
    return x.shape[1] * float(np.mean(np.log(s / r))) + math.log(len(y) / (len(x) - 1))


def _sklearn(x: np.ndarray, y: np.ndarray) -> float:
    r = Trees(n_neighbors=_K + 1).fit(x).kneighbors(x)[0][:, -1]
    s = Trees(n_neighbors=_K).fit(y).kneighbors(x)[0][:, -1]
    return x.shape[1] * float(np.mean(np.log(s / r))) + math.log(len(y) / (len(x) - 1))


def cases(quick: bool) -> Iterator[Case]:
    """Two and ten dimensions; the error is that of the estimator, over data sets."""
    n, sets = (1_000, 3) if quick else (10_000, 10)
    for d in (2, 10):
        truth = d * (math.log(_SCALE) + 1 / (2 * _SCALE**2) - 0.5) + _SHIFT**2 / (2 * _SCALE**2)

        def sample(seed: int, d: int = d) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng(seed)
            y = _SCALE * rng.normal(size=(n, d))
            y[:, 0] += _SHIFT
            return rng.normal(size=(n, d)), y

        def full(x, y):
            return float(NearestNeighbors(_K)(KL(), x, y))

        def classical(x, y):
            return float(NearestNeighbors(_K, reference=None)(KL(), x, y))

        def rmse(run: Callable, truth: float = truth, sample: Callable = sample) -> float:
            return math.sqrt(np.mean([(run(*sample(seed)) / truth - 1) ** 2 for seed in range(1, sets + 1)]))

        x, y = sample(0)
        runs = (
            ("discrepancy, with interval", full, True),
            ("discrepancy, reference=None, with interval", classical, True),
            ("SciPy cKDTree, textbook formula", _tree, False),
            ("scikit-learn NearestNeighbors, textbook formula", _sklearn, False),
        )
        yield Case(
            f"KL by {_K} nearest neighbours, n = m = {n:,}, d = {d} (truth {truth:.4g})",
            [Contender(who, lambda run=run, x=x, y=y: (run(x, y), None), mine, rmse(run)) for who, run, mine in runs],
            error_is=f"relative RMSE against the true KL, {sets} data sets",
        )
