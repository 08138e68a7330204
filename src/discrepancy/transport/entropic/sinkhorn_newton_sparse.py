"""Sinkhorn-Newton-sparse: a few Sinkhorn sweeps, then Newton steps in both potentials with a sparsified Hessian."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive, whole_number
from discrepancy.transport.entropic.log_sinkhorn import LogSinkhorn
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.solver import Potentials, default_tolerance
from discrepancy.transport.entropic.sparse_newton import Counts, Member, Point, SparseNewton, StepOptions

# Below this share of the largest cost, an epsilon resolves less than the rounding of a float32 cost.
_FLOAT32_SHARE = 1e-3


@dataclass(frozen=True)
class SparseNewtonPotentials(Potentials):
    """Potentials with what the paper counts, over the batch: Sinkhorn `sweeps`, `newton` steps, conjugate-gradient `products`,
    and the `entries` (k) and `density` (k / n m) of the last sparsified Hessian, of the problem that needed most steps."""

    sweeps: int = 0
    newton: int = 0
    products: int = 0
    entries: int = 0
    density: float = 0.0


@dataclass(frozen=True)
class SinkhornNewtonSparse:
    """Sinkhorn-Newton-sparse (Tang et al. 2024): log-domain sweeps, then Newton steps on a sparsified Hessian.

    Maximises the dual ("Lyapunov potential") F(f, g) = <a, f> + <b, g> - epsilon sum_ij P_ij, with P_ij = a_i b_j
    exp((f_i + g_j - C_ij) / epsilon), in *both* potentials. Stage one: `warm_sweeps` sweeps of `LogSinkhorn` from zero. Stage
    two, at most `max_newton` steps: (df, dg) from [[diag(P 1), S], [S^T, diag(P^T 1)]] (df, dg) = epsilon (a - P 1, b - P^T 1),
    S the largest `density` n m entries of P, by conjugate gradients to `conjugate_tolerance` (at most `conjugate_limit`
    products; None: 200 + sqrt(n + m)), then back-tracking on F. At small epsilon the plan is nearly sparse and few
    entries tell the Hessian. density None: 15 entries a row, at least 2 (n + m) entries (with five a row, Newton needed up to
    1.7 times the steps of the full Hessian on digits).
    Stops when the L1 errors of both marginals sum to `tolerance` or less (None: 1e-6, or 1e-4 for float32 samples).

    Where a line search finds no ascent, the problem is first solved at twice the epsilon (which may fall back in turn, so
    that a far start becomes an annealing), and the Hessian keeps twice the entries; after three such rounds at one epsilon the
    best potentials are returned with the outcome EXHAUSTED. `max_newton` counts the steps at every epsilon.
    `iterations` of a result counts sweeps plus Newton steps, as the paper does, of the problem of a batch that needed most;
    `rungs` says how many were which, and how many entries were kept: a cost with many ties (an l1 distance on a grid) has no
    sparse plan and needs more.

    Computes in float64; for float32 samples and epsilon below 1e-3 of the largest cost a UserWarning says that the
    rounding of the cost decides the answer. Zero weights are left out and their potentials completed by the soft-minimum.
    Time O(n m) a step, as a sweep, plus O(n + m + k) a product; memory 16 bytes a pair within `memory` (GiB), else costs are
    computed again. `SemiDualNewton`, the default, is faster at every epsilon tried. Deviations from the paper: fall-backs,
    the count of entries and the tolerance of conjugate gradients are ours. Source: Tang et al. (2024), algorithm 1.
    """

    tolerance: float | None = None
    warm_sweeps: int = 20
    max_newton: int = 100
    density: float | None = None
    conjugate_tolerance: float = 1e-8
    conjugate_limit: int | None = None
    memory: float = 1.0
    references: ClassVar[tuple[str, ...]] = ("tang-2024",)

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        for name in ("warm_sweeps", "max_newton", "conjugate_limit"):
            count = getattr(self, name)
            if count is None and name == "conjugate_limit":
                continue
            whole_number(count, 1, name)
        if self.density is not None and not 0 < float(self.density) <= 1:
            raise ValueError(f"density must be a share in (0, 1], got {self.density!r}")
        if not 0 < float(self.conjugate_tolerance) < 1:
            raise ValueError(f"conjugate_tolerance must lie strictly between 0 and 1, got {self.conjugate_tolerance!r}")
        positive(self.memory, "memory")

    @torch.no_grad()
    def solve(self, problem: Problem, epsilon: Tensor, *, start: Tensor | None = None) -> SparseNewtonPotentials:
        """The potentials for epsilon (B,), each problem of the batch by its own Newton steps."""
        goal = default_tolerance(problem.dtype) if self.tolerance is None else self.tolerance
        if problem.dtype == torch.float32:
            self._warn_of_rounding(problem, epsilon)
        found = LogSinkhorn(tolerance=goal, max_iterations=self.warm_sweeps).solve(problem, epsilon, start=start)
        members = [self._member(problem, epsilon, found, k, goal) for k in range(len(epsilon))]
        return _gathered(problem, epsilon, members, found.iterations)

    def _member(self, problem: Problem, epsilon: Tensor, warm: Potentials, k: int, goal: float) -> _Solved:
        """One problem of the batch, from where its sweeps ended."""
        one = problem if len(epsilon) == 1 else Member(problem, k)
        n, m = one.a.shape[-1], one.b.shape[-1]
        limit = self.conjugate_limit or 200 + math.isqrt(n + m)
        options = StepOptions(self.max_newton, self.conjugate_tolerance, limit, self.warm_sweeps)
        steps = SparseNewton(one, epsilon[k : k + 1], goal, self.kept_entries(n, m), options)
        return _Solved(steps.run(warm.f[k], warm.g[k]), steps.outcome, steps.counts)

    def solve_symmetric(self, problem: Problem, epsilon: Tensor) -> Potentials:
        """A measure against itself: averaged sweeps, which contract by 1/3 at every epsilon and leave Newton nothing to win."""
        return LogSinkhorn(tolerance=self.tolerance).solve_symmetric(problem, epsilon)

    def _warn_of_rounding(self, problem: Problem, epsilon: Tensor) -> None:
        largest = torch.zeros_like(epsilon)
        for _, cost in problem.blocks():
            largest = torch.maximum(largest, torch.where(cost.isfinite(), cost, 0.0).amax((-1, -2)))
        if bool((epsilon < _FLOAT32_SHARE * largest).any()):
            worst = int((epsilon / largest).argmin())
            warnings.warn(
                f"epsilon {float(epsilon[worst]):.3g} is below 1e-3 of the largest cost {float(largest[worst]):.3g}: float32 "
                "samples round the costs by too much for it; pass float64",
                UserWarning,
                stacklevel=6,
            )

    def kept_entries(self, n: int, m: int) -> int:
        """How many entries of an n x m plan the first Hessian keeps."""
        if self.density is not None:
            return max(1, math.ceil(self.density * n * m))
        return min(n * m, max(15 * min(n, m), 2 * (n + m)))


@dataclass(frozen=True)
class _Solved:
    point: Point
    outcome: Outcome
    counts: Counts


def _gathered(problem: Problem, epsilon: Tensor, members: list[_Solved], sweeps: int) -> SparseNewtonPotentials:
    """The potentials of all members in one batch, completed at weights of zero and shifted so that <a, f> = <b, g>."""
    f = torch.stack([one.point.f for one in members])
    g = torch.stack([one.point.g for one in members])
    error = torch.tensor([one.point.error for one in members], dtype=f.dtype, device=f.device)
    empty_a, empty_b = problem.a == 0, problem.b == 0
    if bool(empty_a.any()):  # no marginal pins these: they take the soft-minimum, the limit of a vanishing weight
        f = torch.where(empty_a, problem.rows(g, epsilon), f)
    if bool(empty_b.any()):
        g = torch.where(empty_b, problem.columns(f, epsilon), g)
    shift = ((problem.b * g).sum(-1) - (problem.a * f).sum(-1))[:, None] / 2
    most = max((one.counts for one in members), key=lambda c: c.sweeps + c.newton)
    outcome = next((one.outcome for one in members if not one.outcome.ok), Outcome.CONVERGED)
    sweeps, density = sweeps + most.sweeps, most.entries / (f.shape[-1] * g.shape[-1])
    rungs = [f"log-domain sweeps: {sweeps}"]
    if most.newton:
        rungs.append(f"sparse Newton: {most.newton}, {most.entries} entries kept ({100 * density:.3g} %)")
    if most.fall_backs:
        rungs.append(f"solved at twice the epsilon first: {most.fall_backs}")
    return SparseNewtonPotentials(
        f + shift,
        g - shift,
        error,
        sweeps + most.newton,
        outcome,
        tuple(rungs),
        sweeps=sweeps,
        newton=most.newton,
        products=most.products,
        entries=most.entries,
        density=density,
    )


__all__ = ["SinkhornNewtonSparse", "SparseNewtonPotentials"]
