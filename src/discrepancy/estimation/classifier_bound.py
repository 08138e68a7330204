"""A lower bound on a divergence from what a classifier can tell apart, by data processing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import fraction, generator_or_default, sample_pair, whole_number
from discrepancy.divergences import Divergence


@dataclass(frozen=True)
class ClassifierBound:
    """D(P || Q) >= D((t, 1 - t) || (s, 1 - s)), where t = P(A), s = Q(A) and A is where a classifier says "from P".

    Processing of data loses divergence, whatever the classifier: a poor one makes a low bound, and never a high one. For total
    variation the bound is |t - s|, which is 2 accuracy - 1 for two samples of equal size. The classifier is cross-fitted: t and s
    are counted on rows that it has not seen, over `folds` folds; each fold trains on equal numbers of both samples, so that a
    smaller sample is not outvoted. It estimates the bound, nearly without bias: counts are smoothed to (hits + 1/2) / (n + 1),
    so that no bound is infinite, and at P = Q the absolute value leaves some (1/n + 1/m)^(1/2) above zero.

    classifier: any with scikit-learn's fit and predict, copied (None: a random forest of 100 trees). There is no upper end of an
    interval: `low` is the least D over the Clopper-Pearson ranges of t and s, one-sided at `level` together; `standard_error` is
    that of the bound, by the delta method. That the folds share rows is not counted.
    Takes every `Divergence` that data processing lowers: all f-divergences, Renyi, Tsallis; TypeError for another kind, Bregman
    or Cauchy-Schwarz say. Raises ValueError for fewer rows than folds. Time: `folds` fits. Source: Sason and Verdu (2016).
    """

    classifier: Any = None
    folds: int = 5

    references = ("sason-verdu-2016",)

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.folds, 2, "folds")
        if self.classifier is not None and not (hasattr(self.classifier, "fit") and hasattr(self.classifier, "predict")):
            raise TypeError(f"classifier must have fit and predict as in scikit-learn, got {type(self.classifier).__name__}")

    @torch.no_grad()
    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """The bound for x (n, d) drawn from P and y (m, d) drawn from Q; `generator` deals the folds and seeds the classifier."""
        _require_processing(divergence)
        level = fraction(level, "level")
        pair = sample_pair(x, y)
        if pair.batch:
            raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}")
        sizes = len(pair.x), len(pair.y)
        if min(sizes) < 2 * self.folds:
            raise ValueError(
                f"{self.folds} folds need at least {2 * self.folds} rows in each sample, got {sizes[0]} and {sizes[1]}"
            )
        hits = self._hits(pair.x.double(), pair.y.double(), generator_or_default(generator))
        t, s = (torch.tensor((h + 0.5) / (n + 1), dtype=torch.float64) for h, n in zip(hits, sizes, strict=True))
        value, error = _with_error(divergence, t, s, sizes)
        name = "a random forest" if self.classifier is None else type(self.classifier).__name__
        return Estimate(
            value,
            error,
            _least(divergence, hits, sizes, level),
            None,
            level,
            method=f"{name}, cross-fitted over {self.folds} folds: {hits[0]}/{sizes[0]} and {hits[1]}/{sizes[1]} taken for x",
            note="a lower bound: a better classifier may find more",
        )

    def _hits(self, x: Tensor, y: Tensor, source: torch.Generator) -> tuple[int, int]:
        """How many held-out rows of x and of y the classifier takes for rows of x."""
        order = [torch.randperm(len(s), generator=source) for s in (x, y)]
        parts = [o.tensor_split(self.folds) for o in order]
        hits = [0, 0]
        for k in range(self.folds):
            rest = [torch.cat([p for j, p in enumerate(part) if j != k]) for part in parts]
            size = min(len(r) for r in rest)
            rows = torch.cat([s[r[:size]] for s, r in zip((x, y), rest, strict=True)]).numpy()
            fitted = self._fresh(source).fit(rows, np.repeat([1, 0], size))
            for j, sample in enumerate((x, y)):
                hits[j] += int((np.asarray(fitted.predict(sample[parts[j][k]].numpy())) == 1).sum())
        return hits[0], hits[1]

    def _fresh(self, source: torch.Generator) -> Any:
        seed = int(torch.randint(2**31 - 1, (), generator=source))
        if self.classifier is None:
            from sklearn.ensemble import RandomForestClassifier

            return RandomForestClassifier(100, random_state=seed)
        from sklearn.base import clone

        return seeded(clone(self.classifier), seed)


def seeded(classifier: Any, seed: int) -> Any:
    """The classifier with `random_state` set where it has one that is None, so that a run repeats itself."""
    options = classifier.get_params() if hasattr(classifier, "get_params") else {}
    return classifier.set_params(random_state=seed) if options.get("random_state", 0) is None else classifier


def _require_processing(divergence: Any) -> None:
    from discrepancy.divergences import FDivergence
    from discrepancy.divergences.ratio import RatioDivergence

    if not isinstance(divergence, FDivergence | RatioDivergence):
        kind = divergence.__name__ if isinstance(divergence, type) else type(divergence).__name__
        raise TypeError(
            f"a classifier bounds what data processing lowers, f-divergences, Renyi and Tsallis objects, got {kind}: "
            "try TotalVariation() or JensenShannon()"
        )


def _binary(divergence: Divergence, t: Tensor, s: Tensor) -> Tensor:
    return divergence.from_probs(torch.stack([t, 1 - t]), torch.stack([s, 1 - s]))


def _with_error(divergence: Divergence, t: Tensor, s: Tensor, sizes: tuple[int, int]) -> tuple[float, float]:
    with torch.enable_grad():
        t, s = t.clone().requires_grad_(), s.clone().requires_grad_()
        value = _binary(divergence, t, s)
        slopes = torch.autograd.grad(value, (t, s))
    variance = sum(float(g) ** 2 * float(p * (1 - p)) / n for g, p, n in zip(slopes, (t, s), sizes, strict=True))
    return float(value), math.sqrt(variance)


def _least(divergence: Divergence, hits: tuple[int, int], sizes: tuple[int, int], level: float) -> float:
    """The least divergence over the box of both one-sided ranges; D grows with the distance of t and s on either side."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    ends = []
    for h, n in zip(hits, sizes, strict=True):
        low = float(betaincinv(h, n - h + 1, tail)) if h else 0.0
        high = float(betaincinv(h + 1, n - h, 1 - tail)) if h < n else 1.0
        ends.append((low, high))
    (t_low, t_high), (s_low, s_high) = ends
    if t_low <= s_high and s_low <= t_high:
        return 0.0
    t, s = (t_low, s_high) if t_low > s_high else (t_high, s_low)
    return float(_binary(divergence, *(torch.tensor(v, dtype=torch.float64) for v in (t, s))))


__all__ = ["ClassifierBound", "seeded"]
