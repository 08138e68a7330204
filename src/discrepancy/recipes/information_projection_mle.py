"""How far a maximum-likelihood fit is from its information projection, and the p-n criterion made of it.

poisson      counts of rate 2: the risk summed exactly, beside its expansion of both orders
misspecified exponential laws fitted to gamma data: the exact risk and simulated fits, beside the expansion and beside p / (2 n)
gaussian     mean and covariance fitted to a correlated t law of 8 degrees of freedom
ising        21 parameters: the risk from enumerated cumulants, and from Gibbs draws of a family without a normaliser
wine         log-linear models of four properties of wine, cut at their medians: which of them 178 bottles afford

All risks are E KL(projection || fit), in nats.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from discrepancy.estimation.exponential_family import (
    Exponential,
    Gaussian,
    Ising,
    LogLinear,
    Poisson,
    SampledFamily,
    kl_between,
)
from discrepancy.estimation.information_projection_mle import pn_criterion, reduce_until_accepted, risk_expansion
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_COUNTS = {10: (0.0523036, 0.005), 20: (0.0255461, 0.002), 50: (0.0100849, 0.0002)}  # exact risk, accuracy asked of order 2
_SHAPES = {0.5: 0.0603, 1.0: 0.0274, 3.0: 0.0086}  # the card's simulated risks at n = 20
_WINE_RISKS = (0.011, 0.028, 0.039)


def _poisson_risk(rate: float, n: int) -> float:
    """E KL(rate || mean), given that the sum of n counts is positive, by summation."""
    total = rate * n
    s = np.arange(1, int(total + 40 * math.sqrt(total)) + 60)
    log_mass = s * math.log(total) - total - np.array([math.lgamma(k + 1.0) for k in s])
    mass, mean = np.exp(log_mass), s / n
    return float((mass * (mean - rate + rate * np.log(rate / mean))).sum() / mass.sum())


def _poisson(setting: Setting) -> Row:
    """Exact risks and expansions; the same for every seed."""
    family = Poisson()
    theta = torch.tensor([math.log(2.0)], dtype=torch.float64)
    expansion = risk_expansion(family.cumulants(theta), torch.tensor([[2.0]]), torch.tensor([[[2.0]]]))
    row: Row = {}
    for n in _COUNTS:
        row[f"poisson exact {n}"] = _poisson_risk(2.0, n)
        row[f"poisson order 1 {n}"], row[f"poisson order 2 {n}"] = expansion.at(n, 1), expansion.at(n, 2)
    return row


def _misspecified(setting: Setting) -> Row:
    """Gamma data, exponential model, n = 20."""
    family, n = Exponential(), 20
    generator = np.random.default_rng(setting.seed)
    row: Row = {}
    for shape in _SHAPES:
        projection = family.natural([shape])
        expansion = risk_expansion(family.cumulants(projection), torch.tensor([[shape]]), torch.tensor([[[2 * shape]]]))
        means = generator.gamma(n * shape, 1 / n, 200_000 if setting.quick else 2_000_000)  # the mean of n gamma variables is one
        fits = family.natural(torch.from_numpy(means)[:, None])
        row[f"gamma simulated {shape:g}"] = float(kl_between(family, projection, fits).mean())
        # KL = log(m / shape) + shape / m - 1 for a fit of mean m, and n m is a gamma variable of shape n * shape.
        total = torch.tensor(n * shape, dtype=torch.float64)
        row[f"gamma risk {shape:g}"] = float(torch.digamma(total) - total.log() + total / (total - 1) - 1)
        row[f"gamma order 2 {shape:g}"] = expansion.at(n)
        row[f"gamma penalty {shape:g}"] = expansion.penalty
    return row


def _t_draws(n: int, repeats: int, generator: torch.Generator) -> Tensor:
    """Draws (repeats, n, 2) of a t law of 8 degrees of freedom with correlation 0.5."""
    root = torch.linalg.cholesky(torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    normal = torch.randn(repeats, n, 2, generator=generator, dtype=torch.float64) @ root.mT
    chi = torch.randn(repeats, n, 8, generator=generator, dtype=torch.float64).square().sum(-1, keepdim=True)
    return normal / (chi / 8).sqrt()


def _gaussian(setting: Setting) -> Row:
    """The normal model on heavy tails."""
    family, n = Gaussian(2), 100
    generator = torch.Generator().manual_seed(100 + setting.seed)
    large = family.fit(_t_draws(100_000, 1, generator)[0])
    expansion = risk_expansion(family.cumulants(large.theta), large.covariance, centred=large.centred)
    samples = _t_draws(n, 500, generator)
    means = torch.stack([family.statistic(x).mean(0) for x in samples])
    variance = 8 / 6  # of a t variable of 8 degrees of freedom
    truth = torch.tensor([0, 0, variance, variance / 2, variance], dtype=torch.float64)
    risk = float(kl_between(family, family.natural(truth), family.natural(means)).mean())
    return {
        "gaussian risk": risk,
        "gaussian order 1": expansion.at(n, 1),
        "gaussian order 2": expansion.at(n),
        "gaussian p/2n": 5 / (2 * n),
    }


def _ising(setting: Setting) -> Row:
    """The plug-in risk of one sample, from enumeration and from a family that only has a Gibbs sampler."""
    model = Ising(6)
    generator = torch.Generator().manual_seed(200 + setting.seed)
    theta = 0.25 * torch.randn(model.dimension, generator=generator, dtype=torch.float64)
    n, draws = 500, 8_000 if setting.quick else 60_000
    x = model.draw(theta, n, generator=generator)
    exact = pn_criterion(model.fit(x))

    def gibbs(theta: Tensor, count: int, source: torch.Generator) -> Tensor:
        return model.gibbs(theta, count, sweeps=3, burn_in=50, generator=source)

    blind = SampledFamily(model.statistic, gibbs, start=(0.0,) * model.dimension, draws=draws, labels=model.names)
    fit = blind.fit(x, generator=generator)
    found = pn_criterion(fit, generator=generator)
    return {
        "ising risk enumerated": exact.risk,
        "ising risk sampled": found.risk,
        "ising order 2 enumerated": exact.second_order,
        "ising order 2 sampled": found.second_order,
        "ising parameter error": float((fit.theta - model.fit(x).theta).abs().max()),
    }


def _wine_table() -> Tensor:
    """Four properties of 178 wines, above their medians or not."""
    from sklearn.datasets import load_wine

    values = load_wine(return_X_y=True)[0][:, :4]
    return torch.from_numpy((values > np.median(values, axis=0)).astype(np.float64))


def _simulated_requirement(model: LogLinear, theta: Tensor, threshold: float, start: int, setting: Setting) -> float:
    """The n at which the risk of fits to samples of the member theta is the threshold, by simulation on a grid of sizes."""
    generator = torch.Generator().manual_seed(300 + setting.seed)
    probabilities = model.probabilities(theta)
    sizes, risks = [int(start * share) for share in (0.8, 1.0, 1.2, 1.45)], []
    for n in sizes:
        kept: list[Tensor] = []
        draws = torch.distributions.Multinomial(n, probabilities)
        torch.manual_seed(int(torch.randint(0, 2**31, (1,), generator=generator)))
        counts = draws.sample((300 if setting.quick else 1500,)).double()
        for mean in (counts @ model.table / n).split(250):
            # The risk is that of fits that exist: an empty cell of a pair has none.
            kept.append(kl_between(model, theta, model.natural(mean[model.attainable(mean)])))
        risks.append(float(torch.cat(kept).mean()))
    line = statistics.linear_regression([math.log(r) for r in risks], [math.log(n) for n in sizes])
    return math.exp(line.intercept + line.slope * math.log(threshold))


def _wine(setting: Setting) -> Row:
    """The criterion on three nested models."""
    x = _wine_table()
    row: Row = {}
    for order, name in enumerate(("main", "pairs", "triples"), 1):
        model = LogLinear((2, 2, 2, 2), order=order)
        report = pn_criterion(model.fit(x))
        row |= {f"wine {name} risk": report.risk, f"wine {name} order 1": report.first_order}
        row |= {
            f"wine {name} accepted": report.accepted,
            f"wine {name} required": report.n_required,
            f"wine {name} p": report.dimension,
        }
    pairs = LogLinear((2, 2, 2, 2), order=2)
    theta = pairs.fit(x).theta
    row["wine pairs simulated"] = _simulated_requirement(pairs, theta, 0.02, row["wine pairs required"], setting)
    reduced = reduce_until_accepted(LogLinear((2, 2, 2, 2), order=3), x)
    row |= {"wine reduced p": reduced.model.dimension, "wine reduced risk": reduced.report.risk}
    return row


def measure(setting: Setting) -> Row:
    """All problems for one seed."""
    return _poisson(setting) | _misspecified(setting) | _gaussian(setting) | _ising(setting) | _wine(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds."""

    def relative(found: str, truth: str) -> list[float]:
        return [abs(r[found] / r[truth] - 1) for r in rows]

    exact = [max(abs(r[f"poisson exact {n}"] / value - 1) for n, (value, _) in _COUNTS.items()) for r in rows]
    checks = [check("poisson: exact risks beside the card's", exact, "within 1e-5", max(exact) <= 1e-5)]
    for n in (10, 50):
        off, asked = relative(f"poisson order 2 {n}", f"poisson exact {n}"), _COUNTS[n][1]
        checks.append(check(f"poisson: error of order 2 at n = {n}", off, f"<= {asked:g}", max(off) <= asked))
    for shape, truth in _SHAPES.items():
        off = relative(f"gamma order 2 {shape:g}", f"gamma risk {shape:g}")
        checks.append(check(f"gamma {shape:g}: error of order 2", off, "<= 0.025", max(off) <= 0.025))
        card = [abs(r[f"gamma risk {shape:g}"] / truth - 1) for r in rows]
        checks.append(check(f"gamma {shape:g}: exact risk beside the card's simulation", card, "<= 0.01", max(card) <= 0.01))
        simulated = relative(f"gamma simulated {shape:g}", f"gamma risk {shape:g}")
        checks.append(
            check(f"gamma {shape:g}: simulated fits beside the exact risk", simulated, "<= 0.02", max(simulated) <= 0.02)
        )
    wrong = [min(max(a, 1 / a) for a in (r[f"gamma risk {shape}"] / 0.025 for shape in ("0.5", "3"))) for r in rows]
    checks.append(check("gamma 0.5 and 3: factor by which p / 2n is wrong", wrong, "> 2", min(wrong) > 2))
    off = relative("gaussian order 1", "gaussian risk")
    checks.append(check("normal model on t data: error of order 1", off, "<= 0.15 in the mean", statistics.fmean(off) <= 0.15))
    off = relative("ising risk sampled", "ising risk enumerated")
    checks.append(check("ising: risk from Gibbs draws beside enumeration", off, "<= 0.05 in every seed", max(off) <= 0.05))
    names = ("main", "pairs", "triples")
    near = [max(abs(r[f"wine {k} order 1"] / v - 1) for k, v in zip(names, _WINE_RISKS, strict=True)) for r in rows]
    rises = [min(r[f"wine {b} risk"] - r[f"wine {a} risk"] for a, b in (names[:2], names[1:])) for r in rows]
    verdicts = [float([r[f"wine {k} accepted"] for k in names] == [True, False, False]) for r in rows]
    required = relative("wine pairs required", "wine pairs simulated")
    return [
        *checks,
        check("wine: first-order risks beside the card's 0.011, 0.028, 0.039", near, "within 0.05", max(near) <= 0.05),
        check("wine: least rise of the risk with the model", rises, "> 0", min(rises) > 0),
        check("wine: main effects accepted, pairs and triples not", verdicts, "1", min(verdicts) == 1),
        check("wine: sample size asked for pairs beside simulation", required, "within 0.25", max(required) <= 0.25),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Risks beside their expansions, and the criterion on wine."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    r = rows[0]
    cases = [(f"gamma\nshape {s:g}", r[f"gamma risk {s:g}"], r[f"gamma order 2 {s:g}"], 0.025) for s in _SHAPES]
    cases.append(("t data,\nnormal", r["gaussian risk"], r["gaussian order 2"], r["gaussian p/2n"]))
    cases.append(("ising\n(sampled)", r["ising risk enumerated"], r["ising risk sampled"], 21 / 1000))
    places = np.arange(len(cases))
    for k, (label, colour) in enumerate((("truth", "#111827"), ("expansion", "#2563eb"), ("p / 2n", "#d1d5db"))):
        left.bar(places + 0.27 * (k - 1), [case[k + 1] for case in cases], 0.25, color=colour, label=label)
    left.set_xticks(places, [case[0] for case in cases])
    left.set(ylabel="E KL(projection || fit), nats", title="risk of the fit")
    names = ("main", "pairs", "triples")
    right.bar(
        range(3), [r[f"wine {k} risk"] for k in names], color=["#2563eb" if r[f"wine {k} accepted"] else "#f59e0b" for k in names]
    )
    right.axhline(0.02, color="#dc2626", lw=1, label="threshold at delta = 0.05")
    right.set_xticks(range(3), [f"{k}\np = {r[f'wine {k} p']}\nasks n = {r[f'wine {k} required']}" for k in names])
    right.set(ylabel="estimated risk, nats", title="log-linear models of 178 wines")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="information-projection-mle", measure=measure, judge=judge, draw=draw)
