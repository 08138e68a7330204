"""Synthetic shapes: counts, seeds, and that each lies on its surface up to the stretch and the turn."""

from __future__ import annotations

import pytest
import torch

from discrepancy.datasets.shapes import _SHAPES, SHAPES, shape_clouds


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_clouds_come_in_turn_and_repeat_with_the_seed() -> None:
    clouds, labels = shape_clouds(13, 20, generator=seeded())
    assert clouds.shape == (13, 20, 3)
    assert clouds.dtype == torch.float32
    assert labels.tolist() == [k % 6 for k in range(13)]
    assert torch.equal(clouds, shape_clouds(13, 20, generator=seeded())[0])
    assert len(SHAPES) == 6


def test_points_lie_on_their_surfaces() -> None:
    draw = {name: shape(4000, seeded()) for name, shape in _SHAPES.items()}
    torch.testing.assert_close(draw["sphere"].norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(draw["cube"].abs().amax(-1), torch.ones(4000, dtype=torch.float64))
    tube = ((draw["torus"][:, :2].norm(dim=-1) - 1).square() + draw["torus"][:, 2].square()).sqrt()
    torch.testing.assert_close(tube, torch.full((4000,), 0.35, dtype=torch.float64))
    # By area the mean of cos(v) on a torus is r / (2 R), on the flat square of angles it would be zero.
    assert float(draw["torus"][:, :2].norm(dim=-1).mean() - 1) == pytest.approx(0.35 * 0.35 / 2, abs=0.015)
    torch.testing.assert_close(draw["cylinder"][:, :2].norm(dim=-1), torch.full((4000,), 0.6, dtype=torch.float64))
    assert float((draw["two blobs"][:, 0].abs() - 0.8).abs().mean()) < 0.25
    assert float((draw["helix"][:, :2].norm(dim=-1) - 0.7).abs().max()) < 0.2


def test_a_stretched_sphere_is_an_ellipsoid_of_the_right_axes() -> None:
    cloud = shape_clouds(1, 5000, generator=seeded(), dtype=torch.float64)[0][0]
    axes = (3 * torch.linalg.eigvalsh(cloud.T @ cloud / 5000)).sqrt()
    assert 0.48 < float(axes[0]) <= float(axes[2]) < 1.22


def test_numbers_are_checked() -> None:
    for bad in ((0, 5), (5, 0), (2.0, 5)):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            shape_clouds(*bad)  # type: ignore[arg-type]
