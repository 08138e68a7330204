"""A user's own f-divergence: only f is needed; centring, derivatives, limits and the conjugate follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy.divergences.f_divergence import FDivergence, Limits
from discrepancy.divergences.tail import tail

_NEAR = (
    1e-3  # |t - 1| below which f(t) - f(1) - f'(1)(t - 1) is summed from its derivatives: direct subtraction has lost 10 digits
)
_FARTHEST = 690.0  # |log t| beyond which t or 1/t is about to overflow in float64


@dataclass(frozen=True)
class CustomDivergence(FDivergence):
    """The f-divergence of a convex function f on (0, inf), an elementwise torch function, centred here to f(1) = f'(1) = 0.

    Derivatives come from autograd, the inverse derivative from bisection, the conjugate from the envelope theorem; everything
    is computed in float64. `zero` and `infinity` give f(0+) and f'(inf) of f as written, where probing f at 1e-300 and 1e150
    does not find them; `smooth=False` declares a corner. Near t = 1 the relative error is about 1e-9.
    Once, at construction, f is checked on a grid: ValueError where it is not elementwise, not finite, not convex, or not as
    smooth as declared.
    """

    f: Callable[[Tensor], Tensor]
    zero: float | None = None
    infinity: float | None = None
    smooth: bool = True  # type: ignore[assignment]  (an option here, a property elsewhere)
    name: str | None = None
    _taylor: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())
    _found: Limits = field(init=False, repr=False, compare=False, default=Limits(0.0, 0.0, 0.0))

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of a tensor, got {type(self.f).__name__}")
        object.__setattr__(self, "_taylor", self._derivatives_at_one())
        self._verify()
        object.__setattr__(self, "_found", self._find_limits())

    def __repr__(self) -> str:
        return self.name or f"CustomDivergence({getattr(self.f, '__name__', repr(self.f))})"

    def _limits(self) -> Limits:
        return self._found

    def _raw(self, t: Tensor) -> Tensor:
        return self.f(t)

    def _derivatives_at_one(self) -> tuple[float, ...]:
        with torch.enable_grad():
            t = torch.ones(1, dtype=torch.float64, requires_grad=True)
            try:
                value = self._raw(t)
                values = [float(value.detach().reshape(()))]
                for _ in range(4):
                    (value,) = torch.autograd.grad(value.sum(), t, create_graph=True, materialize_grads=True)
                    values.append(float(value.detach()))
                    if not value.requires_grad:
                        value = value + 0 * t
            except (RuntimeError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"f must be an elementwise, differentiable torch function: f(tensor([1.])) failed with {error}"
                ) from error
        if not all(map(math.isfinite, values)):
            raise ValueError(f"f and its derivatives must be finite at t = 1, got {values}")
        return tuple(values)

    def _verify(self) -> None:
        grid = torch.exp(torch.linspace(-12, 12, 481, dtype=torch.float64))
        values = self._raw(grid).detach()
        if values.shape != grid.shape:
            raise ValueError(f"f must be elementwise: {tuple(grid.shape)} in gave {tuple(values.shape)} out")
        # A steep f overflows towards an end, which is no fault of it: exp(t) does from t = 710 on.
        inside = torch.isfinite(values).nonzero().squeeze(-1)
        first, last = int(inside[0]), int(inside[-1])
        bad = ~torch.isfinite(values)
        bad[:first] = values[:first] != torch.inf
        bad[last + 1 :] = values[last + 1 :] != torch.inf
        if bool(bad.any()):
            raise ValueError(f"f must be finite on (0, inf), got a non-finite value at t = {float(grid[bad][0]):.4g}")
        grid, values = grid[first : last + 1], values[first : last + 1]
        slopes = values.diff() / grid.diff()
        # Rounding of f over the step is what a secant slope cannot resolve.
        noise = 8 * torch.finfo(torch.float64).eps * values.abs().maximum(torch.ones_like(values))[1:] / grid.diff()
        drop = slopes.diff() + noise[1:] + noise[:-1]
        if bool((drop < 0).any()):
            raise ValueError(f"f must be convex: its slope falls near t = {float(grid[1:-1][drop < 0][0]):.4g}")
        if float(slopes[-1] - slopes[0]) <= 1e-9 * float(slopes.abs().max()):
            raise ValueError("f is a straight line: its divergence is zero between all laws")
        if self.smooth:
            d = torch.tensor([-_NEAR, _NEAR], dtype=torch.float64)
            direct, series = self._direct(d, 1 + d), self._series(d)
            # Less what rounding leaves of a difference of large numbers.
            rounding = 8 * torch.finfo(torch.float64).eps * (abs(self._taylor[0]) + abs(self._taylor[1]))
            tolerance = 1e-3 * float(direct.abs().max()) + 1e-12 + rounding
            if bool(((direct - series).abs() > tolerance).any()):
                raise ValueError("f is not smooth at t = 1: pass smooth=False")

    def _find_limits(self) -> Limits:
        f1, slope1 = self._taylor[:2]
        zero, slope_zero = self.zero, -math.inf
        far = torch.tensor([1e-300, 1e-200, 1e-100], dtype=torch.float64)
        if zero is None:
            zero = _limit(self._raw(far).detach(), math.inf)
        infinity = self.infinity
        big = torch.tensor([1e150, 1e100, 1e50], dtype=torch.float64)
        if infinity is None:
            infinity = _limit(self._raw_derivative(big), math.inf)
        if math.isfinite(zero):
            slope_zero = _limit(self._raw_derivative(far), -math.inf) - slope1
        return Limits(zero - f1 + slope1, slope_zero, infinity - slope1, self.smooth)

    @torch.enable_grad()
    def _raw_derivative(self, t: Tensor) -> Tensor:
        leaf = t if t.requires_grad else t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._raw(leaf).sum(), leaf, create_graph=t.requires_grad, materialize_grads=True)
        return slope

    def _direct(self, d: Tensor, t: Tensor) -> Tensor:
        return self._raw(t) - self._taylor[0] - self._taylor[1] * d

    def _series(self, d: Tensor) -> Tensor:
        _, _, c2, c3, c4 = self._taylor
        return d * d * (c2 / 2 + d * (c3 / 6 + d * c4 / 24))

    def _lost(self, u: Tensor, formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Where t or 1/t is no float, or a formula in t and t - 1 overflows."""
        u = u.detach()
        far = u.abs() > _FARTHEST
        v = torch.where(far, torch.zeros_like(u), u)
        return far | ~torch.isfinite(formula(torch.exp(v), torch.expm1(v)).detach())

    def _split(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = torch.expm1(u)
        near = (d.abs() < _NEAR) & torch.tensor(self.smooth, device=u.device)
        return torch.exp(torch.where(near, torch.ones_like(u), u)), d, near

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        u = log_t.double()
        # A formula such as (t - 1)^2 / (t + 1) overflows where its value would not: there, the limits take over.
        lost = self._lost(u, lambda t, d: self._direct(d, t))
        t, d, near = self._split(torch.where(lost, torch.zeros_like(u), u))
        value = torch.where(near, self._series(torch.where(near, d, torch.zeros_like(d))), self._direct(d, t)).clamp(min=0)
        value = torch.exp(log_q.double()) * value
        for side, log_mass, price in ((u > 0, log_p, self.slope_at_infinity), (u < 0, log_q, self.at_zero)):
            cost = torch.exp(log_mass.double()) * price if math.isfinite(price) else torch.full_like(value, torch.inf)
            value = torch.where(lost & side, cost, value)
        return value.to(log_t.dtype)

    def _derivative(self, u: Tensor) -> Tensor:
        lost = self._lost(u.double(), lambda t, _: self._raw_derivative(t))
        t, d, near = self._split(torch.where(lost, torch.zeros_like(u), u).double())
        _, slope1, c2, c3, c4 = self._taylor
        d = torch.where(near, d, torch.zeros_like(d))
        close = d * (c2 + d * (c3 / 2 + d * c4 / 6))
        value = torch.where(near, close, self._raw_derivative(t) - slope1)
        limit = torch.where(u > 0, torch.full_like(value, self.slope_at_infinity), torch.full_like(value, self.slope_at_zero))
        return torch.where(lost, limit, value).to(u.dtype)

    def _curvature(self, u: Tensor) -> Tensor:
        value, beyond = self._computed_curvature(u), tail(self)
        lost = u > beyond.start
        if not bool(lost.any()):
            return value
        far = torch.where(lost, u, torch.full_like(u, beyond.start))
        return torch.where(lost, torch.exp(-2 * far) * beyond.slope(far), value)

    @torch.enable_grad()
    def _computed_curvature(self, u: Tensor) -> Tensor:
        t = torch.exp(u.double().clamp(-_FARTHEST, _FARTHEST))
        t = t if t.requires_grad else t.requires_grad_()
        (second,) = torch.autograd.grad(self._raw_derivative(t).sum(), t, create_graph=u.requires_grad, materialize_grads=True)
        return second.to(u.dtype)

    def _conjugate_at_limit(self) -> float:
        # lim of t f'(inf) - f(t), probed where float64 still resolves the difference.
        t = torch.tensor([1e7, 1e6, 1e5], dtype=torch.float64)
        return _limit(t * self.slope_at_infinity - self._direct(t - 1, t).detach(), math.inf, tolerance=1e-4)


def _limit(values: Tensor, otherwise: float, tolerance: float = 1e-9) -> float:
    """The first of three values, ordered from the limit outwards, if they have settled; else the infinite limit."""
    first, second, _ = values.tolist()
    if math.isfinite(first) and math.isfinite(second) and abs(first - second) <= tolerance * max(1.0, abs(first)):
        return first
    return otherwise


__all__ = ["CustomDivergence"]
