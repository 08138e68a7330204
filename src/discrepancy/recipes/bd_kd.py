"""Balanced forward and reverse KL in online distillation: a convolutional network and a small one learn MNIST-1D together.

The student's loss varies - forward KL alone, both in equal parts, balanced by the entropy gap, the rule swapped - and
the teacher's stays: cross-entropy with a tenth of KL(teacher || student). The baseline is the student without a teacher.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import torch

from discrepancy.divergences import KL
from discrepancy.methods.distillation import (
    BalancedDivergence,
    EntropyGap,
    Epochs,
    FixedWeights,
    OnlineDistiller,
    distil,
)
from discrepancy.methods.distillation.bd_kd import ADMITS, BalanceRule, teacher_regulariser
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_TEMPERATURE = 2.0
_RULES: dict[str, BalanceRule] = {
    "forward": FixedWeights(1.0, 0.0),
    "equal": FixedWeights(),
    "balanced": EntropyGap(),
    "swapped": EntropyGap(swap=True),
}
_QUICK = ("forward", "equal", "balanced")
_NAMES = ("independent", *_RULES)


def _pair_of(divergence: Any) -> tuple[Any, Any]:
    """A divergence and its reversal: the paper's pair for KL."""
    return divergence, divergence.reversed()


def _trained(setting: Setting, rule: BalanceRule, epochs: Epochs) -> tuple[pair.Scores, float]:
    """The student's scores and the teacher's accuracy after training the two together."""
    divergence = KL() if setting.choice is None else ADMITS.check(setting.choice)
    loss = BalancedDivergence(_pair_of(divergence), rule=rule, temperature=_TEMPERATURE)
    networks = (pair.SignalCNN(generator=torch.Generator().manual_seed(10_000 + setting.seed)), pair.student(setting.seed))
    both = OnlineDistiller(networks, (teacher_regulariser(_TEMPERATURE), loss))
    known = pair.data()
    both.fit(known.train, known.train_classes, epochs=epochs, generator=torch.Generator().manual_seed(30_000 + setting.seed))
    return pair.scores(networks[1]), pair.scores(networks[0]).accuracy


def _rule_sides() -> float:
    """How many of the four weights of two hand-made samples are where the rule says, delta = 2."""
    sharp, flat = [4.0, 0.0, 0.0], [1.0, 0.0, 0.0]
    student, teacher = torch.tensor([sharp, flat]), torch.tensor([flat, sharp])
    expected = torch.tensor([[4 / 3, 2 / 3], [2 / 3, 4 / 3]])
    return float(((EntropyGap()(student, teacher) - expected).abs() < 1e-6).sum())


def measure(setting: Setting) -> Row:
    """The independent student and every online variant for one seed."""
    epochs = Epochs(8 if setting.quick else 30)
    known = pair.data()
    alone = pair.student(setting.seed)
    order = torch.Generator().manual_seed(30_000 + setting.seed)
    distil(alone, known.train, known.train_classes, pair.cross_entropy, epochs=epochs, generator=order)
    row: Row = {"right weights": _rule_sides()}
    results: dict[str, pair.Scores] = {"independent": pair.scores(alone)}
    for name in _QUICK if setting.quick else _RULES:
        results[name], row[f"teacher {name}"] = _trained(setting, _RULES[name], epochs)
    for name, found in results.items():
        row |= {f"accuracy {name}": found.accuracy, f"ECE {name}": found.ece, f"adaptive ECE {name}": found.adaptive_ece}
        row |= {f"NLL {name}": found.nll, f"Brier {name}": found.brier}
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks, and the paper's claim against equal weights, reported with its interval and not judged."""
    online = [name for name in _RULES if f"accuracy {name}" in rows[0]]

    def difference(what: str, name: str, other: str) -> list[float]:
        return [r[f"{what} {name}"] - r[f"{what} {other}"] for r in rows]

    gains = {name: difference("accuracy", name, "independent") for name in online}
    worst = min(gains, key=lambda name: statistics.fmean(gains[name]))
    best = max(("forward", "equal"), key=lambda name: statistics.fmean(gains[name]))
    behind = difference("accuracy", "balanced", best)
    ece = difference("ECE", "balanced", "independent")
    over_equal = difference("accuracy", "balanced", "equal")
    error = statistics.stdev(over_equal) / math.sqrt(len(over_equal)) if len(over_equal) > 1 else 0.0
    return [
        check(f"least gain over the independent student ({worst}), points", gains[worst], "mean >= 1.5",
              statistics.fmean(gains[worst]) >= 1.5),
        check(f"balanced over the better of forward and equal ({best}), points", behind, "mean >= -1",
              statistics.fmean(behind) >= -1),
        check("ECE of balanced over independent", ece, "mean <= 0.02", statistics.fmean(ece) <= 0.02),
        check(f"the paper's claim here: balanced over equal, points (standard error {error:.2f})", over_equal, "reported", True),
        check("the same for NLL", difference("NLL", "balanced", "equal"), "reported", True),
        check("hand-made samples: weights on the stated side", [r["right weights"] for r in rows], "= 4 of 4",
              all(r["right weights"] == 4 for r in rows)),
    ]  # fmt: skip


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy, calibration error and log loss of the student for every rule."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in _NAMES if f"accuracy {name}" in rows[0]]
    panels = {"accuracy": "test accuracy in %", "ECE": "expected calibration error, 15 bins", "NLL": "log loss in nats"}
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", sharey=True)
    for axis, (what, label) in zip(axes, panels.items(), strict=True):
        for k, name in enumerate(names):
            values = [r[f"{what} {name}"] for r in rows]
            colour = {"independent": "#6b7280", "balanced": "#2563eb"}.get(name, "#93c5fd")
            axis.plot(values, [k] * len(values), ".", color=colour, alpha=0.6)
            axis.plot(statistics.fmean(values), k, "o", color=colour)
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swapped(divergence: Any, seed: int) -> float:
    """The student's accuracy with a fixed teacher, eight epochs."""
    loss = BalancedDivergence(_pair_of(divergence), temperature=_TEMPERATURE)
    return pair.scores(pair.distilled(seed, loss, epochs=8, teacher_epochs=15).student).accuracy


RECIPE = Recipe(
    slug="bd-kd",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("mnist1d",),
    task=SwapTask(
        measures="test accuracy in %, D and its reversal balanced", better="higher", admits=ADMITS, run=_swapped, default=KL()
    ),
)
