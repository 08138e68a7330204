"""The energy distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, positive, sample
from discrepancy.kernel_methods.embedding import squared_distance, witness_function
from discrepancy.kernel_methods.energy_line import LineEnergy, line_moments, pooled_line
from discrepancy.kernel_methods.ordering import Sides, in_order
from discrepancy.kernel_methods.quadratic_form import QuadraticForm
from discrepancy.kernel_methods.variance import Moments, standard_error, streamed_moments
from discrepancy.kernels import NegativeDistance


@dataclass(frozen=True)
class EnergyDistance(Discrepancy):
    """The energy distance 2 E|x - y|^alpha - E|x - x'|^alpha - E|y - y'|^alpha of two laws, as a V-statistic.

    alpha is `exponent`, 0 < alpha < 2. It is a squared norm of the difference of the laws (the MMD with kernel -|x - y|^alpha):
    never negative, 0 at equal samples exactly, and in units of |x|^alpha. On the line with alpha = 1 it is 2 int (F - G)^2.
    The expectation of the V-statistic exceeds the truth by E|x - x'|^alpha / n + E|y - y'|^alpha / m.

    memory: GiB that the distance matrix of `pooled` may take; a larger one is computed again block by block at each call.

    Cost O((n + m) log(n + m)) for d = 1 and alpha = 1, else O((n + m)^2 d), blocks in float64; memory O((n + m) d), backward pass
    included; differentiable once, with gradient zero between points that coincide.
    Raises ValueError if the exponent is not strictly between 0 and 2 or memory is not positive.
    Source: Szekely and Rizzo (2004).
    """

    exponent: float = 1.0
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("szekely-rizzo-2004",)

    def __post_init__(self) -> None:
        NegativeDistance(self.exponent)  # states the rule for the exponent
        positive(self.memory, "memory")

    @property
    def claims(self) -> Claims:  # pyright: ignore[reportIncompatibleVariableOverride]  # they depend on the options
        """A squared norm of degree `exponent`."""
        return Claims(degree=float(self.exponent), norm_power=2)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Estimate:
        """The value with its standard error (no gradient through it); the V-statistic's bias is not in it.

        On the line with exponent 1 in O(n log n), else two more passes over the pairs.
        """
        pair = self._checked(x, y, a, b)
        sides = in_order(pair)
        value = self._statistic(sides)
        with torch.no_grad():
            error = standard_error(*self._moments(sides), sides.a.detach(), sides.b.detach(), unbiased=False)
        note = "V-statistic: its expectation exceeds the distance by E|x - x'|^exponent / n + E|y - y'|^exponent / m"
        return Estimate(
            value.reshape(pair.batch).to(pair.x.dtype),
            None if error is None else error.reshape(pair.batch).to(pair.x.dtype),
            method=repr(self),
            note=note if error is not None else "no standard error: a sample of one point shows no spread",
        )

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Any], Tensor]:
        """The function t -> sum_j b_j |t - y_j|^alpha - sum_i a_i |t - x_i|^alpha: larger where x is dense and y is not.

        Takes points (..., k, d) and returns (..., k), differentiable; cost O(k (n + m) d).
        """
        return witness_function(NegativeDistance(self.exponent), self._checked(x, y, a, b))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic of weight rows (R, N) on one cloud z (N, d); it sees A - B only and takes signed rows of equal mass.

        On the line with exponent 1 one sort and O(R N); else the distance matrix once and O(R N^2), memory as `memory` says.
        """
        cloud = sample(z, "z")
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got shape {tuple(cloud.shape)}")
        cloud = cloud.detach()
        if self._on_the_line(cloud):
            return torch.no_grad()(pooled_line(cloud.squeeze(-1)))
        form = QuadraticForm(NegativeDistance(self.exponent), cloud, self.memory)
        return torch.no_grad()(lambda A, B: form.squared_norm(A - B).to(cloud.dtype))

    def _on_the_line(self, x: Tensor) -> bool:
        return x.shape[-1] == 1 and self.exponent == 1 and x.device.type != "mps"  # sorting is done in float64

    def _statistic(self, sides: Sides) -> Tensor:
        if self._on_the_line(sides.x):
            return LineEnergy.apply(sides.x.squeeze(-1).double(), sides.a, sides.y.squeeze(-1).double(), sides.b)
        return squared_distance(NegativeDistance(self.exponent), sides, unbiased=False)

    def _moments(self, sides: Sides) -> tuple[Moments, Moments, Moments]:
        x, y, a, b = (t.detach() for t in (sides.x, sides.y, sides.a, sides.b))
        if self._on_the_line(x):
            u, v = x.squeeze(-1).double(), y.squeeze(-1).double()
            return line_moments(u, a, u, a), line_moments(v, b, v, b), line_moments(u, a, v, b)
        kernel = NegativeDistance(self.exponent)
        return streamed_moments(kernel, x, a), streamed_moments(kernel, y, b), streamed_moments(kernel, x, a, y, b)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return self._statistic(in_order(pair)).reshape(pair.batch).to(pair.x.dtype)
