"""Any divergence from the ratios of two samples among nearest neighbours: no density, no ball volume, no boundary correction."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, at_least, fraction, sample_pair, whole_number
from discrepancy.divergences import Divergence, FDivergence, RatioDivergence
from discrepancy.divergences.admission import Admission
from discrepancy.estimation.information import SampleSizeWarning
from discrepancy.estimation.rank_ensembles import ensemble_weights, shrunken_weights
from discrepancy.estimation.rank_extrapolation import group_covariance
from discrepancy.neighbors import Norm, nearest_neighbors

ADMITS = Admission(
    "NearestNeighborRatios",
    kinds=(FDivergence, RatioDivergence),
    examples=("KL()", "JensenShannon()", "Renyi(2)", "CustomDivergence(f)"),
)
_STUCK = 0.2  # share of ratios at an end of their range from which on the value says little
_UNEQUAL = 20  # samples that differ more in size leave one kind of neighbour hardly ever seen
_LEAST = 5  # neighbours, however small the samples


@dataclass(frozen=True)
class RankEnsemble:
    """Numbers of neighbours k_l = floor(l sqrt(n)) for `count` scales l from `low` to `high`, combined with little bias.

    The bias of the estimate at k_l has terms in (k_l / n)^(i/d), i = 1 ... d, hence in l^(i/d) n^(-i/(2d)). The weights have sum
    one and minimise
        |w|^2 + penalty sum_i n^(1 - i/d) (sum_l w_l l^(i/d))^2,
    the paper's program, which bounds each term, with the bound as a price. `penalty` math.inf cancels all terms exactly, which
    the paper's theory allows too; in three dimensions the weights are then so large that the bias of order 1/k, which is not
    among the terms, is multiplied: for Gaussian samples of 3,000 the error grows twenty-fold. Raises ValueError unless
    0 < low < high, count >= 2 and penalty > 0.
    Source: Noshad et al. 2017.
    """

    count: int = 20
    low: float = 0.3
    high: float = 3.0
    penalty: float = 1e-3

    references = ("nearest-neighbor-ratios", "moon-2018")

    def __post_init__(self) -> None:
        whole_number(self.count, 2, "count")
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"scales must satisfy 0 < low < high, got {self.low!r} and {self.high!r}")
        if not self.penalty > 0:
            raise ValueError(f"penalty must be positive, or math.inf, got {self.penalty!r}")

    def ranks(self, n: int, dimension: int, most: int) -> tuple[list[int], Tensor]:
        """The numbers of neighbours, all different and at most `most`, and their weights."""
        wanted = (math.floor(float(s) * math.sqrt(n)) for s in torch.linspace(self.low, self.high, self.count))
        ranks = sorted({min(most, max(2, k)) for k in wanted})
        if math.isinf(self.penalty):
            terms = min(dimension, len(ranks) - 1)
            return ranks, ensemble_weights(ranks, [i / dimension for i in range(1, terms + 1)])
        exponents = [i / dimension for i in range(1, dimension + 1)]
        scales = [k / math.sqrt(n) for k in ranks]
        return ranks, shrunken_weights(scales, exponents, [self.penalty * n ** (1 - e) for e in exponents])


@dataclass(frozen=True)
class NearestNeighborRatios:
    """Any divergence of ratios from who is among the neighbours of the points of the second sample.

    Among the k nearest neighbours of y_i in both samples together N_i are rows of x (n in all) and M_i of y (m), and
        u_i = (m / n) N_i / (M_i + 1)
    estimates p/q (y_i), where P is the law of x and Q that of y. An `FDivergence` is the mean of f(u_i), a `RatioDivergence`
    (Renyi, Tsallis) its function of the mean; built-in, sums, reversed, skewed and custom ones alike. Works for bounded supports
    as it is: near an edge both samples lose the same part of the ball. The paper's D_g(X || Y) is our D(P || Q) with
    f = g + c (t - 1) centred, which has less variance and for KL another bias.

    `k` None is max(5, round(sqrt(min(n, m)))); `ensemble` replaces it by several k, whose combination has no leading bias.
    `clip` keeps ratios in [1/clip, clip], needed where f(0) or f(inf) is infinite; f(0) is used as it is where it is finite.
    None switches it off. `norm` is that of the neighbours.

    The standard error is that of the spread between disjoint groups of rows. No interval: the bias, of order (k/n)^(1/d) + 1/k,
    is not known to be smaller. Identical laws have a positive value of order 1/k. Not differentiable; nothing is drawn.
    Time O(n log n) in low dimension, memory O(n k).
    Raises ValueError for k < 2 or k >= n + m, TypeError for a divergence that is no function of p/q. A `SampleSizeWarning` says
    when more than a fifth of the ratios are at an end of what k neighbours can show.
    """

    k: int | None = None
    ensemble: RankEnsemble | None = None
    clip: float | None = 1e4
    norm: Norm = "euclidean"

    references = ("nearest-neighbor-ratios",)

    def __post_init__(self) -> None:
        if self.k is not None:
            whole_number(self.k, 2, "k")
            if self.ensemble is not None:
                raise ValueError("an ensemble chooses its own numbers of neighbours: give k or ensemble, not both")
        if self.ensemble is not None and not isinstance(self.ensemble, RankEnsemble):
            raise TypeError(f"ensemble must be a RankEnsemble or None, got {self.ensemble!r}")
        if self.clip is not None and at_least(self.clip, 1.0, "clip") == 1.0:
            raise ValueError("clip must be above 1, or all ratios are one")

    @torch.no_grad()
    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """The divergence D(P || Q) from samples x (n, d) of P and y (m, d) of Q. `generator` is accepted and not used."""
        of_ratios = ADMITS.check(divergence)
        fraction(level, "level")
        pair = single(sample_pair(x, y))
        n, m = len(pair.x), len(pair.y)
        graph = self.graph(pair.x, pair.y)
        value = float(self._combined(of_ratios, graph))
        notes = [
            "no interval: the smoothing bias is not known to be smaller than the standard error",
            *graph.remarks(self.clip),
        ]
        if isinstance(divergence, FDivergence):
            value = max(value, 0.0)
        error = None
        if min(n, m) >= 8 * _LEAST:
            part = [pair.x, pair.y]
            covariance, _, _ = group_covariance(
                lambda rows: self._combined(of_ratios, self.graph(rows[0], rows[1]))[None], part, paired=False
            )
            error = math.sqrt(float(covariance[0, 0]))
        return Estimate(value, error, None, None, None, graph.describe(), "; ".join(notes))

    def ratios(self, x: Any, y: Any) -> Tensor:
        """u (m,), the estimates of p/q at the rows of y; with an ensemble, at the largest of its numbers of neighbours."""
        pair = single(sample_pair(x, y))
        return self.graph(pair.x, pair.y).ratios()[:, -1].to(pair.x.dtype)

    def graph(self, x: Tensor, y: Tensor) -> RatioGraph:
        """The neighbours of the rows of y (m, d) in x (n, d) and y together."""
        n, m, d = len(x), len(y), x.shape[1]
        ranks, weights = self.chosen(n, m, d)
        both = torch.cat([x, y])
        own = torch.arange(n, n + m, device=both.device)
        found = nearest_neighbors(y, both, max(ranks), own=own, norm=self.norm)
        of_x = (found.indices < n).cumsum(1)[:, torch.tensor(ranks) - 1]
        return RatioGraph(n, m, tuple(ranks), weights, of_x, found.engine, found.distances[:, 0] == 0)

    def chosen(self, n: int, m: int, dimension: int) -> tuple[list[int], Tensor]:
        """The numbers of neighbours and their weights."""
        least = min(n, m)
        if self.ensemble is not None and n + m > 3:
            return self.ensemble.ranks(least, dimension, n + m - 1)
        k = max(_LEAST, round(math.sqrt(least))) if self.k is None else self.k
        if k >= n + m:
            raise ValueError(f"k = {k} neighbours need more than {k} other points, got {n} and {m}")
        return [k], torch.ones(1, dtype=torch.float64)

    def _combined(self, divergence: FDivergence | RatioDivergence, graph: RatioGraph) -> Tensor:
        return graph.weights @ values_of(divergence, graph.ratios().T, self.clip)


@dataclass(frozen=True)
class RatioGraph:
    """How many of each row's k neighbours are rows of x, `of_x` (m, T), at T numbers of neighbours, with their weights."""

    n: int
    m: int
    ranks: tuple[int, ...]
    weights: Tensor
    of_x: Tensor
    engine: str
    tied: Tensor = field(repr=False)

    def ratios(self) -> Tensor:
        """u (m, T) = (m / n) N / (M + 1)."""
        k = torch.tensor(self.ranks)
        return self.m / self.n * self.of_x.double() / (k - self.of_x + 1)

    def describe(self) -> str:
        """The method in words."""
        k = f"k = {self.ranks[0]}" if len(self.ranks) == 1 else f"ensemble of {len(self.ranks)} k from {self.ranks[0]} on"
        return f"nearest-neighbour ratios, {k}, {self.engine}"

    def remarks(self, clip: float | None) -> list[str]:
        """Ties, sizes that differ, and ratios at an end of their range, the last as a `SampleSizeWarning` too."""
        notes = []
        ties = int(self.tied.sum())
        if ties:
            notes.append(f"{ties / self.m:.0%} of the rows of y coincide with another point; the order among ties is arbitrary")
        if max(self.n, self.m) > _UNEQUAL * min(self.n, self.m):
            notes.append(
                f"{self.n} and {self.m} rows differ more than {_UNEQUAL} times: neighbours of the smaller sample are rare"
            )
        # At the largest rank, which resolves most.
        share = float(((self.of_x[:, -1] == 0) | (self.of_x[:, -1] == self.ranks[-1])).double().mean())
        if share > _STUCK:
            top = self.m / self.n * self.ranks[-1]
            limit = math.log(top if clip is None else min(top, clip))
            note = (
                f"{share:.0%} of the ratios are zero or as large as {self.ranks[-1]} neighbours can show: a KL above some "
                f"{limit:.2g} nats cannot be seen; raise k, or take the value as a lower bound"
            )
            warnings.warn(note, SampleSizeWarning, stacklevel=4)
            notes.append(note)
        return notes


def values_of(divergence: FDivergence | RatioDivergence, u: Tensor, clip: float | None, weights: Tensor | None = None) -> Tensor:
    """The divergence (...) of ratios u (..., m) at rows of Q, under weights that broadcast to them."""
    log_u = torch.log(u)
    if clip is not None:
        bound = math.log(clip)
        clipped = log_u.clamp(-bound, bound)
        nothing = torch.tensor(-torch.inf, dtype=torch.float64)
        limit = divergence.at_zero if isinstance(divergence, FDivergence) else float(divergence.inner(log_t=nothing))
        finite = math.isfinite(limit)
        log_u = torch.where(torch.isinf(log_u), log_u, clipped) if finite else clipped
    value: Any = divergence.from_log_ratio(log_u, None if weights is None else weights.expand_as(log_u)).value
    return value


def single(pair: SamplePair) -> SamplePair:
    """The pair, or ValueError for a batch."""
    if pair.batch:
        raise ValueError(
            f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: estimate each in turn"
        )
    return pair


__all__ = ["ADMITS", "NearestNeighborRatios", "RankEnsemble", "RatioGraph", "single", "values_of"]
