"""Kernel entropies: by hand on three points, the smoothed truth on normals and uniforms, affine maps, spread, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy.kernel_methods import KernelEntropy


def normal(n: int, seed: int, d: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.0])
def test_three_points_by_hand(order: float) -> None:
    x = [0.0, 1.0, 3.0]
    h = 0.8 * torch.tensor(x).double().std().item()
    p = [
        sum(math.exp(-((x[i] - x[j]) ** 2) / (2 * h * h)) / (h * math.sqrt(2 * math.pi)) for j in range(3) if j != i) / 2
        for i in range(3)
    ]
    truth = -sum(map(math.log, p)) / 3 if order == 1 else math.log(sum(v ** (order - 1) for v in p) / 3) / (1 - order)
    assert KernelEntropy(order, 0.8).entropy(x).value == pytest.approx(truth, rel=1e-6)
    assert KernelEntropy(order, 0.8).entropy(torch.tensor(x).double()).value == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2])
def test_normals_smoothed(d: int) -> None:
    h = 0.4
    quadratic = KernelEntropy(2.0, h).entropy(normal(3000, 0, d))
    # E p_i is exactly the density of N(0, (2 + h^2) I) at 0, up to S for I.
    assert abs(quadratic.value - d / 2 * math.log(2 * math.pi * (2 + h * h))) < 4 * quadratic.standard_error
    shannon = KernelEntropy(1.0, h).entropy(normal(3000, 1, d))
    truth = d / 2 * (math.log(2 * math.pi * (1 + h * h)) + 1 / (1 + h * h))
    assert abs(shannon.value - truth) < 4 * shannon.standard_error + 0.02


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_error_shrinks_with_the_sample(order: float) -> None:
    truth = 0.5 * math.log(2 * math.pi) + (0.5 if order == 1 else 0.5 * math.log(2))
    errors = []
    for n in (100, 3000):
        found = [KernelEntropy(order).entropy(normal(n, s)).value - truth for s in range(8)]
        errors.append(math.sqrt(sum(e * e for e in found) / 8))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.04


def test_affine_maps_add_the_log_determinant() -> None:
    x = normal(200, 2, 2)
    A = torch.tensor([[2.0, 1.0], [0.0, -0.5]], dtype=torch.float64)
    for order in (1.0, 2.0, 0.7):
        moved = KernelEntropy(order).entropy(x @ A.T + 7.0).value
        assert moved == pytest.approx(KernelEntropy(order).entropy(x).value + math.log(1.0), rel=1e-9)
        assert KernelEntropy(order).entropy(3 * x).value == pytest.approx(
            KernelEntropy(order).entropy(x).value + 2 * math.log(3), rel=1e-9
        )


def test_standard_error_is_the_spread_over_samples_and_there_is_no_interval() -> None:
    for order in (1.0, 2.0):
        found = [KernelEntropy(order).entropy(normal(150, s)) for s in range(200)]
        spread = torch.tensor([e.value for e in found]).std()
        claimed = torch.tensor([e.standard_error for e in found]).median()
        assert float(claimed) == pytest.approx(float(spread), rel=0.2)
        assert found[0].low is None
        assert "no interval" in found[0].note


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="order"):
        KernelEntropy(0.0)
    with pytest.raises(ValueError, match="bandwidth"):
        KernelEntropy(bandwidth=-1.0)
    with pytest.raises(ValueError, match=r"at least d \+ 2"):
        KernelEntropy().entropy(normal(4, 0, 3))
    x = normal(30, 0, 2)
    with pytest.raises(ValueError, match=r"constant columns \[1\]"):
        KernelEntropy().entropy(torch.cat([x[:, :1], torch.ones(30, 1, dtype=torch.float64)], 1))
    with pytest.raises(ValueError, match="proper subspace"):
        KernelEntropy().entropy(torch.cat([x, x.sum(1, keepdim=True)], 1))
    with pytest.raises(ValueError, match="one sample"):
        KernelEntropy().entropy(x[None])
    with pytest.raises(ValueError, match="non-finite"):
        KernelEntropy().entropy([0.0, 1.0, math.nan])
