"""DiffusionNet against its definition, and what it promises to forget."""

from __future__ import annotations

import pytest
import torch

from discrepancy.methods.geometry.laplacians import LaplacianBasis
from discrepancy.methods.geometry.meshes import bumpy_sphere, subdivided
from discrepancy.networks.diffusion_net import DiffusionNet


def test_one_block_by_hand():
    basis = LaplacianBasis.from_mesh(bumpy_sphere(0.3, 2, dtype=torch.float64), k=9)
    net = DiffusionNet(4, 1).build(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = torch.randn(basis.n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = f @ net.first.weight.T + net.first.bias
    block = net.blocks[0]
    heat = []
    for c, t in enumerate(block.log_times.exp()):
        coefficients = basis.vectors.T @ torch.diag(basis.mass) @ x[:, c]
        heat.append(basis.vectors @ (torch.exp(-t * basis.values / basis.values[1]) * coefficients))
    inner = torch.cat([x, torch.stack(heat, 1)], 1)
    for layer in block.net:
        inner = layer(inner)
    expected = (x + inner) @ net.last.weight.T + net.last.bias
    torch.testing.assert_close(net(f, basis), expected)


def test_it_forgets_the_triangulation_and_the_size():
    coarse = bumpy_sphere(0.3, 2, dtype=torch.float64)
    fine = subdivided(coarse)
    net = DiffusionNet(8, 2).build(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = []
    for mesh in (coarse, fine, fine.moved(5 * fine.vertices)):
        basis = LaplacianBasis.from_mesh(mesh, k=16)
        features = mesh.vertices[:, :2] / mesh.vertices.abs().max()
        outputs.append(net(features, basis).detach())
    n = len(coarse.vertices)
    assert (outputs[1][:n] - outputs[0]).abs().max() < 0.1 * outputs[0].std()
    torch.testing.assert_close(outputs[2], outputs[1], rtol=1e-6, atol=1e-7)


def test_seeds_sizes_and_precision():
    a, b = (DiffusionNet(8, 2).build(3, 5, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    basis = LaplacianBasis.from_mesh(bumpy_sphere(0.3, 1, dtype=torch.float32), k=6)
    out = a(torch.ones(basis.n, 3), basis)
    assert out.shape == (basis.n, 5)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in a.parameters())
    for bad in ({"width": 0}, {"blocks": 1.5}):
        with pytest.raises(ValueError, match="must be a whole number"):
            DiffusionNet(**bad)
