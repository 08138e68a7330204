"""Density ratios by least squares, in closed form: uLSIF, and RuLSIF against a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import positive, whole_number
from discrepancy.estimation.ratios.gaussian_basis import Bumps, Widths, prepared
from discrepancy.estimation.ratios.kliep import BumpModel
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel

_RIDGES = tuple(10.0**k for k in (-4, -3, -2, -1, 0, 1))


@dataclass(frozen=True)
class RelativeModel(RatioModel):
    """log of p / (a p + (1 - a) q) over q / (a p + (1 - a) q), each a non-negative sum of bumps."""

    above: BumpModel
    below: BumpModel

    def relative_log_ratio(self, points: Tensor) -> Tensor:
        """log p / (a p + (1 - a) q) at points (k, d), (k,): the relative ratio of the paper, at most about -log a."""
        return self.above.log_ratio(points)

    def log_ratio(self, points: Tensor) -> Tensor:
        """log p/q."""
        return self.above.log_ratio(points) - self.below.log_ratio(points)

    def describe(self) -> str:
        """The basis, the mixture and the ridge."""
        return self.above.words


@dataclass(frozen=True)
class ULSIF(RatioMethod):
    """r = sum_l theta_l k(., c_l) that minimises E_Q[(r - p/q)^2] + ridge |theta|^2: theta = (H + ridge I)^-1 h, in closed form.

    H = E_Q[k k^T] and h = E_P[k]; Gaussian bumps at `centers` points of P. Width and ridge are those of the least exact
    leave-one-out loss, for which each left-out row is a rank-one change of H. Negative coefficients are set to zero, after the
    authors, so that r is positive. `ridges` multiply the identity, for bumps of height one.
    Time O((n + m) L^2) a width and ridge, memory O((n + m) L).
    Raises ValueError for options out of range. Source: Kanamori, Hido and Sugiyama (2009).
    """

    widths: Widths = field(default_factory=Widths)
    ridges: tuple[float, ...] = _RIDGES
    centers: int = 100

    references: ClassVar[tuple[str, ...]] = ("kanamori-2009",)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        whole_number(self.centers, 1, "centers")
        if not isinstance(self.widths, Widths):
            raise TypeError(f"widths must be Widths(...), got {self.widths!r}")
        if not self.ridges:
            raise ValueError("ridges must name at least one ridge, got none")
        for ridge in self.ridges:
            positive(ridge, "ridges")

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> RatioModel:
        """The ratio between samples x (n, d) of P and y (m, d) of Q."""
        return self._fitted(x, y, 0.0, generator)

    def _fitted(self, x: Tensor, y: Tensor, share: float, generator: torch.Generator) -> BumpModel:
        """p / (share p + (1 - share) q)."""
        scaling, x, y = prepared(x, y)
        centers = Bumps.centers_of(x, self.centers, generator)
        best: tuple[float, Bumps, float] | None = None
        for width in self.widths.of(torch.cat([x, y])):
            bumps = Bumps(centers, width)
            at_x, at_y = bumps.values(x), bumps.values(y)
            for ridge in self.ridges:
                loss = left_out_loss(at_x, at_y, share, ridge)
                if math.isfinite(loss) and (best is None or loss < best[0]):
                    best = (loss, bumps, ridge)
        if best is None:
            raise NumericalError("no leave-one-out loss of least squares is finite: raise the ridges")
        _, bumps, ridge = best
        at_x, at_y = bumps.values(x), bumps.values(y)
        theta = solution(at_x, at_y, share, ridge).clamp_min(0)
        name = "uLSIF" if share == 0 else f"RuLSIF against {share:g} P + {1 - share:g} Q"
        words = f"{name}, {len(centers)} bumps of width {bumps.width:.3g} pooled spreads, ridge {ridge:.3g}"
        return BumpModel(scaling, bumps, theta, words)


@dataclass(frozen=True)
class RelativeULSIF(ULSIF):
    """The relative ratio p / (a p + (1 - a) q), bounded by 1/a, by least squares against the mixture (RuLSIF).

    log p/q is that of the relative ratios of P and of Q (with bumps at points of Q), two closed forms with one mixture, and so
    finite where the relative ratio of P alone would exceed 1/a. `relative_log_ratio` of the model is the paper's.
    Raises ValueError unless 0 < share < 1. Source: Yamada et al. (2013).
    """

    share: float = 0.1

    references: ClassVar[tuple[str, ...]] = ("yamada-2013",)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie strictly between 0 and 1, got {self.share!r}: ULSIF() is that of 0")

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> RelativeModel:
        """Both relative ratios."""
        above = self._fitted(x, y, self.share, generator)
        return RelativeModel(above, self._fitted(y, x, 1 - self.share, generator))


def solution(at_x: Tensor, at_y: Tensor, share: float, ridge: float) -> Tensor:
    """theta of basis values at_x (n, L), at_y (m, L): (H + ridge I)^-1 h, H = share E_P[k k^T] + (1 - share) E_Q[k k^T]."""
    moment = share * at_x.T @ at_x / len(at_x) + (1 - share) * at_y.T @ at_y / len(at_y)
    moment.diagonal().add_(ridge)
    return torch.linalg.solve(moment, at_x.mean(0))


def left_out_loss(at_x: Tensor, at_y: Tensor, share: float, ridge: float) -> float:
    """share E_P[g^2] / 2 + (1 - share) E_Q[g^2] / 2 - E_P[g], g at each row as fitted without it, exactly.

    Without row y_j the matrix is that of m / (m - 1) of the second moments less a rank-one term, so that one factorisation for
    each sample and the Sherman-Morrison formula give all rows. Negative coefficients are set to zero in each, as in the fit.
    """
    n, m = len(at_x), len(at_y)
    of_x, of_y = at_x.T @ at_x / n, at_y.T @ at_y / m
    h = at_x.mean(0)
    identity = ridge * torch.eye(len(h), dtype=h.dtype, device=h.device)

    def without(rows: Tensor, base: Tensor, part: float, targets: Tensor) -> Tensor:
        """rows_i . max(0, (base - part rows_i rows_i^T)^-1 targets_i) for all i."""
        factor = torch.linalg.cholesky(base)
        solved, start = torch.cholesky_solve(rows.T, factor).T, torch.cholesky_solve(targets.T, factor).T
        leverage = part * (rows * solved).sum(1)
        theta = start + solved * (part * (rows * start).sum(1) / (1 - leverage))[:, None]
        return (rows * theta.clamp_min(0)).sum(1)

    base_y = share * of_x + (1 - share) * m / (m - 1) * of_y + identity
    at_q = without(at_y, base_y, (1 - share) / (m - 1), h.expand(m, -1))
    base_x = share * n / (n - 1) * of_x + (1 - share) * of_y + identity
    at_p = without(at_x, base_x, share / (n - 1), (n * h - at_x) / (n - 1))
    return float(share * at_p.square().mean() / 2 + (1 - share) * at_q.square().mean() / 2 - at_p.mean())


__all__ = ["ULSIF", "RelativeModel", "RelativeULSIF", "left_out_loss", "solution"]
