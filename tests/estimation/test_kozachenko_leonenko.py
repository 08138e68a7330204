"""Entropy from neighbours: the formula by brute force, closed forms, affine maps, refusals."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma

from discrepancy import entropy
from discrepancy.estimation import KSG, KozachenkoLeonenko

PLAIN = KozachenkoLeonenko(reference=None, extrapolation=None)


@pytest.mark.parametrize("norm", ["euclidean", "maximum"])
@pytest.mark.parametrize("d", [1, 3])
def test_the_formula_by_brute_force(norm, d):
    x = np.random.default_rng(0).normal(size=(120, d))
    z = x - x.mean(0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
    z = z @ (vectors / np.sqrt(values))
    apart = z[:, None] - z[None]
    distance = np.linalg.norm(apart, axis=2) if norm == "euclidean" else np.abs(apart).max(2)
    radius = np.sort(distance, 1)[:, 4]
    unit = math.pi ** (d / 2) / math.gamma(d / 2 + 1) if norm == "euclidean" else 2**d
    want = digamma(120) - digamma(4) + math.log(unit) + d * np.log(radius).mean() + np.log(values).sum() / 2
    got = entropy(x, KozachenkoLeonenko(k=4, norm=norm, reference=None, extrapolation=None))
    # In three dimensions the axes of the unit covariance are free, which turns cubes.
    assert got.value == pytest.approx(want, abs=1e-9 if norm == "euclidean" or d == 1 else 0.1)


@pytest.mark.parametrize(
    ("law", "d", "truth"),
    [
        (lambda r, n: r.normal(size=(n, 1)), 1, stats.norm.entropy()),
        (lambda r, n: r.random((n, 2)), 2, 0.0),
        (lambda r, n: r.exponential(size=n), 1, 1.0),
        (lambda r, n: r.standard_t(3, size=n), 1, stats.t(3).entropy()),
        (lambda r, n: np.exp(r.normal(size=n)), 1, stats.lognorm(1).entropy()),
        (lambda r, n: r.laplace(size=(n, 2)), 2, 2 * (1 + math.log(2))),
    ],
    ids=["normal", "square", "exponential", "student", "log-normal", "laplace"],
)
def test_closed_forms(law, d, truth):
    r = np.random.default_rng(1)
    values = [entropy(law(r, 1000), PLAIN).value for _ in range(4)]
    assert np.mean(values) == pytest.approx(truth, abs=0.09)


def test_the_interval_holds_the_truth_and_the_value():
    got = entropy(np.random.default_rng(3).random((500, 2)))
    assert got.low < 0 < got.high
    assert got.low <= got.value <= got.high
    assert 0.005 < got.standard_error < 0.2


def test_affine_maps():
    x = np.random.default_rng(2).normal(size=(200, 2))
    A = np.array([[1e3, 5.0], [0.0, 1e-2]])
    one, other = entropy(x, PLAIN), entropy(x @ A.T - 7, PLAIN)
    assert other.value == pytest.approx(one.value + math.log(abs(np.linalg.det(A))), abs=1e-8)


def test_no_interval_where_none_is_valid():
    wide = entropy(np.random.default_rng(0).normal(size=(300, 6)))
    assert wide.low is None
    assert "in 6 dimensions" in wide.note
    assert wide.value == pytest.approx(6 * stats.norm.entropy(), abs=0.3)


def test_refusals_name_the_remedy():
    x = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(ValueError, match="no density"):
        entropy(np.hstack([x, x[:, :1] + x[:, 1:]]))
    with pytest.raises(ValueError, match="constant"):
        entropy(np.ones(50))
    with pytest.raises(ValueError, match="entropy of the shares"):
        entropy(np.random.default_rng(0).integers(0, 3, 100))
    with pytest.raises(ValueError, match="at least 7 rows, got 5"):
        entropy(x[:5])
    with pytest.raises(TypeError, match="offers entropy"):
        entropy(x, KSG())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm must be"):
        KozachenkoLeonenko(norm="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch"):
        entropy(x[None])
    assert "10 of 60 rows are copies" in entropy(np.vstack([x, x[:10]])).note
