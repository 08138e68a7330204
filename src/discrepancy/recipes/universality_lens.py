"""Regret by prior weight: exact mixtures, wide networks sampled by Langevin dynamics, and teachers of three complexities.

exact     a coin of rate 0.3 and K equally likely hypotheses: regret and bound for K from 10 to 100,000; and a heavy hypothesis
widths    tanh networks of 4, 32 and 256 units on 100 rows of a two-unit teacher: ensembles, and a network trained to zero loss
weights   log prior weight of the networks within 0.05 nats of a constant, a linear and a parity rule on four signs, by splitting,
          and the excess loss of the ensemble after 50 rows
cancer    breast cancer, 60 training rows, a logistic rule under a nearly uniform prior: log-loss of the ensemble and of the
maximum
          a posteriori (under a narrow prior, and for networks, the maximum is the better one here: the ensemble is too unsure)
"""

from __future__ import annotations

import statistics
import warnings
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor, nn

from discrepancy import KL
from discrepancy._results import ConvergenceWarning
from discrepancy.datasets import breast_cancer
from discrepancy.divergences import Divergence
from discrepancy.divergences.admission import Admission
from discrepancy.learning import Training
from discrepancy.learning.langevin import Langevin
from discrepancy.learning.prior_coordinates import GaussianPrior
from discrepancy.learning.splitting import MultilevelSplitting
from discrepancy.methods.diagnostics.langevin_ensemble import FittedEnsemble, SGLDEnsemble, trained_point
from discrepancy.methods.diagnostics.outcome_models import BernoulliLogits
from discrepancy.methods.diagnostics.universality_lens import bernoulli, finite_weight_curve, online_regret, regret_bound
from discrepancy.methods.diagnostics.weight_curves import weight_curve
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_COIN = (0.7, 0.3)
_SIZES = (10, 100, 1000)
_WIDTHS = (4, 32, 256)
_RULES = ("constant", "linear", "parity")
_LIKELIHOOD = BernoulliLogits()
_PRIOR = GaussianPrior(2.0)  # wide enough that logits of 2 to 5 are no surprise; fixed before any data
_UNIFORM = GaussianPrior(30.0)  # five to six units for each of 30 standardised measurements: nearly uniform, as the theory has it


def _network(width: int, inputs: int) -> nn.Module:
    """One hidden layer; the prior scales its weights by fan-in, the last layer hence by 1/sqrt(width)."""
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 1))


def _exact(quick: bool) -> Row:
    row: Row = {}
    for K in (10, 1000, 10_000 if quick else 100_000):
        hypotheses = bernoulli((torch.arange(K, dtype=torch.float64) + 0.5) / K)
        curve = finite_weight_curve(_COIN, hypotheses)
        for n in _SIZES:
            row[f"regret {K} {n}"] = online_regret(_COIN, hypotheses, n=n)
            row[f"bound {K} {n}"] = regret_bound(curve, n).value
    grid = bernoulli(torch.cat([torch.tensor([0.3], dtype=torch.float64), torch.arange(1, 100, dtype=torch.float64) / 100]))
    for weight in (0.5, 1e-3):
        prior = torch.tensor([weight] + [(1 - weight) / 99] * 99, dtype=torch.float64)
        row[f"heavy {weight}"] = online_regret(_COIN, grid, prior, n=100)
    return row


def _ensemble(quick: bool) -> SGLDEnsemble:
    sampler = Langevin(step=0.01, burn_in=300 if quick else 500, samples=8 if quick else 10, thinning=25 if quick else 50)
    return SGLDEnsemble(_LIKELIHOOD, _PRIOR, sampler, chains=4 if quick else 8)


def _teacher(x: Tensor) -> Tensor:
    """Logits of the two-unit network that the rows are labelled by."""
    return 3 * torch.tanh(x[:, 0] + x[:, 1]) - 2 * torch.tanh(x[:, 1] - x[:, 2])


def _excess(fitted: FittedEnsemble, logits: Tensor, x: Tensor) -> float:
    """Mean KL(teacher || prediction), in nats a row."""
    return float(KL().from_logits(_LIKELIHOOD.log_probs(logits[:, None]), fitted.log_probs(x)).mean())


def _labels(logits: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(len(logits), generator=generator) < torch.sigmoid(logits)).long()


def _widths(quick: bool, generator: torch.Generator) -> Row:
    x, held_out = torch.randn(100, 4, generator=generator), torch.randn(1000, 4, generator=generator)
    y, truth = _labels(_teacher(x), generator), _teacher(held_out)
    row: Row = {}
    for width in _WIDTHS[1:] if quick else _WIDTHS:
        fitted = _ensemble(quick).fit(_network(width, 4), x, y, generator=generator)
        row[f"excess {width}"] = _excess(fitted, truth, held_out)
    training = Training(steps=400 if quick else 1000, learning_rate=0.05 if quick else 0.02)
    single = trained_point(
        _network(256, 4), x, y, _LIKELIHOOD, prior=_PRIOR, prior_weight=0.0, training=training, generator=generator
    )
    row |= {"excess single": _excess(single, truth, held_out), "training loss single": single.log_loss(x, y)}
    return row


def _weights(setting: Setting, generator: torch.Generator) -> Row:
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=4)))
    rules = {"constant": 2 * torch.ones(16), "linear": 2 * signs[:, 0], "parity": 2 * signs.prod(1)}
    method = MultilevelSplitting(particles=100, moves=5, replicates=2) if setting.quick else MultilevelSplitting()
    row: Row = {}
    for name in _RULES:
        p = torch.sigmoid(rules[name])
        with warnings.catch_warnings():
            if setting.choice is not None:  # another ball: no bound on the regret, which is what is being explored
                warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)  # a ball that is not reached has -inf, and fails below
            curve = weight_curve(
                _network(16, 4),
                signs,
                _LIKELIHOOD,
                teacher=torch.stack([1 - p, p], 1),
                epsilons=(0.05, 0.1, 0.2),
                prior=_PRIOR,
                method=method,
                divergence=setting.choice,  # type: ignore[arg-type]
                generator=generator,
            )
        row[f"log weight {name}"] = curve.log_weights[0]
        row[f"bound {name}"] = regret_bound(curve, 50).value
        rows = torch.randint(16, (50,), generator=generator)
        y = _labels(rules[name][rows], generator)
        fitted = _ensemble(setting.quick).fit(_network(16, 4), signs[rows], y, generator=generator)
        row[f"excess {name}"] = _excess(fitted, rules[name], signs)
    return row


def _cancer(quick: bool, generator: torch.Generator) -> Row:
    measured, diagnosis = breast_cancer()
    order = torch.randperm(len(diagnosis), generator=generator)
    X, y = torch.from_numpy(measured)[order].float(), torch.from_numpy(diagnosis)[order]
    X = (X - X[:60].mean(0)) / X[:60].std(0)
    module = nn.Linear(X.shape[1], 1)
    # Slow steps: among flat directions the likelihood of such a prior has steep ones.
    sampler = Langevin(2e-4, 600, 8, 50) if quick else Langevin(2e-4, 1500, 10, 150)
    ensemble = SGLDEnsemble(_LIKELIHOOD, _UNIFORM, sampler, chains=4 if quick else 8)
    fitted = ensemble.fit(module, X[:60], y[:60], generator=generator)
    training = Training(steps=400 if quick else 1500, learning_rate=0.05 if quick else 0.02)
    single = trained_point(module, X[:60], y[:60], _LIKELIHOOD, prior=_UNIFORM, training=training, generator=generator)
    return {"cancer ensemble": fitted.log_loss(X[60:], y[60:]), "cancer MAP": single.log_loss(X[60:], y[60:])}


def measure(setting: Setting) -> Row:
    """All four parts for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    rest = _widths(setting.quick, generator) | _weights(setting, generator) | _cancer(setting.quick, generator)
    # The exact part draws nothing: the first seed has it.
    return (_exact(setting.quick) if setting.seed == 0 else {}) | rest


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; a quick run has a class of 10,000 in place of 100,000."""
    row, largest = rows[0], 10_000 if quick else 100_000
    classes = (10, 1000, largest)
    far = [max(abs(row[f"regret {K} 100"] - 0.01675) for K in classes)]
    bounds = [max(abs(row[f"bound {K} 100"] - v) for K, v in zip(classes, (0.0225, 0.0288, 0.0289), strict=True))]
    slack = [min(row[f"bound {K} {n}"] - row[f"regret {K} {n}"] for K in classes for n in _SIZES)]
    change = [max(abs(row[f"regret {largest} {n}"] - row[f"regret 1000 {n}"]) for n in _SIZES)]
    heavy = [max(abs(row["heavy 0.5"] - 0.00477), abs(row["heavy 0.001"] - 0.01659))]
    ratio = [r["excess 256"] / r["excess 32"] for r in rows]
    single = [r["excess single"] / r["excess 256"] for r in rows]
    order = [min(r[f"log weight {a}"] - r[f"log weight {b}"] for a, b in pairwise(_RULES)) for r in rows]
    losses = [statistics.fmean(r[f"excess {name}"] for r in rows) for name in _RULES]
    rises = [min(r[f"excess {b}"] - r[f"excess {a}"] for a, b in pairwise(_RULES)) for r in rows]
    below = [min(r[f"bound {name}"] - r[f"excess {name}"] for name in _RULES) for r in rows]
    better = [float(r["cancer ensemble"] <= r["cancer MAP"]) for r in rows]
    return [
        check("exact: regret at n = 100 off from 0.01675", far, "<= 1e-4 for every K", far[0] <= 1e-4),
        check("exact: bound at n = 100 off from the card's", bounds, "<= 1e-4 for every K", bounds[0] <= 1e-4),
        check("exact: bound less regret", slack, ">= 0 for every K and n = 10, 100, 1000", slack[0] >= 0),
        check(f"exact: change of the regret from K = 1,000 to {largest:,}", change, "<= 1e-5", change[0] <= 1e-5),
        check("exact: regret of a heavy and a light truth off from the card's", heavy, "<= 1e-4", heavy[0] <= 1e-4),
        check("widths: excess loss of the ensemble, 256 over 32 units", ratio, "mean <= 1.15", statistics.fmean(ratio) <= 1.15),
        check("widths: excess loss, network of zero loss over ensemble", single, ">= 1.5", min(single) >= 1.5),
        check("weights: least gap of log W(0.05), constant > linear > parity", order, "> 0", min(order) > 0),
        check("weights: least rise of the excess loss, constant to parity", rises, "means rise", losses == sorted(losses)),
        check("weights: bound less excess loss at 50 rows", below, "mean > 0", statistics.fmean(below) > 0),
        check(
            "cancer: ensemble at most the MAP's log-loss, nearly uniform prior",
            better,
            "4 of 5 seeds",
            sum(better) >= 0.8 * len(rows),
        ),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Regret and bound by class size, excess loss by width, excess loss against log weight."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for n, colour in zip(_SIZES, ("#6b7280", "#2563eb", "#dc2626"), strict=True):
        sizes = sorted(int(k.split()[1]) for k in rows[0] if k.startswith("regret") and k.endswith(f" {n}"))
        axes[0].plot(sizes, [rows[0][f"regret {K} {n}"] for K in sizes], "o-", color=colour, label=f"n = {n}")
        axes[0].plot(sizes, [rows[0][f"bound {K} {n}"] for K in sizes], "o:", color=colour)
    axes[0].set(
        xscale="log",
        yscale="log",
        xlabel="hypotheses",
        ylabel="nats a symbol",
        title="regret, and bound (dotted)",
        ylim=(None, 0.6),
    )
    widths = [w for w in _WIDTHS if f"excess {w}" in rows[0]]
    axes[1].plot(
        widths, [statistics.fmean(r[f"excess {w}"] for r in rows) for w in widths], "o-", color="#2563eb", label="ensemble"
    )
    for r in rows:
        axes[1].plot(widths, [r[f"excess {w}"] for w in widths], ".", color="#2563eb", alpha=0.5)
        axes[1].plot([256], [r["excess single"]], "x", color="#dc2626", label="zero loss" if r is rows[0] else None)
    axes[1].set(
        xscale="log", yscale="log", xlabel="hidden units", ylabel="excess loss (nats)", title="100 rows of a two-unit teacher"
    )
    for name, colour in zip(_RULES, ("#2563eb", "#6b7280", "#dc2626"), strict=True):
        points = [(-r[f"log weight {name}"], r[f"excess {name}"]) for r in rows]
        axes[2].plot(*zip(*points, strict=True), "o", color=colour, label=name)
    axes[2].set(yscale="log", xlabel="-log W(0.05)", ylabel="excess loss (nats)", title="50 rows, 16 hidden units")
    for axis, place in zip(axes, ("upper right", "center left", "lower right"), strict=True):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc=place, ncols=3 if place == "upper right" else 1)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _distilled(divergence: Divergence, seed: int) -> float:
    """1,000 times the excess loss of one network distilled from an ensemble under the divergence."""
    generator = torch.Generator().manual_seed(seed)
    x, held_out = torch.randn(100, 4, generator=generator), torch.randn(500, 4, generator=generator)
    fitted = _ensemble(True).fit(_network(32, 4), x, _labels(_teacher(x), generator), generator=generator)
    student = _network(32, 4)
    with torch.no_grad():
        for p in student.parameters():
            p.copy_(_PRIOR.scale(p) * torch.randn(p.shape, generator=generator))
    inputs = torch.randn(300, 4, generator=generator)
    fitted.distilled(student, inputs, divergence=divergence, training=Training(steps=200, learning_rate=0.02))
    with torch.no_grad():
        outcome = _LIKELIHOOD.log_probs(student(held_out))
    return 1000 * float(KL().from_logits(_LIKELIHOOD.log_probs(_teacher(held_out)[:, None]), outcome).mean())


RECIPE = Recipe(
    slug="universality-lens",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("breast-cancer",),
    task=SwapTask(
        measures="excess loss of a network distilled from the ensemble (nats / 1000)",
        better="lower",
        admits=Admission("distilled", (Divergence,)),
        run=_distilled,
        default=KL(),
    ),
)
