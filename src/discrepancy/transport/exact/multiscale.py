"""Exact transport between point clouds without an n x m matrix: the network simplex on a hierarchy of cells.

Each side is put into k-d order; levels of cells, four times as many from one to the next, are solved from coarse to fine. A
level starts from the plan and the potentials of the one above, solves the problem on a few candidate arcs a point and prices
all pairs, cell by cell or block by block, until none violates. Sources: Cunningham (1976), strongly feasible trees; Bonneel,
van de Panne, Paris and Heidrich (2011), the simplex on transport; Merigot (2011) and Schmitzer (2016), multi-scale and sparse
refinement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from discrepancy._results import NumericalError, Outcome
from discrepancy.costs import Cost, FunctionCost
from discrepancy.transport.exact.descent import Space, descend, resume
from discrepancy.transport.exact.flows import integer_weights, masses
from discrepancy.transport.exact.ground import compiled_ground
from discrepancy.transport.exact.hierarchy import Side, finest, kd_order, level_depths, sides
from discrepancy.transport.exact.level import LevelSolution
from discrepancy.transport.exact.reduction import Reduction, give_back, keep_all, merge_equal
from discrepancy.transport.exact.solution import Basis, ExactSolution

_RUNG = "multi-scale network simplex"


def solve_points(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    cost: Cost,
    *,
    start: Basis | None = None,
    rigorous: bool = False,
    memory: float = 1.0,
) -> ExactSolution:
    """The optimal plan between points x (n, d) and y (m, d) of weights a (n,), b (m,), with its proof.

    Weights are non-negative and sum to one. start: the basis of a solved problem of the same sizes, say of the same points
    before they moved a little: its plan is taken up where the weights are the same, its potentials in any case. rigorous: end
    with a pass over all pairs that skips none; the usual last pass skips only what its bounds exclude, so that the gap is at
    rounding level either way. memory: GiB for a block of costs that have no compiled form.

    Meant for n m above 1e5. Time grows as about n^1.4 in low dimension, and as some passes over all pairs in high dimension;
    memory is linear in n + m: besides the points some 500 bytes each. Computes in float64.
    Raises ValueError if `start` has other sizes or a side has no mass, NumericalError if a cost is not finite.
    """
    weights = integer_weights(a, b)
    whole_a, whole_b = np.zeros(len(a), np.int64), np.zeros(len(b), np.int64)
    whole_a[weights.rows], whole_b[weights.columns] = weights.a, weights.b
    if start is not None and (len(start.a), len(start.b)) != (len(a), len(b)):
        raise ValueError(
            f"start must be the basis of a problem of {len(a)} x {len(b)} points, got {len(start.a)} x {len(start.b)}: "
            "solve without start"
        )
    space, left, right, unit, flat = _prepare(x, y, whole_a, whole_b, cost, memory, merge=start is None)
    if cost.premetric and left.holds_the_same_as(right):
        found = _nothing_moves(left.side.mass)
    elif start is None:
        depths = level_depths(len(left.side.mass), len(right.side.mass))
        found = descend(space, sides(left.side, depths, flat), sides(right.side, depths, flat))
    else:
        v = right.ordered(start.g) / unit if unit > 0 else np.zeros(len(right.order))
        found = resume(space, left.side, right.side, v, _flow(start, left, right))
    pricing = space.pricing(left.side, right.side, every_pair=rigorous)
    u = pricing.smallest(found.v, 1).lowest if rigorous else found.u
    costs = pricing.pairs(found.rows, found.columns)
    mass = found.flows / weights.total
    primal = float(mass @ costs)
    # <a, f> + <b, g> of weights that the plan meets exactly, without the cancellation of those sums.
    dual = primal - float(mass @ (costs - u[found.rows] - found.v[found.columns]))
    f, g = _everywhere(space, left, right, u, found.v)
    with np.errstate(over="ignore"):
        f, g = f * unit, g * unit
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        raise NumericalError("the costs of these points exceed the range of float64: divide x and y by their size")
    order = left.order[found.rows], right.order[found.columns]
    rows, columns, flows = give_back(*order, found.flows, left.reduction, right.reduction, whole_a, whole_b)
    return ExactSolution(
        rows=rows,
        columns=columns,
        mass=masses(flows, rows, whole_a, np.asarray(a, np.float64)),
        f=f,
        g=g,
        primal=primal * unit,
        dual=dual * unit,
        pivots=found.pivots,
        rounds=found.rounds,
        outcome=found.outcome,
        rungs=(_RUNG,),
        basis=Basis(rows, columns, flows, whole_a, whole_b, f, g),
    )


@dataclass(frozen=True)
class _Cloud:
    """All points of a side (n, d), their reduction to k distinct ones, the k-d order (k,) of those, the side in that order."""

    points: np.ndarray
    reduction: Reduction
    order: np.ndarray
    side: Side

    @staticmethod
    def of(points: np.ndarray, mass: np.ndarray, merge: bool) -> _Cloud:
        reduction = merge_equal(points, mass) if merge else keep_all(mass)
        order = kd_order(points[reduction.chosen])
        chosen = reduction.chosen[order]
        return _Cloud(points, reduction, order, finest(np.ascontiguousarray(points[chosen]), reduction.mass[order]))

    def ordered(self, values: np.ndarray) -> np.ndarray:
        """Values of all points (n,) as values of the distinct ones in k-d order (k,)."""
        return values[self.reduction.chosen[self.order]]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of the distinct points in k-d order (k,) as values of all points (n,); NaN for those without mass."""
        out = np.full(len(self.points), np.nan)
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        label = self.reduction.label
        out[label >= 0] = values[place[label[label >= 0]]]
        return out

    def places(self) -> np.ndarray:
        """The place in k-d order of every point (n,), -1 for those without mass."""
        place = np.full(len(self.points), -1, np.int64)
        place[self.reduction.chosen[self.order]] = np.arange(len(self.order))
        return place

    def holds_the_same_as(self, other: _Cloud) -> bool:
        """Whether both sides are one measure: k-d orders of equal lists are equal, and merging lists equal sets equally."""
        return np.array_equal(self.side.mass, other.side.mass) and np.array_equal(self.side.points, other.side.points)

    def without_mass(self) -> tuple[np.ndarray, Side]:
        """The points without mass, in k-d order, and their side."""
        zero = self.reduction.zero
        zero = zero[kd_order(self.points[zero])]
        return zero, finest(np.ascontiguousarray(self.points[zero]), np.zeros(len(zero), np.int64))


def _prepare(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cost: Cost, memory: float, *, merge: bool
) -> tuple[Space, _Cloud, _Cloud, float, bool]:
    """How pairs are priced, both clouds, the unit of their costs, and whether means of points are points."""
    ground = compiled_ground(x, y, cost)
    if ground is not None:
        space = Space(cost, ground.metric, ground.power, torch.float64, 0)
        return space, _Cloud.of(ground.x, a, merge), _Cloud.of(ground.y, b, merge), ground.unit, ground.flat
    # A user's function meets tensors of the samples' own dtype. Small blocks are faster than few large ones.
    px, py = np.ascontiguousarray(x), np.ascontiguousarray(y)
    dtype = torch.from_numpy(np.empty(0, px.dtype)).dtype if isinstance(cost, FunctionCost) else torch.float64
    space = Space(cost, None, 1.0, dtype, min(int(memory * 2**30), 64 << 20))
    return space, _Cloud.of(px, a, merge), _Cloud.of(py, b, merge), 1.0, False


def _nothing_moves(mass: np.ndarray) -> LevelSolution:
    """Equal sides at a cost that vanishes at equality: every point stays, and zero potentials prove it."""
    k = len(mass)
    return LevelSolution(np.arange(k), np.arange(k), mass, np.zeros(k), np.zeros(k), 0, 0, Outcome.CLOSED_FORM)


def _flow(start: Basis, left: _Cloud, right: _Cloud) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The forest of an earlier basis in k-d order, or None where the weights have changed since."""
    a, b = np.zeros_like(start.a), np.zeros_like(start.b)
    a[left.reduction.chosen], b[right.reduction.chosen] = left.reduction.mass, right.reduction.mass
    if not (np.array_equal(a, start.a) and np.array_equal(b, start.b)):
        return None
    used = start.flows > 0
    return left.places()[start.rows[used]], right.places()[start.columns[used]], start.flows[used]


def _everywhere(space: Space, left: _Cloud, right: _Cloud, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Potentials f (n,), g (m,) of all points: those without mass get the largest feasible value, f first."""
    f, g = left.spread(u), right.spread(v)
    zero_x, side_x = left.without_mass()
    zero_y, side_y = right.without_mass()
    if len(zero_x):
        f[zero_x] = space.pricing(side_x, right.side).smallest(v, 1).lowest
    if len(zero_y):
        g[zero_y] = space.pricing(left.side, side_y).smallest(u, 1, back=True).lowest
        if len(zero_x):
            g[zero_y] = np.minimum(g[zero_y], space.pricing(side_x, side_y).smallest(f[zero_x], 1, back=True).lowest)
    return f, g


__all__ = ["solve_points"]
