"""Sparse linear and logistic models: scikit-learn's lasso, least squares on the support, optimality conditions, the doors."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from discrepancy.estimation.robust_high_dimensional import Logistic, fit_sparse, regularization_path
from discrepancy.optimize import MCP, SCAD, AcceleratedGradient, Lasso, ProximalGradient


def design(n=80, p=120, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=g, dtype=torch.float64) * (0.5 + torch.rand(p, generator=g)) + 3
    y = X[:, :3] @ torch.tensor([2.0, -3.0, 2.5], dtype=torch.float64) + 5
    return X, y + 0.3 * torch.randn(n, generator=g, dtype=torch.float64)


def test_the_lasso_of_standardised_columns_is_scikit_learns():
    linear = pytest.importorskip("sklearn.linear_model")
    X, y = design()
    mean, scale = X.mean(0), X.std(0, correction=0)
    want = linear.Lasso(alpha=0.2, tol=1e-12, max_iter=100_000).fit(((X - mean) / scale).numpy(), y.numpy())
    got = fit_sparse(X, y, 0.2, Lasso(), solver=AcceleratedGradient(tolerance=1e-9))
    torch.testing.assert_close(got.coefficients * scale, torch.from_numpy(want.coef_), rtol=0, atol=1e-6)
    torch.testing.assert_close(got.predict(X), torch.from_numpy(want.predict(((X - mean) / scale).numpy())), rtol=0, atol=1e-5)


@pytest.mark.parametrize("penalty", [SCAD(), MCP()], ids=repr)
def test_nonconvex_fits_are_least_squares_on_the_support_in_the_units_of_the_data(penalty):
    X, y = design()
    fits = [fit_sparse(X, y, 0.3, penalty, solver=s) for s in (AcceleratedGradient(), ProximalGradient(tolerance=1e-7))]
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-6)
    ones = torch.ones(len(y), 1, dtype=y.dtype)
    want = torch.linalg.lstsq(torch.cat([ones, X[:, :3]], 1), y).solution
    assert fits[0].coefficients.nonzero()[:, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(fits[0].coefficients[:3], want[1:], rtol=1e-4, atol=1e-4)
    assert fits[0].intercept == pytest.approx(float(want[0]), abs=1e-2)
    moved = fit_sparse(100 * X - 7, y, 0.3, penalty)
    torch.testing.assert_close(moved.predict(100 * X - 7), fits[0].predict(X), rtol=1e-5, atol=1e-5)


def test_the_path_begins_at_zero_and_agrees_with_single_fits():
    X, y = design()
    path = regularization_path(X, y, count=12, smallest=0.1)
    assert not path[0].coefficients.any()
    assert path[0].intercept == pytest.approx(float(y.mean()))
    slightly = fit_sparse(X, y, path[0].lam * 0.99)
    assert int((slightly.coefficients != 0).sum()) == 1
    assert all(a.lam > b.lam for a, b in pairwise(path))
    assert set(path[-1].coefficients.nonzero()[:, 0].tolist()) >= {0, 1, 2}
    again = regularization_path(X, y, lams=[0.3, 1.0])
    assert [f.lam for f in again] == [1.0, 0.3]
    assert again[1].objective == pytest.approx(fit_sparse(X, y, 0.3).objective, rel=1e-6)


def test_logistic_fits_are_stationary_and_match_scikit_learn_without_a_penalty():
    linear = pytest.importorskip("sklearn.linear_model")
    X, _ = design(n=200, p=6)
    y = (torch.sigmoid(2 * (X[:, 0] - 3) - 1) > torch.rand(200, generator=torch.Generator().manual_seed(1))).double()
    free = fit_sparse(X, y, 0.0, Lasso(), family=Logistic(), solver=AcceleratedGradient(tolerance=1e-9))
    want = linear.LogisticRegression(C=1e10, tol=1e-12, max_iter=10_000).fit(X.numpy(), y.numpy())
    np.testing.assert_allclose(free.coefficients.numpy(), want.coef_[0], rtol=1e-3, atol=1e-3)
    assert free.intercept == pytest.approx(float(want.intercept_[0]), abs=1e-2)
    lam = 0.05
    got = fit_sparse(X, y, lam, family=Logistic(), solver=AcceleratedGradient(tolerance=1e-9))
    scale = X.std(0, correction=0)
    slope = ((X - X.mean(0)) / scale).T @ (torch.sigmoid(got.predict(X)) - y) / 200
    zero = got.coefficients == 0
    assert float(slope[zero].abs().max()) <= lam + 1e-6
    large = (got.coefficients * scale).abs() > 3.7 * lam
    assert bool(large.any())
    assert float(slope[large].abs().max()) < 1e-6  # beyond a lam nothing is penalised
    assert float((torch.sigmoid(got.predict(X)) - y).mean().abs()) < 1e-6


def test_constant_columns_get_no_coefficient():
    X, y = design()
    X[:, 10] = 1e-3
    got = fit_sparse(X, y, 0.3)
    assert float(got.coefficients[10]) == 0
    assert torch.isfinite(got.coefficients).all()


def test_bad_input_is_refused():
    X, y = design()
    for args, words in (
        ((X, y, -0.1), "lam"),
        ((X, y[:-1], 0.1), r"y must have shape \(80,\)"),
        ((X * math.nan, y, 0.1), "non-finite"),
    ):
        with pytest.raises(ValueError, match=words):
            fit_sparse(*args)
    with pytest.raises(ValueError, match="0 or 1"):
        fit_sparse(X, y, 0.1, family=Logistic())
    with pytest.raises(ValueError, match="one class only"):
        fit_sparse(X, torch.ones(80), 0.1, family=Logistic())
    with pytest.raises(TypeError, match="penalty"):
        fit_sparse(X, y, 0.1, "scad")
    with pytest.raises(TypeError, match="solver"):
        fit_sparse(X, y, 0.1, solver="fast")
    with pytest.raises(ValueError, match="lams is empty"):
        regularization_path(X, y, lams=[])
    with pytest.raises(ValueError, match="count"):
        regularization_path(X, y, count=1)


@pytest.mark.slow
def test_the_doors_conform_to_scikit_learn():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    from discrepancy.estimation.robust_high_dimensional import NonconvexClassifier, NonconvexRegressor

    for estimator in (NonconvexRegressor(), NonconvexClassifier(MCP(), lam=0.02)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = checks.check_estimator(estimator, on_fail=None)
        assert [(r["check_name"], str(r["exception"])) for r in results if r["status"] not in ("passed", "skipped")] == []


def test_the_doors_predict():
    pytest.importorskip("sklearn")
    from discrepancy.estimation.robust_high_dimensional import NonconvexClassifier, NonconvexRegressor

    X, y = design()
    model = NonconvexRegressor(lam=0.3).fit(X.numpy(), y.numpy())
    assert model.score(X.numpy(), y.numpy()) > 0.98
    assert np.flatnonzero(model.coef_).tolist() == [0, 1, 2]
    names = np.where(y.numpy() > float(y.mean()), "high", "low")
    classifier = NonconvexClassifier(lam=0.05).fit(X.numpy(), names)
    assert classifier.score(X.numpy(), names) > 0.9
    np.testing.assert_allclose(classifier.predict_proba(X.numpy()).sum(1), 1)
    assert classifier.classes_.tolist() == ["high", "low"]
