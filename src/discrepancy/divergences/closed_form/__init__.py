"""Closed forms between parametric families, by divergence and ordered pair of families; open to other packages.

A formula registered for a divergence class serves its subclasses, and one for a pair of families theirs; sums, multiples and
reversals are reduced to their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from discrepancy._registry import PairDispatch
from discrepancy.divergences.cone import ReversedDivergence, ScaledDivergence, SumDivergence
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.measures import ReversedMeasureDivergence
from discrepancy.divergences.ratio import ReversedRatioDivergence

Formula = Callable[[Any, Any, Any], Tensor | None]

_FORMULAS: dict[type[Divergence], PairDispatch] = {}


def closed_form(divergence: type[Divergence], left: type, right: type) -> Callable[[Formula], Formula]:
    """Decorator: formula(divergence, P, Q) gives the value for P of type `left` and Q of type `right`, of their batch shape;
    None says that this divergence has none after all."""
    return _FORMULAS.setdefault(divergence, PairDispatch(f"closed forms of {divergence.__name__}")).register(left, right)


def closed_form_value(divergence: Divergence, P: Any, Q: Any) -> Tensor:
    """The divergence between two distributions, or TypeError naming what was asked for and what there is."""
    value = find_closed_form(divergence, P, Q)
    if value is not None:
        return value
    from torch.distributions import MixtureSameFamily

    what = f"no closed form of {divergence!r} between {type(P).__name__} and {type(Q).__name__}"
    if isinstance(P, MixtureSameFamily) or isinstance(Q, MixtureSameFamily):
        raise TypeError(
            f"{what}: a mixture has none; use discrepancy.divergences.mixture_bounds(divergence, P, Q) for a lower and an upper "
            "bound, or monte_carlo_between(divergence, P, Q, samples=10000) for an estimate with its standard error"
        )
    raise TypeError(
        f"{what}: there are forms of every divergence between Categorical, Bernoulli and Binomial laws; of KL, ReverseKL, "
        "Jeffreys, Alpha, SquaredHellinger, ChiSquared, NeymanChiSquared, Renyi and Tsallis between two Normal, "
        "MultivariateNormal, Gamma, Exponential, Beta, Dirichlet, Poisson, Geometric, VonMises and VonMisesFisher laws, and "
        "between Laplace and NegativeBinomial laws that share their location or count; of CauchySchwarz and Hoelder between most "
        "of these; of KL, ReverseKL and Jeffreys wherever torch has one; otherwise use "
        "from_log_ratio(P.log_prob(x) - Q.log_prob(x)) at samples x of Q, or monte_carlo_between(divergence, P, Q, samples=10000)"
    )


def find_closed_form(divergence: Divergence, P: Any, Q: Any) -> Tensor | None:
    """The divergence between two distributions, or None where no closed form is known."""
    from discrepancy.divergences.closed_form import discrete, families, gaussian, powers  # noqa: F401  (they register their formulas)

    for kind in type(divergence).__mro__:
        dispatch = _FORMULAS.get(kind)
        for formula in dispatch.candidates(type(P), type(Q)) if dispatch is not None else ():
            value = formula(divergence, P, Q)
            if value is not None:
                return value
    if isinstance(divergence, ScaledDivergence):
        inner = find_closed_form(divergence.base, P, Q)
        return None if inner is None else divergence.factor * inner
    if isinstance(divergence, ReversedDivergence | ReversedRatioDivergence | ReversedMeasureDivergence):
        return find_closed_form(divergence.base, Q, P)
    if isinstance(divergence, SumDivergence):
        parts = [find_closed_form(term, P, Q) for term in divergence.terms]
        found = [part for part in parts if part is not None]
        return sum(found[1:], found[0]) if len(found) == len(parts) else None
    return None


__all__ = ["closed_form", "closed_form_value", "find_closed_form"]
