"""One pivot of the network simplex: the leaving arc, the flow around the cycle, the re-hung subtree and its potentials.

The leaving arc is the last blocking one of the cycle, walked from its apex in the direction of the entering arc: the tree stays
strongly feasible (every arc without flow points to the root), and the simplex cannot cycle however degenerate the problem
[Cunningham 1976]. The cost of a pivot is the length of the cycle and the smaller part of the tree beside the leaving arc.
"""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.simplex.tree import DEGENERATE, PIVOTS, WALKED

UNBOUNDED = np.int64(2**62)


@compiled
def leaving_arc(parent, size, upward, flow, source, target):
    """(apex of the cycle, flow that can be pushed, lower node of the leaving arc, whether it lies on the source's side, length).

    An arc on the source's side loses flow if it points up, one on the target's side if it points down. Ties go to the arc
    nearest to the source on its side, and to the target's side, nearest to the apex.
    """
    u = source
    v = target
    least_source = UNBOUNDED
    least_target = UNBOUNDED
    out_source = -1
    out_target = -1
    length = 0
    while u != v:
        length += 1
        # The smaller subtree of the two cannot contain the other: its node lies below the apex.
        if size[u] < size[v]:
            if upward[u] and flow[u] < least_source:
                least_source = flow[u]
                out_source = u
            u = parent[u]
        else:
            if not upward[v] and flow[v] <= least_target:
                least_target = flow[v]
                out_target = v
            v = parent[v]
    if least_target <= least_source:
        return u, least_target, out_target, False, length
    return u, least_source, out_source, True, length


@compiled
def push(parent, upward, flow, source, target, apex, amount):
    """Send `amount` around the cycle of the entering arc source -> target."""
    u = source
    while u != apex:
        flow[u] += -amount if upward[u] else amount
        u = parent[u]
    u = target
    while u != apex:
        flow[u] += amount if upward[u] else -amount
        u = parent[u]


@compiled
def rehang(tree, out, inner, outer, upward_arc, flow_arc, cost_arc):
    """Cut the subtree of `out` off its parent, root it at `inner`, and hang it below `outer` by the entering arc.

    The nodes from `inner` up to `out`, the stem, turn around: each becomes the parent of the one above. In preorder the moved
    part is then the old block of `inner`, followed for every further stem node by its old block without that of the stem node
    below. Returns the last node of the moved part; sizes above `outer` and above the old parent are left to the caller.
    """
    parent, thread, reverse, size, last = tree.parent, tree.thread, tree.reverse, tree.size, tree.last
    upward, flow, cost = tree.upward, tree.flow, tree.cost
    moved = size[out]
    old_end = last[out]
    old_parent = parent[out]
    before = reverse[out]
    after = thread[old_end]
    thread[before] = after
    reverse[after] = before
    u = old_parent
    while u >= 0 and last[u] == old_end:
        last[u] = before
        u = parent[u]

    follower = thread[outer]
    end = outer  # last node of the new preorder so far
    node = inner
    above = outer  # the node's new parent
    size_below = np.int32(0)
    before_below = np.int32(-1)
    after_below = np.int32(-1)
    last_below = np.int32(-1)
    while True:
        next_node = parent[node]
        before_node = reverse[node]
        last_node = last[node]
        after_node = after_below if last_node == last_below else thread[last_node]
        size_node = size[node]
        upward_node = upward[node]
        flow_node = flow[node]
        cost_node = cost[node]

        thread[end] = node
        reverse[node] = end
        if node == inner:
            end = last_node
        else:
            end = before_below
            if last_node != last_below:
                thread[end] = after_below
                reverse[after_below] = end
                end = last_node
        parent[node] = above
        upward[node] = upward_arc
        flow[node] = flow_arc
        cost[node] = cost_arc
        size[node] = moved - size_below
        if node == out:
            break
        # The arc to the next stem node is now stored at that node, seen from its other end.
        upward_arc = not upward_node
        flow_arc = flow_node
        cost_arc = cost_node
        size_below = size_node
        before_below = before_node
        after_below = after_node
        last_below = last_node
        above = node
        node = next_node
    thread[end] = follower
    reverse[follower] = end
    while node != outer:
        last[node] = end
        node = parent[node]
    while node >= 0 and last[node] == outer:
        last[node] = end
        node = parent[node]
    return end


@compiled
def shift(thread, potential, first, stop, amount):
    """Add `amount` to the potentials of the nodes from `first` up to `stop`, exclusive, in preorder; returns how many.

    Nodes numbered in preorder are neighbours in memory. Within such a run the next place is counted, not read from the thread:
    the loads then do not wait for one another.
    """
    u = np.int64(first)
    halt = np.int64(stop)
    count = 0
    while u != halt:
        k = u
        expected = k + 1
        following = np.int64(thread[k])
        potential[k] += amount
        while following == expected and expected != halt:
            k = expected
            expected = k + 1
            following = np.int64(thread[k])
            potential[k] += amount
        count += expected - u
        u = following
    return count


@compiled
def pivot(tree, source, target, cost, reduced):
    """Let the arc source -> target, of reduced cost `reduced` < 0, enter the tree. Returns the number of nodes walked."""
    parent, size = tree.parent, tree.size
    apex, amount, out, on_source_side, walked = leaving_arc(parent, size, tree.upward, tree.flow, source, target)
    if amount > 0:
        push(parent, tree.upward, tree.flow, source, target, apex, amount)
    else:
        tree.counts[DEGENERATE] += 1
    if on_source_side:
        inner = source
        outer = target
    else:
        inner = target
        outer = source
    moved = size[out]
    u = parent[out]
    while u != apex:
        size[u] -= moved
        u = parent[u]
    u = outer
    while u != apex:
        size[u] += moved
        u = parent[u]
    end = rehang(tree, out, inner, outer, on_source_side, amount, cost)
    # The reduced cost of the entering arc becomes 0: either its side of the tree moves or all the rest by the opposite.
    step = -reduced if on_source_side else reduced
    if 2 * moved <= size.size:
        walked += shift(tree.thread, tree.potential, inner, tree.thread[end], step)
    else:
        walked += shift(tree.thread, tree.potential, tree.thread[end], inner, -step)
    tree.counts[PIVOTS] += 1
    tree.counts[WALKED] += walked
    return walked
