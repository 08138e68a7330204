"""A plan as Newton's method sees it: dense or kept in compressed rows, behind the same four operations.

Newton and conjugate gradients are written once; which loops they run over is decided by the type when they are compiled.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.entropic.dense import column_levels, evaluate_dense, normal_product_dense, square_sums_dense
from discrepancy._loops.entropic.sparse import evaluate_sparse, normal_product_sparse, square_sums_sparse

_OPTIONS = {"nogil": True, "fastmath": FAST}


class Dense(NamedTuple):
    """cost (n, m) float64 and a buffer for the plan (n, m), float32 or float64."""

    cost: np.ndarray
    plan: np.ndarray


class Sparse(NamedTuple):
    """pointers (n + 1,) int64, targets (k,) uint32, cost (k,) and a buffer for the plan (k,), float64."""

    pointers: np.ndarray
    targets: np.ndarray
    cost: np.ndarray
    plan: np.ndarray


def _holds(system: Any, kind: type) -> bool:
    return isinstance(system, types.BaseNamedTuple) and getattr(system, "instance_class", None) is kind


def evaluate(system, scale, h, a, columns, levels):
    """The plan, its column sums and row levels at h; returns -<a, levels>."""
    raise NotImplementedError("compiled code only")


def square_sums(system, inverse_a, out):
    """Writes sum_i P_ij^2 / a_i."""
    raise NotImplementedError("compiled code only")


def normal_product(system, inverse_a, p, out):
    """Writes P^T diag(1/a) P p."""
    raise NotImplementedError("compiled code only")


def lift(system, scale, h, a, b, columns, levels):
    """Sinkhorn's update of h where a column sum underflows, by the logarithm of the sum; a column of the kept entries has no
    other remedy than a bounded step."""
    raise NotImplementedError("compiled code only")


@overload(evaluate, jit_options=_OPTIONS)
def _evaluate(system, scale, h, a, columns, levels):
    if _holds(system, Dense):
        return lambda system, scale, h, a, columns, levels: evaluate_dense(system.cost, system.plan, scale, h, a, columns, levels)
    return lambda system, scale, h, a, columns, levels: evaluate_sparse(
        system.pointers, system.targets, system.cost, system.plan, scale, h, a, columns, levels
    )


@overload(square_sums, jit_options=_OPTIONS)
def _square_sums(system, inverse_a, out):
    if _holds(system, Dense):
        return lambda system, inverse_a, out: square_sums_dense(system.plan, inverse_a, out)
    return lambda system, inverse_a, out: square_sums_sparse(system.pointers, system.targets, system.plan, inverse_a, out)


@overload(normal_product, jit_options=_OPTIONS)
def _normal_product(system, inverse_a, p, out):
    if _holds(system, Dense):
        return lambda system, inverse_a, p, out: normal_product_dense(system.plan, inverse_a, p, out)
    return lambda system, inverse_a, p, out: normal_product_sparse(
        system.pointers, system.targets, system.plan, inverse_a, p, out
    )


@overload(lift, jit_options=_OPTIONS)
def _lift(system, scale, h, a, b, columns, levels):
    if _holds(system, Dense):

        def lift_dense(system, scale, h, a, b, columns, levels):
            u = np.log2(a) - levels
            for j in range(h.size):
                if columns[j] < 1e-290:
                    h[j] = np.log2(b[j]) - column_levels(system.cost, scale, u, j)

        return lift_dense

    def lift_sparse(system, scale, h, a, b, columns, levels):
        for j in range(h.size):
            if columns[j] < 1e-290:
                h[j] += 900.0

    return lift_sparse
