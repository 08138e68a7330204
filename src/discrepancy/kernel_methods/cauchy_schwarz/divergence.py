"""The Cauchy-Schwarz divergence between two samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, positive, sample
from discrepancy.kernel_methods.cauchy_schwarz.log_sum import LogCrossSum
from discrepancy.kernel_methods.embedding import resolved_kernel, witness_function
from discrepancy.kernel_methods.ordering import Sides, in_order
from discrepancy.kernel_methods.quadratic_form import QuadraticForm
from discrepancy.kernel_methods.streaming import OffDiagonalSum, working_dtype
from discrepancy.kernels import Gaussian, Kernel

# Cosines of a pooled statistic below this are computed again in the log domain: the matrix's rounding is then part of them.
_SMALL_COSINE = 1e-4


@dataclass(frozen=True)
class KernelCauchySchwarz(Discrepancy):
    """log a'Ka + log b'Kb - 2 log a'Kb: minus twice the logarithm of the cosine between the two mean embeddings.

    The Cauchy-Schwarz divergence log int p^2 + log int q^2 - 2 log int p q of kernel density estimates: with `Gaussian(s)` it
    converges to that of the laws smoothed by N(0, s^2 / 2 I) each (for N(0, 1) and N(m, 1): m^2 / (2 + s^2), not m^2 / 2), with
    an error of O(n^-1/2) in any dimension. A V-statistic: never negative, 0 at equal samples exactly, and too large in
    expectation by about (k(0) / a'Ka - 1) / n + (k(0) / b'Kb - 1) / m: compare only at equal sizes and widths.
    The cross term is summed in the log domain, so that samples many widths apart have a finite value and a gradient that pulls.
    Projective and bounded gradients: outliers count less than in the MMD. Papers that write -log of the cosine have half of this.

    kernel: any positive kernel; by default Gaussian with the median heuristic of the pooled sample, detached, shown by `solve`.
    memory: GiB that the kernel matrix of `pooled` may take; a larger one is computed again block by block at each call.

    Cost O((n + m)^2 d), blocks in float64; memory O((n + m) d), backward pass included; differentiable once. +inf, with gradient
    zero and a RuntimeWarning, where a kernel without closed logarithm underflows everywhere.
    Raises TypeError if kernel is no kernel, ValueError if it takes negative values or memory is not positive.
    Source: Jenssen, Principe, Erdogmus and Eltoft (2006).
    """

    kernel: Kernel = field(default_factory=Gaussian)
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("jenssen-2006",)

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as discrepancy.kernels.Gaussian(1.0), got {self.kernel!r}")
        positive(self.memory, "memory")

    @property
    def claims(self) -> Claims:  # pyright: ignore[reportIncompatibleVariableOverride]  # they depend on the options
        """Non-negative, no metric; scale-free if the bandwidth follows the data."""
        return Claims(translation_invariant=self.kernel.translation_invariant, degree=0.0 if self.kernel.scale_free else None)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Estimate:
        """The value with its first-order standard error (no gradient through it) and, in `method`, the kernel that was used.

        The error is the delta method's, from each point's influence dV/da_i; it vanishes at equality, where the value's law is
        not normal: no interval is given, use `bootstrap` away from equality and `permutation_test` for equality itself.
        """
        pair = self._checked(x, y, a, b)
        sides = in_order(pair)
        kernel = resolved_kernel(self.kernel, sides)
        error = _standard_error(kernel, sides)
        note = "V-statistic of smoothed laws: bias of O(1/n + 1/m) and the smoothing are not in the standard error"
        return Estimate(
            _divergence(kernel, sides).reshape(pair.batch).to(pair.x.dtype),
            None if error is None else error.reshape(pair.batch).to(pair.x.dtype),
            method=repr(replace(self, kernel=kernel)),
            note=note if error is not None else "no standard error: a sample of one point shows no spread",
        )

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Any], Tensor]:
        """The difference of the normalised mean embeddings, a'k(., x) / |a'k| - b'k(., y) / |b'k|: positive where x is dense and
        y is not.

        Takes points (..., k, d) and returns (..., k), differentiable in them; cost O(k (n + m) d).
        """
        pair = self._checked(x, y, a, b)
        kernel = resolved_kernel(self.kernel, in_order(pair))
        x, a = pair.x.reshape(-1, *pair.x.shape[-2:]), pair.a.reshape(-1, pair.a.shape[-1]).to(working_dtype(pair.x))
        y, b = pair.y.reshape(-1, *pair.y.shape[-2:]), pair.b.reshape(-1, pair.b.shape[-1]).to(working_dtype(pair.y))
        norm_x, norm_y = (torch.exp(_log_own(kernel, *side) / 2).reshape(*pair.batch, 1) for side in ((x, a), (y, b)))
        return witness_function(kernel, replace(pair, a=pair.a / norm_x.to(pair.a), b=pair.b / norm_y.to(pair.b)))

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> KernelCauchySchwarz:
        """This divergence with the bandwidth chosen on these samples as a number."""
        return replace(self, kernel=resolved_kernel(self.kernel, in_order(self._checked(x, y, a, b))))

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic of weight rows (R, N) on one cloud z (N, d): the kernel matrix once, then matrix products.

        The bandwidth is chosen on z with equal weights. Cost O(R N^2); memory as `memory` says.
        """
        cloud = sample(z, "z")
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got shape {tuple(cloud.shape)}")
        cloud = cloud.detach()
        kernel = self.kernel.resolve(cloud, torch.full((len(cloud),), 1.0 / len(cloud), device=cloud.device))
        form = QuadraticForm(kernel, cloud, self.memory)

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            own_a, own_b, across = form.inner_products(A, B)
            equal = (A == B).all(1)
            scale = own_a.sqrt() * own_b.sqrt()
            values = own_a.log() + own_b.log() - 2 * across.clamp_min(torch.finfo(across.dtype).tiny).log()
            for row in (across <= _SMALL_COSINE * scale).nonzero().flatten().tolist():
                members = Sides(cloud[None], A[row : row + 1], cloud[None], B[row : row + 1], equal[row : row + 1])
                values[row] = _divergence(kernel, _in_working_precision(members))
            return torch.where(equal, 0.0, values.clamp_min(0.0)).to(cloud.dtype)

        return torch.no_grad()(statistic)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        sides = in_order(pair)
        return _divergence(resolved_kernel(self.kernel, sides), sides).reshape(pair.batch).to(pair.x.dtype)


def _in_working_precision(sides: Sides) -> Sides:
    a, b = sides.a.double(), sides.b.double()
    return sides._replace(a=a / a.sum(-1, keepdim=True), b=b / b.sum(-1, keepdim=True))


def _log_own(kernel: Kernel, x: Tensor, a: Tensor) -> Tensor:
    """log a'Ka (B,)."""
    return (OffDiagonalSum.apply(kernel, x, a) + (a * a * kernel.diagonal(x)).sum(-1)).log()


def _divergence(kernel: Kernel, sides: Sides) -> Tensor:
    """The divergence (B,) under a resolved kernel, float64."""
    own_x, own_y = _log_own(kernel, sides.x, sides.a), _log_own(kernel, sides.y, sides.b)
    across = LogCrossSum.apply(kernel, sides.x, sides.a, sides.y, sides.b)
    infinite = across.detach() == -torch.inf
    if bool(infinite.any()):
        warnings.warn(
            f"the Cauchy-Schwarz divergence is infinite for {int(infinite.sum())} of {infinite.numel()} pair(s): every value of "
            f"{kernel!r} between the samples underflows to 0; the gradient there is zero, widen the kernel",
            RuntimeWarning,
            stacklevel=2,
        )
        zero = torch.zeros_like(across)
        finite = (torch.where(infinite, zero, t) for t in (own_x, own_y, across))
        own_x, own_y, across = finite
    value = (own_x + own_y - 2 * across).clamp_min(0.0)
    value = torch.where(sides.equal, torch.zeros_like(value), value)
    return torch.where(infinite, torch.full_like(value, torch.inf), value)


def _standard_error(kernel: Kernel, sides: Sides) -> Tensor | None:
    """sqrt(sum a_i^2 u_i^2 / (1 - sum a^2) + the same for b), u the influences; None where a side has one point."""
    a, b = (w.detach().clone().requires_grad_() for w in (sides.a, sides.b))
    spread_a, spread_b = ((w.detach() * (1 - w.detach())).sum(-1) for w in (a, b))
    if bool((spread_a <= 1e-12).any()) or bool((spread_b <= 1e-12).any()):
        return None
    x, y = sides.x.detach(), sides.y.detach()
    with torch.enable_grad():
        value = _log_own(kernel, x, a) + _log_own(kernel, y, b) - 2 * LogCrossSum.apply(kernel, x, a, y, b)
        by_a, by_b = torch.autograd.grad(value.sum(), (a, b))
    parts = [(w.detach() * u).square().sum(-1) / s for w, u, s in ((a, by_a, spread_a), (b, by_b, spread_b))]
    return (parts[0] + parts[1]).sqrt()


__all__ = ["KernelCauchySchwarz"]
