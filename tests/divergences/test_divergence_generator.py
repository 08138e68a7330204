"""The generator algebra, against the printed table in 60 digits."""

import math
import pickle

import pytest
import torch
from divergence_table import COMPOSED, EVERY, SMOOTH, TABLE
from mpmath import mpf
from scipy.special import wrightomega

from discrepancy import KL, Alpha, ChiSquared, JensenShannon, ReverseKL, SquaredHellinger, TotalVariation
from discrepancy.divergences.elementary import entropy_excess, exp_excess, log_ratio, wright_omega

POINTS = [1e-12, 1e-3, 0.2, 0.36, 0.37, 0.61, 0.9, 1.0, 1.3, 2.0, 2.7, 2.8, 5.0, 100.0, 1e9]
float64 = torch.float64


def close_to(dtype):
    """1 +- 2^-k, for every k that the dtype resolves."""
    bits = 52 if dtype == float64 else 23
    return torch.tensor([1 + s * 2.0**-k for k in range(1, bits + 1) for s in (1, -1)], dtype=dtype)


@pytest.mark.parametrize(("D", "f", "slope"), TABLE, ids=lambda v: repr(v) if hasattr(v, "at_zero") else "")
def test_generator_and_derivative_are_the_table(D, f, slope):
    t = torch.tensor(POINTS, dtype=float64)
    want = torch.tensor([float(f(mpf(v))) for v in POINTS], dtype=float64)
    torch.testing.assert_close(D.generator(t), want, rtol=2e-13, atol=0)
    torch.testing.assert_close(D.generator(log_t=t.log()), want, rtol=2e-13, atol=0)
    want = torch.tensor([float(slope(mpf(v))) for v in POINTS], dtype=float64)
    torch.testing.assert_close(D.derivative(t), want, rtol=2e-13, atol=0)
    torch.testing.assert_close(D.derivative(log_t=t.log()), want, rtol=2e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, float64])
@pytest.mark.parametrize(("D", "f", "slope"), TABLE, ids=lambda v: repr(v) if hasattr(v, "at_zero") else "")
def test_no_cancellation_next_to_one(D, f, slope, dtype):
    t = close_to(dtype)
    eps = torch.finfo(dtype).eps
    got = D.generator(t)
    assert got.dtype == dtype
    assert bool((got > 0).all())
    want = torch.tensor([float(f(mpf(v))) for v in t.tolist()], dtype=float64)
    torch.testing.assert_close(got.double(), want, rtol=40 * eps, atol=0)
    want = torch.tensor([float(slope(mpf(v))) for v in t.tolist()], dtype=float64)
    torch.testing.assert_close(D.derivative(t).double(), want, rtol=20 * eps, atol=0)
    assert float(D.generator(torch.ones((), dtype=dtype))) == 0


@pytest.mark.parametrize("D", [row[0] for row in SMOOTH] + COMPOSED, ids=repr)
def test_derivatives_are_derivatives(D):
    t = torch.tensor([0.05, 0.4, 0.9, 1.0, 1.2, 3.0, 20.0], dtype=float64, requires_grad=True)
    assert torch.autograd.gradcheck(D.generator, t)
    assert torch.autograd.gradcheck(D.derivative, t)
    assert torch.autograd.gradgradcheck(D.generator, t)
    (slope,) = torch.autograd.grad(D.generator(t).sum(), t)
    torch.testing.assert_close(slope, D.derivative(t).detach(), rtol=1e-10, atol=1e-14)
    (bend,) = torch.autograd.grad(D.derivative(t).sum(), t)
    torch.testing.assert_close(bend, D.curvature(t).detach(), rtol=1e-9, atol=1e-14)
    assert bool((D.curvature(t) > 0).all())


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
def test_limits_are_those_of_the_generator(D):
    zero, tiny, huge = (torch.tensor(v, dtype=float64) for v in (0.0, 1e-300, 1e300))
    assert float(D.generator(zero)) == D.at_zero
    assert float(D.derivative(zero)) == D.slope_at_zero
    assert float(D.derivative(zero + math.inf)) == D.slope_at_infinity
    assert float(D.generator(zero + math.inf)) == math.inf
    if math.isfinite(D.at_zero):
        assert float(D.generator(tiny)) == pytest.approx(D.at_zero, rel=1e-6)
    if math.isfinite(D.slope_at_zero):
        assert float(D.derivative(tiny)) == pytest.approx(D.slope_at_zero, rel=1e-6)
    if math.isfinite(D.slope_at_infinity):
        assert float(D.derivative(huge)) == pytest.approx(D.slope_at_infinity, rel=1e-6)
        assert float(D.generator(huge) / huge) == pytest.approx(D.slope_at_infinity, rel=1e-6)
    assert D.reversed().at_zero == pytest.approx(D.slope_at_infinity)
    assert D.reversed().slope_at_infinity == pytest.approx(D.at_zero)


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
def test_conjugate_is_the_supremum(D):
    s = torch.tensor([-8.0, -1.6, -1.4, -0.9, -0.4, -0.1, 0.0, 0.05, 0.2, 0.33, 0.45, 0.8, 1.5], dtype=float64)
    got = D.conjugate(s)
    t = torch.cat([torch.zeros(1, dtype=float64), torch.exp(torch.linspace(-14, 14, 120001, dtype=float64))])
    brute = (s[:, None] * t - D.generator(t)).amax(1)
    finite = torch.isfinite(got)
    assert bool(finite[:7].all())
    torch.testing.assert_close(got[finite], brute[finite], rtol=1e-6, atol=1e-7)
    assert bool((s[~finite] >= D.slope_at_infinity).all())
    assert bool(torch.isfinite(got[s < D.slope_at_infinity]).all())
    # Fenchel-Young holds with equality at t = (f*)'(s), and nowhere is exceeded.
    assert float(D.conjugate(torch.zeros((), dtype=float64))) == pytest.approx(0, abs=1e-15)
    grid = t[1:].exp().clamp(max=1e6)
    assert bool((D.generator(grid)[None] + got[finite][:, None] >= s[finite][:, None] * grid - 1e-7).all())


@pytest.mark.parametrize("D", [row[0] for row in SMOOTH] + COMPOSED, ids=repr)
def test_inverse_derivative_inverts(D):
    t = torch.tensor([1e-2, 0.1, 0.7, 1 - 1e-9, 1.0, 1 + 1e-9, 1.5, 30.0], dtype=float64)
    torch.testing.assert_close(D.inverse_derivative(D.derivative(t)), t, rtol=1e-6, atol=0)
    torch.testing.assert_close(D.inverse_derivative(D.derivative(t), log=True)[1:-1], t.log()[1:-1], rtol=1e-6, atol=1e-14)
    s = torch.tensor([-0.6, -0.1, 0.02, 0.1], dtype=float64, requires_grad=True)
    assert torch.autograd.gradcheck(D.inverse_derivative, s)
    assert torch.autograd.gradcheck(D.conjugate, s)
    (t,) = torch.autograd.grad(D.conjugate(s).sum(), s)
    torch.testing.assert_close(t, D.inverse_derivative(s).detach(), rtol=1e-9, atol=0)


def test_ratios_of_sequences():
    u = torch.tensor([-1e4, -200.0, 200.0, 1e4], dtype=float64)
    torch.testing.assert_close(KL().derivative(log_t=u), u)
    assert ReverseKL().derivative(log_t=u)[2:].tolist() == [1.0, 1.0]
    torch.testing.assert_close(ReverseKL().generator(log_t=u)[:2], -u[:2] - 1)
    assert JensenShannon().derivative(log_t=u)[0] == pytest.approx((math.log(2) - 1e4) / 2)
    for D in EVERY + COMPOSED:
        u = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=float64, requires_grad=True)
        for part in (D.generator(log_t=u), D.derivative(log_t=u)):
            assert not bool(torch.isnan(part).any())
        (grad,) = torch.autograd.grad(D.generator(log_t=u).sum(), u)
        assert not bool(torch.isnan(grad).any())


def test_alpha_is_continuous_through_zero_and_one_and_names_its_members():
    t = torch.tensor(POINTS, dtype=float64)
    for a, D in ((1, KL()), (0, ReverseKL())):
        assert torch.equal(Alpha(a).generator(t), D.generator(t))
        assert torch.equal(Alpha(a).derivative(t), D.derivative(t))
        for step in (1e-9, -1e-9):
            torch.testing.assert_close(Alpha(a + step).generator(t), D.generator(t), rtol=1e-6, atol=0)
    torch.testing.assert_close(2 * Alpha(2).generator(t), ChiSquared().generator(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(Alpha(0.5).generator(t), 4 * SquaredHellinger().generator(t), rtol=1e-12, atol=0)


def test_powers_add_up_to_the_divergence():
    t = torch.tensor(POINTS, dtype=float64)
    for D in [*EVERY, 2 * KL() + SquaredHellinger()]:
        terms = D.powers()
        if terms is not None:
            total = torch.stack([c * Alpha(a).generator(t) for a, c in terms.items()]).sum(0)
            torch.testing.assert_close(total, D.generator(t), rtol=1e-12, atol=0)
    assert JensenShannon().powers() is None
    assert (KL() + TotalVariation()).powers() is None


def test_elementary_functions():
    v = torch.tensor([-50.0, -1.001, -0.999, -0.3, -1e-8, 0.0, 1e-8, 0.4, 0.999, 1.001, 30.0], dtype=float64)
    from mpmath import mp

    want = [float(mp.expm1(mpf(s)) - mpf(s)) for s in v.tolist()]
    torch.testing.assert_close(exp_excess(v), torch.tensor(want, dtype=float64), rtol=2e-15, atol=0)
    want = [float(mp.exp(mpf(s)) * mpf(s) - mp.expm1(mpf(s))) for s in v.tolist()]
    torch.testing.assert_close(entropy_excess(v), torch.tensor(want, dtype=float64), rtol=3e-15, atol=0)
    z = torch.linspace(-300, 300, 601, dtype=float64)
    torch.testing.assert_close(wright_omega(z), torch.from_numpy(wrightomega(z.numpy())), rtol=1e-14, atol=0)
    p, q = torch.rand(2, 100, dtype=float64) + 1e-3
    assert torch.equal(log_ratio(p, q), -log_ratio(q, p))


def test_refusals_name_the_rule():
    with pytest.raises(TypeError, match="either t or log_t"):
        KL().generator()
    with pytest.raises(ValueError, match="non-negative"):
        KL().generator(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="NaN"):
        KL().derivative(log_t=torch.tensor([math.nan]))
    with pytest.raises(TypeError, match="not smooth"):
        TotalVariation().curvature(torch.ones(1))
    with pytest.raises(TypeError, match="not smooth"):
        (KL() + TotalVariation()).inverse_derivative(torch.ones(1))
    with pytest.raises(ValueError, match="a must be a finite number"):
        Alpha(math.inf)
    with pytest.raises(ValueError, match="factor must be positive"):
        -1 * KL()
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        KL().skewed(1.0)
    with pytest.raises(TypeError):
        KL() + 1


def test_objects_are_values():
    for D in EVERY + COMPOSED:
        assert pickle.loads(pickle.dumps(D)) == D
        assert hash(D) == hash(D)
        twice = D.reversed().reversed()
        assert type(twice) is type(D)
        t = torch.tensor(POINTS, dtype=float64)
        torch.testing.assert_close(twice.generator(t), D.generator(t), rtol=1e-12, atol=0)
    assert repr(2 * JensenShannon() + KL()) == "(2 * JensenShannon() + KL())"
    assert Alpha(2).reversed() == Alpha(-1)
