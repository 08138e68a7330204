"""Pieces of transport along a direction: each order of the projections has a coupling, and the cost is the least of theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """Couplings of x and y by K orders of projections: `mass` (K, S) moves from row `i` (K, S) of x to row `j` (K, S) of y."""

    i: Tensor
    j: Tensor
    mass: Tensor

    def __len__(self) -> int:
        return len(self.i)

    def with_piece(self, other: Pieces) -> Pieces:
        """These and the other ones."""
        return Pieces(*(torch.cat(pair) for pair in ((self.i, other.i), (self.j, other.j), (self.mass, other.mass))))

    def kept(self, rows: Tensor) -> Pieces:
        """Those of the given indices."""
        return Pieces(self.i[rows], self.j[rows], self.mass[rows])

    def gaps(self, u: Tensor, v: Tensor) -> Tensor:
        """u_i - v_j along each coupling, (K, S), for projections u (n,), v (m,)."""
        return u[self.i] - v[self.j]

    def costs(self, u: Tensor, v: Tensor, p: float) -> Tensor:
        """sum of mass |u_i - v_j|^p for each coupling, (K,)."""
        return (self.mass * self.gaps(u, v).abs() ** p).sum(-1)

    def slopes(self, u: Tensor, v: Tensor, p: float) -> tuple[Tensor, Tensor]:
        """The derivatives (K, n), (K, m) of those costs in u and v; zero where the gap is."""
        gap = self.gaps(u, v)
        slope = self.mass * p * gap.sign() * gap.abs() ** (p - 1)
        in_u = u.new_zeros(len(self), len(u)).scatter_add(1, self.i, slope)
        return in_u, v.new_zeros(len(self), len(v)).scatter_add(1, self.j, -slope)


def ordered_piece(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None) -> Pieces:
    """The coupling by the order of projections u (n,), v (m,), with weights a, b (None where both are equal and n = m).

    The optimal one for u and v, and a feasible one for any other projections: its cost bounds theirs from above.
    """
    order_u, order_v = u.argsort(stable=True), v.argsort(stable=True)
    if a is None or b is None:
        return Pieces(order_u[None], order_v[None], torch.full_like(u, 1 / len(u))[None])
    A, B = a[order_u].cumsum(0), b[order_v].cumsum(0)
    A, B = A / A[-1], B / B[-1]
    cuts = torch.cat([A, B]).sort().values
    mass = torch.diff(cuts, prepend=cuts.new_zeros(1))
    middle = cuts - mass / 2
    i = torch.searchsorted(A, middle).clamp_max(len(u) - 1)
    j = torch.searchsorted(B, middle).clamp_max(len(v) - 1)
    return Pieces(order_u[i][None], order_v[j][None], mass[None])


__all__ = ["Pieces", "ordered_piece"]
