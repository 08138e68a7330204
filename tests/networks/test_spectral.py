"""Layers of spectral norm one: the constant, its gradient, and seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from discrepancy.networks import SpectralLinear


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 9), (9, 5), (1, 4), (4, 1)])
def test_the_lipschitz_constant_is_one(inputs: int, outputs: int) -> None:
    layer = SpectralLinear(inputs, outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64).eval()
    layer.settle(500)
    jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(inputs, dtype=torch.float64))
    assert float(torch.linalg.matrix_norm(jacobian, 2)) == pytest.approx(1.0, abs=1e-6)
    assert float(layer.norm().detach()) == pytest.approx(float(torch.linalg.matrix_norm(layer.weight, 2).detach()), rel=1e-6)


def test_the_norm_is_followed_while_the_weight_moves() -> None:
    generator = torch.Generator().manual_seed(1)
    layer = SpectralLinear(8, 6, generator=generator).train()
    x, target = torch.randn(50, 8, generator=generator), torch.randn(50, 6, generator=generator)
    optimiser = torch.optim.Adam(layer.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(x) - 3 * target).square().mean().backward()
        optimiser.step()
    true = float(torch.linalg.matrix_norm(layer.weight, 2).detach())
    assert float(layer.norm().detach()) == pytest.approx(true, rel=0.02)


def test_the_gradient_is_that_of_the_normalised_weight() -> None:
    layer = SpectralLinear(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).eval()
    layer.settle(2000)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (found,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    W = layer.weight.detach().clone().requires_grad_()
    truth = torch.nn.functional.linear(x, W / torch.linalg.matrix_norm(W, 2), layer.bias.detach()).square().sum()
    np.testing.assert_allclose(found, torch.autograd.grad(truth, W)[0], atol=1e-6)


def test_seeds_zero_weights_and_bad_options() -> None:
    a, b = (SpectralLinear(3, 4, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a.state_dict()[k], b.state_dict()[k]) for k in a.state_dict())
    with torch.no_grad():
        a.weight.zero_()
    out = a(torch.ones(2, 3))
    assert bool(torch.isfinite(out).all())
    with pytest.raises(ValueError, match="iterations"):
        SpectralLinear(3, 4, iterations=0)
