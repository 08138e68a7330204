"""The dual of entropic partial transport: block ascent down a ladder of epsilons, then projected Newton steps.

    D(f, g, u) = <a, f> + <b, g> + s u - epsilon sum_ij a_i b_j (exp((f_i + g_j + u - C_ij) / epsilon) - 1),   f, g <= 0

is concave, its gradient is a - P 1, b - P^T 1 and s - total of the plan P. Source: Benamou et al. (2015) for the blocks,
Bertsekas (1982) for the projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Outcome

_START, _FACTOR = 0.2, 3.0  # epsilon of the first level as a share of the mean cost, and what it falls by
_SWEEPS = 4  # of block ascent at the start of a level
_LEVEL_GOAL = 1e-2  # relative error to which levels before the last are solved
_LONGEST = 8.0  # epsilons that a Newton step may move a potential
_NEAR = 0.1  # epsilons from zero within which a rising potential is put there
_CONJUGATE_LIMIT = 300


@dataclass(frozen=True)
class EntropicPartial:
    """Potentials f (n,), g (m,) <= 0 and the price u; the ratios (n,), (m,) of the plan's marginals to the weights, in the limit
    where a weight is zero; the plan (n, m); value, cost, gap; by how much the marginals exceed the weights and the total is off
    (L1); passes over all pairs; outcome."""

    f: Tensor
    g: Tensor
    price: Tensor
    ratio_a: Tensor
    ratio_b: Tensor
    plan: Tensor
    value: float
    cost: float
    gap: float
    error: float
    iterations: int
    outcome: Outcome


class _Problem:
    """Costs (n, m), +inf where forbidden, weights and mass, in float64."""

    def __init__(self, C: Tensor, a: Tensor, b: Tensor, s: float) -> None:
        self.C, self.a, self.b, self.s = C, a, b, s
        self.log_a, self.log_b = a.log(), b.log()
        self.passes = 0

    def plan(self, f: Tensor, g: Tensor, u: Tensor, e: float) -> Tensor:
        """P (n, m)."""
        self.passes += 1
        exponent = (f[:, None] + g + u - self.C) / e + self.log_a[:, None] + self.log_b
        return exponent.clamp_max_(300).exp_()

    def dual(self, f: Tensor, g: Tensor, u: Tensor, P: Tensor, e: float) -> float:
        """D at the potentials of the plan P."""
        fixed = self.a.sum() * self.b.sum()
        return float((self.a * f).sum() + (self.b * g).sum() + self.s * u - e * (P.sum() - fixed))

    def row_minima(self, g: Tensor, e: float) -> Tensor:
        """-epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), (n,); +inf where all pairs of a row are forbidden."""
        self.passes += 1
        return -e * torch.logsumexp(self.log_b + (g - self.C) / e, 1)

    def column_minima(self, f: Tensor, e: float) -> Tensor:
        """The same for the columns, (m,)."""
        self.passes += 1
        return -e * torch.logsumexp(self.log_a[:, None] + (f[:, None] - self.C) / e, 0)

    def total(self, f: Tensor, s: Tensor, e: float) -> Tensor:
        """log of the plan's total at u = 0, from the row minima s."""
        return torch.logsumexp(self.log_a + (f - s) / e, 0)


def _sweep(problem: _Problem, f: Tensor, g: Tensor, u: Tensor, e: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best f, then g, then u, each for the others as they are."""
    f = (problem.row_minima(g, e) - u).clamp_max(0)
    g = (problem.column_minima(f, e) - u).clamp_max(0)
    s = problem.row_minima(g, e)
    return f, g, e * (torch.log(torch.tensor(problem.s, dtype=torch.float64)) - problem.total(f, s, e))


def solve_entropic(C: Tensor, a: Tensor, b: Tensor, s: float, epsilon: float, tolerance: float, limit: int) -> EntropicPartial:
    """The optimal potentials for costs C (n, m), weights a (n,), b (m,) >= 0 and mass s.

    Ends when the L1 error is below `tolerance` times s, or after `limit` passes over all pairs. Points without weight take no
    part, and get their potentials at the end.
    """
    rows, columns = a > 0, b > 0
    problem = _Problem(C[rows][:, columns], a[rows], b[columns], s)
    finite = torch.where(problem.C.isfinite(), problem.C, torch.zeros_like(problem.C))
    mean = float(problem.a @ finite @ problem.b / (a.sum() * b.sum()))
    f, g, u = torch.zeros_like(problem.a), torch.zeros_like(problem.b), torch.zeros((), dtype=torch.float64)
    level = max(_START * abs(mean), epsilon)
    while True:
        last = level <= epsilon
        for _ in range(_SWEEPS):
            f, g, u = _sweep(problem, f, g, u, level)
        goal = (tolerance if last else _LEVEL_GOAL) * s
        f, g, u, error, stuck = _newton(problem, f, g, u, level, goal, limit)
        if last or problem.passes >= limit:
            break
        level = max(level / _FACTOR, epsilon)
    outcome = Outcome.EXHAUSTED if stuck else Outcome.ITERATION_LIMIT
    if last and error <= goal:
        outcome = Outcome.CONVERGED
    full = _Problem(C, a, b, s)
    all_f, all_g = torch.zeros_like(a), torch.zeros_like(b)
    all_f[rows], all_g[columns] = f, g
    left, right = full.row_minima(all_g, epsilon) - u, full.column_minima(all_f, epsilon) - u
    all_f, all_g = torch.where(rows, all_f, left.clamp_max(0)), torch.where(columns, all_g, right.clamp_max(0))
    ratios = ((all_f - left) / epsilon).exp(), ((all_g - right) / epsilon).exp()
    P = torch.zeros_like(C)
    P[rows.nonzero(), columns.nonzero()[:, 0]] = problem.plan(f, g, u, epsilon)
    cost, gap, value, over = _certified(problem, f, g, u, epsilon)
    passes = problem.passes + full.passes
    return EntropicPartial(all_f, all_g, u, *ratios, P, value, cost, gap, max(over, error), passes, outcome)


def _lifted(f: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same plan with the largest f and the largest g at zero: D never falls by it, as s is at most either mass."""
    up, across = f.max(), g.max()
    return f - up, g - across, u + up + across


def _newton(
    problem: _Problem, f: Tensor, g: Tensor, u: Tensor, e: float, goal: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, float, bool]:
    """Projected Newton steps from f, g, u: the new ones, their L1 error, and whether rounding ended them."""
    f, g, u = _lifted(f, g, u)
    P = problem.plan(f, g, u, e)
    value = problem.dual(f, g, u, P, e)
    best, since, error = float("inf"), 0, problem.s
    while True:
        rows, columns, total = P.sum(1), P.sum(0), P.sum()
        left, right, rest = problem.a - rows, problem.b - columns, problem.s - total
        # A potential at zero that would rise is held: its point keeps mass, as it may. So is one so near zero that the step would
        # end there, else the others would move for its sake in vain.
        near = -e * min(_NEAR, error / problem.s)
        free_f, free_g = (f < near) | (left < 0), (g < near) | (right < 0)
        left, right = left * free_f, right * free_g
        error = float(left.abs().sum() + right.abs().sum() + rest.abs())
        since = 0 if error < 0.9 * best else since + 1
        best = min(best, error)
        if error <= goal or problem.passes >= limit or since > 20:
            return f, g, u, error, since > 20
        d = _direction(P, rows, columns, total, (left, right, rest), (free_f, free_g), problem, error / problem.s)
        # What the plan sees of a step: changes of f_i + g_j + u where it has mass.
        seen = (d[0][:, None] + d[1] + d[2]).abs()[1e-8 * total / P.numel() < P]
        step, size = [t * e for t in d], min(1.0, _LONGEST / max(float(seen.max()), 1e-300))
        held_f, held_g = torch.where(free_f, f, torch.zeros_like(f)), torch.where(free_g, g, torch.zeros_like(g))
        while True:
            trial = _lifted((held_f + size * step[0]).clamp_max(0), (held_g + size * step[1]).clamp_max(0), u + size * step[2])
            plan = problem.plan(*trial, e)
            found = problem.dual(*trial, plan, e)
            if found >= value - 1e-14 * abs(value) or size < 1e-4:
                break
            size *= 0.4
        if size < 1e-4:  # where Newton fails, a sweep still rises
            trial = _lifted(*_sweep(problem, f, g, u, e))
            plan = problem.plan(*trial, e)
            found = problem.dual(*trial, plan, e)
        (f, g, u), P, value = trial, plan, found


def _direction(
    P: Tensor,
    rows: Tensor,
    columns: Tensor,
    total: Tensor,
    residual: tuple[Tensor, Tensor, Tensor],
    free: tuple[Tensor, Tensor],
    problem: _Problem,
    relative: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Newton step on the free potentials and the price, in units of epsilon, by conjugate gradients on
    [[diag P1, P, P1], [P^T, diag P^T1, P^T1], [., ., total]], its diagonal raised a little."""
    free_f, free_g = free
    n, m = P.shape
    # In the variables scaled by the roots of the diagonal the system has ones there.
    scale = torch.cat(
        [
            torch.where(free_f & (rows > 0), rows.clamp_min(1e-300).rsqrt(), torch.zeros_like(rows)),
            torch.where(free_g & (columns > 0), columns.clamp_min(1e-300).rsqrt(), torch.zeros_like(columns)),
            total.clamp_min(1e-300).rsqrt()[None],
        ]
    )
    ridge = 1e-3 * min(relative, 1e-3)

    def product(z: Tensor) -> Tensor:
        problem.passes += 1
        w = scale * z
        x, y, v = w[:n], w[n : n + m], w[n + m]
        out = torch.cat([rows * (x + v) + P @ y, columns * (y + v) + P.mT @ x, (rows @ x + columns @ y + total * v)[None]])
        return scale * out + ridge * z

    right = scale * torch.cat([residual[0], residual[1], residual[2][None]])
    # With no potential of a side held, raising all of them and lowering the price by as much leaves the plan as it is.
    for side, whole in ((slice(0, n), bool(free_f.all())), (slice(n, n + m), bool(free_g.all()))):
        if whole:
            still = torch.zeros_like(right)
            still[side], still[-1] = 1.0, -1.0
            still = torch.where(scale > 0, still / scale.clamp_min(1e-300), torch.zeros_like(still))
            right = right - still * (right @ still) / (still @ still)
    z, r = torch.zeros_like(right), right.clone()
    p, square = r.clone(), float(r @ r)
    target = square * min(1e-2, relative) ** 2
    for _ in range(_CONJUGATE_LIMIT):
        if square <= target or square == 0:
            break
        image = product(p)
        curve = float(p @ image)
        if curve <= 0:
            break
        z = z + (square / curve) * p
        r = r - (square / curve) * image
        before, square = square, float(r @ r)
        p = r + (square / before) * p
    d = scale * z
    return d[:n], d[n : n + m], d[n + m]


def _certified(problem: _Problem, f: Tensor, g: Tensor, u: Tensor, e: float) -> tuple[float, float, float, float]:
    """(<P, C>, gap, dual value, L1 excess of the plan); the plan rounded to a feasible one bounds the value from above."""
    a, b, s = problem.a, problem.b, problem.s
    P = problem.plan(f, g, u, e)
    dual = problem.dual(f, g, u, P, e)
    C = torch.where(problem.C.isfinite(), problem.C, torch.zeros_like(problem.C))
    over = float((P.sum(1) - a).clamp_min(0).sum() + (P.sum(0) - b).clamp_min(0).sum() + (P.sum() - s).abs())
    Q = P * (a / P.sum(1).clamp_min(1e-300)).clamp_max(1)[:, None]
    Q = Q * (b / Q.sum(0).clamp_min(1e-300)).clamp_max(1)
    Q = Q * min(1.0, s / float(Q.sum()))
    short = s - float(Q.sum())
    if short > 0:  # what is missing goes where both sides have room, pair by pair in proportion
        room_a, room_b = (a - Q.sum(1)).clamp_min(0), (b - Q.sum(0)).clamp_min(0)
        Q = Q + short * room_a[:, None] * room_b / (room_a.sum() * room_b.sum()).clamp_min(1e-300)
    reference = a[:, None] * b
    entropy = (torch.xlogy(Q, Q / reference) - Q + reference).sum()
    blocked = bool((Q[~problem.C.isfinite()] > 0).any())
    primal = float("inf") if blocked else float((Q * C).sum() + e * entropy)
    return float((P * C).sum()), primal - dual, dual, over


__all__ = ["EntropicPartial", "solve_entropic"]
