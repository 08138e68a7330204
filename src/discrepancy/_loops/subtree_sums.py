"""Sums over subtrees of a rooted forest: what each tree edge must carry."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def subtree_sums(parent, values):
    """Replace values[u] by the sum over the subtree of u, in place; O(nodes).

    parent (n,) int64, negative at roots, without cycles; values (n,) int64, whose sums are exact. Leaves are peeled off first.
    """
    n = parent.size
    waiting = np.zeros(n, np.int64)
    for u in range(n):
        if parent[u] >= 0:
            waiting[parent[u]] += 1
    for leaf in range(n):
        u = leaf
        while waiting[u] == 0:
            waiting[u] = -1  # done
            above = parent[u]
            if above < 0:
                break
            values[above] += values[u]
            waiting[above] -= 1
            if above > leaf:  # its turn comes
                break
            u = above


__all__ = ["subtree_sums"]
