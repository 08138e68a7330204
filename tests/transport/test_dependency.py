"""The dependency measure against linear programmes, closed forms and invariances; the test of independence built on it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist

from discrepancy import MMD, EnergyDistance, OptimalTransport, SlicedWasserstein, Wasserstein, independence_test
from discrepancy.costs import SumOfEuclidean
from discrepancy.kernels import Gaussian
from discrepancy.transport import AllPairs, Halves, Shuffled, WassersteinDependency


def _pairs(n: int, correlation: float, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, z = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    return x.to(dtype), (correlation * x + math.sqrt(1 - correlation**2) * z).to(dtype)


def test_all_pairs_against_pot() -> None:
    x, y = _pairs(12, 0.7, 0)
    y = torch.cat([y, y.square()], -1)
    product = torch.stack([torch.cat([a, b]) for a, b in itertools.product(x, y)])
    joint = torch.cat([x, y], -1)
    cost = cdist(joint.numpy(), product.numpy())
    truth = ot.emd2([], [], cost)
    assert float(WassersteinDependency(product=AllPairs())(x, y)) == pytest.approx(truth, rel=1e-10)
    parts = cdist(joint[:, :1].numpy(), product[:, :1].numpy())
    cost = parts + cdist(joint[:, 1:].numpy(), product[:, 1:].numpy())
    measure = WassersteinDependency(OptimalTransport(SumOfEuclidean(1)), AllPairs())
    assert float(measure(x, y)) == pytest.approx(ot.emd2([], [], cost), rel=1e-10)


def test_weights_are_repeated_rows() -> None:
    x, y = _pairs(5, 0.5, 1)
    counts = torch.tensor([1, 2, 0, 3, 1])
    measure = WassersteinDependency(product=AllPairs())
    repeated = measure(x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0))
    assert float(measure(x, y, counts / counts.sum())) == pytest.approx(float(repeated), rel=1e-6)


def test_two_points_in_closed_form() -> None:
    # Mass 1/4 goes from each of (0, 0) and (1, 1) to (0, 1) or (1, 0), at distance 1.
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    assert float(WassersteinDependency(product=AllPairs())(x, x)) == pytest.approx(0.5)
    assert float(WassersteinDependency(product=AllPairs())(x, torch.zeros_like(x))) == 0


def test_pairings() -> None:
    joint, left, right = Shuffled(3).draw(10, torch.Generator().manual_seed(0))
    assert joint.tolist() == list(range(10))
    assert not bool((left == right).any())
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == 30
    assert torch.bincount(left).tolist() == torch.bincount(right).tolist() == [3] * 10
    joint, left, right = Halves().draw(9, torch.Generator().manual_seed(0))
    assert not set(joint.tolist()) & set(left.tolist() + right.tolist())
    assert sorted([*joint.tolist(), *left.tolist()]) == list(range(9))


def test_grows_with_correlation_and_takes_any_discrepancy() -> None:
    D = {"w1": Wasserstein(1), "energy": EnergyDistance(), "mmd": MMD(Gaussian(1.0)), "sliced": SlicedWasserstein()}
    for discrepancy in D.values():
        measure = WassersteinDependency(discrepancy)
        values = [float(measure(*_pairs(300, c, 2), generator=torch.Generator().manual_seed(0))) for c in (0.0, 0.5, 0.9)]
        assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seeds_types_batches_and_gradients(dtype: torch.dtype) -> None:
    x, y = _pairs(8, 0.8, 3, dtype)
    measure = WassersteinDependency()
    one, two = (measure(x, y, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.dtype == dtype
    batch = WassersteinDependency(product=AllPairs())(torch.stack([x, 2 * x]), torch.stack([y, 2 * y]))
    assert float(batch[1]) == pytest.approx(2 * float(batch[0]), rel=1e-5)
    if dtype == torch.float64:

        def value(at: torch.Tensor) -> torch.Tensor:
            return measure(at, y, generator=torch.Generator().manual_seed(5))

        assert torch.autograd.gradcheck(value, (x.clone().requires_grad_(),), eps=1e-7, atol=1e-5)


def test_bad_input() -> None:
    x, y = _pairs(6, 0.5, 0)
    with pytest.raises(TypeError, match="discrepancy must be"):
        WassersteinDependency("w1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="product must be"):
        WassersteinDependency(product="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="copies must be below"):
        WassersteinDependency(product=Shuffled(6))(x, y)
    with pytest.raises(ValueError, match="at least 2 paired rows"):
        WassersteinDependency()(x[:1], y[:1])
    with pytest.raises(ValueError, match="paired row by row"):
        WassersteinDependency()(x, y[:5])
    with pytest.raises(ValueError, match="AllPairs"):
        WassersteinDependency()(x, y, torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))
    with pytest.warns(UserWarning, match="standardise"):
        WassersteinDependency()(x, 1000 * y)


def test_independence_test_is_exact_on_few_rows() -> None:
    x, y = _pairs(4, 0.9, 6)
    measure = WassersteinDependency(product=AllPairs())
    values = [float(measure(x, y[list(order)])) for order in itertools.permutations(range(4))]
    found = independence_test(x, y, measure)
    assert found.p_value == pytest.approx(np.mean([v >= values[0] - 1e-9 for v in values]))
    assert found.p_low == found.p_high == found.p_value


def test_independence_test_finds_what_correlation_does_not() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(120, 1, generator=generator, dtype=torch.float64)
    y = x.square() + 0.1 * torch.randn(120, 1, generator=generator, dtype=torch.float64)
    # Halves see half of the rows and have less power.
    for measure, level in ((WassersteinDependency(), 0.01), (WassersteinDependency(product=Halves()), 0.05)):
        found = independence_test(x, y, measure, permutations=199, generator=torch.Generator().manual_seed(0))
        assert found.p_value <= level
        again = independence_test(x, y, measure, permutations=199, generator=torch.Generator().manual_seed(0))
        assert found.p_value == again.p_value
    # Given a third variable that makes them so, they are independent: both are one bit, plus noise of their own.
    bit = torch.arange(120)[:, None] % 2 * 3.0
    left, right = (bit + torch.randn(120, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    assert independence_test(left, right, WassersteinDependency(), permutations=99, generator=generator).p_value <= 0.02
    strata = (torch.arange(120) % 2).numpy()
    within = independence_test(left, right, WassersteinDependency(), permutations=99, generator=generator, strata=strata)
    assert within.p_value > 0.02


def test_independence_test_bad_input() -> None:
    x, y = _pairs(6, 0.5, 0)
    with pytest.raises(TypeError, match="Dependence"):
        independence_test(x, y, EnergyDistance())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="single samples"):
        independence_test(x[None], y[None], WassersteinDependency())
    with pytest.raises(ValueError, match="permutations"):
        independence_test(x, y, WassersteinDependency(), permutations=0)
    with pytest.raises(ValueError, match="strata must have shape"):
        independence_test(x, y, WassersteinDependency(), strata=[0, 1])


@pytest.mark.calibration
def test_independence_test_holds_its_level() -> None:
    rejected = 0
    for seed in range(400):
        x, y = _pairs(30, 0.0, 1000 + seed)
        found = independence_test(x, y, WassersteinDependency(), permutations=99, generator=torch.Generator().manual_seed(seed))
        rejected += found.p_value <= 0.05
    assert rejected <= 400 * 0.05 + 3.3 * math.sqrt(400 * 0.05 * 0.95)
