"""What every exact solution on points must satisfy, checked without the solver's own numbers, and clouds to check it on."""

from __future__ import annotations

import numpy as np
import torch

from discrepancy.costs import Cost, SquaredEuclidean
from discrepancy.transport.exact.solution import ExactSolution


def matrix(x, y, cost: Cost) -> np.ndarray:
    """All costs, by the cost object in float64; squared distances by differences."""
    if isinstance(cost, SquaredEuclidean):
        return ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(-1)
    return cost.matrix(torch.from_numpy(np.asarray(x, np.float64)), torch.from_numpy(np.asarray(y, np.float64))).numpy()


def check(s: ExactSolution, C: np.ndarray, a, b, *, gap: float = 1e-12) -> None:
    """Marginals, sign, sparsity, potentials feasible for all pairs, complementary slackness, both values and the gap."""
    n, m = C.shape
    assert (s.mass > 0).all()
    assert len(s.rows) <= np.count_nonzero(a) + np.count_nonzero(b) - 1
    assert len({(i, j) for i, j in zip(s.rows.tolist(), s.columns.tolist())}) == len(s.rows)
    np.testing.assert_allclose(np.bincount(s.rows, s.mass, n), a, rtol=1e-11, atol=1e-17)
    np.testing.assert_allclose(np.bincount(s.columns, s.mass, m), b, rtol=1e-11, atol=1e-17)
    size = np.abs(C).max()
    slack = C - s.f[:, None] - s.g
    assert slack.min() >= -1e-13 * size
    np.testing.assert_allclose(slack[s.rows, s.columns], 0, atol=1e-12 * size)
    np.testing.assert_allclose(s.primal, (s.mass * C[s.rows, s.columns]).sum(), rtol=1e-12, atol=1e-15 * size)
    np.testing.assert_allclose(s.dual, a @ s.f + b @ s.g, rtol=1e-10, atol=1e-13 * size)
    assert abs(s.gap) <= gap * max(abs(s.primal), 1e-3 * size)
    assert s.outcome.ok


def weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random weights that sum to one."""
    w = rng.random(n) + 1e-3
    return w / w.sum()


def cloud(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Points (n, d) of a named shape."""
    if kind == "normal":
        return rng.standard_normal((n, d))
    if kind == "clusters":
        centres = 5 * rng.standard_normal((8, d))
        return centres[rng.integers(0, 8, n)] + 0.1 * rng.standard_normal((n, d))
    if kind == "cauchy":
        return rng.standard_cauchy((n, d))
    if kind == "lattice":
        return rng.integers(0, 4, (n, d)).astype(float)
    if kind == "line":
        return np.outer(rng.random(n), np.arange(1, d + 1))
    if kind == "onehot":
        return np.eye(d)[rng.integers(0, d, n)]
    raise ValueError(kind)
