"""The standard error of MMD and energy distance is the spread over independent samples."""

from __future__ import annotations

import pytest
import torch

from discrepancy import MMD, EnergyDistance
from discrepancy.kernel_methods.variance import streamed_moments, variance_parts
from discrepancy.kernels import Gaussian, Kernel, NegativeDistance

DRAWS, N, M = 1000, 40, 30


def masses(n: int, seed: int, weighted: bool) -> torch.Tensor:
    if not weighted:
        return torch.full((DRAWS, n), 1 / n, dtype=torch.float64)
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 2
    w[0] = 0.0
    return (w / w.sum()).expand(DRAWS, n)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("shift", "weighted"), [(0.0, False), (0.0, True), (1.0, False), (1.0, True)])
@pytest.mark.parametrize("kernel", [Gaussian(1.0), NegativeDistance()], ids=repr)
def test_variance_is_estimated_without_bias(kernel: Kernel, shift: float, weighted: bool, unbiased: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(DRAWS, N, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(DRAWS, M, 2, generator=generator, dtype=torch.float64) + shift
    a, b = masses(N, 1, weighted), masses(M, 2, weighted)
    moments = streamed_moments(kernel, x, a), streamed_moments(kernel, y, b), streamed_moments(kernel, x, a, y, b)
    parts = variance_parts(*moments, a, b, unbiased=unbiased)
    assert parts is not None
    first, second = parts
    values = MMD(kernel, biased=not unbiased)(x, y, a, b)
    # How well the draws themselves know a variance; it has a heavy tail at equality.
    centred = values - values.mean()
    known = float((centred.pow(4).mean() / centred.square().mean() ** 2 - 1) / DRAWS) ** 0.5
    ratio = float((first - second).mean() / values.var())
    assert abs(ratio - 1) < 3 * known + (0.12 if weighted else 0.05), (ratio, known)
    if shift == 0.0 and not weighted:  # at equality the degenerate part is all there is
        assert abs(float(second.mean() / values.var()) - 1) < 3 * known + 0.05
    error = torch.maximum(first - second, second).sqrt().median() / values.std()
    assert abs(float(error) - 1) < 0.12, float(error)


@pytest.mark.parametrize("D", [MMD(Gaussian(1.0)), MMD(Gaussian(1.0), biased=True), EnergyDistance()], ids=repr)
@pytest.mark.parametrize("d", [1, 2])
def test_solve_states_it(D: MMD | EnergyDistance, d: int) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(DRAWS, N, d, generator=generator, dtype=torch.float64)
    y = torch.randn(DRAWS, M, d, generator=generator, dtype=torch.float64) + 1.0
    result = D.solve(x, y)
    assert abs(float(result.standard_error.median() / result.value.std()) - 1) < 0.1
