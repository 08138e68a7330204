"""One ranking against cross-entropy plus a divergence: PLD, KD, decoupled KD and DIST on MNIST-1D, and on handwritten digits.

MNIST-1D: a convolutional teacher and a student 40-64-64-10, every loss from the same weights on the same batches. Digits: a
convolutional network trained on MNIST teaches a student 784-64-10 that sees 1,000 images, judged on 1,000 others. No weight of a
cross-entropy is tuned for PLD; KD has 0.1, the usual one.
"""

from __future__ import annotations

import statistics
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy.datasets import digits, mnist_cnn
from discrepancy.methods.distillation import (
    DIST,
    Confidence,
    DecoupledDistillation,
    Epochs,
    KnowledgeDistillation,
    PlackettLuceDistillation,
    TopOne,
    UniformRanks,
    distil,
    outputs_of,
    plackett_luce_distillation_loss,
)
from discrepancy.networks import MLP
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_TEMPERATURES = (1.0, 2.0, 4.0)
_LOSSES = {
    "CE": pair.cross_entropy,
    "KD": KnowledgeDistillation(temperature=2.0),
    "DKD": DecoupledDistillation(),
    "DIST": DIST(temperature=2.0),
    "ListMLE": PlackettLuceDistillation(UniformRanks()),
    **{f"PLD {t:g}": PlackettLuceDistillation(Confidence(t)) for t in _TEMPERATURES},
}
_DIGITS = ("CE", "KD", "DKD", "DIST", "PLD 2")
_QUICK, _QUICK_DIGITS = ("CE", "KD", "DIST", "PLD 1", "PLD 2", "PLD 4"), ("CE", "KD", "PLD 2")  # what a quick run compares
_SHOWN = 1000  # digits that the student sees, and as many for testing


@cache
def _digit_arm() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and classes for training, the teacher's logits on them, and images and classes for testing."""
    pixels, classes = digits("mnist-5k")
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1))[: 2 * _SHOWN]
    images, labels = torch.tensor(pixels, dtype=torch.float32)[order], torch.tensor(classes)[order]
    said = outputs_of(mnist_cnn(), images[:_SHOWN].reshape(-1, 1, 28, 28), chunk=250)
    return images[:_SHOWN], labels[:_SHOWN], said, images[_SHOWN:], labels[_SHOWN:]


def _digits(setting: Setting) -> Row:
    images, classes, said, held_out, truth = _digit_arm()
    row: Row = {}
    seed, epochs = setting.seed, Epochs(10 if setting.quick else 40)
    for name in _QUICK_DIGITS if setting.quick else _DIGITS:
        net = MLP(64, 1, nn.ReLU).build(784, 10, generator=torch.Generator().manual_seed(seed))
        order = torch.Generator().manual_seed(500 + seed)
        distil(net, images, classes, _LOSSES[name], teacher=said, epochs=epochs, generator=order)
        row[f"digits {name}"] = 100 * float((outputs_of(net, held_out).argmax(-1) == truth).float().mean())
    return row


def _identities(seed: int) -> Row:
    """What must hold to rounding: two forms of the cross-entropy, and convexity along segments, in float64."""
    generator = torch.Generator().manual_seed(seed)
    s, end, t = (3 * torch.randn(2000, 10, generator=generator, dtype=torch.float64) for _ in range(3))
    y = torch.randint(10, (2000,), generator=generator)
    certain = torch.zeros_like(t).scatter(1, y[:, None], 1e4)
    plain = F.cross_entropy(s, y)
    away = [abs(float(plackett_luce_distillation_loss(s, certain, y, weights=w) - plain)) for w in (TopOne(), Confidence())]

    def values(logits: Tensor) -> Tensor:
        return plackett_luce_distillation_loss(logits, t, y, reduction=lambda v: v)

    share = torch.rand(2000, generator=generator, dtype=torch.float64)
    chord = share * values(s) + (1 - share) * values(end)
    above = values(share[:, None] * s + (1 - share[:, None]) * end) - chord
    return {"cross-entropy error": max(away), "above chord": float(above.max())}


def measure(setting: Setting) -> Row:
    """Every loss on the pair and on the digits, and the identities, for one seed."""
    epochs, teacher_epochs = (12, 15) if setting.quick else (40, 40)
    row: Row = {"teacher accuracy": pair.scores(pair.teacher(setting.seed, teacher_epochs)).accuracy}
    for name in _QUICK if setting.quick else _LOSSES:
        found = pair.scores(pair.distilled(setting.seed, _LOSSES[name], epochs=epochs, teacher_epochs=teacher_epochs).student)
        row |= {f"accuracy {name}": found.accuracy, f"ECE {name}": found.ece, f"NLL {name}": found.nll}
    return row | _digits(setting) | _identities(setting.seed)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; on the digits PLD is compared with the best of the baselines, reported and not judged."""

    def gain(name: str, other: str, what: str = "accuracy") -> list[float]:
        return [r[f"{what} {name}"] - r[f"{what} {other}"] for r in rows]

    over_ce, over_kd = gain("PLD 2", "CE"), gain("PLD 2", "KD")
    means = [statistics.fmean(r[f"accuracy PLD {t:g}"] for r in rows) for t in _TEMPERATURES]
    spread = max(means) - min(means)
    exact, chord = [r["cross-entropy error"] for r in rows], [r["above chord"] for r in rows]
    return [
        check("accuracy of PLD (T = 2) over CE, points", over_ce, "mean >= 1.5", statistics.fmean(over_ce) >= 1.5),
        check("the same over KD (T = 2)", over_kd, "mean >= -0.7", statistics.fmean(over_kd) >= -0.7),
        check("spread of PLD's means over T = 1, 2, 4", [spread], "<= 3 points", spread <= 3),
        check("the paper's claim here: PLD (T = 2) over DIST", gain("PLD 2", "DIST"), "reported", True),
        check("ECE of PLD (T = 2) over KD (T = 2)", gain("PLD 2", "KD", "ECE"), "reported", True),
        check("digits: PLD (T = 2) over CE", gain("PLD 2", "CE", "digits"), "reported", True),
        check("digits: PLD (T = 2) over KD", gain("PLD 2", "KD", "digits"), "reported", True),
        check("distance to cross-entropy, certain teacher or top one", exact, "<= 1e-6", max(exact) <= 1e-6),
        check("excess over the chord on random segments", chord, "<= 1e-12", max(chord) <= 1e-12),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy of every loss on both tasks, and calibration against accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=(1.3, 1, 1.1))
    for axis, prefix in ((axes[0], "accuracy"), (axes[1], "digits")):
        names = [name for name in _LOSSES if f"{prefix} {name}" in rows[0]]
        for k, name in enumerate(names):
            values = [r[f"{prefix} {name}"] for r in rows]
            colour = "#2563eb" if name.startswith("PLD") else "#6b7280"
            axis.plot(values, [k] * len(values), ".", color=colour, alpha=0.5)
            axis.plot(statistics.fmean(values), k, "o", color=colour)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlabel("test accuracy in %")
    axes[0].set_title("MNIST-1D, student 40-64-64-10")
    axes[1].set_title(f"digits, student 784-64-10, {_SHOWN} images")
    for name in (name for name in _LOSSES if f"ECE {name}" in rows[0]):
        x, y = (statistics.fmean(r[f"{what} {name}"] for r in rows) for what in ("accuracy", "ECE"))
        axes[2].plot(x, y, "o", color="#2563eb" if name.startswith("PLD") else "#6b7280")
        axes[2].annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes[2].set(xlabel="test accuracy in %", ylabel="expected calibration error", title="MNIST-1D, means over seeds")
    axes[2].margins(x=0.2)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(
    slug="plackett-luce-distillation",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    needs=("mnist1d", "mnist-5k", "mnist-cnn"),
)
