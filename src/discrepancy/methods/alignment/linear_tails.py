"""A function of a log-ratio, continued along its tangent where it grows too steep to train on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy.optimize import increasing_root

# e^(+-300) and its reciprocal are finite in float64, and no log-ratio of use is larger unless the function is linear there.
_FAR = 300.0


def linear_beyond(
    function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], z: Tensor, low: float, high: float
) -> Tensor:
    """function(z) on [low, high] and its tangents outside: once differentiable, and its gradient never vanishes or explodes.

    z: any shape, evaluated in float64 and returned in its dtype; `slope` is the derivative of `function` in z.
    """
    u = z.double()
    inside = u.clamp(low, high)
    with torch.no_grad():
        steepness = slope(inside)
    return (function(inside) + steepness * (u - inside)).to(z.dtype)


def moderate_range(log_slope: Callable[[Tensor], Tensor], cap: float) -> tuple[float, float]:
    """The log-ratios around 0 within which the logarithm of a slope stays below `cap`; +-300 where it always does.

    `log_slope` is monotone on either side of 0 from the point where it first passes `cap`.
    """
    target = torch.tensor(cap, dtype=torch.float64)
    high = increasing_root(log_slope, target, 0.0, _FAR)
    low = -increasing_root(lambda v: log_slope(-v), target, 0.0, _FAR)
    return float(low), float(high)


__all__ = ["linear_beyond", "moderate_range"]
