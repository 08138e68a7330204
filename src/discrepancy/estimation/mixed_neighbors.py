"""Mutual information where values repeat: mixtures of discrete and continuous laws, and one discrete side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import whole_number
from discrepancy.estimation.ksg import beyond_reach, varying
from discrepancy.estimation.margins import Margins, NormalScores
from discrepancy.estimation.rank_extrapolation import RankExtrapolation, RankStatistic
from discrepancy.neighbors import counts_within, nearest_neighbors

_COVERED = 4  # dimensions in all up to which the interval's coverage has been measured
_SEED = 0  # of the order among equal values, so that one sample has one answer


@dataclass(frozen=True)
class MixedNeighbors:
    """The estimators for mixtures of discrete and continuous values, in nats.

    Let r_i be the distance of row i to its k-th neighbour in the maximum norm of x and y. Where that row alone lies at r_i, row i
    is continuous and has the term of KSG, psi(k) + psi(n) - psi(n_x + 1) - psi(n_y + 1), with the rows strictly nearer than
    r_i. Where r_i = 0 the row is discrete: with K rows equal to it jointly, n_x in x and n_y in y, itself included, the term is
    psi(K) + log n - psi(n_x) - psi(n_y). Where several rows are tied at r_i > 0, jointly or in a margin, the values are rounded:
    ties are broken at random, which changes no information, and the row has its KSG term in the normal scores of the broken
    ranks. The conditional information replaces psi(n) by a third count, of z. On values that never repeat this is KSG and
    Frenzel-Pompe; on discrete ones nearly the plug-in estimate. The order in which ties are broken is always the same.

    Distances between codes of categories mean something only if the codes are ordered: for one nominal side take
    `DiscreteNeighbors`, for two `PlugIn`. `margins` and `extrapolation` are those of `KSG`. Nothing is drawn.

    Time and memory as in `KSG`. Raises ValueError for k < 1 and fewer than k + 2 rows.
    """

    k: int = 5
    margins: Margins | None = field(default_factory=NormalScores)
    extrapolation: RankExtrapolation | None = field(default_factory=RankExtrapolation)

    references = ("gao-2017", "mesner-shalizi-2021")

    def __post_init__(self) -> None:
        whole_number(self.k, 1, "k")

    @torch.no_grad()
    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2). `generator` is accepted and not used."""
        return interval_or_note(self, [x, y], self._at_ranks, "mixed neighbours", level)

    @torch.no_grad()
    def conditional_mutual_information(
        self, x: Tensor, y: Tensor, z: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y | Z) from paired rows x (n, d1), y (n, d2), z (n, d3). `generator` is accepted and not used."""
        return interval_or_note(self, [x, y, z], self._at_ranks, "mixed neighbours, conditional", level)

    def _at_ranks(self, samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
        placed = [s if self.margins is None else self.margins.fit(s)(s) for s in samples]
        rank = torch.tensor(ranks)
        joint = torch.cat(placed, 1)
        radius = _radii(joint, rank)
        within = _others(joint, radius, strict=False)
        equal = radius == 0
        rounded = within > rank
        terms = _psi(torch.where(equal, within + 1, rank))
        for sign, part in _margins(placed):
            near, inside = _others(part, radius, strict=False), _others(part, radius, strict=True)
            # Continuous data have one row at the radius at most, the k-th neighbour.
            rounded |= near > inside + 1
            terms += sign * _psi(torch.where(equal, near, inside) + 1)
        if len(placed) == 2:
            n = torch.tensor(float(len(joint)), dtype=torch.float64)
            terms += torch.where(equal, torch.log(n), torch.digamma(n))
        rounded &= ~equal
        if bool(rounded.any()):
            terms = torch.where(rounded, self._untied(samples, rank), terms)
        return terms.mean(0)

    @staticmethod
    def _untied(samples: Sequence[Tensor], rank: Tensor) -> Tensor:
        """The terms (n, T) of every row with ties broken at random in each column."""
        draw = torch.Generator().manual_seed(_SEED)
        placed = [torch.stack([_broken(column, draw) for column in s.unbind(1)], 1) for s in samples]
        radius = _radii(torch.cat(placed, 1), rank)
        terms = _psi(rank).expand(radius.shape)
        for sign, part in _margins(placed):
            terms = terms + sign * _psi(_others(part, radius, strict=True) + 1)
        n = torch.tensor(float(len(radius)), dtype=torch.float64)
        return terms + torch.digamma(n) if len(placed) == 2 else terms


@dataclass(frozen=True)
class DiscreteNeighbors:
    """Ross's estimator of the information between categories and continuous values, in nats.

    One of x and y has few distinct rows, taken as names without order. Around each row the ball to its k-th neighbour in the
    other variable among the N_i rows of its category holds m_i rows of all categories (strictly nearer ones and the neighbour):
        I = psi(n) - mean(psi(N_i)) + mean(psi(k_i)) - mean(psi(m_i)),   k_i = min(k, N_i - 1).
    Rows that are alone in their category are left out, with a note. `margins` and `extrapolation` are those of `KSG`, for the
    continuous variable. Nothing is drawn.

    Time O(n log n) in low dimension, memory O(n k).
    Raises ValueError where neither variable repeats its rows, and where values of the other coincide within a category.
    """

    k: int = 5
    margins: Margins | None = field(default_factory=NormalScores)
    extrapolation: RankExtrapolation | None = field(default_factory=RankExtrapolation)

    references = ("ross-2014",)

    def __post_init__(self) -> None:
        whole_number(self.k, 1, "k")

    @torch.no_grad()
    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2), of which one is discrete. `generator` is accepted and not used."""
        (codes_x, few), (codes_y, many) = (torch.unique(s, dim=0, return_inverse=True)[::-1] for s in (x, y))
        swapped = len(many) < len(few)
        codes, values = (codes_y, x) if swapped else (codes_x, y)
        shared = torch.bincount(codes)[codes] > 1
        notes = []
        if int(shared.sum()) <= self.k + 1:
            raise ValueError(
                f"{int(shared.sum())} of {len(x)} rows share their category with another: DiscreteNeighbors() needs one variable "
                "with few values; use KSG() for continuous data"
            )
        if not bool(shared.all()):
            notes.append(f"{int((~shared).sum())} rows are alone in their category and left out")
        columns = [codes[shared, None].double(), values[shared]]
        return interval_or_note(self, columns, self._at_ranks, "categories and neighbours", level, notes)

    def _at_ranks(self, samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
        names, inverse, sizes = torch.unique(samples[0][:, 0], return_inverse=True, return_counts=True)
        placed = samples[1] if self.margins is None else self.margins.fit(samples[1])(samples[1])
        n, highest = len(placed), max(ranks)
        radii = torch.full((n, highest), torch.nan, dtype=torch.float64)
        for category in range(len(names)):
            rows = (inverse == category).nonzero()[:, 0]
            if len(rows) == 1:
                continue
            inside = placed[rows]
            most = min(highest, len(rows) - 1)
            found = nearest_neighbors(inside, inside, most, norm="maximum", exclude_self=True).distances
            radii[rows] = torch.cat([found, found[:, -1:].expand(-1, highest - most)], 1)
        alone = radii[:, 0].isnan()
        size, n = sizes[inverse][~alone], int((~alone).sum())
        at = placed[~alone]
        rank = torch.tensor(ranks)
        radius = radii[~alone][:, rank - 1]
        if bool((radius == 0).any()):
            raise ValueError(
                f"{int((radius[:, 0] == 0).sum())} rows coincide with others of their category: the other variable must be "
                "continuous; use MixedNeighbors()"
            )
        within = _others(at, radius, strict=True) + 1
        most = torch.minimum(size[:, None] - 1, rank)
        return torch.digamma(torch.tensor(float(n), dtype=torch.float64)) + (
            _psi(most) - _psi(size)[:, None] - _psi(within)
        ).mean(0)


def interval_or_note(
    estimator: MixedNeighbors | DiscreteNeighbors,
    samples: Sequence[Tensor],
    statistic: RankStatistic,
    name: str,
    level: float,
    notes: Sequence[str] = (),
) -> Estimate:
    """The estimate of a statistic at the estimator's rank, with the interval of its extrapolation where it may have one."""
    k, n = estimator.k, len(samples[0])
    if n < k + 2:
        raise ValueError(f"k = {k} neighbours need at least {k + 2} rows, got {n}")
    samples, remarks = varying([s.double() for s in samples])
    remarks = [*notes, *remarks]
    if min(samples[0].shape[1], samples[1].shape[1]) == 0:
        return Estimate(0.0, 0.0, 0.0, 0.0, level, name, "; ".join(remarks))
    margins = "as given" if estimator.margins is None else repr(estimator.margins)
    method = f"{name}, k = {k}, coordinates {margins}"
    width = sum(s.shape[1] for s in samples)
    if estimator.extrapolation is not None and width <= _COVERED:
        return estimator.extrapolation.estimate(
            statistic, samples, k, paired=True, level=level, method=method, notes=remarks, dimension=width
        )
    why = "the extrapolation is switched off" if estimator.extrapolation is None else beyond_reach(width)
    value = float(statistic(samples, (k,))[0])
    return Estimate(value, None, None, None, None, method, "; ".join([f"no interval: {why}", *remarks]))


def _radii(joint: Tensor, rank: Tensor) -> Tensor:
    return nearest_neighbors(joint, joint, int(rank.max()), norm="maximum", exclude_self=True).distances[:, rank - 1]


def _margins(placed: Sequence[Tensor]) -> list[tuple[float, Tensor]]:
    """The marginal spaces whose counts enter, with their signs: x and y, or (x, z), (y, z) and z."""
    third = list(placed[2:])
    return [(-1.0, torch.cat([s, *third], 1)) for s in placed[:2]] + [(1.0, z) for z in third]


def _broken(column: Tensor, draw: torch.Generator) -> Tensor:
    """Normal scores of the ranks of a column, equal values in random order."""
    shuffled = torch.randperm(len(column), generator=draw).to(column.device)
    order = shuffled[column[shuffled].argsort(stable=True)]
    rank = torch.empty_like(column)
    rank[order] = torch.arange(len(column), dtype=column.dtype, device=column.device)
    return torch.special.ndtri((rank + 0.5) / len(column))


def _others(points: Tensor, radius: Tensor, strict: bool) -> Tensor:
    return counts_within(points, points, radius, norm="maximum", strict=strict, exclude_self=True).counts


def _psi(counts: Tensor) -> Tensor:
    return torch.digamma(counts.double())


__all__ = ["DiscreteNeighbors", "MixedNeighbors", "interval_or_note"]
