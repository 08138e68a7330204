"""The maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, positive, sample
from discrepancy.kernel_methods.embedding import resolved_kernel, squared_distance, witness_function
from discrepancy.kernel_methods.ordering import in_order
from discrepancy.kernel_methods.quadratic_form import QuadraticForm
from discrepancy.kernel_methods.variance import standard_error, streamed_moments
from discrepancy.kernels import Gaussian, Kernel


@dataclass(frozen=True)
class MMD(Discrepancy):
    """The squared maximum mean discrepancy MMD^2(P, Q) = E k(x, x') + E k(y, y') - 2 E k(x, y).

    Unbiased by default: sum_{i != j} a_i a_j k(x_i, x_j) / (1 - sum a^2), likewise for y, minus 2 sum_ij a_i b_j k(x_i, y_j).
    It may be negative, and needs two points of positive weight a side. `biased=True` is the V-statistic, the squared distance
    of the two mean embeddings: never negative, 0 at equal samples exactly, larger than the truth by O(1/n + 1/m) in
    expectation. Both have error O(n^-1/2) away from P = Q and O(1/n) at it, in any dimension.

    kernel: a kernel of `discrepancy.kernels` or your own; by default Gaussian with the median heuristic. A bandwidth chosen
        from the data is detached, and `solve` shows it.
    memory: GiB that the kernel matrix of `pooled` may take; a larger one is computed again block by block at each call.

    Cost O((n + m)^2 d), blocks in float64; memory O((n + m) d), backward pass included; differentiable once.
    Raises TypeError if kernel is no kernel, ValueError if memory is not positive or the unbiased form has one point a side.
    Source: Gretton et al. (2012), lemma 6 and the two estimates that follow it; the standard error: Sutherland et al. (2017).
    """

    kernel: Kernel = field(default_factory=Gaussian)
    biased: bool = False
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("gretton-2012", "sutherland-2017", "garreau-2017")

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as discrepancy.kernels.Gaussian(1.0), got {self.kernel!r}")
        if not isinstance(self.biased, bool):
            raise TypeError(f"biased must be True or False, got {self.biased!r}")
        positive(self.memory, "memory")

    @property
    def claims(self) -> Claims:  # pyright: ignore[reportIncompatibleVariableOverride]  # they depend on the options
        """A squared norm if biased; scale-free if the bandwidth follows the data."""
        return Claims(
            non_negative=self.biased,
            zero_at_equality=self.biased,
            translation_invariant=self.kernel.translation_invariant,
            degree=0.0 if self.kernel.scale_free else None,
            norm_power=2 if self.biased else None,
        )

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Estimate:
        """The value with its standard error (no gradient through it) and, in `method`, the kernel that was used.

        The error is that of the U-statistic at P = Q and away from it; the law is normal only away from it, so for an
        interval use `bootstrap`. Two more passes over the pairs.
        """
        pair = self._checked(x, y, a, b)
        sides = in_order(pair)
        kernel = resolved_kernel(self.kernel, sides)
        value = squared_distance(kernel, sides, unbiased=not self.biased)
        with torch.no_grad():
            p, q = sides.x.detach(), sides.y.detach()
            u, v = sides.a.detach(), sides.b.detach()
            moments = streamed_moments(kernel, p, u), streamed_moments(kernel, q, v), streamed_moments(kernel, p, u, q, v)
            error = standard_error(*moments, u, v, unbiased=not self.biased)
        return Estimate(
            value.reshape(pair.batch).to(pair.x.dtype),
            None if error is None else error.reshape(pair.batch).to(pair.x.dtype),
            method=repr(replace(self, kernel=kernel)),
            note=_note(self.biased, error),
        )

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Any], Tensor]:
        """The function sum_i a_i k(., x_i) - sum_j b_j k(., y_j): positive where x is dense and y is not.

        Takes points (..., k, d) and returns (..., k), differentiable; cost O(k (n + m) d).
        """
        pair = self._checked(x, y, a, b)
        return witness_function(resolved_kernel(self.kernel, in_order(pair)), pair)

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> MMD:
        """This MMD with the bandwidth chosen on these samples as a number."""
        return replace(self, kernel=resolved_kernel(self.kernel, in_order(self._checked(x, y, a, b))))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic of weight rows (R, N) on one cloud z (N, d): the kernel matrix once, then matrix products.

        The bandwidth is chosen on z with equal weights. The biased form sees A - B only and takes signed rows of equal
        mass; the unbiased one is the U-statistic of rows with disjoint supports. Cost O(R N^2); memory as `memory` says.
        """
        cloud = sample(z, "z")
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got shape {tuple(cloud.shape)}")
        cloud = cloud.detach()
        kernel = self.kernel.resolve(cloud, torch.full((len(cloud),), 1.0 / len(cloud), device=cloud.device))
        form = QuadraticForm(kernel, cloud, self.memory)

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            values = form.squared_norm(A - B) if self.biased else form.unbiased(A, B)
            return values.to(cloud.dtype)

        return torch.no_grad()(statistic)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        sides = in_order(pair)
        value = squared_distance(resolved_kernel(self.kernel, sides), sides, unbiased=not self.biased)
        return value.reshape(pair.batch).to(pair.x.dtype)


def _note(biased: bool, error: Tensor | None) -> str:
    if error is None:
        return "no standard error: a sample of one point shows no spread"
    if biased:
        return "V-statistic: its expectation exceeds the squared MMD by O(1/n + 1/m), which the standard error does not cover"
    return "unbiased; normal only away from equality: for an interval use bootstrap(...)"
