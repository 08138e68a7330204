"""Work arrays that lie far from all others, so that the same numbers in give the same bits out wherever the heap puts them.

A vectorised loop that writes begins with a test whether its arrays may overlap, and takes its scalar version, which sums in
another order, where they start within a few hundred bytes of each other: small arrays that the heap puts side by side.
Whatever a loop writes beside a sum is therefore allocated here.
"""

# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled

# Entries on either side: more than any vector width times unrolling.
_PAD = 128


@compiled
def apart(size):
    """An uninitialised float64 array (size,)."""
    return np.empty(size + 2 * _PAD)[_PAD : _PAD + size]


@compiled
def apart_like(size, array):
    """An uninitialised array (size,) of the type of another."""
    return np.empty(size + 2 * _PAD, array.dtype)[_PAD : _PAD + size]


@compiled
def copied(array):
    """A copy of an array (m,)."""
    out = np.empty(array.size + 2 * _PAD, array.dtype)[_PAD : _PAD + array.size]
    out[:] = array
    return out


def zeros_apart(*shape: int, dtype: type = np.float64) -> np.ndarray:
    """Zeros of a shape, for outputs that compiled loops add to."""
    size = int(np.prod(shape))
    return np.zeros(size + 2 * _PAD, dtype)[_PAD : _PAD + size].reshape(shape)
