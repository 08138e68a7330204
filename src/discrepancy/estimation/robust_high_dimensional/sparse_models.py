"""Sparse linear and logistic models with nonconvex penalties, one fit or a whole path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, at_least, fraction, require_finite, sample, whole_number
from discrepancy.optimize import SCAD, AcceleratedGradient, CompositeProblem, CompositeSolution, ProximalGradient, SparsePenalty

Solver = AcceleratedGradient | ProximalGradient


class Family(ABC):
    """The smooth loss of a linear predictor, averaged over rows."""

    curvature: float  # the largest second derivative of the loss in the predictor

    @abstractmethod
    def loss(self, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss and its derivative in the predictor eta (n,)."""

    @abstractmethod
    def outcome(self, y: Tensor) -> Tensor:
        """The outcome checked; ValueError for values that the family does not know."""

    @abstractmethod
    def intercept(self, y: Tensor) -> float:
        """The intercept of the model without any column."""


@dataclass(frozen=True)
class Squared(Family):
    """|y - eta|^2 / (2 n)."""

    curvature = 1.0

    def loss(self, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Half the mean square, and the residuals over n."""
        r = eta - y
        return r.square().mean() / 2, r / len(y)

    def outcome(self, y: Tensor) -> Tensor:
        """Any finite numbers."""
        return y

    def intercept(self, y: Tensor) -> float:
        """The mean."""
        return float(y.mean())


@dataclass(frozen=True)
class Logistic(Family):
    """mean log(1 + e^eta) - y eta for y in {0, 1}."""

    curvature = 0.25

    def loss(self, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean log loss, and (sigmoid(eta) - y) / n."""
        return (F.softplus(eta) - y * eta).mean(), (torch.sigmoid(eta) - y) / len(y)

    def outcome(self, y: Tensor) -> Tensor:
        """Zeros and ones, both of them."""
        if not bool(((y == 0) | (y == 1)).all()):
            raise ValueError(f"y must be 0 or 1 for a logistic model, got values from {float(y.min()):g} to {float(y.max()):g}")
        if bool((y == y[0]).all()):
            raise ValueError(f"y has one class only, {float(y[0]):g}: a logistic model needs both")
        return y

    def intercept(self, y: Tensor) -> float:
        """The log odds."""
        return float(torch.logit(y.mean()))


@dataclass(frozen=True, repr=False)
class SparseFit(Result):
    """A sparse linear model: `coefficients` (p,) and `intercept` on the scale of the data, `lam`, the penalised `objective` (on
    standardised columns), the stationarity `residual`, `iterations`, and how it ended."""

    coefficients: Tensor
    intercept: float
    lam: float
    objective: float
    residual: float
    iterations: int
    outcome: Outcome

    def predict(self, X: Any) -> Tensor:
        """The linear predictor at rows X (m, p)."""
        return sample(X, "X").to(self.coefficients.dtype) @ self.coefficients + self.intercept


def fit_sparse(
    X: Any,
    y: Any,
    lam: float,
    penalty: SparsePenalty | None = None,
    *,
    family: Family | None = None,
    solver: Solver | None = None,
) -> SparseFit:
    """min over (b_0, b) of loss(b_0 + Z b, y) + sum_j p_lam(b_j), Z the columns of X (n, p) with mean 0 and variance 1.

    penalty: `SCAD()` where omitted, or `MCP()`, `Lasso()`; family: `Squared()` or `Logistic()`. The intercept is not penalised;
    a column that never varies gets coefficient zero. The objective is nonconvex: the answer is the stationary point that the
    solver reaches from zero, along `regularization_path` often a better one. At lam = 0 and p >= n there are many minima, of
    which it is one. Coefficients are those of the unstandardised columns.
    Raises ValueError for rows that do not match, values that are not finite, lam < 0, and outcomes that the family does not know.
    Time: one product with Z and one with its transpose an iteration, and one singular value decomposition of Z.
    """
    task = _Task.of(X, y, penalty, family, solver)
    return task.fit(at_least(lam, 0, "lam"), None)[0]


def regularization_path(
    X: Any,
    y: Any,
    penalty: SparsePenalty | None = None,
    *,
    lams: Sequence[float] | None = None,
    count: int = 50,
    smallest: float = 0.05,
    family: Family | None = None,
    solver: Solver | None = None,
) -> list[SparseFit]:
    """The fits for falling lam, each started at the one before; options as in `fit_sparse`.

    lams (descending after sorting): where omitted `count` of them, geometric from the smallest lam at which all coefficients are
    zero, max_j |Z_j' (y - mean)| / n, down to `smallest` times it.
    """
    task = _Task.of(X, y, penalty, family, solver)
    if lams is None:
        whole_number(count, 2, "count")
        share = fraction(smallest, "smallest") ** (1 / (count - 1))
        # Rounding must not let a coefficient in at the first.
        top = task.largest_lam() * (1 + 1e-12)
        lams = [top * share**k for k in range(count)]
    if not len(lams):
        raise ValueError("lams is empty: give at least one number")
    fits: list[SparseFit] = []
    b: Tensor | None = None
    for lam in sorted((at_least(v, 0, "lam") for v in lams), reverse=True):
        found, b = task.fit(lam, b)
        fits.append(found)
    return fits


@dataclass(frozen=True)
class _Task:
    """Standardised columns with a column of ones before them, and the outcome."""

    design: Tensor  # (n, 1 + p)
    y: Tensor
    mean: Tensor
    scale: Tensor
    bound: float
    penalty: SparsePenalty
    family: Family
    solver: Solver

    @staticmethod
    def of(X: Any, y: Any, penalty: Any, family: Any, solver: Any) -> _Task:
        penalty, family = SCAD() if penalty is None else penalty, Squared() if family is None else family
        solver = AcceleratedGradient() if solver is None else solver
        for name, value, kind, example in (
            ("penalty", penalty, SparsePenalty, "SCAD()"),
            ("family", family, Family, "Squared()"),
            ("solver", solver, (AcceleratedGradient, ProximalGradient), "AcceleratedGradient()"),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be an object such as {example}, got {value!r}")
        columns = sample(X, "X").detach().double()
        if columns.ndim != 2:
            raise ValueError(f"X must be a table (n, p), got shape {tuple(columns.shape)}")
        outcome = as_tensor(y, "y").detach().double()
        if outcome.shape != (len(columns),):
            raise ValueError(f"y must have shape ({len(columns)},), one value for each row of X, got {tuple(outcome.shape)}")
        require_finite(outcome, "y")
        outcome = family.outcome(outcome)
        mean = columns.mean(0)
        centred = columns - mean
        scale = centred.square().mean(0).sqrt()
        still = (columns == columns[0]).all(0)
        scale = torch.where(still, torch.ones_like(scale), scale)
        z = torch.where(still, torch.zeros_like(centred), centred / scale)
        # The ones are orthogonal to the centred columns, so that the largest singular value is theirs or the columns'.
        top = max(1.0, float(torch.linalg.matrix_norm(z, 2)) ** 2 / len(z))
        design = torch.cat([torch.ones(len(z), 1, dtype=z.dtype), z], 1)
        return _Task(design, outcome, mean, scale, family.curvature * top, penalty, family, solver)

    def largest_lam(self) -> float:
        start = self.start()
        _, slope = self.family.loss(self.design @ start, self.y)
        return float((self.design.T @ slope)[1:].abs().max())

    def start(self) -> Tensor:
        b = self.design.new_zeros(self.design.shape[1])
        b[0] = self.family.intercept(self.y)
        return b

    def fit(self, lam: float, start: Tensor | None) -> tuple[SparseFit, Tensor]:
        def smooth(b: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = self.family.loss(self.design @ b, self.y)
            return value, self.design.T @ slope

        levels = torch.full((self.design.shape[1],), float(lam), dtype=torch.float64)
        levels[0] = 0.0
        problem = CompositeProblem(smooth, self.bound, self.penalty, levels)
        found: CompositeSolution = self.solver.solve(problem, self.start() if start is None else start)
        coefficients = found.b[1:] / self.scale
        intercept = float(found.b[0] - coefficients @ self.mean)
        fit = SparseFit(coefficients, intercept, float(lam), found.objective, found.residual, found.iterations, found.outcome)
        return fit, found.b


__all__ = ["Family", "Logistic", "SparseFit", "Squared", "fit_sparse", "regularization_path"]
