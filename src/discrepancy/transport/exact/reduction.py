"""A side reduced to what the solver needs, distinct points of positive weight, and its plan given back to all points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reduction:
    """The distinct points of positive mass among n.

    chosen (k,) the index of one member of each, mass (k,) int64 their masses, label (n,) the distinct point that a point is, -1
    for points without mass, members (p,) the points with mass grouped by label, and start (k + 1,) the bounds of the groups.
    """

    chosen: np.ndarray
    mass: np.ndarray
    label: np.ndarray
    members: np.ndarray
    start: np.ndarray

    @property
    def zero(self) -> np.ndarray:
        """The points without mass."""
        return np.flatnonzero(self.label < 0)

    @property
    def merged(self) -> bool:
        """Whether any points were merged."""
        return len(self.members) > len(self.chosen)


def keep_all(mass: np.ndarray) -> Reduction:
    """Points without mass dropped, nothing merged."""
    chosen = np.flatnonzero(mass)
    label = np.full(len(mass), -1, np.int64)
    label[chosen] = np.arange(len(chosen))
    return Reduction(chosen, mass[chosen], label, chosen, np.arange(len(chosen) + 1))


def merge_equal(points: np.ndarray, mass: np.ndarray) -> Reduction:
    """Points without mass dropped and identical ones merged, in an order that depends on the points alone. O(n (d + log n)).

    Solving takes two to three times as long on lattices and repeated rows when they are not merged.
    """
    from discrepancy._loops.duplicates import label_groups, row_hashes

    hashes = np.empty(len(points), np.uint64)
    row_hashes(points, hashes)
    kept = np.flatnonzero(mass)
    order = kept[np.argsort(hashes[kept], kind="stable")]
    label, first = np.full(len(points), -1, np.int64), np.empty(len(order), np.int64)
    groups = label_groups(points, order, hashes, label, first)
    if groups == len(order):
        return Reduction(order, mass[order], label, order, np.arange(groups + 1))
    size = np.bincount(label[order], minlength=groups)
    start = np.r_[0, np.cumsum(size)]
    return Reduction(first[:groups].copy(), np.add.reduceat(mass[order], start[:-1]), label, order, start)


def give_back(
    rows: np.ndarray, columns: np.ndarray, flows: np.ndarray, left: Reduction, right: Reduction, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A plan between distinct points, rows, columns, flows (k,), as one between all points of weights a (n,) and b (m,).

    A forest stays one; O(k + n + m).
    """
    rows, flows, origin = _split(rows, flows, left, a)
    columns, flows, parent = _split(columns[origin], flows, right, b)
    return rows[parent], columns, flows


def _split(groups: np.ndarray, flows: np.ndarray, side: Reduction, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One end of every arc replaced by members: the members, the flows, and the arc that each belongs to."""
    from discrepancy._loops.duplicates import share_out

    if not side.merged:
        return side.chosen[groups], flows, np.arange(len(groups))
    most = len(groups) + len(side.members)
    owner, amount = np.empty((most, 2), np.int64), np.empty(most, np.int64)
    count = share_out(groups, flows, side.start, side.members, mass.copy(), owner, amount)
    return owner[:count, 1].copy(), amount[:count].copy(), owner[:count, 0].copy()


__all__ = ["Reduction", "give_back", "keep_all", "merge_equal"]
