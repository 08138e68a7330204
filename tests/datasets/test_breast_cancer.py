"""The breast cancer data as scikit-learn has them."""

from __future__ import annotations

import numpy as np

from discrepancy.datasets import breast_cancer


def test_rows_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_breast_cancer

    truth = load_breast_cancer()
    measured, diagnosis = breast_cancer()
    np.testing.assert_array_equal(measured, truth.data)
    np.testing.assert_array_equal(diagnosis, truth.target)
