"""Entropic transport between images, and any masses on regular grids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import TransportResult
from discrepancy._validate import as_tensor, positive, weights, whole_number
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon, resolve
from discrepancy.transport.entropic.grid.axes import Grid, check_separable
from discrepancy.transport.entropic.grid.passes import GridPasses
from discrepancy.transport.entropic.grid.solve import grid_problems, solve_grids, solve_itself
from discrepancy.transport.entropic.solver import Potentials, default_tolerance
from discrepancy.transport.entropic.streamed.certificate import certify_passes
from discrepancy.transport.entropic.streamed.ladder import Ladder


class _Value(torch.autograd.Function):
    """<a, slope_a> + <b, slope_b> for fixed slopes: the envelope gradient of an optimal value in its weights."""

    @staticmethod
    def forward(ctx, a, b, slope_a, slope_b):  # type: ignore[override]
        ctx.save_for_backward(slope_a, slope_b)
        return (a.double() * slope_a).sum(-1) + (b.double() * slope_b).sum(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        slope_a, slope_b = ctx.saved_tensors
        return grad[:, None] * slope_a, grad[:, None] * slope_b, None, None


@dataclass(frozen=True)
class _Solved:
    """A batch of problems with flat weights (B, n) and (B, m), solved."""

    a: Tensor
    b: Tensor
    problems: list[GridPasses]
    epsilon: Tensor
    found: Potentials
    batch: torch.Size
    shapes: tuple[torch.Size, torch.Size]


@dataclass(frozen=True)
class GridSinkhorn:
    """Entropic transport W_eps(a, b) = min_P <P, C> + epsilon KL(P | a x b) between masses on regular grids.

    a (..., *shape) on `grid`, b (..., *shape) on `target` (None: the same grid), as many axes as the grid has, sums one; the
    cost must be a sum over the axes (SquaredEuclidean, Manhattan). One soft-minimum then costs n^(1 + 1/axes) powers in place of
    n^2, and nothing n x n is formed: 256 x 256 pixels take 20 MB where a plan would take 34 GB. Solved as `Sinkhorn` is, from
    coarse grids to fine and large epsilons to small, in float64 on the CPU. Gradients in a and b are the potentials (envelope
    theorem), defined where there is no mass too. tolerance None: L1 marginal error 1e-6, or 1e-4 for float32 masses.
    Source: Solomon et al. (2015) for separable kernels; Peyre and Cuturi (2019), section 4.3.
    """

    grid: Grid
    target: Grid | None = None
    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    tolerance: float | None = None
    max_iterations: int = 20_000
    references: ClassVar[tuple[str, ...]] = ("solomon-2015", "peyre-cuturi-2019")

    def __post_init__(self) -> None:
        """Raise for options that make no sense."""
        check_epsilon(self.epsilon)
        object.__setattr__(self, "cost", as_cost(self.cost))
        for name, grid in (("grid", self.grid), ("target", self.target or self.grid)):
            if not isinstance(grid, Grid):
                raise TypeError(f"{name} must be a Grid such as Grid((1.0, 1.0)), got {grid!r}")
        if self.target is not None and len(self.target.spacing) != len(self.grid.spacing):
            raise ValueError(f"grid has {len(self.grid.spacing)} axes and target {len(self.target.spacing)}: they must agree")
        check_separable(self.cost, len(self.grid.spacing))
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")

    def __call__(self, a: Any, b: Any) -> Tensor:
        """The regularised value over the batch (...), differentiable in a and b."""
        solved = self._solved(a, b)
        solved.found.outcome.warn(type(self).__name__)
        return self._value(solved)

    def solve(self, a: Any, b: Any) -> TransportResult:
        """The value with potentials on the grids (..., *shape), cost, certificate, and the plan (..., n, m) over flattened grids
        where it is asked for; `apply(v)` takes v (..., m, k) and costs k soft-minima."""
        solved = self._solved(a, b)
        solved.found.outcome.warn(type(self).__name__)
        return _result(solved, self._value(solved))

    def _value(self, solved: _Solved) -> Tensor:
        value: Tensor = _Value.apply(solved.a, solved.b, solved.found.f, solved.found.g)  # type: ignore[assignment]
        return value.to(solved.a.dtype).reshape(solved.batch)

    def _goal(self, dtype: torch.dtype) -> float:
        return default_tolerance(dtype) if self.tolerance is None else self.tolerance

    def _solved(self, a: Any, b: Any) -> _Solved:
        axes = len(self.grid.spacing)
        p = _image(a, "a", axes, None)
        q = _image(b, "b", axes, p)
        p = p.to(torch.promote_types(p.dtype, q.dtype))
        q = q.to(p.dtype)
        try:
            batch = torch.broadcast_shapes(p.shape[:-axes], q.shape[:-axes])
        except RuntimeError:
            raise ValueError(
                f"a has batch shape {tuple(p.shape[:-axes])} and b {tuple(q.shape[:-axes])}: they must be equal or broadcast"
            ) from None
        shapes = p.shape[-axes:], q.shape[-axes:]
        flat = []
        for w, shape, name in ((p, shapes[0], "a"), (q, shapes[1], "b")):
            given = w.expand(*batch, *shape).reshape(*batch, -1)
            flat.append(weights(given, given.shape, name, like=given).reshape(-1, given.shape[-1]))
        target = self.target or self.grid
        if self.target is None and shapes[0] != shapes[1]:
            raise ValueError(f"a has shape {tuple(shapes[0])} and b {tuple(shapes[1])}: give `target`, the grid of b")
        left, right = self.grid.coordinates(shapes[0]), target.coordinates(shapes[1])
        problems = grid_problems(flat[0].reshape(-1, *shapes[0]), flat[1].reshape(-1, *shapes[1]), left, right, self.cost)
        mean = torch.tensor([g.mean_cost(g.row_weights, g.column_weights) for g in problems], dtype=torch.float64)
        epsilon = resolve(self.epsilon, mean)
        found = solve_grids(problems, epsilon, Ladder(self._goal(p.dtype), self.max_iterations))
        return _Solved(flat[0], flat[1], problems, epsilon, found, batch, shapes)


@dataclass(frozen=True)
class GridSinkhornDivergence(GridSinkhorn):
    """S_eps(a, b) = W_eps(a, b) - W_eps(a, a) / 2 - W_eps(b, b) / 2 between masses on one regular grid, W_eps as `GridSinkhorn`.

    Zero at equality, non-negative; one epsilon serves the three problems. Options, cost and gradients as there; `.solve` has
    the potentials, the cost and the certificate of a against b. Source: Feydy et al. (2019).
    """

    references: ClassVar[tuple[str, ...]] = ("feydy-2019", "solomon-2015")

    def __post_init__(self) -> None:
        """Raise for options that make no sense; both masses live on one grid."""
        super().__post_init__()
        if self.target is not None:
            raise ValueError("target must be omitted: the divergence compares masses on one grid")

    def _value(self, solved: _Solved) -> Tensor:
        goal, slopes = self._goal(solved.a.dtype), []
        for k, (problem, e) in enumerate(zip(solved.problems, solved.epsilon.tolist(), strict=True)):
            own = []
            for mass, points in ((problem.a, problem.left), (problem.b, problem.right)):
                itself = GridPasses(mass, mass, points, points, self.cost)
                f, _, outcome = solve_itself(itself, e, goal, self.max_iterations)
                outcome.warn(type(self).__name__)
                own.append(torch.from_numpy(f))
            cross = (own[0], own[1]) if np.array_equal(problem.a, problem.b) else (solved.found.f[k], solved.found.g[k])
            slopes.append((cross[0] - own[0], cross[1] - own[1]))
        left, right = (torch.stack([s[k] for s in slopes]) for k in (0, 1))
        value: Tensor = _Value.apply(solved.a, solved.b, left, right)  # type: ignore[assignment]
        return value.to(solved.a.dtype).reshape(solved.batch)


def _image(mass: Any, name: str, axes: int, like: Tensor | None) -> Tensor:
    given = as_tensor(mass, name, like=like)
    if given.ndim < axes or 0 in given.shape:
        raise ValueError(f"{name} must have {axes} grid axes, (..., *shape), got shape {tuple(given.shape)}")
    if given.device.type != "cpu":
        raise ValueError(f"{name} is on {given.device}: grids are solved on the CPU, move it with .cpu()")
    return given


def _result(solved: _Solved, value: Tensor) -> TransportResult:
    found, dtype, batch = solved.found, solved.a.dtype, solved.batch
    scaled = []
    for k, (p, e) in enumerate(zip(solved.problems, solved.epsilon.tolist(), strict=True)):
        scale = 1 / (e * math.log(2))
        u, v = (
            np.where(w > 0, t[k].numpy() * scale + np.log2(np.where(w > 0, w, 1)), 0.0)
            for w, t in ((p.row_weights, found.f), (p.column_weights, found.g))
        )
        scaled.append((p, u, v, scale))
    proofs = [
        certify_passes(p, u, v, scale, found.f[k].numpy(), found.g[k].numpy(), float(solved.epsilon[k]))
        for k, (p, u, v, scale) in enumerate(scaled)
    ]
    cost, error, gap = torch.tensor(proofs, dtype=torch.float64).T

    def apply(given: Tensor) -> Tensor:
        columns = given.double().expand(*batch, *given.shape[-2:]).reshape(-1, *given.shape[-2:])
        out = [p.row_products(u, v, scale, c.numpy()) for (p, u, v, scale), c in zip(scaled, columns, strict=True)]
        return torch.from_numpy(np.stack(out)).to(dtype).reshape(*batch, -1, given.shape[-1])

    def plan() -> Tensor:
        return apply(torch.eye(solved.b.shape[-1], dtype=torch.float64))

    return TransportResult(
        value=value,
        cost=cost.to(dtype).reshape(batch),
        f=found.f.to(dtype).reshape(*batch, *solved.shapes[0]),
        g=found.g.to(dtype).reshape(*batch, *solved.shapes[1]),
        marginal_error=error.reshape(batch),
        dual_gap=gap.reshape(batch),
        iterations=found.iterations,
        epsilon=solved.epsilon.reshape(batch),
        outcome=found.outcome,
        rungs=found.rungs,
        _plan=plan,
        _apply=apply,
    )


__all__ = ["GridSinkhorn", "GridSinkhornDivergence"]
