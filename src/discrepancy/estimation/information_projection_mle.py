"""Is the sample large enough for the model? The risk of a maximum-likelihood fit about its information projection.

For data from any law g, the fitted member g_hat of an exponential family estimates g_star, the member nearest to g. How far apart
the two are, in KL(g_star || g_hat), has an expansion in 1 / n that holds whether or not g is in the family; the criterion accepts
a model where this risk is so small that the two can hardly be told apart.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import whole_number
from discrepancy.estimation.exponential_family import Cumulants, Fit, LogLinear
from discrepancy.estimation.exponential_family.family import require_rank

_BLOCK = 4096  # rows of a sample in one contraction with the third cumulants


class Indistinguishability(ABC):
    """A lower bound of the Bayes error (equal priors) of telling two laws apart, by their KL divergence."""

    @abstractmethod
    def threshold(self, delta: float) -> float:
        """The largest KL at which the error is certainly at least 1/2 - delta; for a mean of KLs too, the bound being convex."""


@dataclass(frozen=True)
class Pinsker(Indistinguishability):
    """Error >= 1/2 - sqrt(KL / 8), from TV <= sqrt(KL / 2): threshold 8 delta^2. Sharp for small KL. Source: Pinsker (1964)."""

    def threshold(self, delta: float) -> float:
        """8 delta^2."""
        return 8 * delta**2


@dataclass(frozen=True)
class BretagnolleHuber(Indistinguishability):
    """Error >= (1 - sqrt(1 - e^-KL)) / 2, at least e^-KL / 4: threshold -log(1 - 4 delta^2). The better one for delta above 0.45.

    Source: Bretagnolle and Huber (1979).
    """

    def threshold(self, delta: float) -> float:
        """-log(1 - 4 delta^2)."""
        return -math.log1p(-4 * delta**2)


@dataclass(frozen=True)
class SharperBound(Indistinguishability):
    """The better of `Pinsker` and `BretagnolleHuber` at each delta."""

    def threshold(self, delta: float) -> float:
        """The larger of the two thresholds."""
        return max(Pinsker().threshold(delta), BretagnolleHuber().threshold(delta))


@dataclass(frozen=True)
class RiskExpansion:
    """R(n) = first / n + second / n^2 + O(n^-3); `penalty` is tr(Psi''^-1 C) = 2 first, the number of parameters in a true
    model."""

    first: float
    second: float

    @property
    def penalty(self) -> float:
        """tr(Psi''^-1 C), the penalty of Takeuchi's criterion."""
        return 2 * self.first

    def at(self, n: float, order: int = 2) -> float:
        """R(n) of order 1 or 2."""
        return self.first / n + (self.second / n**2 if order == 2 else 0.0)

    def samples(self, threshold: float, order: int = 2) -> int:
        """The least n from which on R(n) <= threshold."""
        b = self.second if order == 2 else 0.0
        inside = self.first**2 + 4 * threshold * b
        if inside < 0:  # the expansion never exceeds the threshold
            return 1
        n = max(1, math.ceil((self.first + math.sqrt(inside)) / (2 * threshold)))
        while n > 1 and self.at(n - 1, order) <= threshold and 2 * threshold * (n - 1) >= self.first:
            n -= 1
        while self.at(n, order) > threshold:
            n += 1
        return n


def risk_expansion(
    cumulants: Cumulants, covariance: Tensor, third: Tensor | None = None, *, centred: Tensor | None = None
) -> RiskExpansion:
    """The coefficients of E KL(g_star || g_hat) in 1 / n and 1 / n^2, for data from any law.

    cumulants: of the statistic under the projection (or the fit); covariance C (p, p) and third central moments (p, p, p) of the
    statistic under the data's law, the latter given instead as `centred` statistics (n, p) of a sample. With all derivatives of
    Psi at the projection, upper indices for the inverse Fisher matrix, D = Psi''^-1 C Psi''^-1 and K = the third moments with
    indices raised:

        first = tr(Psi''^-1 C) / 2
        second = -Psi_abc K^abc / 3 + (3/8) [-Psi_abcd D^ab D^cd + Psi_abe Psi^ef Psi_fcd (D^ab D^cd + 2 D^ac D^bd)]

    The two cumulants in a product are independent estimates where they come from draws. O(p^4) time, O(p^3) memory.
    """
    second = cumulants.second
    C = covariance.to(second)
    inverse = torch.linalg.inv(second)
    D = inverse @ C @ inverse
    left, right = cumulants.thirds()
    both = (left + right) / 2
    if third is not None:
        skew = torch.einsum("ijk,ia,jb,kc,abc->", third.to(second), inverse, inverse, inverse, both)
    elif centred is not None:
        raised = centred.to(second) @ inverse
        skew = torch.zeros((), dtype=second.dtype, device=second.device)
        for part in raised.split(_BLOCK):
            skew = skew + (torch.einsum("na,abc->nbc", part, both) * part[:, :, None] * part[:, None, :]).sum()
        # Third moments about a mean of the same sample fall short by (n - 1)(n - 2) / n^2.
        n = len(centred)
        skew = skew * n / ((n - 1) * (n - 2)) if n > 2 else skew / n
    else:
        raise ValueError("the second order needs third moments: give third or centred")
    u, v = torch.einsum("abe,ab->e", left, D), torch.einsum("abe,ab->e", right, D)
    paired = u @ inverse @ v
    # D^ac D^bd: both inner indices of one tensor meet those of the other.
    crossed = torch.einsum("abe,ac,bd,cdf,ef->", left, D, D, right, inverse)
    quartic = -cumulants.quartic(D) + paired + 2 * crossed
    return RiskExpansion(float((inverse * C).sum() / 2), float(-skew / 3 + 3 / 8 * quartic))


@dataclass(frozen=True, repr=False)
class PNReport(Result):
    """Whether n is enough for p parameters.

    `risk` is the estimated E KL(projection || fit), of the order asked; `first_order` and `second_order` its terms at n;
    `threshold` what it may be for Bayes errors of at least 1/2 - delta; `accepted`; `n_required`, the sample size at which this
    model would be accepted; `tic` = tr(Psi''^-1 C) and `aic` = p, the penalties of Takeuchi and Akaike (equal if the model is
    true).
    """

    accepted: bool
    risk: float
    threshold: float
    n: int
    dimension: int
    n_required: int
    first_order: float
    second_order: float
    tic: float
    aic: int
    order: int
    delta: float
    expansion: RiskExpansion
    references: ClassVar[tuple[str, ...]] = ("information-projection-mle",)


_PINSKER = Pinsker()


def pn_criterion(
    fit: Fit,
    *,
    delta: float = 0.05,
    order: int = 2,
    rule: Indistinguishability = _PINSKER,
    generator: torch.Generator | None = None,
) -> PNReport:
    """The p-n criterion: accept the model at this sample size iff the estimated risk is at most the rule's threshold.

    The risk E KL(g_star || g_hat) is that of `risk_expansion` with the fit in place of the projection and the sample's covariance
    and third moments; with order=1 it is tr(Psi''^-1 C) / (2 n) alone, which is steadier for more than 20 parameters. It judges
    the error of estimation, not how far the data are from the model. In the library's words P is the projection (given), Q the
    fit.

    delta: how far below 1/2 the Bayes error of telling the two apart may fall; the default threshold is 8 * 0.05^2 = 0.02.
    Warns where n <= p, and where the second term exceeds half of the first (then the expansion is not to be trusted). Raises
    ValueError for delta outside (0, 1/2), another order, and collinear statistics (with the rank).
    Source: Sheena (2021); the threshold by Pinsker's inequality is ours, and so is the form of the second term.
    """
    if isinstance(delta, bool) or not isinstance(delta, float) or not 0 < delta < 0.5:
        raise ValueError(f"delta must be a fraction strictly between 0 and 0.5, got {delta!r}")
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    if not isinstance(rule, Indistinguishability):
        raise TypeError(f"rule must be Pinsker(), BretagnolleHuber() or SharperBound(), got {rule!r}")
    if not isinstance(fit, Fit):
        raise TypeError(f"fit must be the Fit of a family, family.fit(x), got {type(fit).__name__}")
    p, n = fit.family.dimension, fit.n
    cumulants = fit.family.cumulants(fit.theta, generator=generator)
    require_rank(cumulants.second, fit.family.names)
    if order == 2:
        expansion = risk_expansion(cumulants, fit.covariance, centred=fit.centred)
    else:
        expansion = RiskExpansion(float((torch.linalg.inv(cumulants.second) * fit.covariance).sum() / 2), 0.0)
    if n <= p:
        warnings.warn(f"{n} rows for {p} parameters: the expansion in 1 / n is not valid here", UserWarning, stacklevel=2)
    if order == 2 and abs(expansion.second) / n > 0.5 * expansion.first:
        warnings.warn(
            f"the second-order term {expansion.second / n**2:.3g} exceeds half of the first, {expansion.first / n:.3g}: "
            "n is too small for the expansion, or the third and fourth moments are too noisy",
            UserWarning,
            stacklevel=2,
        )
    threshold = rule.threshold(delta)
    risk = expansion.at(n, order)
    return PNReport(
        accepted=risk <= threshold,
        risk=risk,
        threshold=threshold,
        n=n,
        dimension=p,
        n_required=expansion.samples(threshold, order),
        first_order=expansion.first / n,
        second_order=expansion.second / n**2,
        tic=expansion.penalty,
        aic=p,
        order=order,
        delta=delta,
        expansion=expansion,
    )


def largest_affordable(reports: Sequence[PNReport]) -> PNReport | None:
    """The accepted report of most parameters in a nested family of models (p_max), or None where none is accepted."""
    accepted = [report for report in reports if report.accepted]
    return max(accepted, key=lambda report: report.dimension) if accepted else None


@dataclass(frozen=True, repr=False)
class Reduction(Result):
    """A log-linear model cut down until n affords it: the `model`, its `fit`, the `report`, and the terms `dropped`, first to
    last."""

    model: LogLinear
    fit: Fit
    report: PNReport
    dropped: tuple[tuple[int, ...], ...]


def reduce_until_accepted(model: LogLinear, x: Any, **options: Any) -> Reduction:
    """Drop interactions from a log-linear model, weakest first, until the p-n criterion accepts it.

    In each round the term of highest order that no larger term contains and whose parameters have the smallest Wald statistic
    theta' C^-1 theta a parameter (n times the information about them) goes; main effects stay. options: those of `pn_criterion`.
    Raises ValueError where even the main effects alone are not accepted. Source: Sheena (2021), section 5 (there by inspection).
    """
    if not isinstance(model, LogLinear):
        raise TypeError(f"model must be a LogLinear model, got {type(model).__name__}")
    dropped: list[tuple[int, ...]] = []
    while True:
        fit = model.fit(x)
        report = pn_criterion(fit, **options)
        if report.accepted:
            return Reduction(model, fit, report, tuple(dropped))
        terms = model.interactions
        loose = [t for t in terms if len(t) > 1 and not any(set(t) < set(u) for u in terms)]
        if not loose:
            raise ValueError(
                f"{report.n} rows do not afford even the main effects: their risk is {report.risk:.3g}, "
                f"the threshold {report.threshold:.3g}"
            )
        weakest = min(loose, key=lambda term: _wald(fit, model, term))
        dropped.append(weakest)
        model = model.without(weakest)


def _wald(fit: Fit, model: LogLinear, term: tuple[int, ...]) -> float:
    """The Wald statistic of a term's parameters, divided by how many they are."""
    places = [k for k, (of, _) in enumerate(model._cells) if of == term]
    whole_number(len(places), 1, "the number of parameters of a term")
    spread = torch.linalg.inv(fit.fisher())[places][:, places]
    theta = fit.theta[places]
    return float(theta @ torch.linalg.solve(spread, theta)) / len(places)


__all__ = [
    "BretagnolleHuber",
    "Indistinguishability",
    "PNReport",
    "Pinsker",
    "Reduction",
    "RiskExpansion",
    "SharperBound",
    "largest_affordable",
    "pn_criterion",
    "reduce_until_accepted",
    "risk_expansion",
]
