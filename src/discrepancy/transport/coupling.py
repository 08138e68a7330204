"""Pairs of rows drawn from a coupling of two samples, as flow matching and distillation train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from discrepancy._results import Result, TransportResult
from discrepancy._validate import generator_or_default, sample_pair
from discrepancy.transport.exact.optimal_transport import OptimalTransport


@runtime_checkable
class HasPlan(Protocol):
    """A discrepancy whose `solve` returns a plan: OptimalTransport, Wasserstein, Sinkhorn, UnbalancedSinkhorn."""

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None) -> TransportResult:
        """The transport problem's result."""
        ...


@dataclass(frozen=True, repr=False)
class PairedRows(Result):
    """K pairs drawn from a coupling: `x` (..., K, d) and `y` (..., K, d), rows `rows` (..., K) and `columns` (..., K) of the two
    samples; unpacks as x, y. The indices serve whatever else belongs to the rows: labels, images before flattening."""

    x: Tensor
    y: Tensor
    rows: Tensor
    columns: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """x, y = sample_coupling(...)."""
        return iter((self.x, self.y))


def sample_coupling(
    x: Any,
    y: Any,
    generator: torch.Generator | None = None,
    *,
    a: Any = None,
    b: Any = None,
    transport: HasPlan | None = None,
    size: int | None = None,
) -> PairedRows:
    """`size` pairs (x_i, y_j) drawn from the optimal coupling P of two weighted samples; n pairs where size is None.

    The draw is stratified: the mass of P, row by row, is cut into `size` equal parts and one pair drawn from each. Every pair
    (i, j) is expected size P_ij times, a row i appears size a_i times up to rounding; with equal weights and n pairs each row
    of x appears once and in its order, and for n = m the exact plan gives a permutation of y, without any randomness.
    x (..., n, d), y (..., m, d), weights a (..., n), b (..., m); batches draw in turn. transport: whose plan,
    `OptimalTransport()` (squared Euclidean) by default; `Sinkhorn(epsilon)` for an entropic one, whose memory is n m. The pairs
    are differentiable in x and y as a selection of rows is. Raises ValueError for samples that do not fit, TypeError for a
    transport without a plan. Source: Tong et al. (2024); Pooladian et al. (2023).
    """
    transport = OptimalTransport() if transport is None else transport
    if isinstance(transport, type) or not hasattr(transport, "solve"):
        raise TypeError(f"transport must be an object whose solve() has a plan, such as Sinkhorn(0.1), got {transport!r}")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    pair = sample_pair(x, y, a, b, mass="positive")
    count = pair.x.shape[-2] if size is None else size
    drawn = generator_or_default(generator, pair.x.device)
    with torch.no_grad():
        found = transport.solve(pair.x, pair.y, None if a is None else pair.a, None if b is None else pair.b)
        if not isinstance(found, TransportResult):
            raise TypeError(f"{type(transport).__name__}.solve has no plan: take OptimalTransport() or Sinkhorn(0.1)")
        plan = found.plan()
    n, m, batch = pair.x.shape[-2], pair.y.shape[-2], pair.batch
    if plan.is_sparse:
        plan = plan.coalesce()
        index, mass = plan.indices(), plan.values()
        flat = [torch.zeros_like(index[0])] if not batch else [_flat_index(index[: len(batch)], batch)]
        parts = [flat[0] == k for k in range(batch.numel())]
        cells = [(index[-2][part] * m + index[-1][part], mass[part]) for part in parts]
    else:
        cells = [(None, block.reshape(-1)) for block in plan.reshape(-1, n * m)]
    chosen = torch.stack([_stratified(where, mass, count, drawn) for where, mass in cells])
    rows, columns = (chosen // m).reshape(*batch, count), (chosen % m).reshape(*batch, count)
    return PairedRows(_take(pair.x, rows), _take(pair.y, columns), rows, columns)


def _flat_index(index: Tensor, batch: torch.Size) -> Tensor:
    """The place in the flattened batch, of its coordinates (len(batch), k)."""
    flat = torch.zeros_like(index[0])
    for coordinate, size in zip(index, batch, strict=True):
        flat = flat * size + coordinate
    return flat


def _stratified(where: Tensor | None, mass: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` cells drawn from masses in order, one from each of `count` equal parts of the total; cell numbers (count,)."""
    present = mass > 0
    cells = present.nonzero()[:, 0] if where is None else where[present]
    levels = mass[present].double().cumsum(0)
    levels = levels / levels[-1] * count
    # Where a level is whole (equal weights, a permutation) rounding must not move a draw into the next part.
    whole = levels.round()
    levels = torch.where((levels - whole).abs() < 8 * torch.finfo(mass.dtype).eps * count, whole, levels)
    u = torch.rand(count, generator=generator, dtype=torch.float64, device=mass.device)
    # 1 - u lies in (0, 1]: the draw of part k lies in (k, k + 1], which ends with the cells that end there.
    at = torch.arange(count, dtype=torch.float64, device=mass.device) + (1 - u)
    return cells[torch.searchsorted(levels, at).clamp_max(len(cells) - 1)]


def _take(points: Tensor, index: Tensor) -> Tensor:
    return points.gather(-2, index[..., None].expand(*index.shape, points.shape[-1]))


__all__ = ["HasPlan", "PairedRows", "sample_coupling"]
