"""The von Mises-Fisher law against SciPy's densities, Bessel ratios, closed forms of moments, Kolmogorov-Smirnov tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from discrepancy.directions import VonMisesFisher
from discrepancy.directions.von_mises_fisher import mean_resultant_length, polar_draw, turn_from_first_axis


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def axis(d: int, seed: int = 5) -> torch.Tensor:
    z = torch.randn(d, generator=seeded(seed), dtype=torch.float64)
    return z / z.norm()


@pytest.mark.parametrize("d", [2, 3, 4, 10, 64])
@pytest.mark.parametrize("kappa", [1e-3, 0.5, 1.0, 10.0, 200.0])
def test_density_entropy_and_mean_are_scipys(d, kappa) -> None:
    law = VonMisesFisher(axis(d), kappa)
    points = law.sample((20,), seeded())
    peer = stats.vonmises_fisher(axis(d).numpy(), kappa)
    np.testing.assert_allclose(law.log_prob(points).numpy(), peer.logpdf(points.numpy()), atol=1e-11)
    assert float(law.entropy()) == pytest.approx(float(peer.entropy()), abs=1e-11)
    ratio = special.ive(d / 2, kappa) / special.ive(d / 2 - 1, kappa)
    torch.testing.assert_close(law.mean, ratio * axis(d), atol=1e-14, rtol=1e-12)


def test_mean_length_is_langevins_function_in_space() -> None:
    for kappa in (1e-6, 1e-2, 1.0, 30.0, 1e5, 1e12):
        truth = kappa / 3 if kappa < 1e-5 else 1 / math.tanh(kappa) - 1 / kappa
        assert float(mean_resultant_length(torch.tensor(kappa, dtype=torch.float64), 3)) == pytest.approx(truth, rel=1e-11)


def test_the_density_integrates_to_one_where_bessel_functions_underflow() -> None:
    """In 1000 dimensions I_499(1) is below 1e-300; the marginal of the first coordinate has mass one all the same."""
    d, kappa = 1000, 1.0
    law = VonMisesFisher(torch.eye(d, dtype=torch.float64)[0], kappa)
    log_area = math.log(2) + (d - 1) / 2 * math.log(math.pi) - math.lgamma((d - 1) / 2)

    def marginal(w: float) -> float:
        point = torch.zeros(d, dtype=torch.float64)
        point[0], point[1] = w, math.sqrt(1 - w * w)
        return math.exp(float(law.log_prob(point)) + log_area + (d - 3) / 2 * math.log(1 - w * w))

    assert integrate.quad(marginal, -0.3, 0.3, epsabs=1e-12)[0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("d", "kappa"), [(2, 0.3), (2, 40.0), (3, 0.01), (3, 1.0), (3, 50.0), (5, 2.0), (30, 20.0), (30, 1e4)])
def test_the_coordinate_along_loc_has_its_law(d, kappa) -> None:
    """Kolmogorov-Smirnov on the coordinate, and uniform azimuths around it."""
    draws = VonMisesFisher(axis(d), kappa).sample((4000,), seeded(3))
    torch.testing.assert_close(draws.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    falls = (draws - axis(d)).square().sum(-1).numpy() / 2
    angles = np.linspace(0, math.pi, 200_001)
    with np.errstate(divide="ignore"):
        log_density = kappa * (np.cos(angles) - 1) + ((d - 2) * np.log(np.sin(angles).clip(0)) if d > 2 else 0)
    mass = integrate.cumulative_trapezoid(np.exp(log_density - log_density.max()), angles, initial=0)
    assert stats.kstest(np.arccos(1 - falls), lambda t: np.interp(t, angles, mass / mass[-1])).pvalue > 1e-3
    across = draws - (draws @ axis(d))[:, None] * axis(d)
    assert float(across.mean(0).norm()) < 4 * float(across.norm(dim=-1).square().mean().sqrt()) / math.sqrt(4000) * 1.5


def test_moments_of_a_batch_of_laws() -> None:
    """E[loc.theta] = A and, in space, E[(loc.theta)^2] = 1 - 2 A / kappa."""
    loc = torch.stack([axis(3, 1), -axis(3, 2)])
    kappa = torch.tensor([1.0, 10.0], dtype=torch.float64)
    law = VonMisesFisher(loc, kappa)
    draws = law.sample((40_000,), seeded(1))
    assert draws.shape == (40_000, 2, 3)
    along = (draws * loc).sum(-1)
    length = 1 / kappa.tanh() - 1 / kappa
    error = along.std(0) / 200
    assert bool(((along.mean(0) - length).abs() < 4 * error).all())
    square = along.square()
    assert bool(((square.mean(0) - (1 - 2 * length / kappa)).abs() < 4 * square.std(0) / 200).all())
    assert float(1 - 2 * length[0] / kappa[0]) == pytest.approx(0.374, abs=5e-4)


@pytest.mark.parametrize("place", ["general", "first axis", "opposite"])
def test_draws_carry_the_gradient_in_loc_and_concentration(place) -> None:
    """Against finite differences with the same numbers drawn, also where a single reflection would divide by zero."""
    loc = {"general": axis(3), "first axis": torch.eye(3, dtype=torch.float64)[0], "opposite": -torch.eye(3).double()[0]}[place]
    kappa = torch.tensor(2.0, dtype=torch.float64)

    def draws(z: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
        return VonMisesFisher(z / z.norm(), kappa).rsample((4,), seeded(2))

    assert torch.autograd.gradcheck(draws, (loc.requires_grad_(), kappa.requires_grad_()), eps=1e-6, atol=1e-7)


def test_log_prob_and_entropy_are_differentiable_in_the_concentration() -> None:
    kappa = torch.tensor([0.5, 20.0], dtype=torch.float64, requires_grad=True)
    point = axis(6, 9)
    law = VonMisesFisher(axis(6), kappa)
    (slope,) = torch.autograd.grad(law.log_prob(point).sum(), kappa)
    truth = float(axis(6) @ point) - mean_resultant_length(kappa.detach(), 6)
    torch.testing.assert_close(slope, truth, atol=1e-10, rtol=1e-10)
    assert torch.autograd.gradcheck(lambda k: VonMisesFisher(axis(6), k).entropy(), kappa, atol=1e-8)


def test_one_seed_means_the_same_directions_in_either_precision_and_on_every_run() -> None:
    double = VonMisesFisher(axis(3), 5.0).sample((7,), seeded())
    assert torch.equal(double, VonMisesFisher(axis(3), 5.0).sample((7,), seeded()))
    single = VonMisesFisher(axis(3).float(), 5.0).sample((7,), seeded())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=3e-7, rtol=0)
    state = torch.get_rng_state()
    VonMisesFisher(axis(5), 5.0).sample((7,), seeded())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("d", [2, 3, 8])
def test_the_turn_is_orthogonal_and_sends_the_first_axis_to_loc(d) -> None:
    first = torch.eye(d, dtype=torch.float64)[0]
    for loc in (axis(d), -axis(d), first, -first, torch.eye(d, dtype=torch.float64)[1]):
        turned = turn_from_first_axis(torch.eye(d, dtype=torch.float64), loc)
        torch.testing.assert_close(turned @ turned.T, torch.eye(d, dtype=torch.float64), atol=1e-14, rtol=0)
        torch.testing.assert_close(turned[0], loc, atol=1e-15, rtol=0)


def test_extreme_concentrations() -> None:
    for d in (2, 3, 50):
        tight = VonMisesFisher(axis(d), 1e12).sample((50,), seeded())
        assert float((tight - axis(d)).norm(dim=-1).max()) < 1e-5 * math.sqrt(d)
        assert bool(torch.isfinite(VonMisesFisher(axis(d), 1e12).log_prob(tight)).all())
        loose = VonMisesFisher(axis(d), 1e-9).sample((4000,), seeded())
        assert float(loose.mean(0).norm()) < 0.08
        fixed = polar_draw(torch.tensor(math.inf), d, torch.Size((3,)), seeded())
        assert torch.equal(fixed, torch.eye(d, dtype=torch.float64)[:1].expand(3, d))


def test_shapes_expand_and_mode() -> None:
    law = VonMisesFisher(axis(4), torch.tensor([1.0, 2.0]))
    assert (law.batch_shape, law.event_shape) == (torch.Size([2]), torch.Size([4]))
    wide = law.expand((5, 2))
    assert wide.sample((3,), seeded()).shape == (3, 5, 2, 4)
    assert torch.equal(wide.mode[0, 0], law.mode[0])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least 2 coordinates"):
        VonMisesFisher(torch.ones(1), 1.0)
    for kappa in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="concentration must be positive and finite"):
            VonMisesFisher(axis(3), kappa)
    with pytest.raises(ValueError, match="length 1"):
        VonMisesFisher(2 * axis(3), 1.0)
    with pytest.raises(TypeError, match="loc must be a tensor"):
        VonMisesFisher([1.0, 0.0], 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for d = 3 only, got d = 4"):
        VonMisesFisher(axis(4), torch.tensor(1.0, requires_grad=True)).rsample()
    with pytest.raises(ValueError, match="support"):
        VonMisesFisher(axis(3), 1.0).log_prob(2 * axis(3))
