"""`RatioDivergence`: g(E_Q[h(dP/dQ)]), a monotone function of an expectation; Renyi and Tsallis are of this kind."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate, NumericalError
from discrepancy._validate import as_tensor, fraction
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.f_divergence import FDivergence


@dataclass(frozen=True)
class RatioDivergence(Divergence):
    """D(P || Q) = g(E_Q[h(dP/dQ)]) for h >= 0 and a smooth g; ratios of sequences reach e^200, so both work in logarithms.

    A subclass supplies `_log_inner` (log h) and `_outer` (g of the logarithm of the mean) beside what every `Divergence` does.
    """

    @abstractmethod
    def _log_inner(self, u: Tensor) -> Tensor:
        """log h(e^u) for u in [-inf, inf)."""

    @abstractmethod
    def _outer(self, log_mean: Tensor) -> Tensor:
        """g(e^log_mean)."""

    def _as_f_divergence(self) -> FDivergence | None:
        """The f-divergence that equals this one at its option (Renyi of order 1 is KL), or None."""
        return None

    def inner(self, t: Any = None, *, log_t: Any = None) -> Tensor:
        """h(t), elementwise, at t or at t = e^log_t."""
        if (t is None) == (log_t is None):
            raise TypeError("give either t or log_t, and not both")
        return torch.exp(self._log_inner(torch.log(as_tensor(t, "t")) if log_t is None else as_tensor(log_t, "log_t")))

    def outer(self, mean: Any) -> Tensor:
        """g(mean), elementwise."""
        return self._outer(torch.log(as_tensor(mean, "mean")))

    def from_log_ratio(self, log_r: Any, weights: Any = None, linear: float = 0.0, *, level: float = 0.95) -> Estimate:
        """Monte Carlo: g(mean of h(t) + linear (t - 1)) over samples from Q, t = e^log_r, with the delta method's error.

        log_r (..., n) is log p/q at samples of Q, `weights` (..., n) their importance weights (sum one; equal where omitted).
        E_Q[t] = 1, so `linear` is the coefficient of a control variate: for Renyi(a), linear=-a takes off the first-order noise
        that makes the error grow like 1/|a - 1| next to order 1. Consistent; its bias is O(1/n), as of any smooth function of a
        mean. Evaluated in float64. Raises ValueError for NaN, NumericalError where the mean is not positive.
        """
        same = self._as_f_divergence()
        if same is not None:
            return same.from_log_ratio(log_r, weights, linear, level=level)
        log_r = as_tensor(log_r, "log_r")
        if log_r.ndim == 0 or log_r.shape[-1] == 0:
            raise ValueError(f"log_r must hold samples along its last dimension, got shape {tuple(log_r.shape)}")
        missing = int(torch.isnan(log_r.detach()).sum())
        if missing:
            raise ValueError(f"log_r has {missing} NaN of {log_r.numel()} values")
        if not math.isfinite(linear):
            raise ValueError(f"linear must be finite, got {linear!r}")
        level = fraction(level, "level")
        w = checked_weights(weights, log_r.shape, "weights", like=log_r).double()
        w = w / w.sum(-1, keepdim=True)
        log_mean, relative = self._log_mean(log_r.double(), w, float(linear))
        value = self._outer(log_mean)
        name = f"Monte Carlo of {self!r}, n = {log_r.shape[-1]}" + (f", linear = {linear:g}" if linear else "")
        result = value.to(log_r.dtype)
        if relative is None or not bool(torch.isfinite(value.detach()).all()):
            why = "a single effective sample has no spread" if relative is None else "the value is infinite"
            return Estimate(result, method=name, note=f"no standard error: {why}")
        with torch.enable_grad():
            at = log_mean.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._outer(at).sum(), at)
        error = slope.abs() * relative
        half, centre = NormalDist().inv_cdf(0.5 + level / 2) * error, value.detach()
        low, high = (centre - half).to(log_r.dtype), (centre + half).to(log_r.dtype)
        return Estimate(result, error.to(log_r.dtype), low, high, level, method=name + ", delta method")

    def _log_mean(self, u: Tensor, w: Tensor, linear: float) -> tuple[Tensor, Tensor | None]:
        """The logarithm of the mean, and the standard error of the mean relative to it (None for one effective sample)."""
        log_h = self._log_inner(u)
        counted = w > 0
        if linear == 0.0:
            log_w = torch.where(counted, torch.where(counted, w, torch.ones_like(w)).log(), torch.full_like(w, -torch.inf))
            exponent = torch.where(counted, log_h, torch.zeros_like(log_h)) + log_w
            if bool((exponent.detach() == -torch.inf).all(-1).any()):
                return exponent.detach().amax(-1), None
            log_mean = torch.logsumexp(exponent, -1)
            scaled = torch.exp(log_h.detach() - log_mean.detach().unsqueeze(-1))
        else:
            terms = torch.where(counted, torch.exp(log_h) + linear * torch.expm1(u), torch.zeros_like(u))
            mean = (w * terms).sum(-1)
            if not bool((mean.detach() > 0).all()):
                raise NumericalError(
                    f"the mean of h(t) and {linear:g} (t - 1) is {float(mean.detach().min()):.4g}, "
                    f"of which {self!r} has no value: use linear=0.0"
                )
            log_mean, scaled = torch.log(mean), terms.detach() / mean.detach().unsqueeze(-1)
        with torch.no_grad():
            effective = 1 / (w * w).sum(-1)
            if bool((effective <= 1 + 1e-9).any()):
                return log_mean, None
            parts = torch.where(counted, (w * (scaled - 1)) ** 2, torch.zeros_like(w))
            return log_mean, torch.sqrt(parts.sum(-1) * effective / (effective - 1))

    def reversed(self) -> Divergence:
        """g(E_P[h(dQ/dP)]): the divergence with its arguments exchanged."""
        return ReversedRatioDivergence(self)


@dataclass(frozen=True)
class ReversedRatioDivergence(RatioDivergence):
    """D(Q || P) as a divergence of (P, Q): E_P[h(q/p)] = E_Q[t h(1/t)] with t = p/q."""

    base: RatioDivergence

    def __post_init__(self) -> None:
        if not isinstance(self.base, RatioDivergence):
            raise TypeError(f"expected a RatioDivergence such as Renyi(2), got {self.base!r}")

    def __repr__(self) -> str:
        return f"{self.base!r}.reversed()"

    def _log_inner(self, u: Tensor) -> Tensor:
        return u + self.base._log_inner(-u)

    def _outer(self, log_mean: Tensor) -> Tensor:
        return self.base._outer(log_mean)

    def _as_f_divergence(self) -> FDivergence | None:
        same = self.base._as_f_divergence()
        return None if same is None else same.reversed()

    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        return self.base._from_probs(q, p)

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self.base._from_logits(log_q, log_p)

    def reversed(self) -> Divergence:
        """The base."""
        return self.base


__all__ = ["RatioDivergence", "ReversedRatioDivergence"]
