"""The classifier test: AUC and logistic regression against scikit-learn, and exactness whatever was fitted."""

from __future__ import annotations

import numpy as np
import pytest
from joint_tables import matrices
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from discrepancy.comparison.joint import classifier, compare_joint
from discrepancy.comparison.joint.sides import Side
from discrepancy.comparison.model import Options
from discrepancy.comparison.units import make_units


def side(n: int, weight: np.ndarray | None = None) -> Side:
    return Side(np.arange(n), np.arange(n), weight, n)


def test_value_is_two_auc_minus_one_weights_and_ties_included():
    rng = np.random.default_rng(0)
    score = np.round(rng.normal(size=150), 1)
    score[60:] += 0.4
    w = rng.gamma(2.0, 1.0, 90)
    test = [side(60), side(90, w / w.mean())]
    placed = classifier._placements(score, test)
    label, weight = np.r_[np.zeros(60), np.ones(90)], np.r_[np.ones(60), w]
    want = 2 * roc_auc_score(label, score, sample_weight=weight) - 1
    assert classifier._auc(placed.pooled, test)[0] == pytest.approx(want, abs=1e-12)


def test_logistic_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    y = (rng.random(400) < 1 / (1 + np.exp(-(x @ np.array([1.0, -2.0, 0.0]) + 0.5)))).astype(float)
    w = rng.random(400) + 0.5
    ours = classifier._logistic(x, y, w)
    theirs = LogisticRegression(C=1.0, tol=1e-10).fit(x, y, sample_weight=w)
    assert ours(x) == pytest.approx(theirs.decision_function(x), abs=1e-3)


@pytest.mark.parametrize("boosting", [True, False])
def test_a_change_that_only_a_classifier_of_its_kind_sees(boosting: bool, monkeypatch: pytest.MonkeyPatch):
    if not boosting:
        monkeypatch.setattr(classifier.importlib.util, "find_spec", lambda name: None)
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(900, 4)), rng.normal(size=(900, 4))
    if boosting:
        Y[:, 2] = np.abs(Y[:, 2]) * np.sign(Y[:, 0] * Y[:, 1])  # three columns, no margin and no pair
    else:
        Y[:, 2] += 0.4
    table, options = matrices(X, Y), Options(joint="classifier")
    r = compare_joint(table, make_units(table, options), options)
    assert r is not None
    assert r.p_value is not None
    assert r.low is not None
    assert r.p_value < 0.01
    assert r.low > 0
    assert r.members[0].name.endswith("gradient boosting" if boosting else "logistic regression")
    assert "half of the rows" in (r.note or "")
    assert r.shares[0]["column"] in (("c0", "c1", "c2") if boosting else ("c2",))


def test_the_null_is_exact_for_any_classifier(monkeypatch: pytest.MonkeyPatch):
    """A nonsense score, unequal tables: p is uniform because labels are permuted under it."""
    monkeypatch.setattr(classifier, "_fit", lambda x, *_: (lambda rows: np.sin(9 * rows[:, 0]) + rows[:, 1] ** 2, "nonsense"))
    p = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        table = matrices(rng.normal(size=(60, 2)), rng.normal(size=(150, 2)))
        options = Options(joint="classifier", seed=trial, permutations=99, delta=0.0)
        r = compare_joint(table, make_units(table, options), options)
        assert r is not None
        p.append(r.p_value)
    assert 22 <= sum(v <= 0.2 for v in p) <= 60  # Bin(200, 0.2) leaves this range once in a thousand
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_too_few_units_to_split():
    table, options = matrices(np.eye(6), np.eye(6)), Options(joint="classifier")
    assert compare_joint(table, make_units(table, options), options) is None
