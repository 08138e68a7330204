"""Orlicz-Wasserstein distances against closed forms, W_p from POT, a search over scales, and the excess-mass bound."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch

from discrepancy.testing import check_discrepancy
from discrepancy.transport.orlicz.distance import OrliczWasserstein
from discrepancy.transport.orlicz.entropic_plan import EntropicPlan
from discrepancy.transport.orlicz.excess import excess_mass, excess_mass_bound
from discrepancy.transport.orlicz.functions import CustomOrlicz, ExponentialPower, Power
from discrepancy.transport.orlicz.norm import luxemburg_norm

PSI1, PSI2 = ExponentialPower(1), ExponentialPower(2)


@pytest.mark.parametrize(("phi", "unit"), [(PSI2, 1 / math.sqrt(math.log(2))), (PSI1, 1 / math.log(2)), (Power(3), 1.0)])
def test_a_shift_has_its_closed_form(phi, unit) -> None:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(0).normal(size=(30, 3))
    shift = np.array([2.0, 0.0, 0.0])
    assert float(OrliczWasserstein(phi)(x, x + shift)) == pytest.approx(2 * unit, rel=1e-9)
    assert float(OrliczWasserstein(phi, normalize=True)(x, x + shift)) == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_powers_give_the_wasserstein_distance(p: float) -> None:
    rng = np.random.default_rng(1)
    x, y, a, b = rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 0.5, rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(30))
    expected = ot.emd2(a, b, ot.dist(x, y, "euclidean") ** p) ** (1 / p)
    assert float(OrliczWasserstein(Power(p))(x, y, a, b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("phi", [PSI1, PSI2, CustomOrlicz(lambda t: torch.cosh(t) - 1)])
def test_against_bisection_with_pot(phi) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(2)
    x, y, a, b = rng.normal(size=(20, 2)), rng.normal(size=(25, 2)) + 0.3, rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(25))
    D = ot.dist(x, y, "euclidean")
    low, high = 0.01, 100.0
    for _ in range(60):
        k = math.sqrt(low * high)
        C = phi.value(torch.as_tensor(D / k)).clamp_max(1e7).numpy()
        low, high = (low, k) if ot.emd2(a, b, C) <= 1 else (k, high)
    found = OrliczWasserstein(phi).solve(x, y, a, b)
    assert float(found.value) == pytest.approx(high, rel=1e-7)
    assert 0 <= float(found.dual_gap) <= 1e-9 * float(found.value)
    assert float(found.cost) == pytest.approx(1, rel=1e-8)
    plan = found.plan().to_dense().numpy()
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-14)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-14)


@pytest.mark.parametrize(("share", "expected"), [(0.01, (0.05, 0.5, 1.083, 2.327)), (0.001, (0.005, 0.158, 0.724, 1.902))])
def test_outliers_count_logarithmically(share: float, expected: tuple[float, ...]) -> None:
    x, y, b = np.zeros((1, 1)), np.array([[0.0], [5.0]]), [1 - share, share]
    for phi, value in zip((Power(1), Power(2), PSI1, PSI2), expected, strict=True):
        assert float(OrliczWasserstein(phi)(x, y, None, b)) == pytest.approx(value, abs=6e-4)
    assert float(OrliczWasserstein(PSI2)(x, y, None, b)) == pytest.approx(5 / math.sqrt(math.log1p(1 / share)), rel=1e-9)


def test_the_line_agrees_with_the_plane() -> None:
    rng = np.random.default_rng(3)
    x, y, a = rng.normal(size=(25, 1)), rng.standard_t(3, size=(30, 1)), rng.dirichlet(np.ones(25))
    flat = OrliczWasserstein(PSI2)(x, y, a)
    plane = OrliczWasserstein(PSI2)(np.c_[x, 0 * x], np.c_[y, 0 * y], a)
    assert float(flat) == pytest.approx(float(plane), rel=1e-9)


def test_equal_samples_are_at_distance_zero_at_every_scale() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(12, 2))
    assert float(OrliczWasserstein()(x, x[::-1].copy())) == 0
    reference = float(OrliczWasserstein()(x, y))
    for scale in (1e-12, 1e12):
        assert float(OrliczWasserstein()(scale * x, scale * y)) == pytest.approx(scale * reference, rel=1e-9)


def test_gradients() -> None:
    rng = torch.Generator().manual_seed(5)
    x, y = (torch.randn(k, 2, dtype=torch.float64, generator=rng).requires_grad_() for k in (5, 6))
    logits = torch.randn(5, dtype=torch.float64, generator=rng).requires_grad_()

    def distance(x, y, logits):  # type: ignore[no-untyped-def]
        return OrliczWasserstein(PSI1)(x, y, logits.softmax(-1))

    assert torch.autograd.gradcheck(distance, (x, y, logits), atol=1e-6)


def test_luxemburg_norm_of_a_sample() -> None:
    values = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    norms = luxemburg_norm(values, None, Power(2))
    assert norms.tolist() == pytest.approx([math.sqrt(5 / 3), 0.0])
    sample = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64).requires_grad_()
    logits = torch.tensor([0.2, 0.3, -0.1], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: luxemburg_norm(v, w.softmax(-1), PSI2), (sample, logits))
    k = float(luxemburg_norm(sample.detach(), None, PSI2))
    assert float(torch.expm1((sample.detach() / k) ** 2).mean()) == pytest.approx(1, rel=1e-12)


def test_excess_mass_stays_below_its_bound() -> None:
    rng = np.random.default_rng(6)
    center = rng.normal(size=(20, 2))
    cloud = np.r_[center[rng.integers(0, 20, 95)] + 0.05 * rng.normal(size=(95, 2)), rng.normal(size=(5, 2)) * 0.1 + 6]
    for phi in (Power(2), PSI1, PSI2):
        w = float(OrliczWasserstein(phi)(cloud, center))
        for t in (0.5, 2.0, 4.0):
            assert float(excess_mass(cloud, center, t)) <= excess_mass_bound(w, t, phi)
    assert float(excess_mass(cloud, center, 2.0)) == pytest.approx(0.05)
    assert excess_mass_bound(1.0, 2.0, Power(2)) == pytest.approx(0.25)


def test_what_is_no_orlicz_function_is_refused() -> None:
    for function, message in (
        (lambda t: torch.sqrt(t), "convex"),
        (lambda t: t + 1, "0 at 0"),
        (lambda t: -t, "decrease"),
        (lambda t: 0 * t, "never exceeds 1"),
    ):
        with pytest.raises(ValueError, match=message):
            CustomOrlicz(function)
    with pytest.raises(ValueError, match="at least 1"):
        Power(0.5)
    with pytest.raises(TypeError, match="phi"):
        OrliczWasserstein("psi2")  # type: ignore[arg-type]


def test_conformity_of_the_distance() -> None:
    check_discrepancy(OrliczWasserstein())


def test_entropic_plans_bound_from_above_and_tighten() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 1
    exact = float(OrliczWasserstein()(x, y))
    values = [float(OrliczWasserstein(solver=EntropicPlan(f))(x, y)) for f in (0.5, 0.1, 0.02)]
    assert exact <= values[2] * (1 + 1e-12)
    assert values[2] <= values[1] <= values[0] <= 1.2 * exact
    found = OrliczWasserstein(solver=EntropicPlan(0.1)).solve(x, y)
    assert float(found.value) - float(found.dual_gap) <= exact
