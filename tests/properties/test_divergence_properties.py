"""Theorems about divergences beyond the f-divergence table, one property a test, on laws that hypothesis draws."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discrepancy import (
    KL,
    Alpha,
    Bregman,
    CauchySchwarz,
    ChiSquared,
    Hoelder,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    Tsallis,
)
from discrepancy.divergences import (
    AlphaBeta,
    ElementwiseGenerator,
    FermiDirac,
    GeneralizedJensenShannon,
    ItakuraSaito,
    NegativeEntropy,
    SkewedJensenShannon,
    SquaredNorm,
)

float64 = torch.float64
seeds = st.integers(0, 2**31 - 1)
shares = st.floats(0.02, 0.98)
quick = settings(max_examples=20, deadline=None)
SMOOTH = [
    KL(),
    ReverseKL(),
    Jeffreys(),
    JensenShannon(),
    SkewedJensenShannon(0.2),
    SquaredHellinger(),
    ChiSquared(),
    NeymanChiSquared(),
    LeCam(),
    Alpha(0.3),
    Alpha(2.5),
    Alpha(-0.5),
    KL().skewed(0.3),
]


def quartic(x):
    return x**4


BREGMAN = [
    Bregman(phi) for phi in (SquaredNorm(), NegativeEntropy(), ItakuraSaito(), FermiDirac(), ElementwiseGenerator(quartic, -1, 2))
]


def laws(seed, *shape, spread=1.5):
    draw = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=draw, dtype=float64)).softmax(-1)


@pytest.mark.parametrize("D", [*SMOOTH, TotalVariation()], ids=repr)
def test_biconjugate(D):
    # f is closed and convex: f = f**, the supremum of its tangents, whose best slope is f'(t).
    t = torch.exp(torch.linspace(-4, 4, 33, dtype=float64))
    s = torch.cat([D.derivative(torch.exp(torch.linspace(-9, 9, 4001, dtype=float64))), D.derivative(t)])
    s = s[torch.isfinite(D.conjugate(s))]
    tangents = s[:, None] * t - D.conjugate(s)[:, None]
    torch.testing.assert_close(tangents.amax(0), D.generator(t), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("D", [*SMOOTH, TotalVariation()], ids=repr)
@given(seed=seeds)
@quick
def test_range(D, seed):
    # 0 <= D_f <= f(0) + f'(inf), the upper end for disjoint laws.
    p, q = laws(seed, 2, 5, spread=6.0)
    top = D.at_zero + D.slope_at_infinity
    assert 0 <= D.from_probs(p, q).item() <= top * (1 + 1e-12)
    if math.isfinite(top):
        assert D.from_probs([1.0, 0.0], [0.0, 1.0]).item() == pytest.approx(top, rel=1e-6)
        # D_f <= (f(0) + f'(inf)) TV, as f lies below the chord-like cone of its ends.
        assert D.from_probs(p, q).item() <= top * TotalVariation().from_probs(p, q).item() * (1 + 1e-12)


@given(seed=seeds, spread=st.floats(0.01, 5))
@settings(max_examples=60, deadline=None)
def test_inequalities(seed, spread):
    p, q = laws(seed, 2, 5, spread=spread)
    tv, hellinger, kl, chi = (float(D.from_probs(p, q)) for D in (TotalVariation(), SquaredHellinger(), KL(), ChiSquared()))
    renyi = {a: float(Renyi(a).from_probs(p, q)) for a in (0.1, 0.5, 0.9, 2.0)}
    slack, tiny = 1 + 1e-11, 1e-14
    for a in (0.1, 0.5, 0.9):
        assert a / 2 * (2 * tv) ** 2 <= renyi[a] * slack + tiny  # Pinsker for orders up to one (Gilardoni)
    assert 2 * hellinger <= renyi[0.5] * slack + tiny  # 2 H^2 <= D_1/2 <= KL <= D_2 <= chi^2
    assert renyi[0.5] <= kl * slack + tiny
    assert kl <= renyi[2.0] * slack + tiny
    assert renyi[2.0] <= chi * slack + tiny
    assert tv <= 1 - 0.5 * math.exp(-kl) + tiny  # the other form of Bretagnolle-Huber
    assert 4 * tv**2 <= chi * slack + tiny
    assert kl <= (math.log1p(chi) if chi < 1e300 else math.inf) * slack + tiny
    least = float((q / p).min()), float((q / p).max())
    assert kl <= 2 * tv**2 / float(q.min()) * slack + tiny  # reverse Pinsker
    assert 0 < least[0] <= 1 <= least[1]


@given(seed=seeds, w=shares, order=st.floats(0.0, 1.0))
@quick
def test_renyi_up_to_one_and_tsallis_are_jointly_convex(seed, w, order):
    p, q, r, s = laws(seed, 4, 5)
    for D in (Renyi(order), Tsallis(order), Tsallis(order + 1)):
        mixed = D.from_probs(w * p + (1 - w) * r, w * q + (1 - w) * s)
        assert float(mixed) <= float(w * D.from_probs(p, q) + (1 - w) * D.from_probs(r, s)) * (1 + 1e-11) + 1e-15


@given(seed=seeds, w=shares, order=st.floats(1.0, 20.0))
@quick
def test_renyi_of_every_order_is_quasi_convex_and_convex_in_q(seed, w, order):
    p, q, r, s = laws(seed, 4, 5)
    D = Renyi(order)
    mixed = float(D.from_probs(w * p + (1 - w) * r, w * q + (1 - w) * s))
    assert mixed <= max(float(D.from_probs(p, q)), float(D.from_probs(r, s))) * (1 + 1e-11)
    apart = float(w * D.from_probs(p, q) + (1 - w) * D.from_probs(p, s))
    assert float(D.from_probs(p, w * q + (1 - w) * s)) <= apart * (1 + 1e-11)


@given(seed=seeds, order=st.floats(0.0, 30.0))
@quick
def test_renyi_is_additive_over_independent_parts(seed, order):
    p, q, r, s = laws(seed, 4, 4)
    joint = Renyi(order).from_probs(torch.outer(p, r).flatten(), torch.outer(q, s).flatten())
    parts = Renyi(order).from_probs(p, q) + Renyi(order).from_probs(r, s)
    torch.testing.assert_close(joint, parts, rtol=1e-9, atol=1e-13)
    if order > 0:  # Tsallis is additive up to the product of the parts
        one, two = Tsallis(order).from_probs(p, q), Tsallis(order).from_probs(r, s)
        joint = Tsallis(order).from_probs(torch.outer(p, r).flatten(), torch.outer(q, s).flatten())
        torch.testing.assert_close(joint, one + two + (order - 1) * one * two, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("D", BREGMAN, ids=repr)
@given(seed=seeds, w=shares)
@quick
def test_bregman_three_points_and_convexity(D, seed, w):
    p, q, r = laws(seed, 3, 5)

    def gradient(x):
        # grad phi up to a constant, from the divergence itself: d/dx D(x, r).
        at = x.clone().requires_grad_()
        return torch.autograd.grad(D.from_values(at, r), at)[0]

    # D(p, r) = D(p, q) + D(q, r) + <grad phi(q) - grad phi(r), p - q>.
    cross = (gradient(q) * (p - q)).sum()
    torch.testing.assert_close(D.from_values(p, r), D.from_values(p, q) + D.from_values(q, r) + cross, rtol=1e-8, atol=1e-10)
    mixed = D.from_values(w * p + (1 - w) * q, r)
    assert float(mixed) <= float(w * D.from_values(p, r) + (1 - w) * D.from_values(q, r)) * (1 + 1e-11)


@pytest.mark.parametrize("D", BREGMAN, ids=repr)
@given(seed=seeds)
@quick
def test_the_mean_minimises_the_mean_bregman_divergence(D, seed):
    # In the second argument, for any phi (Banerjee et al., 2005): the reason why k-means works with every one of them.
    p = laws(seed, 7, 5)
    centre = p.mean(0)
    other = 0.9 * centre + 0.1 * p[0]
    assert float(D.from_values(p, centre).mean()) <= float(D.from_values(p, other).mean()) + 1e-12
    # And the excess is the divergence from the mean to it.
    excess = D.from_values(p, other).mean() - D.from_values(p, centre).mean()
    torch.testing.assert_close(excess, D.from_values(centre, other), rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("D", [CauchySchwarz(), Hoelder(1.4, 2), Hoelder(3, 0.7)], ids=repr)
@given(seed=seeds, scales=st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)))
@quick
def test_projective(D, seed, scales):
    p, q = laws(seed, 2, 6)
    torch.testing.assert_close(D.from_values(scales[0] * p, scales[1] * q), D.from_values(p, q), rtol=1e-9, atol=1e-13)
    assert float(D.from_values(scales[0] * p, p)) <= 1e-14


@given(seed=seeds, scale=st.floats(1e-3, 1e3), a=st.floats(-2, 2), b=st.floats(-2, 2))
@example(seed=0, scale=1.0, a=1e-300, b=0.0)
@example(seed=0, scale=1.0, a=0.0, b=-1e-200)
@example(seed=0, scale=1.0, a=1e-99, b=-1e-99)
@quick
def test_alpha_beta_is_homogeneous_and_reversible(seed, scale, a, b):
    p, q = laws(seed, 2, 5)
    D = AlphaBeta(a, b)
    want = scale ** (a + b) * D.from_values(p, q)
    torch.testing.assert_close(D.from_values(scale * p, scale * q), want, rtol=1e-9, atol=1e-13 * max(1.0, scale ** (a + b)))
    torch.testing.assert_close(AlphaBeta(b, a).from_values(q, p), D.from_values(p, q), rtol=1e-9, atol=1e-13)
    assert float(D.from_values(p, q)) >= 0


@given(seed=seeds, w=shares)
@quick
def test_jensen_shannon_obeys_the_compensation_identity(seed, w):
    # sum w_i KL(P_i || R) = JS_w + KL(M || R) for every R.
    p = laws(seed, 3, 5)
    r = laws(seed + 1, 5)
    weights = torch.tensor([w, (1 - w) / 2, (1 - w) / 2], dtype=float64)
    left = sum(c * KL().from_probs(row, r) for c, row in zip(weights, p))
    right = GeneralizedJensenShannon(tuple(weights.tolist())).from_probs(p) + KL().from_probs(weights @ p, r)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-13)


@given(seed=seeds)
@quick
def test_data_processing_for_renyi(seed):
    p, q = laws(seed, 2, 6)
    channel = laws(seed + 1, 6, 4)
    for order in (0.2, 1.0, 3.0, math.inf):
        before, after = (float(Renyi(order).from_probs(*pair)) for pair in ((p, q), (p @ channel, q @ channel)))
        assert after <= before * (1 + 1e-10) + 1e-14


def test_bregman_does_not_process_data():
    # Merging two categories can raise the squared distance: no data processing, hence no f-divergence.
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.25, 0.25, 0.5]).double()
    merge = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double()
    assert Bregman().from_probs(p @ merge, q @ merge) > Bregman().from_probs(p, q)
