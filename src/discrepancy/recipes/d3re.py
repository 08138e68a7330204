"""Time-score density ratios between laws that hardly meet, by three paths: without noise, diffusion bridge, paired bridge.

chasm    N((4, 4), I) over N(0, I): KL 16 nats, where a classifier sees nothing of the ratio; beside it a network classifier
narrow   N(2, 0.1^2) over N(0, 1), on the line: the smoothing must not reach the narrow law's width
pairs    ten correlated Gaussian pairs, mutual information 5.108 nats: KL of the joint law over the product
squares  uniform laws on two disjoint squares, whose ratio is infinite: nothing may be
pairing  by how much transport within a batch shortens the pairs

Bridges train on the conditional target, the path without noise, which has none, on time-score matching; gamma is 0.5 (0.2 where
paired by transport, 1 for the pairs), epsilon 3e-4 in units of the pooled variance (1e-3 on the squares). Judged on fresh points.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Normal

from discrepancy.divergences import KL, FDivergence
from discrepancy.estimation.ratios import NeuralLogistic, RatioModel, TimeScore
from discrepancy.estimation.ratios.d3re import TimeScoreModel
from discrepancy.estimation.ratios.evaluation import ADMITS
from discrepancy.estimation.ratios.time_score import (
    ConditionalTarget,
    DeterministicInterpolant,
    DiffusionBridge,
    IndependentCoupling,
    Interpolant,
    MiniBatchTransport,
    SchroedingerBridge,
    TimeScoreMatching,
)
from discrepancy.learning import Training
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_EPSILON, _SQUARES_EPSILON = 3e-4, 1e-3
_PATHS = ("plain", "bridge", "paired bridge")
_MEAN = 4.0  # of both coordinates of the far law
_CORRELATION, _PAIRS = 0.8, 10
_INFORMATION = -_PAIRS / 2 * math.log(1 - _CORRELATION**2)
_TIMES = (0.0, 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 1.0)


def _coupling(setting: Setting) -> MiniBatchTransport:
    """Transport within a batch, by the user's choice where there is one."""
    return MiniBatchTransport() if setting.choice is None else MiniBatchTransport(setting.choice)  # type: ignore[arg-type]


def _path(name: str, setting: Setting, *, epsilon: float = _EPSILON, gamma: float = 0.5) -> Interpolant:
    if name == "plain":
        return DeterministicInterpolant()
    if name == "bridge":
        return DiffusionBridge(gamma=gamma, epsilon=epsilon)
    # Pairs of transport hardly shrink the path between its ends, as random pairs do: less noise keeps its width as even.
    return SchroedingerBridge(gamma=0.4 * gamma, epsilon=epsilon, coupling=_coupling(setting))


def _method(path: Interpolant, setting: Setting, *, steps: int = 500) -> TimeScore:
    """The options of every fit; a quick run takes a fifth of the steps, larger ones, and half of the batch."""
    objective = TimeScoreMatching() if isinstance(path, DeterministicInterpolant) else ConditionalTarget()
    training = Training(steps // 5, 8e-3, final_share=0.0) if setting.quick else Training(steps, 3e-3, final_share=0.0)
    return TimeScore(path, objective, training=training, batch_size=256 if setting.quick else 512)


def _fitted(path: Interpolant, x: Tensor, y: Tensor, setting: Setting, *, steps: int = 500) -> TimeScoreModel:
    return _method(path, setting, steps=steps).fit(x, y, torch.Generator().manual_seed(9000 + setting.seed))


def _rmse(model: RatioModel, points: Tensor, truth: Tensor) -> float:
    return float((model.log_ratio(points) - truth).square().mean().sqrt())


def _chasm(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(setting.seed)
    x, y, a, b = (torch.randn(k, 2, generator=generator) for k in (2000, 2000, 1000, 1000))
    x, a = x + _MEAN, a + _MEAN
    pool = torch.cat([a, b])
    truth = _MEAN * pool.sum(1) - _MEAN**2
    row: Row = {}
    for name in ("bridge", "paired bridge"):
        model = _fitted(_path(name, setting), x, y, setting)
        found = model.log_ratio(pool)
        row[f"chasm correlation {name}"] = float(torch.corrcoef(torch.stack([found, truth]))[0, 1])
        row[f"chasm KL {name}"] = float(found[: len(a)].mean())
        row[f"chasm RMSE {name}"] = _rmse(model, pool, truth)
        row[f"_chasm {name}"] = (truth, found)
    classifier = NeuralLogistic().fit(x, y, torch.Generator().manual_seed(9000 + setting.seed))
    row["chasm RMSE classifier"] = _rmse(classifier, pool, truth)
    row["_chasm classifier"] = (truth, classifier.log_ratio(pool))
    return row


def _narrow(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(100 + setting.seed)
    P, Q = Normal(2.0, 0.1), Normal(0.0, 1.0)
    x, y, points = (torch.randn(k, 1, generator=generator) for k in (2000, 2000, 1000))
    x, points = 2 + 0.1 * x, 2 + 0.1 * points
    truth = (P.log_prob(points) - Q.log_prob(points))[:, 0]
    return {f"narrow RMSE {name}": _rmse(_fitted(_path(name, setting), x, y, setting), points, truth) for name in _PATHS}


def _pairs(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(200 + setting.seed)
    left, noise = (torch.randn(10_000, _PAIRS, generator=generator) for _ in range(2))
    right = _CORRELATION * left + math.sqrt(1 - _CORRELATION**2) * noise
    joint = torch.cat([left, right], 1)
    train, judged = joint[:8000], joint[8000:]
    product = torch.cat([torch.cat([train[:, :_PAIRS], train[:, _PAIRS:].roll(k, 0)], 1) for k in range(1, 5)])
    model = _fitted(_path("bridge", setting, gamma=1.0), train, product, setting, steps=1200)
    return {"information": float(model.log_ratio(judged).mean())}


def _squares(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(300 + setting.seed)
    y, x = (torch.rand(2000, 2, generator=generator) for _ in range(2))
    x = x + torch.tensor([1.2, 0.0])
    pool = torch.cat([x, y])
    row: Row = {}
    for name in ("plain", "bridge"):
        model = _fitted(_path(name, setting, epsilon=_SQUARES_EPSILON), x, y, setting)
        scores = torch.stack([model.time_score(pool, t).abs().amax() for t in _TIMES])
        ratios = model.log_ratio(pool)
        row[f"squares finite {name}"] = float(torch.isfinite(scores).all() and torch.isfinite(ratios).all())
        row[f"squares largest score {name}"] = float(scores.max())
        row[f"squares score at 0 {name}"] = float(scores[0])
        row[f"_scores {name}"] = scores
    return row


def _pairing(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(400 + setting.seed)
    y, x = (torch.randn(512, 2, generator=generator) for _ in range(2))

    def length(shift: float, coupling: IndependentCoupling | MiniBatchTransport) -> float:
        a, b = coupling.pairs(y, x + shift, generator)
        return float((b - a).square().sum(1).mean())

    return {
        f"pairing {shift:g}": length(shift, _coupling(setting)) / length(shift, IndependentCoupling()) for shift in (1.0, _MEAN)
    }


def measure(setting: Setting) -> Row:
    """All five parts for one seed."""
    return _chasm(setting) | _narrow(setting) | _pairs(setting) | _squares(setting) | _pairing(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; a quick run is judged by the same ones."""
    correlation = [min(r[f"chasm correlation {k}"] for k in _PATHS[1:]) for r in rows]
    divergence = [max((r[f"chasm KL {k}"] / _MEAN**2 - 1 for k in _PATHS[1:]), key=abs) for r in rows]
    classifier = [r["chasm RMSE classifier"] / max(r[f"chasm RMSE {k}"] for k in _PATHS[1:]) for r in rows]
    narrow = [max(r[f"narrow RMSE {k}"] for k in _PATHS[1:]) for r in rows]
    below = [max(r[f"narrow RMSE {k}"] for k in _PATHS[1:]) / r["narrow RMSE plain"] for r in rows]
    information = [r["information"] / _INFORMATION - 1 for r in rows]
    finite = [min(r["squares finite plain"], r["squares finite bridge"]) for r in rows]
    largest = [r["squares largest score bridge"] for r in rows]
    start = [r["squares score at 0 plain"] / r["squares score at 0 bridge"] for r in rows]
    shorter = [r["pairing 1"] for r in rows]
    bound = 10 / _SQUARES_EPSILON
    needed = 1 if quick else 2
    return [
        check("chasm: correlation with the true log-ratio, both bridges", correlation, ">= 0.98", min(correlation) >= 0.98),
        check("chasm: relative error of KL", divergence, "within 0.15", max(map(abs, divergence)) <= 0.15),
        check("chasm: RMSE of the classifier over that of the bridges", classifier, ">= 2", min(classifier) >= 2),
        check("narrow: RMSE of the bridges", narrow, "< 0.6", max(narrow) < 0.6),
        check(
            "narrow: RMSE of the bridges over that without noise",
            below,
            "< 1 on 2 of 3 seeds",
            sum(b < 1 for b in below) >= needed,
        ),
        check("pairs: relative error of 5.108 nats", information, "within 0.12", max(map(abs, information)) <= 0.12),
        check("squares: every output finite", finite, "= 1", min(finite) == 1),
        check("squares: largest time score of the bridge", largest, "<= 10 / epsilon", max(largest) <= bound),
        check("squares: largest score at t = 0, without noise over bridge", start, "> 1", min(start) > 1),
        check("pairing: mean squared length against random pairs", shorter, "<= 0.8", max(shorter) <= 0.8),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Log-ratios across the chasm, errors on the narrow law, and time scores between the squares."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, colour in (("classifier", "#dc2626"), ("bridge", "#2563eb")):
        truth, found = rows[0][f"_chasm {name}"]
        left.plot(truth, found, ".", ms=3, color=colour, alpha=0.5, label=name)
    ends = [float(truth.min()), float(truth.max())]
    left.plot(ends, ends, "k-", lw=1)
    left.set(xlabel="true log-ratio (nats)", ylabel="estimated", title="laws 16 nats apart")
    left.legend(frameon=False)
    for k, name in enumerate(_PATHS):
        middle.plot([k] * len(rows), [r[f"narrow RMSE {name}"] for r in rows], "o", color="#2563eb")
    middle.axhline(0.6, color="#6b7280", lw=1, ls=":")
    middle.set(ylabel="RMSE of the log-ratio (nats)", title="a narrow law", xlim=(-0.5, 2.5), ylim=(0, None))
    middle.set_xticks(range(3), ["without noise", "bridge", "paired bridge"])
    for name, colour in (("plain", "#6b7280"), ("bridge", "#2563eb")):
        right.plot(_TIMES, rows[0][f"_scores {name}"], "o-", color=colour, label="without noise" if name == "plain" else name)
    right.set(xlabel="t", ylabel="largest |time score|", title="disjoint squares", yscale="log")
    right.legend(frameon=False)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _error(divergence: FDivergence, seed: int) -> float:
    """The relative error of a divergence between N(1, 1) and N(0, 1), estimated from the ratio; the truth is a fine sum."""
    generator = torch.Generator().manual_seed(500 + seed)
    x, y = 1 + torch.randn(600, 1, generator=generator), torch.randn(600, 1, generator=generator)
    grid = torch.linspace(-9, 10, 4001, dtype=torch.float64)
    p, q = (torch.softmax(Normal(mean, 1.0).log_prob(grid), 0) for mean in (1.0, 0.0))
    truth = float(divergence.from_probs(p, q))
    method = TimeScore(training=Training(200, 4e-3, final_share=0.0), batch_size=256, folds=2)
    return abs(float(method(divergence, x, y, generator=generator)) / truth - 1)


RECIPE = Recipe(
    slug="d3re",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    task=SwapTask(
        measures="relative error of the divergence between N(1, 1) and N(0, 1), from the ratio on 600 points of each",
        better="lower",
        admits=ADMITS,
        run=_error,
        default=KL(),
    ),
)
