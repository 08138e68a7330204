"""Orlicz functions: convex, increasing from Phi(0) = 0 to infinity; how much a displacement weighs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class OrliczFunction(ABC):
    """Phi with its derivative, elementwise on t >= 0 in float64, and its inverse at a number."""

    @abstractmethod
    def value(self, t: Tensor) -> Tensor:
        """Phi(t); +inf where it overflows."""

    @abstractmethod
    def derivative(self, t: Tensor) -> Tensor:
        """Phi'(t)."""

    @abstractmethod
    def inverse(self, s: float) -> float:
        """The t with Phi(t) = s, for s > 0."""


@dataclass(frozen=True)
class Power(OrliczFunction):
    """t^p with p >= 1: the Orlicz-Wasserstein distance is then W_p."""

    p: float = 2.0

    def __post_init__(self) -> None:
        """Raise ValueError unless p >= 1 and finite."""
        if isinstance(self.p, bool) or not isinstance(self.p, int | float) or not 1 <= self.p < math.inf:
            raise ValueError(f"p must be a finite number of at least 1, so that t^p is convex, got {self.p!r}")

    def value(self, t: Tensor) -> Tensor:
        """t^p."""
        return t**self.p

    def derivative(self, t: Tensor) -> Tensor:
        """p t^(p-1)."""
        return self.p * t ** (self.p - 1)

    def inverse(self, s: float) -> float:
        """s^(1/p)."""
        return s ** (1 / self.p)


@dataclass(frozen=True)
class ExponentialPower(OrliczFunction):
    """exp(t^beta) - 1 with beta >= 1: the sub-exponential (beta = 1) and sub-Gaussian (beta = 2) norms, psi_1 and psi_2."""

    beta: float = 2.0

    def __post_init__(self) -> None:
        """Raise ValueError unless beta >= 1 and finite."""
        if isinstance(self.beta, bool) or not isinstance(self.beta, int | float) or not 1 <= self.beta < math.inf:
            raise ValueError(f"beta must be a finite number of at least 1, so that the function is convex, got {self.beta!r}")

    def value(self, t: Tensor) -> Tensor:
        """exp(t^beta) - 1."""
        return torch.expm1(t**self.beta)

    def derivative(self, t: Tensor) -> Tensor:
        """beta t^(beta-1) exp(t^beta)."""
        return self.beta * t ** (self.beta - 1) * torch.exp(t**self.beta)

    def inverse(self, s: float) -> float:
        """log(1 + s)^(1/beta)."""
        return math.log1p(s) ** (1 / self.beta)


@dataclass(frozen=True)
class CustomOrlicz(OrliczFunction):
    """A function of your own: function(t) on tensors of t >= 0, differentiable by autograd; the rest is derived.

    Checked at construction on a grid of t from 1e-3 to 1e3: Phi(0) = 0, no decrease, convexity, and growth beyond 1.
    """

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for what is no Orlicz function."""
        if not callable(self.function):
            raise TypeError(f"function must be callable as function(t), got {type(self.function).__name__}")
        if float(self.value(torch.zeros(1, dtype=torch.float64))[0]) != 0:
            raise ValueError("an Orlicz function must be 0 at 0")
        grid = torch.logspace(-3, 3, 601, dtype=torch.float64)
        values = self.value(grid)
        if bool(values.isnan().any()):
            raise ValueError("function(t) is NaN on part of [0.001, 1000]")
        finite = values < 1e300
        grid, values = grid[finite], values[finite]
        slopes = values.diff() / grid.diff()
        if bool((slopes < 0).any()):
            raise ValueError("an Orlicz function must not decrease")
        if bool((slopes[1:] < slopes[:-1] * (1 - 1e-6) - 1e-12).any()):
            raise ValueError("an Orlicz function must be convex")
        if not self._exceeds(1.0):
            raise ValueError("function never exceeds 1: no scale makes the expected value reach 1")

    def _exceeds(self, s: float) -> bool:
        return bool((self.value(torch.logspace(-6, 12, 37, dtype=torch.float64)) > s).any())

    def value(self, t: Tensor) -> Tensor:
        """The function itself."""
        return self.function(t)

    def derivative(self, t: Tensor) -> Tensor:
        """By autograd."""
        with torch.enable_grad():
            leaf = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(leaf).sum(), leaf)
        return slope

    def inverse(self, s: float) -> float:
        """By bisection on the logarithm of t."""
        if not self._exceeds(s):
            raise ValueError(f"function never exceeds {s}")
        low, high = -40.0, 40.0
        for _ in range(120):
            middle = (low + high) / 2
            above = float(self.value(torch.tensor([math.exp(middle)], dtype=torch.float64))[0]) >= s
            low, high = (low, middle) if above else (middle, high)
        return math.exp(high)


__all__ = ["CustomOrlicz", "ExponentialPower", "OrliczFunction", "Power"]
