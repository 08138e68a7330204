"""The plain estimators from moment restrictions: least squares, GMM, sieve minimum distance, maximum moment restriction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import sample, whole_number
from discrepancy.kernels import Gaussian, Kernel
from discrepancy.methods.causality.moments import MomentData, MomentFunction, minimise, moment_data, own_copy, residuals

_RIDGE = 1e-10  # relative: a weight matrix of collinear moments is inverted on their span


def least_squares(model: nn.Module, t: Any, y: Any) -> nn.Module:
    """A copy of the model fitted to minimise the mean of |y - model(t)|^2: biased where t depends on the error."""
    data = moment_data({"t": t, "y": y}, None)
    found = own_copy(model)
    minimise(found, lambda: (data.blocks["y"] - found(data.blocks["t"])).square().sum(-1).mean())
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
    model: nn.Module, moments: MomentFunction, X: Mapping[str, Any], z: Any, *, kernel: Kernel | None = None
) -> nn.Module:
    """A copy of the model at a minimum of `mmr_statistic` of its residuals, from where the model stands."""
    data = moment_data(X, z)
    if data.z is None:
        raise ValueError("maximum_moment_restriction needs instruments z")
    found, K = own_copy(model), instrument_matrix(data.z, kernel)
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
    "gmm",
    "instrument_matrix",
    "least_squares",
    "maximum_moment_restriction",
    "mmr_statistic",
    "polynomials",
    "sieve_minimum_distance",
]
