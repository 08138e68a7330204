"""The plain estimators from moment restrictions: least squares, GMM, sieve minimum distance, maximum moment restriction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import fraction, sample, whole_number
from discrepancy.kernels import Gaussian, Kernel
from discrepancy.learning import EarlyStopping, Training
from discrepancy.methods.causality.moments import MomentData, MomentFunction, minimise, moment_data, own_copy, residuals

_RIDGE = 1e-10  # relative: a weight matrix of collinear moments is inverted on their span


@dataclass(frozen=True)
class EarlyFit:
    """Adam on a share of the rows until the loss of the others, `held_out`, no longer falls; the best weights are kept."""

    training: Training = field(default_factory=lambda: Training(steps=1500, learning_rate=1e-2))
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(every=25, patience=12))
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        fraction(self.held_out, "held_out")

    def fit(self, model: nn.Module, loss: Callable[[MomentData], Tensor], data: MomentData) -> None:
        """Move the model's parameters."""
        order = torch.randperm(data.count, generator=torch.Generator().manual_seed(self.seed))
        count = max(1, round(self.held_out * data.count))
        aside, kept = data.rows(order[:count]), data.rows(order[count:])
        watch = self.stopping.watch(model, lambda: -float(loss(aside)))
        self.training.run(model.parameters(), lambda _: (loss(kept), {}), after=watch)
        watch.keep()


def least_squares(model: nn.Module, t: Any, y: Any, *, early: EarlyFit | None = None) -> nn.Module:
    """A copy of the model fitted to minimise the mean of |y - model(t)|^2: biased where t depends on the error.

    By L-BFGS to a minimum, or as `early` says.
    """
    data = moment_data({"t": t, "y": y}, None)
    found = own_copy(model)

    def loss(part: MomentData) -> Tensor:
        return (part.blocks["y"] - found(part.blocks["t"])).square().sum(-1).mean()

    if early is not None:
        early.fit(found, loss, data)
    else:
        minimise(found, lambda: loss(data))
    return found


def mmr_statistic(residual: Any, z: Any, kernel: Kernel | None = None) -> Tensor:
    """sum_ij psi_i.psi_j k(z_i, z_j) / n^2: the largest violation of E[psi h(Z)] = 0 over the unit ball of k, squared.

    residual (n, m) or (n,), z (n, d), kernel (default `Gaussian()` at the median distance). A V-statistic, differentiable in the
    residual; O(n^2) time and memory. Source: Zhang, Imaizumi, Schoelkopf and Muandet (2021).
    """
    psi, points = sample(residual, "residual"), sample(z, "z")
    if len(psi) != len(points):
        raise ValueError(f"residual has {len(psi)} rows and z has {len(points)}: they must be paired")
    points = points.to(psi.dtype)
    return _mmr(psi, instrument_matrix(points, kernel))


def instrument_matrix(z: Tensor, kernel: Kernel | None = None) -> Tensor:
    """The kernel matrix (n, n) of the instruments, its bandwidth chosen from them where it is a rule."""
    chosen = Gaussian() if kernel is None else kernel
    with torch.no_grad():
        return chosen.resolve(z, torch.full((len(z),), 1 / len(z), dtype=z.dtype)).matrix(z, z)


def _mmr(psi: Tensor, K: Tensor) -> Tensor:
    return ((K @ psi) * psi).sum() / len(psi) ** 2


def maximum_moment_restriction(
    model: nn.Module,
    moments: MomentFunction,
    X: Mapping[str, Any],
    z: Any,
    *,
    kernel: Kernel | None = None,
    early: EarlyFit | None = None,
) -> nn.Module:
    """A copy of the model at a minimum of `mmr_statistic` of its residuals, from where the model stands.

    A flexible model needs `early`: the inverse problem is ill-posed, and a minimum on all rows fits noise that z cannot see.
    """
    data = moment_data(X, z)
    if data.z is None:
        raise ValueError("maximum_moment_restriction needs instruments z")
    found = own_copy(model)
    if early is not None:
        matrices: dict[int, Tensor] = {}  # of the two parts, which live as long as the fit

        def loss(part: MomentData) -> Tensor:
            assert part.z is not None
            if id(part) not in matrices:
                matrices[id(part)] = instrument_matrix(part.z, kernel)
            return _mmr(residuals(moments, found, part), matrices[id(part)])

        early.fit(found, loss, data)
        return found
    K = instrument_matrix(data.z, kernel)
    minimise(found, lambda: _mmr(residuals(moments, found, data), K))
    return found


def gmm(model: nn.Module, moments: MomentFunction, X: Mapping[str, Any], *, steps: int = 2) -> nn.Module:
    """The generalised method of moments: minimise |mean psi|^2 in the metric W, W = I first, then the inverse covariance of psi.

    Hansen (1982). `steps` fits in all, 2 by default; a copy of the model is returned.
    """
    return _weighted(own_copy(model), moments, moment_data(X, None), None, whole_number(steps, 1, "steps"))


def sieve_minimum_distance(
    model: nn.Module, moments: MomentFunction, X: Mapping[str, Any], z: Any, *, degree: int = 3, steps: int = 2
) -> nn.Module:
    """Sieve minimum distance: GMM on psi times polynomials of standardised z, of total degree up to `degree`.

    The first metric is the inverse second moment of the polynomials, the next the inverse covariance of the products: efficient
    as the sieve grows. Ai and Chen (2003).
    """
    data = moment_data(X, z)
    if data.z is None:
        raise ValueError("sieve_minimum_distance needs instruments z")
    basis = polynomials(data.z, whole_number(degree, 1, "degree"))
    return _weighted(own_copy(model), moments, data, basis, whole_number(steps, 1, "steps"))


def polynomials(z: Tensor, degree: int) -> Tensor:
    """All monomials of total degree up to `degree` of the standardised columns, the constant first: (n, B)."""
    from itertools import combinations_with_replacement

    spread = z.std(0)
    if bool((spread == 0).any()):
        raise ValueError(f"column {int((spread == 0).nonzero()[0])} of z is constant: it is no instrument")
    points = (z - z.mean(0)) / spread
    columns = [torch.ones(len(z), dtype=z.dtype)]
    for order in range(1, degree + 1):
        columns += [points[:, list(which)].prod(-1) for which in combinations_with_replacement(range(z.shape[1]), order)]
    return torch.stack(columns, -1)


def _weighted(found: nn.Module, moments: MomentFunction, data: MomentData, basis: Tensor | None, steps: int) -> nn.Module:
    def products() -> Tensor:
        psi = residuals(moments, found, data)
        return psi if basis is None else (psi.unsqueeze(-1) * basis.unsqueeze(1)).flatten(1)

    with torch.no_grad():
        first = products()
    if basis is None:
        metric = torch.eye(first.shape[1], dtype=first.dtype)
    else:
        metric = torch.block_diag(*[_inverse(basis.T @ basis / len(basis))] * (first.shape[1] // basis.shape[1]))
    for step in range(steps):
        if step:
            with torch.no_grad():
                metric = _inverse(torch.cov(products().T, correction=0).reshape(len(metric), len(metric)))

        def objective(metric: Tensor = metric) -> Tensor:
            mean = products().mean(0)
            return mean @ metric @ mean

        minimise(found, objective)
    return found


def _inverse(matrix: Tensor) -> Tensor:
    return torch.linalg.pinv(matrix, rtol=_RIDGE, hermitian=True)


__all__ = [
    "EarlyFit",
    "gmm",
    "instrument_matrix",
    "least_squares",
    "maximum_moment_restriction",
    "mmr_statistic",
    "polynomials",
    "sieve_minimum_distance",
]
