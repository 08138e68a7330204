"""Nonlinear conjugate gradients for a smooth function plus one with a proximal map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError, Outcome, Result
from discrepancy._validate import positive, whole_number

_DECREASE, _SHRINKAGE, _GROWTH = 1e-4, 0.5, 2.0
# Halvings along a conjugate direction before it is given up for the gradient, and along the gradient.
_PATIENCE, _HALVINGS = 6, 80


@dataclass(frozen=True, repr=False)
class ProximalSolution(Result):
    """The point `x`, the `objective` f + r there, the largest entry of the gradient mapping, `iterations`, how it ended."""

    x: Tensor
    objective: float
    residual: float
    iterations: int
    outcome: Outcome


@torch.no_grad()
def prox_ncg(
    f: Callable[[Tensor], Tensor],
    grad: Callable[[Tensor], Tensor],
    prox: Callable[[Tensor, float], Tensor],
    x0: Tensor,
    *,
    penalty: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    step: float = 1.0,
) -> ProximalSolution:
    """A stationary point of f(x) + r(x), r given by prox(v, t) = argmin over x of |x - v|^2 / 2 + t r(x).

    The direction is d = -grad + max(0, g.(g - g') / g'.g') d' (Polak and Ribiere), where g = (x - prox(x - t grad, t)) / t, the
    gradient mapping, which is the gradient itself where r = 0; the trial point is prox(x + s d, s) with s halved until f + r
    falls by 1e-4 |move|^2 / s. Where d is no descent direction, or six halvings fail along it, d starts again at -grad.
    `penalty` is r itself, zero where it is not given (then prox must be the identity for the search to be right).
    Stops when |g| <= `tolerance` in every entry. f may be nonconvex, and +inf outside its domain. Warns `ConvergenceWarning` at
    the iteration limit. Raises NumericalError where f or its gradient is not finite at x0.
    Time: one gradient and a few values of f an iteration; memory some eight vectors.
    Source: Polak and Ribiere (1969); Hager and Zhang (2006); the proximal step and restarts are this library's reading of the
    thesis, whose text gives the idea only.
    """
    positive(tolerance, "tolerance")
    positive(step, "step")
    whole_number(max_iterations, 1, "max_iterations")

    def total(x: Tensor) -> float:
        return float(f(x)) + (float(penalty(x)) if penalty is not None else 0.0)

    x, s = x0.detach().clone(), float(step)
    value, slope = total(x), grad(x)
    if not math.isfinite(value) or not bool(torch.isfinite(slope).all()):
        raise NumericalError(f"the objective is {value} at the start, or its gradient is not finite: start inside the domain")
    mapping = _mapping(x, slope, prox, s)
    direction = -slope
    outcome, k = Outcome.ITERATION_LIMIT, 0
    while k < max_iterations:
        if mapping.numel() == 0 or float(mapping.abs().max()) <= tolerance:
            outcome = Outcome.CONVERGED
            break
        k += 1
        if float((direction * mapping).sum()) >= 0:
            direction = -slope
        found = _search(total, prox, x, direction, value, s, _PATIENCE)
        if found is None:
            direction = -slope
            found = _search(total, prox, x, direction, value, s, _HALVINGS)
        if found is None:
            # No step decreases the objective any more: rounding has the last word.
            outcome = Outcome.EXHAUSTED
            break
        x, value, accepted = found
        old = mapping
        slope = grad(x)
        if not bool(torch.isfinite(slope).all()):
            raise NumericalError(f"the gradient is not finite after {k} iterations")
        mapping = _mapping(x, slope, prox, accepted)
        beta = max(0.0, float((mapping * (mapping - old)).sum()) / max(float(old.square().sum()), 1e-300))
        # The smooth gradient moves, and the mapping conjugates: the proximal step supplies r's own part.
        direction = -slope + beta * direction
        s = accepted * _GROWTH
    outcome.warn(f"prox_ncg after {k} iterations")
    return ProximalSolution(x, value, float(mapping.abs().max()) if mapping.numel() else 0.0, k, outcome)


def _mapping(x: Tensor, slope: Tensor, prox: Callable[[Tensor, float], Tensor], s: float) -> Tensor:
    return (x - prox(x - s * slope, s)) / s


def _search(
    total: Callable[[Tensor], float],
    prox: Callable[[Tensor, float], Tensor],
    x: Tensor,
    direction: Tensor,
    value: float,
    s: float,
    halvings: int,
) -> tuple[Tensor, float, float] | None:
    """The first trial point of sufficient decrease, its value and step; None where there is none."""
    for _ in range(halvings):
        trial = prox(x + s * direction, s)
        reached = total(trial)
        move = float((trial - x).square().sum())
        if move > 0 and math.isfinite(reached) and reached <= value - _DECREASE * move / s:
            return trial, reached, s
        s *= _SHRINKAGE
    return None


__all__ = ["ProximalSolution", "prox_ncg"]
