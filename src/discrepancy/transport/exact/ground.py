"""A cost and two clouds as the compiled loops take them: a metric, and points centred and scaled so that nothing over- or
underflows and no digits are lost far from the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.costs import Cosine, Cost, Euclidean, Manhattan, PowerCost, Sphere, SquaredEuclidean


@dataclass(frozen=True)
class Ground:
    """x (n, d), y (m, d) in float64, their metric (a number of `_loops.pricing.ground`) with its power, and the unit: a cost
    of the original points is unit times the metric of these. `flat` says that means of points are points."""

    x: np.ndarray
    y: np.ndarray
    metric: int
    power: float
    unit: float
    flat: bool = True


def compiled_ground(x: np.ndarray, y: np.ndarray, cost: Cost) -> Ground | None:
    """The cost in compiled form, or None for a cost that the loops do not know. O((n + m) d).

    Subclasses count as unknown: they may mean something else.
    """
    from discrepancy._loops.pricing import ground as loops

    kind = type(cost)
    power = float(cost.p) if isinstance(cost, PowerCost) else 1.0
    metrics = {SquaredEuclidean: loops.SQUARED, Euclidean: loops.EUCLIDEAN, Manhattan: loops.MANHATTAN, PowerCost: loops.POWER}
    if kind in metrics:
        metric = {1.0: loops.EUCLIDEAN, 2.0: loops.SQUARED}.get(power, loops.POWER) if kind is PowerCost else metrics[kind]
        x, y, exponent = _standardised(x, y)
        assert cost.degree is not None
        return Ground(x, y, metric, power, _power_of_two(exponent * cost.degree))
    if kind is Cosine:  # half the squared distance of the directions
        return Ground(_directions(x) / math.sqrt(2.0), _directions(y) / math.sqrt(2.0), loops.SQUARED, 1.0, 1.0)
    if kind is Sphere:
        return Ground(np.array(x, np.float64), np.array(y, np.float64), loops.GEODESIC, 1.0, 1.0, flat=False)
    return None


def _power_of_two(exponent: float) -> float:
    """2^exponent, +inf or 0 where it leaves the range of floats."""
    return 2.0**exponent if exponent < 1024 else math.inf


def _standardised(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Both clouds divided by a power of two and centred at their common mean, with the exponent: entries are at most 2 in size.

    A power of two changes no digit. It is taken from the largest entry before centring and again from what is left.
    """
    (x, y), first = _scaled(np.array(x, np.float64), np.array(y, np.float64))
    centre = (x.sum(0) + y.sum(0)) / (len(x) + len(y))
    x -= centre
    y -= centre
    (x, y), second = _scaled(x, y)
    return x, y, first + second


def _scaled(x: np.ndarray, y: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    largest = max(max(-float(p.min()), float(p.max())) for p in (x, y))
    if largest == 0.0:
        return (x, y), 0
    exponent = math.frexp(largest)[1]
    np.ldexp(x, -exponent, out=x)
    np.ldexp(y, -exponent, out=y)
    return (x, y), exponent


def _directions(x: np.ndarray) -> np.ndarray:
    """Rows of norm one."""
    x = np.array(x, np.float64)
    x /= np.abs(x).max(1, keepdims=True)
    x /= np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return x


__all__ = ["Ground", "compiled_ground"]
