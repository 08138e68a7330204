"""How good an answer is, in float64, from what the contender returned and the problem alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from transport.problems import squared_distances
from transport.row import Problem

Judgement = dict[str, Any]


def of_plan(problem: Problem, rows: np.ndarray, columns: np.ndarray, mass: np.ndarray) -> Judgement:
    """The cost of an exact plan given by its entries; its error is set against the best lower bound of the row later.

    A plan that misses its marginals by more than rounding is no plan: its error is infinite.
    """
    x, y = problem.points()
    off = np.abs(np.bincount(rows, mass, len(x)) - problem.a).sum() + np.abs(np.bincount(columns, mass, len(y)) - problem.b).sum()
    value = float(mass @ ((x[rows] - y[columns]) ** 2).sum(1))
    return {"value": value, "error": 0.0 if off < 1e-9 else float("inf")}


def of_dense_plan(problem: Problem, plan: np.ndarray) -> Judgement:
    """As `of_plan`, of an n x m array."""
    found = sparse.coo_matrix(plan)
    return of_plan(problem, found.row, found.col, found.data)


def of_value(problem: Problem, value: float) -> Judgement:
    """The cost that a contender without a plan reports."""
    return {"value": value, "error": 0.0}


def _lowered(x: np.ndarray, y: np.ndarray, g: np.ndarray) -> np.ndarray:
    """min_j |x_i - y_j|^2 - g_j, in blocks."""
    parts = np.array_split(x, max(1, len(x) * len(y) // 4_000_000))
    return np.concatenate([(squared_distances(part, y) - g).min(1) for part in parts])


def lower_bound(problem: Problem, g: np.ndarray) -> float:
    """The dual value of g with f lowered until f_i + g_j <= c_ij for all pairs: no plan costs less, whoever found g."""
    x, y = problem.points()
    return float(problem.a @ _lowered(x, y, np.asarray(g, dtype=np.float64)) + problem.b @ g)


def marginal_error(problem: Problem, plan: np.ndarray) -> float:
    """|P 1 - a|_1 + |P^T 1 - b|_1, the largest of a batch."""
    off = np.abs(plan.sum(-1) - problem.a).sum(-1) + np.abs(plan.sum(-2) - problem.b).sum(-1)
    return float(np.max(off))


def of_entropic_plan(problem: Problem, plan: np.ndarray) -> Judgement:
    """The L1 error of the marginals of a plan, infinite for one that is not finite."""
    plan = np.asarray(plan, dtype=np.float64)
    return {"error": marginal_error(problem, plan) if np.isfinite(plan).all() else float("inf")}


def of_potentials(problem: Problem, f: np.ndarray, g: np.ndarray) -> Judgement:
    """The same for the plan a_i b_j exp((f_i + g_j - c_ij) / epsilon)."""
    f, g = np.asarray(f, dtype=np.float64), np.asarray(g, dtype=np.float64)
    plan = f[..., :, None] + g[..., None, :] - problem.matrix()
    plan /= problem.epsilon
    np.exp(plan, out=plan)
    plan *= problem.a[..., :, None] * problem.b[..., None, :]
    return of_entropic_plan(problem, plan)


def debiased_reference(problem: Problem) -> tuple[float, np.ndarray]:
    """The Sinkhorn divergence and its gradient in x by scaling of the kernel matrix, to a marginal error of 1e-10."""
    x, y = problem.points()
    value, slope = 0.0, np.zeros_like(x)
    for factor, u, v in ((1.0, x, y), (-0.5, x, x), (-0.5, y, y)):
        kernel = squared_distances(u, v)
        kernel /= -problem.epsilon
        np.exp(kernel, out=kernel)
        left, right = np.ones(len(u)), np.ones(len(v))
        while True:
            fresh = 1 / (kernel @ right / len(v))
            error = np.abs(left / fresh - 1).mean()
            left = fresh
            if u is v:  # the symmetric fixed point, approached from both sides at once
                left = right = np.sqrt(left * right)
            else:
                right = 1 / (left @ kernel / len(u))
            if error < 1e-10:
                break
        value += factor * problem.epsilon * (np.log(left).mean() + np.log(right).mean())
        if u is x:
            inner = kernel @ (right[:, None] * v)
            own = 2 * left[:, None] * (u * (kernel @ right)[:, None] - inner) / (len(u) * len(v))
            slope += own if v is not x else -own
    return value, slope


def of_gradient(answer: tuple[Any, Any], reference: tuple[float, np.ndarray]) -> Judgement:
    """The relative errors of a value and a gradient; the row's error is the gradient's, which is the larger."""
    value, slope = float(answer[0]), np.asarray(answer[1], dtype=np.float64)
    off = abs(value - reference[0]) / abs(reference[0])
    wrong = float(np.linalg.norm(slope - reference[1]) / np.linalg.norm(reference[1]))
    return {"error": max(off, wrong), "value_error": off, "gradient_error": wrong}


def relaxed_reference(problem: Problem) -> np.ndarray:
    """The plan of entropic transport with both marginals relaxed by rho KL, by Newton-free sweeps in the log domain.

    f <- -(rho / (rho + eps)) eps log sum_j b_j exp((g_j - c_ij) / eps), and g likewise, each pair of sweeps followed by the
    best common shift f + t, g - t, which removes the slow direction; until no potential moves by 1e-13 of the mean cost.
    """
    a, b, cost, eps, rho = problem.a, problem.b, problem.matrix(), problem.epsilon, problem.rho
    share = rho / (rho + eps)
    f, g = np.zeros(len(a)), np.zeros(len(b))
    log_a, log_b = np.log(a), np.log(b)
    while True:
        before = g
        f = -share * eps * logsumexp((g - cost) / eps + log_b, axis=1)
        g = -share * eps * logsumexp((f[:, None] - cost) / eps + log_a[:, None], axis=0)
        shift = rho / 2 * (logsumexp(log_a - f / rho) - logsumexp(log_b - g / rho))
        f, g = f + shift, g - shift
        if np.abs(g - before).max() < 1e-13 * cost.mean():
            return np.exp((f[:, None] + g - cost) / eps) * np.outer(a, b)


def of_relaxed_plan(answer: np.ndarray, reference: np.ndarray) -> Judgement:
    """The L1 distance of a plan from the reference's, in shares of its mass."""
    plan = np.asarray(answer, dtype=np.float64)
    return {"error": float(np.abs(plan - reference).sum() / reference.sum())}


__all__ = [
    "debiased_reference",
    "lower_bound",
    "marginal_error",
    "of_dense_plan",
    "of_entropic_plan",
    "of_gradient",
    "of_plan",
    "of_potentials",
    "of_relaxed_plan",
    "of_value",
    "relaxed_reference",
]
