"""The report on structured rotations: it tells apart what differs, keeps still where nothing does, and repeats with its seed."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import MMD, EnergyDistance, cite
from discrepancy.kernels import Gaussian
from discrepancy.methods.diagnostics.hadamard_rotations import RotationReport, hadamard_rotations


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _axis(d: int) -> torch.Tensor:
    return torch.eye(d, dtype=torch.float64)[0]


def test_two_blocks_on_an_axis_agree_in_coordinates_only() -> None:
    report = hadamard_rotations(_axis(64), MMD(Gaussian(1.0)), count=300, permutations=99, generator=seeded())
    assert report.coordinate_test.p_value > 0.05
    assert report.marginal_ks < 0.054 + 1.95 / math.sqrt(300)  # the distance of the laws, and what 300 draws add
    assert report.vertex_gap < 1e-12
    assert 0.6 < report.vertex_gap_haar < 0.65
    assert report.sign_cosine == pytest.approx(report.sign_cosine_haar, abs=0.02)


def test_one_block_on_an_axis_fails_in_every_coordinate() -> None:
    report = hadamard_rotations(_axis(64), EnergyDistance(), blocks=1, count=300, permutations=99, generator=seeded())
    assert report.coordinate_test.p_value == 0.01
    assert report.marginal_ks > 0.3
    assert report.sign_cosine == pytest.approx(1.0)
    assert report.largest == pytest.approx(1.0)
    assert 2.5 < report.largest_haar < 4  # about sqrt(2 log 64) = 2.9
    assert report.distortion < 1e-12 < 0.1 < report.distortion_haar  # all coordinates have one size


def test_the_scale_of_the_vector_does_not_matter_and_the_seed_does() -> None:
    first, scaled, other = (
        hadamard_rotations(c * _axis(16), count=60, permutations=19, generator=seeded(s)) for c, s in ((1, 0), (4, 0), (1, 1))
    )
    assert first.to_dict() == scaled.to_dict()
    assert first.to_dict() != other.to_dict()
    assert "RotationReport(blocks=2" in repr(first)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="u is zero"):
        hadamard_rotations(torch.zeros(8))
    with pytest.raises(ValueError, match="power of two"):
        hadamard_rotations(torch.ones(9))
    with pytest.raises(ValueError, match="coordinate"):
        hadamard_rotations(torch.ones(8), coordinate=8)
    with pytest.raises(ValueError, match="blocks"):
        hadamard_rotations(torch.ones(8), blocks=0)
    assert "2604.23418" in cite(RotationReport)
