"""One-for-all distillation from a convolutional teacher to a fully connected student, on signals and on handwritten digits.

MNIST-1D: a student 40-64-64-10 with an exit after each hidden layer, every loss from the same weights on the same batches.
Digits: a convolutional network trained on MNIST teaches 784-64-64-10 on 1,000 of 5,000 digits, judged on the other 4,000.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy.datasets import digits, mnist_cnn
from discrepancy.divergences import KL
from discrepancy.kernel_methods import CKA
from discrepancy.methods.distillation.baselines import KnowledgeDistillation
from discrepancy.methods.distillation.exits import VectorExit
from discrepancy.methods.distillation.feature_matching import FeatureMatching
from discrepancy.methods.distillation.ofa_kd import ADMITS, OFADistiller
from discrepancy.methods.distillation.training import Epochs, distil, outputs_of
from discrepancy.networks import MLP
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_GAMMAS = (1.0, 1.5)
_STAGES = ("hidden.0", "hidden.1")
_SHOWN = 1000  # digits that the student sees


class _Hint(nn.Module):
    """Cross-entropy, and squared differences from the last hidden layer to the teacher's pooled features."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.matching = FeatureMatching(64, 160, generator=generator)

    def forward(self, student: pair.Outputs, teacher: pair.Outputs, target: Tensor) -> Tensor:
        """The sum."""
        return F.cross_entropy(student.logits, target) + self.matching(student.features[-1], teacher.features[-1])


def _ofa(student: nn.Module, teacher: nn.Module, stages: tuple[str, ...], x: Tensor, seed: int, **options: Any) -> OFADistiller:
    generator = torch.Generator().manual_seed(40_000 + seed)
    return OFADistiller(student, teacher, stages, x, exit=VectorExit(64), generator=generator, **options)


def _batch_loss(distiller: OFADistiller) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss for `distil` whose forward pass hands over the inputs: the distiller makes its own pass."""
    return lambda x, said, target: distiller.against(x, said, target).loss


def _inputs(_: nn.Module, x: Tensor) -> Tensor:
    return x


def _trained(distiller: OFADistiller, seed: int, epochs: int, teacher_epochs: int) -> nn.Module:
    """The student, trained with its exits on the pair's batches."""
    options: dict[str, Any] = {"epochs": epochs, "teacher_epochs": teacher_epochs, "forward": _inputs}
    pair.distilled(seed, _batch_loss(distiller), start=distiller, **options)
    return distiller.student


def _signals(setting: Setting, divergence: Any) -> Row:
    seed, epochs = setting.seed, 6 if setting.quick else 40
    x = pair.data().train[:10]
    row: Row = {}
    losses: dict[str, Any] = {"CE": pair.cross_entropy}
    losses |= {f"KD {t:g}": KnowledgeDistillation(temperature=t) for t in (1.0, 2.0)}
    students = {name: pair.distilled(seed, loss, epochs=epochs, teacher_epochs=epochs).student for name, loss in losses.items()}
    hint = _Hint(torch.Generator().manual_seed(40_000 + seed))
    students["FitNet"] = pair.distilled(seed, hint, epochs=epochs, teacher_epochs=epochs, features=True).student
    changed = 0
    for gamma in _GAMMAS:
        for name, stages in (("no exits", ()), ("exits", _STAGES)):
            net = pair.student(seed)
            before = list(net.state_dict())
            distiller = _ofa(net, pair.teacher(seed, epochs), stages, x, seed, gamma=gamma, divergence=divergence)
            students[f"OFA {gamma:g} {name}"] = _trained(distiller, seed, epochs, epochs)
            hooks = sum(len(m._forward_hooks) for m in net.modules())
            changed += len(set(before) ^ set(net.state_dict())) + hooks
    row["keys changed and hooks left"] = changed
    row |= {f"accuracy {name}": pair.scores(net).accuracy for name, net in students.items()}
    # The paper's motive: features of unlike architectures are unlike, those of like ones are not.
    signals = pair.data().test
    taught, other = (outputs_of(pair.teacher(k, epochs).with_features, signals).features for k in (seed, seed + 1))
    student = outputs_of(students["CE"].with_features, signals).features  # type: ignore[operator]
    return row | {
        "CKA of two teachers": float(CKA()(taught[-1], other[-1])),
        "CKA of teacher and student": float(CKA()(taught[-1], student[-1])),
    }


@cache
def _digit_arm() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and classes for training, the teacher's logits on them, and images and classes for testing."""
    pixels, classes = digits("mnist-5k")
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(2))
    images, labels = torch.tensor(pixels, dtype=torch.float32)[order], torch.tensor(classes)[order]
    said = outputs_of(mnist_cnn(), images[:_SHOWN].reshape(-1, 1, 28, 28), chunk=250)
    return images[:_SHOWN], labels[:_SHOWN], said, images[_SHOWN:], labels[_SHOWN:]


class _OnPixels(nn.Module):
    """The digit teacher on rows of 784 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mnist_cnn()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.net(x.reshape(-1, 1, 28, 28))


def _digits(seed: int, epochs: int, divergence: Any) -> Row:
    images, classes, said, held_out, truth = _digit_arm()
    row: Row = {}
    options: dict[str, Any] = {"epochs": Epochs(epochs, learning_rate=1e-3), "teacher": said}
    for name in ("CE", "KD", "OFA"):
        net = MLP(64, 2, nn.ReLU).build(784, 10, generator=torch.Generator().manual_seed(seed))
        order = torch.Generator().manual_seed(500 + seed)
        if name == "OFA":
            distiller = _ofa(net, _OnPixels(), ("0", "2"), images[:10], seed, divergence=divergence)
            distil(distiller, images, classes, _batch_loss(distiller), forward=_inputs, generator=order, **options)
        else:
            plain = pair.cross_entropy if name == "CE" else KnowledgeDistillation(temperature=2.0)
            distil(net, images, classes, plain, generator=order, **options)
        row[f"digits {name}"] = 100 * float((outputs_of(net, held_out).argmax(-1) == truth).float().mean())
    return row


def measure(setting: Setting) -> Row:
    """All losses on both tasks for one seed."""
    divergence = None if setting.choice is None else ADMITS.check(setting.choice)
    return _digits(setting.seed, 4 if setting.quick else 30, divergence) | _signals(setting, divergence)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; the digits are reported."""

    def accuracy(name: str, row: Row) -> float:
        return row[f"accuracy {name}"]

    def ofa(exits: str, row: Row) -> float:
        return statistics.fmean(accuracy(f"OFA {g:g} {exits}", row) for g in _GAMMAS)

    over = {name: [ofa("exits", r) - accuracy(name, r) for r in rows] for name in ("CE", "FitNet", "KD 1", "KD 2")}
    mean = {name: statistics.fmean(v) for name, v in over.items()}
    added = [ofa("exits", r) - ofa("no exits", r) for r in rows]
    keys = [r["keys changed and hooks left"] for r in rows]
    apart = [r["CKA of two teachers"] - r["CKA of teacher and student"] for r in rows]
    return [
        check("accuracy of OFA with exits (mean of gamma 1, 1.5) over CE, points", over["CE"], "mean >= 1.5", mean["CE"] >= 1.5),
        check("the same over feature matching", over["FitNet"], "mean >= 0", mean["FitNet"] >= 0),
        check("the same over KD (T = 1)", over["KD 1"], "mean >= -0.5", mean["KD 1"] >= -0.5),
        check("the same over KD (T = 2)", over["KD 2"], "reported", True),
        check("accuracy that exits add at equal gamma", added, "mean >= 1", statistics.fmean(added) >= 1),
        check("state keys changed and hooks left in the student", keys, "0", max(keys) == 0),
        check("linear CKA of like architectures over unlike ones", apart, "> 0 in every seed", min(apart) > 0),
        check("digits: OFA over CE", [r["digits OFA"] - r["digits CE"] for r in rows], "reported", True),
        check("digits: OFA over KD (T = 2)", [r["digits OFA"] - r["digits KD"] for r in rows], "reported", True),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy of every loss on both tasks, and the alignment of features."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=(1.5, 1, 0.8))
    for axis, prefix, title in ((axes[0], "accuracy ", "MNIST-1D, student 40-64-64-10"), (axes[1], "digits ", "1,000 digits")):
        names = [k.removeprefix(prefix) for k in rows[0] if k.startswith(prefix)]
        for k, name in enumerate(names):
            colour = "#2563eb" if name.startswith("OFA") else "#6b7280"
            values = [r[prefix + name] for r in rows]
            axis.plot(values, [k] * len(values), ".", color=colour, alpha=0.5)
            axis.plot(statistics.fmean(values), k, "o", color=colour)
        axis.set_yticks(range(len(names)), [n.replace("OFA ", "OFA, γ = ") if prefix != "digits " else n for n in names])
        axis.invert_yaxis()
        axis.set(xlabel="test accuracy in %", title=title)
    alike = ("CKA of two teachers", "CKA of teacher and student")
    for k, name in enumerate(alike):
        axes[2].plot([k] * len(rows), [r[name] for r in rows], "o", color="#2563eb", alpha=0.6)
    axes[2].set_xticks((0, 1), ("two CNNs", "CNN and MLP"))
    axes[2].set(ylabel="linear CKA of last features", xlim=(-0.5, 1.5), ylim=(0, 1))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swapped(divergence: Any, seed: int) -> float:
    """Accuracy after six epochs with a divergence on the enhanced, normalised target; gamma = 1, where KL is the paper's loss."""
    teacher = pair.teacher(seed, 10)
    distiller = _ofa(pair.student(seed), teacher, _STAGES, pair.data().train[:10], seed, divergence=divergence)
    return pair.scores(_trained(distiller, seed, 6, 10)).accuracy


RECIPE = Recipe(
    slug="ofa-kd",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("mnist1d", "mnist-5k", "mnist-cnn"),
    task=SwapTask(measures="test accuracy in %", better="higher", admits=ADMITS, run=_swapped, default=KL()),
)
