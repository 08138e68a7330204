"""Excess mass: how much of a distribution lies far from where another one lives, and the bound that a distance gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import positive, sample, weights
from discrepancy.transport.orlicz.functions import ExponentialPower, OrliczFunction


def excess_mass(x: Any, support: Any, t: float, a: Any = None) -> Float[Tensor, ""]:
    """The mass of x farther than t from every point of the support, sum_i a_i [min_j |x_i - s_j| > t].

    x (n, d) with weights a (n,), support (m, d), t > 0 in units of x. n m d time in blocks, linear memory.
    """
    points = sample(x, "x")
    anchors = sample(support, "support", like=points)
    if points.ndim != 2 or anchors.ndim != 2 or points.shape[1] != anchors.shape[1]:
        raise ValueError(f"x and support must be clouds of one space, got {tuple(points.shape)} and {tuple(anchors.shape)}")
    positive(t, "t")
    share = weights(a, points.shape[:1], "a", like=points)
    step = max(1, (1 << 22) // anchors.shape[0])
    nearest = torch.cat([torch.cdist(block, anchors).amin(1) for block in points.split(step)])
    return share[nearest > t].sum()


def excess_mass_bound(distance: float, t: float, phi: OrliczFunction | None = None) -> float:
    """1 / Phi(t / distance), at most 1: a bound on the mass of G beyond t from the support of G0 if W_Phi(G, G0) <= distance.

    By Markov's inequality under the optimal coupling. For Power(p) it is (distance / t)^p, for `ExponentialPower(2)`, the
    default, 1 / (exp((t / distance)^2) - 1). distance >= 0 (not normalised) and t > 0 in one unit. Source: Guha, Ho and
    Nguyen (2023, 2301.11496).
    """
    positive(t, "t")
    if not (isinstance(distance, int | float) and 0 <= distance < math.inf):
        raise ValueError(f"distance must be a non-negative number, got {distance!r}")
    if distance == 0:
        return 0.0
    phi = ExponentialPower() if phi is None else phi
    size = float(phi.value(torch.tensor([t / distance], dtype=torch.float64))[0])
    return min(1.0, 1 / size) if size > 0 else 1.0


__all__ = ["excess_mass", "excess_mass_bound"]
