"""The sketches of a profile: KLL for quantiles, Misra-Gries for frequent items. They come with the `scale` extra.

Sources: Karnin, Lang and Liberty (2016); Misra and Gries (1982).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError

K = 800  # accuracy of the quantile sketch: a rank is known to 0.35 %, with 99 % confidence
LOG2_ITEMS = 13  # the item sketch counts up to 0.75 * 2^13 levels; a count is known to 3.5 / 2^13 of the rows at worst
INSTALL = "pip install 'discrepancy[scale]'"


def datasketches() -> Any:
    """The package of the sketches; DataError with the install line where it is missing."""
    try:
        import datasketches as package
    except ImportError:
        raise DataError(f"a profile needs the packages datasketches and safetensors: {INSTALL}") from None
    return package


def quantile_sketch() -> Any:
    """An empty KLL sketch of float64 values."""
    return datasketches().kll_doubles_sketch(K)


def item_sketch() -> Any:
    """An empty sketch of frequent strings."""
    return datasketches().frequent_strings_sketch(LOG2_ITEMS)


def restored(kind: str, data: bytes) -> Any:
    """A sketch ("quantiles" or "items") from its bytes; DataError for bytes that are none."""
    package = datasketches()
    cls = package.kll_doubles_sketch if kind == "quantiles" else package.frequent_strings_sketch
    try:
        return cls.deserialize(data)
    except Exception:  # the binding raises several types of its own
        raise DataError("a sketch in the profile is damaged: make the profile again") from None


def ranks(data: bytes, values: np.ndarray) -> tuple[np.ndarray, float]:
    """The share of values <= each of increasing `values` (k,) by a quantile sketch, and its error bound (99 %).

    The error is 0 while the sketch still holds every value.
    """
    sketch = restored("quantiles", data)
    share = np.asarray(sketch.get_cdf(values.tolist(), True))[:-1]
    return share, float(sketch.normalized_rank_error(False)) if sketch.is_estimation_mode() else 0.0
