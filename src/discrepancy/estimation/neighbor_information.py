"""The default of `mutual_information`: the neighbour estimator that fits the kind of the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import whole_number
from discrepancy.estimation.ksg import COVERED, KSG
from discrepancy.estimation.margins import Margins, NormalScores
from discrepancy.estimation.mixed_neighbors import DiscreteNeighbors, MixedNeighbors
from discrepancy.estimation.plug_in import PlugIn
from discrepancy.estimation.rank_extrapolation import RankExtrapolation
from discrepancy.estimation.referenced_information import ReferencedInformation

_RARE = 0.05  # share of rows up to which repeats (of continuous data) or single values (of discrete data) are an accident
_FILLED = 2  # rows a joint cell from which the correction for empty cells holds


@dataclass(frozen=True)
class NeighborInformation:
    """Mutual information, conditional or not, from nearest neighbours, by the estimator that the data call for.

    A variable is discrete where 95 % of its rows occur more than k times, continuous where no column repeats more than 5 % of its
    values, else mixed. All continuous: `KSG`, in more than four dimensions beside a `reference`. All discrete: `PlugIn`, which
    takes values for names, or, with fewer than two rows for each combination that occurs, `MixedNeighbors`, to which they are
    numbers. One discrete and one continuous: `DiscreteNeighbors`. Anything else: `MixedNeighbors`. The result's `method` says
    which. Options and errors are those of these classes. Nothing is drawn but the reference's samples.

    reference: how continuous data in more than four dimensions are treated, where smoothing hides much of the information (its
    `method` becomes the KSG of these options); None for the bare estimator.
    """

    k: int = 5
    margins: Margins | None = field(default_factory=NormalScores)
    extrapolation: RankExtrapolation | None = field(default_factory=RankExtrapolation)
    reference: ReferencedInformation | None = field(default_factory=ReferencedInformation)

    references = ("kraskov-2004", "frenzel-pompe-2007", "gao-2017", "ross-2014")

    def __post_init__(self) -> None:
        whole_number(self.k, 1, "k")

    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from paired rows x (n, d1), y (n, d2)."""
        kinds = {self._kind(x), self._kind(y)}
        if kinds == {"discrete", "continuous"}:
            return DiscreteNeighbors(self.k, self.margins, self.extrapolation).mutual_information(x, y, level=level)
        chosen = self._chosen(kinds, x, y)
        if isinstance(chosen, KSG) and self.reference is not None and x.shape[1] + y.shape[1] > COVERED:
            return replace(self.reference, method=chosen).mutual_information(x, y, level=level, generator=generator)
        return chosen.mutual_information(x, y, level=level)

    def conditional_mutual_information(
        self, x: Tensor, y: Tensor, z: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y | Z) from paired rows x (n, d1), y (n, d2), z (n, d3)."""
        chosen = self._chosen({self._kind(x), self._kind(y), self._kind(z)}, x, y, z)
        return chosen.conditional_mutual_information(x, y, z, level=level)

    def _chosen(self, kinds: set[str], *samples: Tensor) -> KSG | MixedNeighbors | PlugIn:
        if kinds == {"continuous"}:
            return KSG(self.k, 1, self.margins, self.extrapolation)
        if kinds == {"discrete"}:
            cells = len(torch.unique(torch.cat(samples, 1), dim=0))
            # On a lattice the extrapolation to rank zero has nothing to go by: the value of k, without an interval.
            return PlugIn() if len(samples[0]) >= _FILLED * cells else MixedNeighbors(self.k, self.margins, None)
        return MixedNeighbors(self.k, self.margins, self.extrapolation)

    def _kind(self, s: Tensor) -> str:
        counts = torch.unique(s, dim=0, return_counts=True)[1]
        if int(counts[counts <= self.k].sum()) <= _RARE * len(s) and len(s) > self.k:
            return "discrete"
        varying = [c for c in s.unbind(1) if bool((c != c[0]).any())]
        fewest = min((len(torch.unique(c)) for c in varying), default=len(s))
        return "continuous" if len(s) - fewest <= _RARE * len(s) else "mixed"


__all__ = ["NeighborInformation"]
