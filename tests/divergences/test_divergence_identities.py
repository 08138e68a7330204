"""One property a theorem, for every f-divergence, on laws that hypothesis draws."""

import math

import pytest
import torch
from divergence_table import COMPOSED, EVERY
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import KL, Alpha, ChiSquared, Jeffreys, JensenShannon, LeCam, ReverseKL, SquaredHellinger, TotalVariation

ALL = pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
quick = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def draw(seed, *shape, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1)


@ALL
@given(seed=seeds)
@quick
def test_reversal(D, seed):
    p, q = draw(seed, 2, 6)
    torch.testing.assert_close(D.reversed().from_probs(q, p), D.from_probs(p, q), rtol=1e-10, atol=0)
    t = p / q
    torch.testing.assert_close(D.reversed().generator(t), t * D.generator(1 / t), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(D.reversed().derivative(t), D.generator(1 / t) - D.derivative(1 / t) / t, rtol=1e-9, atol=1e-12)


@given(seed=seeds)
@quick
def test_symmetric_ones_are_symmetric_bit_for_bit(seed):
    p, q = draw(seed, 2, 9)
    for D in (Jeffreys(), JensenShannon(), SquaredHellinger(), LeCam(), TotalVariation()):
        assert torch.equal(D.from_probs(p, q), D.from_probs(q, p))
        assert torch.equal(D.from_logits(p.log(), q.log()), D.from_logits(q.log(), p.log()))


@ALL
@given(seed=seeds)
@quick
def test_variational_bound_and_its_attainment(D, seed):
    # D = sup over g of E_P g - E_Q f*(g), attained at g = f'(p/q).
    p, q = draw(seed, 2, 6)
    value = D.from_probs(p, q)
    best = D.derivative(p / q)
    torch.testing.assert_close((p * best - q * D.conjugate(best)).sum(), value, rtol=1e-7, atol=1e-10)
    for shift in (-0.05, 0.03):
        other = best * (1 + shift) + shift / 10
        assert float((p * other - q * D.conjugate(other)).sum()) <= float(value) + 1e-10


@ALL
@given(seed=seeds)
@quick
def test_data_processing(D, seed):
    p, q = draw(seed, 2, 6)
    channel = draw(seed + 1, 6, 4)
    assert float(D.from_probs(p @ channel, q @ channel)) <= float(D.from_probs(p, q)) * (1 + 1e-12)
    # A channel that loses nothing loses nothing: a permutation.
    torch.testing.assert_close(D.from_probs(p.flip(-1), q.flip(-1)), D.from_probs(p, q))


@ALL
@given(seed=seeds, weight=st.floats(0.05, 0.95))
@quick
def test_joint_convexity(D, seed, weight):
    p, q, r, s = draw(seed, 4, 5)
    mixed = D.from_probs(weight * p + (1 - weight) * r, weight * q + (1 - weight) * s)
    assert float(mixed) <= float(weight * D.from_probs(p, q) + (1 - weight) * D.from_probs(r, s)) * (1 + 1e-12)


@given(seed=seeds, spread=st.floats(0.01, 4.0))
@settings(max_examples=40, deadline=None)
def test_inequalities_between_divergences(seed, spread):
    p, q = draw(seed, 2, 5, spread=spread)
    tv, hellinger, kl, chi, js, lecam, jeffreys = (
        float(D.from_probs(p, q))
        for D in (TotalVariation(), SquaredHellinger(), KL(), ChiSquared(), JensenShannon(), LeCam(), Jeffreys())
    )
    slack = 1 + 1e-12
    assert 2 * tv**2 <= kl * slack  # Pinsker
    assert tv <= math.sqrt(1 - math.exp(-kl)) * slack + 1e-12  # Bretagnolle-Huber
    assert hellinger <= tv * slack
    assert tv <= math.sqrt(hellinger * (2 - hellinger)) * slack
    assert kl <= math.log1p(chi) * slack
    assert lecam / 2 <= hellinger * slack
    assert hellinger <= lecam * slack
    assert js <= math.log(2) * tv * slack
    assert jeffreys >= 4 * js


@given(seed=seeds)
@quick
def test_jensen_shannon_is_two_skewed_divergences(seed):
    p, q = draw(seed, 2, 6)
    halves = (KL().skewed(0.5).from_probs(p, q) + KL().skewed(0.5).from_probs(q, p)) / 2
    torch.testing.assert_close(JensenShannon().from_probs(p, q), halves, rtol=1e-11, atol=0)
    m = 0.2 * p + 0.8 * q
    torch.testing.assert_close(ReverseKL().skewed(0.2).from_probs(p, q), ReverseKL().from_probs(p, m), rtol=1e-11, atol=1e-16)


@given(seed=seeds, a=st.floats(-3, 4))
@settings(max_examples=40, deadline=None)
def test_alpha_everywhere(seed, a):
    p, q = draw(seed, 2, 6)
    value = float(Alpha(a).from_probs(p, q))
    if abs(a) > 1e-3 and abs(a - 1) > 1e-3:
        direct = (float((p**a * q ** (1 - a)).sum()) - 1) / (a * (a - 1))
        assert value == pytest.approx(direct, rel=1e-8, abs=1e-10)
    assert value == pytest.approx(float(Alpha(1 - a).from_probs(q, p)), rel=1e-10)


@given(seed=seeds)
@quick
def test_the_cone_is_linear(seed):
    p, q = draw(seed, 2, 6)
    D = 2.5 * KL() + (JensenShannon() + Alpha(3.0)) * 0.5
    want = 2.5 * KL().from_probs(p, q) + 0.5 * JensenShannon().from_probs(p, q) + 0.5 * Alpha(3.0).from_probs(p, q)
    torch.testing.assert_close(D.from_probs(p, q), want, rtol=1e-13, atol=0)
