"""scikit-learn doors: the log-ratio as a feature, importance weights, and mutual information as a score of features.

This module imports scikit-learn, whose classes it extends, and is imported by nothing else: `import discrepancy` stays free of
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import ClassifierTags, Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from discrepancy._results import Estimate
from discrepancy.estimation.information import InformationMethod, mutual_information
from discrepancy.estimation.ratios.logistic import Logistic
from discrepancy.estimation.ratios.method import RatioMethod


class DensityRatioTransformer(TransformerMixin, BaseEstimator):
    """log p/q of each row, for samples told apart by a label: P is the class that sorts last, Q the other.

    method: a density-ratio method object, `Logistic()` where None. random_state: as everywhere in scikit-learn. `transform` gives
    one column, `importance_weights` the weights that make rows of Q stand for P. Attributes after `fit`: `classes_`, `model_`,
    `n_features_in_`. Raises ValueError unless y has exactly two classes, TypeError for a method that is none.
    """

    def __init__(self, method: RatioMethod | None = None, random_state: Any = None) -> None:
        """Keep the options; they are checked by `fit`."""
        self.method = method
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the ratio to rows X (n, d) with labels y (n,) of two classes."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        method = Logistic() if self.method is None else self.method
        if not isinstance(method, RatioMethod):
            raise TypeError(f"method must be a density-ratio method object such as Logistic(), got {method!r}")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            found = f"{len(self.classes_)} class{'es' if len(self.classes_) != 1 else ''}"
            raise ValueError(
                f"Only binary classification is supported: a density ratio needs y of two classes, P's and Q's, got {found}"
            )
        rows = torch.from_numpy(np.ascontiguousarray(X).copy())
        samples = [rows[torch.from_numpy(codes == k)] for k in (1, 0)]
        for name, s in zip(self.classes_[::-1], samples, strict=True):
            if len(s) < method.least:
                raise ValueError(
                    f"class {name!r} has {len(s)} rows: {type(method).__name__} needs at least {method.least} of each"
                )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.model_ = method.fit(samples[0], samples[1], torch.Generator().manual_seed(seed))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """log p/q of rows X (n, d), as (n, 1), in the precision of X."""
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        rows = torch.from_numpy(np.ascontiguousarray(X).copy())
        return self.model_.log_ratio(rows).numpy().astype(X.dtype)[:, None]

    def importance_weights(self, X: Any) -> np.ndarray:
        """Weights (n,) with mean one, in proportion to p/q: `sample_weight` for a model trained on rows X of Q and used on P."""
        u = self.transform(X)[:, 0].astype(np.float64)
        w = np.exp(u - u.max())
        return w / w.mean()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The name of the column."""
        check_is_fitted(self, "model_")
        return np.asarray(["log_density_ratio"], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        """A transformer that needs a label of two classes."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags


@dataclass(frozen=True)
class MutualInformationScore:
    """The mutual information of each column with the target, in nats: a `score_func` for `SelectKBest` and its kin.

    `SelectKBest(MutualInformationScore(), k=10)`. method: any estimator object of `mutual_information` (None: nearest neighbours,
    for continuous and discrete columns alike). Labels that are no numbers are numbered. `estimates` gives the intervals too.
    """

    method: InformationMethod | None = None

    def __call__(self, X: Any, y: Any) -> np.ndarray:
        """The values (d,)."""
        return np.asarray([float(e) for e in self.estimates(X, y)])

    def estimates(self, X: Any, y: Any) -> list[Estimate]:
        """An `Estimate` for each column of X (n, d) with y (n,) or (n, k)."""
        rows, target = np.asarray(X), np.asarray(y)
        if rows.ndim != 2:
            raise ValueError(f"X must have rows and columns, got shape {rows.shape}")
        if target.dtype.kind in "OSUb":
            target = np.unique(target, return_inverse=True)[1]
        target = target.astype(np.float64)
        return [mutual_information(np.ascontiguousarray(c, dtype=np.float64), target, self.method) for c in rows.T]


__all__ = ["DensityRatioTransformer", "MutualInformationScore"]
