"""KL and the integrals of powers between Gaussian laws, from one Cholesky factor of the relative covariance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.closed_form.integrals import power_integral
from discrepancy.divergences.elementary import exp_excess
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.kullback_leibler import KL


def gaussian_parameters(law: Any) -> tuple[Tensor, Tensor] | None:
    """Mean (..., d) and lower Cholesky factor (..., d, d) of a Gaussian law; None for another law."""
    if isinstance(law, MultivariateNormal):
        return law.loc, law.scale_tril
    if isinstance(law, Normal):
        return law.loc.unsqueeze(-1), law.scale[..., None, None]
    if isinstance(law, Independent) and isinstance(law.base_dist, Normal) and law.reinterpreted_batch_ndims == 1:
        return law.base_dist.loc, torch.diag_embed(law.base_dist.scale)
    return None


def _relative(P: Any, Q: Any) -> tuple[Tensor, Tensor] | None:
    """Mean difference and Cholesky factor of P in the coordinates where Q is standard normal."""
    left, right = gaussian_parameters(P), gaussian_parameters(Q)
    if left is None or right is None or isinstance(P, Normal) != isinstance(Q, Normal):
        return None
    if left[0].shape[-1] != right[0].shape[-1]:
        raise ValueError(f"P has dimension {left[0].shape[-1]} and Q has {right[0].shape[-1]}: they must be the same")
    shift = torch.linalg.solve_triangular(right[1], (left[0] - right[0]).unsqueeze(-1), upper=False).squeeze(-1)
    return shift, torch.linalg.solve_triangular(right[1], left[1], upper=False)


def _kl(shift: Tensor, factor: Tensor) -> Tensor:
    """KL(N(shift, L L') || N(0, I)) = (sum of squares below the diagonal + sum (l^2 - 1 - log l^2) + |shift|^2) / 2."""
    logs = 2 * torch.log(torch.diagonal(factor, dim1=-2, dim2=-1))
    off = torch.tril(factor, diagonal=-1).square().sum((-2, -1))
    return (exp_excess(logs).sum(-1) + off + shift.square().sum(-1)) / 2


def _integral(P: Any, Q: Any, a: float, b: float) -> Tensor | None:
    """log of the integral of p^a q^b; finite where a I + b L L' is positive definite, for P's factor L where Q is standard.

    With d the shift there, (1 - a - b) (k/2 log 2 pi + log |L_Q|) + (1 - a) log |L| - log |root| - a b |root^-1 d|^2 / 2.
    """
    relative = _relative(P, Q)
    if relative is None:
        return None
    shift, factor = relative
    d = factor.shape[-1]
    identity = torch.eye(d, dtype=factor.dtype, device=factor.device)
    mixed = a * identity + b * factor @ factor.mT
    with torch.no_grad():
        infinite = torch.linalg.cholesky_ex(mixed).info > 0
    root = torch.linalg.cholesky(torch.where(infinite[..., None, None], identity, mixed))
    scaled = torch.linalg.solve_triangular(root, shift.unsqueeze(-1), upper=False).squeeze(-1)
    value = (1 - a) * _log_determinant(factor) - _log_determinant(root) - a * b / 2 * scaled.square().sum(-1)
    excess = 1 - a - b
    if excess:
        scale = gaussian_parameters(Q)[1]  # type: ignore[index]  (it is Gaussian, or there were no relative parameters)
        value = value + excess * (d / 2 * math.log(2 * math.pi) + _log_determinant(scale))
    return torch.where(infinite, torch.full_like(value, torch.inf), value)


def _log_determinant(factor: Tensor) -> Tensor:
    return torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)


def log_supremum(P: Any, Q: Any) -> Tensor | None:
    """log sup p/q between Gaussian laws, Renyi's divergence of infinite order; None for other laws.

    With P = N(d, L L') where Q is standard: (|d|^2 + d' L (I - L'L)^-1 L' d) / 2 - log |L| where L L' < I, zero for equal laws,
    else +inf.
    """
    relative = _relative(P, Q)
    if relative is None:
        return None
    shift, factor = relative
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    rest = identity - factor @ factor.mT
    equal = (shift.detach() == 0).all(-1) & (factor.detach() == identity).all(-1).all(-1)
    with torch.no_grad():
        infinite = (torch.linalg.cholesky_ex(rest).info > 0) & ~equal
    root = torch.linalg.cholesky(torch.where((infinite | equal)[..., None, None], identity, rest))
    scaled = torch.linalg.solve_triangular(root, shift.unsqueeze(-1), upper=False).squeeze(-1)
    value = scaled.square().sum(-1) / 2 - _log_determinant(factor)
    return torch.where(infinite, torch.full_like(value, torch.inf), value)


def _gaussian(divergence: FDivergence, P: Any, Q: Any) -> Tensor | None:
    if not isinstance(divergence, KL):
        return None
    relative = _relative(P, Q)
    return None if relative is None else _kl(*relative)


for _left, _right in itertools.product((Normal, MultivariateNormal, Independent), repeat=2):
    closed_form(KL, _left, _right)(_gaussian)
    power_integral(_left, _right)(_integral)

__all__ = ["gaussian_parameters", "log_supremum"]
