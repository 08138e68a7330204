"""The linear kernel, whose mean embedding is the mean itself."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from discrepancy.kernels.kernel import Kernel, Pullback


@dataclass(frozen=True)
class Linear(Kernel):
    """k(x, y) = <x, y>: sees means and cross-covariances only, so that it is not characteristic.

    Not translation invariant; whatever centres it first (HSIC, CKA) is. Cost O(n m d).
    """

    def matrix(self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
        """All inner products <x_i, y_j>, differentiable as often as wanted."""
        return x @ y.mT

    def block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Pullback]:
        """The products of a block; the pullback of M is (M y, M^T x)."""
        return x @ y.mT, lambda M: (M @ y, M.mT @ x)

    def diagonal(self, x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n"]:
        """The squared norms |x_i|^2."""
        return x.square().sum(-1)


__all__ = ["Linear"]
