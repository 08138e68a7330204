"""What a time-score network is trained on: three losses with the same minimiser, d/dt log q_t."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy.estimation.ratios.time_score.interpolants import Interpolant
from discrepancy.estimation.ratios.time_score.network import TimeScoreNetwork


@dataclass(frozen=True)
class Batch:
    """One batch of a path: paired rows x0, x1 (B, d), times t (B,) with their density (B,), and noise z (B, d)."""

    interpolant: Interpolant
    x0: Tensor
    x1: Tensor
    t: Tensor
    density: Tensor
    z: Tensor
    signs: Tensor  # Rademacher directions (B, d) of sliced score matching

    @property
    def points(self) -> Tensor:
        """x_t."""
        return self.interpolant.at(self.x0, self.x1, self.t, self.z)


class TimeWeight(ABC):
    """The weight lambda(t) >= 0 of a time in the loss."""

    @abstractmethod
    def value(self, t: Tensor) -> Tensor:
        """lambda(t)."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """lambda'(t)."""


@dataclass(frozen=True)
class BridgeWeight(TimeWeight):
    """lambda = t (1 - t), under which the terms of the two ends vanish."""

    def value(self, t: Tensor) -> Tensor:
        """t (1 - t)."""
        return t * (1 - t)

    def slope(self, t: Tensor) -> Tensor:
        """1 - 2 t."""
        return 1 - 2 * t


@dataclass(frozen=True)
class UnitWeight(TimeWeight):
    """lambda = 1."""

    def value(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def slope(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)


class Objective(ABC):
    """A loss of a time-score network on a batch; `joint` says whether it trains a data score beside."""

    joint: ClassVar[bool] = False

    def check(self, interpolant: Interpolant) -> None:  # noqa: B027  # most losses serve every path
        """Raise ValueError for a path that the loss cannot be used on."""

    @abstractmethod
    def loss(self, network: TimeScoreNetwork, batch: Batch) -> Tensor:
        """The loss, a scalar."""


@dataclass(frozen=True)
class ConditionalTarget(Objective):
    """Least squares on d/dt log N(x_t; m_t, v I), whose mean given x_t is the time score.

    Weighted by the inverse of the target's variance, |m'|^2 / v + d (v' / v)^2 / 2 on average, in units of the path's scores.
    The lowest variance of the three and no derivative of the network. Raises ValueError where v vanishes.
    """

    def check(self, interpolant: Interpolant) -> None:
        """Refuse a path whose noise vanishes."""
        if not interpolant.epsilon > 0:
            raise ValueError(
                f"the variance vanishes at the ends of {interpolant!r}: the conditional target needs epsilon > 0, "
                "or take objective=TimeScoreMatching()"
            )

    def loss(self, network: TimeScoreNetwork, batch: Batch) -> Tensor:
        """E[(s - target)^2 / variance of the target]."""
        path, t = batch.interpolant, batch.t
        v = path.variance(t)
        target = path.conditional_time_score(batch.x0, batch.x1, t, batch.z)
        # The batch's mean of |m'|^2 at each time: for a path that is no straight line it depends on t.
        s, d = path.schedule, batch.x0.shape[1]
        parts = s.alpha_slope(t).square() * batch.x0.square().sum(1).mean()
        cross = 2 * s.alpha_slope(t) * s.beta_slope(t) * (batch.x0 * batch.x1).sum(1).mean()
        speed = (parts + cross + s.beta_slope(t).square() * batch.x1.square().sum(1).mean()).clamp_min(0)
        spread = speed / v + d / 2 * (path.variance_slope(t) / v).square()
        return ((network(batch.points, t) - target).square() / spread.clamp_min(1e-12)).mean()


@dataclass(frozen=True)
class TimeScoreMatching(Objective):
    """E_Q[2 lambda(0) s] - E_P[2 lambda(1) s] + int E[2 lambda ds/dt + 2 lambda' s + lambda s^2] dt, by parts.

    The ends are the laws that the path has there, smoothed where it is. Serves any path; costs the derivative of the network
    in t. Source: Choi et al. (2022), section 3.
    """

    weight: TimeWeight = field(default_factory=BridgeWeight)

    def loss(self, network: TimeScoreNetwork, batch: Batch) -> Tensor:
        """The loss of the time score."""
        x, t = batch.points, batch.t
        score, slope = _with_time_slope(network, x, t)
        weight = self.weight
        inside = 2 * weight.value(t) * slope + 2 * weight.slope(t) * score + weight.value(t) * score.square()
        return (inside / batch.density).mean() + _ends(network, batch, weight, 2.0)


@dataclass(frozen=True)
class JointScoreMatching(Objective):
    """Time and data score of one network: half the loss above, plus sliced score matching along random signs u.

    lambda [(|s_x|^2 + s_t^2) / 2 + u . d(u . s_x)/dx + ds_t/dt] + lambda' s_t and the ends. Source: Choi et al. (2022), section
    4.
    """

    weight: TimeWeight = field(default_factory=BridgeWeight)
    joint: ClassVar[bool] = True

    def loss(self, network: TimeScoreNetwork, batch: Batch) -> Tensor:
        """The loss of both scores."""
        x, t, u, weight = batch.points, batch.t, batch.signs, self.weight
        place, time = x.detach().requires_grad_(), t.detach().requires_grad_()
        score, data = network.both(place, time)
        (slope,) = torch.autograd.grad(score.sum(), time, create_graph=True)
        (moved,) = torch.autograd.grad((u * data).sum(), place, create_graph=True)
        stein = (u * moved).sum(1) + data.square().sum(1) / 2
        inside = weight.value(t) * (score.square() / 2 + slope + stein) + weight.slope(t) * score
        return (inside / batch.density).mean() + _ends(network, batch, weight, 1.0)


def _with_time_slope(network: TimeScoreNetwork, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """s(x, t) and ds/dt, one derivative in t for all rows; a graph of it is kept for the weights' gradient."""
    time = t.detach().requires_grad_()
    score = network(x, time)
    (slope,) = torch.autograd.grad(score.sum(), time, create_graph=True)
    return score, slope


def _ends(network: TimeScoreNetwork, batch: Batch, weight: TimeWeight, factor: float) -> Tensor:
    """factor (lambda(0) E s(x_0, 0) - lambda(1) E s(x_1, 1)); nothing where the weight vanishes there."""
    total = batch.x0.new_zeros(())
    for end, sign in ((0.0, 1.0), (1.0, -1.0)):
        t = torch.full_like(batch.t, end)
        w = weight.value(t)
        if bool((w != 0).any()):
            points = batch.interpolant.at(batch.x0, batch.x1, t, batch.z)
            total = total + sign * factor * (w * network(points, t)).mean()
    return total


__all__ = [
    "Batch",
    "BridgeWeight",
    "ConditionalTarget",
    "JointScoreMatching",
    "Objective",
    "TimeScoreMatching",
    "TimeWeight",
    "UnitWeight",
]
