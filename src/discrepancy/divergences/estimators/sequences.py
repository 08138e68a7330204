"""Sampled sequences: one ratio a sequence, or one a token given what came before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import as_tensor, fraction
from discrepancy.divergences.cone import require_f_divergence
from discrepancy.divergences.estimators.evaluation import log_ratios, mean_of_terms, summary
from discrepancy.divergences.estimators.terms import Centred, FittedLinear, RatioEstimator
from discrepancy.divergences.f_divergence import FDivergence


def sequence_estimate(
    f: FDivergence, token_log_r: Any, mask: Any = None, estimator: RatioEstimator | None = None, *, level: float = 0.95
) -> Estimate:
    """D_f between the laws of whole sequences, from token log-ratios (..., n, T) of n sequences sampled from Q.

    token_log_r holds log p(x_t | x_<t) / q(x_t | x_<t); `mask` (..., n, T), True at tokens of the response. The ratio of a
    sequence is the product of its tokens'. Unbiased as `estimate_from_q`; the spread of the ratios grows with the length.
    Raises ValueError for NaN and for a sequence without a token.
    """
    require_f_divergence(f)
    u, kept = _tokens(token_log_r, mask)
    total = torch.where(kept, u, torch.zeros_like(u)).sum(-1)
    return mean_of_terms(f, total, estimator or Centred(), None, level, "Q", as_tensor(token_log_r, "token_log_r").dtype)


def token_estimate(
    f: FDivergence, token_log_r: Any, mask: Any = None, estimator: RatioEstimator | None = None, *, level: float = 0.95
) -> Estimate:
    """E_Q[sum over t of D_f(P(. | x_<t) || Q(. | x_<t))], the tokens' divergences along sequences sampled from Q.

    Shapes as in `sequence_estimate`. By the chain rule it equals the divergence of whole sequences for ReverseKL; for other
    generators it is another number, of smaller variance. The standard error is that of sums over sequences, whose tokens depend
    on each other. Unbiased for estimators without fitted coefficients, which it takes only.
    """
    require_f_divergence(f)
    estimator = estimator or Centred()
    if isinstance(estimator, FittedLinear):
        raise TypeError(
            "token_estimate takes no fitted coefficient, since tokens of a sequence depend on each other: use Centred()"
        )
    if not isinstance(estimator, RatioEstimator):
        raise TypeError(f"estimator must be a RatioEstimator such as Centred(), got {estimator!r}")
    u, kept = _tokens(token_log_r, mask)
    u = torch.where(kept, u, torch.zeros_like(u))
    terms = torch.where(kept, estimator.terms(f, u, torch.full_like(u, 1 / u.shape[-1])), torch.zeros_like(u)).sum(-1)
    w = torch.full_like(terms, 1 / terms.shape[-1])
    dtype = as_tensor(token_log_r, "token_log_r").dtype
    return summary(terms, w, estimator, fraction(level, "level"), f"{estimator!r} of {f!r} at tokens of Q's sequences", dtype)


def _tokens(token_log_r: Any, mask: Any) -> tuple[Tensor, Tensor]:
    u = as_tensor(token_log_r, "token_log_r")
    if u.ndim < 2 or 0 in u.shape[-2:]:
        raise ValueError(f"token_log_r must have shape (..., sequences, tokens), got {tuple(u.shape)}")
    if mask is None:
        kept = torch.ones(u.shape, dtype=torch.bool, device=u.device)
    else:
        kept = torch.as_tensor(mask, device=u.device)
        if kept.dtype != torch.bool or kept.shape != u.shape:
            raise ValueError(f"mask must be boolean of shape {tuple(u.shape)}, got {kept.dtype} of {tuple(kept.shape)}")
        empty = int((~kept.any(-1)).sum())
        if empty:
            raise ValueError(f"mask leaves {empty} of {kept.shape[:-1].numel()} sequence(s) without a token: leave these out")
        u = torch.where(kept, u, torch.zeros_like(u))
    return log_ratios(u), kept


__all__ = ["sequence_estimate", "token_estimate"]
