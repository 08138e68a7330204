"""Kullback-Leibler divergences between the families that torch.distributions knows."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.kullback_leibler import KL, Jeffreys, ReverseKL


def kullback_leibler(divergence: Divergence, P: Any, Q: Any) -> Tensor | None:
    """KL, ReverseKL or Jeffreys through torch's table of pairs; None where there is no entry."""
    if not (isinstance(P, Distribution) and isinstance(Q, Distribution)):
        return None
    try:
        if isinstance(divergence, KL):
            return kl_divergence(P, Q)
        if isinstance(divergence, ReverseKL):
            return kl_divergence(Q, P)
        if isinstance(divergence, Jeffreys):
            return kl_divergence(P, Q) + kl_divergence(Q, P)
    except NotImplementedError:
        return None
    return None


__all__ = ["kullback_leibler"]
