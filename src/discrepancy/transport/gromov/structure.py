"""The inner costs of a space, and the product C_x P C_y that every step of a Gromov problem needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.costs import Cost, SquaredEuclidean


@dataclass(frozen=True)
class Structure:
    """A space as its matrix of inner costs (n, n) in float64; with `left` @ `right` = matrix where a thin factorisation is
    known: squared distances in d dimensions have rank d + 2."""

    matrix: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    @classmethod
    def of_points(cls, x: Tensor, cost: Cost) -> Structure:
        """The inner costs of points (n, d)."""
        z = x.detach().double()
        matrix = cost.matrix(z, z)
        if not isinstance(cost, SquaredEuclidean) or z.shape[-1] + 2 >= z.shape[0] // 2:
            return cls(matrix)
        z = z - z.mean(0)
        square, one = z.square().sum(-1, keepdim=True), torch.ones_like(z[:, :1])
        return cls(matrix, torch.cat([square, one, -2 * z], -1), torch.cat([one, square, z], -1).mT)

    def before(self, P: Tensor) -> Tensor:
        """matrix @ P for P (n, k): dense or a sparse coupling."""
        if self.left is None or self.right is None:
            return self.matrix @ P
        return self.left @ (self.right @ P)

    def after(self, Q: Tensor) -> Tensor:
        """Q @ matrix for Q (k, n)."""
        if self.left is None or self.right is None:
            return Q @ self.matrix
        return (Q @ self.left) @ self.right


@dataclass(frozen=True)
class Quadratic:
    """E(P) = sum_ijkl (Cx_ik - Cy_jl)^2 P_ij P_kl on couplings of a and b, plus <linear, P>; structures symmetric.

    With fixed marginals E(P) = <constant + linear, P> - 2 <Cx P Cy, P>, where constant_ij = (Cx^2 a)_i + (Cy^2 b)_j.
    """

    x: Structure
    y: Structure
    a: Tensor
    b: Tensor
    weight: float = 1.0
    linear: Tensor | None = None

    def product(self, P: Tensor) -> Tensor:
        """Cx P Cy (n, m): two thin products where structures are factored, else two of n^2 m."""
        return self.y.after(self.x.before(P))

    def constant(self) -> Tensor:
        """(Cx^2 a)_i + (Cy^2 b)_j."""
        return (self.x.matrix.square() @ self.a)[:, None] + (self.y.matrix.square() @ self.b)[None]

    def value(self, P: Tensor, product: Tensor, constant: Tensor) -> float:
        """E at P with Cx P Cy given."""
        total = self.weight * float(((constant - 2 * product) * P).sum())
        return total if self.linear is None else total + float((self.linear * P).sum())

    def gradient(self, product: Tensor, constant: Tensor) -> Tensor:
        """The gradient in P as a matrix (n, m)."""
        slope = (2 * self.weight) * (constant - 2 * product)
        return slope if self.linear is None else slope + self.linear


__all__ = ["Quadratic", "Structure"]
