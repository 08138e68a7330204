"""The power divergences between Gaussian laws, from one Cholesky factor of the relative covariance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.elementary import exp_excess
from discrepancy.divergences.f_divergence import FDivergence


def _parameters(law: Any) -> tuple[Tensor, Tensor] | None:
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
    left, right = _parameters(P), _parameters(Q)
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


def _power(a: float, shift: Tensor, factor: Tensor) -> Tensor:
    """Alpha(a) for a other than 0 and 1: (exp(log of the integral of p^a q^(1-a)) - 1) / (a (a - 1)).

    The integral is finite where a I + (1 - a) L L' is positive definite, else the divergence is +inf.
    """
    d = factor.shape[-1]
    mixed = a * torch.eye(d, dtype=factor.dtype, device=factor.device) + (1 - a) * factor @ factor.mT
    with torch.no_grad():
        infinite = torch.linalg.cholesky_ex(mixed).info > 0
    mixed = torch.where(infinite[..., None, None], torch.eye(d, dtype=factor.dtype, device=factor.device), mixed)
    root = torch.linalg.cholesky(mixed)
    scaled = torch.linalg.solve_triangular(root, shift.unsqueeze(-1), upper=False).squeeze(-1)
    logs = torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)
    log_integral = (
        (1 - a) * logs - torch.log(torch.diagonal(root, dim1=-2, dim2=-1)).sum(-1) - a * (1 - a) / 2 * scaled.square().sum(-1)
    )
    overflow = infinite | (log_integral.detach() > math.log(torch.finfo(factor.dtype).max))
    value = torch.expm1(torch.where(overflow, torch.zeros_like(log_integral), log_integral)) / (a * (a - 1))
    return torch.where(overflow, torch.full_like(value, torch.inf), value)


def _gaussian(divergence: FDivergence, P: Any, Q: Any) -> Tensor | None:
    terms = divergence.powers()
    forward, backward = _relative(P, Q), _relative(Q, P)
    if terms is None or forward is None or backward is None:
        return None
    parts = [c * (_kl(*forward) if a == 1 else _kl(*backward) if a == 0 else _power(a, *forward)) for a, c in terms.items()]
    return sum(parts[1:], parts[0])


for _left, _right in itertools.product((Normal, MultivariateNormal, Independent), repeat=2):
    closed_form(FDivergence, _left, _right)(_gaussian)
