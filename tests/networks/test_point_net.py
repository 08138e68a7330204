"""Point networks: the order of points, the layers' formula, seeds, shapes, bad widths."""

from __future__ import annotations

import pytest
import torch

from discrepancy.networks import PointCloudAutoencoder, PointNet


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_features_are_the_maximum_over_points_and_see_no_order() -> None:
    net = PointNet((5, 7)).build(3, generator=seeded(), dtype=torch.float64)
    x = torch.randn(2, 6, 3, generator=seeded(), dtype=torch.float64)
    first, second = (m for m in net.shared if isinstance(m, torch.nn.Linear))
    rows = ((x @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(net(x), rows.max(1).values)
    torch.testing.assert_close(net(x.flip(1)), net(x))


def test_the_autoencoder_gives_clouds_of_its_size_and_a_seed_fixes_it() -> None:
    nets = [PointCloudAutoencoder(PointNet((4, 8)), (6,)).build(10, 3, generator=seeded()) for _ in range(2)]
    x = torch.randn(5, 7, 3, generator=seeded())
    assert nets[0](x).shape == (5, 10, 3)
    assert torch.equal(nets[0](x), nets[1](x))


def test_widths_are_checked() -> None:
    for widths in ((), (0,), [4]):
        with pytest.raises(ValueError, match="widths must be"):
            PointNet(widths)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decoder must be"):
        PointCloudAutoencoder(decoder=(1.5,))  # type: ignore[arg-type]
