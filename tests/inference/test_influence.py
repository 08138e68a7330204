"""Influence functions against Welch's standard error and against leaving rows out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain import RiseOfMean, Ungraded

from discrepancy._validate import sample_pair
from discrepancy.inference.influence import effective_size, influence
from discrepancy.kernel_methods import MMD
from discrepancy.kernels import Gaussian
from discrepancy.transport import Wasserstein


def rows(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_gives_welchs_standard_error() -> None:
    x, y = rows(30, 0), 3 * rows(12, 1)
    pair = sample_pair(x, y)
    psi = influence(RiseOfMean(), pair, 0)
    want = np.sqrt(x.var().item() / 30 + y.var().item() / 12)
    assert psi.standard_error(pair) == pytest.approx(want)
    assert torch.allclose(psi.of_x, -(x - x.mean())[:, 0])
    assert torch.allclose(psi.of_y, (y - y.mean())[:, 0])


def test_weights_give_the_sandwich() -> None:
    x, y, w = rows(4, 0), rows(3, 1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    pair = sample_pair(x, y, w)
    centred = x[:, 0] - (w * x[:, 0]).sum()
    size = effective_size(pair.a)
    assert size == pytest.approx(1 / 0.3)
    want = size / (size - 1) * (w * centred).square().sum() + y.var() / 3
    assert influence(RiseOfMean(), pair, 0).standard_error(pair) == pytest.approx(float(want.sqrt()))


def test_without_a_gradient_rows_are_left_out_one_at_a_time() -> None:
    pair = sample_pair(rows(9, 0), rows(7, 1), torch.arange(1.0, 10, dtype=torch.float64) / 45)
    graded, ungraded = influence(RiseOfMean(), pair, 0), influence(Ungraded(), pair, 0, memory=1e-6)
    assert "leaving out" in ungraded.how
    assert torch.allclose(graded.of_x, ungraded.of_x)
    assert torch.allclose(graded.of_y, ungraded.of_y)


@pytest.mark.parametrize("D", [Wasserstein(1), Wasserstein(2), MMD(Gaussian(1.0)), MMD(Gaussian(1.0), biased=True)])
def test_gradient_is_the_directional_derivative_toward_a_row(D: object) -> None:
    x, y = rows(12, 2), rows(9, 3) + 0.5
    a = torch.rand(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pair = sample_pair(x, y, a / a.sum())
    psi = influence(D, pair, 0)  # type: ignore[arg-type]
    for i in range(12):
        toward = torch.eye(12, dtype=torch.float64)[i]
        up, down = (D(x, y, (1 - h) * pair.a + h * toward, pair.b) for h in (1e-6, -1e-6))  # type: ignore[operator]
        assert float((up - down) / 2e-6) == pytest.approx(float(psi.of_x[i]), abs=1e-5)
