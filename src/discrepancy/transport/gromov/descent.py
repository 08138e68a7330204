"""Descent on the quadratic transport problem: conditional gradient with exact steps, or entropic fixed points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.problem import MatrixProblem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.exact.choose import ExactSolver
from discrepancy.transport.exact.solution import Basis, ExactSolution
from discrepancy.transport.gromov.structure import Quadratic


@dataclass(frozen=True)
class Descent:
    """A stationary plan (n, m), its objective, potentials of the linearised problem, and how the descent went.

    `stationarity` is what the best other plan would gain at first order, in units of the objective: zero at a local minimum.
    """

    plan: Tensor
    value: float
    f: Tensor
    g: Tensor
    stationarity: float
    iterations: int
    outcome: Outcome


def _dense(solution: ExactSolution, like: Tensor) -> Tensor:
    plan = torch.zeros_like(like)
    plan[torch.from_numpy(solution.rows), torch.from_numpy(solution.columns)] = torch.from_numpy(solution.mass)
    return plan


def conditional_gradient(problem: Quadratic, start: Tensor, solver: ExactSolver, tolerance: float, limit: int) -> Descent:
    """Frank-Wolfe from the plan `start`: the exact plan of the linearised cost, then the best point of the segment to it.

    The objective is quadratic along the segment, so the step is a closed form; the linear problems start from each other's
    trees. Each iteration is one product Cx P Cy and one exact transport problem.
    """
    a, b = problem.a.numpy(), problem.b.numpy()
    constant = problem.constant()
    P, product = start, problem.product(start)
    value = problem.value(P, product, constant)
    scale = max(abs(value), float((constant * P).sum()) * problem.weight * 1e-3, 1e-300)
    basis: Basis | None = None
    gain, done, outcome = np.inf, 0, Outcome.ITERATION_LIMIT
    f, g = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
    while done < limit:
        slope = problem.gradient(product, constant)
        solution = solver.solve_matrix(slope.numpy(), a, b, start=basis)
        basis, done = solution.basis, done + 1
        f, g = torch.from_numpy(solution.f), torch.from_numpy(solution.g)
        D = _dense(solution, P)
        gain = float((slope * (P - D)).sum())
        if gain <= tolerance * scale:
            outcome = Outcome.CONVERGED
            break
        move = D - P
        moved = problem.product(D) - product
        curvature = -2 * problem.weight * float((moved * move).sum())
        step = min(1.0, gain / (2 * curvature)) if curvature > 0 else 1.0
        P, product = P + step * move, product + step * moved
        following = problem.value(P, product, constant)
        if following >= value - 1e-15 * scale:
            value, outcome = min(value, following), Outcome.CONVERGED if gain <= 1e-6 * scale else Outcome.EXHAUSTED
            break
        value = following
    return Descent(P, value, f, g, max(gain, 0.0), done, outcome)


def entropic_descent(problem: Quadratic, start: Tensor, epsilon: float, tolerance: float, limit: int) -> Descent:
    """Fixed points of P = argmin_Q <grad E(P), Q> + epsilon KL(Q | a x b): mirror descent with unit step.

    It descends on E + epsilon KL wherever E is concave along the step, which squared losses of squared distances are. Stops
    when the plan moves by less than `tolerance` in L1. One product and one Sinkhorn problem, warm started, an iteration.
    """
    constant = problem.constant()
    P, product = start, problem.product(start)
    solver = SemiDualNewton(tolerance=min(1e-9, tolerance / 10))
    strength = torch.tensor([epsilon], dtype=torch.float64)
    f, g, warm = torch.zeros_like(problem.a), torch.zeros_like(problem.b), None
    done, outcome, change = 0, Outcome.ITERATION_LIMIT, np.inf
    while done < limit:
        matrix = MatrixProblem(problem.gradient(product, constant)[None], problem.a[None], problem.b[None], torch.float64)
        found = solver.solve(matrix, strength, start=warm)
        warm, f, g = found.g, found.f[0], found.g[0]
        following = torch.cat([p for _, p, _ in matrix.plan_blocks(found.f, found.g, strength)], -2)[0]
        change = float((following - P).abs().sum())
        P, done = following, done + 1
        product = problem.product(P)
        if change <= tolerance:
            outcome = Outcome.CONVERGED
            break
    reference = problem.a[:, None] * problem.b
    ratio = torch.where(reference > 0, P / torch.where(reference > 0, reference, torch.ones_like(P)), torch.ones_like(P))
    value = problem.value(P, product, constant) + epsilon * float(torch.xlogy(P, ratio).sum())
    return Descent(P, value, f, g, change, done, outcome)


__all__ = ["Descent", "conditional_gradient", "entropic_descent"]
