"""Logarithms of kernels: equal to the logarithm of the values where those do not underflow, exact where they do."""

from __future__ import annotations

import pytest
import torch

from discrepancy.kernels import Gaussian, InverseMultiquadric, Kernel, Laplacian, Linear, LogKernel, NegativeDistance

POSITIVE = [
    Gaussian(0.8),
    Laplacian(1.3),
    InverseMultiquadric(0.7, 1.5),
    Gaussian(0.5) + 2.0 * Laplacian(1.0),
    0.3 * InverseMultiquadric(2.0),
]


class Rational(Kernel):
    """A kernel of a user's own, with nothing but its matrix."""

    def matrix(self, x, y):
        return 1 / (1 + torch.cdist(x, y))


def points(n: int, seed: int, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "kernel", [*POSITIVE, Rational()], ids=lambda k: type(k).__name__ + str(POSITIVE.index(k) if k in POSITIVE else "")
)
def test_logarithm_of_the_values_and_its_gradient(kernel: Kernel) -> None:
    x, y = points(6, 0), points(5, 1)
    torch.testing.assert_close(LogKernel(kernel).matrix(x, y), kernel.matrix(x, y).log(), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(LogKernel(kernel).matrix, (x.requires_grad_(), y.requires_grad_()))


def test_far_points_do_not_underflow() -> None:
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3e4, 4e4]], dtype=torch.float64).requires_grad_()
    value = LogKernel(Gaussian(2.0)).matrix(x, y)
    assert float(value.detach()) == pytest.approx(-(5e4**2) / 8, rel=1e-12)
    (slope,) = torch.autograd.grad(value.sum(), y)
    torch.testing.assert_close(slope, -y.detach() / 4)
    mixed = LogKernel(Gaussian(2.0) + 0.5 * Laplacian(10.0)).matrix(x, y)
    # The Laplacian is what is left.
    assert float(mixed.detach()) == pytest.approx(-7e3 + torch.tensor(0.5).log().item(), rel=1e-9)


def test_resolved_and_batched() -> None:
    z = points(8, 2)
    w = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert LogKernel(Gaussian()).resolve(z, w) == LogKernel(Gaussian().resolve(z, w))
    batch = torch.stack([z, 3 * z])
    kernel = Gaussian().resolve(batch, w.expand(2, 8))
    whole = LogKernel(kernel).matrix(batch, batch)
    for k in range(2):
        torch.testing.assert_close(
            whole[k], LogKernel(kernel.members(slice(k, k + 1), 2)).matrix(batch[k : k + 1], batch[k : k + 1])[0]
        )


@pytest.mark.parametrize("kernel", [Linear(), NegativeDistance()], ids=repr)
def test_negative_values_have_no_logarithm(kernel: Kernel) -> None:
    with pytest.raises(ValueError, match="negative value"):
        LogKernel(kernel).matrix(points(4, 0), points(4, 1))
