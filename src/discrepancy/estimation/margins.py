"""One coordinate at a time to a common scale: mutual information does not change under it, networks need it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Margins(ABC):
    """An increasing map a coordinate, learned from a sample: it changes no mutual information and, shared, no divergence."""

    @abstractmethod
    def fit(self, sample: Tensor) -> FittedMargins:
        """The map of the columns of a sample (n, d), none of them constant."""


class FittedMargins(ABC):
    """A map of points (m, d) to points (m, d), a coordinate at a time."""

    @abstractmethod
    def __call__(self, points: Tensor) -> Tensor:
        """The points on the common scale, in their dtype."""


@dataclass(frozen=True)
class Standardised(Margins):
    """(x - mean) / standard deviation. Linear, hence right for entropies too; one far outlier flattens the rest."""

    def fit(self, sample: Tensor) -> FittedAffine:
        """Mean and deviation of each column."""
        return FittedAffine(sample.mean(0), sample.std(0, unbiased=False))


@dataclass(frozen=True)
class NormalScores(Margins):
    """Phi^-1(F_n(x)): every column standard normal whatever its law was, so that neither units nor heavy tails matter.

    F_n is (mid-rank - 1/2)/n, the same for equal values; scores are linear between the values of the sample. Only the order
    within a column is looked at, never who is paired with whom.
    """

    def fit(self, sample: Tensor) -> FittedNormalScores:
        """The distinct values of each column with their scores. n log n time a column."""
        return FittedNormalScores(tuple(_scored(column) for column in sample.detach().double().unbind(1)))


@dataclass(frozen=True)
class FittedAffine(FittedMargins):
    """(x - mean) / deviation with mean and deviation (d,)."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """The standardised points."""
        return (points - self.mean) / self.deviation


@dataclass(frozen=True)
class FittedNormalScores(FittedMargins):
    """Tables (values, scores) of each column, linear in between; beyond the sample's range the end scores."""

    tables: tuple[tuple[Tensor, Tensor], ...]

    def __call__(self, points: Tensor) -> Tensor:
        """The scores of the points."""
        columns = [_interpolated(c, *t) for c, t in zip(points.double().unbind(1), self.tables, strict=True)]
        return torch.stack(columns, 1).to(points.dtype)


def _scored(column: Tensor) -> tuple[Tensor, Tensor]:
    values, counts = torch.unique(column, return_counts=True)
    middle = (counts.cumsum(0) - counts / 2) / len(column)
    return values, torch.special.ndtri(middle.double())


def _interpolated(points: Tensor, values: Tensor, scores: Tensor) -> Tensor:
    if len(values) == 1:
        return scores.expand(len(points)).clone()
    right = torch.searchsorted(values, points.contiguous()).clamp(1, len(values) - 1)
    low, high = values[right - 1], values[right]
    share = ((points - low) / (high - low)).clamp(0, 1)
    return torch.lerp(scores[right - 1], scores[right], share)


__all__ = ["FittedMargins", "Margins", "NormalScores", "Standardised"]
