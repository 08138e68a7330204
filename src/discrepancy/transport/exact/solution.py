"""What an exact solver hands back: a basic plan, feasible potentials, and the gap between their values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from discrepancy._results import Outcome


@dataclass(frozen=True)
class Basis:
    """Where a later solve of a similar problem may begin: a spanning forest of arcs with integer flows, and potentials.

    rows, columns (k,) int64 with k <= n + m - 1, flows (k,) int64 >= 0 on the integer weights (a, b) int64, f (n,), g (m,).
    """

    rows: np.ndarray
    columns: np.ndarray
    flows: np.ndarray
    a: np.ndarray
    b: np.ndarray
    f: np.ndarray
    g: np.ndarray


@dataclass(frozen=True)
class ExactSolution:
    """An optimal plan as at most n + m - 1 entries, potentials feasible for every pair, and what they certify.

    rows, columns (k,) int64 and mass (k,) > 0, whose marginals are the weights; f (n,), g (m,) with f_i + g_j <= c_ij to the
    rounding of c, points of weight zero included; primal = sum mass c, dual = <a, f> + <b, g>, both of weights that sum to
    one, in units of the cost; their difference is a rigorous gap. `pivots` of the simplex, `rounds` of pricing; `rungs` names
    the solvers used.
    """

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    f: np.ndarray
    g: np.ndarray
    primal: float
    dual: float
    pivots: int
    rounds: int
    outcome: Outcome
    rungs: tuple[str, ...] = ()
    basis: Basis | None = field(default=None, repr=False, compare=False)

    @property
    def gap(self) -> float:
        """primal - dual, in units of the cost."""
        return self.primal - self.dual


__all__ = ["Basis", "ExactSolution"]
