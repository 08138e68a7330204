"""What an estimate from neighbours owes to its rank k: its smoothing bias, measured and extrapolated, with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import positive, whole_number
from discrepancy.estimation.rank_ensembles import ensemble_weights, nested_covariance

RankStatistic = Callable[[Sequence[Tensor], Sequence[int]], Tensor]
"""The estimates (T,) at T ranks from samples, pooled rows or paired columns."""

_GROUPS = 2  # of a small sample: the larger a group, the more its noise is like that of the whole
_FREEDOM = 24  # degrees of freedom that the variance should have: more partitions are drawn until it has
_GROUP_SIZE = 500  # rows from which on a group behaves like the whole sample
_MOST_GROUPS = 50
_SIGNIFICANT = 2.5  # standard errors of the drift with the rank from which on the value is corrected
_SEED = 0  # partitions are always the same, so that one sample has one answer


@dataclass(frozen=True, repr=False)
class ExtrapolatedEstimate(Estimate):
    """An estimate with its `drift`: the plain value less the extrapolated one where the two differ significantly, else zero."""

    drift: float = field(default=0.0, repr=False)


@dataclass(frozen=True)
class RankExtrapolation:
    """Estimates at several ranks, combined so that a bias of the form c rank^exponent cancels.

    A density is taken for constant in a ball of k neighbours, which costs a bias that falls slowly, like (k/n)^(1/2) at edges of
    the support in two dimensions, while the standard error falls like n^(-1/2): an interval around the plain estimate misses the
    truth the more surely the larger the sample. The bias grows with the rank, and so shows in the estimates at several ranks.
    Their combination T* = sum_r w_r T_r with sum w_r = 1 and sum w_r r^exponent = 0, of least variance, is free of it and has
    more noise.

    The interval is T* +- t standard errors of T*, and reaches to the value where that lies outside. The value is the plain T_k,
    and T* where the two differ by more than 2.5 standard errors of their difference; the note says so. Standard errors come from
    the spread of the statistic between disjoint groups of rows, 2 to 50 of them. Rows are taken for independent draws.

    At edges of the support the bias falls like the radius of the balls, (k/n)^(1/d) in d dimensions, elsewhere faster. In two
    dimensions the exponent 1/2 serves both: it is that of edges, and where there are none the bias is small. In more it makes too
    little of edges and too much of the rest. The interval then holds three: T_k, T* and the T* of the exponent 1/d, each with
    its t standard errors, and covers more often than it says.

    `ranks`: two at least, all different. Raises ValueError for others, and an exponent that is not positive.
    Time: that of the statistic at all ranks, once on the sample and once to 24 times on its groups.
    Source: Moon, Sricharan, Greenewald and Hero 2018 for the weights; Holmes and Nemenman 2019 for the groups.
    """

    ranks: tuple[int, ...] = (2, 3, 5, 10)
    exponent: float = 0.5

    references = ("moon-2018", "holmes-nemenman-2019")

    def __post_init__(self) -> None:
        for r in self.ranks:
            whole_number(r, 1, "ranks")
        if len(set(self.ranks)) < max(2, len(self.ranks)):
            raise ValueError(f"ranks must be two or more, all different, got {self.ranks!r}")
        positive(self.exponent, "exponent")

    def least(self, k: int) -> int:
        """How many rows the smallest sample needs for an interval: groups must hold five times the largest rank."""
        return 5 * _GROUPS * max(*self.ranks, k)

    def estimate(
        self,
        statistic: RankStatistic,
        samples: Sequence[Tensor],
        k: int,
        *,
        paired: bool,
        level: float,
        method: str,
        notes: Sequence[str] = (),
        dimension: int = 1,
    ) -> Estimate:
        """The estimate at rank k with its interval.

        `samples` are columns of the same rows if `paired` (divided together), else samples divided each for itself. Too few rows:
        no interval, and the note says how many it takes. `dimension` is that of the balls.
        """
        notes = list(notes)
        n = min(len(s) for s in samples)
        if n < self.least(k):
            notes.insert(0, f"no interval: {n} rows are fewer than {self.least(k)}, which the groups need")
            value = float(statistic(samples, (k,))[0])
            return Estimate(value, None, None, None, None, method, "; ".join(notes))
        ranks = tuple(sorted({*self.ranks, k}))
        wide = 1 / dimension < self.exponent
        own = sorted(self.ranks)
        places = [ranks.index(r) for r in own]
        weights = torch.zeros(3 if wide else 2, len(ranks), dtype=torch.float64)
        weights[0, ranks.index(k)] = 1
        for row, exponent in zip(weights[1:], (self.exponent, 1 / dimension), strict=False):
            row[places] = ensemble_weights(own, [exponent], nested_covariance(own))
        values = weights @ statistic(samples, ranks)
        plain, free = values[:2].tolist()
        found, freedom, size = group_covariance(lambda rows: weights @ statistic(rows, ranks), samples, paired=paired)
        # Balls take a larger share of a group than of the sample, and so carry less noise there.
        found = found * (1 + max(ranks) / size)
        errors = found.diagonal().sqrt()
        error, error_free = errors[:2].tolist()
        error_drift = math.sqrt(max(0.0, float(found[0, 0] + found[1, 1] - 2 * found[0, 1])))
        drift = plain - free
        value = plain
        significant = abs(drift) > _SIGNIFICANT * error_drift
        if significant:
            value, error = free, error_free
            notes.append(
                f"the value drifts with the rank: at rank {k} it is {plain:.4g}, a smoothing bias of some {drift:+.2g}, which "
                "has been extrapolated away"
            )
            method += ", extrapolated to rank 0"
        centres, halves = (v if wide else v[1:] for v in (values, _student(level, freedom) * errors))
        low, high = min(value, float((centres - halves).min())), max(value, float((centres + halves).max()))
        if wide:
            notes.append(
                f"in {dimension} dimensions it is unknown how the bias falls with the rank: anything from no correction to that "
                "for edges of the support may be right"
            )
        note = "; ".join(notes) or None
        return ExtrapolatedEstimate(value, error, low, high, level, method, note, drift=drift if significant else 0.0)


def group_covariance(
    statistic: Callable[[Sequence[Tensor]], Tensor], samples: Sequence[Tensor], *, paired: bool
) -> tuple[Tensor, int, int]:
    """The covariance (T, T) of a statistic with T values, its degrees of freedom, and the size of the groups that it comes from.

    The rows are divided into G groups, of equal size, some times over; values of disjoint groups are independent, and
    Cov T_n = Cov T_(n/G) / G for a statistic of asymptotic error n^(-1/2). Rows are taken for independent draws. The division
    is a function of the rows as a set.
    """
    n = min(len(s) for s in samples)
    groups = min(max(_GROUPS, n // _GROUP_SIZE), _MOST_GROUPS)
    partitions = math.ceil(_FREEDOM / (groups - 1))
    draw = torch.Generator().manual_seed(_SEED)
    # From a canonical order, so that the order in which the rows came does not matter.
    orders = [_canonical(samples)] if paired else [_canonical([s]) for s in samples]
    total: Tensor | float = 0.0
    for _ in range(partitions):
        parts = [o[torch.randperm(len(o), generator=draw).to(o.device)].tensor_split(groups) for o in orders]
        values = []
        for g in range(groups):
            rows = [s[(parts[0] if paired else parts[i])[g]] for i, s in enumerate(samples)]
            values.append(statistic(rows))
        total = total + torch.cov(torch.stack(values).T)
    return torch.atleast_2d(torch.as_tensor(total)) / partitions / groups, partitions * (groups - 1), n // groups


def _canonical(columns: Sequence[Tensor]) -> Tensor:
    """The rows in lexicographic order."""
    order = torch.arange(len(columns[0]), device=columns[0].device)
    for column in reversed([c for block in columns for c in block.unbind(1)]):
        order = order[column[order].argsort(stable=True)]
    return order


def _student(level: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


__all__ = ["ExtrapolatedEstimate", "RankExtrapolation", "RankStatistic", "group_covariance"]
