"""Renyi's and Tsallis' divergences from an estimate of the power divergence whose functions they are."""

from __future__ import annotations

import math
from dataclasses import replace

from discrepancy._results import Estimate
from discrepancy.divergences import Alpha, FDivergence, Renyi, Tsallis
from discrepancy.divergences.ratio import RatioDivergence


def power_of(divergence: RatioDivergence) -> FDivergence | None:
    """The f-divergence that an increasing function takes to this one: KL at order 1, else a multiple of Alpha(order).

    None for orders 0 and infinity, which are no functions of an expectation of a power, and for other families.
    """
    if not isinstance(divergence, Renyi | Tsallis) or not 0 < divergence.order < math.inf:
        return None
    same = divergence._as_f_divergence()
    return Alpha(divergence.order) if same is None else same


def read(divergence: RatioDivergence, found: Estimate) -> Estimate:
    """The estimate of `divergence` from that of `power_of(divergence)`; standard errors by the slope, ends of intervals mapped.

    Renyi's divergence of order a is log(1 + a (a - 1) A) / (a - 1), A the power divergence. Where an estimate of A exceeds what
    two laws can have (a < 1), the value is +inf and has no interval.
    """
    if not isinstance(divergence, Renyi) or divergence.order == 1:
        return found
    a = divergence.order

    def mean_power(value: float) -> float:
        return 1 + a * (a - 1) * value

    def of(value: float) -> float:
        inner = mean_power(value)
        return math.log(inner) / (a - 1) if inner > 0 else math.inf

    value = of(float(found))
    if math.isinf(value):
        why = "no interval: the estimated affinity of the laws is not positive; they hardly overlap"
        return Estimate(value, method=found.method, note="; ".join(filter(None, (why, found.note))))
    error = None if found.standard_error is None else a / mean_power(float(found)) * float(found.standard_error)
    low, high = (None if end is None else of(float(end)) for end in (found.low, found.high))
    return replace(found, value=value, standard_error=error, low=low, high=high)


__all__ = ["power_of", "read"]
