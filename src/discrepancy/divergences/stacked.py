"""Divergences of several laws at once, on one stacked tensor: generalised Jensen-Shannon and generalised Cauchy-Schwarz."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, sum_tolerance
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences.divergence import _warned
from discrepancy.divergences.elementary import entropy_excess, exp_excess
from discrepancy.divergences.measures import safe_log

_NEAR = 0.4  # as in affinity.py


@dataclass(frozen=True)
class StackedDivergence(ABC):
    """Compares N laws on K categories, stacked as (..., N, K): how far they are from being one and the same."""

    references: ClassVar[tuple[str, ...]] = ()

    def from_probs(self, p: Any) -> Tensor:
        """The divergence of N probability vectors, p (..., N, K) with rows of sum one (as `Divergence.from_probs`) -> (...).

        Differentiable. Raises ValueError for fewer than two laws and for rows that are no probability vectors.
        Time and memory O(size).
        """
        loose = sum_tolerance(p)
        p = self._stack(p, "p")
        return self._checked(self._from_logs(safe_log(checked_weights(p, p.shape, "p", like=p, tolerance=loose))))

    def from_logits(self, u: Any, mask: Any = None) -> Tensor:
        """The divergence of the N laws softmax(u), u (..., N, K) -> (...), stable for logits of any size.

        -inf excludes a category from one law, `mask` (boolean, broadcastable, True keeps) from all that it covers.
        Raises ValueError for NaN, +inf, and a law without a category.
        """
        u = self._stack(u, "u")
        bad = torch.isnan(u.detach()) | (u.detach() == torch.inf)
        if bool(bad.any()):
            where = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(f"u has {int(bad.sum())} logit(s) that are NaN or +inf, the first at index {where}")
        if mask is not None:
            kept = torch.as_tensor(mask, device=u.device)
            if kept.dtype != torch.bool:
                raise TypeError(f"mask must be boolean (True keeps a category), got {kept.dtype}")
            u = u.masked_fill(~kept, -torch.inf)
        if bool((u.detach() == -torch.inf).all(-1).any()):
            raise ValueError("u has a row without a category: every logit is -inf or masked")
        return self._checked(self._from_logs(torch.log_softmax(u, -1)))

    def _stack(self, p: Any, name: str) -> Tensor:
        p = as_tensor(p, name)
        if p.ndim < 2 or p.shape[-2] < 2 or p.shape[-1] == 0:
            raise ValueError(f"{name} must stack at least two laws as (..., N, K), got shape {tuple(p.shape)}")
        return p

    def _checked(self, value: Tensor) -> Tensor:
        return _warned(self, value)  # type: ignore[arg-type]  (it reads the repr only)

    @abstractmethod
    def _from_logs(self, log_p: Tensor) -> Tensor:
        """The value on log-probabilities (..., N, K), -inf where there is no mass."""


def _from_the_largest(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest log-probability of each category over the laws (0 where none has it), and the others relative to it."""
    top = log_p.detach().amax(-2, keepdim=True)
    index = log_p.detach().argmax(-2, keepdim=True)
    missing = top == -torch.inf
    reference = torch.where(missing, torch.zeros_like(top), log_p.gather(-2, index))
    return reference, torch.where(missing, torch.full_like(log_p, -torch.inf), log_p - reference)


@dataclass(frozen=True)
class GeneralizedJensenShannon(StackedDivergence):
    """H(sum_i w_i P_i) - sum_i w_i H(P_i) = sum_i w_i KL(P_i || M) for N laws with weights w: the information about which
    law a draw came from, in nats.

    Zero where all laws with a weight are equal, at most the entropy of w, hence log N. weights: N non-negative numbers of sum
    one, or None for equal ones (any N). JensenShannon for two equal weights, SkewedJensenShannon(w) for (w, 1 - w).
    """

    weights: tuple[float, ...] | None = None

    references = ("lin-1991",)

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        given = self.weights if hasattr(self.weights, "dtype") else torch.tensor(list(self.weights), dtype=torch.float64)
        like = torch.zeros((), dtype=torch.float64)
        w = checked_weights(given, (len(given),), "weights", like=like)
        if len(given) < 2:
            raise ValueError(f"weights must be given for two laws at least, got {len(given)}")
        object.__setattr__(self, "weights", tuple(w.tolist()))

    def _from_logs(self, log_p: Tensor) -> Tensor:
        n = log_p.shape[-2]
        if self.weights is not None and len(self.weights) != n:
            raise ValueError(f"{len(self.weights)} weights were given for {n} laws, stacked along the dimension before the last")
        w = (
            torch.full((n,), 1 / n, dtype=torch.float64)
            if self.weights is None
            else torch.tensor(self.weights, dtype=torch.float64)
        )
        w = w.to(log_p)
        log_p, w = log_p[..., w > 0, :], w[w > 0].unsqueeze(-1)
        reference, v = _from_the_largest(log_p)
        # log of the mixture over the largest: v <= 0, so that nothing overflows, and equal laws give exactly zero.
        rise = torch.log1p((w * torch.expm1(v)).sum(-2, keepdim=True))
        empty = v == -torch.inf
        u = torch.where(empty, torch.zeros_like(v), v - torch.where(torch.isfinite(rise), rise, torch.zeros_like(rise)))
        # KL's centred summand m (t log t - t + 1) at t = p/m is never negative; a law without the category pays m.
        mixture = torch.exp(reference + torch.where(torch.isfinite(rise), rise, torch.zeros_like(rise)))
        terms = mixture * torch.where(empty, torch.ones_like(u), entropy_excess(u))
        nowhere = empty.all(-2, keepdim=True)
        return (w * torch.where(nowhere, torch.zeros_like(terms), terms)).sum((-2, -1))


@dataclass(frozen=True)
class GeneralizedCauchySchwarz(StackedDivergence):
    """-log of sum_k prod_i p_ik over prod_i (sum_k p_ik^N)^(1/N) for N laws: Hoelder's inequality with N equal exponents.

    Zero if and only if all are proportional, +inf where they have no category in common; symmetric in the laws, projective.
    For two laws it is Hoelder(2, 2), half of CauchySchwarz.
    """

    references = ("cs-cross-modal",)

    def _from_logs(self, log_p: Tensor) -> Tensor:
        n = log_p.shape[-2]
        escort = torch.log_softmax(n * log_p, -1)
        empty = (escort == -torch.inf).any(-2, keepdim=True)
        disjoint = empty.all(-1, keepdim=True)
        lost = empty & ~disjoint
        clean = torch.where(empty, torch.zeros_like(escort), escort)
        # Relative to the largest, so that equal laws have their own mean, exactly.
        largest = clean.amax(-2, keepdim=True)
        mean = largest + (clean - largest).mean(-2, keepdim=True)
        value = -torch.logsumexp(torch.where(lost, torch.full_like(mean, -torch.inf), mean).squeeze(-2), -1)
        near = (value.detach().abs() < _NEAR) & ~disjoint.squeeze(-1).squeeze(-1)
        if bool(near.any()):
            keep = near[..., None, None]
            # One minus the affinity is the arithmetic less the geometric mean of the escorts, each category's part positive.
            d = torch.where(keep & ~empty, clean - mean, torch.zeros_like(clean))
            small = d.abs() < 1
            zero = torch.zeros_like(d)
            geometric = torch.exp(torch.where(keep, mean, torch.zeros_like(mean)))
            close = geometric * exp_excess(torch.where(small, d, zero))
            far = torch.exp(torch.where(keep, clean, zero)) - geometric * (1 + d)
            gap = torch.where(small, close, far)
            gap = torch.where(empty, torch.exp(torch.where(keep, escort, zero)), gap)
            loss = torch.where(keep, gap, zero).sum((-2, -1)) / n
            value = torch.where(near, -torch.log1p(-loss), value)
        return torch.where(disjoint.squeeze(-1).squeeze(-1), torch.full_like(value, math.inf), value)


__all__ = ["GeneralizedCauchySchwarz", "GeneralizedJensenShannon", "StackedDivergence"]
