"""HSIC, distance covariance and CKA against dcor, their definitions, closed forms, invariances and finite differences."""

from __future__ import annotations

import math

import dcor
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import CKA, HSIC, DistanceCovariance, independence_test
from discrepancy.kernel_methods import minibatch_cka
from discrepancy.kernel_methods.dependence import centred
from discrepancy.kernels import Gaussian, Laplacian, Linear, MedianHeuristic, NegativeDistance

ALL = [
    HSIC(),
    HSIC(Laplacian(0.7), Gaussian(1.3)),
    DistanceCovariance(),
    DistanceCovariance(1.5),
    CKA(),
    CKA(Gaussian(), Gaussian()),
]
ALL += [CKA(NegativeDistance(), NegativeDistance()), HSIC(Linear(), Linear()), HSIC(Gaussian(0.5) + 2.0 * Linear(), Linear())]


def rows(n: int, d1: int, d2: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, d2, generator=generator, dtype=torch.float64)
    return x, noise + x[:, :1].square()


def masses(n: int, seed: int) -> torch.Tensor:
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w[0] = 0.0
    return w / w.sum()


def by_hand(K: torch.Tensor, L: torch.Tensor, w: torch.Tensor) -> float:
    """The three terms of the definition."""
    rows_k, rows_l = K @ w, L @ w
    return float(w @ (K * L) @ w + (w @ rows_k) * (w @ rows_l) - 2 * (w * rows_k) @ rows_l)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.9])
@pytest.mark.parametrize(("n", "d1", "d2"), [(2, 1, 1), (30, 1, 1), (200, 3, 5), (700, 2, 1)])
def test_distance_covariance_is_dcors(n: int, d1: int, d2: int, exponent: float) -> None:
    x, y = rows(n, d1, d2, 0)
    truth = dcor.distance_covariance_sqr(x.numpy(), y.numpy(), exponent=exponent)
    assert float(DistanceCovariance(exponent)(x, y)) == pytest.approx(truth, rel=1e-10, abs=1e-14)


def test_distance_correlation_is_a_cka() -> None:
    x, y = rows(150, 2, 3, 1)
    truth = dcor.distance_correlation_sqr(x.numpy(), y.numpy())
    assert float(CKA(NegativeDistance(), NegativeDistance())(x, y)) == pytest.approx(truth, rel=1e-10)


def test_hsic_of_two_points_in_closed_form() -> None:
    # Kc = (1 - k)/2 [[1, -1], [-1, 1]], so that the mean of the products is (1 - k)(1 - l) / 4.
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [2.0]]).double()
    near, far = math.exp(-0.5), math.exp(-2.0)
    assert float(HSIC(Gaussian(1.0), Gaussian(1.0))(x, y)) == pytest.approx((1 - near) * (1 - far) / 4, rel=1e-14)


@pytest.mark.parametrize("n", [3, 40, 600])  # 600: several blocks
def test_hsic_is_its_definition_under_weights(n: int) -> None:
    x, y = rows(n, 3, 2, 2)
    w = masses(n, 3)
    kernels = Gaussian(1.1), Laplacian(0.8)
    truth = by_hand(kernels[0].matrix(x, x), kernels[1].matrix(y, y), w)
    assert float(HSIC(*kernels)(x, y, w)) == pytest.approx(truth, rel=1e-10)


def test_streamed_twice_equals_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(600, 3, 2, 2)
    x.requires_grad_()
    (kept,) = torch.autograd.grad(HSIC(Gaussian(1.1), Linear())(x, y), x)
    monkeypatch.setattr(centred, "KEPT_ENTRIES", 0)
    (streamed,) = torch.autograd.grad(HSIC(Gaussian(1.1), Linear())(x, y), x)
    assert torch.equal(kept, streamed)


@pytest.mark.parametrize(("n", "d1", "d2"), [(50, 3, 2), (6, 40, 30)])  # by features; by rows
def test_linear_cka_is_the_frobenius_form(n: int, d1: int, d2: int) -> None:
    x, y = rows(n, d1, d2, 4)
    a, b = x - x.mean(0), y - y.mean(0)
    truth = torch.linalg.norm(a.T @ b) ** 2 / (torch.linalg.norm(a.T @ a) * torch.linalg.norm(b.T @ b))
    assert float(CKA()(x, y)) == pytest.approx(float(truth), rel=1e-12)


def test_linear_cka_in_one_dimension_is_the_squared_correlation() -> None:
    x, y = rows(80, 1, 1, 5)
    truth = np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2
    assert float(CKA()(x, y)) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("M", ALL, ids=repr)
def test_gradients_against_finite_differences(M) -> None:
    x, y = rows(7, 2, 3, 6)
    w = masses(7, 7)
    # Bandwidths are held fixed by the gradient: take a rule's number for the differences too.
    fixed = {name: getattr(M, name).resolve(t, w) for name, t in (("kernel_x", x), ("kernel_y", y)) if isinstance(M, HSIC | CKA)}
    M = type(M)(**fixed) if fixed else M
    raw = torch.log(w + 0.1)
    assert torch.autograd.gradcheck(
        lambda x, y, raw: M(x, y, raw.softmax(0)), (x.requires_grad_(), y.requires_grad_(), raw.requires_grad_()), atol=1e-7
    )


@pytest.mark.parametrize("M", ALL, ids=repr)
def test_symmetry_batches_and_row_order(M) -> None:
    x, y = rows(20, 2, 3, 8)
    swapped = type(M)(M.kernel_y, M.kernel_x) if isinstance(M, HSIC | CKA) else M
    assert torch.equal(M(x, y), swapped(y, x)) or float(M(x, y)) == pytest.approx(float(swapped(y, x)), rel=1e-14)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert float(M(x[order], y[order])) == pytest.approx(float(M(x, y)), rel=1e-9)
    batch = M(torch.stack([x, 2 * x + 1, y[:, :2]]), torch.stack([y, y, y]))
    each = [float(M(u, y)) for u in (x, 2 * x + 1, y[:, :2])]
    np.testing.assert_allclose(batch, each, rtol=1e-10)


@pytest.mark.parametrize("M", ALL, ids=repr)
def test_weights_are_repeated_rows(M) -> None:
    x, y = rows(6, 2, 2, 9)
    counts = torch.tensor([1, 2, 0, 3, 1, 1])
    fixed = type(M)(*(Gaussian(0.9) for _ in range(2))) if isinstance(M, HSIC | CKA) else M
    repeated = fixed(x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0))
    assert float(fixed(x, y, counts / counts.sum())) == pytest.approx(float(repeated), rel=1e-6)
    assert float(fixed(x, y, (counts / counts.sum()).double() / (counts / counts.sum()).double().sum())) == pytest.approx(
        float(repeated), rel=1e-10
    )


@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_invariances(seed: int, scale: float, shift: float) -> None:
    x, y = rows(15, 3, 2, seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    moved = x @ turn + shift
    assert float(HSIC()(moved, y)) == pytest.approx(float(HSIC()(x, y)), rel=1e-8)
    assert float(HSIC()(scale * x, y)) == pytest.approx(float(HSIC()(x, y)), rel=1e-8)  # the bandwidth follows the scale
    assert float(DistanceCovariance()(scale * moved, y)) == pytest.approx(scale * float(DistanceCovariance()(x, y)), rel=1e-8)
    for M in (CKA(), CKA(Gaussian(), Gaussian())):
        value = float(M(scale * moved, y))
        assert value == pytest.approx(float(M(x, y)), rel=1e-7)
        assert 0 <= value <= 1
        assert float(M(x, scale * moved)) == pytest.approx(1.0, rel=1e-7)


@pytest.mark.parametrize("M", ALL, ids=repr)
def test_constant_side_and_single_row(M) -> None:
    x, y = rows(9, 2, 2, 11)
    constant = torch.full((9, 2), 3.0, dtype=torch.float64, requires_grad=True)
    value = M(constant, y)
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-12)
    (gradient,) = torch.autograd.grad(value, constant)
    assert bool(torch.isfinite(gradient).all())
    assert float(M(x[:1], y[:1])) == 0


@pytest.mark.parametrize("M", ALL, ids=repr)
def test_permuted_is_the_value_of_permuted_rows(M) -> None:
    x, y = rows(12, 2, 3, 12)
    order = torch.stack([torch.arange(12), *(torch.randperm(12, generator=torch.Generator().manual_seed(s)) for s in range(3))])
    truth = [float(M(x, y[row])) for row in order]
    np.testing.assert_allclose(M.permuted(x, y)(order), truth, rtol=1e-9)
    small = type(M)(**{k: v for k, v in vars(M).items() if k != "memory"}, memory=1e-9)
    np.testing.assert_allclose(small.permuted(x, y)(order), truth, rtol=1e-9)


def test_independence_test_sees_a_square_and_keeps_its_level() -> None:
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 80, 1, generator=generator, dtype=torch.float64)
    for M in (HSIC(), DistanceCovariance(), CKA(Gaussian(), Gaussian())):
        assert independence_test(x, x.square(), M, permutations=199, generator=generator).p_value <= 0.01
        assert independence_test(x, z, M, permutations=199, generator=generator).p_value > 0.01
    # A linear kernel is blind to it: the covariance of x and x^2 is zero.
    assert independence_test(x - x.mean(), x.square(), HSIC(Linear(), Linear()), permutations=199).p_value > 0.01


def test_float32_is_kept_and_close() -> None:
    x, y = rows(60, 3, 2, 13)
    for M in ALL:
        value = M(x.float() + 1000, y.float())
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(M(x, y)), rel=2e-3)


def unbiased_by_hand(K: torch.Tensor, L: torch.Tensor) -> float:
    """The U-statistic as a sum over quadruples of distinct rows."""
    n, total, count = len(K), 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += float(K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]))
                        count += 1
    return total / count


def test_minibatch_cka_uses_the_unbiased_statistic() -> None:
    x, y = rows(5, 2, 2, 14)
    left, right = Gaussian(1.0), Gaussian(0.6)
    K, L = left.matrix(x, x), right.matrix(y, y)
    truth = unbiased_by_hand(K, L) / math.sqrt(unbiased_by_hand(K, K) * unbiased_by_hand(L, L))
    found = minibatch_cka([(x, y)], left, right)
    assert float(found) == pytest.approx(truth, rel=1e-10)
    assert found.standard_error is None


def test_minibatch_cka_does_not_depend_on_the_batch_size() -> None:
    # Independent features of 30 dimensions: the V-statistic on batches of 20 rows is far from the truth, 0.
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2000, 30, generator=generator, dtype=torch.float64)
    found = minibatch_cka(zip(x.split(20), y.split(20), strict=True))
    assert abs(float(found)) < 4 * float(found.standard_error)
    assert float(found.standard_error) < 0.02
    assert float(CKA()(x[:20], y[:20])) > 0.3
    shared = minibatch_cka(zip(x.split(20), (x + 0.5 * y).split(20), strict=True))
    assert float(shared) == pytest.approx(float(CKA()(x, x + 0.5 * y)), abs=0.05)


def test_refusals() -> None:
    x, y = rows(8, 2, 2, 15)
    with pytest.raises(TypeError, match="kernel_x must be a kernel"):
        HSIC(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kernel_y must be a kernel"):
        CKA(Linear(), "linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exponent"):
        DistanceCovariance(2.0)
    with pytest.raises(ValueError, match="paired row by row"):
        CKA()(x, y[:5])
    with pytest.raises(ValueError, match="at least 4 rows"):
        minibatch_cka([(x[:3], y[:3])])
    with pytest.raises(ValueError, match="empty"):
        minibatch_cka([])
    with pytest.raises(TypeError, match="batch by batch"):
        minibatch_cka([(x, y)], Gaussian(MedianHeuristic()))
    t = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(HSIC(Gaussian(1.0), Gaussian(1.0))(t, y), t, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives"):
        g.sum().backward()
