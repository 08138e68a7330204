"""What a solver of fixed-support barycenters hands back to the boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from discrepancy._results import Outcome


@dataclass(frozen=True)
class Answer:
    """Weights (B, n), the terms (B, K) that the shares weigh in the objective, the slopes (B, K, m) of these terms in the
    measures, L1 errors (B,), the duality gap (B,) where one is known, iterations, outcome, and a function k -> plans (B, n, m).
    """

    weights: Tensor
    terms: Tensor
    slopes: Tensor
    error: Tensor
    gap: Tensor | None
    iterations: int
    outcome: Outcome
    plan: Callable[[int], Tensor]


__all__ = ["Answer"]
