"""Screening: planted columns, exact error rates by construction, copies, labels, the scikit-learn door, bad input."""

import math
import warnings

import numpy as np
import pytest
import torch

from discrepancy import HSIC
from discrepancy.estimation.association import EachColumn, LinearInformation
from discrepancy.estimation.histogram_information import HistogramInformation
from discrepancy.estimation.robust_high_dimensional import (
    ConstantColumnWarning,
    FalseDiscovery,
    FamilyWise,
    LabelWarning,
    screen,
)


def planted(n=200, p=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = X[:, 3].square() + X[:, 7] + 0.3 * torch.randn(n, generator=g, dtype=torch.float64)
    return X, y


@pytest.mark.parametrize("measure", [None, HistogramInformation(), EachColumn(HSIC())], ids=["kernel", "histogram", "hsic"])
def test_nonlinear_columns_come_first_and_linear_scores_miss_one(measure):
    X, y = planted()
    found = screen(X, y, measure, k=2)
    assert set(found.order[:2].tolist()) == {3, 7}
    assert found.selected.nonzero()[:, 0].tolist() == [3, 7]
    assert 3 not in screen(X, y, LinearInformation()).order[:2].tolist()


def test_permutations_select_what_is_there_and_are_reproducible():
    X, y = planted()
    run = [screen(X, y, permutations=99, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(run[0].adjusted, run[1].adjusted)
    found = run[0]
    assert found.selected.nonzero()[:, 0].tolist() == [3, 7]
    assert float(found.p_values.min()) == pytest.approx(0.01)
    assert bool((found.adjusted >= found.p_values - 1e-12).all())
    assert set(found.z_scores.topk(2).indices.tolist()) == {3, 7}
    found = screen(X, y, LinearInformation(), permutations=999, adjustment=FalseDiscovery(0.1))
    assert bool(found.selected[7])
    order = np.argsort(found.p_values.numpy(), kind="stable")
    steps = found.p_values.numpy()[order] * 30 / np.arange(1, 31)
    want = np.minimum(1, np.minimum.accumulate(steps[::-1])[::-1])
    np.testing.assert_allclose(found.adjusted.numpy()[order], want)


def test_too_few_permutations_for_false_discovery_are_said():
    X, y = planted(p=100)
    found = screen(X, y, LinearInformation(), permutations=99, adjustment=FalseDiscovery())
    assert "unless 20 reach" in found.note
    assert "2000 permutations" in found.note
    assert screen(X, y, LinearInformation(), permutations=2000, adjustment=FalseDiscovery()).note is None


@pytest.mark.slow
def test_the_familywise_rate_under_independence():
    rejected = 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        X, y = torch.randn(40, 8, generator=g, dtype=torch.float64), torch.randn(40, generator=g, dtype=torch.float64)
        rejected += bool(
            screen(X, y, LinearInformation(), permutations=39, adjustment=FamilyWise(0.1), generator=g).selected.any()
        )
    assert 8 <= rejected <= 34  # 99.9 % of a binomial with 200 draws of 0.1


def test_near_copies_are_dropped_in_favour_of_the_better_one():
    X, y = planted()
    X[:, 20] = X[:, 7] + 0.05 * torch.randn(200, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert {7, 20, 3} == set(screen(X, y, k=3).order[:3].tolist())
    found = screen(X, y, k=2, copies_above=0.5)
    first = int(found.order[0]) if int(found.order[0]) in (7, 20) else int(found.order[1])
    copy = 27 - first
    assert found.selected.nonzero()[:, 0].tolist() == sorted([3, first])
    assert int(found.removed[copy]) == first
    assert int((found.removed >= 0).sum()) == 1


def test_thresholds_labels_and_constant_columns():
    X, y = planted()
    X[:, 0] = 4.0
    labels = (X[:, 3].abs() > 0.7).double()
    with pytest.warns(ConstantColumnWarning, match="index 0"):
        found = screen(X, labels, HistogramInformation(), labels=True)
    assert int(found.order[0]) == 3
    assert float(found.scores[0]) == 0
    assert not bool(found.selected[0])
    cut = float(found.scores.sort(descending=True).values[1]) + 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantColumnWarning)
        assert screen(X, labels, HistogramInformation(), labels=True, threshold=cut).selected.nonzero().tolist() == [[3]]
        renamed = screen(X, 5 - 3 * labels, HistogramInformation(), labels=True)
    torch.testing.assert_close(renamed.scores, found.scores)
    X[:, 5] = X[:, 5].round().clamp(-2, 2)
    X[:, 0] = y
    with pytest.warns(LabelWarning, match="index 5"):
        screen(X, y)


def test_bad_input_is_refused():
    X, y = planted()
    holed = X.clone()
    holed[3, 4] = math.nan
    for args, words in (
        ((holed, y), r"non-finite .* \(3, 4\)"),
        ((X, y[:-1]), r"y must have shape \(200,\)"),
        ((X, torch.ones(200)), "one value only, 1"),
        ((X[:2], y[:2]), "n_samples = 2"),
        ((X[None], y), r"table \(n, p\)"),
        ((X, y * math.inf), "non-finite"),
    ):
        with pytest.raises(ValueError, match=words):
            screen(*args)
    with pytest.raises(ValueError, match="one class only"):
        screen(X, torch.ones(200), labels=True)
    for options, words in (
        ({"k": 31}, "at most 30"),
        ({"k": 0}, "k must be"),
        ({"permutations": -1}, "permutations"),
        ({"adjustment": FamilyWise()}, "needs permutations"),
    ):
        with pytest.raises(ValueError, match=words):
            screen(X, y, **options)
    with pytest.raises(TypeError, match="EachColumn"):
        screen(X, y, HSIC())
    for level in (0, 1, -0.1):
        with pytest.raises(ValueError, match="level"):
            FamilyWise(level)
        with pytest.raises(ValueError, match="level"):
            FalseDiscovery(level)


# -- scikit-learn ------------------------------------------------------------------------------------------------------


def failures(estimator):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = checks.check_estimator(estimator, on_fail=None)
    assert len(results) > 30
    return [(r["check_name"], str(r["exception"])) for r in results if r["status"] not in ("passed", "skipped")]


def test_the_screener_conforms_to_scikit_learn():
    pytest.importorskip("sklearn")
    from discrepancy.estimation.robust_high_dimensional import MIScreener

    assert failures(MIScreener()) == []
    assert failures(MIScreener(LinearInformation(), n_permutations=9, random_state=0)) == []


def test_the_screener_selects_in_a_pipeline_and_takes_names_of_classes():
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from discrepancy.estimation.robust_high_dimensional import MIScreener

    X, _ = planted()
    X = X.numpy()
    names = np.where(np.abs(X[:, 3]) > 0.7, "far", "near")
    screener = MIScreener(HistogramInformation(), k=3)
    pipeline = make_pipeline(clone(screener), LogisticRegression()).fit(X, names)
    assert pipeline[0].get_support()[3]
    assert pipeline[:-1].transform(X).shape == (200, 3)
    fitted = screener.fit(X, names)
    assert fitted.ranking_[0] == 3
    assert fitted.pvalues_ is None
    hsic = MIScreener(HSIC(), k=1, n_permutations=19, random_state=0).fit(X[:60], X[:60, 3] ** 2)
    assert hsic.get_support().tolist().index(True) == 3
    assert hsic.pvalues_[3] == pytest.approx(0.05)
    with pytest.raises(ValueError, match="at most 30"):
        MIScreener(k=31).fit(X, names)


def test_patients_informative_measurements_come_before_shuffled_ones():
    pytest.importorskip("sklearn")
    from discrepancy.datasets.diabetes import COLUMNS, diabetes

    measured, progression = (torch.from_numpy(t) for t in diabetes())
    g = torch.Generator().manual_seed(0)
    noise = torch.stack([measured[torch.randperm(442, generator=g), j % 10] for j in range(40)], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        found = screen(torch.cat([measured, noise], 1), progression, k=6)
    assert {COLUMNS[j] for j in found.order[:6].tolist()} == {"bmi", "s5", "bp", "s4", "s3", "s6"}
