"""Mutual information from neighbours: closed forms, the formulas by brute force, invariances, ties, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma

import discrepancy
from discrepancy import conditional_mutual_information, mutual_information
from discrepancy.estimation import (
    KSG,
    DiscreteNeighbors,
    MixedNeighbors,
    NeighborInformation,
    PlugIn,
    RankExtrapolation,
    SampleSizeWarning,
    Standardised,
)

PLAIN = KSG(extrapolation=None)


def correlated(n, rho, seed, d=1):
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, d))
    return x, rho * x + math.sqrt(1 - rho**2) * r.normal(size=(n, d))


def truth(rho, d=1):
    return -d / 2 * math.log(1 - rho**2)


def ksg_by_hand(x, y, k, variant):
    """Both variants from all distances, a row at a time."""
    n = len(x)
    dx, dy = (np.abs(s[:, None] - s[None]).max(2) for s in (x, y))
    total = 0.0
    for i in range(n):
        others = np.array([j for j in range(n) if j != i])
        near = others[np.argsort(np.maximum(dx, dy)[i, others])[:k]]
        if variant == 1:
            r = np.maximum(dx, dy)[i, near[-1]]
            total += digamma((dx[i, others] < r).sum() + 1) + digamma((dy[i, others] < r).sum() + 1)
        else:
            total += digamma((dx[i, others] <= dx[i, near].max()).sum()) + digamma((dy[i, others] <= dy[i, near].max()).sum())
    return digamma(k) - (1 / k if variant == 2 else 0) + digamma(n) - total / n


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("d", [1, 2])
def test_the_formula_by_brute_force(variant, d):
    x, y = correlated(90, 0.7, 0, d)
    got = mutual_information(x, y, KSG(k=4, variant=variant, margins=None, extrapolation=None))
    assert got.value == pytest.approx(ksg_by_hand(x, y, 4, variant), abs=1e-12)


def test_the_conditional_formula_by_brute_force():
    r = np.random.default_rng(1)
    x, y, z = (r.normal(size=(80, 1)) for _ in range(3))
    k, total = 3, 0.0
    far = [np.abs(s - s.T) for s in (x, y, z)]
    for i in range(80):
        others = np.arange(80) != i
        r_i = np.sort(np.maximum.reduce(far)[i, others])[k - 1]
        nxz, nyz, nz = ((np.maximum.reduce([far[j] for j in js])[i, others] < r_i).sum() for js in ((0, 2), (1, 2), (2,)))
        total += digamma(nxz + 1) + digamma(nyz + 1) - digamma(nz + 1)
    got = conditional_mutual_information(x, y, z, KSG(k=3, margins=None, extrapolation=None))
    assert got.value == pytest.approx(digamma(k) - total / 80, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.parametrize(
    "method", [PLAIN, KSG(variant=2, extrapolation=None), KSG(margins=Standardised(), extrapolation=None)], ids=repr
)
def test_gaussians(rho, method):
    values = [mutual_information(*correlated(800, rho, seed), method).value for seed in range(4)]
    assert np.mean(values) == pytest.approx(truth(rho), abs=0.05)


def test_the_interval_of_the_default():
    x, y = correlated(400, 0.8, 3)
    got = mutual_information(x, y)
    assert got.low < truth(0.8) < got.high
    assert got.low <= got.value <= got.high
    assert 0.02 < got.standard_error < 0.08
    assert "KSG variant 1, k = 5, coordinates NormalScores()" in got.method
    narrow = mutual_information(x, y, level=0.5)
    assert narrow.high - narrow.low < 0.5 * (got.high - got.low)
    assert mutual_information(x, y) == got


def test_a_smoothing_bias_is_found_and_extrapolated():
    # Uniform noise: the edges of the joint law cost the plain estimate five standard errors.
    r = np.random.default_rng(0)
    x = r.random(1500)
    y = x + 0.2 * (2 * r.random(1500) - 1)
    want = 0.2 - math.log(0.4)
    plain, got = mutual_information(x, y, PLAIN), mutual_information(x, y)
    assert plain.value < want - 0.03
    assert "no interval: the extrapolation is switched off" in plain.note
    assert got.low < want < got.high
    assert abs(got.value - want) < abs(plain.value - want)


def test_invariances():
    x, y = correlated(300, 0.7, 0, 1)
    one = mutual_information(x, y)
    assert mutual_information(np.exp(x), 5 * y**3 - 2) == one
    assert mutual_information(y, x).value == pytest.approx(one.value, abs=1e-12)
    order = np.random.default_rng(0).permutation(300)
    moved = mutual_information(x[order], y[order])
    assert moved.value == pytest.approx(one.value, abs=1e-12)
    assert moved.low == pytest.approx(one.low, abs=1e-12)
    assert mutual_information(x[:, 0].astype(np.float32).astype(np.float64), y).value == pytest.approx(one.value, abs=0.01)
    assert mutual_information(np.hstack([x, np.ones((300, 1))]), y).value == pytest.approx(one.value, abs=1e-12)


def test_constant_columns_carry_no_information():
    got = mutual_information(np.ones(50), np.arange(50.0))
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)
    assert "constant" in got.note


def test_conditional_information_of_gaussians():
    r = np.random.default_rng(5)
    z = r.normal(size=1500)
    x, e = r.normal(size=1500), r.normal(size=1500)
    got = conditional_mutual_information(x + z, 0.6 * x + 0.8 * e + z, z)
    # Given z they are correlated by 0.6; not given z, much more.
    assert got.low < truth(0.6) < got.high
    assert got.value == pytest.approx(truth(0.6), abs=0.09)
    assert "Frenzel-Pompe" in got.method
    alone = conditional_mutual_information(x + z, e + z, z)
    assert abs(alone.value) < 0.06


def test_one_discrete_side_takes_categories_without_order():
    r = np.random.default_rng(0)
    name = r.integers(0, 3, 900)
    y = 3.0 * name + r.random(900)
    got = mutual_information(name, y)
    assert "categories and neighbours" in got.method
    assert got.value == pytest.approx(math.log(3), abs=0.03)
    relabelled = np.array([7, -1, 2])[name]
    assert mutual_information(relabelled, y).value == pytest.approx(got.value, abs=1e-12)
    assert mutual_information(y, name).value == pytest.approx(got.value, abs=1e-12)
    # Overlapping uniforms: U[0, 1] and U[0.5, 1.5] with equal shares, I = log(2) / 2.
    flag = r.integers(0, 2, 2000)
    half = mutual_information(flag, r.random(2000) + 0.5 * flag)
    assert half.low < math.log(2) / 2 < half.high


def test_against_scikit_learn_for_one_discrete_side():
    sklearn = pytest.importorskip("sklearn.feature_selection")
    r = np.random.default_rng(2)
    name = r.integers(0, 4, 400)
    y = name + r.normal(size=400)
    # scikit-learn adds noise of 1e-10 standard deviations, and clips at zero.
    peer = sklearn.mutual_info_classif(y[:, None], name, n_neighbors=3, random_state=0)[0]
    ours = mutual_information(name, y, DiscreteNeighbors(k=3, margins=None, extrapolation=None)).value
    assert ours == pytest.approx(peer, abs=1e-9)
    peer = sklearn.mutual_info_regression(y[:, None], y + r.normal(size=400), n_neighbors=3, random_state=0)
    assert peer.shape == (1,)


def test_discrete_data_take_the_plug_in():
    r = np.random.default_rng(1)
    x = r.integers(0, 3, 3000)
    y = (x + r.integers(0, 2, 3000)) % 3
    got = mutual_information(x, y)
    assert "plug-in" in got.method
    assert got.low < math.log(3) - math.log(2) < got.high
    none = mutual_information(x, r.integers(0, 3, 3000))
    assert abs(none.value) < 0.004
    z = r.integers(0, 2, 3000)
    given = conditional_mutual_information(x, (x + z) % 3, z)
    assert given.value == pytest.approx(math.log(3), abs=0.01)
    # By hand, without the correction.
    table = np.histogram2d(x, y, bins=3)[0] / 3000
    seen, product = table > 0, np.outer(table.sum(1), table.sum(0))
    want = (table[seen] * np.log(table[seen] / product[seen])).sum()
    assert mutual_information(x, y, PlugIn(correction=False)).value == pytest.approx(want, abs=1e-12)
    with pytest.warns(SampleSizeWarning):
        few = mutual_information(r.integers(0, 40, 60), r.integers(0, 40, 60), PlugIn())
    assert few.low is None


def test_mixtures_of_atoms_and_continuous_values():
    # Half of the rows are (0, 0), the rest correlated: log 2 for which half, and the information of the continuous half.
    r = np.random.default_rng(3)
    values = []
    for _ in range(3):
        x, y = (s[:, 0] for s in correlated(800, 0.9, int(r.integers(1 << 30))))
        atom = r.random(800) < 0.5
        values.append(mutual_information(np.where(atom, 0, x), np.where(atom, 0, y), MixedNeighbors(extrapolation=None)).value)
    assert np.mean(values) == pytest.approx(math.log(2) + truth(0.9) / 2, abs=0.06)


def test_rounded_values():
    values = []
    for seed in range(4):
        x, y = correlated(600, 0.6, seed)
        values.append(mutual_information(np.round(x, 1), np.round(y, 1), NeighborInformation(extrapolation=None)).value)
    assert np.mean(values) == pytest.approx(truth(0.6), abs=0.05)
    x, y = correlated(600, 0.6, 0)
    assert "mixed neighbours" in mutual_information(np.round(x, 1), np.round(y, 1)).method


def test_mixed_is_ksg_where_nothing_repeats():
    x, y = correlated(150, 0.5, 0, 2)
    assert mutual_information(x, y, MixedNeighbors(extrapolation=None)).value == pytest.approx(
        mutual_information(x, y, PLAIN).value, abs=1e-12
    )
    z = np.random.default_rng(0).normal(size=150)
    one = conditional_mutual_information(x, y, z, MixedNeighbors(extrapolation=None))
    assert one.value == pytest.approx(conditional_mutual_information(x, y, z, PLAIN).value, abs=1e-12)


def test_more_than_the_sample_supports_warns():
    x, _ = correlated(200, 0.0, 0)
    with pytest.warns(SampleSizeWarning, match="200 samples cannot support"):
        got = mutual_information(x, x + 1e-9 * np.random.default_rng(0).normal(size=x.shape))
    assert "lower bound" in got.note


def test_no_interval_where_none_is_valid():
    wide = mutual_information(*correlated(100, 0.5, 0, 5), KSG())
    assert wide.low is None
    assert "in 10 dimensions" in wide.note
    few = mutual_information(*correlated(60, 0.5, 0))
    assert few.low is None
    assert "fewer than 100" in few.note
    assert mutual_information(*correlated(12, 0.5, 0, 20)).low is None  # more dimensions than rows


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_in_four_dimensions_holds_no_correction_and_that_for_edges(seed):
    # Two pairs (x, x + noise), x and noise uniform: edges everywhere.
    r, width = np.random.default_rng(seed), 0.75
    x = torch.tensor(r.random((2000, 2)))
    y = x + width * torch.tensor(2 * r.random((2000, 2)) - 1)
    information = 2 / (4 * width)
    found = KSG().mutual_information(x, y)
    assert found.low < information < found.high
    assert "anything from no correction" in found.note
    plain = KSG(extrapolation=None).mutual_information(x, y).value
    assert found.low < plain < information - 0.1
    edges = KSG(extrapolation=RankExtrapolation(exponent=0.25)).mutual_information(x, y).value
    assert plain < found.value < edges < found.high
    flat = KSG().mutual_information(x[:, :1], y[:, :1])
    assert "anything from no correction" not in (flat.note or "")


def test_dtypes_and_containers():
    x, y = correlated(150, 0.7, 0)
    want = mutual_information(x, y, PLAIN).value
    frame = torch.tensor(np.hstack([x, y]))
    assert mutual_information(frame[:, 0], frame[:, 1], PLAIN).value == want
    assert mutual_information(frame[:, ::2], frame[:, 1::2], PLAIN).value == want
    assert mutual_information(x.tolist(), torch.tensor(y).float(), PLAIN).value == pytest.approx(want, abs=0.02)
    assert discrepancy.mutual_information is mutual_information


def test_refusals_name_the_remedy():
    x, y = correlated(40, 0.5, 0)
    with pytest.raises(ValueError, match="paired row by row"):
        mutual_information(x, y[:30])
    with pytest.raises(ValueError, match="3 of z"):
        conditional_mutual_information(x, y, y[:3])
    with pytest.raises(TypeError, match=r"such as NeighborInformation\(k=5\)"):
        mutual_information(x, y, KSG)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="offers conditional_mutual_information"):
        conditional_mutual_information(x, y, x, DiscreteNeighbors())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k = 5 neighbours need at least 7 rows, got 4"):
        mutual_information(x[:4], y[:4], KSG())
    with pytest.raises(ValueError, match=r"coincide with 5 others: .*MixedNeighbors"):
        mutual_information(np.repeat(x, 9, 0), np.repeat(y, 9, 0), KSG())
    with pytest.raises(ValueError, match="needs one variable with few values"):
        mutual_information(x, y, DiscreteNeighbors())
    with pytest.raises(ValueError, match="k must be"):
        KSG(k=0)
    with pytest.raises(ValueError, match="variant must be 1 or 2"):
        KSG(variant=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 non-finite value"):
        mutual_information(np.where(np.arange(40) == 3, np.nan, x[:, 0]), y)
    with pytest.raises(ValueError, match="batch of shape"):
        mutual_information(x[None], y[None])
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        mutual_information(x, y, level=95)
    with pytest.raises(ValueError, match="all different"):
        RankExtrapolation(ranks=(3, 3))
    with pytest.raises(ValueError, match="exponent"):
        RankExtrapolation(exponent=0)
