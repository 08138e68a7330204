"""The peers of exact transport: POT, wasserstein, SciPy, lapx. They are given points, and their cost matrix is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from transport import judging
from transport.problems import squared_distances
from transport.row import Contender, Problem


def _pot(problem: Problem, setting: Any) -> Callable[[], Any]:
    import ot

    x, y = problem.points()
    return lambda: ot.emd(problem.a, problem.b, squared_distances(x, y), numItermax=100_000_000)


def _pot_lazy(problem: Problem, setting: Any) -> Callable[[], Any]:
    import ot

    x, y = problem.points()
    return lambda: ot.lp.emd2_lazy(x, y, problem.a, problem.b, metric="sqeuclidean", numItermax=100_000_000)


def _wasserstein(problem: Problem, setting: Any) -> Callable[[], Any]:
    import wasserstein

    x, y = problem.points()

    def run() -> np.ndarray:
        solver = wasserstein.EMD(external_dists=True, norm=False, n_iter_max=100_000_000)
        solver(problem.a, problem.b, squared_distances(x, y))
        flows = np.asarray(solver.flows())
        return flows[: len(x), : len(y)]  # rounding of the weights may have added a point on either side

    return run


def _assigned(permutation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(permutation)
    return np.arange(n), permutation, np.full(n, 1 / n)


def _lapx(problem: Problem, setting: Any) -> Callable[[], Any]:
    import lap

    x, y = problem.points()
    return lambda: _assigned(np.asarray(lap.lapjv(squared_distances(x, y), return_cost=False)[0]))


def _scipy(problem: Problem, setting: Any) -> Callable[[], Any]:
    from scipy.optimize import linear_sum_assignment

    x, y = problem.points()
    return lambda: _assigned(linear_sum_assignment(squared_distances(x, y))[1])


def peers(*, assignment: bool) -> list[Contender]:
    """POT and wasserstein; with `assignment`, of equal sizes and weights, lapx and SciPy too."""
    found = [
        Contender("POT emd", _pot, lambda p, answer, _: judging.of_dense_plan(p, answer)),
        Contender("wasserstein", _wasserstein, lambda p, answer, _: judging.of_dense_plan(p, answer)),
    ]
    if assignment:
        found += [
            Contender("lapx lapjv", _lapx, lambda p, answer, _: judging.of_plan(p, *answer)),
            Contender("SciPy assignment", _scipy, lambda p, answer, _: judging.of_plan(p, *answer)),
        ]
    return found


def lazy() -> Contender:
    """POT without a cost matrix."""
    return Contender("POT emd2_lazy", _pot_lazy, lambda p, answer, _: judging.of_value(p, float(answer)))


__all__ = ["lazy", "peers"]
