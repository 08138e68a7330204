"""The scikit-learn doors to sparse nonconvex models. Importing this module imports scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from discrepancy.estimation.robust_high_dimensional.sparse_models import Family, Logistic, SparseFit, Squared, fit_sparse
from discrepancy.optimize import AcceleratedGradient, SparsePenalty


class _Nonconvex(BaseEstimator):
    """What regression and classification share: options, the fit, the linear predictor."""

    def __init__(
        self, penalty: SparsePenalty | None = None, *, lam: float = 0.1, tol: float = 1e-6, max_iter: int = 10_000
    ) -> None:
        self.penalty = penalty
        self.lam = lam
        self.tol = tol
        self.max_iter = max_iter

    def _learn(self, X: NDArray[Any], y: NDArray[Any], family: Family) -> SparseFit:
        solver = AcceleratedGradient(tolerance=self.tol, max_iterations=self.max_iter)
        found = fit_sparse(X, y, self.lam, self.penalty, family=family, solver=solver)
        self.fit_ = found
        self.n_iter_ = found.iterations
        return found

    def _linear(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "fit_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.fit_.predict(X).numpy()


class NonconvexRegressor(RegressorMixin, _Nonconvex):
    """Sparse linear regression with `penalty` SCAD() (None), MCP() or Lasso() of strength `lam`, as a scikit-learn estimator.

    After `fit`: `coef_` (p,) and `intercept_` on the scale of the data, `n_iter_`, and `fit_`, the `SparseFit`. `lam` is in units
    of y, for columns of variance 1. Raises as `fit_sparse`.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit X (n, p), y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        found = self._learn(X, np.asarray(y, dtype=np.float64), Squared())
        self.coef_, self.intercept_ = found.coefficients.numpy(), found.intercept
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted mean at rows X (m, p)."""
        return self._linear(X)


class NonconvexClassifier(ClassifierMixin, _Nonconvex):
    """Sparse logistic regression of two classes with a nonconvex penalty, as a scikit-learn estimator; see `NonconvexRegressor`.

    After `fit`: `coef_` (1, p), `intercept_` (1,), `classes_` (2,), `n_iter_` and `fit_`.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit X (n, p), y (n,) of two classes."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass: "
                f"y has {len(self.classes_)} classes"
            )
        if len(self.classes_) < 2:
            raise ValueError("y has one class only: classification needs two, got 1 class")
        found = self._learn(X, codes.astype(np.float64), Logistic())
        self.coef_, self.intercept_ = found.coefficients.numpy()[None], np.array([found.intercept])
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The log odds of the second class at rows X (m, p)."""
        return self._linear(X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probabilities (m, 2) of the two classes."""
        second = expit(self._linear(X))
        return np.stack([1 - second, second], 1)

    def predict(self, X: Any) -> NDArray[Any]:
        """The more probable class at rows X (m, p)."""
        odds = self._linear(X)
        return self.classes_[(odds > 0).astype(int)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


__all__ = ["NonconvexClassifier", "NonconvexRegressor"]
