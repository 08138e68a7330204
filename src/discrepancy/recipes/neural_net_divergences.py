"""A critic against copying: memorisers of handwritten digits, a fitted Gaussian against its own training rows, missing modes.

The training is smaller than the paper's (256-256 SiLU on vectors, 600 steps of 128): the metric is defined by it. The metric that
copying pleases is the Frechet distance, the Gaussian Wasserstein distance of first and second moments, in the data's own space.
`--discrepancy` puts another in its place.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from discrepancy.datasets import digits
from discrepancy.divergences import FDivergence, JensenShannon
from discrepancy.learning import Training
from discrepancy.methods.generation.critic_objectives import ADMISSION
from discrepancy.methods.generation.neural_net_divergences import NeuralNetDivergence, memorization_report
from discrepancy.methods.generation.sample_streams import Resampled
from discrepancy.networks import MLP
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check
from discrepancy.transport import GaussianWasserstein

_NOISE = 0.05  # digits take 17 values: without noise a critic knows them by that
_HELD_OUT = 900
_SIZES = (50, 100, 200, 400)


def _metric(steps: int, quick: bool) -> NeuralNetDivergence:
    training = Training(steps=steps // 10 if quick else steps, learning_rate=1e-3, final_share=0.0)
    return NeuralNetDivergence(
        critic=MLP(256, 2, nn.SiLU), training=training, decay=0.99, evaluation=20 if quick else 50, folds=1
    )


def _bandwidth(rows: Tensor, judge: Tensor) -> float:
    """The isotropic kernel density's bandwidth of the largest likelihood on other rows."""
    squares = torch.cdist(judge, rows).square()
    grid = torch.linspace(0.02, 0.6, 59)
    scores = [float(torch.logsumexp(-squares / (2 * h * h), 1).mean() - rows.shape[1] * math.log(h)) for h in grid.tolist()]
    return float(grid[int(torch.tensor(scores).argmax())])


def _digits(setting: Setting, row: Row) -> None:
    """The memoriser's curve, real against real, and the kernel density that the metric likes no better."""
    generator = torch.Generator().manual_seed(100 + setting.seed)
    images, _ = digits()
    x = torch.as_tensor(images, dtype=torch.float32)
    x = 2 * (x - x.min()) / (x.max() - x.min()) - 1
    x = x[torch.randperm(len(x), generator=generator)]
    held_out, pool = x[:_HELD_OUT], x[_HELD_OUT:]
    nnd = replace(_metric(600, setting.quick), noise=_NOISE)
    for n in (50, 400) if setting.quick else _SIZES:
        found = nnd(held_out, Resampled(pool[:n]), generator=generator)
        row[f"memoriser {n}"], row[f"trained {n}"] = float(found), found.train_value
    half = _HELD_OUT // 2
    row["halves"] = float(nnd(held_out[:half], Resampled(held_out[half:]), generator=generator))
    row["fresh"] = float(nnd(held_out, Resampled(pool), generator=generator))
    for n in () if setting.quick else (50, 100):
        smooth = Resampled(pool[:n], _bandwidth(pool[:n], pool[400:]))
        row[f"kernel density {n}"] = float(nnd(held_out, smooth, generator=generator))


def _gaussian(setting: Setting, row: Row) -> None:
    """A Gaussian fitted to fifty rows against the rows themselves, by the critic and by two moments."""
    generator = torch.Generator().manual_seed(200 + setting.seed)
    scale = torch.linspace(1.0, 0.1, 16).sqrt()
    rows, held_out = (torch.randn(n, 16, generator=generator) * scale for n in (50, 2000))
    centre = rows.mean(0)
    factor = torch.linalg.cholesky(torch.cov(rows.mT, correction=0))

    def fitted(count: int, source: torch.Generator) -> Tensor:
        return centre + torch.randn(count, 16, generator=source) @ factor.mT

    frechet = GaussianWasserstein() if setting.choice is None else setting.choice
    report = memorization_report(
        rows, held_out, fitted, {"critic": _metric(500, setting.quick), "moments": frechet}, generator=generator
    )
    for name, found in report.values.items():
        for case, value in found.items():
            row[f"{name} {case}"] = float(value)


def _ring(missing: int, count: int, generator: torch.Generator) -> Tensor:
    """Eight Gaussians on a circle of radius 2, without the first `missing`."""
    angle = (missing + torch.randint(0, 8 - missing, (count,), generator=generator)) * math.pi / 4
    centre = 2 * torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    return centre + 0.1 * torch.randn(count, 2, generator=generator)


def measure(setting: Setting) -> Row:
    """All values of one seed."""
    row: Row = {}
    _digits(setting, row)
    _gaussian(setting, row)
    generator = torch.Generator().manual_seed(300 + setting.seed)
    real = _ring(0, 1000, generator)
    nnd = _metric(400, setting.quick)
    for missing in (0, 2, 4):
        row[f"missing {missing}"] = float(nnd(real, lambda n, g, k=missing: _ring(k, n, g), generator=generator))
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; the order on digits is judged on means over seeds, as it asks."""
    sizes = [n for n in _SIZES if f"memoriser {n}" in rows[0]]
    means = [statistics.fmean(r[f"memoriser {n}"] for r in rows) for n in sizes]
    falls = [a - b for a, b in pairwise(means)]
    floor = [r["halves"] / r["memoriser 50"] for r in rows]
    lead = [r["critic memoriser"] - r["critic model"] for r in rows]
    needed = math.ceil(0.75 * len(rows))
    moments = [r["moments memoriser"] - r["moments model"] for r in rows]
    modes = [min(r["missing 2"] - r["missing 0"], r["missing 4"] - r["missing 2"]) for r in rows]
    gap = [r["trained 50"] - r["memoriser 50"] for r in rows]
    checks = [
        check("least fall of the memoriser's mean value from one size to the next", falls, "> 0", min(falls) > 0),
        check("real against real over the memoriser of 50 rows", floor, "<= 0.25", max(floor) <= 0.25),
        check("critic: memoriser less fitted Gaussian", lead, "> 0 on 3 of 4 seeds", sum(v > 0 for v in lead) >= needed),
        check(
            "Frechet distance, the same: no reward for generalising",
            moments,
            "<= 0.05 in the mean",
            statistics.fmean(moments) <= 0.05,
        ),
        check("least rise with two and four modes missing", modes, "> 0", min(modes) > 0),
        check("value on the critic's own rows less that on others, memoriser of 50", gap, "> 0 in the mean", sum(gap) > 0),
    ]
    if not quick:
        blur = [min(r[f"kernel density {n}"] - r[f"memoriser {n}"] for n in (50, 100)) for r in rows]
        name = "kernel density less memoriser of the same rows (the counter-example)"
        checks.append(check(name, blur, "> 0 in the mean", statistics.fmean(blur) > 0))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """The memoriser's curve, and the two metrics on the fitted Gaussian and the memoriser."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [n for n in _SIZES if f"memoriser {n}" in rows[0]]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label, colour in (("memoriser", "held-out rows", "#2563eb"), ("trained", "the critic's own rows", "#9ca3af")):
        values = [[r[f"{name} {n}"] for r in rows] for n in sizes]
        left.plot(sizes, [statistics.fmean(v) for v in values], "o-", color=colour, label=f"memoriser, {label}")
        for n, v in zip(sizes, values, strict=True):
            left.plot([n] * len(v), v, ".", color=colour, alpha=0.5)
    left.axhline(statistics.fmean(r["fresh"] for r in rows), color="k", ls=":", lw=1, label="fresh real rows")
    left.set(xscale="log", xlabel="training rows that it repeats", ylabel="neural network divergence")
    left.set_xticks(sizes, [str(n) for n in sizes])
    left.minorticks_off()
    for k, name in enumerate(("critic", "moments")):
        for case, colour, shift in (("model", "#2563eb", -0.15), ("memoriser", "#dc2626", 0.15)):
            values = [r[f"{name} {case}"] for r in rows]
            shown = {"model": "fitted Gaussian", "memoriser": "its fifty training rows"}[case] if k == 0 else None
            right.plot([k + shift] * len(values), values, "o", color=colour, label=shown)
    right.set_xticks([0, 1], ["critic", "Frechet"])
    right.set(xlim=(-0.6, 1.6), ylabel="distance from held-out rows")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swapped(divergence: FDivergence, seed: int) -> float:
    """How much of the divergence of a sloping density on [0, 1] from the uniform one the critic finds on held-out rows, in %.

    Their ratio lies in [0.1, 1.9]: where it has no bounds, a single far row decides the steep divergences.
    """
    generator = torch.Generator().manual_seed(400 + seed)
    nnd = replace(_metric(200, False), objective=divergence)
    share = torch.rand(4000, 1, generator=generator)
    real = (-0.1 + torch.sqrt(0.01 + 3.6 * share)) / 1.8  # the inverse of 0.1 x + 0.9 x^2, whose density is 0.1 + 1.8 x
    found = nnd(real, lambda n, g: torch.rand(n, 1, generator=g), generator=generator)
    x = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    p, q = (0.1 + 1.8 * x) / 10_000, torch.full_like(x, 1e-4)  # a fine sum in the place of the integral
    return 100 * float(found) / float(divergence.from_probs(p, q))


RECIPE = Recipe(
    slug="neural-net-divergences",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3),
    swaps=True,
    needs=("digits",),
    task=SwapTask(
        measures="share of the divergence of a sloping density from the uniform one that a critic of 2,000 rows finds (%)",
        better="higher",
        admits=ADMISSION,
        run=_swapped,
        default=JensenShannon(),
    ),
)
