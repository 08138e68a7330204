"""Coverage of the nearest-neighbour intervals on Gaussian samples, whose divergences have closed forms."""

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
