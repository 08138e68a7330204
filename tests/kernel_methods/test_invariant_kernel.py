"""Kernels averaged over a group: equal to the kernel on augmented samples, with gradients, for MMD and HSIC."""

from __future__ import annotations

import pytest
import torch

from discrepancy import HSIC, MMD
from discrepancy.groups import Cyclic, CyclicShift, Dihedral, Drawn, Rotation, SignFlip
from discrepancy.kernel_methods import InvariantKernel
from discrepancy.kernels import Gaussian, InverseMultiquadric, Kernel, Laplacian, Linear


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNELS = [Gaussian(0.7), InverseMultiquadric(1.0), Linear(), Gaussian(0.5) + 2.0 * Linear()]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize(("group", "d"), [(Cyclic(4), 2), (Dihedral(3), 2), (CyclicShift(3), 3), (SignFlip(), 2)], ids=repr)
def test_mmd_equals_the_mmd_of_augmented_samples(kernel, group, d):
    x, y = points(12, d), points(9, d, 1) + 0.5
    averaged = MMD(InvariantKernel(group, kernel), biased=True)(x, y)
    full = MMD(kernel, biased=True)(group.augmented(x), group.augmented(y))
    assert float(averaged) == pytest.approx(float(full), rel=1e-9, abs=1e-14)


def test_values_by_hand_and_the_diagonal_is_not_one():
    group, kernel = Cyclic(4), Gaussian(0.7)
    x, y = points(4, 2), points(3, 2, 1)
    by_hand = sum(kernel.matrix(x, image) for image in group.images(y)) / 4
    found = InvariantKernel(group, kernel)
    assert torch.allclose(found.matrix(x, y), by_hand)
    assert torch.allclose(found.block(x, y)[0], by_hand)
    assert torch.allclose(found.diagonal(x), found.matrix(x, x).diagonal())
    assert float(found.diagonal(x).max()) < 1.0
    assert torch.allclose(found.matrix(x, y), found.matrix(y, x).T)
    assert torch.allclose(found.matrix(group.act(1, x), y), found.matrix(x, y))
    assert float(torch.linalg.eigvalsh(found.matrix(x, x)).min()) > -1e-12


@pytest.mark.parametrize("biased", [True, False])
def test_gradients(biased):
    D = MMD(InvariantKernel(Dihedral(3), Gaussian(0.7)), biased=biased)
    x, y = points(5, 2).requires_grad_(), points(4, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(D, (x, y))
    kernel = InvariantKernel(Dihedral(3), Gaussian(0.7))
    M = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gx, gy = torch.autograd.grad((M * kernel.matrix(x, y)).sum(), (x, y))
    pulled = kernel.block(x.detach(), y.detach())[1](M)
    assert torch.allclose(pulled[0], gx)
    assert torch.allclose(pulled[1], gy)


def test_batches_choose_a_bandwidth_each():
    D = MMD(InvariantKernel(Cyclic(4)), biased=True)
    x, y = torch.stack([points(6, 2), 9 * points(6, 2, 1)]), torch.stack([points(5, 2, 2), 9 * points(5, 2, 3)])
    together = D(x, y)
    assert torch.allclose(together, torch.stack([D(x[0], y[0]), D(x[1], y[1])]))


def test_draws_from_an_infinite_group_stay_positive_definite():
    drawn = Drawn.of(Rotation(3), 12, generator=torch.Generator().manual_seed(0))
    kernel = InvariantKernel(drawn, Gaussian(0.5))
    x = points(15, 3)
    matrix = kernel.matrix(x, x)
    assert torch.allclose(matrix, matrix.T)
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-12
    assert torch.allclose(kernel.diagonal(x), matrix.diagonal())
    full = MMD(Gaussian(0.5), biased=True)(drawn.augmented(x), drawn.augmented(x + 1))
    assert float(MMD(kernel, biased=True)(x, x + 1)) == pytest.approx(float(full), rel=1e-9)
    u, v = points(3, 3).requires_grad_(), points(2, 3, 1).requires_grad_()
    few = InvariantKernel(Drawn.of(Rotation(3), 3, generator=torch.Generator().manual_seed(0)), Gaussian(0.5))
    assert torch.autograd.gradcheck(lambda a, b: MMD(few, biased=True)(a, b), (u, v))


def test_it_serves_dependence_measures():
    # x and its sign's square: y = x^2 depends on x through its orbit only; an odd kernel of x sees nothing of it.
    x = points(60, 1)
    even = HSIC(InvariantKernel(SignFlip(), Gaussian(1.0)), Gaussian(1.0))
    assert float(even(x, x.square())) > 5 * float(even(x, points(60, 1, 5)))
    flipped = SignFlip().random(x, generator=torch.Generator().manual_seed(0))
    assert float(even(flipped, x.square())) == pytest.approx(float(even(x, x.square())), rel=1e-9)


def test_bad_arguments():
    x = points(5, 2)
    with pytest.raises(ValueError, match="not invariant"):
        MMD(InvariantKernel(Cyclic(3), Laplacian(1.0)))(x, x + 1)
    MMD(InvariantKernel(Cyclic(4), Laplacian(1.0)))(x, x + 1)  # quarter turns keep |.|_1

    class Weighted(Kernel):
        __hash__ = None  # type: ignore[assignment]

        def matrix(self, x, y):
            return torch.exp(-(x[..., :, None, 0] - y[..., None, :, 0]).square())

    with pytest.raises(ValueError, match="not invariant"):
        MMD(InvariantKernel(Cyclic(4), Weighted()))(x, x + 1)
    MMD(InvariantKernel(SignFlip(), Weighted()))(x, x + 1)
    with pytest.raises(ValueError, match="3 features"):
        MMD(InvariantKernel(Cyclic(4)))(points(4, 3), points(4, 3))
    with pytest.raises(TypeError, match="infinitely many"):
        InvariantKernel(Rotation(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a kernel"):
        InvariantKernel(Cyclic(2), "rbf")  # type: ignore[arg-type]
