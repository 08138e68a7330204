"""The network simplex on a bipartite transport problem, as loops without policy.

    rows, columns, flows = north_west(a, b)                         int64 weights of equal total -> an acyclic start
    rows, columns, flows, by_arcs = greedy(rows, columns, a, b)     the same along given arcs, the first `by_arcs` of them
    tree = build(n, m, rows, columns, flows, costs, f, g)           hang the forest from a root, near the potentials f, g
    optimal = solve_arcs(tree, n, rows, columns, costs)             pivot over a list of arcs until none violates
    refresh(tree)                                                   recompute the potentials, without rounding, at median 0
    f, g = potentials(tree, n)                                      float64 (n,), (m,), in the original numbering
    rows, columns, flows = plan(tree, n)                            the arcs with flow
    pivots(tree)                                                    made so far

Rows and columns are always the caller's own numbers; the renumbering inside a tree does not show. A tree goes on from one list of
arcs to the next: the tree's own arcs need not be in the list. The list may change between calls in any way.
"""

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.simplex.arcs import pivot_until_optimal, places_of_labels
from discrepancy._loops.simplex.start import greedy, north_west
from discrepancy._loops.simplex.tree import PIVOTS, Tree, allocate, hang, refresh

TOLERANCE = 5e-15  # of max(|c|, |p|) of the arc itself: the rounding of a reduced cost after many pivots
NO_LIMIT = 2**62


def build(
    n: int, m: int, rows: np.ndarray, columns: np.ndarray, flows: np.ndarray, costs: np.ndarray, f: np.ndarray, g: np.ndarray
) -> Tree:
    """A strongly feasible tree from an acyclic set of arcs with flows > 0 that serve all weights, near the potentials f, g.

    rows, columns, flows (k,) int64, costs (k,) float64, f (n,), g (m,) finite. Within a component of the forest the arcs fix
    the potentials up to a number, which is chosen so that their mean is that of the wish. ValueError if the arcs hold a
    cycle. O((n + m) log(n + m)) time, 50 bytes a node.
    """
    tree = allocate(n + m)
    wished = np.concatenate([-np.asarray(f, np.float64), np.asarray(g, np.float64)])
    if hang(tree, n, _int64(rows), _int64(columns), _int64(flows), np.ascontiguousarray(costs, np.float64), wished) < 0:
        raise ValueError(f"the {len(rows)} arcs of the start contain a cycle: a start flow must be a forest")
    return tree


def solve_arcs(
    tree: Tree,
    n: int,
    rows: np.ndarray,
    columns: np.ndarray,
    costs: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    max_pivots: int = NO_LIMIT,
) -> bool:
    """Pivot over the arcs (rows, columns, costs), each (k,), until none has a negative reduced cost; False if stopped before.

    rows, columns int32 or int64 (int32 is copied least), costs float64, +inf allowed (never enters). Strongly feasible trees
    end in exact arithmetic; for rounding, which may let arcs enter in a circle, a million pivots and a thousand a node are the
    limit where none is given.
    """
    if max_pivots == NO_LIMIT:
        max_pivots = 1_000_000 + 1000 * tree.parent.size
    block = max(10, math.isqrt(len(rows)))
    costs = np.ascontiguousarray(costs, np.float64)
    return bool(pivot_until_optimal(tree, n, _int32(rows), _int32(columns), costs, block, tolerance, max_pivots))


def potentials(tree: Tree, n: int) -> tuple[np.ndarray, np.ndarray]:
    """f (n,) and g (m,) of the tree in the original numbering."""
    values = tree.potential[places_of_labels(tree)]
    return -values[:n], values[n:-1].copy()


def plan(tree: Tree, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arcs with flow as rows, columns, flows (k,) int64, k <= n + m - 1, in no particular order."""
    root = len(tree.parent) - 1
    carrying = np.flatnonzero(tree.flow[:root] > 0)
    lower, upper = tree.label[carrying].astype(np.int64), tree.label[tree.parent[carrying]].astype(np.int64)
    upward = tree.upward[carrying]
    return np.where(upward, lower, upper), np.where(upward, upper, lower) - n, tree.flow[carrying]


def pivots(tree: Tree) -> int:
    """The number of pivots that the tree has seen."""
    return int(tree.counts[PIVOTS])


def _int32(index: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(index, np.int32)


def _int64(index: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(index, np.int64)


__all__ = [
    "NO_LIMIT",
    "TOLERANCE",
    "Tree",
    "build",
    "greedy",
    "north_west",
    "pivots",
    "plan",
    "potentials",
    "refresh",
    "solve_arcs",
]
