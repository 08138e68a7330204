"""Separable critics and the residual network with codes."""

import pytest
import torch

from discrepancy.networks import MLP, ResidualMLP, SeparableCritic


def test_all_pairs_hold_the_own_pairs_on_the_diagonal():
    critic = SeparableCritic(3, 2, MLP(8, 1), 4, generator=torch.Generator().manual_seed(0))
    u, v = torch.randn(5, 3), torch.randn(5, 2)
    assert torch.allclose(critic(u, v).diagonal(), critic.pairs(u, v))
    assert critic(u, v[:2]).shape == (5, 2)


def test_residual_network_starts_at_zero_and_sees_its_code():
    net = ResidualMLP(16, 2).build(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, code = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    assert not bool(net(x, code).any())
    torch.nn.init.normal_(net.last.weight, generator=torch.Generator().manual_seed(1))
    assert net(x, code).shape == (6, 4)
    assert not torch.allclose(net(x, code), net(x, code + 1))
    again = ResidualMLP(16, 2).build(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(again.first.weight, net.first.weight)


@pytest.mark.parametrize(("inputs", "width"), [(10, 64), (50, 128), (51, 256)])
def test_width_by_inputs(inputs, width):
    assert ResidualMLP().build(inputs, 1, 1).first.out_features == width


def test_bad_options():
    with pytest.raises(ValueError, match="width"):
        ResidualMLP(0)
    with pytest.raises(ValueError, match="blocks"):
        ResidualMLP(blocks=0)
