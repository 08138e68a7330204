"""The second, third and fourth cumulants of a statistic under a model, in the contractions that risk expansions need.

They come from the derivatives of the log-partition, from weighted states (an enumeration, a quadrature), or from draws, in which
case products of two third cumulants are taken from two halves of the draws so that their noise does not add up to a bias.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least

_ROWS = 4096  # states or draws in a block: (block, p, p) stays in memory for p in the hundreds


class Cumulants(ABC):
    """Cumulants of a statistic in R^p at one parameter; `second` (p, p) is the model's Fisher matrix."""

    @property
    @abstractmethod
    def second(self) -> Tensor:
        """Psi_ab, the covariance under the model."""

    @abstractmethod
    def thirds(self) -> tuple[Tensor, Tensor]:
        """Psi_abc (p, p, p), twice: two estimates with independent errors where they come from draws, else the same."""

    @abstractmethod
    def quartic(self, D: Tensor) -> Tensor:
        """sum Psi_abcd D_ab D_cd for a symmetric D (p, p), without the tensor of p^4 entries."""


@dataclass(frozen=True)
class PartitionCumulants(Cumulants):
    """From the log-partition Psi by automatic differentiation: exact; time some p^2 evaluations of Psi and its derivatives."""

    log_partition: Callable[[Tensor], Tensor]
    theta: Tensor

    @property
    def second(self) -> Tensor:
        """The Hessian."""
        return torch.func.hessian(self.log_partition)(self.theta.double())

    def thirds(self) -> tuple[Tensor, Tensor]:
        """The derivative of the Hessian."""
        third = torch.func.jacfwd(torch.func.hessian(self.log_partition))(self.theta.double())
        return third, third

    def quartic(self, D: Tensor) -> Tensor:
        """The second derivative, along D, of the Hessian's product with D."""

        def along(theta: Tensor) -> Tensor:
            return (torch.func.hessian(self.log_partition)(theta) * D).sum()

        return (torch.func.hessian(along)(self.theta.double()) * D).sum()


@dataclass(frozen=True)
class StateCumulants(Cumulants):
    """From states of the model: the statistic (s, p) and probabilities (s,). Exact for an enumeration. Time O(s p^3)."""

    statistic: Tensor
    weights: Tensor

    @property
    def second(self) -> Tensor:
        """The covariance."""
        u = self._centred()
        return u.mT @ (u * self.weights[:, None])

    def _centred(self) -> Tensor:
        return self.statistic - self.weights @ self.statistic

    def thirds(self) -> tuple[Tensor, Tensor]:
        """The third central moment."""
        third = _third(self._centred(), self.weights)
        return third, third

    def quartic(self, D: Tensor) -> Tensor:
        """E (u' D u)^2 - (tr D Psi'')^2 - 2 tr (D Psi'')^2 with u the centred statistic."""
        u, product = self._centred(), D @ self.second
        form = ((u @ D) * u).sum(-1)
        return (self.weights * form.square()).sum() - product.trace() ** 2 - 2 * (product @ product).trace()


@dataclass(frozen=True)
class DrawCumulants(Cumulants):
    """From draws of the model (n, p), in order: if they come from a Markov chain its halves are nearly independent.

    Errors O(1 / sqrt(n)); the inverse of `second` is biased by a share of about p / n.
    """

    statistic: Tensor

    def __post_init__(self) -> None:
        """Raise ValueError unless there are more draws than statistics, in two halves."""
        at_least(len(self.statistic), 2 * self.statistic.shape[1] + 4, "the number of draws")

    @property
    def second(self) -> Tensor:
        """The unbiased covariance."""
        u = self.statistic - self.statistic.mean(0)
        return u.mT @ u / (len(u) - 1)

    def thirds(self) -> tuple[Tensor, Tensor]:
        """The third central moments of the first and of the second half."""
        found = []
        for half in self.statistic.chunk(2):
            n = len(half)
            equal = torch.full((n,), 1.0 / n, dtype=half.dtype, device=half.device)
            found.append(_third(half - half.mean(0), equal) * n**2 / ((n - 1) * (n - 2)))
        return found[0], found[1]

    def quartic(self, D: Tensor) -> Tensor:
        """That of the draws as states."""
        n = len(self.statistic)
        return StateCumulants(self.statistic, torch.full((n,), 1.0 / n, dtype=D.dtype, device=D.device)).quartic(D)


def _third(u: Tensor, weights: Tensor) -> Tensor:
    """sum_s w_s u_a u_b u_c, in blocks of states."""
    p = u.shape[1]
    total = torch.zeros(p * p, p, dtype=u.dtype, device=u.device)
    for part, mass in zip(u.split(_ROWS), weights.split(_ROWS), strict=True):
        total += (part[:, :, None] * part[:, None, :]).flatten(1).mT @ (part * mass[:, None])
    return total.reshape(p, p, p)


__all__ = ["Cumulants", "DrawCumulants", "PartitionCumulants", "StateCumulants"]
