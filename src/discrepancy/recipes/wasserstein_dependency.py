"""Wasserstein predictive coding against InfoNCE on grids of handwritten digits, and the dependency measure on samples.

x shows k digits of independent classes c_1 ... c_k, y the digits c_i + 1 (mod 10): log 10 nats a position. Encoders see batches
of 32, so that InfoNCE cannot report more than log 32 whatever there is. Judged by linear probes, one a position, on images not
seen. The penalty's weight is 1 in the checks; for nine digits the record has weights 0.1 and 10 too.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy.datasets import digits
from discrepancy.inference import independence_test
from discrepancy.learning import GradientPenalty, Training
from discrepancy.methods.representation.wasserstein_dependency import WassersteinPredictiveCoding
from discrepancy.networks import MLP, BilinearCritic
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import WassersteinDependency

_BATCH, _FEATURES, _WIDTH = 32, 64, 256
_CEILING = math.log(_BATCH)
_SIZES = (1, 4, 9)
_PENALTIES = (0.1, 1.0, 10.0)  # compared at the largest grid; the others take 1
_PROBED = 3  # positions of a grid that are probed


class _Grids:
    """Grids of digits, the images of each class kept apart for training and test."""

    def __init__(self, positions: int, train: bool) -> None:
        images, classes = digits()
        # Every fourth image of a class is for tests.
        self.images: list[Tensor] = []
        for c in range(10):
            of_class = images[classes == c]
            held_out = np.arange(len(of_class)) % 4 == 3
            self.images.append(torch.tensor(of_class[~held_out if train else held_out], dtype=torch.float32))
        self.positions = positions

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x and y (count, 64 k), and the classes (count, k) in x."""
        classes = torch.randint(0, 10, (count, self.positions), generator=generator)
        return self._shown(classes, generator), self._shown((classes + 1) % 10, generator), classes

    def _shown(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        chance = torch.rand(classes.shape, generator=generator)
        out = torch.empty(*classes.shape, 64)
        for c, images in enumerate(self.images):
            here = classes == c
            out[here] = images[(chance[here] * len(images)).long()]
        return out.flatten(1)


def _probe(encoder: nn.Module, positions: int, setting: Setting, generator: torch.Generator) -> float:
    """Accuracy of logistic probes on held-out images, the mean over positions."""
    from sklearn.linear_model import LogisticRegression

    with torch.no_grad():
        x, _, classes = _Grids(positions, train=True).draw(300 if setting.quick else 1000, generator)
        z, _, truth = _Grids(positions, train=False).draw(300 if setting.quick else 600, generator)
        features, held_out = encoder(x), encoder(z)
    centre, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    features, held_out = ((t - centre) / scale for t in (features, held_out))
    scores = []
    for k in range(min(_PROBED, positions)):
        probe = LogisticRegression(max_iter=200, C=0.1).fit(features.numpy(), classes[:, k].numpy())
        scores.append(float(probe.score(held_out.numpy(), truth[:, k].numpy())))
    return statistics.fmean(scores)


def _trained(positions: int, weight: float | None, setting: Setting) -> tuple[float, float, float]:
    """Probe accuracy, the InfoNCE value at the end, and the critic's median slope (NaN without penalty)."""
    generator = torch.Generator().manual_seed(1000 * setting.seed + positions)
    net = MLP(_WIDTH, 1, nn.ReLU)
    left, right = (net.build(64 * positions, _FEATURES, generator=generator) for _ in range(2))
    penalty = None if weight is None else GradientPenalty(weight)
    critic = BilinearCritic(_FEATURES, _FEATURES, generator=generator)
    loss = WassersteinPredictiveCoding(left, right, critic, penalty=penalty)
    grids = _Grids(positions, train=True)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        x, y, _classes = grids.draw(_BATCH, generator)
        found = loss.terms(x, y, generator=generator)
        return found.loss, {"objective": found.objective.detach(), "slope": found.slope}

    steps = 60 if setting.quick else 500
    history = Training(steps=steps, learning_rate=1e-3, final_share=1.0).run(loss.parameters(), step)
    last = max(1, len(history["objective"]) // 5)
    bound, slope = statistics.fmean(history["objective"][-last:]), statistics.fmean(history["slope"][-last:])
    return _probe(left, positions, setting, generator), bound, slope


def _dependence(setting: Setting) -> Row:
    """I_W of correlated Gaussian pairs, and tests of independence."""
    n, permutations = (100, 99) if setting.quick else (300, 199)
    measure = WassersteinDependency() if setting.choice is None else WassersteinDependency(setting.choice)
    row: Row = {}
    generator = torch.Generator().manual_seed(77 + setting.seed)

    def pairs(correlation: float) -> tuple[Tensor, Tensor]:
        x, z = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
        return x, correlation * x + math.sqrt(1 - correlation**2) * z

    def p_value(x: Tensor, y: Tensor) -> float:
        return float(independence_test(x, y, measure, permutations=permutations, generator=generator).p_value)

    for correlation in (0.0, 0.5, 0.9):
        row[f"I_W {correlation:g}"] = float(measure(*pairs(correlation), generator=generator))
    row["p half"] = p_value(*pairs(0.5))
    x, _ = pairs(0.0)
    row["p square"] = p_value(x, x.square())
    row["null rejections"] = sum(p_value(*pairs(0.0)) <= 0.05 for _ in range(3 if setting.quick else 7))
    return row


def measure(setting: Setting) -> Row:
    """Probes with and without the penalty on three grids, and the measure on samples, for one seed."""
    row = _dependence(setting)
    for k in (1, 9) if setting.quick else _SIZES:
        weights: tuple[float | None, ...] = (None, *(_PENALTIES if k == 9 and not setting.quick else (1.0,)))
        for weight in weights:
            name = f"{k} {'plain' if weight is None else f'{weight:g}'}"
            row[f"probe {name}"], row[f"bound {name}"], slope = _trained(k, weight, setting)
            if weight is not None:
                row[f"slope {name}"] = slope
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""
    gain = [r["probe 9 1"] - r["probe 9 plain"] for r in rows]
    single = [r["probe 1 1"] - r["probe 1 plain"] for r in rows]
    spread = statistics.stdev(gain) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    worst = [min(r["probe 9 1"], r["probe 9 plain"]) for r in rows]
    ceiling = [max(v for k, v in r.items() if k.startswith("bound") and k.endswith("plain")) for r in rows]
    slopes = [v for r in rows for k, v in r.items() if k.startswith("slope") and k.endswith(" 1")]
    rising = [min(r["I_W 0.5"] - r["I_W 0"], r["I_W 0.9"] - r["I_W 0.5"]) for r in rows]
    p_half, p_square = ([r[name] for r in rows] for name in ("p half", "p square"))
    false = [r["null rejections"] for r in rows]
    mean = statistics.fmean(gain)
    return [
        check("probe accuracy gained by the penalty, nine digits", gain, ">= 0.03, > standard error", mean >= max(0.03, spread)),
        check("the same, one digit", single, "within 0.03", abs(statistics.fmean(single)) <= 0.03),
        check("lower of the two accuracies, nine digits", worst, "> 0.15", min(worst) > 0.15),
        check(
            "largest InfoNCE value reported (log 32 = 3.466; four digits share 9.21)",
            ceiling,
            "<= 3.466",
            max(ceiling) <= _CEILING,
        ),
        check("median slope under the penalty", slopes, "in [0.5, 1.5]", min(slopes) >= 0.5 and max(slopes) <= 1.5),
        check("least rise of I_W from correlation 0 to 0.5 to 0.9", rising, "> 0", min(rising) > 0),
        check("p at correlation 0.5", p_half, "<= 0.01", max(p_half) <= 0.01),
        check("p for y = x^2", p_square, "<= 0.01", max(p_square) <= 0.01),
        check("false rejections at 5 % a seed", false, "<= 2 in all", sum(false) <= 2),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Probe accuracy against the number of digits, and what each objective reported."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [k for k in _SIZES if f"probe {k} plain" in rows[0]]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label, colour in (("plain", "InfoNCE", "#6b7280"), ("1", "with the penalty", "#2563eb")):
        for axis, what in ((left, "probe"), (right, "bound")):
            values = [[r[f"{what} {k} {name}"] for r in rows] for k in sizes]
            axis.plot(sizes, [statistics.fmean(v) for v in values], "o-", color=colour, label=label)
            for k, v in zip(sizes, values, strict=True):
                axis.plot([k] * len(v), v, ".", color=colour, alpha=0.5)
    right.plot(sizes, [k * math.log(10) for k in sizes], "k:", label="mutual information, k log 10")
    right.axhline(_CEILING, color="#dc2626", lw=1, label="log 32")
    left.set(xlabel="digits in a grid", ylabel="accuracy of linear probes")
    right.set(xlabel="digits in a grid", ylabel="InfoNCE value (nats)", ylim=(0, 10))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="wasserstein-dependency", measure=measure, judge=judge, draw=draw, swaps=True, needs=("digits",))
