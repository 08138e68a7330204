"""log of the integral of p^a q^b for pairs of laws: the one number from which power, Renyi, Cauchy-Schwarz and Hoelder follow.

A formula is registered for an ordered pair of families with `power_integral`; products of independent components add their
logarithms, and a common change of variables leaves the integral as it is where a + b = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from discrepancy._registry import PairDispatch

PowerIntegral = Callable[[Any, Any, float, float], Tensor | None]

_INTEGRALS = PairDispatch("integrals of p^a q^b")


def power_integral(left: type, right: type) -> Callable[[PowerIntegral], PowerIntegral]:
    """Decorator: formula(P, Q, a, b) gives log of the integral of p^a q^b, of the batch shape: +inf where it diverges, -inf
    where it is zero, None where there is no closed form after all."""
    return _INTEGRALS.register(left, right)


def log_power_integral(P: Any, Q: Any, a: float, b: float) -> Tensor | None:
    """log of the integral of p^a q^b, or None where no closed form is known."""
    for formula in _INTEGRALS.candidates(type(P), type(Q)):
        value = formula(P, Q, a, b)
        if value is not None:
            return value
    if isinstance(P, Independent) and isinstance(Q, Independent):
        n = P.reinterpreted_batch_ndims
        if n != Q.reinterpreted_batch_ndims or P.event_shape != Q.event_shape:
            return None
        return _product(log_power_integral(P.base_dist, Q.base_dist, a, b), n)
    if isinstance(P, TransformedDistribution) and isinstance(Q, TransformedDistribution):
        if a + b != 1 or P.transforms != Q.transforms or P.event_shape != Q.event_shape:
            return None
        extra = len(P.event_shape) - len(P.base_dist.event_shape)
        return _product(log_power_integral(P.base_dist, Q.base_dist, a, b), extra)
    return None


def _product(parts: Tensor | None, dimensions: int) -> Tensor | None:
    """The sum over the last dimensions; an integral of zero makes the product zero, whatever the other factors."""
    if parts is None or dimensions <= 0:
        return parts if dimensions == 0 else None
    over = tuple(range(-dimensions, 0))
    none = (parts == -torch.inf).any(dim=over)
    marked = none.reshape(*none.shape, *(1,) * dimensions)
    total = torch.where(marked, torch.zeros_like(parts), parts).sum(over)
    return torch.where(none, torch.full_like(total, -torch.inf), total)


__all__ = ["PowerIntegral", "log_power_integral", "power_integral"]
