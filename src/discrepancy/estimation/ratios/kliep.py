"""KLIEP: the ratio that brings r q nearest to p in Kullback-Leibler divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive, whole_number
from discrepancy.estimation.ratios.gaussian_basis import Bumps, Widths, prepared
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.scaling import Scaling


@dataclass(frozen=True)
class BumpModel(RatioModel):
    """log r(x) = log sum_l theta_l k(x, c_l)."""

    scaling: Scaling
    bumps: Bumps
    theta: Tensor
    words: str

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The logarithm of the sum."""
        return self.bumps.log_sum(self.scaling(points), self.theta).to(points.dtype)

    def describe(self) -> str:
        """The bumps and how they were weighed."""
        return self.words


@dataclass(frozen=True)
class KLIEP(RatioMethod):
    """r = sum_l theta_l k(., c_l) with theta >= 0 that maximises E_P[log r] subject to E_Q[r] = 1.

    In b_l theta_l, b_l = E_Q[k(., c_l)], this is the likelihood of a mixture over its weights: concave, solved by expectation
    maximisation, whose distance from the optimum is at most log max_l E_P[k_l / (b_l r)], the `tolerance` in nats. Gaussian bumps
    at `centers` points of P; the width of `widths` with the highest likelihood of held-out points, over three folds of P.
    Its maximum is a plug-in estimate of KL. Time O(n L) an iteration, memory O((n + m) L).
    Raises ValueError for options out of range. Source: Sugiyama et al. (2008).
    """

    widths: Widths = field(default_factory=Widths)
    centers: int = 100
    tolerance: float = 1e-3
    max_iterations: int = 5000

    references: ClassVar[tuple[str, ...]] = ("sugiyama-2008",)
    least: ClassVar[int] = 6

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        whole_number(self.centers, 1, "centers")
        positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        if not isinstance(self.widths, Widths):
            raise TypeError(f"widths must be Widths(...), got {self.widths!r}")

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> BumpModel:
        """The ratio between samples x (n, d) of P and y (m, d) of Q."""
        scaling, x, y = prepared(x, y)
        centers = Bumps.centers_of(x, self.centers, generator)
        folds = torch.randperm(len(x), generator=generator).tensor_split(3)
        best, chosen = -math.inf, None
        for width in self.widths.of(torch.cat([x, y])):
            bumps = Bumps(centers, width)
            rows, mean = self._relative(bumps, x, y)
            if rows is None:
                continue
            score = 0.0
            for own in folds:
                kept = torch.ones(len(x), dtype=torch.bool, device=x.device)
                kept[own] = False
                share, _ = self._maximised(rows[kept], 10 * self.tolerance)
                # The held-out likelihood of points that no bump reaches is that of the logarithm, not of an underflow.
                score += float(bumps.log_sum(x[own], share / mean).sum()) / len(x)
            if score > best:
                best, chosen = score, (bumps, rows, mean)
        if chosen is None:
            raise ValueError(
                "no width of the basis reaches from P to Q: the samples are too far apart for KLIEP, take TimeScore()"
            )
        bumps, rows, mean = chosen
        share, outcome = self._maximised(rows, self.tolerance)
        outcome.warn("KLIEP")
        words = f"KLIEP, {len(centers)} bumps of width {bumps.width:.3g} pooled spreads"
        return BumpModel(scaling, bumps, share / mean, words)

    @staticmethod
    def _relative(bumps: Bumps, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor]:
        """k(x_i, c_l) / b_l, (n, L), and b; None where a bump does not reach Q, and its b underflows."""
        mean = bumps.values(y).mean(0)
        if not bool((mean > torch.finfo(mean.dtype).tiny).all()):
            return None, mean
        rows = bumps.values(x) / mean
        return (rows if bool((rows.sum(1) > 0).all()) else None), mean

    def _maximised(self, rows: Tensor, tolerance: float) -> tuple[Tensor, Outcome]:
        """The weights on the simplex that maximise the mean of log(rows @ w)."""
        w = rows.new_full((rows.shape[1],), 1 / rows.shape[1])
        for _ in range(self.max_iterations):
            gradient = (rows / (rows @ w)[:, None]).mean(0)
            if math.log(float(gradient.max())) <= tolerance:
                return w, Outcome.CONVERGED
            w = w * gradient
            w = w / w.sum()
        return w, Outcome.ITERATION_LIMIT


__all__ = ["KLIEP", "BumpModel"]
