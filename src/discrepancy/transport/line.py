"""The monotone coupling on the line: W_p^p of many pairs of weighted rows at once, with derivatives in points and weights.

On the line the optimal coupling for |x - y|^p, p >= 1, matches quantiles: W_p^p = int_0^1 |F^-1(t) - G^-1(t)|^p dt. One sort
a row gives the value, the gradient in the points (slope times mass along the coupling), and the gradient in the weights (the
Kantorovich potentials along it). n log n time, linear memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.first_order import first_order_only

ADVICE = "sorted transport is piecewise smooth and only its first derivatives are given; for second ones take Sinkhorn"
# From this length on a float64 row is ordered faster by torch, which moves values with their indices, than by NumPy's argsort
# and a gather that misses the cache.
_LONG = 1 << 18


@dataclass(frozen=True)
class LineCosts:
    """cost (r,) in float64 and, where asked for, the gradients in points (r, n), (r, m) and weights (r, n), (r, m)."""

    cost: Tensor
    grad_u: Tensor | None
    grad_v: Tensor | None
    grad_a: Tensor | None
    grad_b: Tensor | None


def line_costs(
    u: Tensor,
    v: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    p: float,
    *,
    points_u: bool = False,
    points_v: bool = False,
    weights: bool = False,
) -> LineCosts:
    """W_p^p (W_inf for p = inf) between the rows of u (r, n) and v (r, m) with weights a (r, n), b (r, m), None where equal.

    The gradients in the weights are potentials, determined up to opposite constants. At ties between levels they are the
    midpoint of the subdifferential. A side whose gradients nobody asks for is sorted without its permutation, several times
    faster.
    """
    with torch.no_grad():
        if u.device.type == "cpu":
            return _numba_costs(u.detach(), v.detach(), a, b, p, points_u, points_v, weights)
        return sorted_costs(u.detach(), v.detach(), a, b, p, points_u or points_v, weights)


def _tie(*weights: Tensor | None) -> float:
    """How close two cumulative weights must be to count as equal: the rounding of the weights that were given."""
    given = [w for w in weights if w is not None]
    return max([4 * torch.finfo(w.dtype).eps for w in given], default=1e-15)


def _levels(w: np.ndarray | None, order: np.ndarray | None, n: int, other: int, exact: bool) -> np.ndarray:
    """Cumulative weights in sorted order, ending at one; for equal weights on both sides in whole numbers, so that ties are
    exact."""
    if w is None:
        steps = np.arange(1, n + 1, dtype=np.float64)[None]
        return steps * other if exact else steps / n
    assert order is not None
    levels = np.cumsum(np.take_along_axis(w, order, -1), axis=-1, dtype=np.float64)
    return levels / levels[:, -1:]


def _numba_costs(
    u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float, points_u: bool, points_v: bool, weights: bool
) -> LineCosts:
    from discrepancy._loops import quantile
    from discrepancy._loops.sorting import sort_rows, sort_rows_with_order

    rows, n, m = u.shape[0], u.shape[-1], v.shape[-1]
    no_order, nothing = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float64)

    def ordered(values: Tensor, permutation: bool) -> tuple[np.ndarray, np.ndarray]:
        if not permutation:
            return sort_rows(values.numpy()), no_order
        if values.dtype == torch.float64 and values.shape[-1] >= _LONG:
            found = values.sort(-1)
            return found.values.numpy(), found.indices.numpy()
        return sort_rows_with_order(values.numpy())

    us, order_u = ordered(u, points_u or weights or a is not None)
    vs, order_v = ordered(v, points_v or weights or b is not None)
    cost = np.zeros(rows)
    grad_u = np.zeros((rows, n)) if points_u else nothing
    grad_v = np.zeros((rows, m)) if points_v else nothing
    f, g = (np.zeros((rows, n)), np.zeros((rows, m))) if weights else (nothing, nothing)
    if a is None and b is None and n == m and not weights:
        quantile.couple_equal(us, vs, float(p), points_u, points_v, cost, order_u, order_v, grad_u, grad_v)
    else:
        exact = a is None and b is None
        A = _levels(None if a is None else a.numpy(), order_u, n, m, exact)
        B = _levels(None if b is None else b.numpy(), order_v, m, n, exact)
        # Whole-number levels differ by 1 of n m or not at all: any tie below that spacing will do.
        tie = 0.5 / (n * m) if exact else _tie(a, b)
        quantile.couple(us, vs, A, B, float(p), tie, points_u, points_v, weights, cost, order_u, order_v, grad_u, grad_v, f, g)

    def out(array: np.ndarray, wanted: bool, like: Tensor) -> Tensor | None:
        return torch.from_numpy(array).to(like.dtype) if wanted else None

    return LineCosts(
        torch.from_numpy(cost), out(grad_u, points_u, u), out(grad_v, points_v, v), out(f, weights, u), out(g, weights, v)
    )


def sorted_costs(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float, points: bool, weights: bool) -> LineCosts:
    """The same in tensor operations, for devices without a loop: merge the levels by sorting, look each segment up."""
    rows, n, m = u.shape[0], u.shape[-1], v.shape[-1]
    us, order_u = torch.sort(u.double(), dim=-1)
    vs, order_v = torch.sort(v.double(), dim=-1)

    def levels(w: Tensor | None, order: Tensor, size: int) -> Tensor:
        if w is None:
            steps = torch.arange(1, size + 1, dtype=torch.float64, device=u.device) / size
            return steps.expand(rows, size).contiguous()
        total = w.double().gather(-1, order).cumsum(-1)
        return total / total[:, -1:]

    A, B = levels(a, order_u, n), levels(b, order_v, m)
    tie = max(_tie(a, b), 1e-15 * (n + m))
    cuts = torch.cat([A, B], -1).sort(-1).values
    mass = torch.diff(cuts, dim=-1, prepend=torch.zeros_like(cuts[:, :1]))
    middle = cuts - mass / 2
    i = torch.searchsorted(A, middle).clamp_max(n - 1)
    j = torch.searchsorted(B, middle).clamp_max(m - 1)
    gap = us.gather(-1, i) - vs.gather(-1, j)
    if p == float("inf"):
        cost, worst = torch.where(mass > tie, gap.abs(), torch.zeros_like(gap)).max(-1)
        slope = torch.zeros_like(gap).scatter(-1, worst[:, None], gap.gather(-1, worst[:, None]).sign())
    else:
        cost = (mass * gap.abs() ** p).sum(-1)
        slope = mass * p * gap.sign() * gap.abs() ** (p - 1)

    grad_u = grad_v = f = g = None
    if points:
        grad_u = torch.zeros_like(us).scatter_add(-1, order_u.gather(-1, i), slope).to(u.dtype)
        grad_v = torch.zeros_like(vs).scatter_add(-1, order_v.gather(-1, j), -slope).to(v.dtype)
    if weights:
        f = _potential(us, vs, A, B, p, tie, order_u).to(u.dtype)
        g = _potential(vs, us, B, A, p, tie, order_v).to(v.dtype)
    return LineCosts(cost, grad_u, grad_v, f, g)


def _potential(us: Tensor, vs: Tensor, A: Tensor, B: Tensor, p: float, tie: float, order: Tensor) -> Tensor:
    """The potential on the first sample: f[i+1] - f[i] = c(u[i+1], v) - c(u[i], v) at the v that covers the level A[i]."""
    out = torch.zeros_like(us)
    if p == float("inf") or us.shape[-1] == 1:
        return out
    last = vs.shape[-1] - 1
    lower = torch.searchsorted(B, A[:, :-1] - tie).clamp_max(last)
    upper = torch.searchsorted(B, A[:, :-1] + tie, right=True).clamp_max(last)

    def jump(j: Tensor) -> Tensor:
        at = vs.gather(-1, j)
        return (us[:, 1:] - at).abs() ** p - (us[:, :-1] - at).abs() ** p

    f = torch.cat([torch.zeros_like(us[:, :1]), ((jump(lower) + jump(upper)) / 2).cumsum(-1)], -1)
    return out.scatter(-1, order, f)


class _LineCost(torch.autograd.Function):
    """Differentiable `line_costs`; the derivatives are computed with the value, from the same sort."""

    @staticmethod
    def forward(ctx, u, v, a, b, p, equal_a, equal_b):  # type: ignore[override]
        need_u, need_v, need_a, need_b = ctx.needs_input_grad[:4]
        found = line_costs(
            u,
            v,
            None if equal_a else a.detach(),
            None if equal_b else b.detach(),
            p,
            points_u=need_u,
            points_v=need_v,
            weights=need_a or need_b,
        )
        ctx.save_for_backward(u, v, a, b)
        ctx.slopes = (found.grad_u, found.grad_v, found.grad_a, found.grad_b)
        return found.cost

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        out = [
            first_order_only((grad.detach()[:, None] * s).to(s.dtype), ADVICE, grad, *ctx.saved_tensors)
            if s is not None and need
            else None
            for s, need in zip(ctx.slopes, ctx.needs_input_grad[:4], strict=True)
        ]
        return (*out, None, None, None)


def line_cost(u: Tensor, v: Tensor, a: Tensor, b: Tensor, p: float, *, equal_a: bool = False, equal_b: bool = False) -> Tensor:
    """W_p^p (W_inf for p = inf) of rows u (r, n), v (r, m) with weights a (r, n), b (r, m), as float64 (r,), differentiable in
    all four."""
    return _LineCost.apply(u, v, a, b, p, equal_a, equal_b)  # type: ignore[return-value]


__all__ = ["ADVICE", "LineCosts", "line_cost", "line_costs", "sorted_costs"]
