"""Rules for the integral of a function over [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._validate import whole_number


class Quadrature(ABC):
    """Nodes in [0, 1] and their weights, which sum to one."""

    @abstractmethod
    def rule(self) -> tuple[Tensor, Tensor]:
        """Nodes (k,) and weights (k,), in float64."""


@dataclass(frozen=True)
class GaussLegendre(Quadrature):
    """`nodes` points, exact for polynomials of degree 2 nodes - 1; they crowd at the ends, where time scores are steep.

    Raises ValueError unless nodes >= 1.
    """

    nodes: int = 64

    def __post_init__(self) -> None:
        """Check the option."""
        whole_number(self.nodes, 1, "nodes")

    def rule(self) -> tuple[Tensor, Tensor]:
        """The rule on [0, 1]."""
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)
        return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


@dataclass(frozen=True)
class Simpson(Quadrature):
    """Simpson's rule on an even number of `intervals`: what a Runge-Kutta step of fourth order does to a pure integral.

    Raises ValueError for an odd number or fewer than 2.
    """

    intervals: int = 64

    def __post_init__(self) -> None:
        """Check the option."""
        whole_number(self.intervals, 2, "intervals")
        if self.intervals % 2:
            raise ValueError(f"Simpson's rule needs an even number of intervals, got {self.intervals}")

    def rule(self) -> tuple[Tensor, Tensor]:
        """The rule on [0, 1]."""
        weights = torch.full((self.intervals + 1,), 2.0, dtype=torch.float64)
        weights[1::2] = 4.0
        weights[0] = weights[-1] = 1.0
        return torch.linspace(0, 1, self.intervals + 1, dtype=torch.float64), weights / (3 * self.intervals)


__all__ = ["GaussLegendre", "Quadrature", "Simpson"]
