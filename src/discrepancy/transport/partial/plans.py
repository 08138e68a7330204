"""Partial plans as ordinary ones: what stays behind is carried to a dummy point at no cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.exact.choose import ExactSolver
from discrepancy.transport.exact.gradient import Entries
from discrepancy.transport.exact.solution import Basis

_NOTHING = 1e-15  # of the total: a remainder that is rounding


@dataclass(frozen=True)
class PartialPlan:
    """One solved problem: entries (k,) of the plan, potentials f (n,), g (m,) <= 0, the price of the total, how it went."""

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    f: np.ndarray
    g: np.ndarray
    price: float
    pivots: int
    outcome: Outcome
    rungs: tuple[str, ...]
    basis: Basis | None

    def transposed(self) -> PartialPlan:
        """The plan of the problem with its sides exchanged; without a basis."""
        return PartialPlan(
            self.columns, self.rows, self.mass, self.g, self.f, self.price, self.pivots, self.outcome, self.rungs, None
        )


def solve_partial(C: np.ndarray, a: np.ndarray, b: np.ndarray, mass: float, solver: ExactSolver) -> PartialPlan:
    """The cheapest plan of total `mass` with marginals below a (n,) and b (m,), positive measures in float64.

    The cost matrix C (n, m) gets a row and a column of zeros, and their own pair is forbidden: the dummy column takes the |a| -
    mass that stays on the left, the dummy row serves the |b| - mass that stays on the right [Chapel et al. 2020, with an infinite
    cost in place of a large one]. With the potentials F, G of that problem, f = F + G_dummy, g = G + F_dummy and the price is
    -(F_dummy + G_dummy). Memory: one copy of C.
    """
    n, m = C.shape
    padded = np.zeros((n + 1, m + 1))
    padded[:n, :m] = C
    padded[n, m] = np.inf
    left, right = _rest(a, mass), _rest(b, mass)
    # Both sides of the padded problem have this total, computed once for each, so that each sums to one.
    total_a, total_b = a.sum() + right, b.sum() + left
    found = solver.solve_matrix(padded, np.r_[a, right] / total_a, np.r_[b, left] / total_b)
    inside = (found.rows < n) & (found.columns < m)
    return PartialPlan(
        found.rows[inside],
        found.columns[inside],
        found.mass[inside] * total_a,
        found.f[:n] + found.g[m],
        found.g[:m] + found.f[n],
        -float(found.f[n] + found.g[m]),
        found.pivots,
        found.outcome,
        (*found.rungs, "dummy points"),
        found.basis,
    )


def _rest(weights: np.ndarray, mass: float) -> float:
    """What stays of a measure."""
    total = float(weights.sum())
    rest = total - mass
    return rest if rest > _NOTHING * total * len(weights) else 0.0


@dataclass(frozen=True)
class Proof:
    """What certifies a batch of plans: <P, C> (B,), primal minus dual (B,), by how much constraints are broken (B,), outcome."""

    cost: Tensor
    gap: Tensor
    error: Tensor
    outcome: Outcome


def certify(plans: Sequence[PartialPlan], costs: np.ndarray, a: np.ndarray, b: np.ndarray, mass: np.ndarray) -> Proof:
    """From the costs (k,) of all entries, end to end, and weights a (B, n), b (B, m) and masses (B,)."""
    primal, gap, error = np.zeros(len(plans)), np.zeros(len(plans)), np.zeros(len(plans))
    outcome, first = plans[0].outcome, 0
    for k, plan in enumerate(plans):
        cost = costs[first : first + len(plan.mass)]
        first += len(plan.mass)
        primal[k] = plan.mass @ cost
        dual = a[k] @ plan.f + b[k] @ plan.g + mass[k] * plan.price
        gap[k] = primal[k] - dual
        scale = plan.mass @ np.abs(cost) + a[k] @ np.abs(plan.f) + b[k] @ np.abs(plan.g) + mass[k] * abs(plan.price)
        over_a = np.bincount(plan.rows, plan.mass, a.shape[1]) - a[k]
        over_b = np.bincount(plan.columns, plan.mass, b.shape[1]) - b[k]
        error[k] = np.maximum(over_a, 0).sum() + np.maximum(over_b, 0).sum() + abs(plan.mass.sum() - mass[k])
        if abs(gap[k]) <= 1e-13 * scale:
            gap[k] = max(gap[k], 0.0)
        ok = abs(gap[k]) <= 1e-9 * scale and error[k] <= 1e-9 * mass[k]
        if not plan.outcome.ok:
            outcome = plan.outcome
        elif not ok and outcome.ok:
            outcome = Outcome.EXHAUSTED
    return Proof(torch.from_numpy(primal), torch.from_numpy(gap), torch.from_numpy(error), outcome)


def entries_of(plans: Sequence[PartialPlan]) -> Entries:
    """The entries of a batch of plans, end to end."""
    sizes = [len(p.mass) for p in plans]
    rows, columns = (torch.from_numpy(np.concatenate([getattr(p, s) for p in plans])).long() for s in ("rows", "columns"))
    mass = torch.from_numpy(np.concatenate([p.mass for p in plans]))
    return Entries(torch.from_numpy(np.repeat(np.arange(len(plans)), sizes)), rows, columns, mass)


__all__ = ["PartialPlan", "Proof", "certify", "entries_of", "solve_partial"]
