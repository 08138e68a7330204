"""The start flow of a level from the plan of the coarser one: the cheaper of a local and a global matching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discrepancy.transport.exact.pricing import Pricing

# Pairs of children that are priced at a time: what bounds the memory of the local matching.
_PAIRS = 1 << 20


@dataclass(frozen=True)
class Forest:
    """An acyclic set of arcs with positive integer flows that serve all weights: rows, columns, flows (k,) int64, costs (k,)."""

    rows: np.ndarray
    columns: np.ndarray
    flows: np.ndarray
    costs: np.ndarray

    def excess(self, u: np.ndarray, v: np.ndarray) -> float:
        """sum flow (c - u - v): how much the flow costs above the value of the potentials."""
        return float((self.flows * (self.costs - u[self.rows] - v[self.columns])).sum())


@dataclass(frozen=True)
class CoarsePlan:
    """A plan between cells: rows, columns, flows (k,), a forest, and the bounds of the children of every row and column cell."""

    rows: np.ndarray
    columns: np.ndarray
    flows: np.ndarray
    row_children: np.ndarray
    column_children: np.ndarray


def match_locally(coarse: CoarsePlan, pricing: Pricing, a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> Forest:
    """Inside every coarse arc, the largest first, match children by smallest reduced cost. O(pairs of children)."""
    from discrepancy._loops.refinement import child_pairs, match_children

    order = np.argsort(-coarse.flows, kind="stable")
    rows, columns, flows = coarse.rows[order], coarse.columns[order], coarse.flows[order]
    sizes = np.diff(coarse.row_children)[rows] * np.diff(coarse.column_children)[columns]
    begin = np.r_[0, np.cumsum(sizes)]
    most = len(a) + len(b) + len(rows)
    out_rows, out_columns, out_flows = (np.empty(most, np.int64) for _ in range(3))
    left_a, left_b, count, first = a.copy(), b.copy(), 0, 0
    while first < len(rows):
        last = max(first + 1, int(np.searchsorted(begin, begin[first] + _PAIRS, side="right")) - 1)
        part, here = slice(first, last), begin[first : last + 1] - begin[first]
        i, j = np.empty(here[-1], np.int32), np.empty(here[-1], np.int32)
        child_pairs(rows[part], columns[part], coarse.row_children, coarse.column_children, here, i, j)
        keys = pricing.pairs(i, j) - u[i] - v[j]
        count = match_children(here, i, j, keys, flows[part], left_a, left_b, out_rows, out_columns, out_flows, count)
        first = last
    return forest_of(pricing, out_rows[:count], out_columns[:count], out_flows[:count])


def match_globally(
    rows: np.ndarray, columns: np.ndarray, excess: np.ndarray, pricing: Pricing, a: np.ndarray, b: np.ndarray
) -> Forest:
    """Candidate arcs take flow in the order of their excess c - u - v, what is left goes along the k-d order. O(k log k)."""
    from discrepancy._loops.simplex import greedy

    order = np.argsort(excess, kind="stable")
    return forest_of(pricing, *greedy(rows[order], columns[order], a, b)[:3])


def match_in_order(pricing: Pricing, a: np.ndarray, b: np.ndarray) -> Forest:
    """The north-west corner rule along the k-d order."""
    from discrepancy._loops.simplex import north_west

    return forest_of(pricing, *north_west(a, b)[:3])


def forest_of(pricing: Pricing, rows: np.ndarray, columns: np.ndarray, flows: np.ndarray) -> Forest:
    """Arcs and flows with their costs."""
    return Forest(rows, columns, flows, pricing.pairs(rows, columns))


__all__ = ["CoarsePlan", "Forest", "forest_of", "match_globally", "match_in_order", "match_locally"]
