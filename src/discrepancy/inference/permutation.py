"""The permutation test: is the difference between two samples real?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discrepancy._kinds import Discrepancy, PooledStatistic
from discrepancy._results import NumericalError, TestResult
from discrepancy._validate import SamplePair, generator_or_default, positive, whole_number
from discrepancy.inference.designs import Design, make_design
from discrepancy.inference.montecarlo import clopper_pearson, inverse_sampling_interval, monte_carlo_p

_TIE = {torch.float32: 1e-5, torch.float64: 1e-9}  # relative; a tie that rounding split would make p too small


@dataclass(frozen=True)
class BesagClifford:
    """Stop drawing once so many permutations reached the observed value; p is then exceedances / draws.

    Valid at every level: P(p <= alpha) <= alpha. A clearly null comparison stops after about exceedances / p draws, one
    that is significant runs to the end. Source: Besag and Clifford 1991.
    """

    exceedances: int = 20

    def __post_init__(self) -> None:
        whole_number(self.exceedances, 1, "exceedances")


class NullCount(NamedTuple):
    """How the observed statistic stands among the arrangements: `exceedances` of `draws`, the observed not counted.

    `exact` says that the draws are all other arrangements there are; `stopped` that sampling ended at an exceedance.
    """

    observed: float
    exceedances: int
    draws: int
    exact: bool
    stopped: bool


def permutation_test(
    x: Any,
    y: Any,
    D: Discrepancy,
    a: Any = None,
    b: Any = None,
    *,
    permutations: int = 999,
    generator: torch.Generator | None = None,
    strata: Any = None,
    blocks: Any = None,
    paired: bool = False,
    early_stop: BesagClifford | None = None,
    memory: float = 1.0,
) -> TestResult:
    """Test whether x and y come from one distribution, by exchanging rows between them; large D rejects.

    p = (1 + #{D* >= D}) / (R + 1) over R arrangements drawn uniformly, ties counted; when there are no more than R + 1
    arrangements in all, each is evaluated once and p is their exact share. Exact under exchangeability at every sample size:
    P(p <= alpha) <= alpha.

    x (n, d), y (m, d); weights a (n,), b (m,) move with their rows: the pairs (x_i, n a_i), (y_j, m b_j) are exchanged,
    and each sample is renormalised (hence exact where weights are drawn with the rows on one scale, and otherwise up to
    the relative error of their sums). Rows of weight zero take no part.

    strata=(of_x, of_y): exchange inside strata only, so that a difference in their shares is not tested. blocks=(of_x,
    of_y): whole blocks (clusters, stretches of time) move. paired=True: row i of x and of y change places, or, with
    blocks (n,), all pairs of a block together.

    D is prepared once on the pooled rows (`D.pooled`): bandwidths, directions, sorting and kernel matrices are not redone.
    The `statistic` is that of the pooled preparation. `p_low`, `p_high`: 99.9 % interval of p over the randomness of the
    draws. One generator state gives one answer. Memory: besides D's own, weight matrices in chunks within `memory` GiB.
    Time: D's preparation, plus R evaluations (for kernel discrepancies one matrix product).
    Raises TypeError if D is no Discrepancy, ValueError for arguments that do not fit, NumericalError for a NaN statistic.
    Source: Phipson and Smyth 2010; Hemerik and Goeman 2018.
    """
    pair = single_pair(x, y, D, a, b)
    whole_number(permutations, 1, "permutations")
    if early_stop is not None and not isinstance(early_stop, BesagClifford):
        raise TypeError(f"early_stop must be a BesagClifford or None, got {type(early_stop).__name__}")
    positive(memory, "memory")
    design = make_design(pair.x.shape[-2], pair.y.shape[-2], strata=strata, blocks=blocks, paired=paired)
    if not paired:
        pair, design = _without_weightless(pair, design, strata, blocks)
    gen = generator_or_default(generator, pair.x.device)
    statistic = D.pooled(torch.cat([pair.x, pair.y]), generator=gen)
    rng = numpy_stream(gen)
    found = count_exceedances(statistic, pair, design, int(permutations), rng, early_stop=early_stop, memory=memory)
    k, draws = found.exceedances, found.draws
    if found.exact:
        p = low = high = (1 + k) / (1 + draws)
        drawn = f"all {draws + 1} arrangements"
    elif found.stopped:
        p = k / draws
        low, high = (float(v) for v in inverse_sampling_interval(k, draws))
        drawn = f"{draws} draws, stopped at {k} exceedances"
    else:
        p = float(monte_carlo_p(k, draws))
        low, high = (float(v) for v in clopper_pearson(k, draws))
        drawn = f"{draws} draws"
    return TestResult(found.observed, p, low, high, method=f"permutation of {design.words}, {drawn}; {D!r}")


def single_pair(x: Any, y: Any, D: Discrepancy, a: Any, b: Any) -> SamplePair:
    """One validated problem without gradients; TypeError if D is no Discrepancy, ValueError for a batch."""
    if not isinstance(D, Discrepancy):
        raise TypeError(f"D must be a Discrepancy such as MMD() or EnergyDistance(), got {type(D).__name__}")
    pair = D._checked(x, y, a, b)
    if pair.batch:
        raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: loop over it")
    return SamplePair(
        pair.x.detach(), pair.y.detach(), pair.a.detach(), pair.b.detach(), uniform_a=pair.uniform_a, uniform_b=pair.uniform_b
    )


def numpy_stream(generator: torch.Generator) -> np.random.Generator:
    """A NumPy stream (its 64-bit keys are several times faster) that is a function of the torch generator's state."""
    seed = torch.randint(0, 2**63 - 1, (1,), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))


def _without_weightless(pair: SamplePair, design: Design, strata: Any, blocks: Any) -> tuple[SamplePair, Design]:
    """The problem without rows of weight zero: an arrangement that put only such rows in a sample would have no mass."""
    keep_a, keep_b = pair.a > 0, pair.b > 0
    if bool(keep_a.all()) and bool(keep_b.all()):
        return pair, design
    rows = keep_a.cpu().numpy(), keep_b.cpu().numpy()

    def kept(labels: Any) -> Any:
        return None if labels is None else tuple(np.asarray(v)[r] for v, r in zip(labels, rows, strict=True))

    smaller = SamplePair(pair.x[keep_a], pair.y[keep_b], pair.a[keep_a], pair.b[keep_b], uniform_a=False, uniform_b=False)
    return smaller, make_design(int(rows[0].sum()), int(rows[1].sum()), strata=kept(strata), blocks=kept(blocks))


def rows_within(memory: float, columns: int, dtype: torch.dtype) -> int:
    """How many weight rows fit in half of `memory` GiB, with room for float64 copies and products of the same shape."""
    return max(1, int(memory * 2**30 / 2 / (6 * columns * max(dtype.itemsize, 8))))


def count_exceedances(
    statistic: PooledStatistic,
    pair: SamplePair,
    design: Design,
    permutations: int,
    rng: np.random.Generator,
    *,
    early_stop: BesagClifford | None = None,
    memory: float = 1.0,
) -> NullCount:
    """Where the observed statistic stands among arrangements of the design: all of them if few, else random ones."""
    exact = design.size <= permutations + 1
    total = int(design.size) if exact else permutations
    step = rows_within(memory, pair.x.shape[-2] + pair.y.shape[-2], pair.x.dtype)
    stop = None if exact else early_stop
    # The observed arrangement goes through the same product as its rivals, so that rounding treats them alike.
    observed, values = math.nan, np.empty(0)
    exceed = seen = 0
    scale = 0.0
    first = True
    for chunk in _chunks(design, total, exact, rng, step, stop):
        rows = np.concatenate([design.observed(), chunk]) if first else chunk
        values = _evaluate(statistic, pair, rows)
        if first:
            observed, values, first = float(values[0]), values[1:], False
        finite = np.abs(values[np.isfinite(values)])
        scale = max(scale, abs(observed) if math.isfinite(observed) else 0.0, float(finite.max(initial=0.0)))
        reached = values >= observed - _TIE[pair.x.dtype] * scale
        if stop is not None and exceed + int(reached.sum()) >= stop.exceedances:
            place = int(np.flatnonzero(np.cumsum(reached) + exceed >= stop.exceedances)[0])
            return NullCount(observed, stop.exceedances, seen + place + 1, exact=False, stopped=True)
        exceed, seen = exceed + int(reached.sum()), seen + len(values)
    if exact:  # the observed arrangement is among them, and is counted by the caller
        exceed, seen = exceed - 1, seen - 1
    return NullCount(observed, exceed, seen, exact=exact, stopped=False)


def _chunks(
    design: Design, total: int, exact: bool, rng: np.random.Generator, step: int, stop: BesagClifford | None
) -> Iterator[NDArray[np.bool_]]:
    if exact:
        rows = design.every()
        for start in range(0, total, step):
            yield np.stack([next(rows) for _ in range(min(step, total - start))])
        return
    start, size = 0, step if stop is None else min(step, 4 * stop.exceedances)
    while start < total:
        count = min(size, step, total - start)
        yield design.draw(count, rng)
        start, size = start + count, 2 * size


def _evaluate(statistic: PooledStatistic, pair: SamplePair, in_x: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The statistic of arrangements (R, n + m), each sample's weights renormalised."""
    n, m = pair.x.shape[-2], pair.y.shape[-2]
    w = torch.cat([pair.a * n, pair.b * m])
    labels = torch.from_numpy(in_x).to(w.device)
    A, B = labels * w, ~labels * w
    mass_a, mass_b = A.sum(1, keepdim=True), B.sum(1, keepdim=True)
    if not bool((mass_a > 0).all() and (mass_b > 0).all()):
        raise NumericalError("a permutation put only rows of weight zero into one sample: leave pairs without weight out")
    with torch.no_grad():
        values = statistic(A.div_(mass_a), B.div_(mass_b))
    found: NDArray[np.float64] = values.detach().double().cpu().numpy()
    if np.isnan(found).any():
        raise NumericalError(f"the statistic is NaN for {int(np.isnan(found).sum())} of {len(found)} permutations")
    return found


def pooled_rows(pair: SamplePair) -> tuple[Tensor, Tensor]:
    """The two samples as weight rows (n + m,) on the pooled cloud."""
    zeros_a, zeros_b = torch.zeros_like(pair.b), torch.zeros_like(pair.a)
    return torch.cat([pair.a, zeros_a]), torch.cat([zeros_b, pair.b])
