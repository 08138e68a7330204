"""Particle flows: a sample moved toward another along the gradient of any discrepancy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import Outcome, Result
from discrepancy._validate import positive, sample_pair, whole_number
from discrepancy.descent import descend


@dataclass(frozen=True, repr=False)
class Flow(Result):
    """Where the particles ended: `points` (..., n, d), the discrepancy's `values` (T,) along the way (summed over the batch),
    `path`: positions after every `keep` steps, the number of `steps` and the `outcome`."""

    points: Tensor
    values: Tensor
    steps: int
    outcome: Outcome
    path: list[Tensor] = field(default_factory=list, repr=False)


def flow(
    x: Any,
    y: Any,
    discrepancy: Discrepancy,
    a: Any = None,
    b: Any = None,
    *,
    steps: int = 100,
    rate: float = 0.5,
    adaptive: bool | None = None,
    tolerance: float = 1e-6,
    keep: int = 0,
    generator: torch.Generator | None = None,
) -> Flow:
    """Move x (..., n, d) toward y (..., m, d) down the gradient of `discrepancy`: x_i <- x_i - rate (1/a_i) dD/dx_i.

    The gradient flow of D in the Wasserstein space, in Euler steps, with weights a (..., n), b (..., m) that stay. For a squared
    distance (OptimalTransport, SinkhornDivergence) rate 1/2 is the step that would end at the target if the plan did not change.
    adaptive (default: for every discrepancy that is not random): the rate follows the decrease, and the flow ends early when
    the value falls by less than `tolerance` of itself ten steps in a row; a random discrepancy takes fresh directions at each
    of `steps` steps of constant rate. What D chooses from the data (a bandwidth, an epsilon) is fixed at the start. Flows of a
    kernel discrepancy slow down and may leave single particles far from the target (Arbel et al., 2019). Raises
    TypeError for what is no Discrepancy, NumericalError if the value stops being finite. Source: Ambrosio, Gigli and Savare
    (2008); Feydy et al. (2019).
    """
    if not isinstance(discrepancy, Discrepancy):
        raise TypeError(f"discrepancy must be an object such as SinkhornDivergence(), got {discrepancy!r}")
    whole_number(steps, 1, "steps")
    if not isinstance(keep, int) or keep < 0:
        raise ValueError(f"keep must be a whole number of steps between kept positions, or 0 for none, got {keep!r}")
    positive(rate, "rate")
    positive(tolerance, "tolerance")
    pair = sample_pair(x, y, a, b)
    given_a = None if a is None else pair.a.detach()
    given_b = None if b is None else pair.b.detach()
    target = pair.y.detach()
    fixed = discrepancy if pair.batch else discrepancy.resolved(pair.x.detach(), target, given_a, given_b)

    def objective(points: Tensor) -> Tensor:
        return fixed(points, target, given_a, given_b, generator=generator)

    found = descend(
        objective,
        pair.x,
        pair.a.detach(),
        steps=steps,
        rate=rate,
        tolerance=tolerance,
        adaptive=not discrepancy.claims.random if adaptive is None else adaptive,
        keep=keep,
    )
    return Flow(found.points, found.values, found.steps, found.outcome, found.path)


__all__ = ["Flow", "flow"]
