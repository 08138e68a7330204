"""The diabetes patients as scikit-learn has them."""

from __future__ import annotations

import numpy as np

from discrepancy.datasets.diabetes import COLUMNS, diabetes


def test_patients_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_diabetes

    truth = load_diabetes(scaled=False)
    measured, progression = diabetes()
    np.testing.assert_array_equal(measured, truth.data)
    np.testing.assert_array_equal(progression, truth.target)
    assert tuple(truth.feature_names) == COLUMNS
