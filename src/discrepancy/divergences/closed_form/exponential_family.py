"""Exponential families through their log-partition F: p(x) = h(x) exp(<theta, t(x)> - F(theta)).

The integral of p^a q^b with a + b = 1 is exp(F(a theta_p + b theta_q) - a F(theta_p) - b F(theta_q)), whatever the carrier h, and
for any a, b where h = 1; it diverges where the mixed parameter leaves the domain of F. KL(P || Q) is the Bregman divergence of F,
F(theta_q) - F(theta_p) - <theta_q - theta_p, grad F(theta_p)>. Source: Nielsen and Nock (2011).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Exponential,
    Gamma,
    Geometric,
    HalfNormal,
    Laplace,
    NegativeBinomial,
    Poisson,
    VonMises,
)

from discrepancy.directions.von_mises_fisher import VonMisesFisher, log_partition
from discrepancy.divergences.closed_form.integrals import power_integral


@dataclass(frozen=True)
class NaturalForm:
    """A law as a member of its exponential family.

    theta (..., k) is the natural parameter, log_partition maps (..., k) to F (...), inside says where F is finite, flat whether
    the carrier is one, and `fixed` what two laws must share to be of one family.
    """

    family: str
    theta: Tensor
    log_partition: Callable[[Tensor], Tensor]
    inside: Callable[[Tensor], Tensor]
    flat: bool = True
    fixed: Tensor | None = None

    def same_family(self, other: NaturalForm) -> bool:
        """Whether the other law is of this family."""
        if self.family != other.family or self.theta.shape[-1] != other.theta.shape[-1]:
            return False
        if self.fixed is None or other.fixed is None:
            return self.fixed is None and other.fixed is None
        return bool((self.fixed == other.fixed).all())


def _negative(theta: Tensor) -> Tensor:
    return theta[..., 0] < 0


def _everywhere(theta: Tensor) -> Tensor:
    return torch.ones(theta.shape[:-1], dtype=torch.bool, device=theta.device)


def _log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _dirichlet(concentration: Tensor) -> NaturalForm:
    return NaturalForm(
        f"Dirichlet({concentration.shape[-1]})",
        concentration - 1,
        lambda theta: torch.lgamma(theta + 1).sum(-1) - torch.lgamma((theta + 1).sum(-1)),
        lambda theta: (theta > -1).all(-1),
    )


def _gamma(shape: Tensor, rate: Tensor) -> NaturalForm:
    shape, rate = torch.broadcast_tensors(shape, rate)
    return NaturalForm(
        "Gamma",
        torch.stack([shape - 1, -rate], -1),
        lambda theta: torch.lgamma(theta[..., 0] + 1) - (theta[..., 0] + 1) * torch.log(-theta[..., 1]),
        lambda theta: (theta[..., 0] > -1) & (theta[..., 1] < 0),
    )


def _laplace(law: Laplace) -> NaturalForm:
    return NaturalForm(
        "Laplace", -1 / law.scale.unsqueeze(-1), lambda theta: math.log(2) - torch.log(-theta[..., 0]), _negative, fixed=law.loc
    )


def _half_normal(law: HalfNormal) -> NaturalForm:
    return NaturalForm(
        "HalfNormal",
        -0.5 / law.scale.square().unsqueeze(-1),
        lambda theta: 0.5 * (math.log(math.pi / 4) - torch.log(-theta[..., 0])),
        _negative,
    )


def _geometric(law: Geometric) -> NaturalForm:
    theta = torch.log1p(-law.probs).unsqueeze(-1)
    return NaturalForm("Geometric", theta, lambda theta: -_log_one_minus_exp(theta[..., 0]), _negative)


def _negative_binomial(law: NegativeBinomial) -> NaturalForm:
    count = law.total_count
    theta = torch.nn.functional.logsigmoid(law.logits).unsqueeze(-1)
    return NaturalForm(
        "NegativeBinomial", theta, lambda theta: -count * _log_one_minus_exp(theta[..., 0]), _negative, flat=False, fixed=count
    )


def _von_mises(law: VonMises) -> NaturalForm:
    theta = law.concentration.unsqueeze(-1) * torch.stack([torch.cos(law.loc), torch.sin(law.loc)], -1)

    def log_bessel(theta: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(theta, dim=-1)
        return math.log(2 * math.pi) + length + torch.log(torch.special.i0e(length))

    return NaturalForm("VonMises", theta, log_bessel, _everywhere)


def _von_mises_fisher(law: VonMisesFisher) -> NaturalForm:
    d = law.event_shape[0]
    return NaturalForm(
        f"VonMisesFisher({d})",
        law.concentration.unsqueeze(-1) * law.loc,
        lambda theta: log_partition(torch.linalg.vector_norm(theta, dim=-1), d).to(theta.dtype),
        _everywhere,
    )


# Families that share an entry are one family: an exponential law is a gamma law of shape one.
NATURAL_FORMS: dict[type, Callable[[Any], NaturalForm]] = {
    Dirichlet: lambda law: _dirichlet(law.concentration),
    Beta: lambda law: _dirichlet(torch.stack([law.concentration1, law.concentration0], -1)),
    Gamma: lambda law: _gamma(law.concentration, law.rate),
    Exponential: lambda law: _gamma(torch.ones_like(law.rate), law.rate),
    Laplace: _laplace,
    HalfNormal: _half_normal,
    Geometric: _geometric,
    NegativeBinomial: _negative_binomial,
    VonMises: _von_mises,
    VonMisesFisher: _von_mises_fisher,
}


def natural_forms(P: Any, Q: Any) -> tuple[NaturalForm, NaturalForm] | None:
    """The two laws as members of one exponential family, or None."""
    found = []
    for law in (P, Q):
        form = next((NATURAL_FORMS[kind] for kind in type(law).__mro__ if kind in NATURAL_FORMS), None)
        if form is None:
            return None
        found.append(form(law))
    return (found[0], found[1]) if found[0].same_family(found[1]) else None


def _integral(P: Any, Q: Any, a: float, b: float) -> Tensor | None:
    forms = natural_forms(P, Q)
    if forms is None or (a + b != 1 and not forms[0].flat):
        return None
    p, q = forms
    F, excess = p.log_partition, a + b - 1
    # Differences from Q, so that two equal laws give exactly zero.
    theta = q.theta + a * (p.theta - q.theta) + excess * q.theta
    inside = p.inside(theta)
    at_q = q.theta.expand_as(theta)
    value = F(torch.where(inside.unsqueeze(-1), theta, at_q)) - F(at_q) - a * (F(p.theta) - F(at_q)) - excess * F(at_q)
    return torch.where(inside, value, torch.full_like(value, torch.inf))


for _left, _right in itertools.product(NATURAL_FORMS, repeat=2):
    power_integral(_left, _right)(_integral)


@power_integral(Poisson, Poisson)
def _poisson(P: Poisson, Q: Poisson, a: float, b: float) -> Tensor | None:
    """The carrier 1/k! is not one: beside a + b = 1, the Bessel series of the products of two masses."""
    if a + b == 1:
        if 0 < a < 1:
            return P.rate.pow(a) * Q.rate.pow(b) - a * P.rate - b * Q.rate
        one = torch.ones_like(P.rate)
        positive = (P.rate > 0) & (Q.rate > 0)
        p, q = torch.where(positive, P.rate, one), torch.where(positive, Q.rate, one)
        value = q * torch.exp(a * (torch.log(p) - torch.log(q))) - a * p - b * q
        # Laws with a rate of zero sit at zero: e^-(a p + b q) where a law of no mass elsewhere meets a positive power only.
        lost = ((Q.rate == 0) & (P.rate > 0) & (a > 1)) | ((P.rate == 0) & (Q.rate > 0) & (a < 0))
        edge = torch.where(lost, torch.full_like(value, torch.inf), -a * P.rate - b * Q.rate)
        if a in (0.0, 1.0):
            whole = Q.rate if a == 0 else P.rate
            limited = (P.rate == 0) if a == 0 else (Q.rate == 0)
            return torch.where(limited, -whole, torch.zeros_like(value))
        return torch.where(positive, value, edge)
    product = {(1.0, 1.0): P.rate * Q.rate, (2.0, 0.0): P.rate.square(), (0.0, 2.0): Q.rate.square()}.get((a, b))
    if product is None:
        return None
    total = a * P.rate + b * Q.rate
    root = torch.where(product > 0, torch.where(product > 0, product, torch.ones_like(product)).sqrt(), torch.zeros_like(product))
    return torch.log(torch.special.i0e(2 * root)) + 2 * root - total


def kullback_leibler(P: Any, Q: Any) -> Tensor | None:
    """KL(P || Q) as the Bregman divergence of the log-partition; None for laws of no common family."""
    forms = natural_forms(P, Q)
    if forms is None:
        return None
    p, q = forms
    theta_p, theta_q = torch.broadcast_tensors(p.theta, q.theta)
    with torch.enable_grad():
        at = theta_p if theta_p.requires_grad else theta_p.detach().requires_grad_()
        (mean,) = torch.autograd.grad(p.log_partition(at).sum(), at, create_graph=theta_p.requires_grad)
    value = q.log_partition(theta_q) - p.log_partition(theta_p) - ((theta_q - theta_p) * mean).sum(-1)
    return value.clamp(min=0)


__all__ = ["NATURAL_FORMS", "NaturalForm", "kullback_leibler", "natural_forms"]
