"""The linear system behind every derivative of the optimal potentials and plan, solved once a backward pass.

The potentials solve sum_j b_j E_ij = 1 for every i and sum_i a_i E_ij = 1 for every j, with E_ij = exp((f_i + g_j - C_ij) /
epsilon); points of weight zero included, whose equation is their soft-minimum. Differentiating gives M (df, dg) = h with

    M = [[I, Q], [T^T, I]],   Q_ij = E_ij b_j,   T_ij = a_i E_ij,
    h = (sum_j Q_ij dC_ij - epsilon E_ij db_j + Q_ij L_ij depsilon / epsilon, the same in the columns),   L = f + g - C.

A backward pass needs M^T w = (u, v). Eliminating the rows leaves the semi-dual's Hessian, m x m and positive semidefinite,

    (diag(c) - Q^T diag(a) Q) s = v - Q^T u,   w = (u - a * (Q s), b * s),   c the plan's column sums,

which conjugate gradients solve without forming it. Its null vector is the constant, the gauge of (f, g).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.pair_costs import PairCosts, density_ratio

# A share of its row below which an entry of Q changes no product of conjugate gradients in float64.
_NEGLIGIBLE = 1e-19
# Above this share of entries a dense product is faster than a sparse one.
_SPARSE = 0.1
_TOLERANCE = 1e-12
# Not reaching this relative residual is worth a warning.
_POOR = 1e-6
_LIMIT = 5000


class ImplicitSystem:
    """M at the potentials f (B, n), g (B, m) of a batch of problems, with epsilon (B,) and weights a, b, in float64.

    Holds Q where `keep` bytes allow (as a sparse matrix where few entries count), else forms it again in every product: a
    product costs one pass over the pairs, a solve ten to a few hundred of them, most for nearly disconnected plans.
    """

    def __init__(
        self, costs: PairCosts, inputs: Sequence[Tensor], a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, keep: int
    ) -> None:
        """One pass over the pairs: column sums and the diagonal of the reduced system."""
        self.costs, self.inputs = costs, [t.detach() for t in inputs]
        self.a, self.b, self.f, self.g, self.epsilon = a, b, f, g, epsilon
        self.sums, self.squares = torch.zeros_like(b), torch.zeros_like(b)
        self._dense, self._sparse = None, None
        size, n, m = *a.shape, b.shape[-1]
        dense = torch.empty(size, n, m, dtype=a.dtype, device=a.device) if 8 * size * n * m <= keep else None
        entries = _Entries(n, m, min(keep // 48, int(_SPARSE * n * m)) if size == 1 else 0)
        for part, ratio in self.blocks():
            share = ratio * b[:, None]
            weight = a[:, None, part]
            self.sums += torch.matmul(weight, share)[:, 0]
            self.squares += torch.matmul(weight, share.square())[:, 0]
            entries.add(part.start, share[0])
            if dense is not None:
                dense[:, part] = share
        if entries.complete:
            self._sparse = entries.matrices()
        else:
            self._dense = dense

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Row ranges with E there, its rows rescaled so that they meet their equation to rounding."""
        for part in self.costs.parts(self.inputs):
            ratio = density_ratio(self.f[:, part], self.g, self.costs.block(self.inputs, part), self.epsilon)
            yield part, ratio / torch.matmul(ratio, self.b[..., None])

    def forth(self, v: Tensor) -> Tensor:
        """Q v (B, n) for v (B, m)."""
        if self._sparse is not None:
            return (self._sparse[0] @ v[0])[None]
        if self._dense is not None:
            return torch.matmul(self._dense, v[..., None])[..., 0]
        weighted = (v * self.b)[..., None]
        return torch.cat([torch.matmul(ratio, weighted)[..., 0] for _, ratio in self.blocks()], -1)

    def back(self, u: Tensor) -> Tensor:
        """Q^T u (B, m) for u (B, n)."""
        if self._sparse is not None:
            return (self._sparse[1] @ u[0])[None]
        if self._dense is not None:
            return torch.matmul(u[:, None], self._dense)[:, 0]
        total = torch.zeros_like(self.b)
        for part, ratio in self.blocks():
            total += torch.matmul(u[:, None, part], ratio)[:, 0]
        return total * self.b

    def normal(self, v: Tensor) -> Tensor:
        """Q^T (a * (Q v)): one pass where Q is not held."""
        if self._sparse is not None or self._dense is not None:
            return self.back(self.a * self.forth(v))
        total, weighted = torch.zeros_like(v), (v * self.b)[..., None]
        for part, ratio in self.blocks():
            inner = self.a[:, part] * torch.matmul(ratio, weighted)[..., 0]
            total += torch.matmul(inner[:, None], ratio)[:, 0]
        return total * self.b

    def adjoint(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """w with M^T w = (u, v), whose sums agree because a loss does not see the gauge; warns where it stays inaccurate."""
        present = self.b > 0
        loose = torch.where(present, torch.zeros_like(v), v)
        if bool((loose != 0).any()):  # a column of weight zero moves no other column, only the rows move it
            u = u - self.a * torch.cat([torch.matmul(ratio, loose[..., None])[..., 0] for _, ratio in self.blocks()], -1)
        right = torch.where(present, v - self.back(u), torch.zeros_like(v))
        right = right - self.sums * (right.sum(-1) / self.sums.sum(-1))[:, None]
        s, relative = conjugate_gradients(
            lambda p: self.sums * p - self.normal(p), right, (self.sums - self.squares).clamp_min(1e-12 * self.sums)
        )
        if relative > _POOR:
            Outcome.EXHAUSTED.warn(f"the implicit derivative's linear system, relative residual {relative:.1e}", stacklevel=2)
        s = s - ((self.sums * s).sum(-1) / self.sums.sum(-1))[:, None]
        return u - self.a * self.forth(s), self.b * s + loose

    def pull(self, rows: Tensor, columns: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """The derivatives <w, dh> in the inputs, a, b and epsilon, for w = (rows, columns): one pass over the pairs."""
        e = self.epsilon
        totals = [torch.zeros(t.shape, dtype=self.a.dtype, device=t.device) for t in self.inputs]
        of_a, of_b, of_epsilon = [], torch.zeros_like(self.b), torch.zeros_like(e)
        for part, ratio in self.blocks():
            right = rows[:, part, None] * self.b[:, None] + self.a[:, part, None] * columns[:, None]
            weight = ratio * right
            self.costs.add(totals, self.inputs, part, weight)
            of_a.append(-e[:, None] * torch.matmul(ratio, columns[..., None])[..., 0])
            of_b -= e[:, None] * torch.matmul(rows[:, None, part], ratio)[:, 0]
            of_epsilon += torch.xlogy(weight, ratio).sum((-1, -2))
        return totals, torch.cat(of_a, -1), of_b, of_epsilon


class _Entries:
    """The entries of Q (n, m) that count, collected by rows until there are more than `room`."""

    def __init__(self, n: int, m: int, room: int) -> None:
        self.shape, self.room = (n, m), room
        self.places: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def complete(self) -> bool:
        """Whether all entries found place."""
        return self.room > 0

    def add(self, start: int, share: Tensor) -> None:
        """The rows from `start` on."""
        if self.room <= 0:
            return
        counts = share > _NEGLIGIBLE
        self.room -= int(counts.sum())
        place = counts.nonzero().T
        self.places.append(torch.stack([place[0] + start, place[1]]))
        self.values.append(share[counts])
        if self.room <= 0:
            self.places.clear()
            self.values.clear()

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Q and Q^T."""
        places, values, (n, m) = torch.cat(self.places, -1), torch.cat(self.values), self.shape
        order = torch.argsort(places[1], stable=True)
        return (
            torch.sparse_coo_tensor(places, values, (n, m), is_coalesced=True, check_invariants=False),
            torch.sparse_coo_tensor(places[:, order].flip(0), values[order], (m, n), is_coalesced=True, check_invariants=False),
        )


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor) -> tuple[Tensor, float]:
    """x (B, m) with product(x) = right for positive semidefinite systems, and the largest relative residual of the batch.

    From zero, with the diagonal as preconditioner; where the diagonal is zero x stays zero. One product an iteration, at most
    5,000; stops at a relative residual of 1e-12, or where rounding leaves no positive curvature.
    """
    inverse = torch.where(diagonal > 0, 1 / torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)), 0.0)
    # The residual is measured against the preconditioner, so that points of tiny weight count.
    x, left = torch.zeros_like(right), right
    z = left * inverse
    p, rz = z, (left * z).sum(-1)
    first = rz
    best, found = torch.ones_like(rz), x
    for _ in range(_LIMIT):
        going = (rz > _TOLERANCE**2 * first) & (rz > 0)
        if not bool(going.any()):
            break
        image = product(p)
        curvature = (p * image).sum(-1)
        going = going & (curvature > 0)
        if not bool(going.any()):
            break
        step = torch.where(going, rz / torch.where(going, curvature, torch.ones_like(curvature)), 0.0)
        x, left = x + step[:, None] * p, left - step[:, None] * image
        z = left * inverse
        fresh = (left * z).sum(-1)
        turn = torch.where(going, fresh / torch.where(going, rz, torch.ones_like(rz)), 0.0)
        p, rz = z + turn[:, None] * p, torch.where(going, fresh, rz)
        relative = (rz / torch.where(first > 0, first, torch.ones_like(first))).clamp_min(0).sqrt()
        better = relative < best
        best, found = torch.where(better, relative, best), torch.where(better[:, None], x, found)
    return found, float(torch.where(first > 0, best, torch.zeros_like(best)).max())


__all__ = ["ImplicitSystem", "conjugate_gradients"]
