"""Kernels against scikit-learn and closed forms; sums, resolution, options."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from discrepancy.kernels import (
    Gaussian,
    InverseMultiquadric,
    Kernel,
    KernelSum,
    Laplacian,
    MedianHeuristic,
    NegativeDistance,
)

KERNELS = [
    Gaussian(1.3),
    Laplacian(0.7),
    InverseMultiquadric(0.9),
    InverseMultiquadric(1.1, exponent=1.5),
    NegativeDistance(),
    NegativeDistance(1.4),
    Gaussian(0.5) + 2.0 * Gaussian(2.0) + Laplacian(1.0),
]


def clouds(d: int, n: int = 12, m: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(d)
    return torch.randn(n, d, generator=generator).double(), torch.randn(m, d, generator=generator).double() + 0.3


@pytest.mark.parametrize("d", [1, 3, 7, 40])
def test_matrices_against_scikit_learn(d: int) -> None:
    x, y = clouds(d)
    h = 1.7
    np.testing.assert_allclose(Gaussian(h).matrix(x, y), rbf_kernel(x, y, gamma=1 / (2 * h * h)), rtol=1e-12)
    np.testing.assert_allclose(Laplacian(h).matrix(x, y), laplacian_kernel(x, y, gamma=1 / h), rtol=1e-12)
    np.testing.assert_allclose(InverseMultiquadric(h, 0.5).matrix(x, y), 1 / np.sqrt(1 + cdist(x, y) ** 2 / h**2), rtol=1e-12)
    np.testing.assert_allclose(NegativeDistance().matrix(x, y), -cdist(x, y), rtol=1e-12)
    np.testing.assert_allclose(NegativeDistance(0.6).matrix(x, y), -(cdist(x, y) ** 0.6), rtol=1e-12)


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradients_of_the_matrix_by_finite_differences(kernel: Kernel, d: int) -> None:
    x, y = clouds(d, 4, 3)
    x.requires_grad_()
    y.requires_grad_()
    assert torch.autograd.gradcheck(kernel.matrix, (x, y))


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradient_is_zero_where_points_coincide(kernel: Kernel, d: int) -> None:
    x, _ = clouds(d, 5)
    left = x.clone().requires_grad_()
    kernel.matrix(left, x).diagonal().sum().backward()
    assert torch.equal(left.grad, torch.zeros_like(x))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_diagonal(kernel: Kernel) -> None:
    x, _ = clouds(3)
    torch.testing.assert_close(kernel.diagonal(x), kernel.matrix(x, x).diagonal(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("d", [3, 12])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distances_keep_their_digits_far_from_the_origin_and_close_together(d: int, offset: float) -> None:
    x, _ = clouds(d, 30)
    x = (x * 2**20).round() / 2**20  # so that adding the offset loses nothing
    y = torch.cat([x[:10], x[10:20] + 2.0**-20, x[20:] + 1.0])
    got = NegativeDistance().matrix(x + offset, y + offset)
    np.testing.assert_allclose(got, -cdist(x, y), rtol=1e-10)
    assert torch.equal(got.diagonal()[:10], torch.zeros(10, dtype=got.dtype))
    np.testing.assert_allclose(got.diagonal()[10:20], -math.sqrt(d) * 2.0**-20, rtol=1e-12)


def test_tight_clusters_far_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    x[20:] += 1e5
    moved = x.clone().requires_grad_()
    values = NegativeDistance().matrix(moved, x)
    np.testing.assert_allclose(values.detach(), -cdist(x, x), rtol=1e-11, atol=1e-13)
    values.sum().backward()
    difference = x[:, None] - x[None]
    unit = difference / difference.norm(dim=-1, keepdim=True).where(difference.abs().sum(-1, keepdim=True) > 0, torch.inf)
    torch.testing.assert_close(moved.grad, -unit.sum(1), rtol=1e-9, atol=1e-9)


@dataclass(frozen=True)
class Linear(Kernel):
    """A kernel of one's own, with a matrix only, and a diagonal that is not constant."""

    def matrix(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y.mT


def test_sums_and_multiples() -> None:
    x, y = clouds(3)
    total = Gaussian(1.0) + 2 * (Laplacian(0.5) + Linear()) * 0.5
    assert isinstance(total, KernelSum)
    assert [factor for factor, _ in total.terms] == [1.0, 1.0, 1.0]
    want = Gaussian(1.0).matrix(x, y) + Laplacian(0.5).matrix(x, y) + x @ y.T
    torch.testing.assert_close(total.matrix(x, y), want)
    values, pullback = total.block(x, y)
    torch.testing.assert_close(values, want)
    M = torch.randn(len(x), len(y), dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    left, right = x.clone().requires_grad_(), y.clone().requires_grad_()
    wanted = torch.autograd.grad((M * total.matrix(left, right)).sum(), (left, right))
    torch.testing.assert_close(pullback(M), wanted)
    assert not total.translation_invariant
    assert (Gaussian(1.0) + Laplacian(1.0)).translation_invariant
    assert not (Gaussian() + Laplacian(1.0)).scale_free
    assert (Gaussian() + Laplacian()).scale_free
    assert pickle.loads(pickle.dumps(total)) == total


@pytest.mark.parametrize(
    ("make", "error", "naming"),
    [
        (lambda: Gaussian(0.0), ValueError, "bandwidth must be positive and finite, got 0.0"),
        (lambda: Gaussian(math.inf), ValueError, "bandwidth"),
        (lambda: Gaussian("median"), TypeError, "MedianHeuristic"),
        (lambda: Gaussian(torch.tensor([1.0, -1.0])), ValueError, "bandwidth"),
        (lambda: Laplacian(-1), ValueError, "scale"),
        (lambda: InverseMultiquadric(1.0, exponent=0), ValueError, "exponent"),
        (lambda: NegativeDistance(2.0), ValueError, "exponent"),
        (lambda: NegativeDistance(0.0), ValueError, "exponent"),
        (lambda: MedianHeuristic(0.0), ValueError, "factor"),
        (lambda: MedianHeuristic(limit=1), ValueError, "limit"),
        (lambda: -1.0 * Gaussian(1.0), ValueError, "factor"),
        (lambda: KernelSum(()), ValueError, "at least one"),
        (lambda: KernelSum(((1.0, 3.0),)), TypeError, "kernels"),
        (lambda: Gaussian(1.0) + 3, TypeError, "unsupported"),
        (lambda: Gaussian(1.0) * Gaussian(1.0), TypeError, "unsupported"),
        (lambda: Gaussian().matrix(*clouds(2)), TypeError, "resolve"),
    ],
)
def test_options_are_checked(make, error: type[Exception], naming: str) -> None:
    with pytest.raises(error, match=naming):
        make()
