"""Size of comparisons with profiles: null pairs of tables, one of them (or both) known by its profile only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from discrepancy import compare
from discrepancy.comparison.profile import profile

pytestmark = pytest.mark.calibration

PAIRS = 200


def table(rng: np.random.Generator, n: int) -> dict[str, Any]:
    z = rng.normal(size=n)
    return {
        "normal": z,
        "partner": 0.5 * z + rng.normal(size=n),
        "skewed": rng.lognormal(size=n),
        "count": rng.poisson(4, size=n),
        "city": rng.choice(["Rome", "Oslo", "Lima"], size=n),
    }


@pytest.mark.parametrize(
    ("n", "m", "which"), [(1_500, 1_500, "data"), (3_000, 1_200, "data"), (3_000, 3_000, "like"), (3_000, 3_000, "own knots")]
)
@pytest.mark.timeout(7_200)
def test_null_pairs(record: Any, n: int, m: int, which: str) -> None:
    flags = 0
    for seed in range(PAIRS):
        rng = np.random.default_rng([seed, n, m])
        reference = profile(table(rng, n), seed=seed)
        current: Any = table(rng, m)
        if which != "data":
            current = profile(current, like=reference if which == "like" else None, seed=seed)
        flags += compare(reference, current, delta=0.0, permutations=999, seed=seed).drift
    cell = f"any flag among 5 columns and joint, delta 0, profile of {n:,} rows against {m:,} ({which})"
    # Interpolated knots are tested less their error bound, which only lowers the size.
    assert record.size("profile", cell, rejections=flags, draws=PAIRS, conservative=True)["held"]
