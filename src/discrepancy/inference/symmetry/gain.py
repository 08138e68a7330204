"""What a symmetry gains: the sampling error of a discrepancy with and without the group, and the sample size it is worth."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result, TestResult
from discrepancy._validate import generator_or_default, sample, whole_number
from discrepancy.groups import FiniteGroup, Group
from discrepancy.groups.group import require_group
from discrepancy.inference.symmetry.invariance import invariance_test
from discrepancy.inference.symmetry.invariant import Invariant
from discrepancy.kernel_methods.invariant_kernel import InvariantKernel
from discrepancy.kernels import Gaussian, Kernel
from discrepancy.linalg import root
from discrepancy.transport import Wasserstein

_DEFAULT = Wasserstein(1)
_SUSPICIOUS = 0.01  # a p-value of the invariance test below which the gain is that of another law


@dataclass(frozen=True, repr=False)
class SymmetryGain(Result):
    """The error curves of a discrepancy between two samples of one law, with and without a group.

    `sizes`; the mean errors `plain` and `invariant` at each; their `ratio` (below 1: the symmetry helps) with its standard error;
    `sample_factor`, the factor in sample size that gives the plain discrepancy the invariant one's error, read off the plain
    curve's slope `rate` (error ~ n^-rate); and the test of `invariance`, without which none of it means much.
    """

    sizes: tuple[int, ...]
    plain: tuple[float, ...]
    invariant: tuple[float, ...]
    ratio: tuple[float, ...]
    ratio_error: tuple[float, ...]
    rate: float
    sample_factor: tuple[float, ...]
    invariance: TestResult
    method: str = ""


def symmetry_gain(
    x: object,
    group: Group,
    D: Discrepancy = _DEFAULT,
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 10,
    permutations: int = 199,
    generator: torch.Generator | None = None,
) -> SymmetryGain:
    """How much smaller the sampling error of D gets when the law of x is known to be invariant under the group.

    For each n of `sizes` (by default four, doubling up to half of the sample) and each of `repeats`, two disjoint random halves
    of n rows are compared by D and by `Invariant(D, group)`: both estimate zero, so their means are errors (their roots for a
    squared distance such as MMD(biased=True)). Theory: for W_1 in d >= 3 the ratio tends to m^(-1/d), a factor m in sample size;
    for MMD it lies between 1 and m^(-1/2), see `kernel_gain`. Warns where the invariance test finds p < 0.01.

    Raises TypeError for a D that may be negative (the unbiased MMD), ValueError for sizes beyond half of the sample. Time: 2
    repeats evaluations at each size. Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023).
    """
    require_group(group)
    if not isinstance(D, Discrepancy):
        raise TypeError(f"D must be a Discrepancy such as Wasserstein(1), got {D!r}")
    if not D.claims.non_negative:
        raise TypeError(f"an error curve needs a discrepancy that is never negative, got {D!r}: MMD(biased=True) is one")
    whole_number(repeats, 2, "repeats")
    points = sample(x).detach()
    if points.ndim != 2:
        raise ValueError(f"x must be one sample (n, d), got shape {tuple(points.shape)}")
    group.check(points.shape[-1])
    half = len(points) // 2
    if sizes is None:
        sizes = sorted({half // 2**k for k in range(4) if half // 2**k >= 2})
    chosen = tuple(whole_number(n, 2, "a size") for n in sizes)
    if len(chosen) < 2 or list(chosen) != sorted(set(chosen)) or chosen[-1] > half:
        raise ValueError(f"sizes must rise, be two or more, and end at most at half of the {len(points)} rows, got {chosen}")
    source = generator_or_default(generator, points.device)
    test = invariance_test(points, group, permutations=permutations, generator=source)
    if test.p_value < _SUSPICIOUS:
        warnings.warn(
            f"x does not look invariant under {group!r} (p = {test.p_value:.3g}): what is compared is its symmetrised law",
            UserWarning,
            stacklevel=2,
        )
    invariant, power = Invariant(D, group), D.claims.norm_power or 1
    errors: list[tuple[list[float], list[float]]] = []
    for n in chosen:
        pairs: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            rows = torch.randperm(len(points), generator=source, device=points.device)
            left, right = points[rows[:n]], points[rows[n : 2 * n]]
            for errors_of, form in zip(pairs, (D, invariant), strict=True):
                errors_of.append(float(root(form(left, right, generator=source), power)))
        errors.append(pairs)
    plain, moved = ([statistics.fmean(pair[k]) for pair in errors] for k in (0, 1))
    if min(plain) <= 0:
        raise ValueError("the plain error is zero: the sample is constant, or D sees nothing of it")
    rate = _slope([math.log(n) for n in chosen], [math.log(e) for e in plain])
    ratio = [b / a for a, b in zip(plain, moved, strict=True)]
    factor = [math.nan if rate <= 0 else math.inf if r == 0 else r ** (-1 / rate) for r in ratio]
    return SymmetryGain(
        sizes=chosen,
        plain=tuple(plain),
        invariant=tuple(moved),
        ratio=tuple(ratio),
        ratio_error=tuple(_ratio_error(*pair) for pair in errors),
        rate=rate,
        sample_factor=tuple(factor),
        invariance=test,
        method=f"{invariant!r}, {repeats} repeats",
    )


def _slope(u: list[float], v: list[float]) -> float:
    """Minus the least-squares slope of v against u."""
    return -statistics.linear_regression(u, v).slope


def _ratio_error(plain: list[float], moved: list[float]) -> float:
    """The standard error of mean(moved) / mean(plain) by the delta method; the two are paired."""
    centre = statistics.fmean(plain)
    ratio = statistics.fmean(moved) / centre
    rest = [b - ratio * a for a, b in zip(plain, moved, strict=True)]
    return statistics.stdev(rest) / (centre * math.sqrt(len(plain)))


def kernel_gain(x: object, group: FiniteGroup, kernel: Kernel | None = None) -> float:
    """The factor by which invariance under the group shrinks the sampling error of the MMD with this kernel.

    c = sqrt((E k_G(x, x) - E k_G(x, x')) / (E k(x, x) - E k(x, x'))): the root of the ratio of the expected squared MMD between
    two samples of one invariant law, k_G the averaged kernel. From 1 (no gain: a wide kernel) down to about m^(-1/2) (a narrow
    one). Estimated by U-statistics on x (n, d), n >= 2; cost O(m n^2 d). Raises ValueError where k is constant on x.
    """
    points = sample(x).detach().double()
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"x must be one sample (n, d) of at least two rows, got shape {tuple(points.shape)}")
    n = len(points)
    base = (Gaussian() if kernel is None else kernel).resolve(points, torch.full((n,), 1.0 / n, dtype=points.dtype))
    spreads = []
    for form in (InvariantKernel(group, base), base):
        own, matrix = form.diagonal(points), form.matrix(points, points)
        off = (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
        spreads.append(float(own.mean() - off))
    if not spreads[1] > 0:
        raise ValueError(f"{base!r} does not vary over x, so that no sampling error is there to shrink")
    return math.sqrt(max(spreads[0], 0.0) / spreads[1])


__all__ = ["SymmetryGain", "kernel_gain", "symmetry_gain"]
