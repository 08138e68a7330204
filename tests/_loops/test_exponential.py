"""The polynomial 2^t against high-precision arithmetic, at the ends of its range and beyond."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from discrepancy._loops.compiled import compiled
from discrepancy._loops.exponential import exp2_double, exp2_single


@compiled
def _each(t, power, out):
    for k in range(t.size):
        out[k] = power(t[k])


def powers(t: np.ndarray, power) -> np.ndarray:
    out = np.empty_like(t)
    _each(t, power, out)
    return out


@pytest.mark.parametrize(
    ("dtype", "power", "low", "high"), [(np.float64, exp2_double, -1022, 1023), (np.float32, exp2_single, -126, 127)]
)
def test_within_one_unit_in_the_last_place(dtype, power, low, high) -> None:
    random = np.random.default_rng(0)
    t = np.concatenate([random.uniform(-1, 1, 3000), random.uniform(low, high, 3000), np.arange(-20, 20) / 2]).astype(dtype)
    with mpmath.workprec(120):
        true = [mpmath.power(2, mpmath.mpf(float(s))) for s in t]
        worst = max(
            float(abs(mpmath.mpf(float(found)) - want) / want) for found, want in zip(powers(t, power), true, strict=True)
        )
    assert worst <= np.finfo(dtype).eps


@pytest.mark.parametrize(("dtype", "power", "low"), [(np.float64, exp2_double, -1022), (np.float32, exp2_single, -126)])
def test_whole_numbers_are_exact_and_underflow_is_zero(dtype, power, low) -> None:
    whole = np.arange(low, -low + 1).astype(dtype)
    np.testing.assert_array_equal(powers(whole, power), np.exp2(whole))
    np.testing.assert_array_equal(powers(np.array([-np.inf, 10.0 * low, low - 0.6], dtype), power), 0)
