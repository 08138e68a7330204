"""The Wisconsin breast cancer measurements of Street, Wolberg and Mangasarian (1993)."""

from __future__ import annotations

import numpy as np

from discrepancy.datasets.carriers import path


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 cell nuclei: 30 measurements in their own units (569, 30), and the diagnosis, 0 malignant, 1 benign (569,)."""
    rows = np.loadtxt(path("breast-cancer"), delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1].astype(np.int64)


__all__ = ["breast_cancer"]
