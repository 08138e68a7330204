"""From coarse to fine through the levels of both sides, or straight at the finest from an earlier basis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from discrepancy.costs import Cost
from discrepancy.transport.exact.hierarchy import Side
from discrepancy.transport.exact.level import Arcs, LevelSolution, candidates, solve_level
from discrepancy.transport.exact.pricing import BlockPricing, PointPricing, Pricing
from discrepancy.transport.exact.refinement import CoarsePlan, Forest, forest_of, match_globally, match_in_order, match_locally

# Candidate arcs of a point, in up to 4 dimensions and above: from 5 to 16 little changes, but for heavy tails.
_FEW, _MANY = 8, 12


@dataclass(frozen=True)
class Space:
    """How sides are priced: by a compiled metric, or (metric None) by blocks of a cost's matrix in `budget` bytes."""

    cost: Cost
    metric: int | None
    power: float
    dtype: torch.dtype
    budget: int

    def pricing(self, x: Side, y: Side, *, every_pair: bool = False) -> Pricing:
        """The pricing of x against y; every_pair: nothing is skipped."""
        if self.metric is None:
            return BlockPricing(x, y, self.cost, self.dtype, self.budget)
        return PointPricing(x, y, self.metric, self.power, every_pair)


def descend(space: Space, rows: list[Side], columns: list[Side]) -> LevelSolution:
    """Solve all levels, given finest first; a level that is done with is taken off the lists.

    A level begins with the coarse potentials carried over, v_j = min_A c(x_A, y_j) - u_A, and the plan handed down.
    """
    coarse: tuple[Side, Side, LevelSolution] | None = None
    pivots = rounds = 0
    while True:
        x, y = rows[-1], columns[-1]
        pricing = space.pricing(x, y)
        if coarse is None:
            arcs = _candidates(pricing, x, y, np.zeros(len(y.mass)))
            forest = match_in_order(pricing, x.mass, y.mass)
        else:
            above_x, above_y, found = coarse
            arcs = _candidates(pricing, x, y, space.pricing(above_x, y).smallest(found.u, 1, back=True).lowest)
            assert above_x.children is not None
            assert above_y.children is not None
            plan = CoarsePlan(found.rows, found.columns, found.flows, above_x.children, above_y.children)
            forest = _cheaper(plan, pricing, x, y, arcs)
        found = solve_level(pricing, len(x.mass), len(y.mass), arcs, forest)
        del arcs, forest
        pivots, rounds = pivots + found.pivots, rounds + found.rounds
        if len(rows) == 1:
            return replace(found, pivots=pivots, rounds=rounds)
        coarse = x, y, found
        rows.pop()
        columns.pop()


def resume(
    space: Space, x: Side, y: Side, v: np.ndarray, flow: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> LevelSolution:
    """Solve the finest level from potentials v (m,) and, where the weights are still the same, a forest of flows."""
    pricing = space.pricing(x, y)
    arcs = _candidates(pricing, x, y, v)
    if flow is None:
        forest = match_globally(arcs.rows, arcs.columns, arcs.excess(), pricing, x.mass, y.mass)
    else:
        forest = forest_of(pricing, *flow)
    return solve_level(pricing, len(x.mass), len(y.mass), arcs, forest)


def _candidates(pricing: Pricing, x: Side, y: Side, v: np.ndarray) -> Arcs:
    return candidates(pricing, len(x.mass), len(y.mass), v, _FEW if x.points.shape[1] <= 4 else _MANY)


def _cheaper(plan: CoarsePlan, pricing: Pricing, x: Side, y: Side, arcs: Arcs) -> Forest:
    """The local or the global start: the first wins on clusters and in low dimension, the second on noise in high dimension."""
    near = match_locally(plan, pricing, x.mass, y.mass, arcs.u, arcs.v)
    far = match_globally(arcs.rows, arcs.columns, arcs.excess(), pricing, x.mass, y.mass)
    return far if far.excess(arcs.u, arcs.v) < near.excess(arcs.u, arcs.v) else near


__all__ = ["Space", "descend", "resume"]
