"""The permutation test of independence: do paired rows belong together?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from discrepancy._kinds import Dependence, PermutedStatistic
from discrepancy._results import NumericalError, TestResult
from discrepancy._validate import generator_or_default, paired_rows, whole_number
from discrepancy.inference.montecarlo import clopper_pearson, monte_carlo_p
from discrepancy.inference.permutation import numpy_stream

_TIE = {torch.float32: 1e-5, torch.float64: 1e-9}  # relative, as in the two-sample test
_AT_ONCE = 64  # permutations handed to a statistic that may share work between them


def independence_test(
    x: Any,
    y: Any,
    M: Dependence,
    *,
    permutations: int = 999,
    generator: torch.Generator | None = None,
    strata: Any = None,
) -> TestResult:
    """Test whether the rows of x and y are independent, by pairing x with permuted rows of y; large M rejects.

    p = (1 + #{M* >= M}) / (R + 1) over R random permutations, ties counted; where there are no more than R + 1 permutations in
    all, each is evaluated once and p is their exact share. Exact under independence at every sample size, whatever M:
    P(p <= alpha) <= alpha, for rows that are exchangeable (not for time series).

    x (n, d1), y (n, d2) paired row by row. strata (n,): rows change places inside their stratum only, a test of independence
    given the stratum. M is prepared once (`M.permuted`): pairings, bandwidths and directions are not redone. `p_low`, `p_high`:
    99.9 % interval of p over the draws. Raises TypeError if M is no Dependence, ValueError for fewer than two rows or arguments
    that do not fit, NumericalError for a NaN statistic. Time: R + 1 evaluations of M.
    Source: Phipson and Smyth (2010); Hoeffding (1952).
    """
    if not isinstance(M, Dependence):
        raise TypeError(f"M must be a Dependence such as WassersteinDependency(), got {type(M).__name__}")
    left, right, _ = paired_rows(x, y)
    if left.ndim != 2:
        raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(left.shape[:-2])}: loop over it")
    n = left.shape[0]
    if n < 2:
        raise ValueError("independence needs at least 2 paired rows, got 1")
    whole_number(permutations, 1, "permutations")
    groups = _groups(strata, n)
    gen = generator_or_default(generator, left.device)
    statistic = M.permuted(left.detach(), right.detach(), generator=gen)
    arrangements = math.prod(math.factorial(len(g)) for g in groups)
    exact = arrangements <= permutations + 1
    rng = numpy_stream(gen)
    orders = _every(groups, n) if exact else _random(groups, n, int(permutations), rng)
    observed, values = _evaluate(statistic, itertools.chain([np.arange(n)], orders), left.device)
    finite = np.abs(values[np.isfinite(values)])
    scale = max(abs(observed) if math.isfinite(observed) else 0.0, float(finite.max(initial=0.0)))
    reached = int((values >= observed - _TIE[left.dtype] * scale).sum())
    if exact:  # the observed arrangement is one of all
        p = low = high = reached / len(values)
        drawn = f"all {len(values)} permutations"
    else:
        p = float(monte_carlo_p(reached, len(values)))
        low, high = (float(v) for v in clopper_pearson(reached, len(values)))
        drawn = f"{len(values)} permutations"
    return TestResult(observed, p, low, high, method=f"{drawn} of the rows of y; {M!r}")


def _groups(strata: Any, n: int) -> list[NDArray[np.int64]]:
    """The rows of each stratum."""
    if strata is None:
        return [np.arange(n)]
    labels = np.asarray(strata)
    if labels.shape != (n,):
        raise ValueError(f"strata must have shape ({n},), a label for each row, got {labels.shape}")
    _, place = np.unique(labels, return_inverse=True)
    return [np.flatnonzero(place == k) for k in range(int(place.max()) + 1)]


def _every(groups: list[NDArray[np.int64]], n: int) -> Iterator[NDArray[np.int64]]:
    for parts in itertools.product(*(itertools.permutations(g.tolist()) for g in groups)):
        order = np.empty(n, np.int64)
        for group, part in zip(groups, parts, strict=True):
            order[group] = part
        yield order


def _random(groups: list[NDArray[np.int64]], n: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    for _ in range(count):
        order = np.empty(n, np.int64)
        for group in groups:
            order[group] = rng.permutation(group)
        yield order


def _evaluate(
    statistic: PermutedStatistic, orders: Iterator[NDArray[np.int64]], device: torch.device
) -> tuple[float, NDArray[np.float64]]:
    """The statistic of the first order, and those of the others."""
    parts = []
    while chunk := list(itertools.islice(orders, _AT_ONCE)):
        parts.append(statistic(torch.from_numpy(np.stack(chunk)).to(device)).double().cpu().numpy())
    values = np.concatenate(parts)
    if np.isnan(values).any():
        raise NumericalError(f"the statistic is NaN for {int(np.isnan(values).sum())} of {len(values)} permutations")
    return float(values[0]), values[1:]


__all__ = ["independence_test"]
