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
    """log r(x) = log(constant + sum_l theta_l k(x, c_l))."""

    scaling: Scaling
    bumps: Bumps
    theta: Tensor
    words: str
    constant: float = 0.0

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The logarithm of the sum."""
        found = self.bumps.log_sum(self.scaling(points), self.theta)
        if self.constant > 0:
            found = torch.logaddexp(found, found.new_tensor(math.log(self.constant)))
        return found.to(points.dtype)

    def describe(self) -> str:
        """The bumps and how they were weighed."""
        return self.words


@dataclass(frozen=True)
class KLIEP(RatioMethod):
    """r = theta_0 + sum_l theta_l k(., c_l) with theta >= 0 that maximises E_P[log r] subject to E_Q[r] = 1.

    In b_l theta_l, b_l = E_Q[k(., c_l)], this is the likelihood of a mixture over its weights: concave, solved by expectation
    maximisation, whose distance from the optimum is at most log max_l E_P[k_l / (b_l r)], the `tolerance` in nats. Gaussian bumps
    at `centers` points of P. Two things are not the authors': the constant, which carries the points that no bump reaches, where
    log r would be anything; and the width, that of the largest E_P[log r] - log E_Q[r] of held-out points, three folds of each
    sample: held-out points of P alone, with E_Q[r] = 1 as fitted, prefer spikes where Q is rare. Its maximum is a plug-in
    estimate of KL. Time O(n L) an iteration, memory O((n + m) L).
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
        folds = [
            (_left_out(x, own), _left_out(y, other))
            for own, other in zip(_thirds(x, generator), _thirds(y, generator), strict=True)
        ]
        best, chosen = -math.inf, None
        for width in self.widths.of(torch.cat([x, y])):
            bumps = Bumps(centers, width)
            score = sum(self._score(bumps, *of_x, *of_y) for of_x, of_y in folds)
            if score > best:
                best, chosen = score, bumps
        if chosen is None:
            raise ValueError(
                "no width of the basis reaches from P to Q: the samples are too far apart for KLIEP, take TimeScore()"
            )
        share, mean, outcome = self._fitted(chosen, x, y, self.tolerance)
        outcome.warn("KLIEP")
        words = f"KLIEP, {len(centers)} bumps of width {chosen.width:.3g} pooled spreads and a constant"
        return BumpModel(scaling, chosen, share[:-1] / mean, words, float(share[-1]))

    def _score(self, bumps: Bumps, x: Tensor, held_x: Tensor, y: Tensor, held_y: Tensor) -> float:
        """E_P[log r] - log E_Q[r] of held-out points, r fitted to the others: a lower bound on KL in expectation."""
        if not _reaches(bumps, y):
            return -math.inf
        share, mean, _ = self._fitted(bumps, x, y, 10 * self.tolerance)
        at_x, at_y = (_relative(bumps, rows, mean) @ share for rows in (held_x, held_y))
        score = float(at_x.log().mean() - at_y.mean().log())
        return score if math.isfinite(score) else -math.inf  # a share that underflowed: no ratio at all

    def _fitted(self, bumps: Bumps, x: Tensor, y: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Outcome]:
        """The shares (L + 1,) of the bumps and the constant, and b (L,)."""
        mean = bumps.values(y).mean(0)
        share, outcome = self._maximised(_relative(bumps, x, mean), tolerance)
        return share, mean, outcome

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


def _reaches(bumps: Bumps, y: Tensor) -> bool:
    """Whether no b_l underflows."""
    mean = bumps.values(y).mean(0)
    return bool((mean > torch.finfo(mean.dtype).tiny).all())


def _relative(bumps: Bumps, points: Tensor, mean: Tensor) -> Tensor:
    """k(x_i, c_l) / b_l, and 1 for the constant, (k, L + 1)."""
    rows = bumps.values(points) / mean
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


def _thirds(sample: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return torch.randperm(len(sample), generator=generator).to(sample.device).tensor_split(3)


def _left_out(sample: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The rows without `own`, and those."""
    kept = torch.ones(len(sample), dtype=torch.bool, device=sample.device)
    kept[own] = False
    return sample[kept], sample[own]


__all__ = ["KLIEP", "BumpModel"]
