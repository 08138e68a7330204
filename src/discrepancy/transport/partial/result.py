"""The answer of a partial problem: a TransportResult with the mass that is carried and what more of it would cost."""

from __future__ import annotations

from dataclasses import dataclass

from discrepancy._results import Number, TransportResult


@dataclass(frozen=True, repr=False)
class PartialResult(TransportResult):
    """A TransportResult of a plan P whose marginals stay below the weights and whose total is `mass`.

    `f` (..., n) <= 0 and `g` (..., m) <= 0 are zero where a point keeps some of its mass; `price` is the multiplier of the total,
    the cost of the next unit: f_i + g_j + price <= c_ij, with equality where P_ij > 0 (exact problem). `marginal_error`: by how
    much, in L1, the plan exceeds the weights, plus how far its total is from `mass`. `dual_gap`: primal minus dual value.
    """

    mass: Number = float("nan")
    price: Number = float("nan")


__all__ = ["PartialResult"]
