"""Every divergence between laws with finitely many values: the sum over the values."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, MixtureSameFamily, OneHotCategorical

from discrepancy.divergences.affinity import log_affinity
from discrepancy.divergences.alpha_beta import AlphaBeta
from discrepancy.divergences.bregman import Bregman
from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.closed_form.integrals import power_integral
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.hoelder import ProjectiveDivergence
from discrepancy.divergences.kullback_leibler import KL
from discrepancy.divergences.measures import safe_log
from discrepancy.divergences.ratio import RatioDivergence


def _probabilities(law: Any) -> Tensor | None:
    """Probabilities (..., K) where the law was built from them: they keep their zeros, which torch's logits would blur."""
    if isinstance(law, Bernoulli) and "probs" in vars(law):
        return torch.stack([law.probs, 1 - law.probs], -1)
    return law.probs if isinstance(law, Categorical | OneHotCategorical) and "probs" in vars(law) else None


def log_probabilities(law: Any) -> Tensor | None:
    """log-probabilities (..., K) of a law with finitely many values, a mixture of such laws among them; None for another law."""
    given = _probabilities(law)
    if given is not None:
        return safe_log(given)
    if isinstance(law, Bernoulli):
        return torch.log_softmax(torch.stack([law.logits, torch.zeros_like(law.logits)], -1), -1)
    if isinstance(law, Categorical | OneHotCategorical):
        return torch.log_softmax(law.logits, -1)
    if isinstance(law, Binomial):
        count = int(law.total_count.max())
        if not bool((law.total_count == count).all()):
            return None
        values = torch.arange(count + 1, dtype=law.logits.dtype, device=law.logits.device)
        values = values.reshape(-1, *(1,) * len(law.batch_shape)).expand(-1, *law.batch_shape)
        return law.log_prob(values).movedim(0, -1)
    if isinstance(law, MixtureSameFamily):
        parts, shares = log_probabilities(law.component_distribution), log_probabilities(law.mixture_distribution)
        return None if parts is None or shares is None else torch.logsumexp(shares.unsqueeze(-1) + parts, -2)
    return None


def _aligned(P: Any, Q: Any) -> tuple[Tensor, Tensor] | None:
    log_p, log_q = log_probabilities(P), log_probabilities(Q)
    if log_p is None or log_q is None:
        return None
    short = log_q.shape[-1] - log_p.shape[-1]
    if short and isinstance(P, Binomial) and isinstance(Q, Binomial):
        # Values beyond the smaller count have no mass.
        pads = ((max(short, 0), log_p), (max(-short, 0), log_q))
        log_p, log_q = (torch.nn.functional.pad(t, (0, by), value=-torch.inf) for by, t in pads)
    elif short:
        raise ValueError(f"P has {log_p.shape[-1]} categories and Q has {log_q.shape[-1]}: they must be the same")
    log_p, log_q = torch.broadcast_tensors(log_p, log_q)
    return log_p, log_q


def _over_categories(divergence: Divergence, P: Any, Q: Any) -> Tensor | None:
    p, q = _probabilities(P), _probabilities(Q)
    if p is not None and q is not None and p.shape[-1] == q.shape[-1]:
        p, q = torch.broadcast_tensors(p, q)
        return divergence._from_probs(p, q)
    laws = _aligned(P, Q)
    return None if laws is None else divergence._from_logits(*laws)


def _integral(P: Any, Q: Any, a: float, b: float) -> Tensor | None:
    laws = _aligned(P, Q)
    if laws is None:
        return None
    if a + b == 1:
        return log_affinity(a, *laws)
    log_p, log_q = laws
    exponent = torch.zeros_like(log_p)
    for power, log_mass in ((a, log_p), (b, log_q)):
        if power:  # zero to the power zero is one
            exponent = exponent + power * log_mass
    none = (exponent == -torch.inf).all(-1)
    value = torch.logsumexp(torch.where(none.unsqueeze(-1), torch.zeros_like(exponent), exponent), -1)
    return torch.where(none, torch.full_like(value, -torch.inf), value)


_FAMILIES = (Categorical, OneHotCategorical, Bernoulli, Binomial, MixtureSameFamily)
_SAME = {(left, right) for left, right in itertools.product(_FAMILIES, repeat=2) if left is right}
_MIXED = {(MixtureSameFamily, Categorical), (Categorical, MixtureSameFamily)}

for _left, _right in sorted(_SAME | _MIXED, key=str):
    power_integral(_left, _right)(_integral)
    for _kind in (Divergence, FDivergence, KL, RatioDivergence, ProjectiveDivergence, AlphaBeta, Bregman):
        closed_form(_kind, _left, _right)(_over_categories)

__all__ = ["log_probabilities"]
