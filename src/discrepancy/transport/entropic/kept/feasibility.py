"""Whether forbidden pairs leave any plan between the weights: a maximum flow over the pairs that are allowed."""

from __future__ import annotations

import numpy as np

from discrepancy.transport.entropic.problem import MatrixProblem

# Weights become whole numbers of this total: what is lost to rounding is far below it.
_TOTAL = 1 << 30


def require_feasible(problem: MatrixProblem) -> None:
    """Raise ValueError if some problem of the batch has forbidden pairs and no plan that avoids them; nothing without such
    pairs. Costs a maximum flow on n m arcs, so it is asked only where a solver does not converge."""
    if not problem.forbids:
        return
    for cost, a, b in zip(problem.cost.numpy(), problem.a.numpy(), problem.b.numpy(), strict=True):
        share = transportable(np.isfinite(cost), a, b)
        if share < 1 - 1e-6:
            raise ValueError(
                f"C forbids (cost +inf) so many pairs that no plan has these weights: at most {share:.6g} of the mass can be "
                "moved; allow more pairs, or relax the weights with UnbalancedSinkhorn"
            )


def transportable(allowed: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The largest share of the mass of a (n,) that can be moved to b (m,) over the allowed pairs (n, m)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    n, m = allowed.shape
    i, j = np.nonzero(allowed & (a > 0)[:, None] & (b > 0))
    supply, demand = np.floor(a * _TOTAL).astype(np.int32), np.ceil(b * _TOTAL).astype(np.int32)
    source, sink = n + m, n + m + 1
    heads = np.concatenate([np.full(n, source), i, n + np.arange(m)])
    tails = np.concatenate([np.arange(n), n + j, np.full(m, sink)])
    capacity = np.concatenate([supply, np.minimum(supply[i], demand[j]), demand])
    graph = csr_array((capacity, (heads, tails)), shape=(n + m + 2, n + m + 2), dtype=np.int32)
    return float(maximum_flow(graph, source, sink).flow_value) / max(1, int(supply.sum()))


__all__ = ["require_feasible", "transportable"]
