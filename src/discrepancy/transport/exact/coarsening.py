"""Where to start on a cost matrix that comes without points: its reduction, or a hierarchy of representatives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from discrepancy.transport.exact.assignment import assignment_start
from discrepancy.transport.exact.columns import Start, candidate_arcs, every_arc, generate, greedy_start, least_in_rows
from discrepancy.transport.exact.matrix import CostMatrix

_CELL = 4  # members of a cell, on each side: a level has a sixteenth of the entries of the level below
_LARGEST = 4_000_000  # entries of a coarse matrix: beyond, cells are larger
_COORDINATES = 32  # entries of a row that place it among the other rows
_SMALL = 64  # points of a side that are not coarsened further
_EVERY_PAIR = 20_000  # entries up to which the simplex on all pairs is quicker than a hierarchy
_SERVED = 0.87  # share of the mass that the candidates of the reduced matrix serve, above which reduction is a good start


def reduced_potentials(matrix: CostMatrix) -> tuple[np.ndarray, np.ndarray]:
    """f_i = min_j c_ij, then g_j = min_i c_ij - f_i: feasible, and every row and column has an entry of reduced cost 0.

    A row without a finite entry gets f = 0. Two passes over the matrix.
    """
    from discrepancy._loops.simplex.smallest import lower_to_columns

    n, m = matrix.shape
    f, g = np.empty(n), np.full(m, np.inf)
    for first, block in matrix.blocks():
        f[first : first + len(block)] = block.min(1)
    f[f == np.inf] = 0.0
    for first, block in matrix.blocks():
        lower_to_columns(block, first, f, g)
    g[g == np.inf] = 0.0
    return f, g


def cells(coordinates: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, k) split at the median of their widest coordinate until a cell has at most `size` members.

    Returns the points in the order of the cells and the start of each cell in it. All cells of a level split together:
    O(n log n) a level.
    """
    n = len(coordinates)
    order, starts = np.arange(n), np.zeros(1, np.int64)
    while True:
        sizes = np.diff(np.append(starts, n))
        if sizes.max() <= size:
            return order, starts
        ordered = coordinates[order]
        spread = np.maximum.reduceat(ordered, starts) - np.minimum.reduceat(ordered, starts)
        key = ordered[np.arange(n), np.repeat(spread.argmax(1), sizes)]
        order = order[np.lexsort((key, np.repeat(np.arange(len(starts)), sizes)))]
        split = sizes > 1
        starts = np.sort(np.concatenate([starts, (starts + sizes // 2)[split]]))


def representatives(
    matrix: CostMatrix, weights: np.ndarray, generator: np.random.Generator, side: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(member that stands for each cell of up to `size`, the cell's integer mass) of the rows (side 0) or columns (side 1).

    Points are placed by their costs to a few points of the other side, as by coordinates; the heaviest member of a cell
    stands for it. Integer masses add up, so that the coarse problem is balanced too.
    """
    other = matrix.shape[1 - side]
    chosen = np.sort(generator.choice(other, min(_COORDINATES, other), replace=False))
    every = np.arange(matrix.shape[side])
    coordinates = matrix.part(every, chosen) if side == 0 else np.ascontiguousarray(matrix.part(chosen).T)
    order, starts = cells(_without_infinities(coordinates), size)
    mass = np.add.reduceat(weights[order], starts)
    cell = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    heaviest_first = np.lexsort((-weights[order], cell))
    return order[heaviest_first[starts]], mass


def cold_start(matrix: CostMatrix, a: np.ndarray, b: np.ndarray, generator: np.random.Generator) -> Start:
    """Candidates, flows and potentials near the optimal ones for integer weights a, b > 0.

    Those of an assignment where one is found quickly. Else from the reduced matrix, where its candidates serve most of the
    mass. Else a problem of a sixteenth of the size is solved between representatives, itself started in the same way, and its
    potentials extended by g_j = min over representatives i of c_ij - f_i, f_i = min_j c_ij - g_j. A few passes over the matrix.
    """
    assigned = assignment_start(matrix, a, b)
    if assigned is not None:
        return assigned
    f, g = reduced_potentials(matrix)
    start, served = greedy_start(candidate_arcs(matrix, f, g), a, b, f, g)
    n, m = matrix.shape
    if served >= _SERVED:
        return start
    if n * m <= _EVERY_PAIR:
        return replace(start, arcs=every_arc(matrix))
    if min(n, m) <= _SMALL:
        return start
    f, g = extended_potentials(matrix, a, b, generator)
    start, _ = greedy_start(candidate_arcs(matrix, f, g), a, b, f, g)
    return start


def extended_potentials(
    matrix: CostMatrix, a: np.ndarray, b: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Potentials f (n,), g (m,) from those of the problem between representatives, in which nothing is forbidden."""
    from discrepancy._loops.simplex.smallest import lower_to_columns

    n, m = matrix.shape
    size = max(_CELL, math.ceil(math.sqrt(n * m / _LARGEST)))
    rows, mass_a = representatives(matrix, a, generator, 0, size)
    columns, mass_b = representatives(matrix, b, generator, 1, size)
    coarse = CostMatrix(_without_infinities(matrix.part(rows, columns)))
    f = generate(coarse, cold_start(coarse, mass_a, mass_b, generator)).f
    g = np.full(m, np.inf)
    for first, strip in matrix.chosen_rows(rows).blocks():
        lower_to_columns(strip, first, f, g)
    allowed = np.isfinite(g)
    g[~allowed] = g[allowed].max(initial=0.0)  # no representative may go there: an estimate is all that is lost
    f = least_in_rows(matrix, g)
    f[~np.isfinite(f)] = 0.0
    return f, g


def _without_infinities(costs: np.ndarray) -> np.ndarray:
    """Forbidden pairs at twice the largest finite cost: enough for an estimate, which is all these costs are used for."""
    if np.isfinite(costs).all():
        return costs
    finite = costs[np.isfinite(costs)]
    return np.where(np.isfinite(costs), costs, 2 * np.abs(finite).max() if len(finite) else 0.0)


__all__ = ["cells", "cold_start", "extended_potentials", "reduced_potentials", "representatives"]
