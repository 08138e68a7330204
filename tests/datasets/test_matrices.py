"""Sets of SPD matrices: shapes, counts, definiteness, and one entry by hand."""

from __future__ import annotations

import numpy as np
import pytest

from discrepancy import datasets
from discrepancy.datasets.matrices import connectomes, digit_covariances


def test_digit_covariances_are_those_of_the_features():
    matrices, classes = digit_covariances()
    assert matrices.shape == (1797, 7, 7)
    images, truth = datasets.digits()
    assert (classes == truth).all()
    brightness = 16 * images[5]
    assert matrices[5, 2, 2] == pytest.approx(brightness.var() + 1e-6, rel=1e-12)
    assert matrices[5, 2, 5] == pytest.approx(np.cov(brightness, brightness**2, bias=True)[0, 1], rel=1e-10)
    assert matrices[5, 0, 0] == pytest.approx(np.arange(8).var() + 1e-6, rel=1e-12)  # columns are equally spread
    image = brightness.reshape(8, 8)
    across = np.abs(
        np.gradient(image, axis=1)
    )  # central differences inside; the edge repeats, hence half of numpy's one-sided ones
    across[:, [0, -1]] /= 2
    assert matrices[5, 3, 3] == pytest.approx(across.var() + 1e-6, rel=1e-12)
    values = np.linalg.eigvalsh(matrices)
    assert values.min() > 0
    assert (values[:, -1] / values[:, 0] > 1e4).mean() > 0.5


def test_connectomes_are_correlation_matrices():
    try:
        matrices, classes = connectomes()
    except datasets.MissingCarrier as missing:
        pytest.skip(str(missing))
    assert matrices.shape == (86, 28, 28)
    assert classes.sum() == 40
    assert np.allclose(np.diagonal(matrices, axis1=1, axis2=2), 1)
    assert np.linalg.eigvalsh(matrices).min() > 0
