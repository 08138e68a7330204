"""Riemannian gradient descent to a Frechet mean, for weights of either sign, many weightings at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.metric_spaces.space import Center


class Geometry(Protocol):
    """What the descent needs to know; velocities at o are in whatever coordinates `look` and `exp` agree on."""

    def look(self, o: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """For centers o (b, *P) and points Y (n, *P): squared distances (b, n), and the velocities (b, n, *V) at o of shortest
        paths that reach the points at time 1."""
        ...

    def exp(self, o: Tensor, v: Tensor) -> Tensor:
        """Where geodesics from o (b, *P) with velocities v (b, *V) are at time 1."""
        ...

    def square_norm(self, o: Tensor, v: Tensor) -> Tensor:
        """The squared length (b,) of velocities v (b, *V) at o."""
        ...

    def unit(self, o: Tensor) -> Tensor:
        """A distance (b,) of which rounding is a relative error: how finely positions near o can be told apart."""
        ...


@torch.no_grad()
def riemannian_mean(geometry: Geometry, Y: Tensor, w: Tensor, start: Tensor, *, max_iterations: int = 500) -> Center:
    """A local minimiser of f(o) = sum_i w_i d^2(Y_i, o) for each weighting w (*B, n), from start (*B, *P).

    The gradient is -2 v with v = sum_i w_i log_o Y_i; a step goes to exp_o(t v) and is taken where f falls by at least
    t |v|^2 / 2 (Armijo), or where rounding hides the fall and |v| becomes smaller; else t is halved. A step taken doubles t, up
    to 1. The residual is |v| over the root mean square distance: the search ends below 1e-10 (1e-5 in float32), or a few
    roundings of a position, or where no step helps any more, and counts as converged below 1e-7 (1e-3), an error of the minimum
    of the square of that. With negative weights f may have several local minima. Time: n logarithms an iteration and weighting;
    memory n points for each weighting.
    """
    shape, point = w.shape[:-1], start.shape[w.ndim - 1 :]
    w, o = w.reshape(-1, w.shape[-1]), start.reshape(-1, *point)
    aim, tolerance = (1e-10, 1e-7) if Y.dtype == torch.float64 else (1e-5, 1e-3)
    eps = torch.finfo(Y.dtype).eps

    def spread(values: Tensor, like: Tensor) -> Tensor:
        return values.reshape(*values.shape, *[1] * (like.ndim - 1))

    def look(at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f, the sum of the sizes of its terms, v and |v|^2."""
        squares, velocities = geometry.look(at, Y)
        v = (w.reshape(*w.shape, *[1] * (velocities.ndim - 2)) * velocities).sum(1)
        return (w * squares).sum(-1), (w.abs() * squares).sum(-1), v, geometry.square_norm(at, v).clamp_min(0)

    f, scale, v, length = look(o)
    step = torch.ones_like(f)
    done, stuck = 0, torch.zeros_like(f, dtype=torch.bool)
    while True:
        # Points that coincide up to rounding are at no distance: |v| is then measured by what rounding can tell apart.
        radius = torch.maximum(scale.sqrt(), 64 * eps / aim * geometry.unit(o))
        residual = length.sqrt() / radius
        moving = (residual > aim) & ~stuck
        if done == max_iterations or not bool(moving.any()):
            break
        trial = geometry.exp(o, spread(step, v) * v)
        f_trial, scale_trial, v_trial, length_trial = look(trial)
        slack = 8 * eps * scale
        falls = f_trial <= f - 0.5 * step * length
        # Near the minimum f cannot tell the points apart: there the gradient does.
        settles = (f_trial <= f + slack) & (length_trial < length)
        accept = moving & (falls | settles)
        o = torch.where(spread(accept, o), trial, o)
        v = torch.where(spread(accept, v), v_trial, v)
        f, scale = torch.where(accept, f_trial, f), torch.where(accept, scale_trial, scale)
        length = torch.where(accept, length_trial, length)
        step = torch.where(accept, (2 * step).clamp_max(1.0), step / 2)
        stuck = stuck | (step < 1e-9)
        done += 1
    worst = float(residual.max()) if residual.numel() else 0.0
    if worst <= tolerance:
        outcome = Outcome.CONVERGED
    else:
        outcome = Outcome.EXHAUSTED if bool(stuck.any()) else Outcome.ITERATION_LIMIT
    return Center(o.reshape(*shape, *point), done, worst, outcome)


__all__ = ["Geometry", "riemannian_mean"]
