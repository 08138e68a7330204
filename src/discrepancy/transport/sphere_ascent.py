"""Ascent of many functions on the unit sphere at once, each point with a step of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Values (...) and gradients (..., d) at unit vectors (..., d).
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
_FIRST_STEP, _LARGEST_STEP = 0.3, 0.7


def _uphill(theta: Tensor, slope: Tensor) -> Tensor:
    """The unit tangent along the gradient; zero where there is none."""
    tangent = slope - (slope * theta).sum(-1, keepdim=True) * theta
    length = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
    return tangent / torch.where(length > 0, length, torch.ones_like(length))


def sphere_ascent(evaluate: Evaluate, theta: Tensor, *, iterations: int, smallest_step: float) -> tuple[Tensor, Tensor, int]:
    """Climb from unit vectors theta (..., d) along great circles; returns the points, their values and the iterations done.

    A step that gains is taken and the next one is half as long again, one that does not is cut to 0.4: values never fall.
    Ends after `iterations`, or when every step, an angle in radians, is below `smallest_step`.
    """
    value, slope = evaluate(theta)
    uphill = _uphill(theta, slope)
    step = torch.full_like(value, _FIRST_STEP)
    done = 0
    while done < iterations and bool((step > smallest_step).any()):
        angle = step.to(theta.dtype)[..., None]
        trial = torch.cos(angle) * theta + torch.sin(angle) * uphill
        trial = trial / torch.linalg.vector_norm(trial, dim=-1, keepdim=True)
        reached, slope = evaluate(trial)
        # A point that has arrived stays, so that a batch climbs as each of its members does alone.
        better = (reached > value) & (step > smallest_step)
        theta = torch.where(better[..., None], trial, theta)
        uphill = torch.where(better[..., None], _uphill(trial, slope), uphill)
        value = torch.where(better, reached, value)
        step = torch.where(better, 1.5 * step, 0.4 * step).clamp_max(_LARGEST_STEP)
        done += 1
    return theta, value, done


__all__ = ["Evaluate", "sphere_ascent"]
