"""Coverage of 95 % intervals on problems with known answers: at distance zero, about one noise unit away, and far away."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.directions import Uniform
from discrepancy.inference import bootstrap
from discrepancy.kernel_methods import MMD, EnergyDistance
from discrepancy.kernels import Gaussian
from discrepancy.transport import SinkhornDivergence, SlicedWasserstein, Wasserstein

pytestmark = pytest.mark.calibration

SHIFTS = (0.0, 0.2, 0.5, 1.0)
Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def shifted(n: int, m: int, d: int, shift: float, scale: float = 1.0) -> Draw:
    """N(0, I) against N(shift e / sqrt d, scale^2 I): the distance of the means is `shift`."""

    def draw(g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, d, generator=g, dtype=torch.float64)
        y = torch.randn(m, d, generator=g, dtype=torch.float64)
        return x, scale * y + shift / math.sqrt(d)

    return draw


def measure(
    record: Any, cell: str, D: Discrepancy, truth: float, draw: Draw, draws: int = 1000, note: str = "", **options: Any
) -> None:
    """Record the coverage; zero cannot be missed from above, so conservative is right there: one-sided target."""
    missed_low = missed_high = reached = 0
    width = 0.0
    for seed in range(draws):
        g = torch.Generator().manual_seed(seed)
        x, y = draw(g)
        found = bootstrap(x, y, D, generator=g, **options)
        missed_low += found.low > truth + 1e-12  # type: ignore[operator]
        missed_high += found.high < truth  # type: ignore[operator]
        reached += found.low > 0  # type: ignore[operator]
        width += (float(found.high) - float(found.low)) / draws  # type: ignore[arg-type]
    entry = record.coverage(
        "interval",
        cell,
        draws=draws,
        note=note,
        missed_low=missed_low,
        missed_high=missed_high,
        truth=truth,
        mean_width=width,
        share_above_zero=reached / draws,
    )
    # What is asserted is validity (99.9 % binomial slack under 93 %); the record holds the 93-97 % target itself.
    assert entry["rate"] >= 0.93 - 3.1 * math.sqrt(0.93 * 0.07 / draws)


def folded(mean: float, sd: float) -> float:
    """E|N(mean, sd^2)|."""
    return sd * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * sd**2)) + mean * math.erf(mean / sd / math.sqrt(2))


def gaussian_mmd(shift: float, d: int) -> float:
    """Squared MMD of N(0, I) and N(mu, I) under the Gaussian kernel of bandwidth 1."""
    return 2 * 3 ** (-d / 2) * (1 - math.exp(-(shift**2) / 6))


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("p", [1, 2])
def test_line(record: Any, p: int, shift: float) -> None:
    measure(record, f"W{p}, normal shift {shift}, n = m = 100", Wasserstein(p), shift, shifted(100, 100, 1, shift))


@pytest.mark.parametrize("rise", [0.2, 0.5, 1.0])
def test_line_scale(record: Any, rise: float) -> None:
    """W2 between N(0, 1) and N(0, (1 + rise)^2) is rise."""
    measure(record, f"W2, normal scale {1 + rise}, 150 against 100", Wasserstein(2), rise, shifted(150, 100, 1, 0.0, 1 + rise))


@pytest.mark.parametrize("shift", SHIFTS)
def test_energy(record: Any, shift: float) -> None:
    truth = 2 * (folded(shift, math.sqrt(2)) - folded(0.0, math.sqrt(2)))
    measure(record, f"energy distance, normal shift {shift}, n = m = 100", EnergyDistance(), truth, shifted(100, 100, 1, shift))


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("biased", [False, True])
def test_mmd(record: Any, biased: bool, shift: float) -> None:
    D = MMD(Gaussian(1.0), biased=biased)
    kind = "biased" if biased else "unbiased"
    cell = f"squared MMD ({kind}), bandwidth 1, d = 2, normal shift {shift}, 100 against 80"
    measure(record, cell, D, gaussian_mmd(shift, 2), shifted(100, 80, 2, shift))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("p", [1, 2])
def test_sliced(record: Any, p: int, shift: float) -> None:
    """Along a direction the means are shift cos(angle) apart: E|cos| = 1/2 and E cos^2 = 1/3 on the sphere in R^3."""
    D = SlicedWasserstein(p, directions=Uniform(30))
    truth = shift / 2 if p == 1 else shift / math.sqrt(3)
    note = "too wide by a point or two at 60 rows: the value is biased upward, and the two errors are added in quadrature"
    cell = f"sliced W{p}, 30 directions, d = 3, normal shift {shift}, n = m = 60"
    measure(record, cell, D, truth, shifted(60, 60, 3, shift), note=note if shift else "")


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_sinkhorn_divergence(record: Any, shift: float) -> None:
    """Under the squared cost a translation by mu has divergence |mu|^2 at every epsilon."""
    cell = f"Sinkhorn divergence, epsilon 2, d = 2, normal shift {shift}, n = m = 50, 120 resamples"
    measure(
        record,
        cell,
        SinkhornDivergence(2.0),
        shift**2,
        shifted(50, 50, 2, shift),
        draws=1000 if shift == 0 else 400,
        resamples=120,
    )
