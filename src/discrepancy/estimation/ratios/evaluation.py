"""From log-ratios at held-out points of both samples to an f-divergence: corrected with an interval, or the plug-in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy.divergences import FDivergence
from discrepancy.divergences.admission import Admission
from discrepancy.divergences.perspective import log_perspective
from discrepancy.estimation.ratios.calibration import recalibrated

_DOMINANT = 0.25  # a point that carries more than this share of a side's spread makes its standard error worthless
_FAR = 40.0  # a log-ratio at which logarithmic growth is told from a power
_EFFECTIVE = 20.0  # points that must share the spread of a side before a normal interval is believed

ADMITS = Admission("a density ratio", (FDivergence,), (), ("KL()", "JensenShannon()", "Alpha(0.5)"))


@dataclass(frozen=True)
class HeldOut:
    """log p/q at points of P (n,) and of Q (m,) that it was not fitted on, float64.

    `spread` (n,) is the jackknife variance of the former over the folds' fits, zero where it is not known.
    """

    at_p: Tensor
    at_q: Tensor
    spread: Tensor

    @staticmethod
    def of(at_p: Tensor, at_q: Tensor) -> HeldOut:
        """Log-ratios of a fixed ratio, without spread."""
        return HeldOut(at_p, at_q, torch.zeros_like(at_p))


class Evaluation(ABC):
    """How a divergence is computed from log p/q at points of P and of Q that the ratio was not fitted on."""

    @abstractmethod
    def __call__(self, f: FDivergence, held: HeldOut, level: float, method: str) -> Estimate:
        """D_f(P || Q) from held-out log-ratios."""


@dataclass(frozen=True)
class OneStep(Evaluation):
    """E_P[f'(r)] + E_Q[g'(1/r)], g(s) = s f(1/s): the plug-in with its first-order error taken off.

    Since g'(1/t) = -f*(f'(t)) this is the dual (variational) form of the divergence at the critic f'(r): on held-out points it is
    a lower bound in expectation whatever the ratio, with equality at the truth, and a bias of second order in the error of the
    ratio. The interval comes from the spread of both terms; its upper end is raised by what the variance of log r takes from the
    value, E_P[r f''(r) Var(log r)] / 2, with the jackknife variance over the folds; what ridge and features take is not in it.
    None is given, and the note says why, where few points carry the
    spread (for KL: where exp(KL) exceeds what the sample can hold), or where recalibrating the ratio by a + b log r would raise
    the value by more than a standard error, which shows that the bias is not of second order.
    Source: Nguyen, Wainwright and Jordan (2010); Kandasamy et al. (2015).
    """

    references: ClassVar[tuple[str, ...]] = ("nguyen-wainwright-jordan-2010", "kandasamy-2015")

    def __call__(self, f: FDivergence, held: HeldOut, level: float, method: str) -> Estimate:
        """The corrected value."""
        sides = _terms(f, held.at_p, held.at_q)
        value = float(sum(s.mean() for s in sides))
        method += ", one-step corrected"
        notes = ["a lower bound in expectation, by the squared error of the ratio"]
        if not math.isfinite(value):
            return Estimate(value, method=method, note="no interval: the mean of the ratio at points of Q overflows")
        error = math.sqrt(sum(float(s.var()) / len(s) for s in sides))
        why = next((w for name, s in zip("PQ", sides, strict=True) if (w := _why_not(name, s))), None)
        if why is None and error > 0:
            better = sum(float(s.mean()) for s in _terms(f, *recalibrated(held.at_p, held.at_q)))
            if better - value > error:
                gain = f"{better - value:.3g}"
                why = f"the ratio is biased: recalibration would raise the value by {gain}, more than a standard error"
        if why is not None:
            return Estimate(value, method=method, note="; ".join([f"no interval: {why}", *notes]))
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        return Estimate(value, error, value - half, value + half + _gap(f, held), level, method, "; ".join(notes))


@dataclass(frozen=True)
class PlugIn(Evaluation):
    """E_P[f'(r)] + E_Q[g'(1/r)] too, but with what grows faster than log r averaged over both samples.

    E_Q[h] is E_P[h / (1 + r)] + E_Q[h / (1 + r)] for the true ratio, and E_P[h] the same with h r / (1 + r): for KL this is
    E_P[log r] and a term within [-2, 2] that vanishes where r is calibrated, finite where the corrected value would need exp(KL)
    points. Its error is of first order in that of the ratio and does not show in its spread: there is no interval, and no bound.
    """

    def __call__(self, f: FDivergence, held: HeldOut, level: float, method: str) -> Estimate:
        """The plug-in value."""
        far = torch.tensor([-_FAR, _FAR], dtype=torch.float64)
        both = (held.at_p, held.at_q)
        # f(r) / (1 + r) over both samples, and for each term of logarithmic growth its own mean in the place of that over both.
        logs = [(torch.nn.functional.logsigmoid(u), torch.nn.functional.logsigmoid(-u)) for u in both]
        value = sum(float(log_perspective(f, p, q).mean()) for p, q in logs)
        for g, sign, own in ((f, 1, held.at_p), (f.reversed(), -1, held.at_q)):
            if bool((g.derivative(log_t=far).abs() <= 2 * _FAR).all()):
                value += float(g.derivative(log_t=sign * own).mean())
                value -= sum(float((torch.sigmoid(sign * u) * g.derivative(log_t=sign * u)).mean()) for u in both)
        note = "no interval: the error of a plug-in is that of the ratio, to first order, and does not show in its spread"
        return Estimate(value, method=method + ", plug-in", note=note)


def _terms(f: FDivergence, at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
    return f.derivative(log_t=at_p), f.reversed().derivative(log_t=-at_q)


def _gap(f: FDivergence, held: HeldOut) -> float:
    """E_P[r f''(r) Var(log r)] / 2: the bound's distance from the truth, to second order, as far as it comes from variance."""
    if not f.smooth or not bool((held.spread > 0).any()):
        return 0.0
    terms = f.curvature(log_t=held.at_p) * held.at_p.exp() * held.spread / 2
    value = float(terms.mean())
    return value if math.isfinite(value) else 0.0


def _why_not(name: str, terms: Tensor) -> str | None:
    """Why the spread of one side's terms says nothing about their mean."""
    parts = (terms - terms.mean()).square()
    total = float(parts.sum())
    if total == 0:
        return None
    if len(terms) > 1 / _DOMINANT and float(parts.max()) > _DOMINANT * total:
        share = float(parts.max()) / total
        return f"one of {len(terms)} points of {name} carries {share:.0%} of the spread: too few points for laws so far apart"
    effective = total**2 / float(parts.square().sum())
    if effective < _EFFECTIVE:
        return f"some {effective:.0f} of {len(terms)} points of {name} carry the spread: too few points for laws so far apart"
    return None


__all__ = ["ADMITS", "Evaluation", "HeldOut", "OneStep", "PlugIn"]
