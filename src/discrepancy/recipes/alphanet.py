"""A supernet on MNIST-1D: a slimmable convolutional network whose narrow versions learn from the widest.

The losses of the narrow ones: none but the task, KL to the widest (in-place distillation), Alpha(-1) alone, and the larger of the
two sample by sample with clipped ratios, which is AlphaNet's. Statistics are recalibrated at each width before it is judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy.divergences import KL, Alpha, FDivergence, JensenShannon, ReverseKL
from discrepancy.methods.distillation import (
    AdaptiveDivergenceLoss,
    Epochs,
    PowerClip,
    Sandwich,
    SlimmableBatchNorm,
    SlimmableConv1d,
    SlimmableLinear,
    recalibrate_batchnorm,
    set_width,
)
from discrepancy.methods.distillation.alphanet import ADMITS, adaptive_divergence_loss
from discrepancy.recipes import mnist1d_pair as pair
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_WIDTHS = (0.25, 0.5, 0.75, 1.0)
_SMALL = _WIDTHS[:-1]
_NAMES = ("task only", "KL", "Alpha(-1)", "adaptive")


class Supernet(nn.Module):
    """Three convolutions of `channels`, width 5 and stride 2, batch-normalised, and a linear layer; all of adjustable width."""

    def __init__(self, channels: int = 32, *, scale: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (1, channels, channels):
            layers.append(SlimmableConv1d(inputs, channels, 5, stride=2, padding=2, bias=False, generator=generator))
            layers += [SlimmableBatchNorm(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = SlimmableLinear(5 * channels, 10, fixed=True, generator=generator)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10), times `scale`, of signals (B, 40)."""
        return self.scale * self.head(self.layers(x.unsqueeze(1)))


def _losses(choice: Any) -> dict[str, Callable[..., Tensor] | None]:
    """The narrow networks' losses; a choice replaces KL in both places."""
    divergence = KL() if choice is None else ADMITS.check(choice)
    return {
        "task only": None,
        "KL": AdaptiveDivergenceLoss((divergence,), clip=None),
        "Alpha(-1)": AdaptiveDivergenceLoss((Alpha(-1.0),)),
        "adaptive": AdaptiveDivergenceLoss((Alpha(-1.0), divergence)),
    }


def _supernet(
    seed: int, loss: Callable[..., Tensor] | None, epochs: int, *, scale: float = 1.0
) -> tuple[Supernet, dict[str, Any]]:
    """A supernet trained by the sandwich rule: equal seeds have equal first weights, batches and widths."""
    known = pair.data()
    net = Supernet(scale=scale, generator=torch.Generator().manual_seed(40_000 + seed))
    order = torch.Generator().manual_seed(50_000 + seed)
    options = Epochs(epochs, batch=200, learning_rate=2e-3, gradient_clip=1.0)
    return net, Sandwich(loss, _WIDTHS).fit(net, known.train, known.train_classes, epochs=options, generator=order)


def _judged(net: Supernet) -> dict[float, pair.Scores]:
    """The scores at each width, statistics recalibrated on the training signals."""
    found = {}
    for share in _WIDTHS:
        set_width(net, share)
        recalibrate_batchnorm(net, pair.data().train.split(200), most=20)
        found[share] = pair.scores(net)
    return found


def _gradient_error(seed: int) -> float:
    """Largest relative distance between the surrogate's gradient and that of the divergence itself, unclipped, float64."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(200, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = 2 * torch.randn(200, 10, generator=generator, dtype=torch.float64)
    kinds: tuple[FDivergence, ...] = (Alpha(-1.0), ReverseKL(), Alpha(0.5), KL(), Alpha(2.0), JensenShannon())
    worst = 0.0
    for f in kinds:
        (exact,) = torch.autograd.grad(f.from_logits(teacher, student).mean(), student)
        (ours,) = torch.autograd.grad(adaptive_divergence_loss(student, teacher, divergences=(f,), clip=None), student)
        worst = max(worst, float((exact - ours).abs().max() / exact.abs().max()))
    return worst


def _stress(seed: int) -> float:
    """Entries that are not finite, in weights and record, after a short training with logits thirty times too large."""
    loss = AdaptiveDivergenceLoss((Alpha(-1.0), KL()), clip=PowerClip(5.0))
    net, history = _supernet(seed, loss, 1, scale=30.0)
    bad = sum(int((~torch.isfinite(w)).sum()) for w in net.parameters())
    return float(bad + int((~torch.isfinite(torch.tensor(history["loss"]))).sum()))


def measure(setting: Setting) -> Row:
    """Four supernets, one a loss, judged at four widths, for one seed."""
    row: Row = {"gradient error": _gradient_error(setting.seed), "not finite": _stress(setting.seed)}
    for name, loss in _losses(setting.choice).items():
        net, _ = _supernet(setting.seed, loss, 3 if setting.quick else 25)
        found = _judged(net)
        for share, score in found.items():
            row |= {f"accuracy {name} {share:g}": score.accuracy, f"ECE {name} {share:g}": score.ece}
            row[f"entropy {name} {share:g}"] = score.entropy
        row[f"small {name}"] = statistics.fmean(found[share].accuracy for share in _SMALL)
        row[f"entropy gap {name}"] = abs(found[_WIDTHS[0]].entropy - found[1.0].entropy)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""

    def gain(other: str) -> list[float]:
        return [r["small adaptive"] - r[f"small {other}"] for r in rows]

    pure = max(("KL", "Alpha(-1)"), key=lambda name: statistics.fmean(r[f"entropy gap {name}"] for r in rows))
    gap = [r["entropy gap adaptive"] - r[f"entropy gap {pure}"] for r in rows]
    broken, error = [r["not finite"] for r in rows], [r["gradient error"] for r in rows]
    over_kl, over_task = gain("KL"), gain("task only")
    return [
        check("small widths: accuracy of adaptive over KL, points", over_kl, "mean >= -0.5", statistics.fmean(over_kl) >= -0.5),
        check("the same over the task alone", over_task, "mean >= 0.5", statistics.fmean(over_task) >= 0.5),
        check(
            f"entropy gap at width 1/4 over the worse pure loss's ({pure}), nats", gap, "mean <= 0", statistics.fmean(gap) <= 0
        ),
        check("logits times 30: entries that are not finite", broken, "none", max(broken) == 0),
        check("surrogate's gradient against the divergence's, relative", error, "<= 1e-6", max(error) <= 1e-6),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy and mean entropy at each width for each loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(_NAMES, ("#6b7280", "#f59e0b", "#10b981", "#2563eb"), strict=True))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, what in ((left, "accuracy"), (right, "entropy")):
        for name in _NAMES:
            values = [[r[f"{what} {name} {share:g}"] for r in rows] for share in _WIDTHS]
            axis.plot(_WIDTHS, [statistics.fmean(v) for v in values], "o-", color=colours[name], label=name)
            for share, v in zip(_WIDTHS, values, strict=True):
                axis.plot([share] * len(v), v, ".", color=colours[name], alpha=0.4)
        axis.set_xticks(_WIDTHS)
        axis.set_xlabel("share of the channels")
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("test accuracy in %")
    right.set_ylabel("mean entropy of the predictions in nats")
    left.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swapped(divergence: Any, seed: int) -> float:
    """Mean accuracy over the small widths after five epochs, the divergence beside Alpha(-1) in the maximum."""
    net, _ = _supernet(seed, AdaptiveDivergenceLoss((Alpha(-1.0), divergence)), 5)
    return statistics.fmean(_judged(net)[share].accuracy for share in _SMALL)


RECIPE = Recipe(
    slug="alphanet",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("mnist1d",),
    task=SwapTask(
        measures="accuracy in % of narrow networks, the larger of Alpha(-1) and D",
        better="higher",
        admits=ADMITS,
        run=_swapped,
        default=KL(),
    ),
)
