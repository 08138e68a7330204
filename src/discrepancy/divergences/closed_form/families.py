"""Kullback-Leibler divergences between the families that torch.distributions knows, and between exponential families at large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Poisson, kl_divergence

from discrepancy.divergences.closed_form import closed_form, exponential_family
from discrepancy.divergences.kullback_leibler import KL


@closed_form(KL, Distribution, Distribution)
def _kullback_leibler(divergence: KL, P: Any, Q: Any) -> Tensor | None:
    """Torch's table of pairs where it has an entry, else the Bregman divergence of the log-partition."""
    try:
        return kl_divergence(P, Q)
    except NotImplementedError:
        return exponential_family.kullback_leibler(P, Q)


@closed_form(KL, Poisson, Poisson)
def _poisson(divergence: KL, P: Poisson, Q: Poisson) -> Tensor:
    """r log(r / s) - r + s, the divergence of the rates; exact where one is zero, which torch's entry is not."""
    rates = torch.broadcast_tensors(P.rate.unsqueeze(-1), Q.rate.unsqueeze(-1))
    return divergence._from_probs(*rates)
