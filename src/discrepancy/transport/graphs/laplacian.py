"""Laplacian systems on a graph: one factorisation, many right-hand sides, a vertex of every component held at zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from discrepancy._results import NumericalError
from discrepancy.transport.graphs.network import Flow, Network

_DENSE = 600  # vertices up to which a dense Cholesky factor is the fastest
_PATIENCE = 20.0  # times sqrt(n): conjugate-gradient steps that a well-connected graph needs at most
_RESIDUAL = 1e-13  # of the right-hand side, in the Euclidean norm


class GroundedLaplacian:
    """L = A diag(conductance) A^T of a network, with conductances (E,) > 0; `solve` inverts it on measures of zero mass.

    Up to 600 vertices dense Cholesky, O(n^3) time and O(n^2) memory. Above, conjugate gradients with the diagonal as
    preconditioner, which end within 20 sqrt(n) steps on graphs without bottlenecks, and else (or at once with `direct`) a sparse
    LU factorisation in a minimum-degree order: linear for trees and paths, n^1.5 for planar graphs, cubic at worst for
    nearest-neighbour graphs in many dimensions.
    """

    def __init__(self, network: Network, conductance: np.ndarray, *, direct: bool = False) -> None:
        """Assemble, and factorise where that is the way."""
        self.network, self.conductance, self.iterations = network, conductance, 0
        first = np.full(network.count, network.n)
        np.minimum.at(first, network.components, np.arange(network.n))
        self.kept = np.setdiff1d(np.arange(network.n), first)
        self._inverse: Callable[[np.ndarray], np.ndarray] | None = None
        self.method = "dense Cholesky"
        if network.n <= _DENSE:
            self._inverse = self._cholesky()
        elif direct:
            self._inverse = self._sparse_factor()

    def _cholesky(self) -> Callable[[np.ndarray], np.ndarray]:
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        net, c = self.network, self.conductance
        L = np.zeros((net.n, net.n))
        np.add.at(L, (net.tail, net.head), -c)
        L += L.T
        L[np.diag_indices(net.n)] = -L.sum(1)
        try:
            factor = cho_factor(L[np.ix_(self.kept, self.kept)], lower=True, check_finite=False)
        except LinAlgError:
            raise NumericalError("the Laplacian is numerically singular: lengths or measures span too many decades") from None
        return lambda right: cho_solve(factor, right, check_finite=False)

    def _sparse(self):  # type: ignore[no-untyped-def]
        from scipy.sparse import coo_array

        net, c = self.network, self.conductance
        i, j = np.r_[net.tail, net.head], np.r_[net.head, net.tail]
        off = coo_array((-np.r_[c, c], (i, j)), shape=(net.n, net.n)).tocsr()
        diagonal = np.bincount(i, np.r_[c, c], net.n)
        return off, diagonal

    def _sparse_factor(self) -> Callable[[np.ndarray], np.ndarray]:
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import splu

        off, diagonal = self._sparse()
        reduced = (off + diags_array(diagonal)).tocsr()[self.kept][:, self.kept].tocsc()
        self.method = "sparse LU"
        try:
            return splu(reduced, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve
        except RuntimeError:
            raise NumericalError("the Laplacian is numerically singular: lengths or measures span too many decades") from None

    def solve(self, right: np.ndarray) -> np.ndarray:
        """f (n, k) with L f = right (n, k), whose columns sum to zero on every component; defined up to a number there."""
        f = np.zeros_like(right)
        if len(self.kept) == 0:
            return f
        if self._inverse is None:
            found = self._conjugate_gradients(right)
            if found is not None:
                return found
            self._inverse = self._sparse_factor()
        f[self.kept] = self._inverse(right[self.kept])
        # One step of refinement: the flow then delivers the measure to rounding.
        f[self.kept] += self._inverse((right - self._times(f))[self.kept])
        return f

    def _times(self, f: np.ndarray) -> np.ndarray:
        """L f for f (n, k)."""
        net = self.network
        flow = self.conductance[:, None] * (f[net.head] - f[net.tail])
        return np.stack([net.delivered(flow[:, k]) for k in range(f.shape[1])], 1)

    def _conjugate_gradients(self, right: np.ndarray) -> np.ndarray | None:
        """Each column by itself, all in step; None where the patience ends before the residual is small."""
        off, diagonal = self._sparse()
        inverse = 1 / np.where(diagonal > 0, diagonal, 1.0)[:, None]
        goal = _RESIDUAL * np.linalg.norm(right, axis=0)
        f, r = np.zeros_like(right), right.copy()
        z = inverse * r
        d, rz = z.copy(), (r * z).sum(0)
        self.method = "conjugate gradients"
        for _ in range(int(_PATIENCE * np.sqrt(self.network.n))):
            if (np.linalg.norm(r, axis=0) <= goal).all():
                return f
            self.iterations += 1
            Ld = off @ d + diagonal[:, None] * d
            curve = (d * Ld).sum(0)
            step = np.divide(rz, curve, out=np.zeros_like(rz), where=curve > 0)
            f += step * d
            r -= step * Ld
            z = inverse * r
            before, rz = rz, (r * z).sum(0)
            d = z + np.divide(rz, before, out=np.zeros_like(rz), where=before > 0) * d
        return None


def electrical_flows(network: Network, sigma: np.ndarray) -> list[Flow]:
    """The potentials f = L^+ sigma and currents J_e = w_e (f_head - f_tail) / l_e^2 of the measures sigma (B, n): p = q = 2."""
    conductance = network.measures / network.lengths**2
    system = GroundedLaplacian(network, conductance)
    potentials = system.solve(sigma.T).T
    found = []
    for f in potentials:
        f = network.centred(f)
        current = conductance * (f[network.head] - f[network.tail])
        found.append(Flow(f, current, max(system.iterations, 1), True, system.method))
    return found


__all__ = ["GroundedLaplacian", "electrical_flows"]
