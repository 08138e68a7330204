"""Barycenters whose points are given and whose weights are found: histograms, images, any measures on one support."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, require_finite, sample, weights
from discrepancy.transport.barycenters.answer import Answer
from discrepancy.transport.barycenters.entropic import entropic
from discrepancy.transport.barycenters.exact import exact
from discrepancy.transport.barycenters.gibbs import GibbsKernel
from discrepancy.transport.barycenters.problems import (
    DebiasedBarycenter,
    EntropicBarycenter,
    ExactBarycenter,
    FixedSupportProblem,
)
from discrepancy.transport.entropic.epsilon import RelativeEpsilon
from discrepancy.transport.entropic.grid.axes import Grid, axis_costs, check_separable
from discrepancy.transport.entropic.solver import default_tolerance
from discrepancy.transport.first_order import first_order_only

# Bytes that the kernel of a support that is no grid may take.
_MEMORY = 1 << 30
_DEBIASED_TOLERANCE = 1e-4


@dataclass(frozen=True, repr=False)
class FixedSupportBarycenter(Result):
    """A barycenter on given points, with its certificate.

    `weights` (..., n), or (..., *shape) on a grid, sum to one; `value` (...) is the objective sum_k w_k T_k and `terms` (..., K)
    the T_k, in units of the cost (debiased: Sinkhorn divergences; entropic: with the entropy against 1 x b_k, hence of any
    sign); `marginal_error` the L1 error of the plans' marginals, averaged under w; `dual_gap` by how much another a could lie
    below `value` at most (None for the entropic one, where the marginal error says it); `iterations`, `epsilon` (0 when exact),
    `outcome`. `.plan(k)` is the plan (..., n, m) from the barycenter to measure k. `value` is differentiable in the measures and
    in w; `weights` are not.
    """

    weights: Tensor
    value: Tensor
    terms: Tensor
    marginal_error: Tensor
    dual_gap: Tensor | None
    iterations: int
    epsilon: float
    outcome: Outcome
    _plan: Callable[[int], Tensor] | None = field(default=None, repr=False, compare=False)

    def plan(self, k: int) -> Tensor:
        """The plan (..., n, m) between the barycenter and measure k; quadratic memory. TypeError on grids: it is too big."""
        if not isinstance(k, int) or not 0 <= k < self.terms.shape[-1]:
            raise ValueError(f"k must number one of the {self.terms.shape[-1]} measures, from 0, got {k!r}")
        assert self._plan is not None
        return self._plan(k)


def fixed_support_barycenter(
    measures: Any, support: Any = None, w: Any = None, *, costs: Any = None, problem: FixedSupportProblem | None = None
) -> FixedSupportBarycenter:
    """The weights a on a given support that minimise sum_k w_k T(a, b_k), T a transport cost or divergence.

    measures: weights b_k (..., K, m) of K measures on one support, each summing to one, zeros allowed; on a grid
    (..., K, *shape). support: their points (m, d), or a `Grid`, on which kernels act axis by axis and nothing n x n is formed
    (256 x 256 pixels take 10 MB). Or, in its place, `costs` (n, m) from the points of the barycenter to those of the measures.
    w (K,) or (..., K): shares, equal by default. problem: `DebiasedBarycenter()` (default), `EntropicBarycenter()` or
    `ExactBarycenter()`. RelativeEpsilon takes its share of the mean cost between two points drawn from the mean measure (with
    `costs`: from a uniform point of the barycenter to the mean measure), once a call.

    Solved in float64 on the CPU. Time: an iteration is 2 K n m multiplications, 2 K n^(1 + 1/d) on a grid of d axes; some ten to
    hundred of them, more as epsilon falls. Memory: the kernel n m (ValueError above 1 GiB: take a Grid or `barycenter`), and 20
    copies of K n numbers. Warns `ConvergenceWarning` at the iteration limit. Sources at the problems.
    """
    chosen = DebiasedBarycenter() if problem is None else problem
    if not isinstance(chosen, EntropicBarycenter | DebiasedBarycenter | ExactBarycenter):
        raise TypeError(f"problem must be DebiasedBarycenter(), EntropicBarycenter() or ExactBarycenter(), got {problem!r}")
    if (support is None) == (costs is None):
        raise ValueError("give either support (points (m, d) or a Grid) or costs (n, m)")
    given = as_tensor(measures, "measures")
    if given.device.type != "cpu":
        raise ValueError(f"measures are on {given.device}: they are solved on the CPU, move them with .cpu()")
    axes = len(support.spacing) if isinstance(support, Grid) else 1
    if given.ndim < axes + 1 or 0 in given.shape:
        wanted = "(..., K, *shape)" if isinstance(support, Grid) else "(..., K, m)"
        raise ValueError(f"measures must have shape {wanted}, at least one measure and one point, got {tuple(given.shape)}")
    shape, batch, count = given.shape[-axes:], given.shape[: -axes - 1], given.shape[-axes - 1]
    flat = given.reshape(*batch, count, math.prod(shape))
    b = weights(flat, flat.shape, "measures", like=flat)
    share = weights(w, (*batch, count), "w", like=b)
    masses, shares = b.detach().double().reshape(-1, count, b.shape[-1]), share.detach().double().reshape(-1, count)
    tables = _tables(chosen, support, costs, shape)
    epsilon = 0.0
    if isinstance(chosen, ExactBarycenter):
        answer = exact(_whole(tables), masses, shares, chosen.max_unknowns)
    else:
        epsilon = _epsilon(chosen, tables, masses, shares, shape, same=costs is None)
        kernel = GibbsKernel.of(tables, epsilon)
        debiased = isinstance(chosen, DebiasedBarycenter)
        usual = _DEBIASED_TOLERANCE if debiased else default_tolerance(b.dtype)
        tolerance = usual if chosen.tolerance is None else chosen.tolerance
        answer = entropic(kernel, masses, shares, debiased=debiased, tolerance=tolerance, limit=chosen.max_iterations)
    answer.outcome.warn("fixed_support_barycenter")
    return _result(answer, b, share, batch, tuple(t.shape[0] for t in tables), epsilon)


def _tables(problem: FixedSupportProblem, support: Any, costs: Any, shape: torch.Size) -> list[Tensor]:
    """The costs of each axis, in float64."""
    if isinstance(support, Grid):
        check_separable(problem.cost, len(support.spacing))
        points = support.coordinates(shape)
        return [torch.from_numpy(t).double() for t in axis_costs(problem.cost, points, points)]
    m = shape[0]
    if support is not None:
        z = sample(support, "support").detach().double()
        if z.ndim != 2 or len(z) != m:
            raise ValueError(f"support must have one point for each of the {m} weights of a measure, got shape {tuple(z.shape)}")
        problem.cost.check(z, "support")
        _check_memory(m, m)
        table = problem.cost.matrix(z, z)
    else:
        table = as_tensor(costs, "costs").detach().double()
        if table.ndim != 2 or table.shape[1] != m or len(table) == 0:
            raise ValueError(f"costs must have shape (n, {m}), a column for each weight of a measure, got {tuple(table.shape)}")
        require_finite(table, "costs")
        _check_memory(*table.shape)
    if isinstance(problem, DebiasedBarycenter) and not _symmetric(table):
        raise ValueError(
            "the debiased barycenter needs symmetric costs between one set of points and itself: use EntropicBarycenter, or "
            "symmetric costs"
        )
    return [table]


def _symmetric(table: Tensor) -> bool:
    if len(table) != table.shape[1]:
        return False
    return float((table - table.mT).abs().max()) <= 1e-9 * float(table.abs().max())


def _check_memory(n: int, m: int) -> None:
    if 8 * n * m > _MEMORY:
        raise ValueError(
            f"a kernel of {n} x {m} would take {8 * n * m / 2**30:.1f} GiB: put the measures on a Grid, or use barycenter, "
            "whose memory is linear"
        )


def _whole(tables: list[Tensor]) -> Tensor:
    """The costs of all pairs (n, m) of a grid, from those of its axes."""
    total = tables[0]
    for table in tables[1:]:
        _check_memory(len(total) * len(table), total.shape[1] * table.shape[1])
        total = (total[:, None, :, None] + table[None, :, None, :]).reshape(len(total) * len(table), -1)
    return total


def _epsilon(
    problem: EntropicBarycenter | DebiasedBarycenter,
    tables: list[Tensor],
    b: Tensor,
    w: Tensor,
    shape: torch.Size,
    *,
    same: bool,
) -> float:
    if not isinstance(problem.epsilon, RelativeEpsilon):
        return float(problem.epsilon)
    pooled = torch.einsum("bk,bkm->m", w, b).div(len(b)).reshape(shape)
    mean = 0.0
    for axis, table in enumerate(tables):
        here = pooled.sum([k for k in range(len(shape)) if k != axis]) if len(shape) > 1 else pooled
        there = here if same else torch.full((len(table),), 1 / len(table), dtype=torch.float64)
        mean += float(there @ table @ here)
    return problem.epsilon.fraction * mean if mean > 0 else 1.0


class _Value(torch.autograd.Function):
    """sum_k w_k T_k with its derivatives, by the envelope theorem: T_k in w_k, w_k times T_k's slope in b_k."""

    @staticmethod
    def forward(ctx, b, w, terms, slopes):  # type: ignore[override]
        ctx.save_for_backward(b, w, terms, slopes)
        return (w.double() * terms).sum(-1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        b, w, terms, slopes = ctx.saved_tensors
        in_b = (grad[..., None, None] * w.double()[..., None] * slopes).to(b.dtype)
        in_w = (grad[..., None] * terms).to(w.dtype)
        advice = "the value of a barycenter has first derivatives only"
        return (*(first_order_only(t.detach(), advice, grad, b, w) for t in (in_b, in_w)), None, None)


def _result(
    answer: Answer, b: Tensor, w: Tensor, batch: torch.Size, shape: tuple[int, ...], epsilon: float
) -> FixedSupportBarycenter:
    terms, slopes = answer.terms.reshape(*batch, -1), answer.slopes.reshape(b.shape)
    value: Tensor = _Value.apply(b, w, terms, slopes)  # type: ignore[assignment]
    return FixedSupportBarycenter(
        weights=answer.weights.to(b.dtype).reshape(*batch, *shape),
        value=value.to(b.dtype),
        terms=terms.to(b.dtype),
        marginal_error=answer.error.reshape(batch),
        dual_gap=None if answer.gap is None else answer.gap.reshape(batch),
        iterations=answer.iterations,
        epsilon=epsilon,
        outcome=answer.outcome,
        _plan=lambda k: answer.plan(k).to(b.dtype).reshape(*batch, *answer.plan(k).shape[1:]),
    )


__all__ = ["FixedSupportBarycenter", "fixed_support_barycenter"]
