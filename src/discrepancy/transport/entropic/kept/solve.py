"""A batch of kept problems: small ones in one compiled loop, large ones one by one on the ladder; zero weights completed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.kept.feasibility import require_feasible
from discrepancy.transport.entropic.kept.ladder import Ladder, first_level
from discrepancy.transport.entropic.kept.rungs import Rungs
from discrepancy.transport.entropic.problem import MatrixProblem
from discrepancy.transport.entropic.solver import Potentials

# Pairs up to which a problem is solved inside one compiled call, where the plan stays in the processor's caches.
_SMALL = 1 << 16
# Problems of a batch that one thread takes at a time, at least.
_LEAST = 8


def solve_kept(
    problem: MatrixProblem, epsilon: Tensor, goal: float, limit: int, factor: float, start: Tensor | None
) -> Potentials:
    """The potentials of a batch on the CPU, to the L1 marginal error `goal` in at most `limit` passes each.

    Raises ValueError where forbidden pairs leave no plan with these weights.
    """
    size, n, m = problem.cost.shape
    a, b = problem.a.numpy(), _of_mass(problem.b.numpy(), problem.a.numpy())
    levels, mean = epsilon.double().numpy(), problem.mean_cost().numpy()
    f, g, errors = np.zeros((size, n)), np.zeros((size, m)), np.zeros(size)
    if start is not None:
        g[:] = start.double().numpy()
    if n * m <= _SMALL:
        passes, stuck = _together(problem.cost.numpy(), a, b, levels, mean, goal, limit, factor, start is not None, f, g, errors)
        rungs: tuple[str, ...] = ("dense Newton in one compiled loop",)
    else:
        passes, stuck, rungs = 0, False, ()
        for k in range(size):
            begin = g[k].copy() if start is not None else None
            ladder = _one(
                problem.cost[k].numpy(), a[k], b[k], float(levels[k]), float(mean[k]), goal, limit, factor, problem.forbids,
                begin, f[k], g[k],
            )  # fmt: skip
            errors[k], stuck = ladder.error, stuck or (ladder.error > goal and ladder.stuck)
            passes, rungs = max(passes, ladder.done), ladder.rungs.words()
    if not bool((errors <= goal).all()):
        require_feasible(problem)
        outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
    else:
        outcome = Outcome.CONVERGED
    left, right = torch.from_numpy(f), torch.from_numpy(g)
    shift = ((problem.b * right).sum(-1) - (problem.a * left).sum(-1))[:, None] / 2
    return Potentials(left + shift, right - shift, torch.from_numpy(errors), passes, outcome, rungs)


def solve_kept_symmetric(problem: MatrixProblem, epsilon: Tensor, goal: float, limit: int) -> Potentials:
    """The potentials f = g of a batch of measures, each against itself, under a symmetric cost; averaged sweeps, then Newton."""
    size, n, _ = problem.cost.shape
    a, levels = problem.a.numpy(), epsilon.double().numpy()
    f, errors = np.zeros((size, n)), np.zeros(size)
    cost = problem.cost.numpy()
    if n * n <= _SMALL:
        from discrepancy._loops.entropic.symmetric import solve_symmetric_range
        from discrepancy._loops.threads import in_parallel, ranges

        def work(part: tuple[int, int]) -> np.ndarray:
            tally = np.zeros(5, np.int64)
            solve_symmetric_range(cost, a, levels, goal, limit, *part, f, errors, tally)
            return tally

        tally = sum(in_parallel(work, ranges(size, _LEAST)), np.zeros(5, np.int64))
        passes = -(-int(tally[0] + tally[1]) // size)
    else:
        passes = max(_one_symmetric(cost[k], a[k], float(levels[k]), goal, limit, f[k], errors[k:]) for k in range(size))
    if bool((errors <= goal).all()):
        outcome = Outcome.CONVERGED
    else:
        outcome = Outcome.ITERATION_LIMIT if passes >= limit else Outcome.EXHAUSTED
    potential = torch.from_numpy(f)
    return Potentials(potential, potential, torch.from_numpy(errors), passes, outcome, (f"symmetric Newton: {passes} passes",))


def _of_mass(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """b with the total mass of a: in single precision each sums to one by itself, which bounds the error from below."""
    ratio = a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    return b * ratio if (np.abs(ratio - 1) > 1e-13).any() else b


def _together(cost, a, b, levels, mean, goal, limit, factor, warm, f, g, errors) -> tuple[int, bool]:
    """All problems in compiled loops, a range of them a thread; passes of a problem on average, whether rounding stopped one."""
    from discrepancy._loops.entropic.annealing import solve_range
    from discrepancy._loops.threads import in_parallel, ranges

    first = first_level(levels, mean)

    def work(part: tuple[int, int]) -> np.ndarray:
        tally = np.zeros(5, np.int64)
        solve_range(cost, a, b, levels, mean, first, warm, factor, goal, limit, *part, f, g, errors, tally)
        return tally

    tally = sum(in_parallel(work, ranges(len(cost), _LEAST)), np.zeros(5, np.int64))
    return -(-int(tally[0] + tally[1]) // len(cost)), bool(tally[4])


def _one(cost, a, b, epsilon, mean, goal, limit, factor, forbids, start, f, g) -> Ladder:
    """One problem on the ladder, over the points that have weight; f and g are written for all."""
    from discrepancy._loops.entropic.annealing import soft_minimum
    from discrepancy._loops.entropic.newton import LN2

    rows, columns = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    part = cost
    if rows.size < a.size or columns.size < b.size:
        part = np.ascontiguousarray(cost[np.ix_(rows, columns)])
    ladder = Ladder(part, a[rows], b[columns], mean, limit, Rungs(), factor, forbids)
    found = ladder.solve(epsilon, goal, None if start is None else start[columns])
    scale = 1 / (epsilon * LN2)
    f[:], g[:] = 0, 0
    f[rows], g[columns] = -ladder.levels / scale, found
    for i in np.flatnonzero(a == 0):
        f[i] = soft_minimum(cost, i, False, scale, b, g)
    for j in np.flatnonzero(b == 0):
        g[j] = soft_minimum(cost, j, True, scale, a, f)
    return ladder


def _one_symmetric(cost, a, epsilon, goal, limit, f, error) -> int:
    """One symmetric problem over the points that have weight; the passes it took."""
    from discrepancy._loops.apart import zeros_apart
    from discrepancy._loops.entropic.annealing import soft_minimum
    from discrepancy._loops.entropic.newton import LN2
    from discrepancy._loops.entropic.symmetric import balance_symmetric

    rows = np.flatnonzero(a > 0)
    part = cost if rows.size == a.size else np.ascontiguousarray(cost[np.ix_(rows, rows)])
    found, tally = zeros_apart(rows.size), np.zeros(5, np.int64)
    plan = zeros_apart(*part.shape, dtype=np.float32)
    error[0] = balance_symmetric(part, plan, a[rows], epsilon, goal, limit, found, tally)
    f[:] = 0
    f[rows] = found
    light = np.flatnonzero(a == 0)
    f[light] = [soft_minimum(cost, i, False, 1 / (epsilon * LN2), a, f) for i in light]
    return int(tally[0] + tally[1])


__all__ = ["solve_kept", "solve_kept_symmetric"]
