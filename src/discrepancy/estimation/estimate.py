"""`estimate`: a divergence between the laws of two samples, with its uncertainty."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from discrepancy._results import Estimate
from discrepancy.divergences import Divergence
from discrepancy.estimation.nearest import NearestNeighbors


class Method(Protocol):
    """An estimator of divergences from samples."""

    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """The divergence D(P || Q) from x of P and y of Q."""
        ...


def estimate(
    x: Any,
    y: Any,
    divergence: Divergence,
    *,
    method: Method | None = None,
    level: float = 0.95,
    generator: torch.Generator | None = None,
    a: Any = None,
    b: Any = None,
) -> Estimate:
    """The divergence D(P || Q) between the laws of x (n, d), drawn from P, and y (m, d), drawn from Q, in nats.

    `method` None is `NearestNeighbors()`, which takes KL and every combination of power divergences and gives an interval at
    `level`, or none with a `note` that says why. Nearest neighbours take no weights: `a`, `b` other than None raise ValueError.
    Raises TypeError for a divergence that the method cannot estimate, naming those that it can. Time: see the method.
    """
    if not isinstance(divergence, Divergence):
        hint = f"{divergence.__name__}()" if isinstance(divergence, type) else "KL()"
        raise TypeError(f"divergence must be a Divergence object, got {divergence!r}: pass {hint}")
    method = NearestNeighbors() if method is None else method
    if not callable(method):
        raise TypeError(f"method must be an estimator such as NearestNeighbors(k=10), got {method!r}")
    if a is not None or b is not None:
        raise ValueError("estimates from samples take no weights (a, b): resample the rows in proportion to them first")
    return method(divergence, x, y, level=level, generator=generator)


__all__ = ["Method", "estimate"]
