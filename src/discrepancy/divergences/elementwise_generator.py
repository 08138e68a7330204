"""A user's own convex function of one variable as the generator of a Bregman divergence: only f is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.divergences.bregman_generators import BregmanGenerator

_CLOSE = 1e-3  # |p - q| relative to the distance from the ends below which the integral of phi'' replaces the difference
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(4))


class _Elementwise(torch.autograd.Function):
    """Gradients phi'(p) - phi'(q) in p and phi''(q) (q - p) in q; infinite ones contribute nothing."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, phi: ElementwiseGenerator) -> Tensor:
        ctx.save_for_backward(p, q)
        ctx.phi = phi
        return phi._terms(p.detach().double(), q.detach().double()).to(p.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        p, q = ctx.saved_tensors
        phi: ElementwiseGenerator = ctx.phi
        with torch.enable_grad():
            in_p = phi._slope(p.double()) - phi._slope(q.double())
            in_q = phi._curvature(q.double()) * (q.double() - p.double())
        in_p, in_q = (torch.where(torch.isfinite(t), t, torch.zeros_like(t)).to(p.dtype) for t in (in_p, in_q))
        return grad * in_p if ctx.needs_input_grad[0] else None, grad * in_q if ctx.needs_input_grad[1] else None, None


@dataclass(frozen=True)
class ElementwiseGenerator(BregmanGenerator):
    """phi(x) = sum_k f(x_k) for a user's convex f on the interval [low, high], an elementwise torch function.

    Derivatives come from autograd, in float64. Where f or its slope is not finite at a finite end of the interval, the limit
    from inside is taken, +inf where there is none. Once, at construction, f is checked on a grid of the interval: ValueError
    where it is not elementwise, not finite inside, or not convex.
    """

    f: Callable[[Tensor], Tensor]
    low: float = 0.0
    high: float = math.inf
    _ends: tuple[tuple[float, float, float], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of a tensor, got {type(self.f).__name__}")
        if not self.low < self.high:
            raise ValueError(f"the interval must have low < high, got [{self.low!r}, {self.high!r}]")
        self._verify()
        ends = [(end, *self._limits_at(end, sign)) for end, sign in ((self.low, 1.0), (self.high, -1.0)) if math.isfinite(end)]
        object.__setattr__(self, "_ends", tuple(ends))

    def __repr__(self) -> str:
        return f"ElementwiseGenerator({getattr(self.f, '__name__', type(self.f).__name__)}, low={self.low:g}, high={self.high:g})"

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]  (options here, a constant elsewhere)
        """[low, high]."""
        return (self.low, self.high)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """sum f(p) - f(q) - f'(q) (p - q)."""
        return _Elementwise.apply(p, q, self).sum(-1)  # type: ignore[union-attr]

    def _grid(self) -> Tensor:
        steps = torch.logspace(-6, 6, 241, dtype=torch.float64)
        low, high = self.low, self.high
        if math.isfinite(low) and math.isfinite(high):
            # Geometric towards either end.
            inside = steps[steps <= 1] / 2 * (high - low)
            return torch.cat([low + inside, high - inside[:-1].flip(0)])
        if math.isfinite(low):
            return low + steps
        if math.isfinite(high):
            return high - steps.flip(0)
        return torch.cat([-steps.flip(0), torch.zeros(1, dtype=torch.float64), steps])

    def _verify(self) -> None:
        grid = self._grid()
        try:
            values, slopes = self.f(grid).detach(), self._derivative(grid, 1).detach()
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"f must be an elementwise, differentiable torch function, it failed with {error}") from error
        if values.shape != grid.shape:
            raise ValueError(f"f must be elementwise: {tuple(grid.shape)} in gave {tuple(values.shape)} out")
        bad = ~(torch.isfinite(values) & torch.isfinite(slopes))
        if bool(bad.any()):
            raise ValueError(
                f"f must be finite with a finite slope inside ({self.low:g}, {self.high:g}), "
                f"it is not at {float(grid[bad][0]):.4g}"
            )
        secant = values.diff() / grid.diff()
        noise = 8 * torch.finfo(torch.float64).eps * values.abs().maximum(grid.abs() * slopes.abs())
        noise = (noise[1:] + noise[:-1]) / grid.diff()
        falls = secant.diff() + noise[1:] + noise[:-1] < 0
        if bool(falls.any()):
            raise ValueError(f"f must be convex: its slope falls near {float(grid[1:-1][falls][0]):.4g}")

    def _limits_at(self, end: float, sign: float) -> tuple[float, float]:
        """f and f' at a finite end of the interval: as evaluated, else as the limit from inside."""
        at = torch.tensor([end], dtype=torch.float64)
        scale = 1e-300 if end == 0 else 1e-14 * abs(end)
        inside = end + sign * scale * torch.tensor([1.0, 1e2, 1e4], dtype=torch.float64)
        found = []
        for order in (0, 1):
            exact = float(self.f(at).detach()) if order == 0 else float(self._derivative(at, 1).detach())
            if not math.isfinite(exact):
                first, second, _ = (self.f(inside) if order == 0 else self._derivative(inside, 1)).detach().tolist()
                settled = math.isfinite(first) and abs(first - second) <= 1e-9 * max(1.0, abs(first))
                exact = first if settled else (math.inf if order == 0 else -sign * math.inf)
            found.append(exact)
        return found[0], found[1]

    def _derivative(self, x: Tensor, order: int) -> Tensor:
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            value = self.f(leaf)
            for _ in range(order):
                (value,) = torch.autograd.grad(value.sum(), leaf, create_graph=True, materialize_grads=True)
                if not value.requires_grad:
                    value = value + 0 * leaf
        return value if x.requires_grad else value.detach()

    def _inside(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, float, float]]]:
        """x with its entries at an end moved inside, and the masks of those entries with f and f' there."""
        ends = [(x == end, value, slope) for end, value, slope in self._ends]
        moved = x
        for here, _, _ in ends:
            moved = torch.where(here, torch.full_like(x, self._middle()), moved)
        return moved, ends

    def _middle(self) -> float:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return (self.low + self.high) / 2
        return self.low + 1 if math.isfinite(self.low) else self.high - 1

    def _value(self, x: Tensor) -> Tensor:
        moved, ends = self._inside(x)
        value = self.f(moved)
        for here, limit, _ in ends:
            value = torch.where(here, torch.full_like(value, limit), value)
        return value

    def _slope(self, x: Tensor) -> Tensor:
        moved, ends = self._inside(x)
        slope = self._derivative(moved, 1)
        for here, _, limit in ends:
            slope = torch.where(here, torch.full_like(slope, limit), slope)
        return slope

    def _curvature(self, x: Tensor) -> Tensor:
        return self._derivative(self._inside(x)[0], 2)

    def _terms(self, p: Tensor, q: Tensor) -> Tensor:
        step = p - q
        fp, fq, slope = self._value(p), self._value(q), self._slope(q)
        line = torch.where(step == 0, torch.zeros_like(step), slope * step)
        direct = torch.where(step == 0, torch.zeros_like(step), fp - fq - line)
        distance = torch.full_like(q, math.inf)
        for end, _, _ in self._ends:
            distance = torch.minimum(distance, (q - end).abs())
        close = step.abs() <= _CLOSE * torch.minimum(distance, q.abs().clamp(min=1.0))
        if bool(close.any()):
            # The difference cancels next to equality; there it is the integral of (1 - s) phi''(q + s (p - q)) (p - q)^2.
            base, small = (
                torch.where(close, q, torch.full_like(q, self._middle())),
                torch.where(close, step, torch.zeros_like(step)),
            )
            integral = torch.zeros_like(step)
            for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist()):
                s = (node + 1) / 2
                integral = integral + weight / 2 * (1 - s) * self._derivative(base + s * small, 2)
            smooth = integral * small * small
            # A corner has no phi'': the integral is believed where it says what the difference can resolve.
            noise = 64 * torch.finfo(torch.float64).eps * (fp.abs() + fq.abs() + line.abs() + slope.abs() * q.abs())
            direct = torch.where(close & ((direct - smooth).abs() <= noise), smooth, direct)
        # Infinite minus infinite is +inf here: phi has no finite slope at q, or no finite value at p.
        direct = torch.where(torch.isnan(direct), torch.full_like(direct, math.inf), direct)
        return direct.clamp(min=0)


__all__ = ["ElementwiseGenerator"]
