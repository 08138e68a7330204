"""The cone of f-divergences: positive multiples, sums and reversals are f-divergences again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.divergences.f_divergence import FDivergence, Limits
from discrepancy.divergences.tail import tail

_RESOLVED = 1e8  # ratio s beyond which f(s) - s f'(s), once its limit is finite, is more rounding than value


def require_f_divergence(base: object) -> None:
    """Raise TypeError unless it is an f-divergence."""
    if not isinstance(base, FDivergence):
        raise TypeError(f"expected an FDivergence such as KL(), got {base!r}")


@dataclass(frozen=True)
class ScaledDivergence(FDivergence):
    """factor * base, for a positive factor. Raises ValueError for a factor that is not positive and finite."""

    base: FDivergence
    factor: float

    def __post_init__(self) -> None:
        require_f_divergence(self.base)
        object.__setattr__(self, "factor", positive(self.factor, "factor"))

    def __repr__(self) -> str:
        return f"{self.factor:g} * {self.base!r}"

    def _limits(self) -> Limits:
        c, f = self.factor, self.base
        return Limits(c * f.at_zero, c * f.slope_at_zero, c * f.slope_at_infinity, f.smooth)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return self.factor * self.base._perspective(log_p, log_q, log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        return self.factor * self.base._derivative(u)

    def _curvature(self, u: Tensor) -> Tensor:
        return self.factor * self.base._curvature(u)

    def _conjugate(self, s: Tensor) -> Tensor:
        return self.factor * self.base._conjugate(s / self.factor)

    def _inverse_derivative(self, s: Tensor) -> Tensor:
        return self.base._inverse_derivative(s / self.factor)

    def _conjugate_at_limit(self) -> float:
        return self.factor * self.base._conjugate_at_limit()

    def _with_linear(self, u: Tensor, linear: float) -> Tensor:
        return self.factor * self.base._with_linear(u, linear / self.factor)

    def powers(self) -> Mapping[float, float] | None:
        """The base's combination, times the factor."""
        terms = self.base.powers()
        return None if terms is None else {a: self.factor * c for a, c in terms.items()}

    def reversed(self) -> FDivergence:
        """The factor times the base's reversal."""
        return ScaledDivergence(self.base.reversed(), self.factor)


@dataclass(frozen=True)
class SumDivergence(FDivergence):
    """The sum of f-divergences: two of them at least."""

    terms: tuple[FDivergence, ...]

    def __post_init__(self) -> None:
        if len(self.terms) < 2:
            raise ValueError(f"a sum has two terms at least, got {len(self.terms)}")
        flat: list[FDivergence] = []
        for term in self.terms:
            require_f_divergence(term)
            flat += term.terms if isinstance(term, SumDivergence) else [term]
        object.__setattr__(self, "terms", tuple(flat))

    def __repr__(self) -> str:
        return "(" + " + ".join(map(repr, self.terms)) + ")"

    def _limits(self) -> Limits:
        return Limits(
            math.fsum(f.at_zero for f in self.terms),
            math.fsum(f.slope_at_zero for f in self.terms),
            math.fsum(f.slope_at_infinity for f in self.terms),
            all(f.smooth for f in self.terms),
        )

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return _add([f._perspective(log_p, log_q, log_t) for f in self.terms])

    def _derivative(self, u: Tensor) -> Tensor:
        return _add([f._derivative(u) for f in self.terms])

    def _curvature(self, u: Tensor) -> Tensor:
        return _add([f._curvature(u) for f in self.terms])

    def _conjugate_at_limit(self) -> float:
        return math.fsum(f._conjugate_at_limit() for f in self.terms)

    def powers(self) -> Mapping[float, float] | None:
        """The terms' combinations, added; None where one has none."""
        total: dict[float, float] = {}
        for f in self.terms:
            terms = f.powers()
            if terms is None:
                return None
            for a, c in terms.items():
                total[a] = total.get(a, 0.0) + c
        return total

    def reversed(self) -> FDivergence:
        """The sum of the reversals."""
        return SumDivergence(tuple(f.reversed() for f in self.terms))


@dataclass(frozen=True)
class ReversedDivergence(FDivergence):
    """D_f(Q || P) as a divergence of (P, Q), with generator t f(1/t), for a base without a reversal of its own."""

    base: FDivergence

    def __post_init__(self) -> None:
        require_f_divergence(self.base)

    def __repr__(self) -> str:
        return f"{self.base!r}.reversed()"

    def _limits(self) -> Limits:
        f = self.base
        # g'(0+) = lim f(s) - s f'(s) as s -> inf = -f*(f'(inf)).
        slope = -f._conjugate_at_limit() if math.isfinite(f.slope_at_infinity) else -math.inf
        return Limits(f.slope_at_infinity, slope, f.at_zero, f.smooth)

    def _perspective(self, log_p: Tensor, log_q: Tensor, log_t: Tensor) -> Tensor:
        return self.base._perspective(log_q, log_p, -log_t)

    def _derivative(self, u: Tensor) -> Tensor:
        # f(s) - s f'(s) at s = 1/t = e^v, whose terms grow with s where their difference settles or hardly grows.
        v, beyond, limit = -u, tail(self.base), self.slope_at_zero
        start = min(beyond.start, math.log(_RESOLVED) if math.isfinite(limit) else math.inf)
        settled = v > start
        inner = torch.where(settled, torch.zeros_like(v), v)
        value = self.base._perspective(inner, torch.zeros_like(inner), inner) - torch.exp(inner) * self.base._derivative(inner)
        if not bool(settled.any()):
            return value
        far = torch.full_like(u, limit)
        if start == beyond.start:
            far = -beyond.rho(torch.where(settled, v, torch.full_like(v, start)))
        return torch.where(settled, far, value)

    def _curvature(self, u: Tensor) -> Tensor:
        v, beyond = -u, tail(self.base)
        settled = v > beyond.start
        inner = torch.where(settled, torch.zeros_like(v), v)
        value = torch.exp(3 * inner) * self.base._curvature(inner)
        if not bool(settled.any()):
            return value
        outer = torch.where(settled, v, torch.full_like(v, beyond.start))
        return torch.where(settled, torch.exp(outer) * beyond.slope(outer), value)

    def _conjugate_at_limit(self) -> float:
        return -self.base.slope_at_zero

    def reversed(self) -> FDivergence:
        """The base."""
        return self.base


def _add(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


__all__ = ["ReversedDivergence", "ScaledDivergence", "SumDivergence", "require_f_divergence"]
