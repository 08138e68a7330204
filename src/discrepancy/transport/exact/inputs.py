"""What the exact solvers take: samples and cost matrices on the CPU, weights of total one, and earlier results to start from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import TransportResult
from discrepancy._validate import cost_matrix
from discrepancy.transport.exact.choose import ExactSolver
from discrepancy.transport.exact.solution import Basis


def check_solver(solver: Any) -> None:
    """Raise TypeError unless the solver is an object with `solve_points` and `solve_matrix`."""
    if isinstance(solver, type) or not isinstance(solver, ExactSolver):
        raise TypeError(f"solver must be an object such as NetworkSimplex(), got {solver!r}")


def on_cpu(x: Tensor, name: str) -> None:
    """Raise ValueError for a tensor on another device: nothing is moved silently."""
    if x.device.type != "cpu":
        raise ValueError(
            f"{name} is on {x.device}: exact transport is solved on the CPU, pass {name}.cpu(); "
            "Sinkhorn and SinkhornDivergence run on other devices"
        )


def unit_masses(weights: Tensor, uniform: bool) -> np.ndarray:
    """Weights (B, n) in float64 that sum to one; equal ones exactly equal."""
    size, n = weights.shape
    if uniform:
        return np.full((size, n), 1.0 / n)
    mass = weights.detach().double().numpy()
    return mass / mass.sum(-1, keepdims=True)


def check_matrix(matrix: Tensor) -> None:
    """Raise ValueError unless a cost matrix (..., n, m) has entries that are numbers or +inf, and is on the CPU."""
    cost_matrix(matrix)
    on_cpu(matrix, "C")
    # One pass without a copy: the sum is NaN for a NaN or for infinities of both signs, -inf for one of them.
    total = float(matrix.detach().sum())
    if np.isnan(total) or total == -np.inf:
        bad = matrix.detach().isnan() | (matrix.detach() == -torch.inf)
        count = int(bad.sum())
        if count:
            where = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(f"C has {count} entries that are NaN or -inf, the first at index {where}: +inf forbids a pair")


def starting_bases(start: Any, size: int, n: int, m: int) -> list[Basis | None]:
    """The bases that a result offers to each problem of a batch; TypeError or ValueError if it is none of this kind and size."""
    if start is None:
        return [None] * size
    if not isinstance(start, TransportResult) or start.f is None or start.g is None or start.epsilon != 0.0:
        raise TypeError(f"start must be the result of an earlier exact solve with potentials, got {start!r}")
    if start.f[..., 0].numel() != size or start.f.shape[-1] != n or start.g.shape[-1] != m:
        raise ValueError(
            f"start is the result of a problem of {start.f.shape[-1]} x {start.g.shape[-1]} points, this one has {n} x {m}: "
            "a start needs the same sizes"
        )
    return [None] * size if start._basis is None else list(start._basis)


__all__ = ["check_matrix", "check_solver", "on_cpu", "starting_bases", "unit_masses"]
