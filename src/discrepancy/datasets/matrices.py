"""Data sets of symmetric positive definite matrices."""

from __future__ import annotations

import numpy as np

from discrepancy.datasets.carriers import path
from discrepancy.datasets.loaders import digits

_REGIONS = 28


def connectomes() -> tuple[np.ndarray, np.ndarray]:
    """Correlations of resting brain activity as (matrices (86, 28, 28), classes (86,)): 40 patients (1) and 46 controls (0).

    From the schizophrenia challenge of MLSP 2014. The file holds the entries above the diagonal row by row; so read, all 86
    matrices are positive definite.
    """
    entries = np.loadtxt(path("connectomes"), delimiter=",", skiprows=1)[:, 1:]
    classes = np.loadtxt(path("connectomes-classes"), delimiter=",", skiprows=1)[:, 1]
    matrices = np.tile(np.eye(_REGIONS), (len(entries), 1, 1))
    row, column = np.triu_indices(_REGIONS, 1)
    matrices[:, row, column] = matrices[:, column, row] = entries
    return matrices, classes.astype(np.int64)


def digit_covariances(ridge: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Region covariances of the digits as (matrices (1797, 7, 7), classes (1797,)), plus `ridge` times the identity.

    Over an image's 64 pixels, of place (x, y in pixels), brightness I (0 to 16), |dI/dx|, |dI/dy| by central differences, I^2,
    and I smoothed by the binomial filter (1, 2, 1) / 4 both ways. Five in eight have a condition number above 1e4.
    Source of the descriptor: Tuzel, Porikli and Meer (2006).
    """
    images, classes = digits()
    images = 16 * images.reshape(-1, 8, 8)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    smooth = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    y, x = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    place = [np.broadcast_to(c, images.shape) for c in (x, y)]
    features = np.stack([*place, images, across, down, images**2, smooth], -1).reshape(len(images), 64, 7)
    features = features - features.mean(1, keepdims=True)
    return features.swapaxes(-1, -2) @ features / 64 + ridge * np.eye(7), classes


__all__ = ["connectomes", "digit_covariances"]
