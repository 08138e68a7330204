"""A 64-bit fingerprint a cell: equal cells agree, however wide their chunk was; for counting distinct values and rows."""

from __future__ import annotations

import numpy as np

from discrepancy.comparison.reading.table import NARROW, RawColumn

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0xD1B54A32D192ED03)


def mix(h: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of uint64 that scatters near values."""
    h = h ^ (h >> np.uint64(30))
    h = h * np.uint64(0xBF58476D1CE4E5B9)
    h = h ^ (h >> np.uint64(27))
    h = h * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _of_bytes(values: np.ndarray) -> np.ndarray:
    width = -(-max(1, values.dtype.itemsize) // 8) * 8
    words = values.astype(f"S{width}").view("<u8").reshape(len(values), -1)
    h = np.full(len(values), _ODD)
    for place in range(words.shape[1]):
        word = words[:, place]
        # Words of padding change nothing, so that the fingerprint does not depend on the width of the column.
        h = np.where(word != 0, mix(h ^ (word + np.uint64(place) * _ODD)), h)
    return h


def fingerprints(column: RawColumn) -> np.ndarray:
    """uint64 (n,) of a raw column's cells; missing ones share one value. Linear; of numbers by value, of text by bytes."""
    values = column.values
    kind = values.dtype.kind
    with np.errstate(over="ignore"):
        if kind == "S":
            h = _of_bytes(values)
        elif kind == "O":
            encoded = [cell.encode() for cell in values.tolist()]
            short = np.fromiter((len(cell) <= NARROW for cell in encoded), dtype=bool, count=len(encoded))
            h = np.fromiter((0 if s else hash(cell) for cell, s in zip(encoded, short.tolist())), np.int64, len(encoded)).view(
                np.uint64
            )
            if short.any():
                h[short] = _of_bytes(np.array([cell for cell, s in zip(encoded, short.tolist()) if s], dtype=f"S{NARROW}"))
        elif kind == "M":
            h = mix(values.astype(np.int64).view(np.uint64) + _ODD)
        elif kind in "iu":
            h = mix(values.astype(np.int64 if kind == "i" else np.uint64).view(np.uint64) + _ODD)
        else:
            wide = values.astype(np.float64) + 0.0  # -0.0 becomes 0.0
            h = mix(wide.view(np.uint64) + _ODD)
    return np.where(column.missing, _MISSING, h) if column.missing.any() else h
