"""Mutual information of two variables from histograms whose numbers of bins are chosen from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import whole_number
from discrepancy.estimation.association import Association, one_pair
from discrepancy.estimation.margins import Margins, Standardised


def birge_rozenholc(columns: Tensor, most: int = 100) -> Tensor:
    """The number of equal bins (p,) for each column (n, p): the D in 2, ..., `most` with the largest penalised likelihood.

    That is sum_j N_j log N_j + n log D - (D - 1 + (log D)^2.5) for the counts N_j of D equal bins between the least and the
    largest value. The smallest of several D that are equally good. O(n p most) time. Source: Birge and Rozenholc (2006).
    """
    n, p = columns.shape
    best, bins = columns.new_full((p,), -math.inf), torch.full((p,), 2)
    shares = _shares(columns)
    for d in range(2, whole_number(most, 2, "most") + 1):
        counts = _counts(_bins(shares, d), d)
        value = torch.xlogy(counts, counts).sum(1) + n * math.log(d) - (d - 1 + math.log(d) ** 2.5)
        better = value > best
        best, bins = torch.where(better, value, best), torch.where(better, torch.full_like(bins, d), bins)
    return bins


@dataclass(frozen=True)
class HistogramInformation(Association):
    """The plug-in information sum (N_jk / n) log(n N_jk / (N_j N_k)) of a two-way histogram, in nats.

    Each variable is cut into equal bins between its extremes, after `margins`, as many as Birge and Rozenholc's penalised
    likelihood asks for, at most `most`. With `labels` the classes of y are its bins. The plug-in value is biased upward by
    about (bins of x - 1) (bins of y - 1) / (2 n), also at independence: 0.06 nats for normal data with n = 5000. `corrected`
    takes off Miller and Madow's estimate of it, (cells - rows - columns + 1) / (2 n) of those that are occupied, which leaves
    0.02, and may leave a value below zero; without it (the thesis) values of columns with other numbers of bins do not compare.
    What bins blur lowers the value. Hence no interval: rank by it, or calibrate it by permutation. Integers with few values are
    exact: empty bins cost nothing. O(n) time a pair, after O(n most) for each variable. The default margins are linear, hence
    nothing is invariant to curved maps, and one far outlier leaves two bins only: `NormalScores()` cures that.
    Raises ValueError for fewer than two bins and for sides of several columns.
    """

    most: int = 100
    margins: Margins = field(default_factory=Standardised)
    labels: bool = False
    corrected: bool = True

    references = ("robust-high-dimensional", "birge-rozenholc-2006")

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.most, 2, "most")
        if not isinstance(self.margins, Margins):
            raise TypeError(f"margins must be NormalScores() or Standardised(), got {self.margins!r}")

    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) in nats from paired rows x (n, 1), y (n, 1); deterministic, without an interval."""
        bias = "counting noise raises the value and bins lower it, by amounts that are not known together; rank, or permute"
        return one_pair(self, x, y, self.labels, f"histogram, {self!r}", bias)

    @torch.no_grad()
    def scores(self, columns: Tensor, outcomes: Tensor, classes: int | None = None) -> Tensor:
        """The information (R, p) in nats."""
        n = len(columns)
        z = self.margins.fit(columns)(columns)
        if classes is None:
            y = self.margins.fit(outcomes[:1].T)(outcomes.reshape(-1, 1)).reshape(outcomes.shape)
            k = int(birge_rozenholc(y[0][:, None], self.most))
            codes = _bins(_shares(y.T), k).T
        else:
            k, codes = classes, outcomes.long()
        shares, bins = _shares(z), birge_rozenholc(z, self.most)
        out = z.new_empty(len(outcomes), z.shape[1])
        own = _counts(codes[:1].T, k)
        for j, d in enumerate(bins.tolist()):
            cells = _bins(shares[:, j], d)
            joint = _counts((cells * k + codes).T, d * k)
            margin = _counts(cells[:, None], d)
            out[:, j] = _entropy(own, n) + _entropy(margin, n) - _entropy(joint, n)
            if self.corrected:
                out[:, j] += (_occupied(own) + _occupied(margin) - _occupied(joint) - 1) / (2 * n)
        return out if self.corrected else out.clamp_min(0)


def _shares(columns: Tensor) -> Tensor:
    """Where each value stands between its column's extremes, in [0, 1]."""
    low, high = columns.amin(0), columns.amax(0)
    return (columns - low) / (high - low)


def _bins(shares: Tensor, d: int) -> Tensor:
    return (shares * d).long().clamp_max(d - 1)


def _counts(cells: Tensor, d: int) -> Tensor:
    """How often each of d cells occurs in each column of cells (n, p), as (p, d)."""
    p = cells.shape[1]
    place = cells + d * torch.arange(p, device=cells.device)
    return torch.bincount(place.flatten(), minlength=p * d).reshape(p, d).double()


def _occupied(counts: Tensor) -> Tensor:
    return (counts > 0).sum(1).to(counts.dtype)


def _entropy(counts: Tensor, n: int) -> Tensor:
    return math.log(n) - torch.xlogy(counts, counts).sum(1) / n


__all__ = ["HistogramInformation", "birge_rozenholc"]
