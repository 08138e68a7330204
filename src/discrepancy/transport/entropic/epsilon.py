"""The strength of the entropic regularisation: a number in units of the cost, or a rule that chooses it from the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive


@dataclass(frozen=True)
class RelativeEpsilon:
    """epsilon = fraction * sum_ij a_i b_j c(x_i, y_j): a share of the mean cost between the two samples.

    Chosen once a call, shared by all of its problems, and detached: gradients hold it fixed. Where all points coincide, so that
    the mean cost is zero, any epsilon gives the same answer and one is taken.
    """

    fraction: float = 0.05

    def __post_init__(self) -> None:
        """Raise ValueError unless the fraction is positive and finite."""
        positive(self.fraction, "fraction")


Epsilon = float | RelativeEpsilon


def check_epsilon(epsilon: Epsilon) -> None:
    """Raise unless epsilon is a positive finite number or a RelativeEpsilon."""
    if isinstance(epsilon, RelativeEpsilon):
        return
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise TypeError(f"epsilon must be a positive number in units of the cost, or RelativeEpsilon(0.05), got {epsilon!r}")
    positive(epsilon, "epsilon")


def resolve(epsilon: Epsilon, mean_cost: Tensor) -> Tensor:
    """The number that is used, for each problem of a batch with mean costs (B,)."""
    if not isinstance(epsilon, RelativeEpsilon):
        return torch.full_like(mean_cost, float(epsilon))
    chosen = epsilon.fraction * mean_cost
    return torch.where(chosen > 0, chosen, torch.ones_like(chosen))


__all__ = ["Epsilon", "RelativeEpsilon", "check_epsilon", "resolve"]
