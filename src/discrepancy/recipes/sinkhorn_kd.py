"""Batch transport between output distributions: what its gradient does where predictions do not overlap, and what it adds to KD.

Saturation: student (1 - e, e) against teacher (e, 1 - e): values and logit gradients of JS, KL and the L1 transport cost.
MNIST-1D: a convolutional teacher, a student 40-64-64-10, every loss from the same weights on the same batches (alpha 0.9, T = 2).
"""

from __future__ import annotations

import math
import statistics
import warnings
from pathlib import Path

import torch
from torch import Tensor

from discrepancy.divergences import KL, Divergence, JensenShannon, ReverseKL
from discrepancy.methods.distillation.output_costs import ClassTransport
from discrepancy.methods.distillation.sinkhorn_kd import ADMITS, SinkhornKD, batch_transport_loss, sinkhorn_kd_loss
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check
from discrepancy.transport import Sinkhorn, UnrolledSinkhorn

_GAPS = (0.1, 0.01, 1e-4)
_BETAS = (0.01, 0.1, 0.8)


def _losses(divergence: Divergence, quick: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "CE": pair.cross_entropy,
        "KL": SinkhornKD(divergence, transport_weight=0.0),
        "reverse KL": SinkhornKD(ReverseKL(), transport_weight=0.0),
    }
    for beta in _BETAS[-1:] if quick else _BETAS:
        found[f"KL + {beta:g} transport"] = SinkhornKD(divergence, transport_weight=beta)
    return found | {"KL + 0.8 unrolled": SinkhornKD(divergence, transport=UnrolledSinkhorn(), transport_weight=0.8)}


def _saturation() -> Row:
    """Part A: exact, without a seed."""
    row: Row = {}
    for gap in _GAPS:
        teacher = torch.tensor([[math.log(gap), math.log1p(-gap)]], dtype=torch.float64)
        student = teacher.flip(1).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one prediction against one is what is wanted here
            values = {
                "JS": JensenShannon().from_logits(teacher, student).sum(),
                "KL": KL().from_logits(teacher, student).sum(),
                "L1": batch_transport_loss(student, teacher, temperature=1.0),
            }
        for name, value in values.items():
            (slope,) = torch.autograd.grad(value, student)
            row |= {f"{name} at {gap:g}": float(value.detach()), f"slope of {name} at {gap:g}": float(slope.abs().max())}
    places = torch.arange(5, dtype=torch.float64)
    one_hot = torch.full((5, 5), -40.0, dtype=torch.float64).fill_diagonal_(0)
    row["class cost of a walk"] = ClassTransport((places[:, None] - places).abs()).matrix(one_hot, one_hot[-1:])[:, 0].tolist()
    return row


def _permutation(seed: int) -> float:
    """Relative change of the term when the teacher's rows are permuted."""
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, 100, 10, generator=generator, dtype=torch.float64)
    order = torch.randperm(100, generator=generator)
    here, there = (float(batch_transport_loss(s, u, transport=UnrolledSinkhorn(0.1, 200))) for u in (t, t[order]))
    return abs(here - there) / here


def measure(setting: Setting) -> Row:
    """All losses on the pair, the exact gradients, and the permutation, for one seed."""
    divergence: Divergence = KL() if setting.choice is None else ADMITS.check(setting.choice)
    epochs = 6 if setting.quick else 40
    row: Row = _saturation() | {"permutation": _permutation(setting.seed)}
    for name, loss in _losses(divergence, setting.quick).items():
        found = pair.scores(pair.distilled(setting.seed, loss, epochs=epochs, teacher_epochs=epochs).student)  # type: ignore[arg-type]
        row |= {f"accuracy {name}": found.accuracy, f"ECE {name}": found.ece}
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks. The order of KL and the transport is reported: the claim over tuned KL is not asked for here."""

    def gain(name: str, other: str) -> list[float]:
        return [r[f"accuracy {name}"] - r[f"accuracy {other}"] for r in rows]

    best = max((k[9:] for k in rows[0] if k.startswith("accuracy") and "transport" in k), key=lambda k: sum(gain(k, "CE")))
    ours = "KL + 0.8 transport"
    over_ce, over_reverse = gain(ours, "CE"), gain(ours, "reverse KL")
    first = rows[0]
    bounded = max(first[f"L1 at {g:g}"] for g in _GAPS)
    slopes = [first[f"slope of {name} at 0.0001"] for name in ("JS", "L1", "KL")]
    card = {"JS": (0.099, 0.023, 0.0005), "L1": (0.18, 0.020, 0.0002), "KL": (0.8, 0.98, 1.0)}
    away = max(abs(first[f"slope of {n} at {g:g}"] / v - 1) for n, vs in card.items() for g, v in zip(_GAPS, vs, strict=True))
    falls = [a - b for a, b in zip(first["class cost of a walk"], first["class cost of a walk"][1:], strict=False)]
    moved = [r["permutation"] for r in rows]
    return [
        check("largest L1 transport cost without overlap", [bounded], "<= 2", bounded <= 2),
        check(
            "slope of JS and L1, largest at e = 1e-4, over KL's",
            [max(slopes[:2]) / slopes[2]],
            "<= 0.001",
            max(slopes[:2]) <= 0.001,
        ),
        check("distance of the slopes from the card's, relative", [away], "<= 0.1 (its digits)", away <= 0.1),
        check("least fall of the class cost as mass walks to the right class", [min(falls)], "> 0", min(falls) > 0),
        check(
            "change of the term under a permutation of the teacher's rows",
            moved,
            "<= 1e-6: alone it pairs nothing",
            max(moved) <= 1e-6,
        ),
        check("accuracy of KL + 0.8 transport over CE, points", over_ce, "mean >= 0.5", statistics.fmean(over_ce) >= 0.5),
        check("the same over reverse KL", over_reverse, "mean >= 0", statistics.fmean(over_reverse) >= 0),
        check("the paper's claim here: the same over KL", gain(ours, "KL"), "reported", True),
        check("unrolled as in the paper, over KL", gain("KL + 0.8 unrolled", "KL"), "reported", True),
        check(f"best beta ({best}) over KL", gain(best, "KL"), "reported", True),
        check("ECE of KL + 0.8 transport", [r[f"ECE {ours}"] for r in rows], "reported", True),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Logit gradients against the overlap, and accuracy and calibration of every loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1, 1.3))
    for name, colour in (("KL", "#6b7280"), ("JS", "#f59e0b"), ("L1", "#2563eb")):
        label = "transport (L1)" if name == "L1" else name
        left.plot(_GAPS, [rows[0][f"slope of {name} at {g:g}"] for g in _GAPS], "o-", color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="e: student (1 - e, e), teacher (e, 1 - e)", ylabel="largest logit gradient")
    left.legend(frameon=False)
    names = [k[9:] for k in rows[0] if k.startswith("accuracy")]
    for k, name in enumerate(names):
        colour = "#2563eb" if "+" in name else "#6b7280"
        values = [r[f"accuracy {name}"] for r in rows]
        right.plot(values, [k] * len(values), ".", color=colour, alpha=0.5)
        right.plot(statistics.fmean(values), k, "o", color=colour)
        ece = statistics.fmean(r[f"ECE {name}"] for r in rows)
        right.annotate(f"ECE {ece:.2f}", (max(values), k), xytext=(8, -3), textcoords="offset points", fontsize=8)
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set(xlabel="test accuracy in %", title="MNIST-1D, student 40-64-64-10")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swapped(divergence: Divergence, seed: int) -> float:
    """Accuracy after six epochs with another divergence for KL, the transport term as it is."""

    def loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        return sinkhorn_kd_loss(student, teacher, target, divergence=divergence, transport=Sinkhorn(0.1), transport_weight=0.1)

    return pair.scores(pair.distilled(seed, loss, epochs=6, teacher_epochs=10).student).accuracy


RECIPE = Recipe(
    slug="sinkhorn-kd",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("mnist1d",),
    task=SwapTask(measures="test accuracy in %", better="higher", admits=ADMITS, run=_swapped, default=KL()),
)
