"""A coarse plan handed down to the children of its cells."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def child_pairs(rows, columns, row_children, column_children, begin, out_rows, out_columns):
    """List for every coarse arc k all pairs of a child of rows[k] with a child of columns[k], row by row.

    begin (k + 1,) is where each arc's pairs start. O(pairs).
    """
    for k in range(rows.size):
        at = begin[k]
        for i in range(row_children[rows[k]], row_children[rows[k] + 1]):
            for j in range(column_children[columns[k]], column_children[columns[k] + 1]):
                out_rows[at], out_columns[at] = i, j
                at += 1


@compiled
def match_children(begin, pair_rows, pair_columns, keys, flows, left_rows, left_columns, out_rows, out_columns, out_flows, count):
    """Serve each coarse arc's flow by its pairs in the order of their keys, as far as both children have something left.

    Appends from place `count` and returns the new count. left_rows, left_columns are used up. Every arc that is written
    exhausts a child or the coarse flow; where the coarse arcs are a forest, so is what is written. O(p log p) an arc of p pairs.
    """
    for k in range(flows.size):
        flow = flows[k]
        order = np.argsort(keys[begin[k] : begin[k + 1]])
        for q in order:
            e = begin[k] + q
            i, j = pair_rows[e], pair_columns[e]
            t = min(flow, min(left_rows[i], left_columns[j]))
            if t > 0:
                out_rows[count], out_columns[count], out_flows[count] = i, j, t
                count += 1
                flow -= t
                left_rows[i] -= t
                left_columns[j] -= t
                if flow == 0:
                    break
    return count


__all__ = ["child_pairs", "match_children"]
