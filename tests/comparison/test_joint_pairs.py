"""Pairs: correlations against NumPy, standard errors against the jackknife and theory, planted changes found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from joint_tables import levels, matrices, numeric
from scipy.stats import norm, rankdata

from discrepancy.comparison.joint.dependence import PairChanges, pair_changes
from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.joint.scores import represent
from discrepancy.comparison.joint.sides import sides
from discrepancy.comparison.model import Options, TablePair
from discrepancy.comparison.units import make_units


def changes(table: TablePair, draws: int = 199, options: Options | None = None) -> PairChanges | None:
    options = options or Options()
    units = make_units(table, options)
    first, second, _ = sides(table, units, options, (table.weights_reference, table.weights_current))
    r = represent(table.columns, (None, None), (table.rows_reference, table.rows_current), 0)
    sizes = np.r_[first.sizes(), second.sizes()]
    return pair_changes(r, (first, second), Null(sizes, first.count, units.null, draws, 0))


def scores(x: np.ndarray) -> np.ndarray:
    return norm.ppf((rankdata(x) - 0.5) / len(x))


def linked(n: int, rho: float, rng: np.random.Generator, d: int = 3) -> np.ndarray:
    X = rng.normal(size=(n, d))
    X[:, 1] = rho * X[:, 0] + math.sqrt(1 - rho * rho) * X[:, 1]
    return X


def test_correlations_are_those_of_the_normal_scores():
    rng = np.random.default_rng(0)
    X, Y = linked(300, 0.2, rng), linked(200, 0.7, rng)
    got = changes(matrices(np.exp(X), Y))
    assert got is not None
    for k, (i, j) in enumerate(zip(got.first, got.second)):
        before = np.corrcoef(scores(X[:, i]), scores(X[:, j]))[0, 1]
        after = np.corrcoef(scores(Y[:, i]), scores(Y[:, j]))[0, 1]
        assert got.before[k] == pytest.approx(before, abs=1e-5)
        assert got.after[k] == pytest.approx(after, abs=1e-5)
        assert got.change[k] == pytest.approx(abs(math.atanh(before) - math.atanh(after)), abs=1e-5)


def test_the_error_of_independent_normals_is_that_of_fisher():
    rng = np.random.default_rng(1)
    got = changes(matrices(rng.normal(size=(400, 4)), rng.normal(size=(700, 4))), draws=999)
    assert got is not None
    assert got.error == pytest.approx(math.sqrt(1 / 400 + 1 / 700), rel=0.1)
    # the maximum of six nearly independent |z|: median 1.6, and the null knows it
    assert np.median(got.draws) == pytest.approx(norm.ppf((1 + 0.5 ** (1 / 6)) / 2), abs=0.15)


def test_the_error_is_the_jackknife_where_the_pair_is_heavier_than_normal():
    """Signs that agree make u_i u_j heavy: the variance of the correlation is above the normal one."""
    rng = np.random.default_rng(2)

    def heavy(n: int) -> np.ndarray:
        scale = np.exp(rng.normal(size=(n, 1)))
        return scale * rng.normal(size=(n, 2))

    X, Y = heavy(250), heavy(250)
    got = changes(matrices(X, Y))
    assert got is not None

    def jackknife(Z: np.ndarray) -> float:
        u = np.stack([scores(Z[:, 0]), scores(Z[:, 1])], axis=1)
        u = (u - u.mean(0)) / u.std(0)  # the scores are held, as the linearisation holds them
        r = np.array(
            [
                (lambda v: (v[:, 0] @ v[:, 1]) / np.sqrt((v[:, 0] ** 2).sum() * (v[:, 1] ** 2).sum()))(np.delete(u, i, 0))
                for i in range(len(u))
            ]
        )
        return (len(r) - 1) * float(r.var())

    before, after = got.before[0], got.after[0]
    want = math.sqrt(jackknife(X) + jackknife(Y)) / (1 - ((before + after) / 2) ** 2)
    assert want > 1.15 * math.sqrt(2 / 250)  # heavier than normal, or the test would test nothing
    assert got.error[0] == pytest.approx(want, rel=0.03)


def test_missing_cells_are_left_out_pair_by_pair():
    rng = np.random.default_rng(3)
    X, Y = linked(500, 0.6, rng, 2), linked(500, 0.6, rng, 2)
    Y[rng.random(500) < 0.4, 0] = np.nan
    got = changes(matrices(X, Y))
    assert got is not None
    here = ~np.isnan(Y[:, 0])
    u = (scores(Y[here, 0]) - scores(Y[here, 0]).mean()) / scores(Y[here, 0]).std()
    v = (scores(Y[:, 1]) / scores(Y[:, 1]).std())[here]
    want = (u @ v) / math.sqrt((u @ u) * (v @ v))
    numbers = [k for k in range(len(got.first)) if got.error[k] >= math.sqrt(1 / 500 + 1 / here.sum()) - 1e-9]
    assert got.after[numbers[0]] == pytest.approx(want, abs=1e-4)
    assert got.change[numbers[0]] < 4 * got.error[numbers[0]]  # missing at random is no change of dependence


def test_a_planted_pair_stands_out_and_the_sign_does_not_matter():
    rng = np.random.default_rng(4)
    for rho in (0.35, -0.35):
        got = changes(matrices(rng.normal(size=(800, 6)), linked(800, rho, rng, 6)))
        assert got is not None
        z = got.excess(0.0)
        best = int(np.argmax(z))
        assert (got.first[best], got.second[best]) == (0, 1)
        assert z[best] > np.quantile(got.draws, 0.999)
        assert got.after[best] == pytest.approx(rho, abs=0.1)
        assert got.excess(0.05)[best] == pytest.approx(z[best] - 0.05 / got.error[best])


def test_levels_enter_with_their_correlation():
    rng = np.random.default_rng(5)
    g = rng.integers(0, 3, 900)
    x, y = rng.normal(size=900), rng.normal(size=900)
    h = np.where(y > 0.8, 2, rng.integers(0, 2, 900))
    got = changes(TablePair([numeric("v", x, y), levels("g", g, h, ("a", "b", "c"))], 900, 900))
    assert got is not None
    assert len(got.first) == 3  # no pair inside the category
    best = int(np.argmax(got.excess(0.0)))
    want = np.corrcoef(scores(y), h == 2)[0, 1]
    assert got.after[best] == pytest.approx(want, abs=1e-5)
    assert got.change[best] == pytest.approx(abs(got.after[best] - got.before[best]))


def test_two_levels_are_one_coordinate_and_copies_are_harmless():
    rng = np.random.default_rng(6)
    b = rng.integers(0, 2, (2, 300))
    x = rng.normal(size=(2, 300))
    pairs = [levels("b", b[0], b[1], ("no", "yes")), numeric("x", x[0], x[1]), numeric("copy", 2 * x[0], x[1] ** 3)]
    got = changes(TablePair(pairs, 300, 300))
    assert got is not None
    assert len(got.first) == 3
    assert np.isfinite(got.error).all()
    copies = int(np.argmax(got.before))
    assert got.before[copies] > 0.999
    assert got.change[copies] < 1e-6


def test_what_comes_from_one_text_is_no_pair_and_neither_is_a_constant():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(3, 100))
    pairs = [numeric("len", x[0], x[1], source="t"), numeric("caps", x[1], x[2], source="t")]
    assert changes(TablePair(pairs, 100, 100)) is None
    pairs = [numeric("flat here", np.zeros(100), x[1]), numeric("v", x[0], x[2])]
    assert changes(TablePair(pairs, 100, 100)) is None


def test_over_200_columns_pairs_are_screened_on_rows_that_do_not_test():
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(700, 230)), rng.normal(size=(700, 230))
    Y[:, 7] = 0.9 * Y[:, 3] + math.sqrt(1 - 0.81) * Y[:, 7]
    got = changes(matrices(X, Y), draws=99)
    assert got is not None
    assert len(got.first) == 20_000
    best = int(np.argmax(got.excess(0.0)))
    assert (got.first[best], got.second[best]) == (3, 7)
    assert np.sort(got.excess(0.0))[-2] < 1.3 * got.draws.max()  # the others are null
    want = math.sqrt(2 / 630)
    assert np.median(got.error) == pytest.approx(want, rel=0.02)  # nine tenths of the rows


def test_blocks_of_dependent_rows_widen_the_error():
    rng = np.random.default_rng(9)
    X, Y = (np.repeat(rng.normal(size=(100, 2)), 5, axis=0) + 1e-6 * rng.normal(size=(500, 2)) for _ in range(2))
    rows, blocks = changes(matrices(X, Y)), changes(matrices(X, Y), options=Options(block=5))
    assert rows is not None
    assert blocks is not None
    # five copies of each row carry the information of one
    assert blocks.error[0] / rows.error[0] == pytest.approx(math.sqrt(5 * 499 / 500 * 100 / 99), rel=0.02)
    assert blocks.error[0] == pytest.approx(math.sqrt(2 / 100), rel=0.2)


def test_rare_levels_do_not_flag_by_themselves():
    """Levels of a few rows: an error taken from each table's own correlation flags half of such null tables."""
    zipf = 1 / np.arange(1, 31)
    flagged = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        g, h = (rng.choice(30, 250, p=zipf / zipf.sum()) for _ in range(2))
        pairs = [levels("g", g, h, tuple(map(str, range(30))))]
        pairs += [numeric(f"v{i}", rng.normal(size=250), rng.normal(size=250)) for i in range(4)]
        got = changes(TablePair(pairs, 250, 250), draws=99)
        assert got is not None
        flagged += got.excess(0.0).max() > np.quantile(got.draws, 0.95)
    assert flagged <= 10  # Bin(60, 0.05) is above once in 10,000
