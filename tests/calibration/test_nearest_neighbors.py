"""Coverage of the nearest-neighbour intervals on Gaussian samples, whose divergences have closed forms, and far from them."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from discrepancy import KL, Alpha, ChiSquared, Jeffreys, ReverseKL, SquaredHellinger, estimate
from discrepancy.divergences import FDivergence

pytestmark = pytest.mark.calibration

DRAWS = 1000
CELLS = [
    *[(KL(), 500, d, shift, scale) for d in (1, 2, 3) for shift, scale in ((0.5, 1.0), (0.5, 1.5), (0.2, 0.8))],
    *[(KL(), 2000, d, 0.5, 1.0) for d in (1, 2, 3)],
    *[(D, 500, 2, 0.5, 1.2) for D in (ReverseKL(), Jeffreys(), SquaredHellinger(), Alpha(0.3), ChiSquared())],
]


@pytest.mark.parametrize(("D", "n", "d", "shift", "scale"), CELLS, ids=lambda v: repr(v))
def test_interval_coverage(record, D: FDivergence, n: int, d: int, shift: float, scale: float):
    P = MultivariateNormal(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    Q = MultivariateNormal(torch.full((d,), shift, dtype=torch.float64), scale**2 * torch.eye(d, dtype=torch.float64))
    truth = D.between(P, Q).value.item()
    above = below = 0
    values, errors = [], []
    for seed in range(10_000, 10_000 + DRAWS):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=draw, dtype=torch.float64)
        y = shift + scale * torch.randn(n, d, generator=draw, dtype=torch.float64)
        got = estimate(x, y, D)
        assert got.low is not None
        assert got.high is not None
        above += got.low > truth
        below += got.high < truth
        values.append(got.value)
        errors.append(got.standard_error)
    found, stated = torch.tensor(values, dtype=torch.float64), torch.tensor(errors, dtype=torch.float64)
    cell = record.coverage(
        "estimates",
        f"{D!r}, N(0, I) and N({shift:g}, {scale:g}^2 I), d = {d}, n = m = {n}",
        draws=DRAWS,
        missed_low=int(above),
        missed_high=int(below),
        first_seed=10_000,
        truth=truth,
        bias=found.mean().item() - truth,
        spread=found.std().item(),
        stated_error=stated.square().mean().sqrt().item(),
    )
    assert cell["held"]


def modes(r, n, share):
    return np.where(r.random(n) < share, 2, -2)[:, None] * [1, 0] + r.normal(size=(n, 2))


def modes_truth():
    z = np.linspace(-11, 11, 8001)
    left, right = (np.exp(-((z - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (-2, 2))
    p, q = (left + right) / 2, 0.8 * left + 0.2 * right
    return float((p * np.log(p / q)).sum() * (z[1] - z[0]))


SCALED = math.log(1.5) + 1 / 1.5 - 1  # of Laplace or exponential laws, a coordinate
FAR = {
    "Laplace, d = 2, scale 1.5": (lambda r, n: r.laplace(size=(n, 2)), lambda r, n: 1.5 * r.laplace(size=(n, 2)), 2 * SCALED),
    "exponential, d = 3, scale 1.5": (
        lambda r, n: r.exponential(size=(n, 3)),
        lambda r, n: 1.5 * r.exponential(size=(n, 3)),
        3 * SCALED,
    ),
    "two modes, shares 0.5 and 0.2": (lambda r, n: modes(r, n, 0.5), lambda r, n: modes(r, n, 0.2), modes_truth()),
    "beta from uniform, d = 2": (
        lambda r, n: r.beta(2, 2, (n, 2)),
        lambda r, n: r.random((n, 2)),
        2 * (math.log(6) - 5 / 3),
    ),
}


@pytest.mark.parametrize("n", [500, 2000])
@pytest.mark.parametrize("name", FAR)
def test_far_from_gaussian(record, name: str, n: int):
    of_p, of_q, truth = FAR[name]
    draws = 300
    above = below = 0
    values = []
    for seed in range(70_000, 70_000 + draws):
        r = np.random.default_rng(seed)
        got = estimate(of_p(r, n), of_q(r, n), KL())
        assert got.low is not None
        assert got.high is not None
        above += got.low > truth
        below += got.high < truth
        values.append(got.value)
    cell = record.coverage(
        "estimates",
        f"KL(), {name}, n = m = {n}",
        draws=draws,
        missed_low=int(above),
        missed_high=int(below),
        first_seed=70_000,
        truth=truth,
        bias=float(np.mean(values)) - truth,
        spread=float(np.std(values)),
    )
    assert cell["held"]
