"""On the line: W_1 and W_2 of a million points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import ot
import scipy.stats
import torch
from torch import Tensor

from discrepancy import Wasserstein
from side_by_side.measure import Case, Contender, gradient_of, value_of


def _plain(p: int):
    def distance(u: Tensor, v: Tensor) -> Tensor:
        return (u.sort().values - v.sort().values).abs().pow(p).mean() ** (1 / p)

    return distance


def _reference(u: np.ndarray, v: np.ndarray, p: int) -> tuple[float, np.ndarray]:
    """W_p and its gradient in u by repeating points until the sizes agree."""
    n, m = len(u), len(v)
    whole = int(np.lcm(n, m))
    order = np.argsort(u)
    gap = np.repeat(u[order], whole // n) - np.repeat(np.sort(v), whole // m)
    power = np.mean(np.abs(gap) ** p)
    slope = (p * np.sign(gap) * np.abs(gap) ** (p - 1)).reshape(n, -1).sum(1) / whole
    gradient = np.empty(n)
    gradient[order] = slope * power ** (1 / p - 1) / p
    return power ** (1 / p), gradient


def cases(quick: bool) -> Iterator[Case]:
    """Equal and unequal sizes, value and value with gradient."""
    n = 50_000 if quick else 1_000_000
    rng = np.random.default_rng(0)
    for m in (n, n * 7 // 10):
        u, v = rng.normal(size=n), 0.3 + 1.2 * rng.standard_t(5, size=m)
        left, right = torch.from_numpy(u), torch.from_numpy(v)
        for p in (1, 2):
            ours = Wasserstein(p)
            value, gradient = _reference(u, v, p)
            name = f"W_{p} on the line, n = {n:,}, m = {m:,}"

            def transported(x, y, p=p):
                return ot.wasserstein_1d(x, y, p=p) ** (1 / p)

            def solved(x, y, p=p):
                return ot.emd2_1d(x, y, metric="minkowski", p=p) ** (1 / p)

            contenders = [
                Contender("discrepancy", value_of(ours, left, right), ours=True),
                Contender("POT wasserstein_1d (NumPy)", value_of(transported, u, v)),
                Contender("POT wasserstein_1d (torch)", value_of(transported, left, right)),
                Contender("POT emd2_1d", value_of(solved, u, v)),
            ]
            if p == 1:
                contenders.append(Contender("SciPy wasserstein_distance", value_of(scipy.stats.wasserstein_distance, u, v)))
            if m == n:
                contenders.append(Contender("torch, plain formula", value_of(_plain(p), left, right)))
            yield Case(name, contenders, value)
            if p == 2:
                steep = [
                    Contender("discrepancy", gradient_of(ours, left, right), ours=True),
                    Contender("POT wasserstein_1d (torch)", gradient_of(transported, left, right)),
                ]
                if m == n:
                    steep.append(Contender("torch, plain formula", gradient_of(_plain(p), left, right)))
                yield Case(f"{name}, with gradient", steep, value, gradient)
