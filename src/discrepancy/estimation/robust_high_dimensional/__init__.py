"""Many columns, few rows, some of them wrong: screening by information, sparse nonconvex models, robust mixed models.

Each name resolves on first use: the scikit-learn doors (`MIScreener`, `NonconvexRegressor`, `NonconvexClassifier`) import
scikit-learn, nothing else does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS: dict[str, str] = {
    "Adjustment": "screening",
    "ConstantColumnWarning": "screening",
    "FalseDiscovery": "screening",
    "FamilyWise": "screening",
    "LabelWarning": "screening",
    "Screening": "screening",
    "screen": "screening",
    "MIScreener": "selector",
    "Logistic": "sparse_models",
    "SparseFit": "sparse_models",
    "Squared": "sparse_models",
    "fit_sparse": "sparse_models",
    "MixedModelFit": "mixed_model",
    "TsallisMixedModel": "mixed_model",
    "QGaussian": "q_gaussian",
    "nu_of": "q_gaussian",
    "q_of": "q_gaussian",
    "tsallis_entropy": "q_gaussian",
    "regularization_path": "sparse_models",
    "NonconvexClassifier": "sparse_estimators",
    "NonconvexRegressor": "sparse_estimators",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"discrepancy.estimation.robust_high_dimensional.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from discrepancy.estimation.robust_high_dimensional.mixed_model import MixedModelFit as MixedModelFit
    from discrepancy.estimation.robust_high_dimensional.mixed_model import TsallisMixedModel as TsallisMixedModel
    from discrepancy.estimation.robust_high_dimensional.q_gaussian import QGaussian as QGaussian
    from discrepancy.estimation.robust_high_dimensional.q_gaussian import nu_of as nu_of
    from discrepancy.estimation.robust_high_dimensional.q_gaussian import q_of as q_of
    from discrepancy.estimation.robust_high_dimensional.q_gaussian import tsallis_entropy as tsallis_entropy
    from discrepancy.estimation.robust_high_dimensional.screening import Adjustment as Adjustment
    from discrepancy.estimation.robust_high_dimensional.screening import ConstantColumnWarning as ConstantColumnWarning
    from discrepancy.estimation.robust_high_dimensional.screening import FalseDiscovery as FalseDiscovery
    from discrepancy.estimation.robust_high_dimensional.screening import FamilyWise as FamilyWise
    from discrepancy.estimation.robust_high_dimensional.screening import LabelWarning as LabelWarning
    from discrepancy.estimation.robust_high_dimensional.screening import Screening as Screening
    from discrepancy.estimation.robust_high_dimensional.screening import screen as screen
    from discrepancy.estimation.robust_high_dimensional.selector import MIScreener as MIScreener
    from discrepancy.estimation.robust_high_dimensional.sparse_estimators import NonconvexClassifier as NonconvexClassifier
    from discrepancy.estimation.robust_high_dimensional.sparse_estimators import NonconvexRegressor as NonconvexRegressor
    from discrepancy.estimation.robust_high_dimensional.sparse_models import Logistic as Logistic
    from discrepancy.estimation.robust_high_dimensional.sparse_models import SparseFit as SparseFit
    from discrepancy.estimation.robust_high_dimensional.sparse_models import Squared as Squared
    from discrepancy.estimation.robust_high_dimensional.sparse_models import fit_sparse as fit_sparse
    from discrepancy.estimation.robust_high_dimensional.sparse_models import regularization_path as regularization_path
