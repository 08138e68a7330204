"""Adjusted p-values against hand-made values, brute-force definitions and the error rates that they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from discrepancy.inference import benjamini_hochberg, holm, max_t

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_benjamini_hochberg_by_hand() -> None:
    # the 15 p-values of the 1995 paper (table 1): four rejections at 0.05, where Bonferroni and Holm make three
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    adjusted = benjamini_hochberg(p)
    assert (adjusted <= 0.05).sum() == 4
    assert (holm(p) <= 0.05).sum() == 3
    assert adjusted[:4] == pytest.approx([0.0015, 0.003, 0.0095, 0.035625])
    assert adjusted[6] == pytest.approx(0.0298 * 15 / 7)


@given(P)
def test_holm_is_the_closed_bonferroni_test(p: list[float]) -> None:
    p = p[:7]
    k = len(p)
    adjusted = holm(p)
    for i in range(k):
        # closed testing: the largest Bonferroni p-value over all subsets that contain i
        others = [j for j in range(k) if j != i]
        sets = (s for size in range(k) for s in itertools.combinations(others, size))
        closed = max(min(1.0, (len(s) + 1) * min([p[i], *(p[j] for j in s)])) for s in sets)
        assert adjusted[i] == pytest.approx(closed)


@given(P, st.floats(0.001, 0.999))
def test_benjamini_hochberg_is_the_step_up_rule(p: list[float], level: float) -> None:
    ranked = np.sort(p)
    k = len(p)
    steps = [ranked[i] * k / (i + 1) for i in range(k)]
    assume(all(abs(step - level) > 1e-12 for step in steps))  # a tie at the level is decided by rounding
    passing = [i for i in range(k) if steps[i] <= level]
    threshold = ranked[passing[-1]] if passing else -1.0
    assert ((benjamini_hochberg(p) <= level) == (np.asarray(p) <= threshold)).all()


@given(P)
def test_order_and_bounds(p: list[float]) -> None:
    values = np.asarray(p)
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p)
        assert (adjusted >= values - 1e-15).all()
        assert (adjusted <= 1).all()
        assert np.allclose(adjust(values[::-1])[::-1], adjusted)
    assert (benjamini_hochberg(p) <= holm(p) + 1e-15).all()


def test_empty_family_and_refusals() -> None:
    assert holm([]).shape == (0,)
    assert benjamini_hochberg([]).shape == (0,)
    with pytest.raises(ValueError, match="index 1"):
        holm([0.1, float("nan")])
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg([1.5])
    with pytest.raises(ValueError, match="one-dimensional"):
        holm([[0.1]])


def test_max_t_counts_by_hand() -> None:
    null = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 40.0], [2.0, 20.0]])
    found = max_t([4.0, 20.0], null)
    mean, sd = null.mean(0), null.std(0)
    z = (np.array([4.0, 20.0]) - mean) / sd
    largest = ((null - mean) / sd).max(1)
    assert found.p_members == pytest.approx([(1 + (largest >= v).sum()) / 5 for v in z])
    assert found.driver == 0
    assert found.p_value == found.p_members[0]
    assert found.exceedances == (largest >= z[0]).sum()


def test_max_t_drops_constant_members_and_takes_a_minimum_effect() -> None:
    rng = np.random.default_rng(0)
    null = np.column_stack([rng.normal(size=99), np.full(99, 0.1)])
    assert max_t([5.0, 0.1], null).driver == 0
    assert max_t([5.0, 0.1], null).p_members[1] == 1
    assert max_t([0.1, 0.1], null[:, 1:].repeat(2, 1)).p_value == 1
    assert max_t([5.0, 0.1], null, shift=np.array([5.0, 0.0])).p_value > 0.3
    with pytest.raises(ValueError, match="agree"):
        max_t([1.0], null)
    with pytest.raises(ValueError, match="finite"):
        max_t([np.inf, 1.0], null)


def test_max_t_has_the_size_it_promises_under_dependence() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(1000):
        draws = rng.normal(size=(100, 6)) + rng.normal(size=(100, 1))
        rejected += max_t(draws[0], draws[1:]).p_value <= 0.05
    assert 33 <= rejected <= 69  # 99 % band of Bin(1000, 0.05), one draw wide for mean and sd without the observed row


def test_benjamini_hochberg_puts_no_value_below_its_own_by_rounding():
    p = np.array([0.125, 0.125, 0.125, 0.125, 0.23784908189099815])  # 5 p / 5 rounds down
    assert (benjamini_hochberg(p) >= p).all()
