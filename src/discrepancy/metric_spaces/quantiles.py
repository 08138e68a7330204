"""Distributions on the line with W_2: quantile functions, where the geometry is flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, sample, weights
from discrepancy.metric_spaces.isotonic import isotonic_projection
from discrepancy.metric_spaces.space import FlatSpace, first_bad, rounding


@dataclass(frozen=True)
class QuantileSpace(FlatSpace):
    """Distributions on R under W_2, each given by its quantiles (..., K) at fixed levels: d^2 = int_0^1 (Q_1 - Q_2)^2 dt.

    `levels`: a number K, for the middles (k - 1/2)/K of K equal cells, or K increasing numbers in [0, 1]. Each level stands for
    the levels nearer to it than to any other, so that the integral is exact for constant gaps, the midpoint rule for a number
    K, and the trapezoidal rule for a grid from 0 to 1. A mean is the weighted average of the quantiles, projected onto
    non-decreasing functions (isotonic regression) where negative weights have made it decrease. In units of the line. K
    operations a point. Source: Vallender (1974); Petersen and Mueller (2019) for means under signed weights.
    """

    levels: int | Sequence[float] = 100
    references = ("vallender-1974", "petersen-muller-2019")

    def __post_init__(self) -> None:
        """Raise ValueError unless the levels increase inside [0, 1]."""
        if isinstance(self.levels, int):
            if isinstance(self.levels, bool) or self.levels < 1:
                raise ValueError(f"levels must be a number of at least 1, or the levels themselves, got {self.levels!r}")
            return
        grid = as_tensor(list(self.levels), "levels").double()
        if grid.ndim != 1 or grid.numel() == 0:
            raise ValueError(f"levels must be numbers in [0, 1], got shape {tuple(grid.shape)}")
        require_finite(grid, "levels")
        if bool((grid < 0).any()) or bool((grid > 1).any()) or bool((grid.diff() <= 0).any()):
            raise ValueError("levels must increase strictly inside [0, 1]: sort them, and drop repeated ones")
        object.__setattr__(self, "levels", tuple(float(v) for v in self.levels))

    @property
    def grid(self) -> Float[Tensor, " K"]:
        """The levels, in float64."""
        if isinstance(self.levels, int):
            return (torch.arange(self.levels, dtype=torch.float64) + 0.5) / self.levels
        return torch.tensor(self.levels, dtype=torch.float64)

    @property
    def cells(self) -> Float[Tensor, " K"]:
        """The length of the cell of levels that each level stands for; they sum to one."""
        t = self.grid
        edges = torch.cat([t.new_zeros(1), (t[1:] + t[:-1]) / 2, t.new_ones(1)])
        return edges.diff()

    def from_samples(self, samples: Any, weights_: Any = None) -> Float[Tensor, "n K"]:
        """The quantiles Q(t) = inf {v : F(v) >= t} of samples on the line, one row each.

        samples: n arrays (m_i,), of different sizes where need be; weights_: n arrays (m_i,) or None. With a number K of levels
        and m_i = K the distance between rows is W_2 between the samples, exactly. A tensor (n, m) of equal sizes is the fast
        case. sum_i m_i log m_i time.
        """
        if weights_ is None and isinstance(samples, Tensor) and samples.ndim == 2:
            x = as_tensor(samples, "samples").sort(-1).values
            require_finite(x, "samples")
            m = x.shape[-1]
            if x.numel() == 0:
                raise ValueError(f"samples is empty: got shape {tuple(x.shape)}")
            place = (self.grid * m - 1e-10).ceil().long().clamp(1, m) - 1
            return x[:, place.to(x.device)]
        rows = []
        for i, values in enumerate(samples):
            x = sample(values, f"samples[{i}]")
            if x.ndim != 2 or x.shape[-1] != 1:
                raise ValueError(f"samples[{i}] must be numbers on the line (m,), got shape {tuple(x.shape)}")
            x = x[:, 0]
            w = weights(None if weights_ is None else weights_[i], x.shape, f"weights_[{i}]", like=x)
            order = x.argsort()
            F = w[order].double().cumsum(0)
            # A level that equals a step up to rounding belongs to that step.
            place = torch.searchsorted(F, self.grid.to(x.device) * F[-1] - 1e-12).clamp_max(len(x) - 1)
            rows.append(x[order][place])
        if not rows:
            raise ValueError("samples is empty: give at least one array of numbers")
        return torch.stack(rows)

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Quantile functions (..., K): finite and non-decreasing."""
        Y = as_tensor(Y, name)
        K = self.grid.shape[0]
        if Y.ndim == 0 or Y.shape[-1] != K:
            raise ValueError(f"{name} must hold quantiles at {K} levels, got shape {tuple(Y.shape)}; from_samples() makes them")
        require_finite(Y, name)
        steps = Y.detach().diff(dim=-1)
        size = Y.detach().abs().amax(-1, keepdim=True)
        bad = (steps < -rounding(Y) * size).any(-1)
        if bool(bad.any()):
            raise ValueError(f"{name} has {int(bad.sum())} row(s) whose quantiles decrease, the first at index {first_bad(bad)}")
        return Y

    def embed(self, Y: Tensor) -> Tensor:
        """Quantiles times the roots of the cells."""
        return Y * self.cells.sqrt().to(Y)

    def retract(self, z: Tensor) -> Tensor:
        """The nearest non-decreasing quantile function."""
        cells = self.cells.to(z)
        return isotonic_projection(z / cells.sqrt(), cells)


__all__ = ["QuantileSpace"]
