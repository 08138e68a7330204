"""The direction of largest transport cost, to rounding: ascent where the cost along a direction has kinks.

F(theta) = W_p^p(theta.x, theta.y) is the least of one smooth cost for each order of the projections. A maximum of such a
minimum usually sits where several orders meet, some projections being tied: no single order's gradient vanishes there, but a
convex combination of them does. Its coefficients are the multipliers of the max-min problem, and by the envelope theorem the
derivative of max F in the data is the same combination of the orders' derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.orders import Pieces, ordered_piece
from discrepancy.transport.simplex_program import simplex_program

_LONGEST = 0.5  # of a step, in radians
_DENSE = 128  # dimensions up to which the curvature is a matrix
_CURVATURE = 1e-3  # least curvature that is believed, relative to that of the sphere
_NEGLIGIBLE = 1e-12  # weight of an order
_SPARE = 10  # orders kept beside those with weight
_LEAST_TRUST = 1e-14
_ACCEPTED, _TRUSTED = 0.1, 0.25  # shares of the predicted gain: for a step to be taken, for the curvature to be believed


@dataclass(frozen=True)
class Summit:
    """A local maximum: direction (d,), value F, derivatives of max F in x (n, d) and y (m, d), iterations and outcome."""

    direction: Tensor
    value: Tensor
    grad_x: Tensor
    grad_y: Tensor
    iterations: int
    outcome: Outcome


class _Model:
    """F near a direction: the values and tangential gradients of the known orders, and a curvature."""

    def __init__(self, x: Tensor, y: Tensor, p: float, theta: Tensor, pieces: Pieces) -> None:
        self.x, self.y, self.p, self.theta, self.pieces = x, y, p, theta, pieces
        self.costs, self.slopes = self._about(pieces)
        self.value = self.costs.min()
        self._hessian: Tensor | None = None

    def _about(self, pieces: Pieces) -> tuple[Tensor, Tensor]:
        """Values (K,) and tangential gradients (K, d) of orders at this direction."""
        u, v = self.x @ self.theta, self.y @ self.theta
        in_u, in_v = pieces.slopes(u, v, self.p)
        slopes = in_u @ self.x + in_v @ self.y
        return pieces.costs(u, v, self.p), slopes - (slopes @ self.theta)[:, None] * self.theta

    def learn(self, piece: Pieces) -> None:
        """One more order at the same direction."""
        cost, slope = self._about(piece)
        self.pieces = self.pieces.with_piece(piece)
        self.costs, self.slopes = torch.cat([self.costs, cost]), torch.cat([self.slopes, slope])
        self.value = self.costs.min()

    def hessian(self) -> Tensor:
        """The second derivative (d, d) of the cheapest order's cost."""
        if self._hessian is None:
            best = self.pieces.kept(self.costs.argmin()[None])
            gap = best.gaps(self.x @ self.theta, self.y @ self.theta)[0].abs()
            # Where p < 2 a pair that meets has no second derivative: it is left out.
            apart = gap > 0 if self.p < 2 else torch.ones_like(gap, dtype=torch.bool)
            bend = torch.where(apart, torch.where(apart, gap, torch.ones_like(gap)) ** (self.p - 2), torch.zeros_like(gap))
            steps = self.x[best.i[0]] - self.y[best.j[0]]
            self._hessian = steps.T @ ((best.mass[0] * self.p * (self.p - 1) * bend)[:, None] * steps)
        return self._hessian

    def inverse_curvature(self, active: Tensor, trust: float) -> Tensor | float:
        """The inverse of a positive definite model of -F'' on the tangent space, times `trust`.

        Across the kinks (the span of differences of active gradients) the orders decide, and the sphere's curvature p F stands
        in; along them it is the cheapest order's own, p F - F_order'', where that is positive.
        """
        d, sphere = len(self.theta), self.p * float(self.value)
        if d > _DENSE:
            return trust / sphere
        hessian = self.hessian()
        across = self.slopes[active][1:] - self.slopes[active][:1]
        blocked = torch.cat([self.theta[None], across / float(self.slopes.norm() + sphere)]).T
        left, singular, _ = torch.linalg.svd(blocked, full_matrices=True)
        rank = int((singular > 1e-9 * singular[0]).sum())
        along = left[:, rank:]
        inverse = torch.eye(d, dtype=hessian.dtype, device=hessian.device) / sphere
        if along.shape[1]:
            values, vectors = torch.linalg.eigh(sphere * torch.eye(along.shape[1]).to(hessian) - along.T @ hessian @ along)
            basis = along @ vectors
            inverse = inverse - along @ along.T / sphere
            bent = torch.where(values > _CURVATURE * sphere, values, torch.full_like(values, sphere))
            inverse = inverse + basis @ ((1 / bent)[:, None] * basis.T)
        return trust * inverse

    def step(self, active: Tensor, trust: float) -> tuple[Tensor, np.ndarray, float]:
        """The step (d,) that the model likes best, the weights of the orders (K,), and the gain that it predicts."""
        inverse = self.inverse_curvature(active, trust)
        lifted = self.slopes @ inverse if isinstance(inverse, Tensor) else self.slopes * inverse
        Q = (self.slopes @ lifted.T).cpu().numpy()
        above = (self.costs - self.value).cpu().numpy()
        weights = simplex_program((Q + Q.T) / 2, above)
        gain = float(weights @ above + weights @ Q @ weights / 2)
        return torch.from_numpy(weights).to(lifted) @ lifted, weights, gain


def bundle_ascent(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float, theta: Tensor, *, iterations: int, tolerance: float
) -> Summit:
    """Climb from the unit vector theta (d,) to a local maximum of W_p^p along directions, for x (n, d), y (m, d) in float64.

    A bundle method: the model is the least of the known orders' costs, each linear about the present direction, with a common
    curvature; its best step is a quadratic programme whose multipliers weigh the orders. The order met at the end of a step
    joins the bundle. Ends when the predicted gain is below `tolerance` times the value. An iteration costs
    K (n + m) d + n log n + n d^2 for K known orders, those with weight and a few more. Source: Kiwiel (1985).
    """
    pieces = ordered_piece(x @ theta, y @ theta, a, b)
    model = _Model(x, y, p, theta, pieces)
    weights, trust, outcome, done = np.ones(1), 1.0, Outcome.ITERATION_LIMIT, 0
    while done < iterations:
        if not float(model.value) > 0:  # every direction sees equal samples, as far as one can tell from here
            outcome = Outcome.CONVERGED
            break
        active = torch.from_numpy(np.flatnonzero(weights > _NEGLIGIBLE)).to(theta.device)
        step, weights, gain = model.step(active, trust)
        length = float(step.norm())
        if length > _LONGEST:
            trust *= _LONGEST / length
            step, weights, gain = model.step(active, trust)
        if gain <= tolerance * float(model.value):
            outcome = Outcome.CONVERGED
            break
        trial = model.theta + step
        trial = trial / trial.norm()
        done += 1
        u, v = x @ trial, y @ trial
        new = ordered_piece(u, v, a, b)
        reached, expected = float(new.costs(u, v, p)), float(model.pieces.costs(u, v, p).min())
        risen = reached - float(model.value) >= _ACCEPTED * gain
        if expected - float(model.value) < _TRUSTED * gain:
            trust *= 0.3
        elif risen:
            trust = min(1.0, 2 * trust)
        fresh = reached < expected
        if risen or (fresh and len(model.pieces) > 2 * len(theta) + _SPARE + 20):
            # Orders without weight are dropped but for the nearest few: one that matters is met again.
            kept = np.lexsort((model.costs.cpu().numpy(), -weights))[: int((weights > _NEGLIGIBLE).sum()) + _SPARE]
            weights = weights[kept]
            pieces = model.pieces.kept(torch.from_numpy(kept.copy()).to(theta.device))
            model = _Model(x, y, p, trial if risen else model.theta, pieces)
        if fresh:
            model.learn(new)
            weights = np.append(weights, 0.0)
        elif not risen and trust < _LEAST_TRUST:
            outcome = Outcome.EXHAUSTED
            break
    share = torch.from_numpy(weights / weights.sum()).to(x)
    slopes = model.pieces.slopes(x @ model.theta, y @ model.theta, p)
    grad_x, grad_y = ((share @ slope)[:, None] * model.theta for slope in slopes)
    return Summit(model.theta, model.value, grad_x, grad_y, done, outcome)


__all__ = ["Summit", "bundle_ascent"]
