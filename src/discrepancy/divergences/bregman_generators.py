"""Convex functions phi with well-known Bregman divergences: squared norm, negative entropy, Itakura-Saito, Fermi-Dirac."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy.divergences.alpha_beta import AlphaBeta
from discrepancy.divergences.kullback_leibler import KL


class BregmanGenerator(ABC):
    """A convex phi on vectors (..., K) with its Bregman divergence; a subclass is a frozen dataclass.

    `domain` is the interval in which the entries lie. A subclass of your own may be any convex function of the whole vector:
    it supplies `divergence(p, q)` of shape (...), +inf where phi has no finite slope.
    """

    domain: ClassVar[tuple[float, float]] = (0.0, math.inf)

    @abstractmethod
    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """phi(p) - phi(q) - <grad phi(q), p - q>, (..., K) in and (...) out."""

    def log_divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The same from logarithms of the entries, -inf where they are zero."""
        return self.divergence(torch.exp(log_p), torch.exp(log_q))


@dataclass(frozen=True)
class SquaredNorm(BregmanGenerator):
    """phi(x) = |x|^2 on the whole space: the divergence is |p - q|^2, symmetric (Brier's score between probability vectors)."""

    domain = (-math.inf, math.inf)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """|p - q|^2."""
        return (p - q).square().sum(-1)

    def log_divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """|p - q|^2, where |p - q| = max(p, q) (1 - e^-|log p/q|) keeps its digits next to equality."""
        empty = (log_p == -torch.inf) & (log_q == -torch.inf)
        zero = torch.zeros_like(log_p)
        large = torch.where(empty, zero, torch.maximum(log_p, log_q))
        small = torch.where(empty, zero, torch.minimum(log_p, log_q))
        lost = small == -torch.inf
        fall = torch.where(lost, -torch.ones_like(zero), torch.expm1(torch.where(lost, large, small) - large))
        return torch.where(empty, zero, (torch.exp(large) * fall).square()).sum(-1)


@dataclass(frozen=True)
class NegativeEntropy(BregmanGenerator):
    """phi(x) = sum x log x on x >= 0: the divergence is sum p log p/q - p + q, KL between vectors of any mass."""

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """sum p log p/q - p + q; +inf where q = 0 < p."""
        return KL()._from_probs(p, q)

    def log_divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The same from logarithms."""
        return KL()._from_logits(log_p, log_q)


@dataclass(frozen=True)
class ItakuraSaito(BregmanGenerator):
    """phi(x) = -sum log x on x > 0: the divergence is sum p/q - log p/q - 1, the same for (c p, c q) as for (p, q).

    +inf where one of the two entries is zero; entries that are zero in both are left out.
    """

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """sum p/q - log p/q - 1."""
        return AlphaBeta(1.0, -1.0)._from_values(p, q)

    def log_divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The same from logarithms."""
        return AlphaBeta(1.0, -1.0)._from_logits(log_p, log_q)


def _log_complement(log_p: Tensor) -> Tensor:
    """log(1 - p_k) of log-probabilities that sum to one along the last dimension, exact where p_k is next to one."""
    top = log_p.detach().argmax(-1, keepdim=True)
    is_top = torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, top, True)
    # Everything but the largest: its complement is their sum, and no 1 - p is formed.
    others = torch.where(is_top, torch.full_like(log_p, -torch.inf), log_p)
    alone = (others == -torch.inf).all(-1, keepdim=True)
    rest = torch.logsumexp(torch.where(alone, torch.zeros_like(others), others), -1, keepdim=True)
    rest = torch.where(alone, torch.full_like(rest, -torch.inf), rest)
    small = torch.where(is_top, torch.full_like(log_p, -math.log(2.0)), log_p)
    return torch.where(is_top, rest, torch.log1p(-torch.exp(small)))


@dataclass(frozen=True)
class FermiDirac(BregmanGenerator):
    """phi(x) = sum x log x + (1 - x) log(1 - x) on [0, 1]: the sum over entries of KL between Bernoulli laws."""

    domain = (0.0, 1.0)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """sum p log p/q + (1 - p) log (1 - p)/(1 - q); +inf where q is 0 or 1 and p is not."""
        return KL()._from_probs(p, q) + KL()._from_probs(1 - p, 1 - q)

    def log_divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The same from logarithms of probability vectors."""
        return KL()._from_logits(log_p, log_q) + KL()._from_logits(_log_complement(log_p), _log_complement(log_q))


__all__ = ["BregmanGenerator", "FermiDirac", "ItakuraSaito", "NegativeEntropy", "SquaredNorm"]
