"""Products with a cost matrix that is never formed: a factorisation where the cost has one, else blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.costs import Cost, SquaredEuclidean


class Ground:
    """The costs between x (n, d) and y (m, d) as a linear operator, in float64; memory linear in n + m."""

    def __init__(self, x: Tensor, y: Tensor, cost: Cost, budget: int) -> None:
        """`budget`: bytes that a block of the matrix may take."""
        self.x, self.y, self.cost = x.detach().double(), y.detach().double(), cost
        self._step = cost.block_size(y.shape[0], x.shape[1], budget, 8)

    @staticmethod
    def of(x: Tensor, y: Tensor, cost: Cost, budget: int) -> Ground:
        """Factored for the squared Euclidean cost."""
        return SquaredGround(x, y, cost, budget) if isinstance(cost, SquaredEuclidean) else Ground(x, y, cost, budget)

    def products(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """C @ right (n, r) and C^T @ left (m, r) for left (n, r), right (m, r); one pass over all pairs."""
        forth, back = [], torch.zeros_like(right)
        for start in range(0, self.x.shape[0], self._step):
            block = self.cost.matrix(self.x[start : start + self._step], self.y)
            forth.append(block @ right)
            back += block.mT @ left[start : start + self._step]
        return torch.cat(forth), back

    def contract(self, q: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of <q diag(1/g) r^T, C> in x and y, the plan held fixed; one pass over all pairs."""
        right = r / g
        gx, gy = [], torch.zeros_like(self.y)
        for start in range(0, self.x.shape[0], self._step):
            part = slice(start, start + self._step)
            left, back = self.cost.contract(self.x[part], self.y, q[part] @ right.mT)
            gx.append(left)
            gy += back
        return torch.cat(gx), gy


class SquaredGround(Ground):
    """|x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i . y_j, of rank d + 2: products in time linear in n + m.

    About the common mean, so that the terms do not cancel far from the origin.
    """

    def __init__(self, x: Tensor, y: Tensor, cost: Cost, budget: int) -> None:
        """Centre the points."""
        super().__init__(x, y, cost, budget)
        centre = (self.x.mean(0) + self.y.mean(0)) / 2
        self.x, self.y = self.x - centre, self.y - centre
        self._xx, self._yy = self.x.square().sum(-1), self.y.square().sum(-1)

    def products(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Two thin matrix products each."""
        forth = self._xx[:, None] * right.sum(0) + self._yy @ right - 2 * self.x @ (self.y.mT @ right)
        back = self._yy[:, None] * left.sum(0) + self._xx @ left - 2 * self.y @ (self.x.mT @ left)
        return forth, back

    def contract(self, q: Tensor, r: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """2 (x a - P y) and 2 (y b - P^T x) with the marginals of the plan."""
        gx = 2 * (self.x * (q @ (r.sum(0) / g))[:, None] - q @ ((r.mT @ self.y) / g[:, None]))
        gy = 2 * (self.y * (r @ (q.sum(0) / g))[:, None] - r @ ((q.mT @ self.x) / g[:, None]))
        return gx, gy


__all__ = ["Ground", "SquaredGround"]
