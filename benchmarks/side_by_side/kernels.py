"""MMD, energy distance and their permutation tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dcor
import numpy as np
import scipy.stats
import torch
from geomloss import SamplesLoss
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from discrepancy import MMD, EnergyDistance, permutation_test
from discrepancy.kernels import Gaussian
from side_by_side.measure import FLOOR, Answer, Case, Contender, gradient_of, value_of

_BANDWIDTH = 3.0


def _samples(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), 1.1 * rng.normal(size=(n, d)) + 0.2


def _pair_mean(x: np.ndarray, y: np.ndarray, profile: Callable[[np.ndarray], np.ndarray], metric: str) -> float:
    """The mean of profile(distance) over all pairs, by direct differences, in blocks."""
    return float(np.mean([profile(cdist(part, y, metric)).mean() for part in np.array_split(x, max(1, len(x) // 500))]))


def _squared_norm(x: np.ndarray, y: np.ndarray, profile: Callable[[np.ndarray], np.ndarray], metric: str) -> float:
    return _pair_mean(x, x, profile, metric) + _pair_mean(y, y, profile, metric) - 2 * _pair_mean(x, y, profile, metric)


def _gaussian(squares: np.ndarray) -> np.ndarray:
    return np.exp(-squares / (2 * _BANDWIDTH**2))


def _mmd_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    n, m = len(x), len(y)
    k = _gaussian(cdist(x, x, "sqeuclidean")) / n**2
    c = _gaussian(cdist(x, y, "sqeuclidean")) / (n * m)
    return -2 / _BANDWIDTH**2 * (k.sum(1)[:, None] * x - k @ x - c.sum(1)[:, None] * x + c @ y)


def _plain_mmd(x: Tensor, y: Tensor) -> Tensor:
    def mean(u: Tensor, v: Tensor) -> Tensor:
        squares = u.square().sum(1)[:, None] + v.square().sum(1) - 2 * u @ v.T
        return torch.exp(-squares / (2 * _BANDWIDTH**2)).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def _sklearn_mmd(x: np.ndarray, y: np.ndarray) -> float:
    rate = 1 / (2 * _BANDWIDTH**2)
    return rbf_kernel(x, x, rate).mean() + rbf_kernel(y, y, rate).mean() - 2 * rbf_kernel(x, y, rate).mean()


def _geomloss(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    loss = SamplesLoss(kind, blur=_BANDWIDTH, backend="tensorized")
    return lambda x, y: 2 * loss(x, y)  # its kernel losses carry a factor 1/2


def cases(quick: bool) -> Iterator[Case]:
    """MMD, energy distance in ten dimensions and on the line, and the two permutation tests."""
    n = 300 if quick else 2_000
    x, y = _samples(n, 10)
    ours = MMD(Gaussian(_BANDWIDTH), biased=True)
    truth, slope = _squared_norm(x, y, _gaussian, "sqeuclidean"), _mmd_gradient(x, y)
    for dtype in (torch.float64, torch.float32):
        left, right = torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)
        runs = (("discrepancy", ours), ("GeomLoss gaussian", _geomloss("gaussian")), ("torch, plain formula", _plain_mmd))
        name = f"MMD, Gaussian kernel, n = m = {n:,}, d = 10, {str(dtype)[6:]}"
        values = [Contender(who, value_of(run, left, right), run is ours) for who, run in runs]
        values.append(Contender("scikit-learn rbf_kernel", value_of(_sklearn_mmd, left.numpy(), right.numpy())))
        yield Case(name, values, truth, floor=FLOOR[dtype])
        steep = [Contender(who, gradient_of(run, left, right), run is ours) for who, run in runs]
        yield Case(f"{name}, with gradient", steep, truth, slope, floor=FLOOR[dtype])
    yield _mmd_permutations(n // 2)
    yield _energy_permutations(n // 2)
    yield from _energy(quick)


def large_mmd(n: int) -> Case:
    """The MMD with gradient of samples whose kernel matrices are large."""
    x, y = _samples(n, 10)
    left, right = torch.from_numpy(x), torch.from_numpy(y)
    ours = MMD(Gaussian(_BANDWIDTH), biased=True)
    runs = (("discrepancy", ours), ("GeomLoss gaussian", _geomloss("gaussian")), ("torch, plain formula", _plain_mmd))
    contenders = [Contender(who, gradient_of(run, left, right), run is ours) for who, run in runs]
    truth = _squared_norm(x, y, _gaussian, "sqeuclidean")
    return Case(f"MMD, Gaussian kernel, n = m = {n:,}, d = 10, float64, with gradient", contenders, truth, _mmd_gradient(x, y))


def _energy(quick: bool) -> Iterator[Case]:
    n = 1_000 if quick else 10_000
    x, y = _samples(n, 10)
    left, right = torch.from_numpy(x), torch.from_numpy(y)

    def plain(u: Tensor, v: Tensor) -> Tensor:
        return 2 * torch.cdist(u, v).mean() - torch.cdist(u, u).mean() - torch.cdist(v, v).mean()

    yield Case(
        f"energy distance, n = m = {n:,}, d = 10",
        [
            Contender("discrepancy", value_of(EnergyDistance(), left, right), ours=True),
            Contender("dcor energy_distance", value_of(dcor.energy_distance, x, y)),
            Contender("GeomLoss energy", value_of(_geomloss("energy"), left, right)),
            Contender("torch, plain formula", value_of(plain, left, right)),
        ],
        _squared_norm(x, y, np.negative, "euclidean"),
    )
    n = 50_000 if quick else 1_000_000
    u, v = (z[:, 0].copy() for z in _samples(n, 1))
    pooled = np.sort(np.concatenate([u, v]))
    heights = [np.searchsorted(np.sort(z), pooled[:-1], side="right") / n for z in (u, v)]
    truth = 2 * float(np.sum(np.diff(pooled) * (heights[0] - heights[1]) ** 2))

    def sorted_formula(u: Tensor, v: Tensor) -> Tensor:
        pooled, order = torch.cat([u, v]).sort()
        signs = torch.cat([torch.full_like(u, 1 / len(u)), torch.full_like(v, -1 / len(v))])
        return 2 * (pooled.diff() * signs[order].cumsum(0)[:-1].square()).sum()

    left, right = torch.from_numpy(u), torch.from_numpy(v)
    yield Case(
        f"energy distance on the line, n = m = {n:,}",
        [
            Contender("discrepancy", value_of(EnergyDistance(), left, right), ours=True),
            Contender("SciPy energy_distance", value_of(lambda u, v: scipy.stats.energy_distance(u, v) ** 2, u, v)),
            Contender("torch, plain formula by one sort", value_of(sorted_formula, left, right)),
        ],
        truth,
    )


def _mmd_permutations(n: int, count: int = 500) -> Case:
    x, y = _samples(n, 10)
    z = np.concatenate([x, y])
    ours = MMD(Gaussian(_BANDWIDTH))

    def matrix() -> np.ndarray:
        kernel = rbf_kernel(z, z, 1 / (2 * _BANDWIDTH**2))
        np.fill_diagonal(kernel, 0.0)
        return kernel

    def statistic(kernel: np.ndarray) -> float:
        within = (kernel[:n, :n].sum() + kernel[n:, n:].sum()) / (n * (n - 1))
        return within - 2 * kernel[:n, n:].mean()

    def indexed() -> Answer:
        kernel, rng = matrix(), np.random.default_rng(0)
        observed, reached = statistic(kernel), 0
        for _ in range(count):
            order = rng.permutation(2 * n)
            reached += statistic(kernel[np.ix_(order, order)]) >= observed
        return observed, (1 + reached) / (1 + count)

    def multiplied() -> Answer:
        kernel, rng = matrix(), np.random.default_rng(0)
        members = np.zeros((count + 1, 2 * n))
        members[0, :n] = 1
        for row in members[1:]:
            row[rng.permutation(2 * n)[:n]] = 1
        products = members @ kernel
        inside = (products * members).sum(1)
        across = products.sum(1) - inside
        values = (inside + (kernel.sum() - inside - 2 * across)) / (n * (n - 1)) - 2 * across / n**2
        return values[0], (1 + np.sum(values[1:] >= values[0])) / (1 + count)

    def tested() -> Answer:
        found = permutation_test(x, y, ours, permutations=count, generator=torch.Generator().manual_seed(0))
        return found.statistic, found.p_value

    return Case(
        f"MMD test, {count} permutations, n = m = {n:,}, d = 10",
        [
            Contender("discrepancy permutation_test", tested, ours=True),
            Contender("scikit-learn kernel, indexed anew each time", indexed),
            Contender("scikit-learn kernel, one matrix product", multiplied),
        ],
        statistic(matrix()),
        error_is="relative error of the statistic",
    )


def _energy_permutations(n: int, count: int = 500) -> Case:
    x, y = _samples(n, 10)
    truth = _squared_norm(x, y, np.negative, "euclidean")

    def tested() -> Answer:
        found = permutation_test(x, y, EnergyDistance(), permutations=count, generator=torch.Generator().manual_seed(0))
        return found.statistic, found.p_value

    def peer() -> Answer:
        found: Any = dcor.homogeneity.energy_test(x, y, num_resamples=count, random_state=0)
        return found.statistic / (n / 2), found.pvalue  # its statistic carries n m / (n + m)

    return Case(
        f"energy test, {count} permutations, n = m = {n:,}, d = 10",
        [
            Contender("discrepancy permutation_test", tested, ours=True),
            Contender("dcor energy_test", peer),
        ],
        truth,
        error_is="relative error of the statistic",
    )
