"""Cauchy-Schwarz information: definition, closed form for normals, HSIC's three sums, invariances, tests of independence."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import HSIC, independence_test
from discrepancy.kernel_methods import CauchySchwarzInformation, KernelCauchySchwarz
from discrepancy.kernel_methods.dependence.product_sums import ProductSums
from discrepancy.kernels import Gaussian, Laplacian, Linear

FIXED = CauchySchwarzInformation(Gaussian(1.1), Laplacian(0.7))


def rows(n: int, d1: int, d2: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d1, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, d2, generator=generator, dtype=torch.float64) + x[:, :1].square()


def masses(n: int, seed: int) -> torch.Tensor:
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w[0] = 0
    return w / w.sum()


def by_hand(K: torch.Tensor, L: torch.Tensor, w: torch.Tensor) -> float:
    joint, across = w @ (K * L) @ w, (w * (K @ w) * (L @ w)).sum()
    return float(joint.log() + ((w @ K @ w) * (w @ L @ w)).log() - 2 * across.log())


@pytest.mark.parametrize("n", [5, 600])  # 600: several blocks
def test_is_its_definition_under_weights(n: int) -> None:
    x, y = rows(n, 2, 3, 0)
    w = masses(n, 1)
    K, L = Gaussian(1.1).matrix(x, x), Laplacian(0.7).matrix(y, y)
    assert float(FIXED(x, y, w)) == pytest.approx(by_hand(K, L, w), rel=1e-9)
    normalised = CauchySchwarzInformation(Gaussian(1.1), Laplacian(0.7), normalized=True)
    truth = by_hand(K, L, w) / math.sqrt(by_hand(K, K, w) * by_hand(L, L, w))
    assert float(normalised(x, y, w)) == pytest.approx(truth, rel=1e-9)


def test_is_the_divergence_between_the_joint_and_the_product() -> None:
    x, y = rows(12, 1, 1, 3)
    joint = torch.cat([x, y], 1)
    product = torch.cat([x.repeat_interleave(12, 0), y.repeat(12, 1)], 1)
    want = KernelCauchySchwarz(Gaussian(0.9))(joint, product)
    assert float(CauchySchwarzInformation(Gaussian(0.9), Gaussian(0.9))(x, y)) == pytest.approx(float(want), rel=1e-10)


def test_the_three_sums_make_hsic() -> None:
    x, y = rows(40, 2, 1, 4)
    w = masses(40, 5)
    joint, across, own_x, own_y = ProductSums.apply(Gaussian(1.0), Gaussian(1.0), x[None], y[None], w[None])
    want = HSIC(Gaussian(1.0), Gaussian(1.0))(x, y, w)
    assert float(joint + own_x * own_y - 2 * across) == pytest.approx(float(want), rel=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_limit_for_two_normals(correlation: float) -> None:
    generator = torch.Generator().manual_seed(6)
    x, e = (torch.randn(2500, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    y = correlation * x + math.sqrt(1 - correlation**2) * e
    s = 0.5
    r2 = correlation**2 / (1 + s * s / 2) ** 2
    truth = math.log(1 - r2 / 4) - math.log(1 - r2) / 2
    assert float(CauchySchwarzInformation(Gaussian(s), Gaussian(s))(x, y)) == pytest.approx(truth, rel=0.1, abs=0.01)


@pytest.mark.parametrize(
    "M", [FIXED, CauchySchwarzInformation(Gaussian(1.1), Gaussian(0.7), normalized=True)], ids=["plain", "norm"]
)
def test_gradients_against_finite_differences(M: CauchySchwarzInformation) -> None:
    x, y = rows(7, 2, 3, 6)
    raw = masses(7, 7).add(0.1).log()
    inputs = tuple(t.requires_grad_() for t in (x, y, raw))
    assert torch.autograd.gradcheck(lambda x, y, u: M(x, y, u.softmax(0)), inputs, atol=1e-7)


def test_gradients_over_several_blocks() -> None:
    x, y = rows(600, 1, 1, 8)
    x.requires_grad_()
    w = torch.full((600,), 1 / 600, dtype=torch.float64)
    K, L = Gaussian(1.1).matrix(x, x), Laplacian(0.7).matrix(y, y)
    direct = (w @ (K * L) @ w).log() + (w @ K @ w).log() - 2 * (w * (K @ w) * (L @ w)).sum().log()
    (want,) = torch.autograd.grad(direct, x)
    (got,) = torch.autograd.grad(FIXED(x, y), x)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)


def test_constant_side_scales_batches_and_types() -> None:
    x, y = rows(30, 2, 1, 9)
    for M in (CauchySchwarzInformation(), CauchySchwarzInformation(normalized=True)):
        t = torch.ones(30, 1, dtype=torch.float64, requires_grad=True)
        value = M(x, t)
        assert float(value) == pytest.approx(0.0, abs=1e-12)
        (slope,) = torch.autograd.grad(value, t)
        assert bool(torch.isfinite(slope).all())
        assert float(M(5 * x + 3, y)) == pytest.approx(float(M(x, y)), rel=1e-9)  # the width follows
        assert M(x.float(), y.float()).dtype == torch.float32
        batch = M(torch.stack([x, x.flip(0)]), torch.stack([y, y]))
        torch.testing.assert_close(batch, torch.stack([M(x, y), M(x.flip(0), y)]))
    assert float(CauchySchwarzInformation(normalized=True)(x, x)) == pytest.approx(1.0)


def test_falls_with_the_noise() -> None:
    generator = torch.Generator().manual_seed(10)
    x, e = (torch.randn(256, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    values = [float(CauchySchwarzInformation()(x, x + s * e)) for s in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("M", [CauchySchwarzInformation(), CauchySchwarzInformation(normalized=True)], ids=["plain", "norm"])
def test_permutations_are_evaluations(M: CauchySchwarzInformation) -> None:
    x, y = rows(25, 2, 1, 11)
    orders = torch.stack([torch.arange(25), torch.randperm(25, generator=torch.Generator().manual_seed(0))])
    want = torch.stack([M(x, y[order]) for order in orders])
    torch.testing.assert_close(M.permuted(x, y)(orders), want, rtol=1e-9, atol=1e-12)
    small = CauchySchwarzInformation(normalized=M.normalized, memory=1e-9)
    torch.testing.assert_close(small.permuted(x, y)(orders), want, rtol=1e-9, atol=1e-12)


def test_finds_a_parabola_and_keeps_its_level() -> None:
    generator = torch.Generator().manual_seed(12)
    x = torch.randn(200, 1, generator=generator)
    assert abs(float(torch.corrcoef(torch.cat([x, x.square()], 1).T)[0, 1])) < 0.2
    M = CauchySchwarzInformation()
    assert independence_test(x, x.square(), M, permutations=199, generator=generator).p_value <= 0.01
    noise = torch.randn(200, 1, generator=generator)
    assert independence_test(x, noise, M, permutations=199, generator=generator).p_value > 0.05


def test_bad_input() -> None:
    x, y = rows(10, 2, 1, 13)
    with pytest.raises(TypeError, match="kernel_y"):
        CauchySchwarzInformation(Gaussian(), 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="normalized"):
        CauchySchwarzInformation(normalized=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernels must be positive"):
        CauchySchwarzInformation(Linear(), Linear())(x - x.mean(0), y - y.mean(0))
    with pytest.raises(ValueError, match="paired row by row"):
        FIXED(x, y[:5])
