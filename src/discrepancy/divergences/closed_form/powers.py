"""What follows from the integral of p^a q^b: power divergences, Renyi, Tsallis, Cauchy-Schwarz, Hoelder, alpha-beta."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from discrepancy._results import NumericalError
from discrepancy.divergences.alpha_beta import AlphaBeta
from discrepancy.divergences.bregman import Bregman
from discrepancy.divergences.bregman_generators import NegativeEntropy, SquaredNorm
from discrepancy.divergences.closed_form import closed_form, find_closed_form
from discrepancy.divergences.closed_form.gaussian import log_supremum
from discrepancy.divergences.closed_form.integrals import log_power_integral
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.hoelder import ProjectiveDivergence
from discrepancy.divergences.kullback_leibler import KL
from discrepancy.divergences.renyi import Renyi, Tsallis


def power_divergence(a: float, log_integral: Tensor) -> Tensor:
    """Alpha(a) for a other than 0 and 1, (e^L - 1) / (a (a - 1)), from L, the log of the integral of p^a q^(1-a)."""
    overflow = log_integral.detach() > math.log(torch.finfo(log_integral.dtype).max)
    value = torch.expm1(torch.where(overflow, torch.zeros_like(log_integral), log_integral)) / (a * (a - 1))
    return torch.where(overflow, torch.full_like(value, torch.inf), value) + 0.0  # no negative zero


@closed_form(FDivergence, Distribution, Distribution)
def _powers(divergence: FDivergence, P: Any, Q: Any) -> Tensor | None:
    terms = divergence.powers()
    if terms is None or isinstance(divergence, KL):
        return None
    total: Tensor | None = None
    for a, c in terms.items():
        if a in (0.0, 1.0):
            part = find_closed_form(KL(), P, Q) if a == 1 else find_closed_form(KL(), Q, P)
        else:
            integral = log_power_integral(P, Q, a, 1 - a)
            part = None if integral is None else power_divergence(a, integral)
        if part is None:
            return None
        total = c * part if total is None else total + c * part
    return total


@closed_form(Renyi, Distribution, Distribution)
def _renyi(divergence: Renyi, P: Any, Q: Any) -> Tensor | None:
    a = divergence.order
    if a == 1:
        return find_closed_form(KL(), P, Q)
    if math.isinf(a):
        return log_supremum(P, Q)
    integral = log_power_integral(P, Q, a, 1 - a)
    return None if integral is None else integral / (a - 1) + 0.0


@closed_form(Tsallis, Distribution, Distribution)
def _tsallis(divergence: Tsallis, P: Any, Q: Any) -> Tensor | None:
    a = divergence.order
    if a == 1:
        return find_closed_form(KL(), P, Q)
    integral = log_power_integral(P, Q, a, 1 - a)
    if integral is None:
        return None
    return -torch.expm1(integral) + 0.0 if a == 0 else a * power_divergence(a, integral)


def _require_defined(divergence: Any, cross: Tensor) -> None:
    if bool((cross.detach() == torch.inf).any()):
        raise NumericalError(
            f"{divergence!r} between these laws is infinity minus infinity: the integrals of powers of their densities diverge"
        )


@closed_form(ProjectiveDivergence, Distribution, Distribution)
def _projective(divergence: ProjectiveDivergence, P: Any, Q: Any) -> Tensor | None:
    a, m, n, c = divergence._exponents()
    share = 1 / a
    cross = log_power_integral(P, Q, m * share, n * (1 - share))
    left, right = log_power_integral(P, Q, m, 0.0), log_power_integral(P, Q, 0.0, n)
    if cross is None or left is None or right is None:
        return None
    _require_defined(divergence, cross)
    value = c * (share * left + (1 - share) * right - cross)
    return torch.where(value.detach() < 0, torch.zeros_like(value), value)


@closed_form(AlphaBeta, Distribution, Distribution)
def _alpha_beta(divergence: AlphaBeta, P: Any, Q: Any) -> Tensor | None:
    a, b = divergence.alpha, divergence.beta
    s = a + b
    if a == 0 or b == 0 or s == 0:
        return find_closed_form(KL(), P, Q) if (a, b) == (1, 0) else find_closed_form(KL(), Q, P) if (a, b) == (0, 1) else None
    parts = [log_power_integral(P, Q, *powers) for powers in ((a, b), (s, 0.0), (0.0, s))]
    if s == 1:
        return None if parts[0] is None else power_divergence(a, parts[0])
    if any(part is None for part in parts):
        return None
    cross, left, right = (torch.exp(part) for part in parts if part is not None)
    infinite = [bool(torch.isinf(t.detach()).any()) for t in (cross, left, right)]
    # The two norms enter with the sign of b s and a s, the cross integral with that of -ab.
    if sum(infinite) and not (a > 0 and b > 0 and not infinite[0]):
        _require_defined(divergence, torch.full_like(cross, torch.inf))
    return (a / s * left + b / s * right - cross) / (a * b)


@closed_form(Bregman, Distribution, Distribution)
def _bregman(divergence: Bregman, P: Any, Q: Any) -> Tensor | None:
    if isinstance(divergence.phi, SquaredNorm):
        half = _alpha_beta(AlphaBeta(1.0, 1.0), P, Q)
        return None if half is None else 2 * half
    return find_closed_form(KL(), P, Q) if isinstance(divergence.phi, NegativeEntropy) else None


__all__ = ["power_divergence"]
