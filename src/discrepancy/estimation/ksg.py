"""Mutual information and conditional mutual information of continuous data from nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import whole_number
from discrepancy.estimation.margins import Margins, NormalScores
from discrepancy.estimation.rank_extrapolation import RankExtrapolation, RankStatistic
from discrepancy.neighbors import Neighbors, chosen_engine, counts_within, nearest_neighbors

COVERED = 4  # dimensions in all up to which the interval's coverage has been measured


@dataclass(frozen=True)
class KSG:
    """The estimators of Kraskov, Stoegbauer and Grassberger, in nats.

    Around each row (x_i, y_i) lies the cube to its k-th neighbour in the maximum norm of both. Variant 1 counts the n_x and n_y
    rows that are strictly nearer in x alone and in y alone,
        I = psi(k) + psi(n) - mean(psi(n_x + 1) + psi(n_y + 1));
    variant 2 takes the smallest rectangle that holds the k neighbours and counts those inside or on its sides,
        I = psi(k) - 1/k + psi(n) - mean(psi(n_x) + psi(n_y)).
    The conditional information is that of Frenzel and Pompe, always variant 1,
        I(X; Y | Z) = psi(k) - mean(psi(n_xz + 1) + psi(n_yz + 1) - psi(n_z + 1)).

    `margins` are the coordinates in which neighbours are sought: normal scores by default, so that the value is invariant to
    increasing maps of a coordinate; None takes the coordinates as they are, for data on one scale already.
    `extrapolation` measures the smoothing bias and gives the interval; None: the plain value of k and no interval.
    Exactly zero in expectation for independent data, and may hence be slightly negative. Not differentiable; nothing is drawn.

    Time O(n log n) in low dimension, up to O(n^2 d) in high; memory O(n k).
    Raises ValueError for k < 1, fewer than k + 2 rows, and rows that coincide with k others, whose information is infinite or
    needs `MixedNeighbors`.
    """

    k: int = 5
    variant: Literal[1, 2] = 1
    margins: Margins | None = field(default_factory=NormalScores)
    extrapolation: RankExtrapolation | None = field(default_factory=RankExtrapolation)

    references = ("kraskov-2004", "frenzel-pompe-2007")

    def __post_init__(self) -> None:
        whole_number(self.k, 1, "k")
        if self.variant not in (1, 2):
            raise ValueError(f"variant must be 1 or 2, got {self.variant!r}")

    @torch.no_grad()
    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2). `generator` is accepted and not used."""
        return self._estimate([x, y], self._at_ranks, f"KSG variant {self.variant}", level)

    @torch.no_grad()
    def conditional_mutual_information(
        self, x: Tensor, y: Tensor, z: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y | Z) from paired rows x (n, d1), y (n, d2), z (n, d3). `generator` is accepted and not used."""
        return self._estimate([x, y, z], self._conditional_at_ranks, "Frenzel-Pompe", level)

    def _estimate(self, samples: list[Tensor], statistic: RankStatistic, name: str, level: float) -> Estimate:
        n = len(samples[0])
        if n < self.k + 2:
            raise ValueError(f"k = {self.k} neighbours need at least {self.k + 2} rows, got {n}")
        samples, notes = varying([s.double() for s in samples])
        if min(samples[0].shape[1], samples[1].shape[1]) == 0:
            return Estimate(0.0, 0.0, 0.0, 0.0, level, name, "; ".join(notes))
        stuck = _coinciding(samples, self.k)
        if stuck:
            raise ValueError(
                f"{stuck} of {n} rows coincide with {self.k} others: KSG needs continuous data; use MixedNeighbors() for "
                "discrete or mixed values"
            )
        ties = sum(len(s) - len(torch.unique(column)) for s in samples for column in s.unbind(1))
        if ties:
            notes.append(f"{ties} repeated values, which a density has none of: MixedNeighbors() allows for them")
        margins = "as given" if self.margins is None else repr(self.margins)
        joint = torch.cat(samples, 1)
        method = f"{name}, k = {self.k}, coordinates {margins}, {chosen_engine(joint, self.k, 'maximum')}"
        width = joint.shape[1]
        if self.extrapolation is not None and width <= COVERED:
            return self.extrapolation.estimate(
                statistic, samples, self.k, paired=True, level=level, method=method, notes=notes, dimension=width
            )
        why = "the extrapolation is switched off" if self.extrapolation is None else beyond_reach(width)
        value = float(statistic(samples, (self.k,))[0])
        return Estimate(value, None, None, None, None, method, "; ".join([f"no interval: {why}", *notes]))

    def _placed(self, samples: Sequence[Tensor]) -> list[Tensor]:
        return list(samples) if self.margins is None else [self.margins.fit(s)(s) for s in samples]

    def _at_ranks(self, samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
        placed = self._placed(samples)
        k = torch.tensor(ranks, dtype=torch.float64)
        found = _neighbors(placed, max(ranks))
        columns = torch.tensor(ranks) - 1
        n = torch.tensor(float(len(placed[0])), dtype=torch.float64)
        value = torch.digamma(k) + torch.digamma(n)
        for s in placed:
            if self.variant == 1:
                counts = _counts(s, found.distances[:, columns], strict=True) + 1
            else:
                sides = (s[found.indices] - s[:, None]).abs().amax(2).cummax(1).values
                counts = _counts(s, sides[:, columns], strict=False)
            value -= torch.digamma(counts.double()).mean(0)
        return value if self.variant == 1 else value - 1 / k

    def _conditional_at_ranks(self, samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
        x, y, z = self._placed(samples)
        radii = _neighbors([x, y, z], max(ranks)).distances[:, torch.tensor(ranks) - 1]
        value = torch.digamma(torch.tensor(ranks, dtype=torch.float64))
        for sign, part in ((-1, torch.cat([x, z], 1)), (-1, torch.cat([y, z], 1)), (1, z)):
            value += sign * torch.digamma(_counts(part, radii, strict=True).double() + 1).mean(0)
        return value


def varying(samples: Sequence[Tensor]) -> tuple[list[Tensor], list[str]]:
    """The samples without their constant columns, which carry no information, and what there is to remark."""
    kept, notes = [], []
    for name, s in zip("xyz", samples, strict=False):
        varies = (s != s[:1]).any(0)
        constant = int((~varies).sum())
        if constant:
            notes.append(f"{constant} of {s.shape[1]} columns of {name} are constant and carry no information")
        kept.append(s[:, varies])
    return kept, notes


def beyond_reach(width: int) -> str:
    """Why there is no interval in so many dimensions, in words."""
    return (
        f"in {width} dimensions the smoothing bias is not known to be small; dependence on scales finer than the neighbourhoods "
        "is missed, and the value is then too low"
    )


def _coinciding(samples: Sequence[Tensor], k: int) -> int:
    """How many rows equal k others at least."""
    joint = torch.cat(list(samples), 1)
    if any(len(torch.unique(column)) == len(joint) for column in joint.unbind(1)):
        return 0
    counts = torch.unique(joint, dim=0, return_counts=True)[1]
    return int(counts[counts > k].sum())


def _neighbors(placed: Sequence[Tensor], k: int) -> Neighbors:
    joint = torch.cat(list(placed), 1)
    return nearest_neighbors(joint, joint, k, norm="maximum", exclude_self=True)


def _counts(points: Tensor, radii: Tensor, strict: bool) -> Tensor:
    return counts_within(points, points, radii, norm="maximum", strict=strict, exclude_self=True).counts


__all__ = ["COVERED", "KSG", "beyond_reach", "varying"]
