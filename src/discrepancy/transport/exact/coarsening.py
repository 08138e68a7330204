"""Potentials to start from, on a cost matrix that comes without points: reduction, or a hierarchy of representatives."""

from __future__ import annotations

import numpy as np

from discrepancy.transport.exact.matrix import CostMatrix

_CELL = 4  # members of a cell, on each side: a level has a sixteenth of the entries of the level below
_COORDINATES = 32  # entries of a row that place it among the other rows
_SMALL = 64  # points of a side that are not coarsened further
_SERVED = 0.55  # share of the mass that the reduced matrix serves at its minima, above which reduction is a good start


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


def share_served(matrix: CostMatrix, a: np.ndarray, b: np.ndarray, f: np.ndarray, g: np.ndarray) -> float:
    """The share of the mass that a greedy flow sends along the smallest reduced cost of each row and column."""
    from discrepancy._loops.simplex import greedy
    from discrepancy._loops.simplex.smallest import smallest_in_columns, smallest_in_rows

    n, m = matrix.shape
    row_value, row_place, row_least = np.full((n, 1), np.inf), np.zeros((n, 1), np.int32), np.empty(n)
    column_value, column_place = np.full((m, 1), np.inf), np.zeros((m, 1), np.int32)
    for first, block in matrix.blocks():
        stop = first + len(block)
        unbounded, count = np.full(len(block), np.inf), np.empty(len(block), np.int64)
        smallest_in_rows(block, g, unbounded, row_value[first:stop], row_place[first:stop], count, row_least[first:stop])
        smallest_in_columns(block, first, f, column_value, column_place)
    rows = np.concatenate([np.arange(n), column_place[:, 0]])
    columns = np.concatenate([row_place[:, 0], np.arange(m)])
    reduced = np.concatenate([row_value[:, 0] - f, column_value[:, 0] - g])
    order = np.argsort(reduced)
    _, _, flows, by_arcs = greedy(rows[order], columns[order], a, b)
    return float(flows[:by_arcs].sum() / flows.sum())


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
    matrix: CostMatrix, weights: np.ndarray, generator: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """(member that stands for each cell, the cell's integer mass) of the rows (side 0) or columns (side 1).

    Points are placed by their costs to a few points of the other side, as by coordinates; the heaviest member of a cell
    stands for it. Integer masses add up, so that the coarse problem is balanced too.
    """
    other = matrix.shape[1 - side]
    chosen = np.sort(generator.choice(other, min(_COORDINATES, other), replace=False))
    every = np.arange(matrix.shape[side])
    coordinates = matrix.part(every, chosen) if side == 0 else np.ascontiguousarray(matrix.part(chosen).T)
    order, starts = cells(_without_infinities(coordinates), _CELL)
    mass = np.add.reduceat(weights[order], starts)
    cell = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    heaviest_first = np.lexsort((-weights[order], cell))
    return order[heaviest_first[starts]], mass


def estimated_potentials(
    matrix: CostMatrix, a: np.ndarray, b: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Potentials f (n,), g (m,) near the optimal ones for integer weights a, b > 0; feasible only where they are used so.

    The reduced matrix where it already serves most of the mass at its minima. Else a problem of a sixteenth of the size is
    solved between representatives, itself started in the same way, and its potentials extended by
    g_j = min over representatives i of c_ij - f_i, f_i = min_j c_ij - g_j. A few passes over the matrix.
    """
    f, g = reduced_potentials(matrix)
    if min(matrix.shape) <= _SMALL or share_served(matrix, a, b, f, g) >= _SERVED:
        return f, g
    from discrepancy._loops.simplex.smallest import lower_to_columns
    from discrepancy.transport.exact.columns import least_in_rows, solve_by_columns

    rows, mass_a = representatives(matrix, a, generator, 0)
    columns, mass_b = representatives(matrix, b, generator, 1)
    strip = _without_infinities(matrix.part(rows))
    coarse = solve_by_columns(CostMatrix(np.ascontiguousarray(strip[:, columns])), mass_a, mass_b, generator=generator)
    g = np.full(matrix.shape[1], np.inf)
    lower_to_columns(strip, 0, coarse.f, g)
    f = least_in_rows(matrix, g)
    f[~np.isfinite(f)] = 0.0
    return f, g


def _without_infinities(costs: np.ndarray) -> np.ndarray:
    """Forbidden pairs at twice the largest finite cost: enough for an estimate, which is all these costs are used for."""
    if np.isfinite(costs).all():
        return costs
    finite = costs[np.isfinite(costs)]
    return np.where(np.isfinite(costs), costs, 2 * np.abs(finite).max() if len(finite) else 0.0)


__all__ = ["cells", "estimated_potentials", "reduced_potentials", "representatives", "share_served"]
