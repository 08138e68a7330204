"""How far a generator's law is from the data, and how much a learner depends on single rows: what the bound is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from discrepancy._kinds import Discrepancy
from discrepancy._results import Estimate, Result
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.divergences import Divergence, TotalVariation
from discrepancy.estimation import Method
from discrepancy.estimation.classifier_bound import ClassifierBound, seeded
from discrepancy.inference import bootstrap
from discrepancy.methods.generation.labelled_rows import duplicate_share, labelled_rows, warn_of_copies


@dataclass(frozen=True, repr=False)
class GeneratorGap(Result):
    """`gap`: D(real || fake) on held-out real rows; `null`: the same between two halves of the real rows; `excess` = gap - null.

    `duplicate_share`: which part of the fakes repeats a real row.
    """

    gap: Estimate
    null: Estimate
    duplicate_share: float

    @property
    def excess(self) -> float:
        """The gap less what the method finds where there is none; halves are smaller samples, so it errs on the low side."""
        return float(self.gap) - float(self.null)


def generator_gap(
    X_real: Any,
    y_real: Any,
    X_fake: Any,
    y_fake: Any,
    metric: Divergence | Discrepancy | None = None,
    *,
    method: Method | None = None,
    generator: torch.Generator | None = None,
) -> GeneratorGap:
    """D(P || Q) between the joint laws of row and label, P of the real rows, which the generator must not have seen, Q of fakes.

    A row is its coordinates, scaled by the real rows' deviations, and its label as a block of zeros and a one.
    metric: a `Divergence` (default `TotalVariation()`, which the bound of augmentation names) is estimated by `method`, by
    default `ClassifierBound()`: a lower bound, never an upper one; a `Discrepancy` of samples by `bootstrap`, `method` unused.
    Warns of copies of real rows. Raises TypeError for another metric, ValueError for labels outside the real classes.
    """
    metric = TotalVariation() if metric is None else metric
    if not isinstance(metric, Divergence | Discrepancy):
        raise TypeError(f"metric must be a Divergence or a Discrepancy object, got {metric!r}: try TotalVariation() or MMD()")
    real = labelled_rows(X_real, y_real, "X_real")
    fake = labelled_rows(X_fake, y_fake, "X_fake", classes=real.classes)
    if fake.X.shape[1] != real.X.shape[1]:
        raise ValueError(f"X_real has {real.X.shape[1]} features and X_fake {fake.X.shape[1]}: they must be the same")
    share = duplicate_share(fake.X, real.X)
    warn_of_copies(share)
    source = generator_or_default(generator)
    centre, spread = real.X.mean(0), real.X.std(0)
    blocks = np.eye(len(real.classes))
    x, y = (
        torch.from_numpy(np.concatenate([(s.X - centre) / np.where(spread > 0, spread, 1.0), blocks[s.codes]], 1))
        for s in (real, fake)
    )

    def compared(a: torch.Tensor, b: torch.Tensor) -> Estimate:
        if isinstance(metric, Discrepancy):
            return bootstrap(a, b, metric, generator=source)
        return (method or ClassifierBound())(metric, a, b, generator=source)

    order = torch.randperm(len(x), generator=source)
    first, second = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    return GeneratorGap(compared(x, y), compared(first, second), share)


def stability_probe(
    classifier: Any,
    X: Any,
    y: Any,
    X_pool: Any,
    y_pool: Any,
    *,
    replacements: int = 20,
    loss: Callable[[Any, np.ndarray, np.ndarray], np.ndarray] | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """The largest change of the loss at any pool row when one training row is replaced by one of the pool: an empirical beta.

    loss(fitted, X, y) -> (n,); default: one minus the probability of the true class, or 0-1 loss without predict_proba. The
    maximum over `replacements` trials is a lower bound on uniform stability, which is a supremum over all samples; hence no
    interval. Time: replacements + 1 fits. Raises ValueError for labels of the pool outside the classes.
    """
    from sklearn.base import clone

    data = labelled_rows(X, y)
    pool = labelled_rows(X_pool, y_pool, "X_pool", classes=data.classes)
    whole_number(replacements, 1, "replacements")
    source = generator_or_default(generator)
    seed = int(torch.randint(2**31 - 1, (), generator=source))
    measure = _miss if loss is None else loss
    before = measure(seeded(clone(classifier), seed).fit(data.X, data.y), pool.X, pool.y)
    worst = 0.0
    for _ in range(replacements):
        i = int(torch.randint(len(data), (), generator=source))
        j = int(torch.randint(len(pool), (), generator=source))
        rows, labels = data.X.copy(), data.y.copy()
        rows[i], labels[i] = pool.X[j], pool.y[j]
        if len(np.unique(labels)) < len(data.classes):
            continue  # a class would vanish: the learner's output would have another shape
        after = measure(seeded(clone(classifier), seed).fit(rows, labels), pool.X, pool.y)
        worst = max(worst, float(np.abs(after - before).max()))
    note = "the largest of the trials, a lower bound on uniform stability: no interval"
    return Estimate(worst, method=f"{replacements} replacements of one row", note=note)


def _miss(fitted: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not hasattr(fitted, "predict_proba"):
        return (fitted.predict(X) != y).astype(float)
    probability = fitted.predict_proba(X)
    return 1 - probability[np.arange(len(y)), np.searchsorted(fitted.classes_, y)]


__all__ = ["GeneratorGap", "generator_gap", "stability_probe"]
