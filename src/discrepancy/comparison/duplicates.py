"""Rows that occur more than once: the same record exported twice makes every p-value too small."""

from __future__ import annotations

import numpy as np

from discrepancy.comparison.cells.hashes import fingerprints, mix
from discrepancy.comparison.reading.table import RawTable

SHARE = 0.05  # of exact duplicates above which it is said


def row_fingerprints(table: RawTable) -> np.ndarray:
    """One uint64 a row that depends on all its cells and their columns; linear in cells."""
    h = np.zeros(table.rows, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place, column in enumerate(table.columns.values()):
            h = mix(h * np.uint64(0x100000001B3) + fingerprints(column) + np.uint64(place))
    return h


def duplicate_note(table: RawTable, which: str) -> str | None:
    """A sentence if over 5 % of a table's rows repeat an earlier one, and more than its columns would repeat by chance.

    By chance: were the columns independent, two rows would be equal with probability prod_j sum_k p_jk^2, so that a
    table of a few coarse columns repeats itself innocently. Linear in cells, plus a sort of the rows.
    """
    if table.rows < 20 or not table.columns:
        return None
    distinct = len(np.unique(row_fingerprints(table)))
    share = 1 - distinct / table.rows
    if share <= SHARE:
        return None
    log_match = 0.0
    for column in table.columns.values():
        counts = np.unique(fingerprints(column), return_counts=True)[1] / table.rows
        log_match += float(np.log(np.sum(counts**2)))
        if log_match < -60:
            break
    # The share of rows that an earlier row equals, if matches were as rare as under independence.
    expected = 1 - np.exp(-0.5 * table.rows * np.exp(log_match))
    if share <= 2 * expected:
        return None
    return (
        f"{share:.0%} of the rows of the {which} table repeat an earlier row exactly: if records were exported twice, p-values "
        "are too small; name their key with --cluster."
    )
