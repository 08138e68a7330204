"""Designs: counts, uniformity of the draws, and what each design never mixes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from discrepancy.inference.designs import Design, make_design

STRATA = (["u", "u", "v", "v", "v"], ["u", "v", "v"])


def designs() -> dict[str, tuple[Design, int]]:
    return {
        "rows": (make_design(3, 4), math.comb(7, 3)),
        "strata": (make_design(5, 3, strata=STRATA), math.comb(3, 2) * math.comb(5, 3)),
        "blocks": (make_design(4, 5, blocks=([0, 0, 1, 1], [0, 0, 1, 2, 2])), math.comb(5, 2)),
        "blocks in strata": (
            make_design(4, 4, blocks=([0, 0, 1, 2], [5, 6, 7, 7]), strata=([1, 1, 1, 2], [1, 2, 2, 2])),
            math.comb(3, 2) * math.comb(3, 1),
        ),
        "pairs": (make_design(4, 4, paired=True), 2**4),
        "blocks of pairs": (make_design(5, 5, paired=True, blocks=["a", "b", "a", "c", "c"]), 2**3),
    }


@pytest.mark.parametrize("name", designs())
def test_every_arrangement_once_and_drawn_uniformly(name: str) -> None:
    design, size = designs()[name]
    assert design.size == size
    every = [tuple(row) for row in design.every()]
    assert len(every) == len(set(every)) == size
    assert tuple(design.observed()[0]) in set(every)
    counts = Counter(tuple(row) for row in design.draw(100 * size, np.random.default_rng(0)))
    assert set(counts) == set(every)
    assert chisquare([counts[row] for row in every]).pvalue > 1e-3


def test_draws_do_not_depend_on_chunks() -> None:
    design, _ = designs()["strata"]
    whole = design.draw(20, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    assert (np.concatenate([design.draw(7, rng), design.draw(13, rng)]) == whole).all()


def test_strata_keep_their_counts_and_blocks_stay_whole() -> None:
    strata = np.array([0, 0, 1, 1, 1, 0, 1, 1])
    drawn = make_design(5, 3, strata=(strata[:5], strata[5:])).draw(200, np.random.default_rng(1))
    assert (drawn[:, strata == 0].sum(1) == 2).all()
    assert (drawn[:, strata == 1].sum(1) == 3).all()
    drawn = make_design(4, 4, blocks=([0, 0, 1, 1], [0, 0, 1, 1])).draw(200, np.random.default_rng(1))
    assert (drawn[:, ::2] == drawn[:, 1::2]).all()
    drawn = make_design(3, 3, paired=True).draw(50, np.random.default_rng(1))
    assert (drawn[:, :3] != drawn[:, 3:]).all()


def test_large_designs_do_not_count_forever() -> None:
    assert make_design(10**5, 10**5).size == math.inf
    assert make_design(40, 40, paired=True).size == math.inf


def test_a_large_split_has_the_right_number_of_rows() -> None:
    drawn = make_design(3000, 5000).draw(20, np.random.default_rng(0))
    assert (drawn.sum(1) == 3000).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paired": True}, "as many rows"),
        ({"strata": [0, 1]}, "one label for each"),
        ({"strata": "ab"}, "pair of label arrays"),
        ({"blocks": ([0, 0], [0, 1, 2])}, "each of the 3 rows"),
        ({"blocks": ([0, 0, 1], [0, 0, 1, 1]), "strata": ([1, 2, 1], [1, 1, 1, 1])}, "lies in two"),
        ({"strata": ([1.0, np.nan, 2.0], [1.0, 1.0, 2.0, 2.0])}, "missing labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_design(3, 4, **options)  # type: ignore[arg-type]


def test_pairs_refuse_strata() -> None:
    with pytest.raises(ValueError, match="leave strata out"):
        make_design(3, 3, paired=True, strata=([0, 0, 1], [0, 0, 1]))
