"""Counts of levels in little memory: exact while they are few, with a stated error beyond."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile import levels
from discrepancy.comparison.profile.levels import LISTED, OTHER, LevelCounts, LevelTally
from discrepancy.comparison.profile.pairs import counted_pair
from discrepancy.comparison.profile.profile import ColumnProfile

CELLS = st.lists(st.sampled_from(["", "a", "b", "é", "10", "9", "(other levels)"]), min_size=1, max_size=40)


def counted(cells: list[str], pieces: int = 1) -> LevelCounts:
    tally = LevelTally()
    for piece in np.array_split(np.array(cells, dtype=object), pieces):
        tally.add(piece.tolist(), piece == "")
    return tally.finish()


def column(counts: LevelCounts) -> ColumnProfile:
    return ColumnProfile("c", Kind.CATEGORICAL, "share of rows", counts, ("text",))


@settings(max_examples=60, deadline=None)
@given(CELLS, CELLS, CELLS, st.integers(1, 3))
def test_few_levels_are_counted_exactly(x: list[str], y: list[str], z: list[str], pieces: int) -> None:
    a, b, c = counted(x, pieces), counted(y), counted(z)
    for whole in (levels.merged(levels.merged(a, b), c), levels.merged(a, levels.merged(c, b))):
        truth = Counter(x + y + z)
        assert whole.missing == truth.pop("", 0)
        assert {k: v for k, v in whole.as_mapping().items() if v} == truth
        assert whole.exact
        assert whole.rows == len(x + y + z)


def test_numbers_are_in_order_of_size() -> None:
    assert counted(["10", "9", "2"]).names == ("2", "9", "10")
    assert counted(["b", "10", "a"]).names == ("10", "a", "b")


@pytest.fixture(scope="module")
def zipf() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    draws = [rng.zipf(1.15, size=60_000) for _ in range(2)]
    return [f"w{v}" for v in draws[0].tolist()], [f"w{v}" for v in draws[1].tolist()]


def check(counts: LevelCounts, cells: list[str]) -> None:
    truth = Counter(cells)
    assert counts.error > 0
    assert len(counts.names) <= LISTED
    assert counts.rows == len(cells)
    for name, count in counts.as_mapping().items():
        assert count <= truth[name] <= count + counts.error
    for name, count in truth.most_common(20):
        assert name in counts.names, (name, count)


def test_many_levels_are_sketched_within_the_error(zipf: tuple[list[str], list[str]]) -> None:
    a, b = (counted(cells, 7) for cells in zipf)
    assert not a.exact
    check(a, zipf[0])
    check(levels.merged(a, b), zipf[0] + zipf[1])
    small = ["w1"] * 5_000 + ["new"] * 4_000
    check(levels.merged(counted(small), a), small + zipf[0])
    check(levels.merged(a, counted(small)), small + zipf[0])


def test_the_error_covers_the_total_variation(zipf: tuple[list[str], list[str]]) -> None:
    a, b = (counted(cells, 3) for cells in zipf)
    pair = counted_pair(column(a), column(b))
    shown = [item["level"] for item in pair.summary["levels"]]
    assert OTHER in shown
    names = [n for n in dict.fromkeys([*a.names, *b.names]) if n in a.names and n in b.names]
    p, q = (np.array([Counter(c)[n] / len(c) for n in names]) for c in zipf)
    p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
    truth = {"TV": np.abs(p - q).sum() / 2, "M": np.abs(p - q).max()}
    x, y = (side.mass / side.total for side in pair.counts.sides)
    assert abs(np.abs(x - y).sum() / 2 - truth["TV"]) <= pair.counts.errors["TV"] + 1e-12
    assert abs(np.abs(x - y).max() - truth["M"]) <= pair.counts.errors["M"] + 1e-12
    assert pair.counts.errors["TV"] < 0.25
