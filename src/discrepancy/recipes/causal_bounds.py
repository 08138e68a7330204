"""Bounds under unmeasured confounding: exact numbers, the containment theorem, a planted design, and where the claim ends.

exact      two-point laws, and 20 random discrete ones for each divergence: every ball contains Manski's interval
design     the paper's structural model with t_3 noise, five covariates and a hidden confounder; phi = 1(Y <= median), whose mean
           under do(1) is known by quadrature; propensities by a logistic regression on quadratic terms (chosen on other seeds)
debiasing  the true propensities, raised by n^(-1/4): how far the bounds move with the orthogonal loss and with the plain one
unbounded  the exact bound for a normal outcome without a stated range, from n = 100 to 100,000
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.divergences import KL, ChiSquared, FDivergence, dro_bounds
from discrepancy.learning import Training
from discrepancy.methods.causality import CausalBounds, UpTo, divergence_radius, manski_bounds
from discrepancy.methods.causality.bounding import ADMITS
from discrepancy.methods.causality.causal_bounds import PAPER
from discrepancy.methods.causality.parameters import Parameters
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_CARD = {"KL": (KL(), 0.02524, 0.77539), "chi-squared": (ChiSquared(), 0.07933, 0.68067)}
_SIZES = (100, 1000, 10_000, 100_000)
_NODES, _MASS = np.polynomial.hermite_e.hermegauss(64)
_MASS = _MASS / _MASS.sum()


@dataclass(frozen=True)
class _Design:
    """The paper's structural model: five uniform covariates, a normal confounder of treatment and outcome."""

    slopes: np.ndarray

    def propensity(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Pr(A = 1 | x, u), broadcast over the last dimension of u."""
        logit = (x @ self.slopes + 0.5 * np.sin(x[:, 0]) - 0.25 * x[:, 0] ** 2)[:, None] + 0.8 * u
        return 0.05 + 0.9 / (1 + np.exp(-logit))

    def mean(self, x: np.ndarray, u: np.ndarray, arm: np.ndarray | float) -> np.ndarray:
        """E[Y(arm) | x, u]."""
        base = 0.5 + 0.8 * np.tanh(x[:, 0]) + 0.25 * x[:, 1] ** 2 - 0.15 * np.sin(x[:, 2])
        effect = (0.7 + 0.2 * np.sin(x[:, 0]) + 0.1 * x[:, 0])[:, None] + 0.8 * (self.propensity(x, u) - 0.5)
        return base[:, None] + effect * arm + 0.7 * u

    def observed(self, x: np.ndarray) -> np.ndarray:
        """Pr(A = 1 | x)."""
        return self.propensity(x, _NODES[None]) @ _MASS

    def truth(self, x: np.ndarray, threshold: float) -> np.ndarray:
        """Pr(Y(1) <= threshold | x), t_3 noise."""
        from scipy.special import stdtr

        return stdtr(3, threshold - self.mean(x, _NODES[None], 1.0)) @ _MASS

    def draw(self, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariates, treatments, outcomes."""
        x, u = random.uniform(-2, 2, (n, 5)), random.normal(size=(n, 1))
        arm = (random.random((n, 1)) < self.propensity(x, u)).astype(float)
        y = self.mean(x, u, arm) + random.standard_t(3, (n, 1))
        return x, arm[:, 0].astype(int), y[:, 0]


@dataclass(eq=False)
class _Known(Parameters):
    """A classifier that knows Pr(A = 1 | x), and is wrong by `shift`."""

    design: _Design | None = None
    shift: float = 0.0

    def fit(self, X: np.ndarray, A: np.ndarray) -> _Known:
        """Nothing is learned."""
        self.classes_ = np.unique(A)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of both arms."""
        assert self.design is not None
        e = np.clip(self.design.observed(X) + self.shift, 0.01, 0.99)
        return np.stack([1 - e, e], -1)


def _chosen(setting: Setting) -> tuple[FDivergence, ...]:
    if setting.choice is not None:
        return (ADMITS.check(setting.choice),)
    return (KL(), ChiSquared()) if setting.quick else PAPER


def _relative_width(divergence: FDivergence, generator: torch.Generator, laws: int = 20) -> tuple[float, float]:
    """Over random laws on six points: the width of the ball's interval over Manski's, and how much of Manski's is missed."""
    phi = torch.randn(laws, 6, generator=generator, dtype=torch.float64)
    p = torch.rand(laws, 6, generator=generator, dtype=torch.float64)
    p = p / p.sum(-1, keepdim=True)
    e = 0.1 + 0.8 * torch.rand(laws, generator=generator, dtype=torch.float64)
    found = dro_bounds(phi, divergence_radius(e, divergence), divergence, weights=p)
    low, high = manski_bounds((p * phi).sum(-1), e, phi.amin(-1), phi.amax(-1))
    missed = torch.maximum(found.lower - low, high - found.upper).clamp_min(0)
    return float(((found.upper - found.lower) / (high - low)).mean()), float(missed.max())


def _exact(setting: Setting) -> Row:
    row: Row = {}
    if setting.choice is None:
        errors = []
        for f, low, high in _CARD.values():
            points, weights = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
            found = dro_bounds(points, divergence_radius(torch.tensor(0.6, dtype=torch.float64), f), f, weights=weights)
            errors += [abs(float(found.lower) - low), abs(float(found.upper) - high)]
        row["error of the exact ends"] = max(errors)
    generator = torch.Generator().manual_seed(setting.seed)
    widths, missed = zip(*(_relative_width(f, generator) for f in _chosen(setting)), strict=True)
    row |= {f"width over Manski's, {f!r}": w for f, w in zip(_chosen(setting), widths, strict=True)}
    row |= {"narrowest over Manski's": min(widths), "missed of Manski's": max(missed)}
    return row


def _options(setting: Setting) -> dict[str, Any]:
    """How to fit: a quick run takes a sixth of the steps and of the trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    training = Training(steps=60 if setting.quick else 400, learning_rate=3e-3, record_every=25)
    trees = HistGradientBoostingRegressor(max_iter=25, learning_rate=0.2, max_leaf_nodes=4, random_state=0)
    return {"training": training, "random_state": setting.seed, "regressor": trees if setting.quick else None}


def _planted(setting: Setting) -> Row:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    random = np.random.default_rng(setting.seed)
    design = _Design(random.normal(0, 0.6, 5))
    x, arm, y = design.draw(1000 if setting.quick else 2000, random)
    threshold = float(np.median(y))
    classifier = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), LogisticRegression(C=0.1))
    model = CausalBounds(_chosen(setting), propensity=classifier, phi=UpTo(threshold), **_options(setting)).fit(x, arm, y)
    points = random.uniform(-2, 2, (200, 5))
    truth, e = torch.from_numpy(design.truth(points, threshold)), torch.from_numpy(design.observed(points))
    band = model.bounds(points, 1)
    width, order = band.upper - band.lower, e.argsort()
    third = len(order) // 3
    inner = band.intersected()
    row: Row = {
        "coverage": _share(band.lower, truth, band.upper),
        "coverage of Manski's": _share(band.manski_lower, truth, band.manski_upper),
        "coverage of the intersection": _share(inner[0], truth, inner[1]),
        "width": float(width.mean()),
        "width of Manski's": float((band.manski_upper - band.manski_lower).mean()),
        "width, highest propensities over lowest": float(width[order[-third:]].mean() / width[order[:third]].mean()),
        "outside the range": max(0.0, -float(band.lower.min()), float(band.upper.max()) - 1),
        "propensity error": float((band.propensity - e).square().mean().sqrt()),
    }
    for name, (low, high) in band.per_divergence.items():
        row[f"coverage, {name}"], row[f"width, {name}"] = _share(low, truth, high), float((high - low).mean())
    show = e.argsort()
    parts = {"e": e, "truth": truth, "lower": band.lower, "upper": band.upper}
    row["_band"] = {k: v[show] for k, v in (parts | {"low": band.manski_lower, "high": band.manski_upper}).items()}
    return row


def _share(low: Tensor, value: Tensor, high: Tensor) -> float:
    return float(((low <= value) & (value <= high)).double().mean())


def _debiasing(setting: Setting) -> Row:
    random = np.random.default_rng(1000 + setting.seed)
    design = _Design(random.normal(0, 0.6, 5))
    n = 1000 if setting.quick else 2000
    x, arm, y = design.draw(n, random)
    points = random.uniform(-2, 2, (300, 5))
    divergence = KL() if setting.choice is None else ADMITS.check(setting.choice)

    def ends(shift: float, orthogonal: bool) -> Tensor:
        model = CausalBounds(
            (divergence,),
            propensity=_Known(design, shift),
            phi=UpTo(float(np.median(y))),
            orthogonal=orthogonal,
            **_options(setting),
        )
        band = model.fit(x, arm, y).bounds(points, 1)
        return torch.stack([band.lower, band.upper])

    shift = n**-0.25
    reference, debiased, plain = ends(0.0, True), ends(shift, True), ends(shift, False)
    row = {
        "error, orthogonal": float((debiased - reference).abs().mean()),
        "error, plain": float((plain - reference).abs().mean()),
    }
    if not setting.quick:  # against the plain loss at the true propensity, so that what the losses differ by is no error
        row["error, plain against plain"] = float((plain - ends(0.0, False)).abs().mean())
    return row


def _unbounded(setting: Setting) -> Row:
    random = torch.Generator().manual_seed(setting.seed)
    sizes = _SIZES[:3] if setting.quick else _SIZES
    row: Row = {}
    for n in sizes:
        y = torch.randn(n, generator=random, dtype=torch.float64)
        row[f"upper end at n = {n}"] = float(dro_bounds(y, math.log(2), KL()).upper)
        row[f"half mean, half maximum at n = {n}"] = float(y.mean() + y.max()) / 2
    first, last = (row[f"upper end at n = {n}"] for n in (sizes[0], sizes[-1]))
    return row | {"growth": last - first}


def measure(setting: Setting) -> Row:
    """All four parts for one seed; the design for the first three."""
    planted = _planted(setting) if setting.seed < 3 else {}
    return _exact(setting) | planted | _debiasing(setting) | _unbounded(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks, with what the theorem implies for Manski's interval and for unbounded outcomes."""

    def values(name: str) -> list[float]:
        return [r[name] for r in rows if name in r]

    checks = []
    if values("error of the exact ends"):
        errors = values("error of the exact ends")
        checks.append(check("exact ends of the card: error", errors, "<= 1e-4", max(errors) <= 1e-4))
    missed, narrow = values("missed of Manski's"), values("narrowest over Manski's")
    checks.append(check("part of Manski's interval outside a ball", missed, "<= 1e-9 in every seed", max(missed) <= 1e-9))
    checks.append(check("narrowest ball over Manski's interval", narrow, ">= 1: not sharp", min(narrow) >= 1))
    covered, ratio = values("coverage"), values("width, highest propensities over lowest")
    outside = values("outside the range")
    checks.append(check("design: truth inside the band", covered, ">= 0.95 in every seed", min(covered) >= 0.95))
    checks.append(check("design: width at high over low propensities", ratio, "< 1 in every seed", max(ratio) < 1))
    checks.append(check("design: distance from [0, 1]", outside, "0", max(outside) == 0))
    share = [r["error, orthogonal"] / r["error, plain"] for r in rows]
    wins, need = sum(s < 1 for s in share), 1 if quick else 4
    checks.append(check("propensity off by n^(-1/4): error, orthogonal over plain", share, f"< 1 in {need} seeds", wins >= need))
    growth = values("growth")
    checks.append(check("unbounded outcome: growth of the upper end", growth, "> 0 in every seed", min(growth) > 0))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """The band on the design beside Manski's, and the growth for an unbounded outcome."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    band = rows[0]["_band"]
    left.fill_between(band["e"], band["lower"], band["upper"], color="#bfdbfe", label="aggregated balls")
    left.plot(band["e"], band["low"], color="#2563eb", lw=0.8, label="Manski")
    left.plot(band["e"], band["high"], color="#2563eb", lw=0.8)
    left.scatter(band["e"], band["truth"], s=6, color="#111827", label="truth")
    left.set(xlabel="true propensity", ylabel="Pr(Y(1) <= median | x)", ylim=(-0.02, 1.02))
    sizes = [n for n in _SIZES if f"upper end at n = {n}" in rows[0]]
    for r in rows:
        right.plot(sizes, [r[f"upper end at n = {n}"] for n in sizes], "o-", color="#dc2626", alpha=0.6)
        right.plot(sizes, [r[f"half mean, half maximum at n = {n}"] for n in sizes], "x:", color="#6b7280", alpha=0.6)
    right.plot([], [], "o-", color="#dc2626", label="upper end, KL, e = 1/2")
    right.plot([], [], "x:", color="#6b7280", label="e mean + (1 - e) max")
    right.set(xscale="log", xlabel="n, normal outcome without a stated range", ylabel="upper end")
    for axis in (left, right):
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _width(divergence: Any, seed: int) -> float:
    return _relative_width(ADMITS.check(divergence), torch.Generator().manual_seed(seed))[0]


RECIPE = Recipe(
    slug="causal-bounds",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    task=SwapTask(
        measures="width of the interval over Manski's, 20 discrete laws", better="lower", admits=ADMITS, run=_width, default=KL()
    ),
)
