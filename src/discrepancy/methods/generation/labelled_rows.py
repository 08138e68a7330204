"""Rows with class labels, checked once: what every classifier of this field starts from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from discrepancy._validate import sample


@dataclass(frozen=True)
class LabelledRows:
    """X (n, d) float64, finite, labels y (n,) as given, `classes` (K,) sorted, and `codes` (n,) with y = classes[codes]."""

    X: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: np.ndarray) -> LabelledRows:
        """Some of the rows, with the classes of all of them."""
        return LabelledRows(self.X[index], self.y[index], self.classes, self.codes[index])


def labelled_rows(X: Any, y: Any, name: str = "X", *, classes: np.ndarray | None = None) -> LabelledRows:
    """X (n, d) and y (n,) validated together; with `classes` given, labels outside them are refused.

    Raises TypeError for a sparse matrix (naming .toarray()), ValueError for rows that do not pair, non-finite values, one class
    only, and labels with a fractional part: those are a regression target.
    """
    if hasattr(X, "tocsr") and hasattr(X, "toarray"):
        raise TypeError(f"{name} is a sparse matrix: generators need dense rows, pass {name}.toarray()")
    dense = sample(X, name).detach().cpu().double().numpy()
    labels = np.asarray(y.detach().cpu() if isinstance(y, torch.Tensor) else y)
    if dense.ndim != 2 or labels.ndim != 1 or len(dense) != len(labels):
        raise ValueError(f"{name} must be (n, d) and its labels (n,), row by row, got shapes {dense.shape} and {labels.shape}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError(f"the labels of {name} have {int((~np.isfinite(labels)).sum())} value(s) that are not finite")
        if (labels != np.round(labels)).any():
            raise ValueError(
                f"the labels of {name} have fractional parts: they are a regression target, and generators here are conditional "
                "on a class; bin the target first"
            )
    if classes is None:
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"the labels of {name} have one class only, {classes[0]!r}: a classifier needs at least two")
        return LabelledRows(dense, labels, classes, codes)
    known = np.isin(labels, classes)
    if not known.all():
        strange = np.unique(labels[~known])[:5].tolist()
        raise ValueError(f"{name} has {int((~known).sum())} label(s) outside the classes {classes.tolist()}: {strange}")
    return LabelledRows(dense, labels, classes, np.searchsorted(classes, labels))


def allocation(count: int, shares: np.ndarray) -> np.ndarray:
    """`count` split in proportion to `shares`, by largest remainders: whole numbers that sum to count."""
    exact = count * shares / shares.sum()
    whole = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: count - int(whole.sum())]] += 1
    return whole


class MemorisedRowsWarning(UserWarning):
    """A generator repeats rows that it was fitted on."""


def duplicate_share(fake: np.ndarray, real: np.ndarray) -> float:
    """Which share of the fake rows equals a real row in every coordinate."""
    if not len(fake):
        return 0.0
    known = {row.tobytes() for row in np.ascontiguousarray(real + 0.0)}
    return sum(row.tobytes() in known for row in np.ascontiguousarray(fake + 0.0)) / len(fake)


def warn_of_copies(share: float, *, stacklevel: int = 3) -> None:
    """Warn where more than one fake row in a hundred is a copy: copies reweight the sample and add nothing to it."""
    if share > 0.01:
        warnings.warn(
            f"{share:.0%} of the generated rows are copies of real ones: copies reweight the sample and add nothing to it",
            MemorisedRowsWarning,
            stacklevel=stacklevel,
        )


__all__ = ["LabelledRows", "MemorisedRowsWarning", "allocation", "duplicate_share", "labelled_rows", "warn_of_copies"]
