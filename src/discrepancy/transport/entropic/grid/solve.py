"""Solving a batch of grid problems, and the symmetric problem of a mass against itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.costs import Cost
from discrepancy.transport.entropic.grid.passes import GridPasses
from discrepancy.transport.entropic.solver import Potentials
from discrepancy.transport.entropic.streamed.ladder import Ladder

LOG2 = math.log(2.0)


def grid_problems(a: Tensor, b: Tensor, left: Sequence[np.ndarray], right: Sequence[np.ndarray], cost: Cost) -> list[GridPasses]:
    """A problem for each pair of a batch of masses a (B, *shape), b (B, *shape)."""
    masses = (w.detach().double().contiguous().numpy() for w in (a, b))
    return [GridPasses(p, q, left, right, cost) for p, q in zip(*masses, strict=True)]


def solve_grids(problems: Sequence[GridPasses], epsilon: Tensor, ladder: Ladder) -> Potentials:
    """f (B, n) and g (B, m), flat, with <a, f> = <b, g>; defined where there is no mass too, by their soft-minima."""
    found, f, g = [], [], []
    for p, e in zip(problems, epsilon.tolist(), strict=True):
        climb = ladder.solve(p, e, p.mean_cost(p.row_weights, p.column_weights))
        a, b, scale = p.row_weights, p.column_weights, 1 / (e * LOG2)
        columns = climb.g
        if (b == 0).any():
            u = np.where(a > 0, climb.f * scale + np.log2(np.where(a > 0, a, 1)), 0.0)
            columns = np.where(b > 0, columns, -p.soft_minima(u, scale, transposed=True) / scale)
        shift = (math.fsum(b * columns) - math.fsum(a * climb.f)) / 2
        found.append(climb)
        f.append(climb.f + shift)
        g.append(columns - shift)
    longest = max(found, key=lambda c: c.iterations)
    outcome = next((c.outcome for c in found if not c.outcome.ok), Outcome.CONVERGED)
    error = torch.tensor([c.error for c in found], dtype=torch.float64)
    fs, gs = (torch.from_numpy(np.stack(t)) for t in (f, g))
    return Potentials(fs, gs, error, longest.iterations, outcome, longest.rungs)


def solve_itself(problem: GridPasses, epsilon: float, tolerance: float, limit: int) -> tuple[np.ndarray, float, Outcome]:
    """The potential of a mass against itself by averaged soft-minima, which contract by 1/3 at every epsilon."""
    a, scale = problem.row_weights, 1 / (epsilon * LOG2)
    log_a = np.log2(np.where(a > 0, a, 1))
    f, error = np.zeros(a.size), math.inf
    for sweep in range(limit):
        target = -problem.soft_minima(f * scale + log_a, scale) / scale
        error = math.fsum(a * np.abs(np.expm1(np.minimum((f - target) / epsilon, 50.0))))
        if error <= tolerance:
            return np.where(a > 0, (f + target) / 2, target), error, Outcome.CONVERGED
        f = f + (0.5 if sweep < 2 else 2 / 3) * (target - f)
    return f, error, Outcome.ITERATION_LIMIT


__all__ = ["grid_problems", "solve_grids", "solve_itself"]
