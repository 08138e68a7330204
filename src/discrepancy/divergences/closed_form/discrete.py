"""Every f-divergence between categorical and between Bernoulli laws: the sum over categories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical

from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.f_divergence import FDivergence


def _log_probabilities(law: Any) -> Tensor:
    """log-probabilities (..., K). A law built from probabilities keeps its zeros, which torch's logits would blur."""
    if isinstance(law, Bernoulli):
        if "probs" in vars(law):
            return torch.log(torch.stack([law.probs, 1 - law.probs], -1))
        both = torch.stack([law.logits, torch.zeros_like(law.logits)], -1)
        return torch.log_softmax(both, -1)
    return torch.log(law.probs) if "probs" in vars(law) else torch.log_softmax(law.logits, -1)


def _over_categories(divergence: FDivergence, P: Any, Q: Any) -> Tensor:
    log_p, log_q = _log_probabilities(P), _log_probabilities(Q)
    if log_p.shape[-1] != log_q.shape[-1]:
        raise ValueError(f"P has {log_p.shape[-1]} categories and Q has {log_q.shape[-1]}: they must be the same")
    if "probs" in vars(P) and "probs" in vars(Q):
        p, q = (torch.stack([law.probs, 1 - law.probs], -1) if isinstance(law, Bernoulli) else law.probs for law in (P, Q))
        p, q = torch.broadcast_tensors(p, q)
        return divergence._from_probs(p, q)
    log_p, log_q = torch.broadcast_tensors(log_p, log_q)
    return divergence._from_logits(log_p, log_q)


for _family in (Categorical, OneHotCategorical, Bernoulli):
    closed_form(FDivergence, _family, _family)(_over_categories)
