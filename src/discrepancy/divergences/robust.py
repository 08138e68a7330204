"""The largest and smallest mean over a ball of laws, {Q : D_f(P || Q) <= radius}: distributionally robust bounds, exactly.

With s = dQ/dP and the reversed generator g(s) = s f(1/s), the upper bound is the value of the pair

    sup  E_P[s phi]  over s >= 0 with E_P[s] = 1 and E_P[g(s)] <= radius
    inf  lambda radius + u + lambda E_P[g*((phi - u) / lambda)]  over lambda >= 0 and u >= max phi - lambda f(0),

the second convex in two numbers. Both ends are computed, and their difference is the certificate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, require_finite
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences.admission import Admission, Condition
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.optimize.brackets import increasing_bracket

# The ball of an f with f(0) = inf excludes all laws with mass where P has none, which is what a radius must price.
FINITE_AT_ZERO = Condition(
    "f(0) < inf (otherwise the radius is infinite for a law that reaches beyond P, and bounds nothing)",
    lambda f: f.at_zero < float("inf"),
)
ADMITS = Admission("dro_bounds", (FDivergence,), (FINITE_AT_ZERO,), ("KL()", "JensenShannon()", "ChiSquared()"))

_SMALLEST, _LARGEST = -69.0, 37.0  # log lambda in units of the range: 1e-30 is the whole range, 1e16 the mean, to rounding
_NEAR = 2.0**-48  # how close the dual variable comes to the end of its domain, of the size of f(0)


@dataclass(frozen=True, repr=False)
class RobustBounds(Result):
    """The range [`lower`, `upper`] (...) of the mean of phi over the ball.

    `lower_price`, `upper_price`: by how much an end moves outwards for a unit of radius (the multiplier lambda).
    `lower_level`, `upper_level`: the value of phi beyond which the worst law has more mass than P (the multiplier u).
    `lower_law`, `upper_law` (..., n): the worst laws' masses at the values; what is missing to one lies at the end of
    `support`. `gap`: the larger difference of dual and primal value, absolute. The ends are the dual values, hence valid
    whatever the gap.
    """

    references: ClassVar[tuple[str, ...]] = ("ben-tal-2013", "chandrupatla-1997")

    lower: Tensor
    upper: Tensor
    lower_price: Tensor
    upper_price: Tensor
    lower_level: Tensor
    upper_level: Tensor
    gap: float
    lower_law: Tensor = field(repr=False)
    upper_law: Tensor = field(repr=False)


def dro_bounds(
    values: Any,
    radius: Any,
    divergence: FDivergence,
    *,
    weights: Any = None,
    support: tuple[float, float] | None = None,
) -> RobustBounds:
    """The extreme means E_Q[phi] over all Q with D_f(P || Q) <= radius, for P with the given values of phi.

    P is the given law, Q the searched one. values: phi at the points of P (..., n); radius (...) >= 0, a number or a tensor that
    broadcasts; weights (..., n) the probabilities (equal where omitted). Q lives on the points of P, unless
    `support` = (low, high) states the range of phi: then Q may also put mass anywhere in it, at the price f(0) a unit, as a
    law of which P is only a
    sample can. Any f-divergence with f(0) < inf, smooth or not, sums and multiples included (`ADMITS`): f and c f with radius and
    c radius give the same.

    As estimates of the bounds of a law they are biased inwards without `support`: the sample's largest value stands in
    for the law's, and for unbounded phi the law's bound is infinite (g grows linearly) while the sample's only grows with n.
    Computed in float64, returned in the dtype of `values`; gradients in values, weights and radius by the envelope theorem.
    Time: some 300 passes over the values for an f whose conjugate is a formula, sixty times that where it is found by bisection
    (sums, `CustomDivergence`: seconds); memory a few copies.
    Source: Ben-Tal et al. (2013).
    Raises TypeError for a divergence that is not admitted, ValueError for a negative or infinite radius, values outside
    `support`, or NaN.
    """
    ADMITS.check(divergence)
    phi = as_tensor(values, "values")
    if phi.ndim == 0 or phi.shape[-1] == 0:
        raise ValueError(f"values must have shape (..., n) with at least one value, got {tuple(phi.shape)}")
    require_finite(phi, "values")
    w = checked_weights(weights, phi.shape, "weights", like=phi)
    # A Python number takes the dtype of the values: as_tensor would round it to torch's default first.
    eta = torch.tensor(radius, dtype=phi.dtype) if isinstance(radius, int | float) else as_tensor(radius, "radius", like=phi)
    if not bool((torch.isfinite(eta) & (eta >= 0)).all()):
        raise ValueError(f"radius must be finite and not negative, got {radius!r}")
    batch = torch.broadcast_shapes(phi.shape[:-1], eta.shape)
    phi, w = phi.expand(*batch, -1), w.expand(*batch, phi.shape[-1])
    eta = eta.to(phi.dtype).expand(batch)
    if support is not None:
        low, high = _checked_support(support, phi)
        ends = (low, high)
    else:
        ends = (None, None)
    upper = _largest_mean(phi, w, eta, divergence, ends[1])
    lower = _largest_mean(-phi, w, eta, divergence, None if ends[0] is None else -ends[0])
    return RobustBounds(
        lower=-lower.value,
        upper=upper.value,
        lower_price=lower.price,
        upper_price=upper.price,
        lower_level=-lower.level,
        upper_level=upper.level,
        gap=max(lower.gap, upper.gap),
        lower_law=lower.law,
        upper_law=upper.law,
    )


def _checked_support(support: tuple[float, float], phi: Tensor) -> tuple[float, float]:
    low, high = float(support[0]), float(support[1])
    if not (low < high and abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(f"support must be (low, high), finite with low < high, got {support!r}")
    outside = int(((phi.detach() < low) | (phi.detach() > high)).sum())
    if outside:
        raise ValueError(f"{outside} value(s) lie outside the support ({low:g}, {high:g}): clip phi or widen the support")
    return low, high


@dataclass(frozen=True)
class _End:
    value: Tensor
    price: Tensor
    level: Tensor
    law: Tensor
    gap: float


@dataclass(frozen=True)
class _Side:
    """Dual variables at one end of a bracket, and the primal point that goes with them."""

    lam: Tensor  # (B,)
    ratio: Tensor  # (B, n), dQ/dP
    conjugate: Tensor  # (B, n), g*(x) at the multipliers
    depth: Tensor  # (B,), the largest value minus u, over lambda
    excess: Tensor  # (B,), E_P[g*(x) - x]
    spent: Tensor  # (B,), the divergence of the ratio, mass beyond P included


class _Dual:
    """The dual problem of one batch in units where the largest reachable value is one unit above the smallest."""

    def __init__(self, gap: Tensor, w: Tensor, eta: Tensor, divergence: FDivergence) -> None:
        self.gap, self.w, self.eta = gap, w, eta
        self.g = divergence.reversed()
        self.f0 = divergence.at_zero
        self.near = _NEAR * max(self.f0, 1.0)
        # What is mixed from two ends so far apart is off by the square of that, unless there is a jump.
        self.tolerance = 1e-9 if self.g.smooth else 4e-16

    def ratio(self, x: Tensor) -> Tensor:
        """The maximiser of x s - g(s): by how much Q outweighs P where the slope is x."""
        if self.g.smooth:
            return self.g.inverse_derivative(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.g.conjugate(leaf).sum(), leaf)
        return slope

    def slopes(self, lam: Tensor, log_shift: Tensor) -> Tensor:
        """(phi - u) / lambda, for u = max - lambda (f(0) - shift)."""
        return self.f0 - self.gap / lam[:, None] - torch.exp(log_shift)[:, None]

    def side(self, log_lam: Tensor) -> _Side:
        """The best u for lambda, as a mixture of the two sides of a jump where there is one."""
        lam = torch.exp(log_lam)
        first = torch.full_like(lam, math.log(self.near))
        last = torch.full_like(lam, math.log(self.f0 + self.near))
        # The mass has a pole at the end of the domain: its logarithm is nearly straight in that of the distance.
        bracket = increasing_bracket(
            lambda v: -_log((self.w * self.ratio(self.slopes(lam, v))).sum(-1)), first, last, tolerance=self.tolerance
        )
        x_low, x_high = self.slopes(lam, bracket.low), self.slopes(lam, bracket.high)
        s_low, s_high = self.ratio(x_low), self.ratio(x_high)
        c_low, c_high = self.g.conjugate(x_low), self.g.conjugate(x_high)
        mass_low, mass_high = (self.w * s_low).sum(-1), (self.w * s_high).sum(-1)
        share = torch.where(mass_low > mass_high, (1 - mass_high) / (mass_low - mass_high), torch.ones_like(lam)).clamp(0, 1)[
            :, None
        ]
        ratio = share * s_low + (1 - share) * s_high
        spent_low = torch.where(s_low > 0, x_low * s_low, 0.0) - c_low
        spent_high = torch.where(s_high > 0, x_high * s_high, 0.0) - c_high
        beyond = (1 - (self.w * ratio).sum(-1)).clamp_min(0)
        spent = (self.w * (share * spent_low + (1 - share) * spent_high)).sum(-1) + beyond * self.f0
        excess_low, excess_high = (self.w * (c_low - x_low)).sum(-1), (self.w * (c_high - x_high)).sum(-1)
        better = excess_low <= excess_high
        conjugate = torch.where(better[:, None], c_low, c_high)
        depth = self.f0 - torch.exp(torch.where(better, bracket.low, bracket.high))
        return _Side(lam, ratio, conjugate, depth, torch.where(better, excess_low, excess_high), spent)


def _log(x: Tensor) -> Tensor:
    # What is zero, or below it by rounding, is the smallest number there is.
    return torch.log(x.clamp_min(torch.finfo(x.dtype).tiny))


def _largest_mean(phi: Tensor, w: Tensor, eta: Tensor, divergence: FDivergence, top: float | None) -> _End:
    n = phi.shape[-1]
    with torch.no_grad():
        flat, mass, budget = (
            phi.detach().reshape(-1, n).double(),
            w.detach().reshape(-1, n).double(),
            eta.detach().reshape(-1).double(),
        )
        there = mass > 0  # a point without mass is none of P's
        high = torch.where(there, flat, -torch.inf).amax(-1) if top is None else torch.full_like(budget, top)
        spread = high - torch.where(there, flat, torch.inf).amin(-1)
        unit = torch.where(spread > 0, spread, torch.ones_like(spread))
        gap = torch.where(there, (high[:, None] - flat) / unit[:, None], torch.ones_like(flat))
        dual = _Dual(gap, mass, budget, divergence)
        bracket = increasing_bracket(
            lambda t: _log(budget) - _log(dual.side(t).spent),
            torch.full_like(budget, _SMALLEST),
            torch.full_like(budget, _LARGEST),
            tolerance=dual.tolerance,
        )
        wide, tight = dual.side(bracket.low), dual.side(bracket.high)
        mean = (mass * gap).sum(-1)
        # lambda E[x] = mean - u, exactly: written with g*(x) - x, the value keeps its digits as lambda grows.
        values = torch.stack([s.lam * (budget + s.excess) for s in (wide, tight)])
        chosen = values.argmin(0)
        depth = mean - values.gather(0, chosen[None])[0]
        share = torch.where(
            wide.spent > tight.spent, (budget - tight.spent) / (wide.spent - tight.spent), torch.ones_like(budget)
        )
        share = share.clamp(0, 1)[:, None]
        ratio = share * wide.ratio + (1 - share) * tight.ratio
        law = mass * ratio
        law = law / law.sum(-1, keepdim=True).clamp_min(1.0)
        if top is None:  # mass at the end of the range is the largest value's own
            first = mass * (gap == 0)
            law = law + (1 - law.sum(-1, keepdim=True)) * first / first.sum(-1, keepdim=True)
        gap_left = float(((law * gap).sum(-1) - depth).mul(unit).abs().max())
        lam = torch.where(chosen == 0, wide.lam, tight.lam)
        conjugate = torch.where(chosen[:, None] == 0, wide.conjugate, tight.conjugate)
        level = high - unit * lam * torch.where(chosen == 0, wide.depth, tight.depth)
        value = high - unit * depth.clamp_min(0)
        constant = spread <= 0
        value = torch.where(constant, high, value)
        price = torch.where(constant, torch.zeros_like(lam), lam * unit)
        law = torch.where(constant[:, None], mass, law)
        batch = phi.shape[:-1]
        value, price, level = (t.reshape(batch).to(phi.dtype) for t in (value, price, torch.where(constant, high, level)))
        law, marginal = law.reshape(phi.shape).to(phi.dtype), (price.reshape(-1, 1) * conjugate).reshape(phi.shape).to(phi.dtype)
    for slope, argument in ((law, phi), (marginal, w)):
        if argument.requires_grad:
            value = value + (slope * (argument - argument.detach())).sum(-1)
    if eta.requires_grad:
        value = value + price * (eta - eta.detach())
    return _End(value, price, level, law, gap_left)


__all__ = ["ADMITS", "FINITE_AT_ZERO", "RobustBounds", "dro_bounds"]
