"""Compositions, shares that sum to one: Aitchison's log-ratios, or the sphere of their square roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import at_least
from discrepancy.metric_spaces.space import Center, FlatSpace, MetricSpace, first_bad
from discrepancy.metric_spaces.sphere import SphereGeometry, check_parts


@dataclass(frozen=True)
class AitchisonSpace(FlatSpace):
    """Positive compositions (..., d) with Aitchison's distance |clr p - clr q|, clr p = log p - mean log p.

    Flat: the mean is the normalised weighted geometric mean, for weights of either sign. Scales of the parts before closure do
    not matter. Source: Aitchison (1986).
    """

    references = ("aitchison-1986",)

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Compositions without zeros."""
        Y = check_parts(Y, name)
        if bool((Y == 0).any()):
            raise ValueError(
                f"{name} has a part of zero at index {first_bad(Y == 0)}, infinitely far from all others: replace zeros by half "
                "of the detection limit, or use SquareRootCompositionSpace()"
            )
        return Y

    def embed(self, Y: Tensor) -> Tensor:
        """Centred log-ratios."""
        logs = Y.log()
        return logs - logs.mean(-1, keepdim=True)

    def retract(self, z: Tensor) -> Tensor:
        """Softmax."""
        return torch.softmax(z, -1)


@dataclass(frozen=True)
class SquareRootCompositionSpace(MetricSpace):
    """Compositions (..., d), zeros allowed, with the angle arccos(sum sqrt(p q)) between their square roots (half of Fisher and
    Rao's distance), in radians.

    Means by descent on the sphere; where negative weights lead out of the positive orthant, negative coordinates become zero.
    Source: Scealy and Welsh (2011).
    """

    max_iterations: int = 500
    references = ("scealy-welsh-2011",)

    def __post_init__(self) -> None:
        """Raise ValueError unless max_iterations >= 1."""
        at_least(self.max_iterations, 1, "max_iterations")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Compositions."""
        return check_parts(Y, name)

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return SphereGeometry().squared(_roots(a), _roots(b))

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        found = SphereGeometry().mean(_roots(Y), w, self.max_iterations)
        parts = found.point.clamp_min(0).square()
        return Center(parts / parts.sum(-1, keepdim=True), found.iterations, found.residual, found.outcome)


def _roots(p: Tensor) -> Tensor:
    """Square roots of shares, with gradient zero (not infinite) at a share of zero."""
    inside = p > 0
    return torch.where(inside, torch.where(inside, p, torch.ones_like(p)).sqrt(), torch.zeros_like(p))


__all__ = ["AitchisonSpace", "SquareRootCompositionSpace"]
