"""How much of a divergence a noisy layer lets through: strong data-processing coefficients, exact and bounds."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, at_least, positive, weights, whole_number
from discrepancy.divergences import KL, FDivergence, TotalVariation


def contraction_dropout(probability: float, width: int) -> float:
    """eta <= 1 - p^m: dropout of each of m inputs with probability p erases all of them with probability p^m.

    Holds for every f-divergence (Doeblin). Of a wide layer it is 1 to all digits: nothing is gained unless p is near 1 or the
    layer is narrow. Raises ValueError unless 0 <= p <= 1 and m >= 1.
    """
    return _not_erased(probability, whole_number(width, 1, "width"))


def contraction_dropconnect(probability: float, fan_in: int, fan_out: int) -> float:
    """eta <= 1 - p^(m m'): as `contraction_dropout`, for each of the m x m' weights dropped with probability p."""
    return _not_erased(probability, whole_number(fan_in, 1, "fan_in") * whole_number(fan_out, 1, "fan_out"))


def _not_erased(probability: float, count: int) -> float:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], got {probability!r}")
    return 1.0 if probability == 0 else -math.expm1(count * math.log(probability))


def contraction_gaussian(noise_std: float, diameter: float | None) -> float:
    """eta <= eta_TV = 2 Phi(Delta / (2 b)) - 1 for noise N(0, b^2 I) on outputs within a set of diameter Delta.

    Holds for every f-divergence, and is eta_TV exactly where the diameter is attained. Coordinates in [-A, A], width m:
    Delta = 2 A sqrt(m). Raises ValueError without a diameter, which an unbounded activation (ReLU) has none of: there eta = 1.
    """
    positive(noise_std, "noise_std")
    if diameter is None or not math.isfinite(diameter):
        raise ValueError(
            "contraction_gaussian needs the diameter of the layer's outputs, and an unbounded activation has none: bound it "
            "(tanh: 2 sqrt(width)) or clip, got diameter=" + repr(diameter)
        )
    at_least(diameter, 0, "diameter")
    return math.erf(diameter / (2 * math.sqrt(2) * noise_std))


@torch.no_grad()
def contraction_coefficient(channel: Any, divergence: FDivergence | None = None, *, grid: int = 40) -> float:
    """eta_f = sup over laws P != Q of D_f(PK || QK) / D_f(P || Q) for a channel K (inputs, outputs) of finite alphabets.

    Total variation: exact, the largest distance of two rows (Dobrushin). Any other f (default KL): the supremum over laws on two
    inputs, which suffice (Ordentlich and Polyanskiy, 2021, for KL and its like), on `grid` x `grid` pairs of binary laws and
    close to the diagonal; a lower estimate of eta_f, which never exceeds eta_TV. A continuous output cut into cells gives a lower
    estimate too. Raises ValueError for rows that are no probabilities. Time O(inputs^2 grid^2 outputs).
    """
    f = KL() if divergence is None else divergence
    if not isinstance(f, FDivergence):
        raise TypeError(f"divergence must be an FDivergence such as KL(), got {divergence!r}")
    matrix = as_tensor(channel, "channel").double()
    if matrix.ndim != 2 or len(matrix) < 2:
        raise ValueError(f"channel must be a matrix (inputs, outputs) with two rows or more, got shape {tuple(matrix.shape)}")
    K = weights(matrix, matrix.shape, "channel", like=matrix, tolerance=1e-6)
    pairs = list(combinations(range(len(K)), 2))
    if isinstance(f, TotalVariation):
        return max(float((K[i] - K[j]).abs().sum()) / 2 for i, j in pairs)
    whole_number(grid, 2, "grid")
    ends = torch.linspace(0, 1, grid + 2, dtype=torch.float64)[1:-1]
    p, q = (t.flatten() for t in torch.meshgrid(ends, ends, indexing="ij"))
    # Beside pairs far apart those a little apart, where the ratio tends to that of chi-squared.
    p, q = torch.cat([p, ends]), torch.cat([q, ends + 1e-3 * ends * (1 - ends)])
    keep = p != q
    P, Q = (torch.stack([t[keep], 1 - t[keep]], 1) for t in (p, q))
    inputs = f.from_probs(P, Q)
    best = 0.0
    for i, j in pairs:
        rows = K[[i, j]]
        for part in range(0, len(P), max(1, 2**22 // K.shape[1])):
            some = slice(part, part + max(1, 2**22 // K.shape[1]))
            best = max(best, float((f.from_probs(_through(P[some], rows), _through(Q[some], rows)) / inputs[some]).max()))
    return best


def _through(p: Tensor, rows: Tensor) -> Tensor:
    mixed = p @ rows
    return mixed / mixed.sum(1, keepdim=True)


def binary_gaussian_channel(amplitude: float, noise_std: float, *, cells: int = 400) -> Tensor:
    """The channel {-A, +A} -> N(+-A, b^2), the output cut into `cells` cells of equal width (two of them tails): (2, cells)."""
    A, b = positive(amplitude, "amplitude"), positive(noise_std, "noise_std")
    whole_number(cells, 2, "cells")
    edges = torch.linspace(-A - 8 * b, A + 8 * b, cells - 1, dtype=torch.float64)
    cdf = torch.special.ndtr(torch.stack([(edges + A) / b, (edges - A) / b]))
    rows = torch.diff(cdf, prepend=torch.zeros(2, 1, dtype=cdf.dtype), append=torch.ones(2, 1, dtype=cdf.dtype))
    return rows.clamp_min(0) / rows.clamp_min(0).sum(1, keepdim=True)


__all__ = [
    "binary_gaussian_channel",
    "contraction_coefficient",
    "contraction_dropconnect",
    "contraction_dropout",
    "contraction_gaussian",
]
