"""The statistics of one column: cells, members, null, interval, tail, and the display data."""

from discrepancy.comparison.columns.column import Facts, compare_column, compare_counts
from discrepancy.comparison.columns.counts import KnotCounts, Side, count_column
from discrepancy.comparison.columns.draws import Draws
from discrepancy.comparison.columns.knots import Line, choose_knots, cosine_probabilities, place

__all__ = [
    "Draws",
    "Facts",
    "KnotCounts",
    "Line",
    "Side",
    "choose_knots",
    "compare_column",
    "compare_counts",
    "cosine_probabilities",
    "count_column",
    "place",
]
