"""Penalties that make coefficients sparse: the lasso, and the two nonconvex ones that leave large coefficients alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """sign(x) max(|x| - threshold, 0), the proximal map of threshold |x|; exactly zero inside the threshold."""
    return torch.sign(x) * (x.abs() - threshold).clamp_min(0)


class SparsePenalty(ABC):
    """A penalty p_lam(b) = lam |b| + h(b), summed over coefficients, with h smooth and concave in |b|.

    A subclass is a frozen dataclass of its shape parameters. `lam` is a number, or a tensor with one entry a coefficient: zero
    leaves that one unpenalised.
    """

    references: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def curvature(self) -> float:
        """The largest curvature of -h: with it, f + h has Lipschitz gradient max(L_f, curvature)."""

    @abstractmethod
    def concave(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """h(b), elementwise; never positive."""

    @abstractmethod
    def slope(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """h'(b), elementwise; zero at zero."""

    def value(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """The penalty of coefficients (..., p), summed over the last dimension."""
        return (lam * b.abs() + self.concave(b, lam)).sum(-1)


@dataclass(frozen=True)
class Lasso(SparsePenalty):
    """lam |b|: convex, and shrinks every coefficient by lam. Source: Tibshirani (1996)."""

    references = ("tibshirani-1996",)

    @property
    def curvature(self) -> float:
        """Zero."""
        return 0.0

    def concave(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """Zero."""
        return torch.zeros_like(b)

    def slope(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """Zero."""
        return torch.zeros_like(b)


@dataclass(frozen=True)
class SCAD(SparsePenalty):
    """Smoothly clipped absolute deviation: slope lam up to lam, then falling to zero at a lam, flat beyond.

    p'(b) = lam for |b| <= lam, (a lam - |b|)/(a - 1) up to a lam, 0 after it; coefficients above a lam are not shrunk.
    Raises ValueError unless a > 2 is finite. Source: Fan and Li (2001).
    """

    a: float = 3.7

    references = ("fan-li-2001",)

    def __post_init__(self) -> None:
        """Check the shape."""
        if not (float(self.a) > 2 and math.isfinite(float(self.a))):
            raise ValueError(
                f"a must be finite and above 2, got {self.a!r}: SCAD has no continuous solution in one variable below it"
            )

    @property
    def curvature(self) -> float:
        """1 / (a - 1)."""
        return 1 / (self.a - 1)

    def concave(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """-(|b| - lam)^2 / (2 (a - 1)) between lam and a lam, (a + 1) lam^2 / 2 - lam |b| beyond."""
        size = b.abs()
        level = torch.as_tensor(lam, dtype=b.dtype, device=b.device)
        middle = -(size - level).clamp_min(0).square() / (2 * (self.a - 1))
        return torch.where(size > self.a * level, (self.a + 1) * level.square() / 2 - level * size, middle)

    def slope(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """sign(b) times 0, (lam - |b|)/(a - 1) and -lam on the three pieces."""
        level = torch.as_tensor(lam, dtype=b.dtype, device=b.device)
        inner = -((b.abs() - level).clamp_min(0) / (self.a - 1))
        return torch.sign(b) * torch.maximum(inner, -level)


@dataclass(frozen=True)
class MCP(SparsePenalty):
    """The minimax concave penalty: slope lam - |b| / gamma up to gamma lam, flat beyond.

    Raises ValueError unless gamma > 1 is finite: at or below 1 the problem in one standardised variable is not convex.
    Source: Zhang (2010).
    """

    gamma: float = 3.0

    references = ("zhang-2010",)

    def __post_init__(self) -> None:
        """Check the shape."""
        if not (float(self.gamma) > 1 and math.isfinite(float(self.gamma))):
            raise ValueError(
                f"gamma must be finite and above 1, got {self.gamma!r}: in one standardised variable MCP is convex only then"
            )

    @property
    def curvature(self) -> float:
        """1 / gamma."""
        return 1 / self.gamma

    def concave(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """-b^2 / (2 gamma) up to gamma lam, gamma lam^2 / 2 - lam |b| beyond."""
        size = b.abs()
        level = torch.as_tensor(lam, dtype=b.dtype, device=b.device)
        beyond = self.gamma * level.square() / 2 - level * size
        return torch.where(size > self.gamma * level, beyond, -size.square() / (2 * self.gamma))

    def slope(self, b: Tensor, lam: Tensor | float) -> Tensor:
        """-b / gamma up to gamma lam, -lam sign(b) beyond."""
        level = torch.as_tensor(lam, dtype=b.dtype, device=b.device)
        return -torch.sign(b) * torch.minimum(b.abs() / self.gamma, level)


__all__ = ["MCP", "SCAD", "Lasso", "SparsePenalty", "soft_threshold"]
