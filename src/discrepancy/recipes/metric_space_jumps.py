"""Jumps of distributions, covariances and networks at a cutoff: size, power, and what analysis of variance and means miss.

Units have X ~ U(0, 1), the cutoff is 0.5. A distribution is seen through 100 draws of N(0.8 (x - 0.5), 1), on 50 quantiles; a
covariance through 300 draws of three variables with variance 1.5 + 0.6 (x - 0.5); a network has 10 nodes and Beta weights of mean
0.4 + 0.2 (x - 0.5) and concentration 5. Jumps at the cutoff: 0.3 and 0.5 in the mean, a factor 1.5 in the spread, a factor 1.5
in the covariance, 0.25 in the weights. The patients of the diabetes study have placebo cutoffs, where nothing is known to jump.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from discrepancy.datasets.diabetes import COLUMNS, diabetes
from discrepancy.inference.metric_jumps import (
    Epanechnikov,
    Side,
    VarianceError,
    frechet_anova,
    frechet_jump_test,
    local_frechet_regression,
)
from discrepancy.inference.metric_jumps.smoothing import local_linear_weights
from discrepancy.metric_spaces import CovarianceSpace, EuclideanSpace, LaplacianSpace, MetricSpace, QuantileSpace
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_QUANTILES = QuantileSpace(50)
_CUTOFF, _DRAWS, _NODES = 0.5, 100, 10
Design = Callable[[Tensor, float, torch.Generator], Tensor]


def _draws(x: Tensor, jump: float, generator: torch.Generator, *, spread: float = 1.0, slope: float = 0.8) -> Tensor:
    """The raw draws (n, 100) of each unit."""
    right = (x >= _CUTOFF).double()
    z = torch.randn(len(x), _DRAWS, generator=generator, dtype=torch.float64)
    return (slope * (x - _CUTOFF) + jump * right)[:, None] + (1 + (spread - 1) * right)[:, None] * z


def _distributions(x: Tensor, jump: float, generator: torch.Generator) -> Tensor:
    return _QUANTILES.from_samples(_draws(x, jump, generator))


def _covariances(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    variance = (1.5 + 0.6 * (x - _CUTOFF)) * torch.where(x >= _CUTOFF, factor, 1.0)
    z = torch.randn(len(x), 300, 3, generator=generator, dtype=torch.float64) * variance.sqrt()[:, None, None]
    z = z - z.mean(1, keepdim=True)
    return z.mT @ z / 299


def _networks(x: Tensor, jump: float, generator: torch.Generator) -> Tensor:
    mean = 0.4 + 0.2 * (x - _CUTOFF) + jump * (x >= _CUTOFF)
    edges = _NODES * (_NODES - 1) // 2
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    shape = 5 * mean.numpy()[:, None]
    weights = torch.from_numpy(rng.beta(shape, 5 - shape, size=(len(x), edges)))
    A = x.new_zeros(len(x), _NODES, _NODES)
    i, j = torch.triu_indices(_NODES, _NODES, 1)
    A[:, i, j] = A[:, j, i] = weights
    return LaplacianSpace.from_adjacency(A)


_SPACES = {"distributions": _QUANTILES, "covariances": CovarianceSpace(), "networks": LaplacianSpace(1.0)}
_DESIGNS: dict[str, tuple[Design, float, float]] = {  # the design, no jump, a jump
    "distributions": (_distributions, 0.0, 0.3),
    "covariances": (_covariances, 1.0, 1.5),
    "networks": (_networks, 0.0, 0.25),
}


def _rejects(Y: Tensor, x: Tensor, space: MetricSpace, h: float, error: VarianceError = VarianceError.ASYMPTOTIC) -> bool:
    """Whether the test rejects at 5 %. X is uniform by construction: of thousands of data sets some look as if it were not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the density of X jumps")
        return frechet_jump_test(Y, x, _CUTOFF, space, bandwidth=h, error=error).p_value <= 0.05


def _rejections(
    name: str, draw: Callable[[Tensor], Tensor], repeats: int, generator: torch.Generator, *, n: int = 200, h: float = 0.2
) -> tuple[float, float]:
    """The shares of data sets in which the test rejects at 5 %, with the paper's error and with the one of the design."""
    counts = dict.fromkeys(VarianceError, 0)
    for _ in range(repeats):
        x = torch.rand(n, generator=generator, dtype=torch.float64)
        Y = draw(x)
        for error in VarianceError:
            counts[error] += _rejects(Y, x, _SPACES[name], h, error)
    return counts[VarianceError.ASYMPTOTIC] / repeats, counts[VarianceError.DESIGN] / repeats


def _size_and_power(quick: bool, generator: torch.Generator) -> Row:
    null, alternative = (60, 20) if quick else (200, 100)
    row: Row = {}
    for name, (draw, without, jump) in _DESIGNS.items():
        for label, size, repeats in (("size", without, null), ("power", jump, alternative)):
            found = _rejections(name, lambda x, d=draw, s=size: d(x, s, generator), repeats, generator)
            row[f"{label} {name}"], row[f"{label} {name}, error of the design"] = found
    if not quick:
        for n, h in ((200, 0.3), (500, 0.2)):
            for label, jump, repeats in (("size", 0.0, null), ("power", 0.3, alternative)):
                key = f"{label} distributions n={n} h={h:g}"
                row[key], _ = _rejections(
                    "distributions", lambda x, j=jump: _distributions(x, j, generator), repeats, generator, n=n, h=h
                )
    return row


def _slope_alone(quick: bool, generator: torch.Generator) -> Row:
    """Rejections of analysis of variance (left against right) and of the jump test, slope 0.8 and no jump."""
    repeats, anova, jump = 40 if quick else 200, 0, 0
    for _ in range(repeats):
        x = torch.rand(200, generator=generator, dtype=torch.float64)
        Y = _distributions(x, 0.0, generator)
        anova += frechet_anova([Y[x < _CUTOFF], Y[x >= _CUTOFF]], _QUANTILES).p_value <= 0.05
        jump += _rejects(Y, x, _QUANTILES, 0.2)
    return {"anova, slope only": anova / repeats, "jump test, slope only": jump / repeats}


def mean_jump_p(y: Tensor, x: Tensor, cutoff: float, h: float) -> float:
    """The usual test of a jump of a conditional mean: local lines on either side, errors from their residuals."""
    place, gap, variance = torch.tensor([cutoff], dtype=x.dtype), 0.0, 0.0
    for side, sign in ((Side.RIGHT, 1), (Side.LEFT, -1)):
        w = local_linear_weights(x, place, h, Epanechnikov(), side).weights[0]
        seen = w != 0
        root = Epanechnikov()((x[seen] - cutoff) / h).sqrt()
        line = torch.stack([torch.ones_like(root), x[seen] - cutoff], -1)
        fit = torch.linalg.lstsq(root[:, None] * line, root * y[seen]).solution
        residual = y[seen] - line @ fit
        gap += sign * float(w @ y)
        variance += float((w[seen] * residual).square().sum()) * len(residual) / (len(residual) - 2)
    return math.erfc(abs(gap) / math.sqrt(2 * variance))


def _spread_alone(quick: bool, generator: torch.Generator) -> Row:
    """Rejections when the spread inside units jumps by half and their means do not."""
    repeats, ours, means = 40 if quick else 200, 0, 0
    for _ in range(repeats):
        x = torch.rand(200, generator=generator, dtype=torch.float64)
        draws = _draws(x, 0.0, generator, spread=1.5)
        ours += _rejects(_QUANTILES.from_samples(draws), x, _QUANTILES, 0.2)
        means += mean_jump_p(draws.mean(-1), x, _CUTOFF, 0.2) <= 0.05
    return {"jump test, spread only": ours / repeats, "test of means, spread only": means / repeats}


def _patients() -> Row:
    """Placebo cutoffs at the deciles of the body mass index: (progression, blood pressure) of each patient, standardised."""
    measured, progression = (torch.from_numpy(v) for v in diabetes())
    x = measured[:, COLUMNS.index("bmi")]
    Y = torch.stack([progression, measured[:, COLUMNS.index("bp")]], -1)
    Y = (Y - Y.mean(0)) / Y.std(0)
    cutoffs = torch.quantile(x, torch.arange(1, 10, dtype=torch.float64) / 10)
    p = [frechet_jump_test(Y, x, float(c), EuclideanSpace()).p_value for c in cutoffs]
    return {"placebo rejections": sum(v <= 0.05 for v in p), "placebo p": p}


def _path(generator: torch.Generator) -> dict[str, Tensor]:
    """One data set with a jump, and the fitted mean quantile functions along x, for the figure."""
    x = torch.rand(500, generator=generator, dtype=torch.float64)
    Y = _distributions(x, 0.3, generator)
    fits = {}
    for side, low, high in ((Side.LEFT, 0.05, 0.5), (Side.RIGHT, 0.5, 0.95)):
        places = torch.linspace(low, high, 31, dtype=torch.float64)
        seen = x < _CUTOFF if side is Side.LEFT else x >= _CUTOFF
        fits[f"{side.name} x"] = places
        fits[side.name] = local_frechet_regression(Y[seen], x[seen], places, _QUANTILES, 0.15).points
    return fits | {"x": x, "Y": Y}


def measure(setting: Setting) -> Row:
    """All four parts for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    row = _size_and_power(setting.quick, generator) | _slope_alone(setting.quick, generator)
    return row | _spread_alone(setting.quick, generator) | _patients() | {"_path": _path(generator)}


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's four checks, on the means over seeds: a share of 200 data sets has its own noise."""

    def share(name: str, key: str, bound: float, *, most: bool) -> Check:
        values = [row[key] for row in rows]
        mean = sum(values) / len(values)
        return check(name, values, f"{'<=' if most else '>='} {bound:g}", mean <= bound if most else mean >= bound)

    power = {"distributions": ("jump 0.3", 0.85), "covariances": ("factor 1.5", 0.8), "networks": ("jump 0.25", 0.8)}
    checks = [share(f"size: {name}", f"size {name}", 0.08, most=True) for name in _DESIGNS]
    checks += [share(f"power: {name}, {what}", f"power {name}", b, most=False) for name, (what, b) in power.items()]
    placebo = [float(row["placebo rejections"]) for row in rows]
    return [
        *checks,
        share("slope without a jump: analysis of variance rejects", "anova, slope only", 0.5, most=False),
        share("slope without a jump: the jump test rejects", "jump test, slope only", 0.08, most=True),
        share("spread jumps, means do not: the jump test rejects", "jump test, spread only", 0.8, most=False),
        share("spread jumps, means do not: the test of means rejects", "test of means, spread only", 0.15, most=True),
        check("patients: rejections at nine placebo cutoffs", placebo, "<= 2", max(placebo) <= 2),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """The fitted quantiles along x on both sides of a jump, and the shares of rejections with their bounds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    path = rows[0]["_path"]
    left.scatter(path["x"], path["Y"].mean(-1), s=6, color="#d1d5db", label="mean of a unit")
    for level, colour in ((4, "#93c5fd"), (24, "#2563eb"), (44, "#1e3a8a")):
        for side in ("LEFT", "RIGHT"):
            label = f"{2 * level + 1} % quantile" if side == "LEFT" else None
            left.plot(path[f"{side} x"], path[side][:, level], color=colour, label=label)
    left.axvline(_CUTOFF, color="#9ca3af", lw=0.8, ls=":")
    left.set(xlabel="x", ylabel="fitted Frechet mean, by quantile", title="distributions, jump 0.3")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    left.set_ylim(None, 3.2)
    bars = {
        "size: distributions": ("size distributions", 0.08),
        "size: covariances": ("size covariances", 0.08),
        "size: networks": ("size networks", 0.08),
        "slope only: jump test": ("jump test, slope only", 0.08),
        "slope only: anova": ("anova, slope only", 0.5),
        "spread only: test of means": ("test of means, spread only", 0.15),
        "spread only: jump test": ("jump test, spread only", 0.8),
        "power: networks": ("power networks", 0.8),
        "power: covariances": ("power covariances", 0.8),
        "power: distributions": ("power distributions", 0.85),
    }
    for k, (label, (key, bound)) in enumerate(bars.items()):
        value = sum(r[key] for r in rows) / len(rows)
        right.barh(k, value, color="#2563eb", height=0.6)
        right.plot([bound, bound], [k - 0.4, k + 0.4], color="#dc2626", lw=1.5, label="bound" if k == 0 else None)
        right.text(max(value, bound if bound < 0.2 else 0) + 0.015, k, f"{value:.3g}", va="center", fontsize=8)
        bars[label] = (key, bound)
    right.set_yticks(range(len(bars)), list(bars), fontsize=8)
    right.set(xlabel="share of data sets in which the test rejects at 5 %", xlim=(0, 1.1))
    right.legend(frameon=False, loc="lower right")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="metric-space-jumps", measure=measure, judge=judge, draw=draw, needs=("diabetes", "diabetes-progression"))
