"""Linear mixed models whose groups may be outliers: errors of maximal Tsallis entropy instead of Gaussian ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, at_least, positive, require_finite, sample, whole_number
from discrepancy.estimation.robust_high_dimensional.mixed_likelihood import Layout, log_likelihood, parts
from discrepancy.optimize import SparsePenalty, prox_ncg, soft_threshold

_START_NU = 4.0  # heavy enough that an outlying group does not pull the first steps
_BOUNDS = (0.5, 1e6)  # degrees of freedom; beyond the upper end the law is Gaussian to six digits


@dataclass(frozen=True, repr=False)
class MixedModelFit(Result):
    """A fitted mixed model.

    `coefficients` (p,) and `intercept` (None without one) with `standard_errors` (the intercept's first where there is one;
    None for a penalised fit), `group_covariance` G (q, q) and `noise_variance`, both of the Gaussian core, `nu`, the `weights`
    (m,) of the groups (1 on average for clean data, near 0 for outlying groups), `random_effects` (m, q), `group_labels`, the
    `log_likelihood`, `iterations` and how the fit ended.
    """

    coefficients: Tensor
    intercept: float | None
    standard_errors: Tensor | None
    group_covariance: Tensor
    noise_variance: float
    nu: float
    weights: Tensor
    random_effects: Tensor
    group_labels: tuple[Any, ...]
    log_likelihood: float
    iterations: int
    outcome: Outcome
    note: str | None = None

    def q(self, rows: int) -> float:
        """The entropic index of a group of so many rows, 1 + 2 / (nu + rows)."""
        return 1 + 2 / (self.nu + whole_number(rows, 1, "rows"))

    def predict(self, X: Any) -> Tensor:
        """The mean at rows X (k, p) of a new group: without random effects."""
        return sample(X, "X").to(self.coefficients.dtype) @ self.coefficients + (self.intercept or 0.0)


@dataclass(frozen=True)
class TsallisMixedModel:
    """y_i = X_i b + Z_i u_i + e_i, where (u_i, e_i) of a group is the law of largest Tsallis entropy for its covariance.

    For q > 1 that is a multivariate t: y_i ~ t_nu(X_i b, V_i), V_i = Z_i G Z_i' + s^2 I, q = 1 + 2 / (nu + n_i). q depends on
    the size of a group, hence nu is the parameter: None estimates it, a number fixes it, inf is the usual Gaussian model by
    maximum likelihood. A group's pull on b is weighted by (nu + n_i) / (nu + r_i' V_i^-1 r_i): an outlying group is ignored as
    a whole, a single outlying row takes its group with it.

    `penalty` with `lam` adds p_lam(b_j / s) to minus the mean log-likelihood of a row, for columns of variance 1 and with the
    noise deviation s, which is estimated with the rest: a column of noise has a slope of some 1 / sqrt(N) there, whatever the
    units. The intercept is free. `fit` maximises the likelihood by L-BFGS-B, with a penalty by proximal conjugate gradients
    (`prox_ncg`), from least squares and again from least absolute deviations, and keeps the better end: a t likelihood may have
    several maxima.

    Standard errors are from the observed information in b. Variance components are by maximum likelihood, hence low by some share
    1 / groups. Time O(N (p + q) + m q^3) an evaluation, a hundred or so.
    Raises ValueError for nu that is not positive and options out of range.
    Source: Pinheiro, Liu and Wu (2001) for the t model; the thesis for its reading as entropy; the details are this library's.
    """

    nu: float | None = None
    intercept: bool = True
    penalty: SparsePenalty | None = None
    lam: float = 0.0
    tolerance: float = 1e-6
    max_iterations: int = 1000

    references = ("robust-high-dimensional", "pinheiro-2001", "tsallis-1988")

    def __post_init__(self) -> None:
        """Check the options."""
        if self.nu is not None and not float(self.nu) > 0:
            raise ValueError(f"nu must be positive (inf for a Gaussian model), or None to estimate it, got {self.nu!r}")
        at_least(self.lam, 0, "lam")
        if self.penalty is not None and not isinstance(self.penalty, SparsePenalty):
            raise TypeError(f"penalty must be SCAD(), MCP() or Lasso(), got {self.penalty!r}")
        if self.penalty is None and self.lam > 0:
            raise ValueError(f"lam = {self.lam!r} needs a penalty: penalty=SCAD()")
        positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")

    def fit(self, X: Any, y: Any, groups: Any, Z: Any = None) -> MixedModelFit:
        """Fit rows X (N, p), y (N,), whose groups are labelled by `groups` (N,); Z (N, q): ones, a random intercept, if omitted.

        Raises ValueError for lengths that do not match, values that are not finite, a single group, columns that are linearly
        dependent (without a penalty). Warns `ConvergenceWarning` at the iteration limit.
        """
        columns, outcome, labels, place, effects = _checked(X, y, groups, Z)
        layout = Layout.of(columns, outcome, effects, place, len(labels), self.intercept, self.nu, self.penalty is not None)
        if self.penalty is None and int(torch.linalg.matrix_rank(layout.design)) < layout.design.shape[1]:
            raise ValueError(
                f"the {layout.design.shape[1]} columns (with the intercept) are linearly dependent: drop some, or give a penalty"
            )
        ends = [self._ascend(layout, start) for start in _starts(layout)]
        # The better of two local maxima; the first on a tie.
        theta, _, iterations, outcome_word = min(ends, key=lambda end: end[1])
        outcome_word.warn(f"TsallisMixedModel after {iterations} iterations")
        return self._result(layout, theta, labels, iterations, outcome_word)

    def _ascend(self, layout: Layout, start: Tensor) -> tuple[Tensor, float, int, Outcome]:
        rows = len(layout.y)

        def loss(theta: Tensor) -> Tensor:
            return -log_likelihood(layout, theta) / rows

        def slope(theta: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = theta.detach().requires_grad_()
                return torch.autograd.grad(loss(leaf), leaf)[0]

        if self.penalty is not None and self.lam > 0:
            penalty, free = self.penalty, torch.zeros(len(start), dtype=torch.bool)
            free[int(self.intercept) : layout.design.shape[1]] = True
            lam = self.lam * free

            def smooth(theta: Tensor) -> Tensor:
                return loss(theta) + penalty.concave(theta, lam).sum()

            found = prox_ncg(
                smooth,
                lambda theta: slope(theta) + penalty.slope(theta, lam),
                lambda v, t: soft_threshold(v, t * lam),
                start,
                penalty=lambda theta: (lam * theta.abs()).sum(),
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )
            return found.x, found.objective, found.iterations, found.outcome
        from scipy.optimize import minimize

        def both(x: np.ndarray) -> tuple[float, np.ndarray]:
            theta = torch.from_numpy(x.copy())
            return float(loss(theta)), slope(theta).numpy()

        bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(start)
        if self.nu is None:
            bounds[-1] = (math.log(_BOUNDS[0]), math.log(_BOUNDS[1]))
        options = {"maxiter": self.max_iterations, "gtol": self.tolerance, "ftol": 1e-13, "maxcor": 20}
        end = minimize(both, start.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        outcome = Outcome.ITERATION_LIMIT if end.status == 1 else Outcome.CONVERGED
        return torch.from_numpy(end.x), float(end.fun), int(end.nit), outcome

    def _result(self, layout: Layout, theta: Tensor, labels: tuple[Any, ...], iterations: int, outcome: Outcome) -> MixedModelFit:
        found = parts(layout, theta)
        back = layout.unscaling()
        b = back @ found.b
        errors = note = None
        if self.penalty is None:
            head = len(found.b)

            def of_b(inner: Tensor) -> Tensor:
                return -log_likelihood(layout, torch.cat([inner, theta[head:]]))

            information = torch.autograd.functional.hessian(of_b, theta[:head].clone())
            assert isinstance(information, Tensor)
            errors = torch.linalg.diagonal(back @ torch.linalg.pinv(information, hermitian=True) @ back.T).clamp_min(0).sqrt()
        else:
            note = "no standard errors: a penalised fit chose its columns from the same data"
        intercept = float(b[0]) if self.intercept else None
        rows = layout.groups.rows.to(b.dtype)
        weights = torch.ones_like(rows) if math.isinf(found.nu) else (found.nu + rows) / (found.nu + found.distance)
        return MixedModelFit(
            b[int(self.intercept) :], intercept, errors,
            found.covariance * layout.y_scale**2, found.noise * layout.y_scale**2, found.nu, weights,
            found.effects * layout.y_scale, labels, float(found.log_likelihood) - len(layout.y) * math.log(layout.y_scale),
            iterations, outcome, note,
        )  # fmt: skip


def _checked(X: Any, y: Any, groups: Any, Z: Any) -> tuple[Tensor, Tensor, tuple[Any, ...], Tensor, Tensor]:
    columns = sample(X, "X").detach().double().cpu()
    if columns.ndim != 2:
        raise ValueError(f"X must be a table (N, p), got shape {tuple(columns.shape)}")
    n = len(columns)
    outcome = as_tensor(y, "y").detach().double().cpu()
    if outcome.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one value for each row of X, got {tuple(outcome.shape)}")
    require_finite(outcome, "y")
    if bool((outcome == outcome[0]).all()):
        raise ValueError("y never varies: there is nothing to model")
    names = groups.detach().cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if names.shape != (n,):
        raise ValueError(f"groups must have shape ({n},), a label for each row, got {names.shape}")
    labels, place = np.unique(names, return_inverse=True)
    if len(labels) < 2:
        raise ValueError("groups has a single group: its random effect cannot be told from the coefficients")
    effects = torch.ones(n, 1, dtype=torch.float64) if Z is None else sample(Z, "Z").detach().double().cpu()
    if effects.ndim != 2 or len(effects) != n:
        raise ValueError(f"Z must have shape ({n}, q), a row for each row of X, got {tuple(effects.shape)}")
    return columns, outcome, tuple(labels.tolist()), torch.from_numpy(place), effects


def _starts(layout: Layout) -> list[Tensor]:
    """Least squares, and least absolute deviations of the rows by reweighting, each with moderate variances."""
    design, y = layout.design, layout.y
    ridge = 1e-8 * torch.eye(design.shape[1], dtype=y.dtype)  # more columns than rows have a start too
    weight, starts = torch.ones_like(y), []
    for repeat in range(21):
        b = torch.linalg.solve(design.T @ (weight[:, None] * design) / len(y) + ridge, design.T @ (weight * y) / len(y))
        r = y - design @ b
        scale = max(float(r.abs().median()) * 1.4826, 1e-3)
        weight = 1 / torch.maximum(r.abs(), torch.tensor(0.05 * scale, dtype=y.dtype))
        weight = weight / weight.mean()
        if repeat in (0, 20):
            starts.append(layout.pack(b, scale / math.sqrt(2), scale / math.sqrt(2), _START_NU))
    return starts


__all__ = ["MixedModelFit", "TsallisMixedModel"]
