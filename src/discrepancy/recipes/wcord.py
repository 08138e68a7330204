"""Wasserstein contrastive distillation of features: accuracy on the pair, transfer to classes unseen, a planted dependency.

MNIST-1D: a convolutional teacher (160 features), a student 40-64-64-10; contrast with the other samples, transport between the
batch's embeddings, and both beside cross-entropy or KD. Transfer: a teacher of digits 0-4 only, a student that sees features
and no label, logistic probes on 50 labelled images of 5-9. Dependency: Gaussian pairs of known correlation, a critic judged on
held-out rows.
"""

from __future__ import annotations

import math
import statistics
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy.datasets import digits
from discrepancy.learning import Training
from discrepancy.methods.distillation.baselines import KnowledgeDistillation
from discrepancy.methods.distillation.contrastive import DualForm, InfoNCE
from discrepancy.methods.distillation.feature_matching import FeatureMatching
from discrepancy.methods.distillation.training import Epochs, distil, outputs_of
from discrepancy.methods.distillation.wcord import WCoRD, dual_dependency
from discrepancy.networks import MLP
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_RHOS = (0.0, 0.3, 0.6, 0.9)


class _Beside(nn.Module):
    """A loss of logits plus a loss of the last features."""

    def __init__(self, task: Any, features: nn.Module) -> None:
        super().__init__()
        self.task, self.features = task, features

    def forward(self, student: pair.Outputs, teacher: pair.Outputs, target: Tensor) -> Tensor:
        """The sum."""
        return self.task(student.logits, teacher.logits, target) + self.features(student.features[-1], teacher.features[-1])


def _losses(seed: int, local: dict[str, Any]) -> dict[str, Any]:
    def wcord(**options: Any) -> WCoRD:
        return WCoRD(64, 160, generator=torch.Generator().manual_seed(50_000 + seed), **local, **options)

    kd = KnowledgeDistillation(temperature=2.0)
    hint = FeatureMatching(64, 160, generator=torch.Generator().manual_seed(50_000 + seed))
    return {
        "FitNet": _Beside(pair.cross_entropy, hint),
        "InfoNCE": _Beside(pair.cross_entropy, wcord(form=InfoNCE(), local_weight=0.0)),
        "dual": _Beside(pair.cross_entropy, wcord(form=DualForm(), local_weight=0.0)),
        "transport": _Beside(pair.cross_entropy, wcord(global_weight=0.0, local_weight=1.0)),
        "WCoRD": _Beside(pair.cross_entropy, wcord()),
        "KD + WCoRD": _Beside(kd, wcord()),
        "KD + WCoRD .05/.5": _Beside(kd, wcord(global_weight=0.05, local_weight=0.5)),
    }


def _signals(setting: Setting, local: dict[str, Any]) -> Row:
    seed, epochs = setting.seed, 4 if setting.quick else 40
    options: dict[str, Any] = {"epochs": epochs, "teacher_epochs": epochs}
    kd = KnowledgeDistillation(temperature=2.0)
    students = {n: pair.distilled(seed, loss, **options).student for n, loss in (("CE", pair.cross_entropy), ("KD", kd))}
    for name, loss in _losses(seed, local).items():
        students[name] = pair.distilled(seed, loss, features=True, **options).student
    return {f"accuracy {name}": pair.scores(net).accuracy for name, net in students.items()}


class _Digits(NamedTuple):
    """Training and test images (n, 64) with classes."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


@cache
def _split() -> _Digits:
    images, classes = digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    pixels, labels = torch.tensor(images, dtype=torch.float32)[order], torch.tensor(classes)[order]
    return _Digits(pixels[:1347], labels[:1347], pixels[1347:], labels[1347:])


def _probe(backbone: nn.Module, generator: torch.Generator) -> float:
    """Accuracy in per cent of logistic probes on digits 5-9 from ten labelled images of each, the mean of ten draws."""
    from sklearn.linear_model import LogisticRegression

    known = _split()
    features, held_out = outputs_of(backbone, known.train), outputs_of(backbone, known.test)
    centre, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    features, held_out = ((t - centre) / scale for t in (features, held_out))
    new = known.test_classes >= 5
    scores = []
    for _ in range(10):
        rows = []
        for c in range(5, 10):
            own = (known.train_classes == c).nonzero()[:, 0]
            rows.append(own[torch.randperm(len(own), generator=generator)[:10]])
        shown = torch.cat(rows)
        probe = LogisticRegression(max_iter=500).fit(features[shown].numpy(), known.train_classes[shown].numpy())
        scores.append(100 * float(probe.score(held_out[new].numpy(), known.test_classes[new].numpy())))
    return statistics.fmean(scores)


def _transfer(setting: Setting, local: dict[str, Any]) -> Row:
    """Probes of features from a student without training, from the five-class teacher's logits, and from its features."""
    seed, epochs = setting.seed, 4 if setting.quick else 30
    known = _split()
    generator = torch.Generator().manual_seed(60_000 + seed)
    old = known.train_classes < 5
    body, head = MLP(64, 1, nn.ReLU).build(64, 64, generator=generator), MLP(64, 1, nn.ReLU).build(64, 5, generator=generator)
    options: dict[str, Any] = {"epochs": Epochs(epochs), "generator": generator}
    teacher = nn.Sequential(body, nn.ReLU(), *head)
    distil(teacher, known.train[old], known.train_classes[old], pair.cross_entropy, **options)
    taught = teacher[:4]  # up to the ReLU in front of the last layer

    def backbone() -> nn.Sequential:
        net = MLP(64, 1, nn.ReLU).build(64, 32, generator=torch.Generator().manual_seed(61_000 + seed))
        return nn.Sequential(*net, nn.ReLU())

    students: dict[str, nn.Module] = {"random": backbone(), "logits": backbone(), "WCoRD": backbone()}
    loss = KnowledgeDistillation(temperature=4.0, weight=1.0, task_weight=0.0)
    whole = nn.Sequential(students["logits"], nn.Linear(32, 5))
    for parameter in whole[1].parameters():
        nn.init.uniform_(parameter, -(32**-0.5), 32**-0.5, generator=generator)
    distil(whole, known.train, None, loss, teacher=outputs_of(teacher, known.train), **options)
    contrast = WCoRD(32, 64, width=64, generator=generator, **local)

    class _Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.contrast = contrast

        def forward(self, u: Tensor, v: Tensor, target: None) -> Tensor:
            return self.contrast(u, v)

    distil(students["WCoRD"], known.train, None, _Features(), teacher=outputs_of(taught, known.train), **options)
    students["teacher"] = taught  # the reference: what there was to be learned
    return {f"probe {n}": _probe(net, torch.Generator().manual_seed(62_000 + seed)) for n, net in students.items()}


def _planted(setting: Setting) -> Row:
    """The critic's bound on Gaussian pairs in eight dimensions."""
    generator = torch.Generator().manual_seed(70_000 + setting.seed)
    count, steps = (4000, 60) if setting.quick else (8000, 200)
    row: Row = {}
    for rho in _RHOS:
        x, z = torch.randn(2, count, 8, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * z
        found = dual_dependency(x, y, training=Training(steps=steps, learning_rate=2e-2), generator=generator)
        row |= {f"dual {rho:g}": float(found), f"error {rho:g}": float(found.standard_error or 0.0)}
    return row


def measure(setting: Setting) -> Row:
    """All three parts for one seed; a discrepancy of the user's choice replaces the local transport."""
    local: dict[str, Any] = {} if setting.choice is None else {"local": setting.choice}
    assert setting.choice is None or isinstance(setting.choice, Discrepancy)
    return _signals(setting, local) | _transfer(setting, local) | _planted(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; arms of the contrast alone are reported, as the card's pilot saw no gain from it here."""

    def gain(name: str, other: str, what: str = "accuracy") -> list[float]:
        return [r[f"{what} {name}"] - r[f"{what} {other}"] for r in rows]

    transport, both = gain("transport", "CE"), gain("KD + WCoRD", "CE")
    light = gain("KD + WCoRD .05/.5", "CE")
    over_random, over_logits = gain("WCoRD", "random", "probe"), gain("WCoRD", "logits", "probe")
    null = [abs(r["dual 0"]) for r in rows]
    rise = [min(r[f"dual {b:g}"] - r[f"dual {a:g}"] for a, b in pairwise(_RHOS)) for r in rows]
    mean = statistics.fmean
    return [
        check("accuracy of CE + transport over CE, points", transport, "mean >= -0.5", mean(transport) >= -0.5),
        check("accuracy of KD + WCoRD over CE", both, "mean >= 0.5", mean(both) >= 0.5),
        check("the same with weights .05 and .5", light, "reported", True),
        check("the paper's claim here: CE + WCoRD over CE + InfoNCE", gain("WCoRD", "InfoNCE"), "reported", True),
        check("accuracy of CE + WCoRD over CE", gain("WCoRD", "CE"), "reported", True),
        check("accuracy of CE + dual contrast over CE", gain("dual", "CE"), "reported", True),
        check("unseen digits: probe of WCoRD features over random ones", over_random, "mean >= 3", mean(over_random) >= 3),
        check("unseen digits: the same over logit distillation", over_logits, "mean >= -1", mean(over_logits) >= -1),
        check("unseen digits: the teacher's own features over random ones", gain("teacher", "random", "probe"), "reported", True),
        check("size of the dual at correlation 0, held out", null, "< 0.05 in every seed", max(null) < 0.05),
        check("least rise of the dual over correlations 0, .3, .6, .9", rise, "> 0 in every seed", min(rise) > 0),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy of every loss, probes on unseen digits, and the dual against the planted correlation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=(1.4, 0.9, 1))
    titles = {"accuracy ": "MNIST-1D, student 40-64-64-10", "probe ": "digits 5-9, 50 labels, teacher of 0-4"}
    for axis, (prefix, title) in zip(axes, titles.items(), strict=False):
        names = [k.removeprefix(prefix) for k in rows[0] if k.startswith(prefix)]
        for k, name in enumerate(names):
            values = [r[prefix + name] for r in rows]
            colour = "#2563eb" if "WCoRD" in name or name in ("transport", "dual") else "#6b7280"
            axis.plot(values, [k] * len(values), ".", color=colour, alpha=0.5)
            axis.plot(statistics.fmean(values), k, "o", color=colour)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set(xlabel="test accuracy in %", title=title)
    for r in rows:
        axes[2].plot(_RHOS, [r[f"dual {rho:g}"] for rho in _RHOS], "o-", color="#2563eb", alpha=0.6)
    axes[2].axhline(0, color="#9ca3af", lw=1)
    axes[2].set(xlabel="planted correlation", ylabel="dual of W₁ on held-out rows", title="8-dimensional Gaussian pairs")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="wcord", measure=measure, judge=judge, draw=draw, swaps=True, needs=("mnist1d", "digits"))
