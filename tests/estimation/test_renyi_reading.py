"""Renyi and Tsallis divergences of Gaussian samples against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import KL, Renyi, estimate
from discrepancy._results import Estimate
from discrepancy.divergences import Alpha, Tsallis
from discrepancy.estimation.renyi_reading import read


def _samples(n: int = 1500) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, y + torch.tensor([0.8, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("order", [0.3, 0.5, 0.9, 1.0, 2.0])
def test_gaussian_shift(order: float) -> None:
    found = estimate(*_samples(), Renyi(order))
    truth = order * 0.8**2 / 2
    assert float(found) == pytest.approx(truth, abs=4 * float(found.standard_error))  # type: ignore[arg-type]
    assert float(found.standard_error) < 0.5 * truth  # type: ignore[arg-type]
    assert found.low is not None
    assert found.low < float(found) < found.high  # type: ignore[operator]
    tsallis = estimate(*_samples(), Tsallis(order))
    both = truth if order == 1 else math.expm1((order - 1) * truth) / (order - 1)
    assert float(tsallis) == pytest.approx(both, abs=4 * float(tsallis.standard_error))  # type: ignore[arg-type]


def test_error_is_that_of_the_slope() -> None:
    def value(a: float) -> float:
        return float(read(Renyi(0.4), Estimate(a)))

    found = read(Renyi(0.4), Estimate(0.5, 0.01, 0.48, 0.52, 0.95))
    slope = (value(0.5 + 1e-6) - value(0.5 - 1e-6)) / 2e-6
    assert float(found.standard_error) == pytest.approx(0.01 * slope, rel=1e-6)  # type: ignore[arg-type]
    assert (found.low, found.high) == (value(0.48), value(0.52))
    assert float(read(Renyi(1.0), Estimate(0.3))) == 0.3


def test_no_overlap_and_orders_at_the_ends() -> None:
    beyond = 1 / (0.5 * 0.5)  # the largest Alpha(1/2) of two laws
    found = read(Renyi(0.5), Estimate(beyond + 0.1, 0.1, 3.9, 4.3, 0.95))
    assert math.isinf(float(found))
    assert found.low is None
    assert "hardly overlap" in (found.note or "")
    for divergence in (Renyi(0.0), Renyi(math.inf), Tsallis(0.0)):
        with pytest.raises(TypeError, match="NearestNeighborRatios"):
            estimate(*_samples(50), divergence)
    assert float(estimate(*_samples(200), Renyi(1.0))) == float(estimate(*_samples(200), KL()))
    assert float(estimate(*_samples(200), Tsallis(2.0))) == pytest.approx(2 * float(estimate(*_samples(200), Alpha(2.0))))
