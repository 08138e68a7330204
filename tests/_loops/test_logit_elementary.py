"""The exponentials and logarithms of the loops on logits, in both precisions, against extended arithmetic."""

import numpy as np
import pytest
from mpmath import mp, mpf

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.elementary import decay, excess, expm1, growth, log1p, log1p_unit

mp.dps = 40


@compiled(fastmath={"contract"})
def _decay(x, out):
    for i in range(x.size):
        out[i] = decay(x[i])


@compiled(fastmath={"contract"})
def _growth(x, out):
    for i in range(x.size):
        out[i] = growth(x[i])


@compiled(fastmath={"contract"})
def _expm1(x, out):
    for i in range(x.size):
        out[i] = expm1(x[i])


@compiled(fastmath={"contract"})
def _excess(x, out):
    for i in range(x.size):
        out[i] = excess(x[i])


@compiled(fastmath={"contract"})
def _log1p(x, out):
    for i in range(x.size):
        out[i] = log1p(x[i])


@compiled(fastmath={"contract"})
def _log1p_unit(x, out):
    for i in range(x.size):
        out[i] = log1p_unit(x[i])


CASES = [
    ("decay", _decay, mp.exp, -60, 0),
    ("growth", _growth, mp.exp, -60, 80),
    ("expm1", _expm1, mp.expm1, -40, 5),
    ("excess", _excess, lambda y: mp.expm1(y) - y, -1, 1),
    ("log1p", _log1p, mp.log1p, -0.5, 0),
    ("log1p_unit", _log1p_unit, mp.log1p, -0.9999, 0),
]


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "loop", "exact", "low", "high"), CASES, ids=[case[0] for case in CASES])
def test_within_a_few_units_in_the_last_place(name, loop, exact, low, high, precision):
    x = np.random.default_rng(0).uniform(low, high, 600)
    x[:150] *= 1e-3
    x[150:200] *= 1e-7
    x = x.astype(precision)
    out = np.empty_like(x)
    loop(x, out)
    worst = max(abs(mpf(float(got)) / exact(mpf(float(at))) - 1) for at, got in zip(x, out, strict=True))
    assert worst < 4 * np.finfo(precision).eps


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_ends(precision):
    x = np.array([-np.inf, -1e30, -800.0, 0.0, 1e30, np.inf, np.nan], precision)
    out = np.empty_like(x)
    _growth(x, out)
    assert out[:3].tolist() == [0.0, 0.0, 0.0]
    assert out[3:6].tolist() == [1.0, np.inf, np.inf]
    assert np.isnan(out[6])
    _decay(x, out)
    assert out[:4].tolist() == [0.0, 0.0, 0.0, 1.0]
    _expm1(x, out)
    assert out[:4].tolist() == [-1.0, -1.0, -1.0, 0.0]
