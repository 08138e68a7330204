"""Identical points: hashing rows to find them, and sharing out the flow of merged points among their members."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def row_hashes(points, out):
    """A 64-bit hash of every row of points (n, d), equal for equal rows (0.0 and -0.0 are equal); O(n d)."""
    word = np.empty(1, np.float64)
    bits = word.view(np.uint64)
    for i in range(points.shape[0]):
        h = np.uint64(0x9E3779B97F4A7C15)
        for k in range(points.shape[1]):
            word[0] = points[i, k] + 0.0
            # The finaliser of SplitMix64 (Steele, Lea, Flood 2014) after every coordinate.
            h = (h ^ bits[0]) + np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            h = h ^ (h >> np.uint64(31))
        out[i] = h


@compiled
def label_groups(points, order, hashes, label, first):
    """Walk the rows in the order of their hashes and number the groups of identical rows; returns how many there are.

    label (n,) is the group of each row, first (n,) the first member met of each group. Rows of one hash that differ merely
    stay apart.
    """
    groups = 0
    for q in range(order.size):
        i = order[q]
        same = q > 0 and hashes[i] == hashes[order[q - 1]]
        if same:
            j = first[groups - 1]
            for k in range(points.shape[1]):
                if points[i, k] != points[j, k]:
                    same = False
                    break
        if not same:
            first[groups] = i
            groups += 1
        label[i] = groups - 1
    return groups


@compiled
def share_out(groups, flows, start, members, remaining, owner, amount):
    """Split arcs at one side: arc k carries flows[k] of group groups[k] whose members are members[start[g]:start[g+1]].

    `remaining` (n,) holds the members' weights and is used up. Members are filled one after another, so that g members add
    at most g - 1 arcs and a forest stays a forest. Writes the arc (index k) and the member of each new arc; returns how
    many, in the order of the old arcs.
    """
    at = start.copy()
    found = 0
    for k in range(groups.size):
        g, left = groups[k], flows[k]
        while left > 0:
            i = members[at[g]]
            if remaining[i] == 0:
                at[g] += 1
                continue
            t = min(left, remaining[i])
            owner[found, 0], owner[found, 1], amount[found] = k, i, t
            found += 1
            left -= t
            remaining[i] -= t
    return found


__all__ = ["label_groups", "row_hashes", "share_out"]
