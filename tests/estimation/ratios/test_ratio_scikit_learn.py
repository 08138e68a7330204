"""The scikit-learn doors: conformity, pipelines, weights under covariate shift, and scores of features."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from discrepancy.estimation.ratios import ULSIF, Logistic, Quadratic
from discrepancy.estimation.ratios.scikit_learn import DensityRatioTransformer, MutualInformationScore


def two_laws(n, seed=0):
    random = np.random.default_rng(seed)
    X = np.r_[random.normal(1, 1, (n, 2)), random.normal(0, 1, (n, 2))]
    return X, np.array(["new"] * n + ["old"] * n)


@pytest.mark.parametrize("method", [None, ULSIF(centers=20)], ids=["logistic", "uLSIF"])
def test_scikit_learn_accepts_the_transformer(method):
    failed = [c for c in check_estimator(DensityRatioTransformer(method), on_fail=None, on_skip=None) if c["status"] == "failed"]
    assert not failed, failed


def test_the_column_is_the_log_ratio_and_the_last_class_is_p():
    X, y = two_laws(1000)
    door = DensityRatioTransformer(Logistic(Quadratic()), random_state=0).fit(X, y)
    assert list(door.classes_) == ["new", "old"]
    truth = 1 - X.sum(1)  # N(0, I) over N((1, 1), I)
    assert float(np.sqrt(np.mean((door.transform(X)[:, 0] - truth) ** 2))) < 0.25
    one, two = (DensityRatioTransformer(random_state=0).fit(X, y).transform(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert list(door.get_feature_names_out()) == ["log_density_ratio"]
    accuracy = make_pipeline(StandardScaler(), DensityRatioTransformer(), LogisticRegression()).fit(X, y).score(X, y)
    assert accuracy == pytest.approx(0.76, abs=0.03)  # Phi(1 / sqrt 2), the best there is


def test_weights_correct_a_covariate_shift():
    random = np.random.default_rng(1)
    old, new = random.normal(0, 1, (3000, 1)), random.normal(1.0, 0.6, (3000, 1))
    truth = old[:, 0] ** 2 + random.normal(0, 0.1, 3000)
    door = DensityRatioTransformer(Logistic()).fit(np.r_[old, new], np.r_[np.zeros(3000), np.ones(3000)])
    w = door.importance_weights(old)
    assert w.mean() == pytest.approx(1, abs=1e-12)
    # The best line under the new law has slope 2 and starts at -1 + 0.36.
    line = LinearRegression().fit(old, truth, sample_weight=w)
    assert line.coef_[0] == pytest.approx(2, abs=0.3)
    assert abs(LinearRegression().fit(old, truth).coef_[0]) < 0.2


def test_wrong_labels_and_methods():
    X, y = two_laws(30)
    with pytest.raises(ValueError, match="two classes"):
        DensityRatioTransformer().fit(X, np.arange(60) % 3)
    with pytest.raises(TypeError, match="method"):
        DensityRatioTransformer(method="kliep").fit(X, y)  # type: ignore[arg-type]


def test_mutual_information_chooses_the_columns_that_matter():
    random = np.random.default_rng(2)
    X = random.normal(size=(400, 4))
    y = np.where(X[:, 2] + 0.3 * random.normal(size=400) > 0, "yes", "no")
    chosen = SelectKBest(MutualInformationScore(), k=1).fit(X, y)
    assert list(chosen.get_support(indices=True)) == [2]
    assert chosen.scores_[2] > 0.3
    assert np.abs(np.delete(chosen.scores_, 2)).max() < 0.1
    by_ratio = MutualInformationScore(Logistic(folds=2)).estimates(X[:, 2:3], y)
    assert float(by_ratio[0]) > 0.3
    assert torch.tensor(float(by_ratio[0])).isfinite()
