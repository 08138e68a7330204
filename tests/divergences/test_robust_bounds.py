"""Distributionally robust bounds against brute force on laws, planted identities, certificates and finite differences."""

import math

import pytest
import torch
from scipy.optimize import brentq, minimize

from discrepancy import KL, Alpha, ChiSquared, CustomDivergence, JensenShannon, LeCam, ReverseKL, SquaredHellinger, TotalVariation
from discrepancy.divergences import RobustBounds, dro_bounds

DIVERGENCES = [KL(), ChiSquared(), SquaredHellinger(), JensenShannon(), TotalVariation(), LeCam(), Alpha(3.0)]
CLOSED = [*DIVERGENCES, 0.5 * ChiSquared()]
SLOW = [KL() + TotalVariation(), KL().skewed(0.3)]


def _t(*values):
    return torch.tensor(values, dtype=torch.float64)


def _radius(e, f):
    """The card's e f(1/e) + (1 - e) f(0), straight from the generator."""
    return e * float(f.generator(_t(1 / e))) + (1 - e) * f.at_zero


def _cost(f, p, q):
    return float(f.from_probs(_t(*p), _t(*q)))


def _two_point(f, p, radius):
    """The largest q with D((p, 1-p) || (q, 1-q)) <= radius, by a root of the divergence itself."""

    def excess(q):
        return _cost(f, (p, 1 - p), (q, 1 - q)) - radius

    return brentq(excess, p, 1 - 1e-15, xtol=1e-15) if excess(1 - 1e-15) > 0 else 1.0


def test_the_numbers_of_the_card():
    half = 0.5 * ChiSquared()
    for f, low, high in ((KL(), 0.02524, 0.77539), (half, 0.07933, 0.68067)):
        found = dro_bounds(_t(1, 0), _radius(0.6, f), f, weights=_t(0.3, 0.7))
        assert isinstance(found, RobustBounds)
        assert float(found.lower) == pytest.approx(low, abs=5e-6)
        assert float(found.upper) == pytest.approx(high, abs=5e-6)


@pytest.mark.parametrize("f", [*CLOSED, *(pytest.param(f, marks=pytest.mark.slow) for f in SLOW)], ids=repr)
def test_two_point_laws_meet_the_root_of_the_divergence(f):
    for p, e in ((0.3, 0.6),) if f in SLOW else ((0.3, 0.6), (0.9, 0.2), (0.02, 0.9)):
        radius = _radius(e, f)
        found = dro_bounds(_t(1, 0), radius, f, weights=_t(p, 1 - p))
        assert float(found.upper) == pytest.approx(_two_point(f, p, radius), abs=1e-10)
        assert float(found.lower) == pytest.approx(1 - _two_point(f, 1 - p, radius), abs=1e-10)


@pytest.mark.parametrize("f", CLOSED, ids=repr)
def test_worst_laws_are_feasible_and_certify_the_value(f):
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(20, 9, generator=generator, dtype=torch.float64)
    p = torch.rand(20, 9, generator=generator, dtype=torch.float64)
    p = p / p.sum(-1, keepdim=True)
    e = torch.rand(20, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    radius = torch.stack([torch.tensor(_radius(float(v), f), dtype=torch.float64) for v in e])
    found = dro_bounds(phi, radius, f, weights=p)
    assert found.gap < 1e-9
    for law, value in ((found.upper_law, found.upper), (found.lower_law, found.lower)):
        torch.testing.assert_close(law.sum(-1), torch.ones(20, dtype=torch.float64), atol=1e-9, rtol=0)
        assert bool((f.from_probs(p, law) <= radius + 1e-8).all())
        torch.testing.assert_close((law * phi).sum(-1), value, atol=1e-9, rtol=0)
    # Beyond the level the worst law is heavier than P, before it lighter.
    if f.smooth:
        heavier = found.upper_law > p * (1 + 1e-6)
        lighter = found.upper_law < p * (1 - 1e-6)
        assert not bool((heavier & (phi < found.upper_level[:, None] - 1e-6)).any())
        assert not bool((lighter & (phi > found.upper_level[:, None] + 1e-6)).any())
    # What the theorem promises: the Manski interval lies inside.
    mean = (p * phi).sum(-1)
    assert bool((found.upper >= e * mean + (1 - e) * phi.amax(-1) - 1e-12).all())
    assert bool((found.lower <= e * mean + (1 - e) * phi.amin(-1) + 1e-12).all())


@pytest.mark.parametrize("f", [KL(), ChiSquared(), JensenShannon()], ids=repr)
def test_a_general_solver_finds_nothing_better(f):
    generator = torch.Generator().manual_seed(1)
    phi = torch.randn(5, generator=generator, dtype=torch.float64)
    p = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
    radius = 0.12
    found = minimize(
        lambda q: -float(phi @ torch.from_numpy(q)),
        p.numpy(),
        bounds=[(1e-9, 1)] * 5,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1},
            {"type": "ineq", "fun": lambda q: radius - float(f.from_probs(p, torch.from_numpy(q / q.sum())))},
        ],
        options={"maxiter": 500, "ftol": 1e-13},
        method="SLSQP",
    )
    assert float(dro_bounds(phi, radius, f, weights=p).upper) == pytest.approx(-found.fun, abs=1e-6)


@pytest.mark.slow
def test_the_hockey_stick_ball_is_the_manski_interval():
    e = 0.6
    stick = CustomDivergence(lambda t: torch.clamp(t - 1 / e, min=0.0), smooth=False, zero=0.0, infinity=1.0)
    assert _radius(e, stick) == 0
    found = dro_bounds(_t(3, 0, 1), 0.0, stick, weights=_t(0.2, 0.3, 0.5))
    mean = 1.1
    assert float(found.upper) == pytest.approx(e * mean + (1 - e) * 3, abs=1e-8)
    assert float(found.lower) == pytest.approx(e * mean, abs=1e-8)


@pytest.mark.parametrize("f", [KL(), JensenShannon(), TotalVariation()], ids=repr)
def test_support_adds_a_point_without_mass(f):
    radius = _radius(0.5, f)
    found = dro_bounds(_t(0.2, 0.7), radius, f, weights=_t(0.4, 0.6), support=(0.0, 1.0))

    extra, share = torch.meshgrid(*[torch.linspace(0, 1, k, dtype=torch.float64) for k in (201, 401)], indexing="ij")
    q = torch.stack([(1 - extra) * (1 - share), (1 - extra) * share, extra], -1)[:-1, 1:-1]
    means = (q * _t(0.2, 0.7, 1.0)).sum(-1)[f.from_probs(_t(0.4, 0.6, 0.0).expand_as(q), q) <= radius]
    brute = float(means.max())
    assert brute - 1e-9 <= float(found.upper) <= brute + 6e-3
    assert float(found.upper) > float(dro_bounds(_t(0.2, 0.7), radius, f, weights=_t(0.4, 0.6)).upper)


@pytest.mark.parametrize("f", CLOSED, ids=repr)
def test_limits_and_invariances(f):
    phi, p = _t(0.3, -1.0, 2.0, 0.3), _t(0.4, 0.1, 0.2, 0.3)
    base = dro_bounds(phi, 0.1, f, weights=p)
    zero = dro_bounds(phi, 0.0, f, weights=p)
    assert float(zero.upper) == pytest.approx(float(p @ phi), abs=1e-7)
    scaled = dro_bounds(phi, 0.5, 5 * f, weights=p)
    moved = dro_bounds(7 - 3 * phi, 0.1, f, weights=p)
    merged = dro_bounds(_t(0.3, -1.0, 2.0), 0.1, f, weights=_t(0.7, 0.1, 0.2))
    empty = dro_bounds(_t(0.3, -1.0, 2.0, 0.3, 9.0), 0.1, f, weights=_t(0.4, 0.1, 0.2, 0.3, 0.0))
    for other in (scaled, merged, empty):
        assert float(other.upper) == pytest.approx(float(base.upper), abs=1e-8)
        assert float(other.lower) == pytest.approx(float(base.lower), abs=1e-8)
    assert float(moved.lower) == pytest.approx(7 - 3 * float(base.upper), abs=1e-8)
    assert float(dro_bounds(_t(2, 2), 0.3, f).upper) == 2
    if math.isfinite(f.slope_at_infinity + f.at_zero):
        assert float(dro_bounds(phi, f.slope_at_infinity + f.at_zero, f, weights=p).upper) == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize(("f", "support"), [(KL(), None), (JensenShannon(), (-3.0, 3.0))], ids=repr)
def test_gradients_against_finite_differences(f, support):
    generator = torch.Generator().manual_seed(2)
    phi = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    radius = torch.tensor(0.15, dtype=torch.float64, requires_grad=True)

    def both(phi, radius, w):
        w = w / w.sum()
        found = dro_bounds(phi, radius, f, weights=w, support=support)
        return torch.stack([found.lower, found.upper])

    assert torch.autograd.gradcheck(both, (phi, radius, w), eps=1e-5, atol=1e-5)


def test_infinite_bounds_of_unbounded_outcomes_show_as_growth():
    values = []
    for n in (100, 1000, 10_000):
        draws = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        values.append(float(dro_bounds(draws, math.log(2), KL()).upper))
    assert values[0] < values[1] < values[2]


def test_dtype_and_layout():
    wide = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = dro_bounds(wide[:, 1], 0.1, KL())
    assert found.upper.dtype == torch.float32
    torch.testing.assert_close(found.upper.double(), dro_bounds(wide[:, 1].double(), 0.1, KL()).upper, rtol=1e-6, atol=1e-6)
    assert dro_bounds(wide.T, _t(0.1, 0.2, 0.3)[:, None], KL()).upper.shape == (3, 2)


def test_bad_input():
    phi = _t(0.0, 1.0)
    with pytest.raises(TypeError, match=r"f\(0\) < inf.*radius is infinite.*ReverseKL"):
        dro_bounds(phi, 0.1, ReverseKL())
    with pytest.raises(TypeError, match="KL itself"):
        dro_bounds(phi, 0.1, KL)
    with pytest.raises(ValueError, match="radius must be finite"):
        dro_bounds(phi, -0.1, KL())
    with pytest.raises(ValueError, match="radius must be finite"):
        dro_bounds(phi, math.inf, KL())
    with pytest.raises(ValueError, match="non-finite"):
        dro_bounds(_t(0.0, math.nan), 0.1, KL())
    with pytest.raises(ValueError, match=r"1 value\(s\) lie outside"):
        dro_bounds(phi, 0.1, KL(), support=(0.5, 2.0))
    with pytest.raises(ValueError, match="low < high"):
        dro_bounds(phi, 0.1, KL(), support=(2.0, 0.5))
    with pytest.raises(ValueError, match="at least one value"):
        dro_bounds(torch.zeros(0), 0.1, KL())
