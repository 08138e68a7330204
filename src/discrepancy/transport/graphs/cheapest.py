"""Cheapest flows on a graph, W_1 of its path metric: the network simplex on the edges themselves, both ways each."""

from __future__ import annotations

import numpy as np

from discrepancy.transport.graphs.network import Flow, Network

_UNITS = 2**60  # whole units that the positive part of a measure is divided into: sums of them stay below 2^63


def cheapest_flow(network: Network, sigma: np.ndarray) -> Flow:
    """A flow J that delivers sigma (n,) at the least sum_e l_e |J_e|, and a potential with |f_head - f_tail| <= l_e.

    sigma sums to zero on every component. Memory O(n + E): no distances between vertices are formed. Starts from the tree of
    shortest paths to one vertex of each component; exact in whole units of 2^-60 of the mass.
    """
    from discrepancy._loops.simplex import build, pivots, plan, potentials, refresh, solve_arcs

    units, scale = _whole_units(network, sigma)
    tail, head, flow = _tree_flow(network, units)
    tree = build(0, network.n, tail, head, flow, _lengths_of(network, tail, head), np.zeros(0), np.zeros(network.n))
    sources, targets = np.r_[network.tail, network.head], np.r_[network.head, network.tail]
    optimal = solve_arcs(tree, 0, sources, targets, np.r_[network.lengths, network.lengths])
    refresh(tree)
    f = network.centred(potentials(tree, 0)[1])
    used_from, used_to, amount = plan(tree, 0)
    carried = _on_edges(network, used_from, used_to, amount / scale)
    return Flow(f, carried, pivots(tree), optimal, "network simplex on the edges")


def _whole_units(network: Network, sigma: np.ndarray) -> tuple[np.ndarray, float]:
    """sigma in whole units, zero on every component exactly, and the units in a mass of one."""
    scale = _UNITS / float(np.maximum(sigma, 0).sum())
    units = np.rint(sigma * scale).astype(np.int64)
    left = np.zeros(network.count, np.int64)
    np.add.at(left, network.components, units)
    # What rounding left over is taken off each component's largest entry.
    order = np.lexsort((np.abs(units), network.components))
    last = np.r_[np.flatnonzero(np.diff(network.components[order])), network.n - 1]
    units[order[last]] -= left
    return units, scale


def _tree_flow(network: Network, units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The flow along shortest-path trees that delivers the units: tails, heads, amounts > 0."""
    from scipy.sparse.csgraph import dijkstra

    from discrepancy._loops.subtree_sums import subtree_sums

    order = np.lexsort((np.abs(units), network.components))
    roots = order[np.r_[np.flatnonzero(np.diff(network.components[order])), network.n - 1]]
    parent = dijkstra(shortest_edges(network), directed=False, indices=roots, min_only=True, return_predecessors=True)[1]
    parent = parent.astype(np.int64)
    sums = units.copy()
    subtree_sums(parent, sums)
    below = np.flatnonzero((parent >= 0) & (sums != 0))
    amount, above = sums[below], parent[below]
    down = amount > 0  # the subtree asks for mass: it comes down from the parent
    return np.where(down, above, below), np.where(down, below, above), np.abs(amount)


def shortest_edges(network: Network):  # type: ignore[no-untyped-def]
    """The symmetric sparse matrix of edge lengths, the shortest of parallel ones."""
    from scipy.sparse import csr_array

    i, j = np.r_[network.tail, network.head], np.r_[network.head, network.tail]
    length = np.r_[network.lengths, network.lengths]
    order = np.lexsort((length, j, i))
    i, j, length = i[order], j[order], length[order]
    first = np.r_[True, (np.diff(i) != 0) | (np.diff(j) != 0)] if len(i) else np.zeros(0, bool)
    return csr_array((length[first], (i[first], j[first])), shape=(network.n, network.n))


def _shortest_ids(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """(key of each pair of vertices that has an edge, ascending; the shortest edge between them)."""
    key = _key(network, network.tail, network.head)
    order = np.lexsort((network.lengths, key))
    first = np.r_[True, np.diff(key[order]) != 0] if len(key) else np.zeros(0, bool)
    return key[order][first], order[first]


def _key(network: Network, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return np.minimum(i, j).astype(np.int64) * network.n + np.maximum(i, j)


def _edges_between(network: Network, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    keys, ids = _shortest_ids(network)
    return ids[np.searchsorted(keys, _key(network, i, j))]


def _lengths_of(network: Network, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return network.lengths[_edges_between(network, i, j)] if len(i) else np.zeros(0)


def _on_edges(network: Network, i: np.ndarray, j: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Amounts i -> j as a signed flow on the edges; of parallel edges the shortest carries all."""
    flow = np.zeros(len(network.tail))
    if len(i):
        edge = _edges_between(network, i, j)
        np.add.at(flow, edge, np.where(network.tail[edge] == i, amount, -amount))
    return flow


__all__ = ["cheapest_flow", "shortest_edges"]
