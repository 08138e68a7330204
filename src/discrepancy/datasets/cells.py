"""Single cells: what was measured in each, and what kind of cell it is."""

from __future__ import annotations

from typing import Literal

import numpy as np

from discrepancy.datasets.carriers import path


def blood_cells(features: Literal["components", "genes"] = "components") -> tuple[np.ndarray, np.ndarray]:
    """700 mononuclear blood cells (10x Genomics) as (features (700, 50) or (700, 765), cell types (700,) as text).

    "components" are the carrier's 50 principal components of the scaled log counts, "genes" these scaled log counts themselves.
    Needs h5py; raises `MissingCarrier` with the install line without the carrier, scanpy, which itself is not imported.
    """
    if features not in ("components", "genes"):
        raise ValueError(f'features must be "components" or "genes", got {features!r}')
    import h5py

    with h5py.File(path("pbmc"), "r") as file:
        values = np.asarray(file["obsm"])["X_pca"] if features == "components" else np.asarray(file["X"])
        names = np.asarray(file["uns/bulk_labels_categories"]).astype(str)
        types = names[np.asarray(file["obs"])["bulk_labels"].astype(np.int64)]
    return values.astype(np.float64), types


__all__ = ["blood_cells"]
