"""Where t f'(t) - f(t) drowns in rounding: how it goes on from there, from its own growth.

Reversing a generator of which only f is known takes the difference of two terms that grow like t, and its value may grow like
log t or not at all: from some ratio on, float64 holds none of it. Up to there it is computed, beyond it is continued.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from discrepancy.divergences.f_divergence import FDivergence

_DIGITS = 1e-9  # relative error up to which the difference is believed
_SLOPE_DIGITS = 1e-6  # and its slope, whose growth is read over a stretch
_FARTHEST = 690.0  # e^690 is about the largest float64
_STEP = 0.5
_BASELINE = 2.0  # the stretch of log t that the growth is read from


@dataclass(frozen=True)
class Tail:
    """rho(e^v) = t f'(t) - f(t) and its slope in v, w = t^2 f''(t), continued beyond v = `start`.

    w goes on as weight e^(rate (v - start)): exact for generators whose tails are powers or logarithms.
    """

    start: float = math.inf
    value: float = 0.0
    weight: float = 0.0
    rate: float = 0.0

    def rho(self, v: Tensor) -> Tensor:
        """rho at v > start."""
        d = v - self.start
        if abs(self.rate) * _FARTHEST < 1e-6:
            return self.value + self.weight * d * (1 + self.rate * d / 2)
        return self.value + self.weight * torch.expm1(self.rate * d) / self.rate

    def slope(self, v: Tensor) -> Tensor:
        """d rho / dv = t^2 f''(t) at v > start."""
        return self.weight * torch.exp(self.rate * (v - self.start))


def tail(f: FDivergence) -> Tail:
    """The tail of a generator; found once for each."""
    try:
        return _remembered(f)
    except TypeError:  # a user's function that cannot be hashed
        return _found(f)


@lru_cache(maxsize=256)
def _remembered(f: FDivergence) -> Tail:
    return _found(f)


def _found(f: FDivergence) -> Tail:
    v = torch.arange(2 * _BASELINE, _FARTHEST, _STEP, dtype=torch.float64)
    with torch.no_grad():
        value = f._perspective(v, torch.zeros_like(v), v)
        product = torch.exp(v) * f._derivative(v)
        rho = product - value
        size = product.abs() + value.abs()
        # Where it overflows there is nothing to continue.
        endless = ~torch.isfinite(size)
        trusted = endless | (4 * torch.finfo(v.dtype).eps * size <= _DIGITS * rho.abs())
        # A generator that corrects its own curvature by this tail offers the one before.
        curvature = getattr(f, "_computed_curvature", f._curvature)
        slope = torch.exp(2 * v) * curvature(v) if f.smooth else torch.zeros_like(v)
        if f.smooth:
            trusted &= endless | (4 * torch.finfo(v.dtype).eps * product.abs() <= _SLOPE_DIGITS * slope)
    # The growth is read from the last stretch that is trusted.
    if bool(trusted.all()) or not bool(trusted[: round(_BASELINE / _STEP) + 1].all()):
        return Tail()
    last = int((~trusted).nonzero()[0]) - 1
    before, now = float(slope[last - round(_BASELINE / _STEP)]), float(slope[last])
    grows = before > 0 and now > 0 and math.isfinite(before) and math.isfinite(now)
    rate = math.log(now / before) / _BASELINE if grows else 0.0
    return Tail(float(v[last]), float(rho[last]), now if grows else 0.0, rate)


__all__ = ["Tail", "tail"]
