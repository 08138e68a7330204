"""The likelihood of a mixed model with multivariate t groups, from sums over the rows of each group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.estimation.robust_high_dimensional.q_gaussian import t_log_density


@dataclass(frozen=True)
class Groups:
    """Which group each row is in (N,), how many rows each of the m groups has, and the sums Z_i' Z_i (m, q, q)."""

    place: Tensor
    rows: Tensor
    squares: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """The sum of values (N, ...) over the rows of each group (m, ...)."""
        return values.new_zeros(len(self.rows), *values.shape[1:]).index_add(0, self.place, values)


@dataclass(frozen=True)
class Layout:
    """A problem in scaled units: columns of mean 0 and variance 1 beside the ones, an outcome of variance 1.

    A point theta is (b, the lower triangle of L with G = L L', log s, and log nu where nu is estimated). With `noise_units` it
    begins with b / s, the units in which a penalty knows large from small.
    """

    design: Tensor
    y: Tensor
    effects: Tensor
    groups: Groups
    intercept: bool
    nu: float | None
    centre: Tensor
    scale: Tensor
    y_scale: float
    noise_units: bool

    @staticmethod
    def of(
        columns: Tensor,
        y: Tensor,
        effects: Tensor,
        place: Tensor,
        m: int,
        intercept: bool,
        nu: float | None,
        noise_units: bool,
    ) -> Layout:
        """The layout of raw columns (N, p), y (N,) and effects Z (N, q)."""
        centre = columns.mean(0) if intercept else torch.zeros_like(columns[0])
        centred = columns - centre
        scale = centred.square().mean(0).sqrt()
        scale = torch.where(scale > 1e-12 * columns.abs().amax(0), scale, torch.ones_like(scale))
        design = centred / scale
        if intercept:
            design = torch.cat([torch.ones(len(y), 1, dtype=y.dtype), design], 1)
        y_scale = float(y.std(correction=0))
        rows = torch.bincount(place, minlength=m)
        squares = torch.zeros(m, effects.shape[1], effects.shape[1], dtype=y.dtype)
        squares.index_add_(0, place, effects[:, :, None] * effects[:, None, :])
        return Layout(
            design, y / y_scale, effects, Groups(place, rows, squares), intercept, nu, centre, scale, y_scale, noise_units
        )  # fmt: skip

    def unscaling(self) -> Tensor:
        """The matrix from b in scaled units to (intercept, coefficients) in the data's."""
        slopes = torch.diag(self.y_scale / self.scale)
        if not self.intercept:
            return slopes
        top = torch.cat([torch.tensor([self.y_scale], dtype=self.y.dtype), -self.centre * self.y_scale / self.scale])
        return torch.cat([top[None], torch.cat([torch.zeros(len(slopes), 1, dtype=self.y.dtype), slopes], 1)])

    def pack(self, b: Tensor, spread: float, noise: float, nu: float) -> Tensor:
        """The point theta with G = spread^2 I over the mean square of each effect, and noise deviation `noise`."""
        q = self.effects.shape[1]
        size = self.effects.square().mean(0).sqrt()
        L = torch.diag(spread / math.sqrt(q) / torch.where(size > 0, size, torch.ones_like(size)))
        tail = [L[tuple(torch.tril_indices(q, q))], torch.tensor([math.log(noise)], dtype=b.dtype)]
        if self.nu is None:
            tail.append(torch.tensor([math.log(nu)], dtype=b.dtype))
        return torch.cat([b / noise if self.noise_units else b, *tail])


@dataclass(frozen=True)
class Parts:
    """What a point theta means, in scaled units; `distance` (m,) are r_i' V_i^-1 r_i, `effects` (m, q) the predicted u_i."""

    b: Tensor
    covariance: Tensor
    noise: float
    nu: float
    distance: Tensor
    effects: Tensor
    log_likelihood: Tensor


def log_likelihood(layout: Layout, theta: Tensor) -> Tensor:
    """sum_i log t_nu(y_i; X_i b, V_i), differentiable; V_i^-1 and log det V_i through q x q matrices (Woodbury)."""
    return _evaluate(layout, theta)[0]


@torch.no_grad()
def parts(layout: Layout, theta: Tensor) -> Parts:
    """The parameters behind theta, with each group's distance and predicted effects."""
    value, distance, effects, b, L, log_s, nu = _evaluate(layout, theta)
    return Parts(b, L @ L.T, float(torch.exp(2 * log_s)), float(nu), distance, effects, value)


def _evaluate(layout: Layout, theta: Tensor) -> tuple[Tensor, ...]:
    p, q = layout.design.shape[1], layout.effects.shape[1]
    count = q * (q + 1) // 2
    b, lower, log_s = theta[:p], theta[p : p + count], theta[p + count]
    if layout.noise_units:
        b = b * torch.exp(log_s)
    nu = torch.exp(theta[-1]) if layout.nu is None else torch.tensor(float(layout.nu), dtype=theta.dtype)
    L = theta.new_zeros(q, q).index_put(tuple(torch.tril_indices(q, q)), lower)
    precision = torch.exp(-2 * log_s)
    r = layout.y - layout.design @ b
    cross = layout.groups.sums(layout.effects * r[:, None]) @ L * precision
    inner = torch.eye(q, dtype=theta.dtype) + precision * L.T @ layout.groups.squares @ L
    root = torch.linalg.cholesky(inner)
    solved = torch.cholesky_solve(cross[..., None], root)[..., 0]
    distance = (precision * layout.groups.sums(r.square()) - (cross * solved).sum(-1)).clamp_min(0)
    rows = layout.groups.rows.to(theta.dtype)
    log_determinant = 2 * rows * log_s + 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    value = t_log_density(distance, log_determinant, rows, nu).sum()
    return value, distance, solved @ L.T, b, L, log_s, nu


__all__ = ["Groups", "Layout", "Parts", "log_likelihood", "parts"]
