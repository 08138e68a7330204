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

Formula = Callable[[Any, Any, Any], Tensor | None]

_FORMULAS: dict[type[Divergence], PairDispatch] = {}


def closed_form(divergence: type[Divergence], left: type, right: type) -> Callable[[Formula], Formula]:
    """Decorator: formula(divergence, P, Q) gives the value for P of type `left` and Q of type `right`, of their batch shape;
    None says that this divergence has none after all."""
    return _FORMULAS.setdefault(divergence, PairDispatch(f"closed forms of {divergence.__name__}")).register(left, right)


def closed_form_value(divergence: Divergence, P: Any, Q: Any) -> Tensor:
    """The divergence between two distributions, or TypeError naming what was asked for and what there is."""
    value = _find(divergence, P, Q)
    if value is None:
        raise TypeError(
            f"no closed form of {divergence!r} between {type(P).__name__} and {type(Q).__name__}: there are forms of every "
            "f-divergence between Categorical and between Bernoulli laws, of KL, ReverseKL, Jeffreys, Alpha, SquaredHellinger, "
            "ChiSquared and NeymanChiSquared between Normal and MultivariateNormal laws, and of KL, ReverseKL and Jeffreys "
            "wherever torch has one; otherwise use from_log_ratio(P.log_prob(x) - Q.log_prob(x)) at samples x of Q"
        )
    return value


def _find(divergence: Divergence, P: Any, Q: Any) -> Tensor | None:
    from discrepancy.divergences.closed_form import discrete, families, gaussian  # noqa: F401  (they register their formulas)

    for kind in type(divergence).__mro__:
        dispatch = _FORMULAS.get(kind)
        formula = dispatch.find(type(P), type(Q)) if dispatch is not None else None
        value = formula(divergence, P, Q) if formula is not None else None
        if value is not None:
            return value
    if isinstance(divergence, ScaledDivergence):
        inner = _find(divergence.base, P, Q)
        return None if inner is None else divergence.factor * inner
    if isinstance(divergence, ReversedDivergence):
        return _find(divergence.base, Q, P)
    if isinstance(divergence, SumDivergence):
        parts = [_find(term, P, Q) for term in divergence.terms]
        found = [part for part in parts if part is not None]
        return sum(found[1:], found[0]) if len(found) == len(parts) else None
    return families.kullback_leibler(divergence, P, Q)


__all__ = ["closed_form", "closed_form_value"]
