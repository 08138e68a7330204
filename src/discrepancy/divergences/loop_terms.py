"""Which divergences the compiled loops know, as sums of their kinds."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from discrepancy.divergences.divergence import Divergence

# In the order of the loops' kinds.
KINDS = (
    "kl",
    "reverse_kl",
    "chi_squared",
    "neyman",
    "alpha",
    "jensen_shannon",
    "hellinger",
    "le_cam",
    "total_variation",
    "skewed_jensen_shannon",
)


@dataclass(frozen=True)
class LoopTerm:
    """factor times the divergence of one kind; `exponent` is that of a power divergence, or the share of P in a mixture."""

    kind: str
    factor: float
    exponent: float = 0.0


@functools.lru_cache(maxsize=256)
def loop_terms(divergence: Divergence, resolution: float) -> tuple[LoopTerm, ...] | None:
    """The divergence as a sum of what the loops know, or None. Exponents within `resolution` of 0 and 1 count as these."""
    terms = _terms(divergence, resolution)
    return None if terms is None else tuple(terms)


def _terms(divergence: Divergence, resolution: float) -> list[LoopTerm] | None:
    from discrepancy.divergences.cone import ScaledDivergence, SumDivergence
    from discrepancy.divergences.f_divergence import FDivergence
    from discrepancy.divergences.midpoint import JensenShannon, LeCam
    from discrepancy.divergences.skewed_jensen_shannon import SkewedJensenShannon
    from discrepancy.divergences.total_variation import TotalVariation

    if not isinstance(divergence, FDivergence):
        return None
    powers = divergence.powers()
    if powers is not None:
        return [_power(float(a), float(c), resolution) for a, c in powers.items()]
    for member, kind in ((JensenShannon, "jensen_shannon"), (LeCam, "le_cam"), (TotalVariation, "total_variation")):
        if type(divergence) is member:
            return [LoopTerm(kind, 1.0)]
    if type(divergence) is SkewedJensenShannon:
        return [LoopTerm("skewed_jensen_shannon", 1.0, divergence.weight)]
    if type(divergence) is ScaledDivergence:
        base = _terms(divergence.base, resolution)
        return None if base is None else [LoopTerm(t.kind, t.factor * divergence.factor, t.exponent) for t in base]
    if type(divergence) is SumDivergence:
        parts = [_terms(f, resolution) for f in divergence.terms]
        return None if None in parts else [t for part in parts for t in part or ()]
    return None


def _power(a: float, c: float, resolution: float) -> LoopTerm:
    for exponent, kind, factor in ((1.0, "kl", 1.0), (0.0, "reverse_kl", 1.0), (2.0, "chi_squared", 0.5), (-1.0, "neyman", 0.5)):
        if abs(a - exponent) < resolution:
            return LoopTerm(kind, factor * c)
    return LoopTerm("hellinger", 4.0 * c) if a == 0.5 else LoopTerm("alpha", c, a)


__all__ = ["KINDS", "LoopTerm", "loop_terms"]
