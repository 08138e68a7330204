"""Lower tails of a quadratic form in normal variables, by saddlepoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.optimize import increasing_root


def log_probability_below(level: float, spectrum: Tensor, centre: Tensor) -> float:
    """log P(sum_i lambda_i (z_i - m_i)^2 / 2 <= level) for z standard normal, lambda = spectrum > 0, m = centre, both (r,).

    Lugannani and Rice (1980) on the cumulants K(t) = sum_i [-log(1 - lambda_i t) / 2 + t lambda_i m_i^2 / (2 (1 - lambda_i t))];
    relative error of a few per cent at worst (r = 1, small levels), in logarithms next to nothing.
    """
    level = positive(level, "level")
    lam, m2 = spectrum.double(), centre.double().square()

    def slope(t: Tensor) -> Tensor:
        room = 1 - lam * t[..., None]
        return (lam / (2 * room) + lam * m2 / (2 * room.square())).sum(-1)

    # K' rises from 0 at -inf to inf at 1/max lambda. Beyond -(r/2 + sum m^2)/level it is below the level.
    low = -float((len(lam) / 2 + m2.sum() / 2) / level) - 1.0
    top = 1 / float(lam.max())
    t = increasing_root(slope, torch.tensor(level, dtype=torch.float64), 2 * low, top * (1 - 1e-9))
    room = 1 - lam * t
    K = float((-torch.log(room) / 2 + t * lam * m2 / (2 * room)).sum())
    K2 = float((lam.square() / (2 * room.square()) + lam.square() * m2 / room.pow(3)).sum())
    t = float(t)
    w = math.copysign(math.sqrt(max(2 * (t * level - K), 0.0)), t)
    u = t * math.sqrt(K2)
    if abs(w) < 1e-4:
        K3 = float((lam.pow(3) + 3 * lam.pow(3) * m2).sum())  # at t = 0, the mean
        return math.log(0.5 + K3 / (6 * math.sqrt(2 * math.pi) * K2**1.5))
    from scipy.special import erfcx

    if w < 0:
        # phi(w) taken out: the rest is a difference of order one, whatever the tail.
        mills = float(erfcx(-w / math.sqrt(2))) * math.sqrt(math.pi / 2)
        return min(-w * w / 2 - math.log(math.sqrt(2 * math.pi)) + math.log(mills + 1 / w - 1 / u), 0.0)
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    return min(math.log(0.5 * math.erfc(-w / math.sqrt(2)) + density * (1 / w - 1 / u)), 0.0)


__all__ = ["log_probability_below"]
