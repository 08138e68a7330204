"""Landmark features: the kernel at the landmarks, a projection elsewhere."""

import pytest
import torch

from discrepancy.kernels import Gaussian, Laplacian
from discrepancy.kernels.families import NegativeDistance
from discrepancy.kernels.landmarks import features_at


@pytest.mark.parametrize("kernel", [Gaussian(1.5), Laplacian(2.0), Gaussian()], ids=["gaussian", "laplacian", "median"])
def test_inner_products_are_the_kernel_at_the_landmarks(kernel):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = features_at(x, kernel)
    phi = found(x)
    torch.testing.assert_close(phi @ phi.T, found.kernel.matrix(x, x), atol=1e-7, rtol=0)
    new = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # One side at a landmark is enough; between new points the projection is shorter than the point.
    torch.testing.assert_close(found(new) @ phi.T, found.kernel.matrix(new, x), atol=1e-7, rtol=0)
    assert bool((found(new).square().sum(-1) <= 1 + 1e-9).all())


def test_landmarks_are_drawn_reproducibly_and_kernels_checked():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = (features_at(x, Gaussian(1.0), most=30, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert a.landmarks.shape == (30, 2)
    assert torch.equal(a.landmarks, b.landmarks)
    assert a.count <= 30
    with pytest.raises(ValueError, match="not positive semi-definite"):
        features_at(x[:20], NegativeDistance())
