"""Renyi, Tsallis, alpha-beta, Cauchy-Schwarz, Hoelder, Bregman: textbook formulas, limits, edges, what is refused."""

import math
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy.special import rel_entr

from discrepancy import (
    KL,
    Alpha,
    Bregman,
    CauchySchwarz,
    ChiSquared,
    Hoelder,
    HoelderPseudo,
    JensenShannon,
    NumericalError,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    Tsallis,
)
from discrepancy.divergences import (
    AlphaBeta,
    BregmanGenerator,
    ElementwiseGenerator,
    FermiDirac,
    InfiniteDivergenceWarning,
    ItakuraSaito,
    NegativeEntropy,
    SkewedJensenShannon,
    SquaredNorm,
)

mp.dps = 50
float64 = torch.float64
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def d(*values):
    return torch.tensor(values, dtype=float64)


def laws(seed, *shape, spread=1.5):
    draw = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(2, *(shape or (6,)), generator=draw, dtype=float64)).softmax(-1)


# -- Renyi and Tsallis ---------------------------------------------------------------------------------------------------


@given(seed=seeds, order=st.floats(0.01, 30).filter(lambda a: abs(a - 1) > 1e-3))
@quick
def test_renyi_and_tsallis_are_their_formulas(seed, order):
    p, q = laws(seed)
    a, integral = mpf(order), mpf(0)
    for x, y in zip(p.tolist(), q.tolist()):
        integral += mpf(x) ** a * mpf(y) ** (1 - a)
    want = float(mp.log(integral) / (a - 1))
    assert Renyi(order).from_probs(p, q).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert Renyi(order).from_logits(p.log(), q.log()).item() == pytest.approx(want, rel=1e-10, abs=1e-14)
    want = float((integral - 1) / (a - 1))
    assert Tsallis(order).from_probs(p, q).item() == pytest.approx(want, rel=1e-10, abs=1e-15)


def test_limits_of_the_order_are_exact():
    p, q = d(0.5, 0.5, 0.0, 0.0), d(0.2, 0.3, 0.1, 0.4)
    assert Renyi(0).from_probs(p, q).item() == pytest.approx(-math.log(0.5), rel=1e-15)
    assert Tsallis(0).from_probs(p, q).item() == pytest.approx(0.5, rel=1e-15)
    assert Renyi(math.inf).from_probs(p, q).item() == pytest.approx(math.log(2.5), rel=1e-15)
    assert Renyi(1).from_probs(p, q) == KL().from_probs(p, q) == Tsallis(1).from_probs(p, q)
    for step in (1e-4, 1e-8, 1e-12):
        for sign in (-1, 1):
            assert Renyi(1 + sign * step).from_probs(p, q).item() == pytest.approx(
                KL().from_probs(p, q).item(), rel=2 * step + 1e-15
            )
            assert Tsallis(1 + sign * step).from_probs(p, q).item() == pytest.approx(
                KL().from_probs(p, q).item(), rel=2 * step + 1e-15
            )
        assert Renyi(step).from_probs(p, q).item() == pytest.approx(-math.log(0.5), rel=2 * step + 1e-15)
        assert Tsallis(step).from_probs(p, q).item() == pytest.approx(0.5, rel=2 * step + 1e-15)
    assert Renyi(1e9).from_probs(p, q).item() == pytest.approx(math.log(2.5), rel=1e-8)
    # The names that special orders have.
    r, s = laws(0)
    assert Renyi(0.5).from_probs(r, s).item() == pytest.approx(-2 * math.log(1 - SquaredHellinger().from_probs(r, s).item()))
    assert Renyi(2).from_probs(r, s).item() == pytest.approx(math.log1p(ChiSquared().from_probs(r, s).item()))
    assert Tsallis(2).from_probs(r, s).item() == pytest.approx(ChiSquared().from_probs(r, s).item())
    assert Tsallis(0.5).from_probs(r, s).item() == pytest.approx(2 * SquaredHellinger().from_probs(r, s).item())


@given(seed=seeds, spread=st.floats(0.001, 30))
@quick
def test_renyi_grows_with_its_order(seed, spread):
    p, q = laws(seed, spread=spread)
    orders = [0, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-9, 1, 1 + 1e-9, 1.2, 2, 5, 60, math.inf]
    values = [Renyi(a).from_probs(p, q).item() for a in orders]
    assert all(b >= a * (1 - 1e-9) - 1e-14 for a, b in pairwise(values))
    # Skew symmetry, (1 - a) D_a(P || Q) = a D_{1-a}(Q || P).
    a = 0.3
    assert (1 - a) * Renyi(a).from_probs(p, q).item() == pytest.approx(a * Renyi(1 - a).from_probs(q, p).item(), rel=1e-9)


def test_next_to_equality_every_digit_is_kept():
    p = laws(1, 40)[0]
    step = 1e-9 * torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0).double()
    q = p * (1 + step)
    q = q / q.sum()
    second = float(((p - q) ** 2 / q).sum()) / 2
    for a in (1e-6, 0.3, 1 - 1e-9, 1.7, 12.0):
        assert Renyi(a).from_probs(p, q).item() == pytest.approx(a * second, rel=1e-5)
        assert Tsallis(a).from_probs(p, q).item() == pytest.approx(a * second, rel=1e-5)
    for D in (Renyi(0.4), Renyi(3), Tsallis(0.4), CauchySchwarz(), Hoelder(3, 2)):
        close = D.from_logits(p.log(), p.log() + 1e-7 * torch.randn(40, generator=torch.Generator().manual_seed(0)).double())
        assert 0 < close.item() < 1e-12


def test_far_apart_the_logarithm_is_kept():
    # Two point masses, seen through logits: the affinity e^-5000 is no float.
    u, v = d(1e4, 0.0), d(0.0, 1e4)
    assert Renyi(0.5).from_logits(u, v).item() == pytest.approx(1e4 - 2 * math.log(2), rel=1e-12)
    assert Renyi(2).from_logits(u, v).item() == pytest.approx(1e4, rel=1e-12)
    assert Renyi(math.inf).from_logits(u, v).item() == pytest.approx(1e4, rel=1e-12)
    assert Tsallis(0.5).from_logits(u, v).item() == 2.0
    u = torch.randn(2, 150_000, generator=torch.Generator().manual_seed(0)) * 4
    wide = Renyi(0.7).from_logits(u[0], u[1])
    exact = Renyi(0.7).from_logits(u[0].double(), u[1].double())
    assert wide.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("D", [Renyi(0.5), Renyi(0.95), Renyi(1.5), Renyi(2).reversed(), Tsallis(0.5), Tsallis(1.5)], ids=repr)
@pytest.mark.parametrize("linear", [0.0, -0.8])
def test_delta_method_errors_cover(D, linear):
    P = torch.distributions.Normal(d(0.0), d(1.0))
    Q = torch.distributions.Normal(d(0.2), d(1.1))
    truth = D.between(P, Q).value.item()
    z = 0.2 + 1.1 * torch.randn(400, 3000, generator=torch.Generator().manual_seed(3), dtype=float64)
    got = D.from_log_ratio(P.log_prob(z) - Q.log_prob(z), linear=linear)
    covered = ((got.low <= truth) & (truth <= got.high)).double().mean().item()
    assert 0.91 <= covered <= 0.985
    assert got.value.std().item() == pytest.approx(got.standard_error.square().mean().sqrt().item(), rel=0.15)


def test_log_ratios_weights_control_variates_and_refusals():
    u, w = d(0.2, -0.5, 0.1, 0.9), d(0.1, 0.2, 0.3, 0.4)
    t = u.exp()
    assert Renyi(3).from_log_ratio(u, w).value.item() == pytest.approx(math.log(float((w * t**3).sum())) / 2)
    got = Renyi(3).from_log_ratio(u, w, linear=-3.0)
    assert got.value.item() == pytest.approx(math.log(float((w * (t**3 - 3 * (t - 1))).sum())) / 2)
    assert "linear = -3" in got.method
    assert "delta method" in got.method
    # Next to order one the control variate takes the noise off.
    sample = 0.1 * torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=float64) - 0.005
    plain, controlled = Renyi(1.01).from_log_ratio(sample), Renyi(1.01).from_log_ratio(sample, linear=-1.01)
    assert controlled.standard_error < plain.standard_error / 50
    # Ratios of sequences.
    assert Renyi(2).from_log_ratio(d(300.0, 0.0)).value.item() == pytest.approx(600 - math.log(2))
    assert Renyi(math.inf).from_log_ratio(d(0.1, 0.7, -3.0)).value.item() == 0.7
    assert Renyi(math.inf).from_log_ratio(d(0.1, 0.7), d(1.0, 0.0)).value.item() == 0.1
    assert "lower bound" in Renyi(math.inf).from_log_ratio(d(0.1, 0.7)).note
    assert Renyi(0).from_log_ratio(d(-math.inf, 0.5)).value.item() == pytest.approx(math.log(2))
    assert Renyi(0.5).from_log_ratio(d(-math.inf, -math.inf)).value.item() == math.inf
    assert Renyi(2).from_log_ratio(d(0.3)).standard_error is None
    assert Renyi(1).from_log_ratio(u, w).value == KL().from_log_ratio(u, w).value
    torch.testing.assert_close(Renyi(3).inner(t), t**3)
    torch.testing.assert_close(Renyi(3).outer(t), t.log() / 2)
    with pytest.raises(NumericalError, match=r"use linear=0\.0"):
        Renyi(0.5).from_log_ratio(d(5.0, 4.0), linear=-1.0)
    with pytest.raises(ValueError, match="1 NaN of 2"):
        Renyi(2).from_log_ratio(d(0.0, math.nan))
    with pytest.raises(TypeError, match="supremum"):
        Renyi(math.inf).inner(d(1.0))


@pytest.mark.parametrize("order", [-0.5, math.nan, "2", True, None])
def test_orders_that_are_none(order):
    for family in (Renyi, Tsallis):
        with pytest.raises(ValueError, match=f"the order of {family.__name__} must be"):
            family(order)
    with pytest.raises(ValueError, match="finite number"):
        Tsallis(math.inf)


# -- alpha-beta ----------------------------------------------------------------------------------------------------------

ALPHA_BETA = [(0.5, 0.7), (2.0, 1.5), (-0.4, 1.3), (1.3, -0.4), (-0.3, -0.6), (2.0, -2.0), (0.7, 0.0), (0.0, 0.7), (0.0, 0.0)]


def by_cichocki(a, b, p, q):
    """Table 1 of Cichocki et al. (2011), case by case."""
    p, q = [mpf(x) for x in p], [mpf(y) for y in q]
    if a and b and a + b:
        a, b = mpf(a), mpf(b)
        s = a + b
        return -sum(x**a * y**b - a / s * x**s - b / s * y**s for x, y in zip(p, q)) / (a * b)
    if a and not b:
        a = mpf(a)
        return sum(x**a * mp.log(x**a / y**a) - x**a + y**a for x, y in zip(p, q)) / a**2
    if b and not a:
        b = mpf(b)
        return sum(y**b * mp.log(y**b / x**b) - y**b + x**b for x, y in zip(p, q)) / b**2
    if a and b:
        a = mpf(a)
        return sum(mp.log(y**a / x**a) + x**a / y**a - 1 for x, y in zip(p, q)) / a**2
    return sum((mp.log(x) - mp.log(y)) ** 2 for x, y in zip(p, q)) / 2


@pytest.mark.parametrize(("a", "b"), ALPHA_BETA)
def test_alpha_beta_is_its_table(a, b):
    p, q = d(0.3, 2.0, 0.01, 1.1, 5.0), d(0.4, 1.5, 0.02, 1.1 + 1e-9, 0.2)
    want = float(by_cichocki(a, b, p.tolist(), q.tolist()))
    assert AlphaBeta(a, b).from_values(p, q).item() == pytest.approx(want, rel=1e-12)
    near = q * (1 + 1e-7)
    want = float(by_cichocki(a, b, near.tolist(), q.tolist()))
    assert AlphaBeta(a, b).from_values(near, q).item() == pytest.approx(want, rel=1e-8)
    # Continuity through the limits.
    for da, db in ((1e-9, 0), (0, 1e-9), (-1e-9, 1e-9), (1e-9, 1e-9)):
        near_by = AlphaBeta(a + da, b + db).from_values(p, q).item()
        assert near_by == pytest.approx(AlphaBeta(a, b).from_values(p, q).item(), rel=1e-6)
    r, s = laws(2)
    assert AlphaBeta(a, b).from_logits(r.log(), s.log()).item() == pytest.approx(
        AlphaBeta(a, b).from_probs(r, s).item(), rel=1e-11
    )


def test_alpha_beta_has_old_friends():
    p, q = laws(3)
    for a in (-0.5, 0.0, 0.4, 1.0, 2.0):
        torch.testing.assert_close(AlphaBeta(a, 1 - a).from_probs(p, q), Alpha(a).from_probs(p, q), rtol=1e-12, atol=0)
    torch.testing.assert_close(AlphaBeta(1, 1).from_probs(p, q), (p - q).square().sum() / 2)
    torch.testing.assert_close(AlphaBeta(1, -1).from_probs(p, q), Bregman(ItakuraSaito()).from_probs(p, q))
    for bad in (math.inf, math.nan, "1"):
        with pytest.raises(ValueError, match="beta must be a finite number"):
            AlphaBeta(0.5, bad)


@pytest.mark.parametrize(
    "D",
    [AlphaBeta(1, 1), AlphaBeta(1, 2), AlphaBeta(2.5, 1), AlphaBeta(1, 3), CauchySchwarz(), Hoelder(1.5, 3), Bregman()],
    ids=repr,
)
def test_slopes_at_the_edge_of_the_support_are_kept(D):
    # Moving mass into a category that has none: the one-sided slope is finite and counts.
    p, q = d(0.0, 0.6, 0.4), d(0.3, 0.5, 0.2)
    for value in (lambda x: D.from_values(x, q), lambda x: D.from_values(q, x)):
        at = p.clone().requires_grad_()
        (grad,) = torch.autograd.grad(value(at), at)
        for k in range(3):
            moved = p.clone()
            moved[k] += 1e-7
            assert grad[k].item() == pytest.approx((value(moved) - value(p)).item() / 1e-7, rel=2e-3, abs=2e-5)


# -- Cauchy-Schwarz and Hoelder ------------------------------------------------------------------------------------------


def test_hoelder_values_of_the_card():
    p, q = d(0.2, 0.3, 0.5), d(0.5, 0.3, 0.2)
    assert HoelderPseudo(2).from_probs(p, q).item() == pytest.approx(0.270290, abs=1e-6)
    assert HoelderPseudo(1.1).from_probs(p, q).item() == pytest.approx(0.452056, abs=1e-6)
    assert HoelderPseudo(1.1).from_probs(p, p).item() == pytest.approx(0.181766, abs=1e-6)
    assert Hoelder(2, 1).from_probs(p, q).item() == pytest.approx(0.069934, abs=1e-6)
    assert Hoelder(1.1, 1).from_probs(p, q).item() == pytest.approx(0.022848, abs=1e-6)
    assert Hoelder(1.1, 1).from_probs(p, p).item() == 0
    assert (HoelderPseudo().alpha, Hoelder().alpha, Hoelder().gamma) == (1.1, 2.0, 1.0)
    assert not HoelderPseudo().zero_at_equality
    assert HoelderPseudo(2).zero_at_equality
    assert HoelderPseudo(2).from_probs(p, p).item() == 0


@given(seed=seeds, alpha=st.floats(1.02, 20), gamma=st.floats(0.1, 6))
@quick
def test_hoelder_is_its_formula(seed, alpha, gamma):
    p, q = laws(seed)
    b = alpha / (alpha - 1)
    proper = -torch.log(
        (p ** (gamma / alpha) * q ** (gamma / b)).sum() / ((p**gamma).sum() ** (1 / alpha) * (q**gamma).sum() ** (1 / b))
    )
    assert Hoelder(alpha, gamma).from_probs(p, q).item() == pytest.approx(proper.item(), rel=1e-8, abs=1e-13)
    # b reaches 51: in logarithms, as the powers of small probabilities underflow.
    log_p, log_q = p.log(), q.log()
    norms = torch.logsumexp(alpha * log_p, -1) / alpha + torch.logsumexp(b * log_q, -1) / b
    pseudo = norms - torch.logsumexp(log_p + log_q, -1)
    got = HoelderPseudo(alpha).from_probs(p, q).item()
    assert got == pytest.approx(pseudo.item(), rel=1e-8, abs=1e-13)
    assert got == pytest.approx(HoelderPseudo(b).from_probs(q, p).item(), rel=1e-8)  # reference duality
    assert got >= 0
    # Projective, and zero for proportional vectors.
    assert Hoelder(alpha, gamma).from_values(7 * p, 0.01 * p).item() == pytest.approx(0, abs=1e-14)
    assert Hoelder(alpha, gamma).from_values(7 * p, 0.01 * q).item() == pytest.approx(proper.item(), rel=1e-8, abs=1e-13)
    # The pseudo-divergence vanishes where p^a is proportional to q^b.
    matched = torch.softmax(alpha / b * p.log(), -1)
    assert HoelderPseudo(alpha).from_probs(p, matched).item() == pytest.approx(0, abs=1e-9)


def test_cauchy_schwarz():
    p, q = laws(4)
    want = torch.log((p * p).sum()) + torch.log((q * q).sum()) - 2 * torch.log((p * q).sum())
    torch.testing.assert_close(CauchySchwarz().from_probs(p, q), want)
    torch.testing.assert_close(CauchySchwarz().from_probs(p, q), 2 * Hoelder(2, 2).from_probs(p, q))
    assert torch.equal(CauchySchwarz().from_probs(p, q), CauchySchwarz().from_probs(q, p))
    torch.testing.assert_close(Hoelder(4, 1).from_probs(p, q), 0.75 * Renyi(0.25).from_probs(p, q))
    with pytest.warns(InfiniteDivergenceWarning):
        assert CauchySchwarz().from_probs(d(1.0, 0.0), d(0.0, 1.0)).item() == math.inf
    with pytest.raises(ValueError, match="q has a vector of zeros only"):
        CauchySchwarz().from_values(p, torch.zeros(6))
    with pytest.raises(ValueError, match=r"compares values in \[0, inf\], p has -1"):
        CauchySchwarz().from_values(-torch.ones(6), q)


@pytest.mark.parametrize("alpha", [1.0, 0.5, math.inf, math.nan])
def test_hoelder_exponents_that_are_none(alpha):
    for family in (Hoelder, HoelderPseudo):
        with pytest.raises(ValueError, match="alpha must be finite and above 1"):
            family(alpha)
    with pytest.raises(ValueError, match="gamma must be positive"):
        Hoelder(2, 0.0)


# -- Bregman -------------------------------------------------------------------------------------------------------------


def test_bregman_generators():
    p, q = d(0.3, 2.0, 0.0, 1.1), d(0.4, 1.5, 0.2, 0.7)
    assert Bregman().from_values(p, q).item() == pytest.approx(float(((p - q) ** 2).sum()))
    assert Bregman(SquaredNorm()).from_values(-p, q).item() == pytest.approx(float(((p + q) ** 2).sum()))  # any real numbers
    want = float(rel_entr(p.numpy(), q.numpy()).sum()) - float(p.sum()) + float(q.sum())
    assert Bregman(NegativeEntropy()).from_values(p, q).item() == pytest.approx(want)
    r, s = p[[0, 1, 3]], q[[0, 1, 3]]
    assert Bregman(ItakuraSaito()).from_values(r, s).item() == pytest.approx(float((r / s - torch.log(r / s) - 1).sum()))
    a, b = d(0.3, 0.0, 1.0, 0.6), d(0.4, 0.1, 0.7, 0.6)
    want = float((rel_entr(a.numpy(), b.numpy()) + rel_entr(1 - a.numpy(), 1 - b.numpy())).sum())
    assert Bregman(FermiDirac()).from_values(a, b).item() == pytest.approx(want)
    with pytest.raises(ValueError, match=r"compares values in \[0, 1\], p has 1\.5"):
        Bregman(FermiDirac()).from_values(1.5 * torch.ones(4), b)
    for phi in (NegativeEntropy(), ItakuraSaito(), FermiDirac()):
        with pytest.warns(InfiniteDivergenceWarning):
            assert Bregman(phi).from_values(b, d(0.0, 0.1, 0.7, 0.6)).item() == math.inf
    assert pickle.loads(pickle.dumps(Bregman(FermiDirac()))) == Bregman(FermiDirac())


def test_fermi_dirac_of_logits_next_to_certainty():
    # 1 - p = e^-800 is no part of p: the complement is summed from the other categories.
    u, v = d(0.0, -800.0), d(0.0, -400.0)
    got = Bregman(FermiDirac()).from_logits(u, v).item()
    assert got == pytest.approx(0.0, abs=1e-150)
    assert Bregman(FermiDirac()).from_logits(v, u).item() == pytest.approx(0.0, abs=1e-150)
    x, y = laws(5, 2)
    assert Bregman(FermiDirac()).from_probs(x, y).item() == pytest.approx(2 * KL().from_probs(x, y).item())
    u = d(1e3, 0.0, 0.0).requires_grad_()
    (grad,) = torch.autograd.grad(Bregman(FermiDirac()).from_logits(u, d(0.0, 0.0, 0.0)), u)
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize(
    ("mine", "known"),
    [
        (lambda x: x * torch.log(x), NegativeEntropy()),
        (lambda x: x * torch.log(x) - 3 * x + 2, NegativeEntropy()),  # affine parts make no difference
        (lambda x: -torch.log(x), ItakuraSaito()),
        (ElementwiseGenerator(lambda x: x * torch.log(x) + (1 - x) * torch.log(1 - x), 0, 1), FermiDirac()),
        (ElementwiseGenerator(lambda x: x * x, -math.inf), SquaredNorm()),
    ],
    ids=["entropy", "entropy plus a line", "Itakura-Saito", "Fermi-Dirac", "square"],
)
def test_a_function_of_ones_own(mine, known):
    D, K = Bregman(mine), Bregman(known)
    p, q = laws(6, 3, 5)
    torch.testing.assert_close(D.from_probs(p, q), K.from_probs(p, q), rtol=1e-9, atol=0)
    near = q * (1 + 1e-8 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=float64))
    near = near / near.sum(-1, keepdim=True)
    torch.testing.assert_close(D.from_probs(near, q), K.from_probs(near, q), rtol=1e-6, atol=0)
    leaves = p.log().requires_grad_(), q.log().requires_grad_()
    got = torch.autograd.grad(D.from_logits(*leaves).sum(), leaves)
    want = torch.autograd.grad(K.from_logits(*leaves).sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    if not isinstance(known, ItakuraSaito):
        edge = torch.tensor([0.0, 0.4, 0.6], dtype=float64), torch.tensor([0.2, 0.3, 0.5], dtype=float64)
        torch.testing.assert_close(D.from_probs(*edge), K.from_probs(*edge), rtol=1e-9, atol=0)
    with pytest.warns(InfiniteDivergenceWarning) if known != SquaredNorm() else _nothing():
        value = D.from_probs(d(0.5, 0.5, 0.0), d(1.0, 0.0, 0.0))
    assert math.isinf(value.item()) == (known != SquaredNorm())


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_a_generator_with_a_corner():
    D = Bregman(ElementwiseGenerator(lambda x: (x - 0.3).abs(), 0, 1))
    p, q = d(0.2999, 0.7001), d(0.3001, 0.6999)
    # phi(p) - phi(q) - phi'(q) (p - q) = 2 * 0.0001 across the corner, zero on one side of it.
    assert D.from_probs(p, q).item() == pytest.approx(2e-4, rel=1e-9)
    assert D.from_probs(q, q).item() == 0


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: -x * x, "must be convex"),
        (lambda x: torch.sin(x), "must be convex"),
        (lambda x: (x * x).sum(), "must be elementwise"),
        (lambda x: 1 / (x - 1), r"finite with a finite slope inside \(0, inf\), it is not at 1"),
        (lambda x: math.exp(x), "elementwise, differentiable"),
    ],
)
def test_what_is_no_bregman_generator(f, match):
    with pytest.raises(ValueError, match=match):
        Bregman(f)


def test_other_refusals_and_a_generator_of_whole_vectors():
    with pytest.raises(TypeError, match="phi must be an object such as SquaredNorm"):
        Bregman("entropy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="phi must be an object"):
        Bregman(SquaredNorm)
    with pytest.raises(ValueError, match="low < high"):
        ElementwiseGenerator(lambda x: x * x, 1.0, 0.0)
    half = Bregman(ElementwiseGenerator(lambda x: x * x, 0.0, 0.5))
    with pytest.raises(ValueError, match=r"compares values in \[0, 0\.5\], p has 0\.9"):
        half.from_probs(d(0.1, 0.9), d(0.5, 0.5))

    class Mahalanobis(BregmanGenerator):
        domain = (-math.inf, math.inf)

        def divergence(self, p, q):
            A = d(2.0, 0.5, 0.5, 1.0).reshape(2, 2)
            return torch.einsum("...i,ij,...j->...", p - q, A, p - q)

    p, q = laws(7, 2)
    x = p - q
    assert Bregman(Mahalanobis()).from_probs(p, q).item() == pytest.approx(float(2 * x[0] ** 2 + x[0] * x[1] + x[1] ** 2))


# -- skewed Jensen-Shannon -----------------------------------------------------------------------------------------------


@given(seed=seeds, w=st.floats(0.001, 0.999))
@quick
def test_skewed_jensen_shannon(seed, w):
    p, q = laws(seed)
    m = w * p + (1 - w) * q
    want = w * KL().from_probs(p, m) + (1 - w) * KL().from_probs(q, m)
    D = SkewedJensenShannon(w)
    torch.testing.assert_close(D.from_probs(p, q), want, rtol=1e-10, atol=1e-16)
    s = torch.linspace(-5, 0.98 * D.slope_at_infinity, 40, dtype=float64)
    log_t = D.inverse_derivative(s, log=True)
    t = log_t.exp()
    torch.testing.assert_close(D.derivative(log_t=log_t), s, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(D.conjugate(s), t * s - D.generator(t), rtol=1e-8, atol=1e-11)
    assert D.from_probs(d(1.0, 0.0), d(0.0, 1.0)).item() == pytest.approx(-w * math.log(w) - (1 - w) * math.log(1 - w))
    torch.testing.assert_close(SkewedJensenShannon(0.5).from_probs(p, q), JensenShannon().from_probs(p, q), rtol=1e-12, atol=0)
    small = 1e-7
    torch.testing.assert_close(SkewedJensenShannon(small).from_probs(p, q) / small, KL().from_probs(p, q), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(
        SkewedJensenShannon(1 - small).from_probs(p, q) / small, ReverseKL().from_probs(p, q), rtol=1e-4, atol=1e-9
    )


# -- transformations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "D",
    [
        Renyi(0.5),
        Renyi(2),
        Renyi(math.inf),
        Tsallis(0.5),
        CauchySchwarz(),
        HoelderPseudo(),
        AlphaBeta(0.5, 0.3),
        AlphaBeta(1, -1),
        Bregman(),
        Bregman(FermiDirac()),
        SkewedJensenShannon(0.3),
    ],
    ids=repr,
)
def test_torch_func_sees_the_same_values_and_gradients(D):
    u, v = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=float64)
    leaf = u.clone().requires_grad_()
    value = D.from_logits(leaf, v)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(torch.func.vmap(D.from_logits)(u, v), value.detach(), rtol=1e-12, atol=1e-15)
    mapped = torch.func.vmap(torch.func.grad(lambda a, b: D.from_logits(a, b)))(u, v)
    torch.testing.assert_close(mapped, grad, rtol=1e-10, atol=1e-14)
    assert torch.autograd.gradgradcheck(lambda a: D.from_logits(a, v), leaf)
