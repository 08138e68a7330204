"""A user's own f, hard cases: conic combinations, corners, infinite slopes, overflow, affine parts, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import (
    KL,
    ChiSquared,
    CustomDivergence,
    JensenShannon,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.testing import check_divergence

float64 = torch.float64
seeds = st.integers(0, 2**31 - 1)


def laws(seed, k=6, spread=1.5):
    draw = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(2, k, generator=draw, dtype=float64)).softmax(-1)


BASIS = [
    (lambda t: t * torch.log(t), KL()),
    (lambda t: -torch.log(t), ReverseKL()),
    (lambda t: -torch.sqrt(t), SquaredHellinger()),
    (lambda t: t * t, ChiSquared()),
    (lambda t: 1 / t, NeymanChiSquared()),
    (lambda t: t * torch.log(2 * t / (1 + t)) + torch.log(2 / (1 + t)), 2 * JensenShannon()),
]


@given(
    seed=seeds,
    weights=st.lists(st.floats(0.05, 20), min_size=6, max_size=6),
    used=st.lists(st.booleans(), min_size=6, max_size=6).filter(any),
    line=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
@settings(max_examples=30, deadline=None)
def test_conic_combinations_and_affine_parts(seed, weights, used, line):
    terms = [(c, f, D) for c, keep, (f, D) in zip(weights, used, BASIS) if keep]
    mine = CustomDivergence(lambda t: sum(c * f(t) for c, f, _ in terms) + line[0] * t + line[1])
    p, q = laws(seed)
    want = sum(c * D.from_probs(p, q) for c, _, D in terms)
    torch.testing.assert_close(mine.from_probs(p, q), want, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close(mine.reversed().from_probs(q, p), want, rtol=1e-7, atol=1e-11)
    total = terms[0][0] * terms[0][2]
    for c, _, D in terms[1:]:
        total = total + c * D
    for mine_limit, limit in (
        (mine.at_zero, total.at_zero),
        (mine.slope_at_zero, total.slope_at_zero),
        (mine.slope_at_infinity, total.slope_at_infinity),
    ):
        assert mine_limit == pytest.approx(limit, rel=1e-9, abs=1e-8)
    t = torch.tensor([0.01, 0.6, 1.0, 1.7, 40.0], dtype=float64)
    slope = mine.derivative(t)
    torch.testing.assert_close(slope, total.derivative(t), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mine.conjugate(slope), t * slope - total.generator(t), rtol=1e-6, atol=1e-6)


def hockey_stick(t):
    return torch.relu(t - 2)


def huber(t):
    near = (t - 1).abs() < 0.5
    return torch.where(near, (t - 1) ** 2 / 2, (t - 1).abs() / 2 - 0.125)


HARD = {
    "a corner at one": (lambda t: torch.maximum(2 * (t - 1), -0.5 * (t - 1)), False),
    "hockey stick at one": (lambda t: torch.relu(t - 1), False),
    "hockey stick at two": (hockey_stick, True),
    "several corners": (lambda t: (t - 0.5).abs() + (t - 3).abs() + (t - 1) ** 2, True),
    "one-sided square": (lambda t: torch.relu(1 - t) ** 2, False),
    "pieces": (huber, True),
    "guarded logarithm": (lambda t: torch.xlogy(t, t), True),
    "infinite slope at zero": (lambda t: -torch.sqrt(t), True),
    "infinite at zero": (lambda t: t**-5.0, True),
    "hyperbolic cosine": (lambda t: torch.cosh(torch.log(t)), True),
    "overflow to the right": (lambda t: torch.exp(t), True),
    "overflow to the left": (lambda t: torch.exp(1 / t), True),
    "soft corner": (lambda t: torch.logaddexp(t, torch.zeros_like(t)), True),
    "hyperbola": (lambda t: torch.sqrt(1 + t * t), True),
    "large scale": (lambda t: 1e12 * t * torch.log(t), True),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_generators_keep_the_contract(name):
    f, smooth = HARD[name]
    D = CustomDivergence(f, smooth=smooth, name=name)
    check_divergence(D, accuracy=1e-7)
    # By the definition, centred by hand with a subgradient at one.
    p, q = laws(3)
    t = p / q
    one = torch.ones(1, dtype=float64, requires_grad=True)
    (slope,) = torch.autograd.grad(f(one).sum(), one)
    want = (q * (f(t) - f(one).detach() - slope * (t - 1))).sum()
    assert D.from_probs(p, q).item() == pytest.approx(want.item(), rel=1e-7)
    skewed = D.skewed(0.3)
    m = 0.3 * p + 0.7 * q
    assert skewed.from_probs(p, q).item() == pytest.approx(D.from_probs(p, m).item(), rel=1e-7)


def test_known_corners():
    p, q = laws(5)
    stick = CustomDivergence(hockey_stick, smooth=False)
    assert stick.from_probs(p, q).item() == pytest.approx(torch.relu(p - 2 * q).sum().item(), rel=1e-10, abs=1e-15)
    assert stick.from_probs(p, p).item() == 0
    lopsided = CustomDivergence(lambda t: torch.maximum(3 * (t - 1), 1 - t), smooth=False)
    # 3 (t - 1) above one and 1 - t below: four times total variation, whatever the subgradient at one.
    assert lopsided.from_probs(p, q).item() == pytest.approx(4 * TotalVariation().from_probs(p, q).item(), rel=1e-10)
    with pytest.raises(TypeError, match="is not smooth"):
        lopsided.curvature(torch.ones(1))


@pytest.mark.parametrize(
    ("f", "place"),
    [
        (lambda t: torch.where(t < 3, (t - 1) ** 2, 4 * torch.log(t / 3) + 4), "3"),  # concave from 3 on
        (lambda t: torch.log(t) ** 2, "2.8"),  # concave from e on
        (lambda t: t**3 - 2 * t**2, "0.0|0.1|0.2|0.3|0.4|0.5|0.6"),  # concave up to 2/3
        (lambda t: torch.minimum(t * t, torch.full_like(t, 9.0)), "2.9|3"),
    ],
)
def test_where_convexity_fails_is_said(f, place):
    with pytest.raises(ValueError, match=rf"f must be convex: its slope falls near t = (?:{place}|[\d.]+e-0)"):
        CustomDivergence(f)


@pytest.mark.parametrize("offset", [1e3, -1e6])
def test_large_affine_parts_cost_digits_and_nothing_else(offset):
    D = CustomDivergence(lambda t: t * torch.log(t) + offset * t - 2 * offset)
    p, q = laws(6)
    assert D.from_probs(p, q).item() == pytest.approx(KL().from_probs(p, q).item(), rel=1e-7)
    assert D.from_probs(p, p).item() == 0
    assert D.slope_at_infinity == math.inf
