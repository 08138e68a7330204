"""Contrast between pairs that belong together and pairs that do not: objectives, where negatives come from, a memory bank."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._validate import fraction, generator_or_default, whole_number


class ContrastiveForm(ABC):
    """A loss of the scores of positives (b,) and of their negatives (b, M), of which those in `kept` (b, M) count."""

    @abstractmethod
    def loss(self, positive: Tensor, negative: Tensor, kept: Tensor) -> Tensor:
        """The loss, a scalar."""


def _row_means(values: Tensor, kept: Tensor) -> Tensor:
    """The means of what is kept, of the rows that keep anything."""
    counts = kept.sum(-1)
    rows = counts > 0
    return (torch.where(kept, values, torch.zeros_like(values)).sum(-1)[rows] / counts[rows]).mean()


@dataclass(frozen=True)
class DualForm(ContrastiveForm):
    """-(mean of the positives) + mean over positives of the mean of their negatives: for a 1-Lipschitz score minus the dual of
    W_1 between the joint law and the product. Unbounded, and divergent within a few steps, for any other score."""

    def loss(self, positive: Tensor, negative: Tensor, kept: Tensor) -> Tensor:
        """The difference of the means, in units of the score."""
        return _row_means(negative, kept) - positive.mean()


@dataclass(frozen=True)
class NoiseContrastive(ContrastiveForm):
    """-mean log s(g - log M) - sum over the M negatives of mean log(1 - s(g - log M)), s the logistic function.

    With the ratio of noise to data, M, inside, the best score is the log density ratio of joint law and product. Rows with fewer
    negatives than M are scaled up to M. Zero at best, so that it is bounded below whatever the score.
    """

    def loss(self, positive: Tensor, negative: Tensor, kept: Tensor) -> Tensor:
        """The loss in nats a positive."""
        count = max(1, int(kept.sum(-1).max()))
        shift = math.log(count)
        return F.softplus(shift - positive).mean() + count * _row_means(F.softplus(negative - shift), kept)


@dataclass(frozen=True)
class InfoNCE(ContrastiveForm):
    """Mean of -log of the positive's share among itself and its negatives: log(M + 1) minus a bound on mutual information."""

    def loss(self, positive: Tensor, negative: Tensor, kept: Tensor) -> Tensor:
        """The loss in nats."""
        others = negative.masked_fill(~kept, -torch.inf)
        return (torch.logsumexp(torch.cat([positive[:, None], others], 1), 1) - positive).mean()


def batch_negatives(b: int, count: int | None, labels: Tensor | None, *, generator: torch.Generator | None = None) -> Tensor:
    """Which pairs (i, j) of a batch are negatives, (b, b): all j != i, or a random `count` a row; with labels, of other classes.

    Raises ValueError for a batch of one, a count above b - 1, and where labels leave no negative at all.
    """
    if b < 2:
        raise ValueError("a batch of one has no negatives: take at least two samples, or a memory bank")
    kept = ~torch.eye(b, dtype=torch.bool)
    if count is not None:
        if whole_number(count, 1, "negatives") > b - 1:
            raise ValueError(f"negatives must be at most b - 1 = {b - 1} within a batch, got {count}: use a memory bank for more")
        order = torch.rand(b, b, generator=generator_or_default(generator)).fill_diagonal_(2.0)
        kept = torch.zeros(b, b, dtype=torch.bool).scatter(1, order.argsort(1)[:, :count], torch.ones(b, b, dtype=torch.bool))
    if labels is not None:
        kept = kept.to(labels.device) & (labels[:, None] != labels)
        require_negatives(kept)
    return kept


def require_negatives(kept: Tensor) -> None:
    """Raise ValueError if no negative is left."""
    if not bool(kept.any()):
        raise ValueError("no negative is left: every candidate has the class of its positive; larger batches, or no labels")


class MemoryBank(nn.Module):
    """Embeddings of all `size` training samples, student's and teacher's (size, width), each a running mean over its visits.

    A visited sample's entry becomes momentum * old + (1 - momentum) * new, brought back to norm one; entries begin as random
    directions. They carry no gradient and grow stale when a head changes: `reset` then. Memory 2 size width. Raises ValueError
    for options out of range.
    """

    student: Tensor
    teacher: Tensor
    classes: Tensor

    def __init__(self, size: int, width: int = 128, *, momentum: float = 0.5, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.size = whole_number(size, 2, "size")
        self.width = whole_number(width, 1, "width")
        self.momentum = fraction(momentum, "momentum")
        for name in ("student", "teacher"):
            self.register_buffer(name, torch.empty(size, width))
        self.register_buffer("classes", torch.full((size,), -1))
        self.reset(generator=generator)

    @torch.no_grad()
    def reset(self, *, generator: torch.Generator | None = None) -> None:
        """Random directions again, classes unknown."""
        source = generator_or_default(generator)
        for name in ("student", "teacher"):
            entries = torch.randn(self.size, self.width, generator=source)
            getattr(self, name).copy_(F.normalize(entries, dim=-1))
        self.classes.fill_(-1)

    def draw(self, index: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Rows (b, count) of other samples for each of the samples index (b,), uniform with replacement, never its own."""
        self._checked(index)
        if whole_number(count, 1, "negatives") > self.size - 1:
            raise ValueError(f"negatives must be at most size - 1 = {self.size - 1} of the memory bank, got {count}")
        drawn = torch.randint(0, self.size - 1, (len(index), count), generator=generator_or_default(generator)).to(index.device)
        return drawn + (drawn >= index[:, None]).long()

    @torch.no_grad()
    def update(self, index: Tensor, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> None:
        """Move the entries of the visited samples towards their new embeddings."""
        self._checked(index)
        for bank, new in ((self.student, student), (self.teacher, teacher)):
            mixed = self.momentum * bank[index] + (1 - self.momentum) * new.to(bank.dtype)
            bank[index] = F.normalize(mixed, dim=-1)
        if labels is not None:
            self.classes[index] = labels.to(self.classes)

    def _checked(self, index: Tensor) -> None:
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"index must be sample numbers (b,) of an integer type, got {tuple(index.shape)} of {index.dtype}")
        if bool(((index < 0) | (index >= self.size)).any()):
            raise ValueError(f"index must lie in [0, {self.size - 1}], the samples of the memory bank, got {int(index.max())}")


__all__ = ["ContrastiveForm", "DualForm", "InfoNCE", "MemoryBank", "NoiseContrastive", "batch_negatives", "require_negatives"]
