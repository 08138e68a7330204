"""Row-wise sorting of NumPy arrays, with the permutation where it is wanted.

NumPy sorts values with SIMD instructions but permutations without: for float32 the value and its index are packed into one 64-bit
integer whose order is that of the value, so that the fast value sort yields the permutation too.
"""

from __future__ import annotations

import numpy as np

_LOW = np.int64(0xFFFFFFFF)


def sort_rows(rows: np.ndarray) -> np.ndarray:
    """Each row (r, n) sorted ascending, a new array. n log n time."""
    return np.sort(rows, axis=-1)


def sort_rows_with_order(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row (r, n) sorted ascending, and the int64 indices that sort it; equal float32 values keep their order."""
    if rows.dtype != np.float32:
        order = np.argsort(rows, axis=-1)
        return np.take_along_axis(rows, order, -1), order
    bits = np.ascontiguousarray(rows).view(np.int32)
    # A negative float's bit pattern grows with its magnitude: flipping its other 31 bits makes the integer order that of the
    # values.
    key = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    packed = (key.astype(np.int64) << 32) | np.arange(rows.shape[-1], dtype=np.int64)
    packed.sort(axis=-1)
    order = packed & _LOW
    key = (packed >> 32).astype(np.int32)
    return (key ^ ((key >> 31) & np.int32(0x7FFFFFFF))).view(np.float32), order
