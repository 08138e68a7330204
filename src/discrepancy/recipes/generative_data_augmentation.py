"""Fakes from a generator fitted on the same small sample: when they help a classifier, and what the theory measures.

design   two Gaussian classes in closed form: the gap between training and test loss, and the test error, by the ratio of fakes
digits   handwritten digits: a decision tree and logistic regression, 30 to 600 rows, ten fakes a row, three splits a seed
advice   the ratio that repeated cross-validation recommends on one split of 100 rows
gap      total variation by a classifier: fakes of the true law, and of one shifted by three standard deviations
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from discrepancy import TotalVariation
from discrepancy.datasets import digits
from discrepancy.divergences import FDivergence
from discrepancy.divergences.admission import Admission
from discrepancy.estimation import ClassifierBound
from discrepancy.methods.generation.class_generators import ClassGaussians
from discrepancy.methods.generation.gaussian_mixture_design import GaussianMixtureDesign
from discrepancy.methods.generation.generative_data_augmentation import GenerativeAugmenter, augmentation_curve
from discrepancy.methods.generation.generator_gap import generator_gap
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_SIZES = (30, 100, 600)
_RATIOS = (0, 1, 20)
# Of the card: 0-1 gap at d = 1, test error and gap of the negative log-likelihood at d = 50, for ratios 0, 1, 20.
_REFERENCE = {"error_gap 1": (0.0625, 0.0531, 0.0399), "test_error 50": (0.157, 0.172, 0.161), "nll_gap 50": (4.87, 5.87, 5.10)}
_AUGMENTER = GenerativeAugmenter(ClassGaussians(0.5), ratio=10)


def _learners(seed: int) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": DecisionTreeClassifier(random_state=seed), "logistic": LogisticRegression(max_iter=500)}


def _design(generator: torch.Generator) -> Row:
    row: Row = {}
    for d in (1, 50):
        for found in GaussianMixtureDesign(d, 10).run(_RATIOS, repeats=150, generator=generator):
            for name in ("error_gap", "nll_gap", "test_error"):
                row[f"{name} {d} {found.ratio:g}"] = getattr(found, name)
    return row


def _standardised() -> tuple[np.ndarray, np.ndarray]:
    X, y = digits()
    spread = X.std(0)
    return (X - X.mean(0)) / np.where(spread > 0, spread, 1.0), y


def _split(X: np.ndarray, y: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import StratifiedShuffleSplit

    return next(StratifiedShuffleSplit(1, train_size=size, random_state=seed).split(X, y))


def _digits(setting: Setting, generator: torch.Generator) -> Row:
    X, y = _standardised()
    row: Row = {}
    for size in _SIZES:
        # A single quick seed takes the splits of small training sets from what the others would have.
        splits = 3 if not setting.quick else 8 if size < 600 else 1
        gains: dict[str, list[float]] = {name: [] for name in _learners(0)}
        for split in range(splits):
            seed = 3 * setting.seed + split
            train, test = _split(X, y, size, seed)
            both = _AUGMENTER.augment(X[train], y[train], generator=generator)
            for name, learner in _learners(seed).items():
                plain = learner.fit(X[train], y[train]).score(X[test], y[test])
                gains[name].append(learner.fit(both.X, both.y).score(X[test], y[test]) - plain)
                if name == "tree":
                    row[f"tree accuracy {size}"] = row.get(f"tree accuracy {size}", 0.0) + plain / splits
        row |= {f"{name} gain {size}": statistics.fmean(values) for name, values in gains.items()}
    return row


def _advice(setting: Setting, generator: torch.Generator) -> Row:
    X, y = _standardised()
    train, _ = _split(X, y, 100, 3 * setting.seed)
    row: Row = {}
    for name, learner in _learners(setting.seed).items():
        curve = augmentation_curve(
            learner,
            _AUGMENTER,
            X[train],
            y[train],
            ratios=(0, 10) if setting.quick else (0, 2, 10, 20),
            repeats=4 if setting.quick else 10,
            generator=generator,
        )
        row[f"{name} advice"] = curve.recommend()
    return row


def _gap(setting: Setting, generator: torch.Generator) -> Row:
    """The generator's own law as truth: fakes of it, and of it with every mean moved by three deviations."""
    size = 200 if setting.quick else 400
    noise = torch.randn(2, size, 8, generator=generator, dtype=torch.float64).numpy()
    labels = np.repeat([0, 1], size // 2)
    real = noise[0] + 2.0 * labels[:, None]
    fake = noise[1] + 2.0 * labels[:, None]
    metric = setting.choice or TotalVariation()
    method = ClassifierBound(folds=3) if setting.quick else None

    def gap(shift: float) -> float:
        found = generator_gap(real, labels, fake + shift, labels, metric, method=method, generator=generator)
        return float(found.gap)

    return {"gap of the true law": gap(0.0), "gap of the shifted law": gap(3 * float(real.std(0).mean()))}


def measure(setting: Setting) -> Row:
    """All four parts for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    return _design(generator) | _digits(setting, generator) | _advice(setting, generator) | _gap(setting, generator)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; one seed of a quick run has splits of its own noise and is judged by the same ones."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows]

    checks = []
    for what, reference in _REFERENCE.items():
        name, d = what.split()
        means = [statistics.fmean(column(f"{name} {d} {r}")) for r in _RATIOS]
        off = max(abs(m - t) for m, t in zip(means, reference, strict=True))
        near = all(abs(m - t) <= max(0.01, 0.1 * t) for m, t in zip(means, reference, strict=True))
        text = f"within 10 % or 0.01 of the card's at ratios 0, 1, 20 (worst off by {off:.2g})"
        checks.append(check(f"design: {name.replace('_', ' ')} at d = {d}, ratio 1", column(f"{name} {d} 1"), text, near))
    fall = [row["error_gap 1 0"] - row["error_gap 1 20"] for row in rows]
    checks.append(check("design: 0-1 gap closed by 20 fakes a row at d = 1", fall, "> 0", min(fall) > 0))
    rise = [min(row[f"test_error {d} {r}"] - row[f"test_error {d} 0"] for d in (1, 50) for r in (1, 20)) for row in rows]
    checks.append(check("design: least change of the test error by fakes", rise, ">= 0: fakes never lower it", min(rise) >= 0))
    for size in _SIZES:
        gain = column(f"tree gain {size}")
        mean = statistics.fmean(gain)
        if size < 600:
            checks.append(check(f"digits: gain of the tree at {size} rows", gain, "mean >= 0.03", mean >= 0.03))
        else:
            checks.append(check(f"digits: gain of the tree at {size} rows", gain, "mean within 0.015", abs(mean) <= 0.015))
    best = max(_SIZES, key=lambda size: statistics.fmean(column(f"logistic gain {size}")))
    gain = column(f"logistic gain {best}")
    held = statistics.fmean(gain) <= 0.01
    checks.append(check("digits: largest mean gain of logistic regression", gain, "mean <= 0.01 at every size", held))
    share = 6 / 8 * len(rows)
    for what, good in (
        ("advises fakes for the tree", [float(v > 0) for v in column("tree advice")]),
        ("advises none for logistic regression", [float(v == 0) for v in column("logistic advice")]),
    ):
        checks.append(check(f"advice: share of splits where it {what}", good, ">= 6 of 8", sum(good) >= share))
    true, shifted = column("gap of the true law"), column("gap of the shifted law")
    checks.append(check("gap: fakes of the true law", true, "< 0.1", max(true) < 0.1))
    checks.append(check("gap: fakes three deviations away", shifted, "> 0.9", min(shifted) > 0.9))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """The design's gap and error by ratio, and the gains on digits by size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = np.arange(len(_RATIOS))
    for d, colour in ((1, "#2563eb"), (50, "#dc2626")):
        for name, style, label in (("error_gap", "o-", "|train - test|"), ("test_error", "s--", "test error")):
            means = [statistics.fmean(row[f"{name} {d} {r}"] for row in rows) for r in _RATIOS]
            left.plot(places, means, style, color=colour, label=f"{label}, d = {d}")
    left.set(
        xticks=places, xticklabels=_RATIOS, xlabel="fakes a real row", ylabel="0-1 loss", title="two Gaussian classes, 10 rows"
    )
    for name, colour in (("tree", "#2563eb"), ("logistic", "#6b7280")):
        values = np.array([[row[f"{name} gain {size}"] for row in rows] for size in _SIZES])
        right.plot(range(len(_SIZES)), values.mean(1), "o-", color=colour, label=name)
        for k, row_values in enumerate(values):
            right.plot([k] * len(row_values), row_values, ".", color=colour, alpha=0.4)
    right.axhline(0, color="black", lw=0.8)
    right.set(
        xticks=range(len(_SIZES)),
        xticklabels=_SIZES,
        xlabel="real rows",
        ylabel="accuracy gained",
        title="digits, 10 fakes a row",
    )
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _told_apart(divergence: FDivergence, seed: int) -> float:
    """The gap of fakes that are one deviation away, less the gap between real rows, in standard errors of the former."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 400, 4, generator=generator, dtype=torch.float64).numpy()
    labels = np.repeat([0, 1], 200)
    real, fake = noise[0] + 2.0 * labels[:, None], noise[1] + 2.0 * labels[:, None] + 1.0
    found = generator_gap(real, labels, fake, labels, divergence, method=ClassifierBound(folds=3), generator=generator)
    return found.excess / float(found.gap.standard_error or 1.0)


RECIPE = Recipe(
    slug="generative-data-augmentation",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=tuple(range(8)),
    swaps=True,
    needs=("digits",),
    task=SwapTask(
        measures="excess gap of fakes one deviation away, in standard errors",
        better="higher",
        admits=Admission("generator_gap", (FDivergence,), examples=("TotalVariation()", "JensenShannon()")),
        run=_told_apart,
        default=TotalVariation(),
    ),
)
