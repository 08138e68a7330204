"""Bounds of divergences between mixtures, which have no closed form: what holds for certain, without simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy.divergences.closed_form import find_closed_form
from discrepancy.divergences.coarse_graining import partitions
from discrepancy.divergences.components import Components
from discrepancy.divergences.cone import ScaledDivergence, SumDivergence
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.kullback_leibler import KL, ReverseKL
from discrepancy.divergences.power import SquaredHellinger
from discrepancy.divergences.renyi import Renyi, Tsallis

_ROUNDS = 200  # of the variational upper bound: every round lowers it, and each is valid


@dataclass(frozen=True, repr=False)
class MixtureBounds(Result):
    """The divergence lies in [`lower`, `upper`]; `lower_method` and `upper_method` name the arguments that gave the ends."""

    lower: float
    upper: float
    lower_method: str
    upper_method: str


def mixture_bounds(divergence: Divergence, P: Any, Q: Any) -> MixtureBounds:
    """A lower and an upper bound of D(P || Q) for mixtures (`MixtureSameFamily`, or a single law on either side).

    For any f-divergence: from below data processing (the divergence of the probabilities of cells, on the line or across
    directions of Gaussian laws); from above joint convexity (the cheapest coupling of the components' weights, at the
    divergences between components), (f(0) + f'(inf)) times a bound of total variation, and f's range. KL and ReverseKL have
    also the variational and product bounds of Hershey and Olsen (2007) and Durrieu et al. (2012). Renyi and Tsallis go through
    their power divergence. Exact for mixtures of categorical laws. Without gradients.
    Raises TypeError for a divergence that is no function of the density ratio, ValueError for batches of laws.
    Time O(K L) closed forms, a linear program of that size, and the cells.
    """
    if not isinstance(divergence, FDivergence | Renyi | Tsallis):
        raise TypeError(
            f"{divergence!r} has no bounds between mixtures: they rest on joint convexity and data processing, which "
            "f-divergences such as KL(), and Renyi and Tsallis, have"
        )
    with torch.no_grad():
        exact = find_closed_form(divergence, P, Q)
        if exact is not None and exact.ndim == 0:
            return MixtureBounds(float(exact), float(exact), "closed form", "closed form")
        left, right = Components.of(P, "P"), Components.of(Q, "Q")
        if left.law.event_shape != right.law.event_shape:
            raise ValueError(f"P has the event shape {tuple(left.law.event_shape)} and Q {tuple(right.law.event_shape)}")
        if isinstance(divergence, Renyi | Tsallis):
            return _through_tsallis(divergence, left, right)
        return _bounds(divergence, left, right)


def _through_tsallis(divergence: Renyi | Tsallis, P: Components, Q: Components) -> MixtureBounds:
    a = divergence.order
    if math.isinf(a) or a == 0:
        raise TypeError(f"{divergence!r} has no bounds between mixtures: use an order strictly between 0 and inf")
    power = Tsallis(a)._as_f_divergence()
    assert power is not None
    found = _bounds(power, P, Q)
    if isinstance(divergence, Tsallis) or a == 1:
        return found

    def renyi(value: float) -> float:
        inside = (a - 1) * value
        return math.inf if inside <= -1 or value == math.inf else math.log1p(inside) / (a - 1)

    return MixtureBounds(renyi(found.lower), renyi(found.upper), found.lower_method, found.upper_method)


def _bounds(f: FDivergence, P: Components, Q: Components) -> MixtureBounds:
    if isinstance(f, ScaledDivergence):
        inner, c = _bounds(f.base, P, Q), f.factor
        return MixtureBounds(c * inner.lower, c * inner.upper, inner.lower_method, inner.upper_method)
    lower, upper = [(0.0, "non-negativity")], [(f.at_zero + f.slope_at_infinity, "the range of f")]
    if isinstance(f, SumDivergence):
        parts = [_bounds(term, P, Q) for term in f.terms]
        lower.append((math.fsum(part.lower for part in parts), "the sum of the terms' bounds"))
        upper.append((math.fsum(part.upper for part in parts), "the sum of the terms' bounds"))
    # Rounding of the cells' probabilities is far below this share.
    lower += [(float(f._from_probs(p, q)) * (1 - 1e-9), "data processing on cells") for p, q in partitions(P, Q)]
    upper += _convexity(f, P, Q)
    if math.isfinite(f.at_zero + f.slope_at_infinity):
        for hellinger, _ in _convexity(SquaredHellinger(), P, Q):
            variation = math.sqrt(max(min(hellinger, 1.0), 0.0) * (2 - min(hellinger, 1.0)))
            upper.append(((f.at_zero + f.slope_at_infinity) * variation, "total variation through Hellinger"))
    if isinstance(f, KL | ReverseKL):
        pair = (P, Q) if isinstance(f, KL) else (Q, P)
        lower += _product_lower(*pair)
        upper += _product_upper(*pair) + _variational(*pair)
    least, greatest = max(lower, key=lambda row: row[0]), min(upper, key=lambda row: row[0])
    return MixtureBounds(least[0], max(greatest[0], least[0]), least[1], greatest[1])


def _convexity(f: FDivergence, P: Components, Q: Components) -> list[tuple[float, str]]:
    """min over couplings T of the weights of sum T_ab D(f_a || g_b): labels only add information."""
    from scipy.optimize import linprog

    costs = P.divergences(f, Q)
    if costs is None:
        return []
    rows, columns = costs.shape
    finite = torch.isfinite(costs)
    if not bool(finite.any()):
        return [(math.inf, "joint convexity")]
    marginals = torch.zeros(rows + columns, rows * columns, dtype=torch.float64)
    cell = torch.arange(rows * columns).reshape(rows, columns)
    for a in range(rows):
        marginals[a, cell[a]] = 1
    for b in range(columns):
        marginals[rows + b, cell[:, b]] = 1
    weights = [w.double() / w.double().sum() for w in (P.weights, Q.weights)]
    plan = linprog(
        torch.where(finite, costs, torch.zeros_like(costs)).double().reshape(-1).numpy(),
        A_eq=marginals[:-1].numpy(),  # the last marginal follows from the others
        b_eq=torch.cat(weights)[:-1].numpy(),
        bounds=[(0, None if ok else 0) for ok in finite.reshape(-1).tolist()],
        method="highs",
    )
    return [(float(plan.fun), "joint convexity")] if plan.success else [(math.inf, "joint convexity")]


def _variational(P: Components, Q: Components) -> list[tuple[float, str]]:
    """Hershey and Olsen: min over splits of either mixture's weights, by alternating exact minimisation."""
    costs = P.divergences(KL(), Q)
    if costs is None:
        return []
    log_p, log_q = P.weights.double().log(), Q.weights.double().log()
    cost = costs.double()
    given = log_p[:, None] + log_q[None, :]
    trained = given
    for _ in range(_ROUNDS):
        trained = given - torch.logsumexp(given, 0, keepdim=True) + log_q
        given = trained - cost
        given = given - torch.logsumexp(given, 1, keepdim=True) + log_p[:, None]
        given = torch.where(torch.isnan(given), torch.full_like(given, -math.inf), given)
    used = given > -math.inf
    terms = torch.where(used, torch.exp(given) * (given - torch.where(used, trained, 0.0) + torch.where(used, cost, 0.0)), 0.0)
    covered = bool((torch.logsumexp(given, 1) > log_p - 1e-9).all())
    return [(float(terms.sum()) if covered else math.inf, "variational")]


def _log_mean(log_weights: Tensor, exponents: Tensor) -> Tensor:
    return torch.logsumexp(log_weights.double() + exponents.double(), -1)


def _product_lower(P: Components, Q: Components) -> list[tuple[float, str]]:
    """Durrieu et al.: the variational bound of E_P log p from below, Jensen's product bound of E_P log q from above."""
    own, products, entropy = P.divergences(KL(), P), P.log_products(Q), P.entropies()
    if own is None or products is None or entropy is None:
        return []
    gap = _log_mean(P.weights.log(), -own) - _log_mean(Q.weights.log(), products) - entropy.double()
    return [(float(P.weights.double() @ gap), "variational minus product")]


def _product_upper(P: Components, Q: Components) -> list[tuple[float, str]]:
    """Durrieu et al.: Jensen's product bound of E_P log p from above, the variational bound of E_P log q from below."""
    cross, products, entropy = P.divergences(KL(), Q), P.log_products(P), P.entropies()
    if cross is None or products is None or entropy is None:
        return []
    gap = _log_mean(P.weights.log(), products) - _log_mean(Q.weights.log(), -cross) + entropy.double()
    return [(float(P.weights.double() @ gap), "product minus variational")]


__all__ = ["MixtureBounds", "mixture_bounds"]
