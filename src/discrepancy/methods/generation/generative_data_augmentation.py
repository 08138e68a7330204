"""Generative data augmentation: will samples of a generator, fitted on the same small sample, help a classifier, and how many?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from discrepancy._results import NumericalError, Result
from discrepancy._validate import at_least, generator_or_default, positive, sample, whole_number
from discrepancy.estimation.classifier_bound import seeded
from discrepancy.methods.generation.class_generators import ClassGaussians, ClassGenerator, Sampler
from discrepancy.methods.generation.labelled_rows import LabelledRows, duplicate_share, labelled_rows, warn_of_copies

# What each of n rows scores under a fitted classifier, (fitted, X, y) -> (n,); larger is better.
RowScore = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, repr=False)
class AugmentedSample(Result):
    """Real rows first, then fakes: X (n, d), y (n,), how many are `real`, and the share of fakes that are copies of real rows."""

    X: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    real: int
    fake: int
    duplicate_share: float


@dataclass(frozen=True)
class GenerativeAugmenter:
    """S~ = S and `ratio` |S| rows of D_G(S), the law that `generator` learns from S itself.

    generator: any `ClassGenerator` (fit(X, y) returns what has sample(count, generator=)); a diffusion model of yours, say.
    clip: fakes are cut to the range of each real coordinate, which changes their law. Fakes of our generators keep the class
    shares of S. Orientation: P is D, the law of the data, Q is D_G(S).
    Raises ValueError for a negative ratio and TypeError for a generator without fit. Source: Zheng, Wu and Li (2023).
    """

    generator: ClassGenerator = field(default_factory=ClassGaussians)
    ratio: float = 10.0
    clip: bool = False
    random_state: int | None = None

    references = ("generative-data-augmentation",)

    def __post_init__(self) -> None:
        """Check the options."""
        at_least(self.ratio, 0, "ratio")
        if not hasattr(self.generator, "fit"):
            raise TypeError(f"generator must have fit(X, y), got {self.generator!r}: try ClassGaussians()")

    def augment(self, X: Any, y: Any, *, generator: torch.Generator | None = None) -> AugmentedSample:
        """X (n, d) and y (n,) with round(ratio n) fakes appended.

        Warns of copies (`MemorisedRowsWarning`). Raises ValueError where the generator returns labels outside the classes or rows
        of another width, NumericalError where its rows are not finite; TypeError for sparse rows.
        """
        data = labelled_rows(X, y)
        return augmented(data, self.fitted(data), self.ratio, self.clip, generator_or_default(generator))

    def fit_resample(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """`augment` as imbalanced-learn's samplers are called; `random_state` seeds it."""
        source = None if self.random_state is None else torch.Generator().manual_seed(self.random_state)
        found = self.augment(X, y, generator=source)
        return found.X, found.y

    def fitted(self, data: LabelledRows) -> Sampler:
        """The generator fitted to some rows."""
        return self.generator.fit(data.X, data.y)


def augmented(data: LabelledRows, sampler: Sampler, ratio: float, clip: bool, source: torch.Generator) -> AugmentedSample:
    """Real rows and round(ratio n) fakes of a fitted sampler, checked."""
    count = round(ratio * len(data))
    if count == 0:
        return AugmentedSample(data.X, data.y, len(data), 0, 0.0)
    rows, labels = sampler.sample(count, generator=source)
    try:
        rows = sample(rows, "the generator's rows").detach().cpu().double().numpy()
    except ValueError as error:
        raise NumericalError(f"sampling {count} rows: {error}") from error
    if rows.shape != (count, data.X.shape[1]):
        raise ValueError(f"the generator returned rows of shape {rows.shape}, expected ({count}, {data.X.shape[1]})")
    fake = labelled_rows(rows, labels, "the generator's rows", classes=data.classes)
    if clip:
        rows = np.clip(rows, data.X.min(0), data.X.max(0))
    share = duplicate_share(rows, data.X)
    warn_of_copies(share, stacklevel=4)
    return AugmentedSample(np.concatenate([data.X, rows]), np.concatenate([data.y, fake.y]), len(data), count, share)


@dataclass(frozen=True, repr=False)
class CurvePoint(Result):
    """At one `ratio`: the held-out `score`, its gain over ratio 0 with the standard error of that paired difference, and
    `train_test_gap`, the score on the augmented training rows less the held-out one (it may fall while the score does)."""

    ratio: float
    score: float
    standard_error: float
    gain: float
    gain_error: float
    train_test_gap: float


@dataclass(frozen=True, repr=False)
class AugmentationCurve(Result):
    """The points by ascending ratio, ratio 0 first, over `rows` rows, each held out `repeats` times."""

    points: tuple[CurvePoint, ...]
    rows: int
    repeats: int

    def recommend(self) -> float:
        """The smallest ratio within one standard error of the best gain, or 0 where the best gain is within its standard error.

        The rule of one standard error (Breiman et al., 1984), on paired differences: doubt speaks for less augmentation.
        """
        best = max(self.points, key=lambda p: p.gain)
        if best.gain <= best.gain_error:
            return 0.0
        return min(p.ratio for p in self.points if p.ratio > 0 and p.gain >= best.gain - best.gain_error and p.gain > 0)


def augmentation_curve(
    classifier: Any,
    augmenter: GenerativeAugmenter,
    X: Any,
    y: Any,
    *,
    ratios: Sequence[float] = (0, 1, 2, 5, 10, 20),
    folds: int = 5,
    repeats: int = 10,
    score: RowScore | None = None,
    generator: torch.Generator | None = None,
) -> AugmentationCurve:
    """Held-out scores of `classifier` (scikit-learn's fit, predict) over repeated stratified folds, at each ratio of fakes.

    score(fitted, X, y) -> (n,): what each row scores, larger is better; default: whether its class is right. The generator is
    fitted inside each fold and never sees its held-out rows: fitted on all rows it would carry them into the training set.
    Standard errors are over rows, each row's score averaged over `repeats` first; that training sets overlap is not in them. The
    ratio of `augmenter` is not used; 0 is added to `ratios`. Time: folds x repeats fits a ratio.
    Raises ValueError for a negative ratio, a class with fewer rows than folds, fewer than 2 folds.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    data = labelled_rows(X, y)
    whole_number(folds, 2, "folds")
    whole_number(repeats, 1, "repeats")
    grid = sorted({0.0, *(float(at_least(r, 0, "ratios")) for r in ratios)})
    rarest = np.bincount(data.codes).min()
    if rarest < folds:
        raise ValueError(f"the rarest class has {rarest} row(s), fewer than the {folds} folds: use fewer folds or merge classes")
    source = generator_or_default(generator)
    measure = _is_right if score is None else score
    held_out = np.zeros((len(grid), len(data)))
    training = np.zeros(len(grid))
    for _ in range(repeats):
        deal = StratifiedKFold(folds, shuffle=True, random_state=_seed(source))
        for kept, held in deal.split(data.X, data.codes):
            part = data.rows(kept)
            sampler = augmenter.fitted(part)
            seed = _seed(source)  # the same at every ratio: within a fold only the rows differ
            for k, ratio in enumerate(grid):
                rows = augmented(part, sampler, ratio, augmenter.clip, source)
                model = seeded(clone(classifier), seed).fit(rows.X, rows.y)
                held_out[k, held] += measure(model, data.X[held], data.y[held]) / repeats
                training[k] += float(np.mean(measure(model, rows.X, rows.y))) / (folds * repeats)
    gains = held_out - held_out[0]
    root = math.sqrt(len(data))
    points = [
        CurvePoint(
            ratio,
            float(held_out[k].mean()),
            float(held_out[k].std(ddof=1)) / root,
            float(gains[k].mean()),
            float(gains[k].std(ddof=1)) / root,
            float(training[k] - held_out[k].mean()),
        )
        for k, ratio in enumerate(grid)
    ]
    return AugmentationCurve(tuple(points), len(data), repeats)


def _is_right(fitted: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(fitted.predict(X) == y, dtype=float)


def _seed(source: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=source))


@dataclass(frozen=True, repr=False)
class AugmentationBound(Result):
    """Order-form bound on the generalisation error, up to constants: the sum of what does not fall with more real rows
    (`divergence`), of `concentration`, and of the `dependence` of the fakes on single real rows."""

    value: float
    divergence: float
    concentration: float
    dependence: float
    note: str = "constants are set to one: compare values, do not quote them"


def gda_bound(
    total_variation: float,
    real: int,
    fake: int,
    *,
    stability: float,
    loss_bound: float = 1.0,
    sensitivity: float = 1.0,
) -> AugmentationBound:
    """With m = real + fake, TV = TV(D, D_G(S)) in [0, 1], a loss in [0, M] and a learner of uniform stability beta:

    (fake/m) M TV + [M (sqrt real + sqrt fake) + real sqrt(fake) beta]/m + [beta (real log real + fake log fake) + real M T]/m,
    where T = `sensitivity` in [0, 1] is the total variation between all fakes from S and from S with one row replaced (1 is
    always true; without fakes it is 0). `stability` is beta at m rows. More fakes never remove the first term.
    Raises ValueError for values outside their ranges. Source: Zheng, Wu and Li (2023), constants dropped.
    """
    for name, share in (("total_variation", total_variation), ("sensitivity", sensitivity)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {share!r}")
    whole_number(real, 1, "real")
    whole_number(fake, 0, "fake")
    at_least(stability, 0, "stability")
    bound = positive(loss_bound, "loss_bound")
    m = real + fake
    logs = real * math.log(real) + (fake * math.log(fake) if fake else 0.0)
    first = fake / m * bound * total_variation
    second = (bound * (math.sqrt(real) + math.sqrt(fake)) + real * math.sqrt(fake) * stability) / m
    third = (stability * logs + (real * bound * sensitivity if fake else 0.0)) / m
    return AugmentationBound(first + second + third, first, second, third)


__all__ = [
    "AugmentationBound",
    "AugmentationCurve",
    "AugmentedSample",
    "CurvePoint",
    "GenerativeAugmenter",
    "augmentation_curve",
    "augmented",
    "gda_bound",
]
