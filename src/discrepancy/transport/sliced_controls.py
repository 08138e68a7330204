"""Control variates for sliced distances: quadratic functions of the direction whose mean over the sphere is known.

For a direction theta uniform on the sphere E[theta theta^T] = I/d, hence E[theta^T S theta] = tr(S) / d for any matrix S.
The bounds of the Gaussian distance between the projected samples are of this form: with the means xbar, ybar and the
variances s1^2(theta), s2^2(theta) of the projections (divided by n, under the samples' own weights)

    lower  (theta.(xbar - ybar))^2,                      mean |xbar - ybar|^2 / d
    upper  lower + s1^2(theta) + s2^2(theta),            mean (|xbar - ybar|^2 + tr S1 + tr S2) / d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from discrepancy._validate import SamplePair


class Controls(NamedTuple):
    """Control values (..., L, K) at the directions, and their means over the sphere (..., K)."""

    values: Tensor
    means: Tensor


class ControlVariate(ABC):
    """What can be computed at a direction and has a known mean over the sphere.

    Options shared by all: `detach_gamma` (gradients hold the coefficient fixed; False differentiates it, at the price of a second
    sort) and `cross_fit` (the coefficient from the other half of the directions: no O(1/L) bias).
    """

    detach_gamma: bool
    cross_fit: bool

    @abstractmethod
    def evaluate(self, theta: Tensor, pair: SamplePair) -> Controls:
        """The controls at the directions theta (L, d), differentiable in the samples."""


def _mean(x: Tensor, a: Tensor) -> Tensor:
    return torch.matmul(a[..., None, :], x)[..., 0, :]


def _variances(theta: Tensor, x: Tensor, a: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """The variances of the projections (..., L) and their sum over coordinates (...): memory n min(d, L), never n L for many
    directions."""
    centred = x - centre[..., None, :]
    weighted = a[..., None] * centred
    total = (weighted * centred).sum((-1, -2))
    if x.shape[-1] <= theta.shape[0]:
        covariance = torch.matmul(centred.mT, weighted)
        return (torch.matmul(theta, covariance) * theta).sum(-1), total
    projected = torch.matmul(centred, theta.mT)
    return (a[..., None] * projected.square()).sum(-2), total


def _lower(theta: Tensor, pair: SamplePair) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lower bound (..., L), its mean (...), and the two means (..., d)."""
    mean_x, mean_y = _mean(pair.x, pair.a), _mean(pair.y, pair.b)
    difference = mean_x - mean_y
    # Means that agree up to rounding differ in a direction of noise: the control is then zero, not a tiny wrong one.
    scale = torch.maximum(pair.x.detach().abs().amax((-1, -2)), pair.y.detach().abs().amax((-1, -2)))
    noise = 16 * torch.finfo(pair.x.dtype).eps * scale
    difference = torch.where((difference.detach().abs() > noise[..., None]).any(-1, keepdim=True), difference, 0 * difference)
    at = torch.matmul(difference, theta.mT).square()
    return at, difference.square().sum(-1) / theta.shape[-1], mean_x, mean_y


@dataclass(frozen=True)
class LowerBound(ControlVariate):
    """The squared difference of the projected means; the best single control where the means differ. Cost n d + L d."""

    detach_gamma: bool = True
    cross_fit: bool = False

    def evaluate(self, theta: Tensor, pair: SamplePair) -> Controls:
        """One control, (theta.(xbar - ybar))^2."""
        at, mean, _, _ = _lower(theta, pair)
        return Controls(at[..., None], mean[..., None])


@dataclass(frozen=True)
class UpperBound(ControlVariate):
    """The lower bound plus both projected variances; the better single control where the means agree. Cost n d min(d, L)."""

    detach_gamma: bool = True
    cross_fit: bool = False

    def evaluate(self, theta: Tensor, pair: SamplePair) -> Controls:
        """One control, (theta.(xbar - ybar))^2 + s1^2 + s2^2."""
        at, mean, mean_x, mean_y = _lower(theta, pair)
        var_x, total_x = _variances(theta, pair.x, pair.a, mean_x)
        var_y, total_y = _variances(theta, pair.y, pair.b, mean_y)
        return Controls((at + (var_x + var_y))[..., None], (mean + (total_x + total_y) / theta.shape[-1])[..., None])


@dataclass(frozen=True)
class BothBounds(ControlVariate):
    """Three controls: the lower bound, the sum and the difference of the projected variances, by least squares.

    Not in the paper, which takes one bound at a time. Needs at least 5 directions. Cost n d min(d, L).
    """

    detach_gamma: bool = True
    cross_fit: bool = False

    def evaluate(self, theta: Tensor, pair: SamplePair) -> Controls:
        """Three controls; sum and difference rather than s1^2 and s2^2, so that exchanging the samples changes a sign only."""
        at, mean, mean_x, mean_y = _lower(theta, pair)
        var_x, total_x = _variances(theta, pair.x, pair.a, mean_x)
        var_y, total_y = _variances(theta, pair.y, pair.b, mean_y)
        d = theta.shape[-1]
        values = torch.stack([at, var_x + var_y, var_x - var_y], -1)
        return Controls(values, torch.stack([mean, (total_x + total_y) / d, (total_x - total_y) / d], -1))


@dataclass(frozen=True)
class CustomControl(ControlVariate):
    """A control of your own: function(theta, x, y, a, b) -> (..., L) or (..., L, K), mean(x, y, a, b) -> (...) or (..., K).

    The mean must be that of the function over directions uniform on the sphere; a wrong mean biases the distance.
    """

    function: Callable[..., Tensor]
    mean: Callable[..., Any]
    detach_gamma: bool = True
    cross_fit: bool = False

    def __post_init__(self) -> None:
        """Raise TypeError unless both can be called."""
        if not (callable(self.function) and callable(self.mean)):
            raise TypeError("CustomControl takes two functions: function(theta, x, y, a, b) and mean(x, y, a, b)")

    def evaluate(self, theta: Tensor, pair: SamplePair) -> Controls:
        """The function's values; ValueError if their shape does not fit the directions."""
        values = self.function(theta, pair.x, pair.y, pair.a, pair.b)
        means = torch.as_tensor(self.mean(pair.x, pair.y, pair.a, pair.b), dtype=theta.dtype, device=theta.device)
        flat = (*pair.batch, theta.shape[0])
        if values.shape == flat:
            values, means = values[..., None], means.expand(pair.batch)[..., None]
        if values.ndim != len(flat) + 1 or values.shape[:-1] != flat:
            raise ValueError(f"the control function must return shape {flat} or {flat} + (K,), got {tuple(values.shape)}")
        return Controls(values, means.expand(*pair.batch, values.shape[-1]))


__all__ = ["BothBounds", "ControlVariate", "Controls", "CustomControl", "LowerBound", "UpperBound"]
