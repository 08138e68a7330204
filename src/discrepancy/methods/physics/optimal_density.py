"""The smooth density that dwells most on large values: a Poisson equation on a box."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, positive, require_finite


@dataclass(frozen=True, repr=False)
class OptimalDensity(Result):
    """`density` at the middles of the cells, the objective's `value`, and the `dual_norm` ||r2 - mean||_{H^-1}.

    `positive` says whether the density is nowhere negative, hence the solution under the constraint p >= 0 too."""

    density: Tensor = field(repr=False)
    value: float
    dual_norm: float
    positive: bool


def _cosine_transform(x: Tensor, axis: int, inverse: bool) -> Tensor:
    """The orthonormal cosine transform along an axis (type II, or its inverse), as a matrix product: n^2 a line."""
    n = x.shape[axis]
    k, j = torch.arange(n, dtype=x.dtype, device=x.device)[:, None], torch.arange(n, dtype=x.dtype, device=x.device)
    matrix = torch.cos(math.pi * k * (2 * j + 1) / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return torch.matmul(x.movedim(axis, -1), matrix if inverse else matrix.T).movedim(-1, axis)


def optimal_density_on_grid(r2: Any, lengths: Any, beta: float) -> OptimalDensity:
    """max_p  int r2 p dx - beta int |grad p|^2 dx  over densities of mass one on a box, with r2 given at the cells' middles.

    p = 1/volume + phi / (2 beta), where -Lap phi = r2 - mean(r2) with no flux through the faces, and the value is mean(r2) +
    ||r2 - mean(r2)||^2_{H^-1} / (4 beta): the mean residual plus how far its law is from the uniform one. Exact for r2 that are
    cosine polynomials of the grid. r2 (n,) or (n, m) and so on, `lengths` of the box's sides. p is left as it is where it is
    negative (small beta), and `positive` says so. Time and memory n^2 for an axis of n cells. Raises ValueError for beta <= 0
    (the maximum is a point mass), non-finite values, or lengths that do not fit.
    """
    positive(beta, "beta")
    values = as_tensor(r2, "r2")
    require_finite(values, "r2")
    sides = torch.as_tensor(lengths, dtype=torch.float64).reshape(-1)
    if values.ndim == 0 or sides.numel() != values.ndim or not bool((sides > 0).all()):
        raise ValueError(f"lengths must be one positive number for each of the {values.ndim} axes of r2, got {sides.tolist()}")
    volume, cell = float(sides.prod()), float(sides.prod()) / values.numel()
    spectrum = values.double()
    frequency = torch.zeros_like(spectrum)
    for axis, (n, side) in enumerate(zip(values.shape, sides.tolist(), strict=True)):
        spectrum = _cosine_transform(spectrum, axis, inverse=False)
        square = (math.pi * torch.arange(n, dtype=torch.float64, device=values.device) / side).square()
        frequency = frequency + square.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    moving = frequency > 0
    solution = torch.where(moving, spectrum / torch.where(moving, frequency, 1.0), 0.0)
    dual = float((solution * torch.where(moving, spectrum, 0.0)).sum()) * cell
    for axis in range(values.ndim):
        solution = _cosine_transform(solution, axis, inverse=True)
    density = 1 / volume + solution / (2 * beta)
    value = float(values.double().mean()) + dual / (4 * beta)
    return OptimalDensity(density.to(values.dtype), value, math.sqrt(dual), bool((density >= 0).all()))


__all__ = ["OptimalDensity", "optimal_density_on_grid"]
