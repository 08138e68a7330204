"""Directions: unit length, the right second moment, orthogonality, equal spacing, reproducibility."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy.directions import Hadamard, Orthogonal, QuasiMonteCarlo, Uniform, hadamard_transform

KINDS = [Uniform, Orthogonal, QuasiMonteCarlo, Hadamard]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3, 5, 16])
def test_unit_vectors_that_repeat_with_the_seed_in_either_precision(kind, d) -> None:
    theta = kind(13).draw(d, seeded())
    assert theta.shape == (13, d)
    torch.testing.assert_close(theta.norm(dim=-1), torch.ones(13, dtype=torch.float64))
    assert torch.equal(theta, kind(13).draw(d, seeded()))
    assert torch.equal(theta.float(), kind(13).draw(d, seeded(), torch.float32))
    if d > 1:
        assert not torch.equal(theta, kind(13).draw(d, seeded(1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 3, 5, 8])
def test_second_moment_is_identity_over_d(kind, d) -> None:
    """Over many draws E theta theta^T = I/d, which the control variates rest on; Hadamard promises it for powers of two."""
    if kind is Hadamard and d & (d - 1):
        pytest.skip("stated to hold for powers of two only")
    generator = seeded(3)
    draws = torch.stack([kind(10).draw(d, generator) for _ in range(2000)])
    moments = torch.einsum("rki,rkj->rij", draws, draws) / 10
    error = moments.std(0) / math.sqrt(len(moments))
    gap = (moments.mean(0) - torch.eye(d, dtype=torch.float64) / d).abs()
    assert bool((gap <= 5 * error + 1e-12).all())


def test_uniform_is_uniform() -> None:
    """In three dimensions a coordinate of a uniform direction is uniform on [-1, 1] (Archimedes)."""
    heights = Uniform(20_000).draw(3, seeded())[:, 0].sort().values
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 10_000 - 1
    assert float((heights - grid).abs().max()) < 0.03  # Kolmogorov at 1e-6, in units of the range 2


def test_only_uniform_directions_are_independent() -> None:
    assert [kind().independent for kind in KINDS] == [True, False, False, False]


def test_orthogonal_blocks() -> None:
    theta = Orthogonal(10).draw(4, seeded())
    for block in (theta[:4], theta[4:8]):
        torch.testing.assert_close(block @ block.T, torch.eye(4, dtype=torch.float64))
    assert abs(float(theta[0] @ theta[4])) > 1e-6


def test_quasi_monte_carlo_in_the_plane_is_equally_spaced() -> None:
    angles = torch.atan2(*QuasiMonteCarlo(12).draw(2, seeded()).T.flip(0)) % math.pi
    torch.testing.assert_close(angles.sort().values.diff(), torch.full((11,), math.pi / 12, dtype=torch.float64))


@pytest.mark.parametrize("d", [3, 6])
def test_quasi_monte_carlo_integrates_better(d) -> None:
    """The mean of a smooth function over the sphere: E (theta_1)^4 = 3 / (d (d + 2))."""
    truth = 3 / (d * (d + 2))

    def rmse(kind) -> float:
        generator = seeded(5)
        errors = torch.stack([kind(128).draw(d, generator)[:, 0].pow(4).mean() - truth for _ in range(60)])
        return float(errors.square().mean().sqrt())

    assert rmse(QuasiMonteCarlo) < 0.5 * rmse(Uniform)


def test_hadamard_transform_is_the_matrix() -> None:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    x = torch.randn(4, 8, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(hadamard_transform(x), x @ matrix / math.sqrt(8))
    torch.testing.assert_close(hadamard_transform(hadamard_transform(x)), x)
    with pytest.raises(ValueError, match="power of two"):
        hadamard_transform(torch.ones(3))


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_bad_counts(count) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match="count"):
            kind(count)
