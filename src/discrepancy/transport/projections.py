"""Transport along many directions at once: W_p^p of the projections of two samples, streamed over groups of directions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from discrepancy.transport.first_order import first_order_only
from discrepancy.transport.line import ADVICE, line_costs

# Projections of one group of directions stay in the processor's cache: measured best near ten directions of 1e5 points.
GROUP = 2_000_000
SMALLEST_GROUP = 4


def _groups(count: int, batch: int, points: int) -> Iterator[slice]:
    # A group of a few at least: each reads all points once, which is what a single projection costs in a large sample.
    size = max(SMALLEST_GROUP, GROUP // max(1, batch * points))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _pass(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    theta: Tensor,
    p: float,
    need: tuple[bool, ...],
    scale: Tensor | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """W_p^p at each direction (B, L), the sums over directions of its gradients in x, y, a, b, and its gradient in theta
    (B, L, d), all weighted by scale (B, L)."""
    batch, n, _ = x.shape
    m, count = y.shape[1], theta.shape[-2]
    weights, turned = need[2] or need[3], need[4]
    costs = torch.empty(batch, count, dtype=torch.float64, device=x.device)
    sums = [torch.zeros_like(t) if t is not None and wanted else None for t, wanted in zip((x, y, a, b), need[:4], strict=True)]
    slopes_theta = x.new_zeros(batch, count, x.shape[-1]) if turned else None
    for part in _groups(count, batch, n + m):
        directions = theta[..., part, :]
        size = directions.shape[-2]

        def rows(t: Tensor) -> Tensor:
            return torch.matmul(directions, t.mT).reshape(batch * size, -1)  # noqa: B023 - used within the loop only

        def spread(w: Tensor | None) -> Tensor | None:
            return None if w is None else w[:, None].expand(-1, size, -1).reshape(batch * size, -1)  # noqa: B023

        found = line_costs(
            rows(x), rows(y), spread(a), spread(b), p, points_u=need[0] or turned, points_v=need[1] or turned, weights=weights
        )
        costs[:, part] = found.cost.reshape(batch, size)
        slopes = [
            None if slope is None else slope.reshape(batch, size, -1)
            for slope in (found.grad_u, found.grad_v, found.grad_a, found.grad_b)
        ]
        if scale is not None:
            slopes = [None if s is None else s * scale[:, part, None].to(s.dtype) for s in slopes]
        for k, (total, slope) in enumerate(zip(sums, slopes, strict=True)):
            if total is not None and slope is not None:
                total += torch.matmul(slope.mT, directions) if k < 2 else slope.sum(1)
        if slopes_theta is not None:
            assert slopes[0] is not None
            assert slopes[1] is not None
            slopes_theta[:, part] = torch.matmul(slopes[0], x) + torch.matmul(slopes[1], y)
    return costs, [*sums, slopes_theta]


class _DirectionCosts(torch.autograd.Function):
    """W_p^p (B, L) at each direction; differentiable in x, y, a, b, theta.

    The forward pass keeps the gradient's plain sum over directions, which is all that a mean over directions needs: one sort a
    direction and memory of the size of the samples. Only a backward pass that weights directions unequally sorts again.
    """

    @staticmethod
    def forward(ctx, x, y, a, b, theta, p, equal_a, equal_b):  # type: ignore[override]
        left, right = None if equal_a else a.detach(), None if equal_b else b.detach()
        need = ctx.needs_input_grad[:5]
        costs, sums = _pass(x.detach(), y.detach(), left, right, theta.detach(), p, need, None)
        ctx.p, ctx.equal, ctx.filled = p, (equal_a, equal_b), [s is not None for s in sums]
        ctx.save_for_backward(x, y, a, b, theta, *(s for s in sums if s is not None))
        return costs

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b, theta, *kept = ctx.saved_tensors
        weight, anchors = grad.detach(), (grad, x, y, a, b, theta)
        waiting = iter(kept)
        out = [next(waiting).detach() if filled else None for filled in ctx.filled]
        by_direction = None if out[4] is None else out[4] * weight[..., None].to(out[4].dtype)
        if any(s is not None for s in out[:4]):
            if bool((weight == weight[:, :1]).all()):
                factor = weight[:, 0]
                out = [None if s is None else s * factor.reshape(-1, *[1] * (s.ndim - 1)).to(s.dtype) for s in out[:4]]
            else:
                left, right = None if ctx.equal[0] else a.detach(), None if ctx.equal[1] else b.detach()
                need = (*ctx.needs_input_grad[:4], False)
                _, out = _pass(x.detach(), y.detach(), left, right, theta.detach(), ctx.p, need, weight)
        if by_direction is not None and theta.ndim == 2:
            by_direction = by_direction.sum(0)
        return (*(first_order_only(s, ADVICE, *anchors) for s in (*out[:4], by_direction)), None, None, None)


def direction_costs(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, theta: Tensor, p: float, *, equal_a: bool = False, equal_b: bool = False
) -> Tensor:
    """W_p^p (B, L) in float64 between the projections of x (B, n, d), y (B, m, d) with weights a (B, n), b (B, m), along the
    directions theta (L, d), or (B, L, d) for some of its own for each pair; first derivatives in all five.

    Time B L ((n + m) d + n log n + m log m), gradients included; memory that of the samples and of one group of projections,
    never n x L.
    """
    return _DirectionCosts.apply(x, y, a, b, theta, p, equal_a, equal_b)  # type: ignore[return-value]


__all__ = ["GROUP", "SMALLEST_GROUP", "direction_costs"]
