"""What a plan pays for a marginal that is not the weights: hard constraint, Kullback-Leibler, total variation, or your own.

A penalty is D(p | a) = sum_i a_i phi(p_i / a_i) for a convex phi >= 0 with phi(1) = 0, seen through its dual: the concave
-phi*(-f) of a potential f, on an interval of potentials. Given the soft-minimum s of the cost at a point, the best potential
there maximises -phi*(-f) - epsilon exp((f - s) / epsilon), which is the anisotropic proximal step of unbalanced scaling.
Source: Chizat, Peyre, Schmitzer and Vialard (2018); Sejourne et al. (2019).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive

# Bisections of the general proximal step: the bracket shrinks from its first width to the rounding of float64.
_HALVINGS = 200


class MarginalPenalty(ABC):
    """D(p | a) = sum_i a_i phi(p_i / a_i), the price of a marginal p where the weights are a; in units of the cost.

    A subclass is a frozen dataclass that implements `price`, `reward`, `mass` and `slope`, elementwise on float64 tensors of any
    shape; `lower` and `upper` bound the potentials on which `reward` is finite. Everything else follows.
    """

    lower: float = -math.inf
    upper: float = math.inf

    @property
    def decay(self) -> float | None:
        """The number k for which mass(f) = exp(-k f) within the bounds, or None; then proximal steps have a closed form."""
        return None

    @property
    def hard(self) -> bool:
        """Whether the marginal must equal the weights."""
        return False

    @abstractmethod
    def price(self, ratio: Tensor) -> Tensor:
        """phi(t) at ratios t >= 0 of the plan's marginal to the weights; may be infinite."""

    @abstractmethod
    def reward(self, f: Tensor) -> Tensor:
        """-phi*(-f), concave with reward(0) = 0, at potentials within [lower, upper]."""

    @abstractmethod
    def mass(self, f: Tensor) -> Tensor:
        """The derivative of `reward`: the ratio t that a potential f asks for, falling in f; inside the bounds at a kink."""

    @abstractmethod
    def slope(self, f: Tensor) -> Tensor:
        """-mass'(f) >= 0."""

    def fenchel_gap(self, ratio: Tensor, f: Tensor) -> Tensor:
        """phi(t) + phi*(-f) + t f >= 0: what is lost where the ratio t is not the one that f asks for."""
        return (self.price(ratio) - self.reward(f) + ratio * f).clamp_min(0)

    def step(self, s: Tensor, epsilon: Tensor) -> Tensor:
        """The maximiser of reward(f) - epsilon exp((f - s) / epsilon) within the bounds, for soft-minima s.

        epsilon broadcasts against s. It solves mass(f) = exp((f - s) / epsilon), whose sides fall and rise in f: s / (1 + k
        epsilon) cut to the bounds where the mass decays as exp(-k f), else by bisection.
        """
        if self.decay is not None:
            return (s / (1 + self.decay * epsilon)).clamp(self.lower, self.upper)
        width = (s.abs() + epsilon + 1).expand(s.shape).clone()
        low = torch.full_like(s, -math.inf) if math.isinf(self.lower) else torch.full_like(s, self.lower)
        high = torch.full_like(s, math.inf) if math.isinf(self.upper) else torch.full_like(s, self.upper)

        def too_low(f: Tensor) -> Tensor:
            return self.mass(f) > ((f - s) / epsilon).clamp_max(700).exp()

        low = torch.where(torch.isinf(low), torch.minimum(s, high) - width, low)
        high = torch.where(torch.isinf(high), torch.maximum(s, low) + width, high)
        for _ in range(60):  # widen until the solution is inside, or a bound is met
            below = ~too_low(low) & (low > self.lower)
            above = too_low(high) & (high < self.upper)
            if not bool((below | above).any()):
                break
            width = 2 * width
            low = torch.where(below, (low - width).clamp_min(self.lower), low)
            high = torch.where(above, (high + width).clamp_max(self.upper), high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            inside = (middle > low) & (middle < high)
            if not bool(inside.any()):
                break
            rises = too_low(middle)
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class Balanced(MarginalPenalty):
    """The marginal equals the weights: phi(t) = 0 at t = 1, infinite elsewhere; ordinary transport on that side."""

    @property
    def decay(self) -> float:
        """0."""
        return 0.0

    @property
    def hard(self) -> bool:
        """True."""
        return True

    def price(self, ratio: Tensor) -> Tensor:
        """0 at ratio 1, infinite elsewhere."""
        return torch.where(ratio == 1, torch.zeros_like(ratio), torch.full_like(ratio, math.inf))

    def reward(self, f: Tensor) -> Tensor:
        """f."""
        return f

    def mass(self, f: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(f)

    def slope(self, f: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(f)

    def fenchel_gap(self, ratio: Tensor, f: Tensor) -> Tensor:
        """0: a plan is made to meet this marginal before its value is taken."""
        return torch.zeros_like(f)


@dataclass(frozen=True)
class KLPenalty(MarginalPenalty):
    """rho KL(p | a) = rho sum_i (p_i log(p_i / a_i) - p_i + a_i), rho > 0 in units of the cost.

    Mass is worth carrying over costs up to about rho: rho -> infinity is `Balanced`, rho -> 0 transports nothing. rho = inf is
    refused: write Balanced(). Source: Chizat et al. (2018); Liero, Mielke and Savare (2018).
    """

    rho: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError unless rho is positive and finite."""
        if self.rho == math.inf:
            raise ValueError("rho must be finite, got inf: a hard marginal is Balanced()")
        positive(self.rho, "rho")

    @property
    def decay(self) -> float:
        """1 / rho."""
        return 1 / self.rho

    def price(self, ratio: Tensor) -> Tensor:
        """rho (t log t - t + 1), by log1p near t = 1."""
        move = ratio - 1
        near = ratio * torch.log1p(move.clamp(-0.5, 0.5)) - move
        return self.rho * torch.where(move.abs() <= 0.5, near, torch.xlogy(ratio, ratio) - move).clamp_min(0)

    def reward(self, f: Tensor) -> Tensor:
        """rho (1 - exp(-f / rho))."""
        return -self.rho * torch.expm1(-f / self.rho)

    def mass(self, f: Tensor) -> Tensor:
        """exp(-f / rho)."""
        return (-f / self.rho).exp()

    def slope(self, f: Tensor) -> Tensor:
        """exp(-f / rho) / rho."""
        return (-f / self.rho).exp() / self.rho

    def fenchel_gap(self, ratio: Tensor, f: Tensor) -> Tensor:
        """rho e^(-f / rho) (delta e^delta - e^delta + 1) with delta = log t + f / rho, which does not cancel for large rho."""
        asked = (-f / self.rho).exp()
        delta = ratio.log() + f / self.rho
        grown = torch.expm1(delta)
        inner = torch.where(delta.abs() < 1e-4, delta.square() * (0.5 + delta / 3), delta * (grown + 1) - grown)
        gap = self.rho * torch.where(ratio > 0, asked * inner, asked)
        return gap.clamp_min(0)


@dataclass(frozen=True)
class TotalVariationPenalty(MarginalPenalty):
    """rho sum_i |p_i - a_i|, rho > 0 in units of the cost: each unit of mass created or destroyed costs rho.

    A unit is carried from x to y where that costs less than the two prices together; potentials stay within [-rho, rho]. This
    is partial transport in its Lagrangian form. The sum of absolute differences is twice the total variation distance of two
    probabilities. Source: Chizat et al. (2018); Piccoli and Rossi (2014).
    """

    rho: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError unless rho is positive and finite."""
        if self.rho == math.inf:
            raise ValueError("rho must be finite, got inf: a hard marginal is Balanced()")
        positive(self.rho, "rho")

    @property
    def decay(self) -> float:
        """0 within the bounds."""
        return 0.0

    @property
    def lower(self) -> float:  # type: ignore[override]
        """-rho."""
        return -float(self.rho)

    @property
    def upper(self) -> float:  # type: ignore[override]
        """rho."""
        return float(self.rho)

    def price(self, ratio: Tensor) -> Tensor:
        """rho |t - 1|."""
        return self.rho * (ratio - 1).abs()

    def reward(self, f: Tensor) -> Tensor:
        """f within the bounds."""
        return f

    def mass(self, f: Tensor) -> Tensor:
        """1 within the bounds; at upper any t <= 1, at lower any t >= 1, is asked for."""
        return torch.ones_like(f)

    def slope(self, f: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(f)


__all__ = ["Balanced", "KLPenalty", "MarginalPenalty", "TotalVariationPenalty"]
