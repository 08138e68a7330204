"""The simplex on an explicit list of arcs: cyclic block search, with the nodes renumbered into preorder now and then."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.simplex.pivot import pivot
from discrepancy._loops.simplex.tree import PIVOTS, SCANNED, descend, preorder_places, renumber


@compiled
def places_of_labels(tree):
    """Where each original node number now lies, (n + m + 1,) int32."""
    place = np.empty(tree.label.size, np.int32)
    for u in range(tree.label.size):
        place[tree.label[u]] = u
    return place


@compiled
def search_block(source, target, cost, potential, begin, stop, best, tolerance):
    """(arc of most negative reduced cost in [begin, stop) below `best`, or -1, and that cost).

    An arc counts only below -tolerance * max(|c|, |p_source|), the rounding of its own reduced cost: no global scale.
    """
    found = -1
    for e in range(begin, stop):
        above = potential[source[e]]
        reduced = cost[e] + above - potential[target[e]]
        if reduced < best and reduced < -tolerance * max(abs(cost[e]), abs(above)):
            best = reduced
            found = e
    return found, best


@compiled
def pivot_until_optimal(tree, offset, rows, columns, cost, block, tolerance, max_pivots):
    """Pivot until no arc (rows[e], columns[e]) has a negative reduced cost; False if `max_pivots` came first.

    Nodes are renumbered into preorder, and the arcs with them, whenever the nodes walked since exceed what a renumbering
    costs a few times over; the potentials are then recomputed, lest their rounding add up to violations that are none.
    """
    arcs = rows.size
    place = places_of_labels(tree)
    source = np.empty(arcs, np.int32)
    target = np.empty(arcs, np.int32)
    for e in range(arcs):
        source[e] = place[rows[e]]
        target[e] = place[offset + columns[e]]
    patience = 3.0 * (arcs + 10.0 * tree.parent.size)
    walked = 0
    stop_at = tree.counts[PIVOTS] + max_pivots
    position = 0
    while tree.counts[PIVOTS] < stop_at:
        found = -1
        best = 0.0
        left = block
        seen = 0
        while seen < arcs:
            length = min(left, arcs - seen, arcs - position)
            e, reduced = search_block(source, target, cost, tree.potential, position, position + length, best, tolerance)
            if e >= 0:
                found = e
                best = reduced
            position += length
            if position == arcs:
                position = 0
            seen += length
            left -= length
            if left == 0:
                if found >= 0:
                    break
                left = block
        tree.counts[SCANNED] += seen
        if found < 0:
            return True
        walked += pivot(tree, source[found], target[found], cost[found], best)
        if walked > patience:
            walked = 0
            place = preorder_places(tree)
            renumber(tree, place)
            descend(tree)
            for e in range(arcs):
                source[e] = place[source[e]]
                target[e] = place[target[e]]
    return False
