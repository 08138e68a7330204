"""The exact barycenter on a fixed support, as one linear programme in its weights and in all plans."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import NumericalError, Outcome
from discrepancy.transport.barycenters.answer import Answer
from discrepancy.transport.exact.optimal_transport import OptimalTransport


def exact(costs: Tensor, b: Tensor, w: Tensor, max_unknowns: int) -> Answer:
    """The barycenters of measures b (B, K, m) under shares w (B, K) and costs (n, m), all in float64.

    Raises ValueError for programmes of more than `max_unknowns` unknowns.
    """
    _, count, m = b.shape
    n = len(costs)
    if count * n * m > max_unknowns:
        raise ValueError(
            f"the programme has {count} x {n} x {m} unknowns, more than max_unknowns = {max_unknowns}: "
            "use EntropicBarycenter or DebiasedBarycenter, or raise max_unknowns"
        )
    tables = [costs.numpy()] * count
    solved = [weights_and_plans(tables, list(masses.numpy()), share.numpy()) for masses, share in zip(b, w, strict=True)]
    weights, terms, slopes, error, gap = (torch.from_numpy(np.stack([s[k] for s in solved])) for k in range(5))

    def plan(k: int) -> Tensor:
        return torch.from_numpy(np.stack([s[5][k] for s in solved]))

    return Answer(weights, terms, slopes, error, gap, 0, Outcome.CONVERGED, plan)


Solved = tuple[np.ndarray, np.ndarray, np.ndarray, float, float, list[np.ndarray]]


def weights_and_plans(tables: list[np.ndarray], masses: list[np.ndarray], share: np.ndarray) -> Solved:
    """min over a and P_k of sum_k w_k <P_k, C_k> with P_k 1 = a and P_k^T 1 = b_k, for costs C_k (n, m_k) and masses (m_k,).

    Returns a (n,), <P_k, C_k> (K,), the potentials of the masses (sum m_k in order; stacked where all m_k agree), the marginal
    error, the duality gap and the plans. Columns without mass are left out of the programme and get their potentials by
    g_j = min_i c_ij - f_i.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    n, live = len(tables[0]), [int(k) for k in np.flatnonzero(share > 0)]
    scale = max([float(np.abs(tables[k]).max()) for k in live]) or 1.0
    kept = {k: np.flatnonzero(masses[k] > 0) for k in live}
    rows, columns, values, right, objective = [], [], [], [], []
    unknown, equation = n, 0
    places: dict[int, tuple[int, int]] = {}
    for k in live:
        width = len(kept[k])
        index = unknown + np.arange(n * width).reshape(n, width)
        places[k] = (unknown, equation)
        rows += [np.repeat(equation + np.arange(n), width), equation + np.arange(n), np.tile(equation + n + np.arange(width), n)]
        columns += [index.ravel(), np.arange(n), index.ravel()]
        values += [np.ones(n * width), -np.ones(n), np.ones(n * width)]
        right += [np.zeros(n), masses[k][kept[k]]]
        objective.append((share[k] / scale) * tables[k][:, kept[k]].ravel())
        unknown, equation = unknown + n * width, equation + n + width
    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(equation, unknown)
    ).tocsr()
    # A unit of mass a point keeps the solver's absolute tolerances far below the masses.
    unit = float(max(len(v) for v in kept.values()))
    found = linprog(np.concatenate([np.zeros(n), *objective]), A_eq=matrix, b_eq=unit * np.concatenate(right), method="highs-ds")
    if found.status != 0:
        raise NumericalError(f"the linear programme of the barycenter was not solved: {found.message}")
    x = np.maximum(found.x, 0) / unit
    a = x[:n] / x[:n].sum()
    dual = found.eqlin.marginals * scale
    plans, terms, slopes, error, bound = [], np.zeros(len(tables)), [], 0.0, 0.0
    for k, table in enumerate(tables):
        plan = np.zeros(table.shape)
        if k in places:
            first, at = places[k]
            plan[:, kept[k]] = x[first : first + n * len(kept[k])].reshape(n, -1)
            f = dual[at : at + n] / share[k]
            g = (table - f[:, None]).min(0)
            bound += share[k] * float(masses[k] @ g)
            error += share[k] * float(np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - masses[k]).sum())
            terms[k] = float((plan * table).sum())
        else:  # weighs nothing in the programme: its own problem, for its term
            alone = OptimalTransport().solve_cost(table, a, masses[k])
            assert alone.g is not None
            plan, g, terms[k] = alone.plan().to_dense().numpy(), alone.g.numpy(), float(alone.value)
        plans.append(plan)
        slopes.append(g)
    # min over the a of mass one of <a, sum_k w_k f_k>: zero where the programme is solved, but for rounding.
    bound += float(np.min(sum(dual[at : at + n] for _, at in places.values())))
    potentials = np.stack(slopes) if len({len(s) for s in slopes}) == 1 else np.concatenate(slopes)
    return a, terms, potentials, error, float(share @ terms) - bound, plans


__all__ = ["exact", "weights_and_plans"]
