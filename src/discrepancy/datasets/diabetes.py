"""Patients of the diabetes study of Efron, Hastie, Johnstone and Tibshirani (2004)."""

from __future__ import annotations

import gzip

import numpy as np

from discrepancy.datasets.carriers import path

COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """442 patients: measurements (442, 10), columns `COLUMNS` in their own units, and the progression after a year (442,)."""
    with gzip.open(path("diabetes"), "rt") as file:
        measured = np.loadtxt(file)
    with gzip.open(path("diabetes-progression"), "rt") as file:
        return measured, np.loadtxt(file)


__all__ = ["COLUMNS", "diabetes"]
