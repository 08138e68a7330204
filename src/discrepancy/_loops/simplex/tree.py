"""The spanning tree of a network simplex on a transport problem, held in arrays, and how it is built from a forest of flows.

Nodes 0..n-1 are rows, n..n+m-1 columns, n+m the artificial root. Arcs run from rows to columns. A tree arc is stored at the lower
of its two nodes. The potential p has the sign in which a subtree moves by one number: the reduced cost of an arc (i, j) is
c_ij + p_i - p_j, hence f_i = -p_i and g_j = p_j.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from discrepancy._loops.compiled import compiled

# What `Tree.counts` holds.
PIVOTS, DEGENERATE, WALKED, SCANNED, RENUMBERED = range(5)


class Tree(NamedTuple):
    """Arrays over the nodes, each (n + m + 1,), in the order of `label`; about 50 bytes a node.

    `thread` is the cyclic preorder of the tree and `reverse` its inverse; `size` counts a node's subtree, itself included, and
    `last` is the subtree's last node in preorder. `upward`, `flow` and `cost` belong to the arc between a node and its parent:
    whether it runs from the node to the parent, its integer flow, its cost. `label` is the node's original number, which
    differs from its place once the nodes were renumbered. `counts` (5,): pivots, degenerate pivots, nodes walked, arcs priced,
    renumberings.
    """

    parent: np.ndarray
    thread: np.ndarray
    reverse: np.ndarray
    size: np.ndarray
    last: np.ndarray
    upward: np.ndarray
    flow: np.ndarray
    cost: np.ndarray
    potential: np.ndarray
    label: np.ndarray
    counts: np.ndarray


def allocate(nodes: int) -> Tree:
    """An unfilled tree of so many nodes and the root."""
    places = nodes + 1
    return Tree(
        parent=np.empty(places, np.int32),
        thread=np.empty(places, np.int32),
        reverse=np.empty(places, np.int32),
        size=np.empty(places, np.int32),
        last=np.empty(places, np.int32),
        upward=np.empty(places, np.bool_),
        flow=np.empty(places, np.int64),
        cost=np.empty(places, np.float64),
        potential=np.empty(places, np.float64),
        label=np.arange(places, dtype=np.int32),
        counts=np.zeros(5, np.int64),
    )


@compiled
def incidence(nodes, rows, columns, offset):
    """The arcs at each node as (start (nodes + 1,), arc (2k,)): those of node u are arc[start[u]:start[u + 1]]. O(nodes + k)."""
    start = np.zeros(nodes + 1, np.int64)
    for k in range(rows.size):
        start[rows[k] + 1] += 1
        start[offset + columns[k] + 1] += 1
    for u in range(nodes):
        start[u + 1] += start[u]
    place = start[:nodes].copy()
    arc = np.empty(2 * rows.size, np.int64)
    for k in range(rows.size):
        for u in (np.int64(rows[k]), np.int64(offset + columns[k])):
            arc[place[u]] = k
            place[u] += 1
    return start, arc


@compiled
def hang(tree, offset, rows, columns, flows, costs, wished):
    """Fill `tree` from a forest of arcs (rows, columns, flows > 0, costs) and the potentials `wished` for (n + m) nodes.

    Each component hangs from the root by one arc of flow zero that points to the root, from its node of smallest |wished|.
    Such an arc can never carry flow, so that its cost is free: it is the number that gives the component the mean potential
    wished for it. All arcs without flow point to the root: the tree is strongly feasible. Returns the number of components,
    or -1 if the arcs contain a cycle. O((n + m) log(n + m)) time.
    """
    nodes = wished.size
    root = nodes
    start, arc = incidence(nodes, rows, columns, offset)
    seen = np.zeros(nodes, np.bool_)
    order = np.empty(nodes, np.int64)
    stack = np.empty(nodes, np.int64)
    potential = tree.potential
    tree.parent[root] = -1
    tree.upward[root] = False
    tree.flow[root] = 0
    tree.cost[root] = 0.0
    potential[root] = 0.0
    components = 0
    placed = 0
    by_potential = np.argsort(np.abs(wished))
    for z in range(nodes):
        top = by_potential[z]
        if seen[top]:
            continue
        components += 1
        first = placed
        stack[0] = top
        height = 1
        seen[top] = True
        tree.parent[top] = root
        tree.upward[top] = True
        tree.flow[top] = 0
        potential[top] = wished[top]
        missing = 0.0
        while height > 0:
            height -= 1
            u = stack[height]
            order[placed] = u
            placed += 1
            missing += wished[u] - potential[u]
            for q in range(start[u], start[u + 1]):
                k = arc[q]
                from_row = u == rows[k]
                w = offset + columns[k] if from_row else rows[k]
                if seen[w]:
                    if tree.parent[u] != w:
                        return -1
                    continue
                seen[w] = True
                tree.parent[w] = u
                tree.flow[w] = flows[k]
                tree.cost[w] = costs[k]
                tree.upward[w] = not from_row
                potential[w] = potential[u] + costs[k] if from_row else potential[u] - costs[k]
                stack[height] = w
                height += 1
        missing /= placed - first
        for q in range(first, placed):
            potential[order[q]] += missing
        tree.cost[top] = -potential[top]
    thread_preorder(tree, order)
    return components


@compiled
def thread_preorder(tree, order):
    """Fill thread, reverse, size and last from `parent` and the preorder of all nodes but the root. O(nodes)."""
    nodes = order.size
    root = nodes
    before = root
    for k in range(nodes):
        u = order[k]
        tree.thread[before] = u
        tree.reverse[u] = before
        tree.size[u] = 1
        before = u
    tree.thread[before] = root
    tree.reverse[root] = before
    tree.size[root] = 1
    for k in range(nodes - 1, -1, -1):
        u = order[k]
        tree.size[tree.parent[u]] += tree.size[u]
    for k in range(nodes):
        tree.last[order[k]] = order[k + tree.size[order[k]] - 1]
    tree.last[root] = before


@compiled
def descend(tree):
    """Recompute the potentials down the tree from 0 at the root. O(nodes)."""
    root = tree.parent.size - 1
    potential = tree.potential
    potential[root] = 0.0
    u = tree.thread[root]
    while u != root:
        above = potential[tree.parent[u]]
        potential[u] = above - tree.cost[u] if tree.upward[u] else above + tree.cost[u]
        u = tree.thread[u]


@compiled
def refresh(tree):
    """Recompute the potentials down the tree, which removes the rounding gathered by the pivots, with median 0. O(nodes).

    All arcs to the root may be dearer by the same number, which no reduced cost between rows and columns sees. Without it a
    few huge costs on the way could leave all potentials beside one huge number, and the small costs lost in its rounding.
    """
    descend(tree)
    root = tree.parent.size - 1
    middle = np.median(tree.potential[:root])
    for u in range(root):
        if tree.parent[u] == root:
            tree.cost[u] += middle
    descend(tree)


@compiled
def renumber(tree, place):
    """Give node u the place `place[u]` (a permutation that keeps the root) in every array. O(nodes), allocates 8 bytes a node."""
    places = place.size
    node = np.empty(places, np.int32)
    for link in (tree.parent, tree.thread, tree.reverse, tree.last):
        for u in range(places):
            node[place[u]] = place[link[u]] if link[u] >= 0 else -1
        link[:] = node
    for number in (tree.size, tree.label):
        for u in range(places):
            node[place[u]] = number[u]
        number[:] = node
    for u in range(places):
        node[place[u]] = tree.upward[u]
    for u in range(places):
        tree.upward[u] = node[u] != 0
    whole = np.empty(places, np.int64)
    for u in range(places):
        whole[place[u]] = tree.flow[u]
    tree.flow[:] = whole
    real = np.empty(places, np.float64)
    for value in (tree.cost, tree.potential):
        for u in range(places):
            real[place[u]] = value[u]
        value[:] = real
    tree.counts[RENUMBERED] += 1


@compiled
def preorder_places(tree):
    """The place of every node in preorder, the root staying last: neighbours in the thread become neighbours in memory."""
    root = tree.parent.size - 1
    place = np.empty(root + 1, np.int32)
    place[root] = root
    u = tree.thread[root]
    k = 0
    while u != root:
        place[u] = k
        k += 1
        u = tree.thread[u]
    return place
