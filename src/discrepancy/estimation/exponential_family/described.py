"""What families that a user describes by functions share: a starting parameter, labels, and a checked statistic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from discrepancy._validate import sample
from discrepancy.estimation.exponential_family.family import DOUBLE


def checked_start(start: Any, labels: tuple[str, ...] | None, **functions: Any) -> tuple[float, ...]:
    """start as numbers; TypeError for functions that cannot be called, ValueError for no numbers or labels that do not fit."""
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}")
    numbers = tuple(float(v) for v in start)
    if not numbers:
        raise ValueError("start must hold one number for each statistic, got none")
    if labels is not None and len(labels) != len(numbers):
        raise ValueError(f"labels must be {len(numbers)}, one for each statistic, got {len(labels)}")
    return numbers


def names_of(start: tuple[float, ...], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    """The labels, or xi0, xi1, ..."""
    return labels if labels is not None else tuple(f"xi{k}" for k in range(len(start)))


def checked_statistic(function: Callable[[Tensor], Tensor], x: Any, p: int) -> Tensor:
    """function(x) as (n, p) float64 for a sample x; ValueError where it is not."""
    points = sample(x, like=DOUBLE).double()
    found = function(points)
    if not isinstance(found, Tensor) or found.shape != (len(points), p):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"the statistic of {len(points)} points must be of shape ({len(points)}, {p}), got {got}")
    return found.double()


__all__ = ["checked_start", "checked_statistic", "names_of"]
