"""Layer-wise generalisation bounds: solvable cases against simulation, contraction by noise, and the profile of trained networks.

gaussian     two Gaussian classes, a linear network along the training mean: exact KL by layer, bounds, simulated 0-1 gap, and
             the same KL estimated from many retrainings
contraction  coefficients of Gaussian noise and dropout, computed numerically, against their bounds
gibbs        a class of 50 thresholds and the Gibbs posterior: the exact gap of 2,000 data sets against a / (2 n)
profile      networks on handwritten digits, trained on true and on noisy labels: sliced W_1 of training against held-out
             representations, class by class, less that of held-out against held-out
"""

from __future__ import annotations

import math
import statistics
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor, nn

from discrepancy import KL
from discrepancy.datasets import digits
from discrepancy.divergences import FDivergence, TotalVariation
from discrepancy.divergences.admission import Admission
from discrepancy.learning import Training
from discrepancy.methods.diagnostics.contraction import (
    binary_gaussian_channel,
    contraction_coefficient,
    contraction_dropout,
    contraction_gaussian,
)
from discrepancy.methods.diagnostics.generalization_bounds import (
    gaussian_conditional_divergence,
    gaussian_linear_case,
    gibbs_bound,
    gibbs_posterior,
)
from discrepancy.methods.diagnostics.layer_profile import LayerProfile, layer_profile
from discrepancy.networks import MLP
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_N, _D = 20, 10
_NOISE = (0.0, 0.25, 0.5)
_WIDTHS = (32, 64)
_LAYERS = ("1", "3", "5", "6")  # behind each activation, and the logits


def _gaussian(setting: Setting, generator: torch.Generator) -> Row:
    case = gaussian_linear_case(_N, _D, (5, 1))
    runs = 1000 if setting.quick else 4000
    mean = torch.full((_D,), _D**-0.5, dtype=torch.float64)
    Z = mean + torch.randn(runs, _N, _D, generator=generator, dtype=torch.float64)
    w = Z.mean(1)
    margin = (w @ mean) / torch.linalg.vector_norm(w, dim=1)
    gap = torch.special.ndtr(-margin) - ((Z * w[:, None]).sum(-1) <= 0).double().mean(1)
    # Two coordinates are enough for the regression on the weights, and keep its bias, (r + k) / R, small.
    fresh = mean[:2] + torch.randn(runs, 2, generator=generator, dtype=torch.float64)
    retrained = gaussian_conditional_divergence(Z[:, 0, :2], fresh, w[:, :2])
    levels = gaussian_linear_case(_N, _D, (7, 4, 1)).per_sample
    return {
        "largest error of the closed forms": max(
            abs(a - b) for a, b in zip(case.per_sample, (0.256466, 0.128233, 0.0256466), strict=True)
        ),
        "bound input": case.bounds[0],
        "bound last": case.bounds[-1],
        "gap": float(gap.mean()),
        "least fall of KL": min(a - b for a, b in pairwise(levels)),
        "retrained error": abs(float(retrained) - gaussian_linear_case(_N, 2).per_sample[0])
        / float(retrained.standard_error or 1),
        "_bounds": case.bounds,
    }


def _contraction(generator: torch.Generator) -> Row:
    slack = [
        contraction_gaussian(b, 2.0) - contraction_coefficient(binary_gaussian_channel(1.0, b), grid=20) for b in (0.5, 1.0, 2.0)
    ]
    # Three signs through dropout with p = 1/2: outputs in {-1, 0, 1}^3.
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    outputs = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64)
    dropout = torch.where(outputs == 0, 0.5, 0.5 * (outputs == signs[:, None]).double()).prod(-1)
    # Uniform on the simplex, as normalised exponential draws.
    draws = -torch.log1p(-torch.rand(2, 50, 8, generator=generator, dtype=torch.float64))
    p, q = draws / draws.sum(-1, keepdim=True)
    tv = TotalVariation()
    ratio = tv.from_probs(p @ dropout, q @ dropout) / tv.from_probs(p, q)
    return {
        "gaussian slack": min(slack),
        "dropout slack": contraction_dropout(0.5, 3) - float(ratio.max()),
        "noise layers": _noise_layers(p, q),
    }


def _noise_layers(p: Tensor, q: Tensor, b: float = 0.7) -> float:
    """The largest KL after over eta KL before, of three layers that add N(0, b^2) and cut to [-1, 1] again: must be at most 1."""
    places = torch.linspace(-1, 1, p.shape[1], dtype=torch.float64)
    edges = (places[1:] + places[:-1]) / 2
    inner = torch.special.ndtr((edges - places[:, None]) / b)
    channel = torch.diff(inner, prepend=torch.zeros(len(places), 1).double(), append=torch.ones(len(places), 1).double())
    eta, worst, kl = contraction_gaussian(b, 2.0), 0.0, KL()
    for _ in range(3):
        before = kl.from_probs(p, q)
        p, q = p @ channel, q @ channel
        worst = max(worst, float((kl.from_probs(p, q) / (eta * before)).max()))
    return worst


def _gibbs(generator: torch.Generator, n: int = 30, sets: int = 2000) -> Row:
    """Labels 1[x > 1/2] on uniform x, a fifth of them flipped; hypotheses 1[x > t] at 50 thresholds, whose risk is known."""
    thresholds = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    risk = 0.2 + 0.6 * (thresholds - 0.5).abs()
    x = torch.rand(sets, n, 1, generator=generator, dtype=torch.float64)
    y = (x > 0.5) ^ (torch.rand(sets, n, 1, generator=generator, dtype=torch.float64) < 0.2)
    losses = ((x > thresholds) ^ y).double().mean(1)
    row: Row = {}
    for a in (1, 10, 100):
        # The prior's gap is zero in the mean: taken away, it leaves the expectation and little of the noise.
        shift = gibbs_posterior(losses, a) - 1 / len(thresholds)
        gaps = (shift * (risk - losses)).sum(1)
        row |= {f"gibbs gap {a}": float(gaps.mean()), f"gibbs bound {a}": gibbs_bound(a, n)}
    return row


def _profile(setting: Setting, noise: float, width: int, generator: torch.Generator) -> tuple[LayerProfile, float]:
    """The profile of one network and its gap in accuracy; labels of both halves are equally noisy."""
    images, classes = digits()
    X, clean = torch.from_numpy(images).float() * 2 - 0.6, torch.from_numpy(classes)
    order = torch.randperm(len(X), generator=generator)
    train, test = order[:800], order[800:1700]
    redrawn = torch.rand(len(X), generator=generator) < noise
    y = torch.where(redrawn, torch.randint(10, (len(X),), generator=generator), clean)
    net = MLP(width, 3, nn.ReLU).build(64, 10, generator=generator)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return nn.functional.cross_entropy(net(X[train]), y[train]), {}

    Training(steps=400, learning_rate=3e-3).run(net.parameters(), step)
    net.eval()
    found = layer_profile(
        net,
        (X[train], y[train]),
        (X[test], y[test]),
        layers=_LAYERS,
        discrepancy=setting.choice,
        splits=4 if setting.quick else 10,
        resamples=2 if setting.quick else 10,
        generator=generator,
    )
    with torch.no_grad():
        right = [float((net(X[s]).argmax(1) == y[s]).double().mean()) for s in (train, test)]
    return found, right[0] - right[1]


def _profiles(setting: Setting, generator: torch.Generator) -> Row:
    from scipy.stats import spearmanr

    sums, gaps, funnels, row = [], [], [], {}
    for width in _WIDTHS[-1:] if setting.quick else _WIDTHS:
        for noise in _NOISE:
            found, gap = _profile(setting, noise, width, generator)
            excess = [r.excess for r in found.rows]
            sums.append(sum(excess))
            gaps.append(gap)
            funnels.append(found.funnel in _LAYERS[:-1])
            row |= {
                f"sum {width} {noise}": sums[-1],
                f"gap {width} {noise}": gap,
                f"_bound {width} {noise}": [r.log_bound for r in found.rows],
            }
            if width == 64 and noise in (0.0, 0.5):
                name = "true" if noise == 0 else "random"
                row |= {f"excess {name}": excess, f"value {name}": [r.value for r in found.rows]}
                row[f"null {name}"] = [r.null for r in found.rows]
    row["rank correlation"] = float(spearmanr(sums, gaps).statistic)  # type: ignore[union-attr]
    row["share of funnels before the logits"] = sum(funnels) / len(funnels)
    return row


def measure(setting: Setting) -> Row:
    """All four parts for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    return _gaussian(setting, generator) | _contraction(generator) | _gibbs(generator) | _profiles(setting, generator)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; a quick run ranks three networks in place of six."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows]

    slack = [row["bound last"] - row["gap"] for row in rows]
    gap = column("gap")
    near = abs(statistics.fmean(gap) - 0.094) <= 0.01
    inside = [
        min(min(row[f"gibbs gap {a}"], row[f"gibbs bound {a}"] - row[f"gibbs gap {a}"]) for a in (1, 10, 100)) for row in rows
    ]
    layers = range(len(_LAYERS) - 1)
    least = min(layers, key=lambda k: statistics.fmean(row["excess random"][k] for row in rows))
    hidden = [row["excess random"][least] for row in rows]
    beyond = [max(row["excess random"]) - 2 * max(row["excess true"]) for row in rows]
    raw = [max(row["value random"]) / max(row["value true"]) for row in rows]
    error, fall = column("largest error of the closed forms"), column("least fall of KL")
    retrained, noise = column("retrained error"), column("noise layers")
    gaussian, dropout = column("gaussian slack"), column("dropout slack")
    rank, funnel = column("rank correlation"), column("share of funnels before the logits")
    return [
        check("gaussian: error of the KL per sample at ranks 10, 5, 1", error, "<= 1e-6", max(error) <= 1e-6),
        check("gaussian: simulated 0-1 gap", gap, "0.094 within 0.01", near),
        check("gaussian: bound at the last layer less the gap", slack, "> 0", min(slack) > 0),
        check("gaussian: least fall of KL over ranks 10, 7, 4, 1", fall, "> 0", min(fall) > 0),
        check("gaussian: KL from retrainings off by standard errors", retrained, "mean <= 3", statistics.fmean(retrained) <= 3),
        check("contraction: 2 Phi(A/b) - 1 less numerical eta_KL", gaussian, ">= 0 for b = 0.5, 1, 2", min(gaussian) >= 0),
        check("contraction: 1 - 1/8 less the worst TV ratio of dropout", dropout, ">= 0", min(dropout) >= 0),
        check("contraction: KL behind a noise layer over eta KL before", noise, "<= 1", max(noise) <= 1),
        check("gibbs: least slack of 0 <= gap <= a / (2 n), a = 1, 10, 100", inside, ">= 0", min(inside) >= 0),
        check(
            "profile: excess of the least hidden layer, half of the labels random",
            hidden,
            "mean > 0",
            statistics.fmean(hidden) > 0,
        ),
        check("profile: largest excess, random less twice that of true labels", beyond, ">= 0", min(beyond) >= 0),
        check("profile: largest raw value, random over true labels", raw, "> 1", min(raw) > 1),
        check("profile: rank correlation of summed excess and accuracy gap", rank, "mean >= 0.8", statistics.fmean(rank) >= 0.8),
        check("profile: share of networks whose best layer is hidden", funnel, "> 1/2", statistics.fmean(funnel) > 0.5),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Profile by layer with and without random labels, the proxies of the bound, and the exact bound in the Gaussian case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    ticks = ["hidden 1", "hidden 2", "hidden 3", "logits"]
    for name, colour in (("random", "#dc2626"), ("true", "#2563eb")):
        for what, style in (("value", "o-"), ("null", "o:")):
            means = [statistics.fmean(v) for v in zip(*(row[f"{what} {name}"] for row in rows), strict=True)]
            axes[0].plot(ticks, means, style, color=colour, label=f"{name} labels, {'train' if what == 'value' else 'null'}")
    axes[0].set(ylabel="sliced W1", yscale="log", title="training against held-out")
    for noise, colour in zip(_NOISE, ("#2563eb", "#6b7280", "#dc2626"), strict=True):
        means = [statistics.fmean(v) for v in zip(*(row[f"_bound 64 {noise}"] for row in rows), strict=True)]
        axes[1].plot(ticks, [v / math.log(10) for v in means], "o-", color=colour, label=f"{noise:.0%} random")
    axes[1].set(ylabel="log10 of W1 times Lipschitz", title="proxy of the Wasserstein bound")
    axes[2].plot(["input, r = 10", "r = 5", "r = 1"], rows[0]["_bounds"], "o-", color="#2563eb", label="KL bound")
    axes[2].axhline(statistics.fmean(row["gap"] for row in rows), color="black", lw=1, label="simulated gap")
    axes[2].set(ylim=(0, None), title="Gaussian classes, n = 20")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _passed_on(divergence: FDivergence, seed: int) -> float:
    """100 eta_f of a random channel from 4 to 6 letters."""
    generator = torch.Generator().manual_seed(seed)
    channel = torch.softmax(torch.randn(4, 6, generator=generator, dtype=torch.float64), 1)
    return 100 * contraction_coefficient(channel, divergence, grid=20)


RECIPE = Recipe(
    slug="generalization-bounds",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("digits",),
    task=SwapTask(
        measures="what a random channel passes on of the divergence, eta_f (%)",
        better="neither",
        admits=Admission("contraction_coefficient", (FDivergence,)),
        run=_passed_on,
        default=KL(),
    ),
)
