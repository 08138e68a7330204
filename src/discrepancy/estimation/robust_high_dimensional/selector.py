"""The scikit-learn door to screening. Importing this module imports scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from discrepancy.estimation.association import Association, EachColumn
from discrepancy.estimation.robust_high_dimensional.screening import Adjustment, screen


class MIScreener(SelectorMixin, BaseEstimator):
    """Keep the columns that share information with the outcome: `screen` as a scikit-learn transformer.

    measure: an `Association` (None: `KernelDensityInformation()`), or anything that `EachColumn` makes one of: a `Dependence`
    such as HSIC(), an estimator of mutual information, a function of two vectors. k, threshold, adjustment and copies_above as
    in `screen`; without any of them all columns that vary are kept, ranked by `scores_`. labels: whether y is a set of classes;
    None: it is if it is text, boolean or has two distinct values.

    After `fit`: `scores_`, `z_scores_`, `pvalues_`, `adjusted_pvalues_` (None without permutations), `ranking_` (best first)
    and `screening_`, all of it. Raises as `screen`.
    """

    def __init__(
        self,
        measure: Any = None,
        *,
        k: int | None = None,
        threshold: float | None = None,
        n_permutations: int = 0,
        adjustment: Adjustment | None = None,
        copies_above: float | None = None,
        labels: bool | None = None,
        random_state: Any = None,
    ) -> None:
        self.measure = measure
        self.k = k
        self.threshold = threshold
        self.n_permutations = n_permutations
        self.adjustment = adjustment
        self.copies_above = copies_above
        self.labels = labels
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Score the columns of X (n, p) against y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=3, y_numeric=False)
        y = np.asarray(y)
        numeric = y.dtype.kind in "fiu"
        labels = (not numeric or type_of_target(y) == "binary") if self.labels is None else bool(self.labels)
        if labels:
            y = np.unique(y, return_inverse=True)[1]
        elif not numeric:
            raise ValueError(f"y has dtype {y.dtype}, which is no number: leave labels at None or True")
        measure = self.measure
        if measure is not None and not isinstance(measure, Association):
            measure = EachColumn(measure)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        found = screen(
            X,
            y.astype(np.float64),
            measure,
            k=self.k,
            threshold=self.threshold,
            permutations=self.n_permutations,
            adjustment=self.adjustment,
            copies_above=self.copies_above,
            labels=labels,
            generator=torch.Generator().manual_seed(seed),
        )
        self.screening_ = found
        self.scores_ = found.scores.numpy()
        self.ranking_ = found.order.numpy()
        self.z_scores_, self.pvalues_, self.adjusted_pvalues_ = (
            None if v is None else v.numpy() for v in (found.z_scores, found.p_values, found.adjusted)
        )
        return self

    def _get_support_mask(self) -> NDArray[np.bool_]:  # pyright: ignore[reportIncompatibleMethodOverride]
        check_is_fitted(self, "screening_")
        return self.screening_.selected.numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


__all__ = ["MIScreener"]
