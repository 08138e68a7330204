"""Invariant discrepancies, the test of invariance, and what a symmetry gains."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from discrepancy import MMD, EnergyDistance, SlicedWasserstein, Wasserstein, permutation_test
from discrepancy.groups import Cyclic, CyclicShift, Drawn, Permutation, Rotation, SignFlip
from discrepancy.inference import Invariant, invariance_test, kernel_gain, symmetry_gain
from discrepancy.kernels import Gaussian
from discrepancy.testing.conformity import checks_for


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "D", [Wasserstein(1), Wasserstein(2), Wasserstein(math.inf), MMD(Gaussian(1.0), biased=True), EnergyDistance()], ids=repr
)
def test_it_is_the_discrepancy_of_the_augmented_samples(D):
    group, x, y = Cyclic(4), points(12, 2), points(12, 2, 1) + 1
    found = Invariant(D, group)
    assert float(found(x, y)) == pytest.approx(float(D(group.augmented(x), group.augmented(y))), rel=1e-9)
    weights = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = weights / weights.sum()
    full = D(group.augmented(x), group.augmented(y), torch.cat([weights] * 4) / 4)
    assert float(found(x, y, weights)) == pytest.approx(float(full), rel=1e-9)
    if not (isinstance(D, Wasserstein) and math.isinf(D.p)):
        assert float(found.solve(x, y).value) == pytest.approx(float(found(x, y)), rel=1e-9)


@pytest.mark.parametrize(
    "D",
    [
        Invariant(Wasserstein(1), CyclicShift(3)),
        Invariant(MMD(biased=True), CyclicShift(3)),
        Invariant(EnergyDistance(), SignFlip()),
    ],
    ids=["wasserstein", "mmd", "energy"],
)
def test_conformity(D):
    for _, check, case in checks_for(D):
        check(case)


def test_it_serves_the_permutation_test():
    group, generator = Cyclic(4), torch.Generator().manual_seed(0)
    x = group.random(points(40, 2) * torch.tensor([3.0, 0.3], dtype=torch.float64), generator=generator)
    y = group.random(points(40, 2, 1) * torch.tensor([1.4, 1.0], dtype=torch.float64), generator=generator)
    D = Invariant(MMD(), group)
    found = permutation_test(x, y, D, permutations=199, generator=torch.Generator().manual_seed(1))
    assert found.p_value <= 0.05
    assert found.statistic == pytest.approx(float(D.resolved(torch.cat([x, y]), torch.cat([x, y]))(x, y)), rel=0.05)


def test_large_groups_work_for_transport_and_not_for_augmentation():
    x = points(6, 10)
    assert float(Invariant(Wasserstein(1), Rotation(2, 5))(x, Rotation(2, 5).random(x))) < 1e-10
    assert float(Invariant(Wasserstein(1), Permutation(5, 2))(x, Permutation(5, 2).random(x))) < 1e-12
    with pytest.raises(TypeError, match="infinitely many"):
        Invariant(EnergyDistance(), Rotation(2))
    with pytest.raises(TypeError, match="infinitely many"):
        Invariant(MMD(), Rotation(2))
    with pytest.raises(TypeError, match="some of its elements"):
        Invariant(EnergyDistance(), Drawn.of(Rotation(2), 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(TypeError, match="must be a Discrepancy"):
        Invariant("mmd", Cyclic(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 features"):
        Invariant(EnergyDistance(), Cyclic(2))(points(3, 3), points(3, 3))


def test_symmetrised_laws_may_agree_though_the_laws_differ():
    x = points(100, 2) + 3
    y = Cyclic(2).act(1, x)
    assert float(Invariant(Wasserstein(1), Cyclic(2))(x, y)) < 1e-12
    assert float(Wasserstein(1)(x, y)) > 5


@pytest.mark.parametrize("group", [Cyclic(4), Rotation(2), SignFlip()], ids=repr)
def test_invariance_is_rejected_for_a_shifted_law_and_not_at_the_wrong_rate_for_an_invariant_one(group):
    generator = torch.Generator().manual_seed(7)
    shifted = invariance_test(points(150, 2) + 0.5, group, permutations=199, generator=generator)
    assert shifted.p_value <= 0.01
    p = [
        invariance_test(torch.randn(25, 2, generator=generator), group, permutations=99, generator=generator).p_value
        for _ in range(120)
    ]
    rejected = sum(v <= 0.1 for v in p)
    assert 1 <= rejected <= 26  # binomial(120, 0.1): both ends below 1e-4
    assert 0.4 < float(np.mean(p)) < 0.6


def test_invariance_test_takes_any_discrepancy_and_is_reproducible():
    x = points(30, 2)
    for D in (Wasserstein(1), SlicedWasserstein(), EnergyDistance()):
        one, two = (
            invariance_test(x, Cyclic(3), D, permutations=29, generator=torch.Generator().manual_seed(4)) for _ in range(2)
        )
        assert one == two
        assert one.p_low <= one.p_value <= one.p_high
    few = invariance_test(x, Cyclic(64), permutations=50, images=5, generator=torch.Generator().manual_seed(0))
    assert "4 random images" in few.method


def test_the_statistic_is_the_distance_to_the_symmetrised_sample():
    x, group, D = points(20, 2) + 1, Cyclic(4), MMD(Gaussian(1.0), biased=True)
    found = invariance_test(x, group, D, permutations=9, generator=torch.Generator().manual_seed(0))
    assert found.statistic == pytest.approx(float(D(x, group.augmented(x))), rel=1e-9)


def test_gain_of_transport_follows_the_theory_and_warns_without_symmetry():
    x = torch.rand(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = symmetry_gain(x, CyclicShift(3), sizes=(75, 150, 300), repeats=6, generator=torch.Generator().manual_seed(1))
    assert found.ratio[-1] == pytest.approx(3 ** (-1 / 3), abs=0.08)
    assert 2 < found.sample_factor[-1] < 4.5
    assert found.rate == pytest.approx(1 / 3, abs=0.1)
    assert list(found.plain) == sorted(found.plain, reverse=True)
    with pytest.warns(UserWarning, match=r"does not look invariant .*p = 0.005"):
        symmetry_gain(x[:100] + torch.tensor([0, 0, 1.0]), CyclicShift(3), repeats=2, generator=torch.Generator().manual_seed(1))


def test_gain_of_the_mmd_is_the_constant_of_the_kernel():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 2, generator=generator, dtype=torch.float64)
    for bandwidth, low, high in ((0.1, 0.45, 0.6), (3.0, 0.2, 0.5)):
        kernel = Gaussian(bandwidth)
        predicted = kernel_gain(x, Cyclic(4), kernel)
        assert low < predicted < high
        squares = []
        for D in (MMD(kernel, biased=True), Invariant(MMD(kernel, biased=True), Cyclic(4))):
            source = torch.Generator().manual_seed(3)
            draws = [torch.randn(2, 60, 2, generator=source, dtype=torch.float64) for _ in range(100)]
            squares.append(np.mean([float(D(u, v)) for u, v in draws]))
        assert predicted == pytest.approx(math.sqrt(squares[1] / squares[0]), rel=0.15)
    ratio = symmetry_gain(x, Cyclic(4), MMD(Gaussian(0.1), biased=True), sizes=(50, 100), generator=generator).ratio
    assert ratio[0] == pytest.approx(kernel_gain(x, Cyclic(4), Gaussian(0.1)), abs=0.06)


def test_bad_arguments():
    x = points(20, 2)
    with pytest.raises(TypeError, match="never negative"):
        symmetry_gain(x, Cyclic(4), MMD())
    with pytest.raises(ValueError, match="half of the 20 rows"):
        symmetry_gain(x, Cyclic(4), sizes=(5, 11))
    with pytest.raises(ValueError, match="sizes must rise"):
        symmetry_gain(x, Cyclic(4), sizes=(5,))
    with pytest.raises(ValueError, match="one sample"):
        symmetry_gain(points(4, 2).expand(3, 4, 2), Cyclic(4))
    with pytest.raises(TypeError, match="group of symmetries"):
        symmetry_gain(x, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Discrepancy"):
        symmetry_gain(x, Cyclic(4), "w1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zero"):
        symmetry_gain(torch.zeros(20, 2), Cyclic(4), sizes=(4, 8))
    with pytest.raises(TypeError, match="must be a Discrepancy"):
        invariance_test(x, Cyclic(4), MMD)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identity only"):
        invariance_test(x, Cyclic(1))
    with pytest.raises(ValueError, match="images must be"):
        invariance_test(x, Cyclic(4), images=1)
    with pytest.raises(ValueError, match="2 features"):
        invariance_test(x, CyclicShift(3))
    with pytest.raises(ValueError, match="two rows"):
        kernel_gain(x[:1], Cyclic(4))
    with pytest.raises(ValueError, match="does not vary"):
        kernel_gain(torch.ones(5, 2), Cyclic(1), Gaussian(1.0))
