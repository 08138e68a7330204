"""Exponentials of polynomials on an interval, by quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.enumerated import EnumeratedFamily
from discrepancy.estimation.exponential_family.family import rows

_NODES = 400  # of the Gauss-Legendre rule: exact for polynomials of degree 799


@dataclass(frozen=True)
class PolynomialExp(EnumeratedFamily):
    """Densities exp(theta_1 t + ... + theta_k t^k - Psi) on [low, high], t = x on the scale of the interval, in [-1, 1].

    Integrals are Gauss-Legendre sums over 400 nodes. The statistic is (t, t^2, ..., t^order).
    """

    order: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for an empty interval or an order below 1."""
        whole_number(self.order, 1, "order")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"the interval must be finite with low < high, got [{self.low!r}, {self.high!r}]")

    @property
    def names(self) -> tuple[str, ...]:
        """t, t^2, ..."""
        return tuple("t" if k == 1 else f"t^{k}" for k in range(1, self.order + 1))

    @cached_property
    def _rule(self) -> tuple[Tensor, Tensor]:
        import numpy as np

        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        return torch.from_numpy(nodes), torch.from_numpy(weights)

    def _states(self) -> Tensor:
        """The nodes, in units of x."""
        return (self.low + (self._rule[0] + 1) * (self.high - self.low) / 2)[:, None]

    def _evaluated(self, x: Tensor) -> Tensor:
        """Powers of points on the scale of the interval."""
        return self._powers((2 * x[:, 0] - self.low - self.high) / (self.high - self.low))

    @cached_property
    def log_base(self) -> Tensor:
        """Log weights of the rule, in units of x."""
        return (self._rule[1] * (self.high - self.low) / 2).log()

    def _powers(self, t: Tensor) -> Tensor:
        return torch.stack([t**k for k in range(1, self.order + 1)], -1)

    def statistic(self, x: Any) -> Tensor:
        """Powers of the sample (n, 1), scaled to the interval."""
        found = rows(x, 1)
        if not bool(((found >= self.low) & (found <= self.high)).all()):
            raise ValueError(f"x must lie in [{self.low:g}, {self.high:g}], got [{float(found.min()):g}, {float(found.max()):g}]")
        return self._evaluated(found)

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n points by inversion of the distribution function on 2^14 cells, within which the density is taken as flat."""
        edges = torch.linspace(-1, 1, (1 << 14) + 1, dtype=torch.float64)
        mass = torch.softmax(self._powers((edges[1:] + edges[:-1]) / 2) @ self._theta(theta), 0)
        source = generator_or_default(generator)
        cell = torch.multinomial(mass, whole_number(n, 1, "n"), replacement=True, generator=source)
        t = edges[cell] + (edges[1] - edges[0]) * torch.rand(n, generator=source, dtype=torch.float64)
        return (self.low + (t + 1) * (self.high - self.low) / 2)[:, None]


__all__ = ["PolynomialExp"]
