"""WUDI: the update that interferes least with each task's own linear subspace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import at_least, positive, whole_number
from discrepancy.methods.merging.merge import Merge


@dataclass(frozen=True)
class EarlyStopped:
    """`steps` steps of Adam from the sum of the updates, each of about `step_size` times the root mean square of that sum.

    Where the steps end is part of the method: it is what keeps the solution near the sum. A gradient entry below `rounding`
    times the terms that it is the difference of counts as zero: Adam would give it a full step all the same. The default is that
    of weights trained in single precision.
    """

    steps: int = 300
    step_size: float = 0.01
    rounding: float = 2e-6

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        whole_number(self.steps, 0, "steps")
        positive(self.step_size, "step_size")
        at_least(self.rounding, 0.0, "rounding")


@dataclass(frozen=True)
class LeastSquares:
    """The exact minimiser of least norm; directions whose curvature is below `cutoff` of the largest count as unused."""

    cutoff: float = 1e-6

    def __post_init__(self) -> None:
        """Raise ValueError for a cutoff outside [0, 1)."""
        if not 0 <= self.cutoff < 1:
            raise ValueError(f"cutoff must lie in [0, 1), got {self.cutoff!r}")


@dataclass(frozen=True)
class WUDI(Merge):
    """min over D of sum_i w_i / |Delta_i|_F^2 |(D - Delta_i) Delta_i^T|_F^2 for each matrix (out, in), by `solver`.

    The rows of Delta_i span the inputs that task i learnt from, so D should act on them as Delta_i does. Started from the sum,
    sum_i (n w_i) Delta_i. Kernels (out, in, ...) are read as matrices; other parameters get the weighted mean of their updates.
    A zero update asks for nothing. One d_in x d_in product and `steps` products of (out, in) with it. Source: 2503.08099 (2025).
    """

    solver: EarlyStopped | LeastSquares = EarlyStopped()
    references: ClassVar[tuple[str, ...]] = ("cheng-2025",)

    def __post_init__(self) -> None:
        """Raise TypeError for anything but a solver."""
        if not isinstance(self.solver, EarlyStopped | LeastSquares):
            raise TypeError(f"solver must be EarlyStopped() or LeastSquares(), got {type(self.solver).__name__}")

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The minimiser for one parameter; vectors and scalars are averaged."""
        if updates.ndim < 3 or updates[0].numel() == 0:
            return torch.tensordot(weights, updates, 1)
        matrices = updates.flatten(2)
        sizes = matrices.square().sum((1, 2))
        shares = torch.where(sizes > 0, weights / torch.where(sizes > 0, sizes, torch.ones_like(sizes)), torch.zeros_like(sizes))
        grams = matrices.mT @ matrices
        curvature = torch.tensordot(shares, grams, 1)
        target = torch.einsum("k,koi,kij->oj", shares, matrices, grams)
        if isinstance(self.solver, LeastSquares):
            return _least_squares(curvature, target, self.solver.cutoff).reshape(updates.shape[1:])
        start = torch.tensordot(weights * len(weights), matrices, 1)
        return _adam(start, curvature, target, self.solver).reshape(updates.shape[1:])


def _least_squares(curvature: Tensor, target: Tensor, cutoff: float) -> Tensor:
    values, axes = torch.linalg.eigh(curvature.double())
    kept = values > max(cutoff, len(values) * torch.finfo(values.dtype).eps) * values[-1]
    inverse = torch.where(kept, 1 / torch.where(kept, values, torch.ones_like(values)), torch.zeros_like(values))
    return ((target.double() @ axes) * inverse @ axes.mT).to(target.dtype)


def _adam(start: Tensor, curvature: Tensor, target: Tensor, solver: EarlyStopped) -> Tensor:
    """Adam written out: the gradient 2 (D A - B) needs no graph, and Adam does not see its scale."""
    size = float(start.square().mean().sqrt())
    if size == 0:
        return start
    at, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    noise = solver.rounding * (start.abs() @ curvature.abs() + target.abs())
    decay_1, decay_2 = 0.9, 0.999
    for k in range(1, solver.steps + 1):
        slope = at @ curvature - target
        slope = torch.where(slope.abs() > noise, slope, torch.zeros_like(slope))
        first.mul_(decay_1).add_(slope, alpha=1 - decay_1)
        second.mul_(decay_2).addcmul_(slope, slope, value=1 - decay_2)
        length = second.sqrt() / math.sqrt(1 - decay_2**k)
        move = first / (1 - decay_1**k) / torch.where(length > 0, length, torch.ones_like(length))
        at.sub_(move, alpha=solver.step_size * size)
    if not bool(torch.isfinite(at.sum())):
        raise NumericalError("WUDI: a step is not finite; the updates are too large for their dtype")
    return at


__all__ = ["WUDI", "EarlyStopped", "LeastSquares"]
