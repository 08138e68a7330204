"""Divergences from Hoelder's inequality: Cauchy-Schwarz, Hoelder's own and its pseudo-divergence. All are projective."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.divergences.affinity import log_affinity
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.measures import MeasureDivergence, power_at_zero, safe_log, with_edge_slopes


def conjugate_exponent(alpha: float) -> float:
    """b with 1/a + 1/b = 1, for a > 1."""
    return alpha / (alpha - 1)


@dataclass(frozen=True)
class ProjectiveDivergence(MeasureDivergence):
    """-c log of sum p^(m/a) q^(n/b) over (sum p^m)^(1/a) (sum q^n)^(1/b), for 1/a + 1/b = 1.

    That is -c times the log-affinity of order 1/a between the escort laws p^m / sum p^m and q^n / sum q^n. It does not see the
    mass of p and q: `from_values` takes any positive one. +inf where the supports are disjoint.
    """

    @abstractmethod
    def _exponents(self) -> tuple[float, float, float, float]:
        """a, m, n and c."""

    def _check_values(self, name: str, t: Tensor) -> None:
        super()._check_values(name, t)
        if not bool((t.sum(-1) > 0).all()):
            raise ValueError(f"{name} has a vector of zeros only, which has no direction: {self!r} needs a positive sum")

    def _from_values(self, p: Tensor, q: Tensor) -> Tensor:
        a, m, n, _ = self._exponents()
        log_p, log_q = safe_log(p), safe_log(q)
        value = self._from_logits(log_p, log_q)
        with torch.no_grad():
            log_cross = torch.logsumexp(m / a * log_p + n * (1 - 1 / a) * log_q, -1, keepdim=True)
            slopes = [
                self._slope_at_zero(1 / a, m, n, p, log_q, log_cross),
                self._slope_at_zero(1 - 1 / a, n, m, q, log_p, log_cross),
            ]
        return with_edge_slopes(with_edge_slopes(value, p, slopes[0]), q, slopes[1])

    def _slope_at_zero(self, share: float, own: float, other: float, x: Tensor, log_y: Tensor, log_cross: Tensor) -> Tensor:
        """d/dx_k at x_k = 0 of c (share log sum x^own - log sum x^(own share) y^(other (1 - share)))."""
        norm = power_at_zero(own - 1) * share * own / x.pow(own).sum(-1, keepdim=True)
        first = own * share
        cross = torch.where(
            log_y > -torch.inf, first * power_at_zero(first - 1) * torch.exp(other * (1 - share) * log_y - log_cross), 0.0
        )
        return self._exponents()[3] * (norm - cross)

    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        a, m, n, c = self._exponents()
        value = log_affinity(1 / a, torch.log_softmax(m * log_p, -1), torch.log_softmax(n * log_q, -1))
        return -c * value + 0.0  # no negative zero


@dataclass(frozen=True)
class CauchySchwarz(ProjectiveDivergence):
    """log sum p^2 + log sum q^2 - 2 log sum pq: minus twice the logarithm of the cosine of the angle between p and q.

    Symmetric, projective, zero where p and q are proportional, +inf where they have no category in common. Twice Hoelder(2, 2):
    papers that write -log of the cosine have half of this.
    """

    references = ("jenssen-2006",)

    def _exponents(self) -> tuple[float, float, float, float]:
        return 2.0, 2.0, 2.0, 2.0

    def reversed(self) -> Divergence:
        """Itself."""
        return self


def _above_one(value: float, name: str) -> float:
    number = float(value)
    if not (number > 1 and math.isfinite(number)):
        raise ValueError(f"{name} must be finite and above 1, got {value!r}: its conjugate exponent is {name} / ({name} - 1)")
    return number


@dataclass(frozen=True)
class Hoelder(ProjectiveDivergence):
    """Hoelder's divergence, -log of sum p^(g/a) q^(g/b) over (sum p^g)^(1/a) (sum q^g)^(1/b), 1/a + 1/b = 1, g = gamma > 0.

    Projective, zero if and only if p and q are proportional, symmetric for alpha = 2 only. Hoelder(2, 2) is half of
    CauchySchwarz, Hoelder(2, 1) minus the logarithm of the Bhattacharyya coefficient; with gamma = 1 it is (1 - 1/a) times
    Renyi(1/a). Raises ValueError unless alpha > 1 and gamma > 0 are finite.
    """

    alpha: float = 2.0
    gamma: float = 1.0

    references = ("nielsen-sun-marchand-maillet-2017",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _above_one(self.alpha, "alpha"))
        object.__setattr__(self, "gamma", positive(self.gamma, "gamma"))

    def _exponents(self) -> tuple[float, float, float, float]:
        return self.alpha, self.gamma, self.gamma, 1.0

    def reversed(self) -> Divergence:
        """Hoelder with the conjugate exponent."""
        return Hoelder(conjugate_exponent(self.alpha), self.gamma)


@dataclass(frozen=True)
class HoelderPseudo(ProjectiveDivergence):
    """Hoelder's pseudo-divergence, -log of sum pq over (sum p^a)^(1/a) (sum q^b)^(1/b), 1/a + 1/b = 1.

    Zero where p^a is proportional to q^b, hence NOT at p = q unless alpha = 2 (`zero_at_equality` says so): as a loss in p it is
    minimised at p proportional to q^(b/a), for the default alpha = 1.1 the tenth power of q. To bring two laws
    together use `Hoelder`. Projective. Raises ValueError unless alpha > 1 is finite.
    """

    alpha: float = 1.1

    references = ("nielsen-sun-marchand-maillet-2017", "holder-divergence")

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _above_one(self.alpha, "alpha"))

    @property
    def zero_at_equality(self) -> bool:  # type: ignore[override]  (a constant elsewhere)
        """Whether D(P || P) = 0: for alpha = 2 only."""
        return self.alpha == 2

    def _exponents(self) -> tuple[float, float, float, float]:
        return self.alpha, self.alpha, conjugate_exponent(self.alpha), 1.0

    def reversed(self) -> Divergence:
        """The pseudo-divergence with the conjugate exponent."""
        return HoelderPseudo(conjugate_exponent(self.alpha))


__all__ = ["CauchySchwarz", "Hoelder", "HoelderPseudo", "ProjectiveDivergence", "conjugate_exponent"]
