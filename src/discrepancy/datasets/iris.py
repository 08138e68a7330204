"""Fisher's iris flowers."""

from __future__ import annotations

import numpy as np

from discrepancy.datasets.carriers import path


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Sepal length and width, petal length and width in centimetres (150, 4), and the species 0, 1, 2 as whole numbers (150,)."""
    rows = np.loadtxt(path("iris"), delimiter=",", skiprows=1)
    return rows[:, :4], rows[:, 4].astype(np.int64)


__all__ = ["iris"]
