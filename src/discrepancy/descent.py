"""Weighted particles moved down the gradient of a function of their positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError, Outcome

_GROWTH, _SHRINKAGE, _SMALLEST = 1.5, 0.3, 1e-12


@dataclass(frozen=True)
class Descent:
    """Where the particles (..., n, d) ended, the values (T,) along the way, positions after every `keep` steps, the outcome."""

    points: Tensor
    values: Tensor
    path: list[Tensor]
    steps: int
    outcome: Outcome


def descend(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    weights: Tensor,
    *,
    steps: int,
    rate: float,
    tolerance: float,
    adaptive: bool,
    keep: int = 0,
) -> Descent:
    """x_i <- x_i - rate grad_i / weight_i: the Wasserstein gradient flow of a function of weighted particles, in Euler steps.

    objective: points (..., n, d) -> values (...), whose sum is descended. Particles of weight zero do not move. adaptive: the
    rate grows by half after each accepted step and shrinks where a step does not decrease the value by a tenth of what its
    slope promised; stops when the value falls by less than `tolerance` of itself ten steps in a row. Otherwise the rate is
    constant and all steps are taken, as random objectives need. Raises NumericalError if the value stops being finite. One
    evaluation with gradient a step, plus those of rejected steps.
    """
    inverse = torch.where(weights > 0, 1 / torch.where(weights > 0, weights, torch.ones_like(weights)), torch.zeros_like(weights))

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(leaf).sum()
            (slope,) = torch.autograd.grad(value, leaf)
        if not bool(torch.isfinite(value)) or not bool(torch.isfinite(slope).all()):
            raise NumericalError(f"the objective or its gradient is not finite after {len(values)} evaluations")
        return value.detach(), slope

    values: list[Tensor] = []
    x = start.detach()
    value, slope = evaluate(x)
    values.append(value)
    path = [x] if keep else []
    quiet, outcome, done = 0, Outcome.ITERATION_LIMIT, 0
    while done < steps:
        velocity = slope * inverse[..., None]
        promise = (slope * velocity).sum()
        if float(promise) == 0:
            outcome = Outcome.CONVERGED
            break
        trial = x - rate * velocity
        reached, next_slope = evaluate(trial)
        if adaptive and float(reached) > float(value) - 0.1 * rate * float(promise):
            rate *= _SHRINKAGE
            if rate < _SMALLEST:
                outcome = Outcome.CONVERGED
                break
            continue
        quiet = quiet + 1 if float(value - reached) <= tolerance * abs(float(value)) else 0
        x, value, slope, done = trial, reached, next_slope, done + 1
        values.append(value)
        if keep and done % keep == 0:
            path.append(x)
        if adaptive:
            rate *= _GROWTH
            if quiet >= 10:
                outcome = Outcome.CONVERGED
                break
    if not adaptive:
        outcome = Outcome.CONVERGED  # all steps were asked for and taken
    return Descent(x, torch.stack(values), path, done, outcome)


__all__ = ["Descent", "descend"]
