"""`FDivergence`: the generator algebra, D_f(P || Q) = E_Q f(dP/dQ), on top of one elementwise formula a class.

A generator is convex and centred: f(1) = 0 and f'(1) = 0, hence f >= 0. Everything is computed from u = log t, so that ratios
from e^-1e4 to e^1e4 and ratios next to one are both exact. What a class supplies is the perspective q f(p / q) in the
log domain, the derivative and the curvature, and the limits as data.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import as_tensor
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.perspective import finite_or_flat, log_perspective, perspective
from discrepancy.divergences.streamed import transformed
from discrepancy.optimize import increasing_root


@dataclass(frozen=True)
class Limits:
    """A generator at the ends: f(0+), f'(0+), f'(inf), and whether it is twice differentiable in between."""

    at_zero: float
    slope_at_zero: float
    slope_at_infinity: float
    smooth: bool = True


@dataclass(frozen=True)
class FDivergence(Divergence):
    """D_f(P || Q) = E_Q[f(dP/dQ)] + f'(inf) P(q = 0) for a convex centred generator f.

    Limits as data: `at_zero` = f(0+), `slope_at_zero` = f'(0+), `slope_at_infinity` = f'(inf), and `smooth`, whether f is
    twice differentiable on t > 0. The generator's methods take t or, keyword-only, log_t, tensors of any shape, and are
    differentiable. They form a cone: `2 * JensenShannon()`, `KL() + ReverseKL()`, `KL().skewed(0.1)`.
    """

    # -- what a class supplies ---------------------------------------------------------------------------------------

    @abstractmethod
    def _limits(self) -> Limits:
        """The limits as data."""

    @abstractmethod
    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        """q f(p / q) for finite log_p, log_q, where log_t = log_p - log_q is given apart, to full accuracy."""

    @abstractmethod
    def _derivative(self, u: Tensor) -> Tensor:
        """f'(e^u) for finite u."""

    @abstractmethod
    def _curvature(self, u: Tensor) -> Tensor:
        """f''(e^u) for finite u."""

    def _conjugate(self, s: Tensor) -> Tensor:
        """f*(s) for s strictly between the slopes; numerically, by the envelope theorem."""
        u = self._root(s)
        t = torch.exp(u)
        # Detached maximiser: the derivative of the supremum in s is t itself.
        return torch.where(t > 0, t * s - self._perspective(u, torch.zeros_like(u), u), torch.full_like(s, -self.at_zero))

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        """log of the t with f'(t) = s, for s strictly between the slopes; numerically, with the implicit gradient."""
        u = self._root(s)
        with torch.no_grad():
            slope = torch.exp(u) * self._curvature(u)
            slope = torch.where(slope > 0, slope, torch.full_like(slope, torch.inf))
        return u + (s - s.detach()) / slope

    def _root(self, s: Tensor) -> Tensor:
        # e^(+-300): its square and its reciprocal are still finite, whatever the input's dtype, in the float64 of the root.
        bound = 300.0
        return increasing_root(self._derivative, s.detach(), -bound, bound).to(s.dtype)

    def powers(self) -> Mapping[float, float] | None:
        """This divergence as a positive combination {a: c} of `Alpha(a)`, or None where it is none.

        Whatever is known of the power divergences (closed forms, nearest-neighbour estimators) holds for such a combination.
        """
        return None

    @property
    def at_zero(self) -> float:
        """f(0+), possibly inf: what Q(p = 0) costs."""
        return self._limits().at_zero

    @property
    def slope_at_zero(self) -> float:
        """f'(0+), possibly -inf."""
        return self._limits().slope_at_zero

    @property
    def slope_at_infinity(self) -> float:
        """f'(inf), possibly inf: what P(q = 0) costs."""
        return self._limits().slope_at_infinity

    @property
    def smooth(self) -> bool:
        """Whether f has a curvature and an inverse derivative."""
        return self._limits().smooth

    # -- the generator -----------------------------------------------------------------------------------------------

    def generator(self, t: Any = None, *, log_t: Any = None) -> Tensor:
        """f(t) for t in [0, inf], elementwise."""
        u, t = _log_argument(t, log_t)

        def formula(v: Tensor) -> Tensor:
            return self._perspective(v, torch.zeros_like(v), v)

        value = finite_or_flat(formula, _inside(u))
        far = torch.inf if self.slope_at_infinity > 0 else float(formula(torch.full((), 700.0, dtype=torch.float64)))
        at_zero = torch.full_like(u, self.at_zero)
        if t is not None and math.isfinite(self.slope_at_zero):
            at_zero = at_zero + self.slope_at_zero * torch.where(t == 0, t, torch.zeros_like(t))
        return torch.where(u == torch.inf, torch.full_like(u, far), torch.where(u == -torch.inf, at_zero, value))

    def derivative(self, t: Any = None, *, log_t: Any = None) -> Tensor:
        """f'(t) for t in [0, inf], elementwise; the one-sided limits at the ends."""
        u, _ = _log_argument(t, log_t)
        value = self._derivative(_inside(u))
        value = torch.where(u == -torch.inf, torch.full_like(u, self.slope_at_zero), value)
        return torch.where(u == torch.inf, torch.full_like(u, self.slope_at_infinity), value)

    def curvature(self, t: Any = None, *, log_t: Any = None) -> Tensor:
        """f''(t) for t in (0, inf), elementwise. Raises TypeError for a divergence that is not smooth."""
        self._require_smooth("curvature")
        u, _ = _log_argument(t, log_t)
        if bool(torch.isinf(u.detach()).any()):
            raise ValueError("the curvature is taken at 0 < t < inf")
        return self._curvature(u)

    def conjugate(self, s: Any) -> Tensor:
        """f*(s) = sup over t >= 0 of t s - f(t): -f(0) below f'(0+), +inf above f'(inf); its derivative is the maximiser."""
        s, low, high = self._dual_argument(s)
        value = self._conjugate(torch.where(low | high, torch.zeros_like(s), s))
        value = torch.where(low, torch.full_like(s, -self.at_zero), value)
        limit = self.slope_at_infinity
        at_limit = self._conjugate_at_limit()
        value = torch.where(high, torch.full_like(s, torch.inf), value)
        return torch.where(s == limit, torch.full_like(s, at_limit), value) if math.isfinite(limit) else value

    def inverse_derivative(self, s: Any, *, log: bool = False) -> Tensor:
        """The t with f'(t) = s (its logarithm with log=True): 0 at and below f'(0+), inf at and above f'(inf).

        Raises TypeError for a divergence that is not smooth.
        """
        self._require_smooth("inverse derivative")
        s, low, high = self._dual_argument(s)
        u = self._inverse_derivative(torch.where(low | high, torch.zeros_like(s), s))
        u = u if log else torch.exp(u)
        low_value = torch.full_like(s, -torch.inf if log else 0.0)
        return torch.where(high, torch.full_like(s, torch.inf), torch.where(low, low_value, u))

    def _conjugate_at_limit(self) -> float:
        """f*(f'(inf)) = lim of t f'(inf) - f(t), where f'(inf) is finite."""
        return torch.inf

    def _dual_argument(self, s: Any) -> tuple[Tensor, Tensor, Tensor]:
        s = as_tensor(s, "s")
        if bool(torch.isnan(s.detach()).any()):
            raise ValueError("s has NaN")
        return s, s.detach() <= self.slope_at_zero, s.detach() >= self.slope_at_infinity

    def _require_smooth(self, what: str) -> None:
        if not self.smooth:
            raise TypeError(f"{self!r} is not smooth and has no {what}: use a smooth one such as JensenShannon()")

    # -- densities ---------------------------------------------------------------------------------------------------

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        return _total(perspective(self, p, q))

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        value = log_perspective(self, log_p, log_q).sum(-1)
        infinite = torch.isinf(value.detach())
        if not transformed() and not bool(infinite.any()):
            return value
        # Zero times infinity in a backward pass is NaN: rows of infinite value are evaluated at equality instead.
        row = infinite.unsqueeze(-1)
        flat = torch.zeros_like(log_p)
        value = log_perspective(self, torch.where(row, flat, log_p), torch.where(row, flat, log_q)).sum(-1)
        return torch.where(infinite, torch.full_like(value, torch.inf), value)

    def from_log_ratio(self, log_r: Any, weights: Any = None, linear: float = 0.0, *, level: float = 0.95) -> Estimate:
        """Monte Carlo: the mean of f(t) + linear (t - 1) over samples from Q, t = e^log_r, with its standard error.

        log_r (..., n) is log p/q at samples of Q, `weights` (..., n) their importance weights (sum one; equal where
        omitted). E_Q[t] = 1, so `linear` is the coefficient of a control variate: -1 on ReverseKL gives -log t.
        Unbiased for normalised densities with q > 0 wherever p > 0; error O(1/sqrt(n)) where f(t) has a variance under Q.
        Evaluated in float64. Raises ValueError for NaN, and NumericalError where infinities cancel.
        """
        from discrepancy.divergences.monte_carlo import monte_carlo

        return monte_carlo(self, log_r, weights, linear, level)

    def _with_linear(self, u: Tensor, linear: float) -> Tensor:
        """f(e^u) + linear (e^u - 1); classes where the sum has a shorter form override it."""
        return self.generator(log_t=u) + (linear * torch.expm1(u) if linear else 0.0)

    # -- the cone ----------------------------------------------------------------------------------------------------

    def reversed(self) -> FDivergence:
        """D_f with its arguments exchanged; its generator is t f(1/t)."""
        from discrepancy.divergences.cone import ReversedDivergence

        return ReversedDivergence(self)

    def skewed(self, weight: float) -> FDivergence:
        """D_f(P || w P + (1 - w) Q) for 0 < w < 1: finite even where Q misses mass of P."""
        from discrepancy.divergences.skewed import SkewedDivergence

        return SkewedDivergence(self, weight)

    def __mul__(self, factor: float) -> FDivergence:
        from discrepancy.divergences.cone import ScaledDivergence

        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return ScaledDivergence(self, float(factor))

    __rmul__ = __mul__

    def __add__(self, other: FDivergence) -> FDivergence:
        from discrepancy.divergences.cone import SumDivergence

        if not isinstance(other, FDivergence):
            return NotImplemented
        return SumDivergence((self, other))


def halves(
    below: Callable[[Tensor, Tensor], Tensor],
    above: Callable[[Tensor, Tensor], Tensor],
    log_p: Tensor,
    log_q: Tensor,
    log_t: Tensor,
) -> Tensor:
    """q f(p/q) from two formulas with bounded exponentials: `below`(log w, u) = w f(e^u) for u <= 0 with w = q where p <= q,
    and the reversed generator's `above`(log w, -u) with w = p elsewhere."""
    left = log_t <= 0
    zero = torch.zeros_like(log_t)
    lower = below(torch.where(left, log_q, zero), torch.where(left, log_t, zero))
    upper = above(torch.where(left, zero, log_p), torch.where(left, zero, -log_t))
    return torch.where(left, lower, upper)


def mirrored(below: Callable[[Tensor, Tensor], Tensor], log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
    """`halves` for a symmetric divergence, in one evaluation; exchanging P and Q gives the same bits."""
    left = log_t <= 0
    return below(torch.where(left, log_q, log_p), torch.where(left, log_t, -log_t))


def _log_argument(t: Any, log_t: Any) -> tuple[Tensor, Tensor | None]:
    if (t is None) == (log_t is None):
        raise TypeError("give either t or log_t, and not both")
    if log_t is not None:
        u = as_tensor(log_t, "log_t")
        if bool(torch.isnan(u.detach()).any()):
            raise ValueError("log_t has NaN")
        return u, None
    t = as_tensor(t, "t")
    if not bool((t.detach() >= 0).all()):
        raise ValueError("t is a ratio of densities and must be non-negative")
    positive = t > 0
    u = torch.where(positive, torch.log(torch.where(positive, t, torch.ones_like(t))), torch.full_like(t, -torch.inf))
    return u, t


def _inside(u: Tensor) -> Tensor:
    return torch.where(torch.isinf(u), torch.zeros_like(u), u)


def _total(terms: Tensor) -> Tensor:
    value = terms.sum(-1)
    infinite = torch.isinf(value.detach())
    return torch.where(infinite, torch.full_like(value, torch.inf), value)


__all__ = ["FDivergence", "Limits", "halves", "mirrored"]
