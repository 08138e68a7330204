"""The order in which a large list of arcs is worked through: cell by cell, then where violations are.

A pivot on all arcs walks cycles and scans arcs that lie all over memory. Most of what must be done is local: solved inside cells
of a thousand rows first, then in cells four times as large and so on, the same pivots touch little at a time (measured: 12.6 s
became 5.5 s at n = m = 100,000 in the plane). The optimum is the same: a sweep only chooses which arcs may enter now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from discrepancy.transport.exact.hierarchy import cell_bounds

if TYPE_CHECKING:
    from discrepancy._loops.simplex import Tree

# Rows of the smallest cells, and the growth of cells from one sweep to the next as a power of two.
_CELL = 1000
_STEP = 2
# Arcs that are looked at or skipped together, and the number from which skipping is worth its own scan.
_BLOCK = 256
_MANY_ARCS = 1 << 16
# Scans after which the rest is left to the plain search.
_MAX_SCANS = 60


def sweep_cells(tree: Tree, n: int, rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, partner: np.ndarray) -> None:
    """Solve on the arcs inside ever larger cells of rows, arcs sorted by row; a column belongs to the cell of its partner row.

    partner (m,) is the row that serves the most of each column. Nothing is done for fewer than two cells.
    """
    from discrepancy._loops.simplex import solve_arcs

    depth = (n // _CELL).bit_length() - 1
    while depth > 0:
        bounds = cell_bounds(n, depth)
        first = np.searchsorted(rows, bounds)
        for k in range(len(bounds) - 1):
            part = slice(first[k], first[k + 1])
            owner = partner[columns[part]]
            inside = (owner >= bounds[k]) & (owner < bounds[k + 1])
            solve_arcs(tree, n, rows[part][inside], columns[part][inside], costs[part][inside])
        depth -= _STEP


def solve_where_violated(tree: Tree, n: int, rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, tolerance: float) -> None:
    """Solve on all arcs, most of which hold already: blocks of arcs without a violation are left out, until none has one."""
    from discrepancy._loops.pricing.candidates import mark_blocks
    from discrepancy._loops.simplex import pivots, potentials, solve_arcs

    blocks = -(-len(rows) // _BLOCK)
    for _ in range(_MAX_SCANS if len(rows) >= _MANY_ARCS else 0):
        marked = np.zeros(blocks, np.bool_)
        mark_blocks(rows, columns, costs, *potentials(tree, n), tolerance, _BLOCK, marked)
        if not marked.any():
            return
        if 2 * np.count_nonzero(marked) > blocks:
            break
        chosen = np.flatnonzero(np.repeat(marked, _BLOCK)[: len(rows)])
        before = pivots(tree)
        solve_arcs(tree, n, rows[chosen], columns[chosen], costs[chosen])
        if pivots(tree) == before:
            break
    solve_arcs(tree, n, rows, columns, costs)


def main_partners(rows: np.ndarray, columns: np.ndarray, flows: np.ndarray, m: int) -> np.ndarray:
    """For every column (m,) the row from which it receives the most."""
    partner = np.zeros(m, np.int64)
    order = np.argsort(flows, kind="stable")
    partner[columns[order]] = rows[order]  # of equal places the last assignment stays: the largest flow
    return partner


__all__ = ["main_partners", "solve_where_violated", "sweep_cells"]
