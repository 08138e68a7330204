"""The sliced distance under a von Mises-Fisher law against closed forms of translates, planted axes, and its two limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from discrepancy.directions import Uniform, VonMisesFisher
from discrepancy.testing import check_discrepancy
from discrepancy.transport import SlicedWasserstein, VonMisesFisherSliced, Wasserstein


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("kappa", [1.0, 10.0, 100.0])
def test_a_translate_in_space_has_a_closed_form(kappa) -> None:
    """W_2^2 along theta is (t.theta)^2, largest on average around t, where its mean is |t|^2 (1 - 2 A / kappa)."""
    x, t = cloud(40, 3), torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    found = VonMisesFisherSliced(kappa, 4000).solve(x, x + t, generator=seeded())
    length = 1 / math.tanh(kappa) - 1 / kappa
    truth = 3 * math.sqrt(1 - 2 * length / kappa)
    assert abs(float(found) - truth) < 4 * float(found.standard_error)
    assert abs(float(found.location @ t) / 3) > (0.9 if kappa == 1 else 0.99)
    assert float(found.low) < truth < float(found.high)


def test_it_finds_the_planted_axis_where_no_mean_differs() -> None:
    planted = torch.tensor([2.0, -1.0, 2.0, 4.0], dtype=torch.float64) / 5
    x, y = cloud(500, 4), cloud(500, 4, 1)
    y = y - y.mean(0) + x.mean(0) + 1.5 * (y @ planted)[:, None] * planted
    found = VonMisesFisherSliced(20.0, 200).solve(x, y, generator=seeded())
    assert abs(float(found.location @ planted)) > 0.97


def test_it_lies_between_sliced_and_max_sliced() -> None:
    x, y = cloud(60, 3), cloud(60, 3, 1) * torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    values = [float(VonMisesFisherSliced(k, 2000)(x, y, generator=seeded())) for k in (1e-3, 1.0, 10.0, 1e4)]
    sliced = float(SlicedWasserstein(2, Uniform(4000))(x, y, generator=seeded()))
    assert values[0] == pytest.approx(sliced, rel=0.05)
    assert sliced < values[1] < values[2] < values[3]
    around = VonMisesFisherSliced(1e4, 2000).solve(x, y, generator=seeded())
    line = Wasserstein(2)(x @ around.location, y @ around.location)
    assert values[3] == pytest.approx(float(line), rel=1e-2)


def test_a_fixed_location_is_the_mean_over_its_draws() -> None:
    x, y = cloud(9, 3), cloud(7, 3, 1) + 1
    place = (0.6, 0.0, 0.8)
    D = VonMisesFisherSliced(5.0, 50_000, location=place)
    theta = VonMisesFisher(torch.tensor(place, dtype=torch.float64), 5.0).sample((2000,), seeded(4))
    costs = torch.stack([Wasserstein(2)(x @ t, y @ t) ** 2 for t in theta])
    assert float(D(x, y, generator=seeded())) ** 2 == pytest.approx(
        float(costs.mean()), abs=4 * float(costs.std()) / math.sqrt(2000)
    )


def test_conformity() -> None:
    check_discrepancy(VonMisesFisherSliced(10.0, 20, 1.5, 10))


@pytest.mark.slow
def test_conformity_of_the_defaults() -> None:
    check_discrepancy(VonMisesFisherSliced())


def test_batches_with_a_location_each() -> None:
    x, y = cloud(16, 2).reshape(2, 8, 2), cloud(12, 2, 1).reshape(2, 6, 2) + 1
    D = VonMisesFisherSliced(3.0, 20)
    fixed = D.resolved(x, y)
    torch.testing.assert_close(fixed(x, y, generator=seeded()), D(x, y, generator=seeded()))
    with pytest.raises(ValueError, match="does not fit 1 pair"):
        fixed(x[0], y[0])


def test_one_dimension_is_the_line_with_a_warning() -> None:
    x, y = cloud(9, 1), cloud(6, 1, 1)
    with pytest.warns(UserWarning, match="a single direction"):
        value = VonMisesFisherSliced()(x, y, generator=seeded())
    assert float(value) == pytest.approx(float(Wasserstein(2)(x, y)), rel=1e-14)


def test_degenerate_samples() -> None:
    """One point each: the largest distance along a line is |x - y|, and equal samples give zero with zero gradients."""
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    far = VonMisesFisherSliced(1e8, 10)(x, torch.full((1, 3), 2.0, dtype=torch.float64), generator=seeded())
    assert float(far.detach()) == pytest.approx(math.sqrt(12), rel=1e-3)
    same = VonMisesFisherSliced()(x, x.detach().clone(), generator=seeded())
    same.backward()
    assert float(same.detach()) == 0.0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_options_are_checked() -> None:
    for kappa in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="0 is SlicedWasserstein"):
            VonMisesFisherSliced(kappa)
    with pytest.raises(ValueError, match="directions must be"):
        VonMisesFisherSliced(directions=0)
    with pytest.raises(ValueError, match="steps must be"):
        VonMisesFisherSliced(steps=0)
    with pytest.raises(ValueError, match="p must be finite"):
        VonMisesFisherSliced(p=math.inf)
    with pytest.raises(TypeError, match="location must be a tuple"):
        VonMisesFisherSliced(location=[1.0, 0.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="non-finite"):
        VonMisesFisherSliced()(np.array([[np.nan, 0.0]]), np.zeros((2, 2)))
