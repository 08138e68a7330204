"""Modalities that may be missing: digits seen in halves, and ellipses seen in three channels.

forms    the divergences of the paper at one pair of laws, against numbers known in closed form
digits   four views of a handwritten digit, each one half of it with noise; accuracy over all 15 subsets of the views, against one
         network that takes all four views and is given zeros for a missing one
ellipses 300 images of an ellipse, whose three channels show its edge, a blurred and a noisy intensity; mean Dice over the 7
         subsets, against zeros likewise
transfer variational information distillation on a planted linear relation, whose smallest loss is known
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy.datasets import digits
from discrepancy.divergences import KL, Divergence, Hoelder, HoelderPseudo
from discrepancy.learning import Training
from discrepancy.methods.representation.holder_divergence import (
    ADMITS,
    MissingModalityModel,
    SubsetTraining,
    nonempty_subsets,
)
from discrepancy.methods.representation.modality_networks import SharedBackbone, UNetBackbone
from discrepancy.methods.representation.segmentation_loss import ADMITS as ADMITS_MAPS
from discrepancy.methods.representation.segmentation_loss import ReleasedSoftmax, SegmentationLoss, segmentation_loss
from discrepancy.methods.representation.variational_transfer import VariationalTransfer
from discrepancy.networks import MLP, UNet
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_P, _Q = (torch.tensor(v, dtype=torch.float64) for v in ((0.2, 0.3, 0.5), (0.5, 0.3, 0.2)))
_FORMS: dict[str, tuple[Callable[[], Tensor], float]] = {
    "HPD_2(p:q)": (lambda: HoelderPseudo(2.0).from_probs(_P, _Q), 0.270290),
    "HPD_1.1(p:q)": (lambda: HoelderPseudo(1.1).from_probs(_P, _Q), 0.452056),
    "HPD_1.1(p:p)": (lambda: HoelderPseudo(1.1).from_probs(_P, _P), 0.181766),
    "HD_2,1(p:q)": (lambda: Hoelder(2.0, 1.0).from_probs(_P, _Q), 0.069934),
    "HD_1.1,1(p:q)": (lambda: Hoelder(1.1, 1.0).from_probs(_P, _Q), 0.022848),
    "HD(p:p)": (lambda: Hoelder(1.1, 1.0).from_probs(_P, _P), 0.0),
    "HPD_1.1(q:p) of HPD_11(p:q)": (lambda: HoelderPseudo(11.0).from_probs(_P, _Q), 0.452056),  # p and q mirror each other
}
_HEADS = ("CE", "CE+HD", "CE+KL")


def _forms() -> Row:
    apart = [abs(float(value()) - wanted) for value, wanted in _FORMS.values()]
    duality = HoelderPseudo(11.0).from_probs(_Q, _P) - HoelderPseudo(1.1).from_probs(_P, _Q)
    return {"forms apart": max(apart), "duality apart": abs(float(duality))}


# -- digits ------------------------------------------------------------------------------------------------------------


def _halves(setting: Setting) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four noisy halves of each digit (n, 4, 64), split into 1200 for training and 597 held out."""
    images, classes = digits()
    pixels, labels = torch.from_numpy(images).float(), torch.from_numpy(classes)
    generator = torch.Generator().manual_seed(setting.seed)
    mask = torch.zeros(4, 8, 8)
    mask[0, :4], mask[1, 4:], mask[2, :, :4], mask[3, :, 4:] = 1, 1, 1, 1
    noisy = pixels[:, None] + 0.3 * torch.randn(len(pixels), 4, 64, generator=generator)
    views = noisy * mask.flatten(1)
    order = torch.randperm(len(pixels), generator=generator)
    train, test = order[:1200], order[1200:]
    return views[train], labels[train], views[test], labels[test]


def _digit_network(generator: torch.Generator) -> MissingModalityModel:
    entries = [MLP(64, 1, nn.ReLU).build(64, 64, generator=generator) for _ in range(4)]
    trunk = nn.Sequential(nn.ReLU(), MLP(64, 1, nn.ReLU).build(64, 64, generator=generator), nn.ReLU())
    return MissingModalityModel(SharedBackbone(entries, trunk, MLP(64, 1, nn.ReLU).build(64, 10, generator=generator)), 4)


def _steps(setting: Setting, full: int) -> int:
    return full // 4 if setting.quick else full


def _subset_scores(predict: Callable[[list[int]], Tensor], score: Callable[[Tensor], float], modalities: int) -> list[float]:
    """The score of each subset of the modalities."""
    rows = nonempty_subsets(modalities)
    return [score(predict([m for m in range(modalities) if row[m]])) for row in rows]


def _digit_heads(setting: Setting) -> dict[str, Divergence | None]:
    choice = Hoelder() if setting.choice is None else setting.choice
    assert isinstance(choice, Divergence)
    return dict(zip(_HEADS, (None, choice, KL()), strict=True))


def _digits(setting: Setting) -> Row:
    x, y, x_test, y_test = _halves(setting)

    def accuracy(logits: Tensor) -> float:
        return float((logits.argmax(1) == y_test).float().mean())

    row: Row = {}
    steps = _steps(setting, 500)
    for name, divergence in _digit_heads(setting).items():
        generator = torch.Generator().manual_seed(10 + setting.seed)
        model = _digit_network(generator)
        transfer = VariationalTransfer(64, 64, generator=generator)
        method = SubsetTraining(divergence=divergence, transfer_weight=0.1, training=Training(steps=steps, learning_rate=3e-3))
        method.fit(model, x, y, transfer, generator=generator)
        row[f"digits {name}"] = _subset_scores(lambda s, model=model: model.predict(x_test, s), accuracy, 4)
    generator = torch.Generator().manual_seed(20 + setting.seed)
    plain = MLP(128, 3, nn.ReLU).build(256, 10, generator=generator)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        chosen = torch.randint(0, len(x), (64,), generator=generator)
        return F.cross_entropy(plain(x[chosen].flatten(1)), y[chosen]), {}

    Training(steps=steps, learning_rate=3e-3).run(plain.parameters(), step)

    def filled(available: list[int]) -> Tensor:
        with torch.no_grad():
            return plain(_kept(x_test, available).flatten(1))

    row["digits zeros"] = _subset_scores(filled, accuracy, 4)
    return row


def _kept(x: Tensor, available: list[int]) -> Tensor:
    """The modalities (n, M, ...) with zeros in place of those that are not available."""
    keep = torch.zeros(x.shape[1], dtype=x.dtype)
    keep[available] = 1
    return x * keep.reshape(1, -1, *[1] * (x.ndim - 2))


# -- ellipses ----------------------------------------------------------------------------------------------------------


def _ellipses(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) that show an ellipse as edge, blurred and noisy, and its mask (n, 1, 32, 32)."""
    grid = torch.arange(32.0)
    u = torch.rand(count, 5, generator=generator)
    centre, radii, angle = 10 + 12 * u[:, :2], 4 + 6 * u[:, 2:4], math.pi * u[:, 4]
    dx, dy = grid - centre[:, :1], grid - centre[:, 1:]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    across, along = dx[:, None] * c + dy[:, :, None] * s, dy[:, :, None] * c - dx[:, None] * s
    inside = (across / radii[:, 0, None, None]).square() + (along / radii[:, 1, None, None]).square() <= 1
    mask = inside.float()[:, None]
    edge = mask - (-F.max_pool2d(-mask, 3, 1, 1))
    blurred = F.avg_pool2d(F.avg_pool2d(mask, 7, 1, 3), 7, 1, 3)
    channels = torch.cat([edge, blurred, mask], 1)
    noise = torch.tensor([0.2, 0.1, 1.0])[:, None, None] * torch.randn(count, 3, 32, 32, generator=generator)
    return channels + noise, mask


def _overlap(logits: Tensor, mask: Tensor) -> float:
    """The mean Dice score of thresholded maps."""
    found = (logits > 0).float()
    both = (found * mask).flatten(1).sum(1)
    return float((2 * both / (found.flatten(1).sum(1) + mask.flatten(1).sum(1)).clamp_min(1)).mean())


def _segmentation(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(30 + setting.seed)
    x, y = _ellipses(300, generator)
    test = slice(200, 240 if setting.quick else 300)
    x, y, x_test, y_test = x[:200], y[:200], x[test], y[test]
    plan, steps = UNet((8, 16, 16), embedding=16, groups=4), _steps(setting, 120)
    choice = setting.choice
    assert choice is None or isinstance(choice, Divergence)
    loss = SegmentationLoss(choice if choice is not None and ADMITS_MAPS.refusal(choice) is None else None)
    model = MissingModalityModel(UNetBackbone(plan.build(1, 1, generator=generator), 3), 3)
    transfer = VariationalTransfer(16, 16, generator=generator)
    method = SubsetTraining(
        loss, divergence=None, transfer_weight=0.1, batch_size=8, training=Training(steps=steps, learning_rate=4e-3)
    )
    method.fit(model, x[:, :, None], y, transfer, generator=generator)
    row: Row = {
        "Dice": _subset_scores(lambda s: model.predict(x_test[:, :, None], s), lambda v: _overlap(v, y_test), 3),
    }
    net = plan.build(3, 1, generator=generator)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        chosen = torch.randint(0, len(x), (8,), generator=generator)
        return loss(net(x[chosen], torch.zeros(8)), y[chosen]), {}

    Training(steps=steps, learning_rate=4e-3).run(net.parameters(), step)

    @torch.no_grad()
    def filled(available: list[int]) -> Tensor:
        return net(_kept(x_test, available), torch.zeros(len(x_test)))

    row["Dice zeros"] = _subset_scores(filled, lambda v: _overlap(v, y_test), 3)
    row["released gradient share"] = _released_share(x_test, y_test)
    row["_example"] = (x_test[0], y_test[0], model.predict(x_test[:1, :, None], [2])[0])
    return row


def _released_share(x: Tensor, y: Tensor) -> float:
    """The gradient of the released code's divergence term over that of Dice, at a blurred prediction."""

    def size(weight: float) -> Tensor:
        start = (4 * x[:, 1:2] - 2).requires_grad_()
        value = segmentation_loss(start, y, weight=weight, law=ReleasedSoftmax())
        return torch.autograd.grad(value, start)[0]

    dice = size(0.0)
    return float((size(1.0) - dice).norm() / dice.norm())


# -- transfer ----------------------------------------------------------------------------------------------------------


def _planted(setting: Setting) -> Row:
    """s = A t + noise with Gaussian t: the regressor that is right is linear, and the least loss mean(log Var(t | s) + 1) / 2."""
    generator = torch.Generator().manual_seed(40 + setting.seed)
    source, channels, deviation = 16, 4, 0.6
    mixing = torch.randn(source, channels, generator=generator) / 2
    precision = torch.eye(channels) + mixing.T @ mixing / deviation**2
    left = torch.linalg.inv(precision).diagonal()

    def draw(n: int) -> tuple[Tensor, Tensor]:
        t = torch.randn(n, channels, generator=generator)
        return t @ mixing.T + deviation * torch.randn(n, source, generator=generator), t

    transfer = VariationalTransfer(source, channels, generator=generator)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return transfer(*draw(256)), {}

    with torch.no_grad():
        held_out = draw(20_000)
        before = float(transfer(*held_out))
        Training(steps=1500, learning_rate=1e-2).run(transfer.parameters(), torch.enable_grad()(step))
        reached = float(transfer(*held_out))
    return {"transfer before": before, "transfer reached": reached, "transfer least": float((left.log() + 1).mean() / 2)}


# -- the recipe --------------------------------------------------------------------------------------------------------


def measure(setting: Setting) -> Row:
    """All four parts for one seed."""
    return _forms() | _digits(setting) | _segmentation(setting) | _planted(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks. The subsets of one modality are those whose number is a power of two, less one."""

    def means(name: str) -> list[float]:
        return [statistics.fmean(row[name]) for row in rows]

    def worst_single(name: str) -> list[float]:
        return [min(row[name][2**m - 1] for m in range(4)) for row in rows]

    trained, zeros = means("digits CE+HD"), means("digits zeros")
    gained = [a - b for a, b in zip(trained, zeros, strict=True)]
    alone = [a - b for a, b in zip(worst_single("digits CE+HD"), worst_single("digits zeros"), strict=True)]
    against = [a - b for a, b in zip(trained, means("digits CE+KL"), strict=True)]
    over = [a - b for a, b in zip(trained, means("digits CE"), strict=True)]
    dice = means("Dice")
    dice_gained = [a - b for a, b in zip(dice, means("Dice zeros"), strict=True)]
    transfer = [abs(row["transfer reached"] - row["transfer least"]) / abs(row["transfer least"]) for row in rows]
    forms = [max(row["forms apart"], row["duality apart"]) for row in rows]
    released = [row["released gradient share"] for row in rows]
    return [
        check("closed forms and duality: largest difference", forms, "<= 1e-6", max(forms) <= 1e-6),
        check("digits: accuracy over 15 subsets, gained", gained, "mean >= 0.05", statistics.fmean(gained) >= 0.05),
        check("digits: accuracy of the worst single view, gained", alone, "mean >= 0.10", statistics.fmean(alone) >= 0.10),
        check("digits: CE+HD less CE+KL", against, "mean >= -0.01", statistics.fmean(against) >= -0.01),
        check("digits: CE+HD less CE", over, "reported", True),
        check("ellipses: Dice over 7 subsets", dice, "mean >= 0.80", statistics.fmean(dice) >= 0.80),
        check("ellipses: Dice gained over zeros", dice_gained, "mean >= 0.03", statistics.fmean(dice_gained) >= 0.03),
        check("transfer: planted loss, relative distance", transfer, "<= 0.05", max(transfer) <= 0.05),
        check("released code: gradient of its divergence over Dice", released, "reported", True),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Accuracy and Dice by subset for both trainings, and one image from its noisy channel alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", gridspec_kw={"width_ratios": [2, 1.2, 1.8]})
    for axis, names, modalities, what in (
        (axes[0], (("digits CE+HD", "all subsets trained"), ("digits zeros", "zeros for what is missing")), 4, "accuracy"),
        (axes[1], (("Dice", "all subsets trained"), ("Dice zeros", "zeros for what is missing")), 3, "Dice"),
    ):
        subsets = nonempty_subsets(modalities)
        order = sorted(range(len(subsets)), key=lambda k: (int(subsets[k].sum()), k))
        for (name, label), colour in zip(names, ("#2563eb", "#6b7280"), strict=True):
            values = [statistics.fmean(row[name][k] for row in rows) for k in order]
            axis.plot(range(len(order)), values, "o-", color=colour, label=label, ms=4)
        axis.set_xticks(range(len(order)), ["".join("ABCD"[m] for m in range(modalities) if subsets[k][m]) for k in order])
        axis.tick_params(axis="x", labelsize=8, rotation=60)
        axis.set(xlabel="modalities that are there", ylabel=what)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    x, y, logits = rows[0]["_example"]
    tiles = torch.cat([*((t - t.min()) / (t.max() - t.min()) for t in x), y[0], torch.sigmoid(logits[0])], 1)
    axes[2].imshow(tiles, cmap="gray")
    axes[2].set_axis_off()
    axes[2].set_title("edge, blurred, noisy; mask; map from the noisy channel", fontsize=9)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _task(divergence: Divergence, seed: int) -> float:
    setting = Setting(seed, quick=True)
    x, y, x_test, y_test = _halves(setting)
    generator = torch.Generator().manual_seed(10 + seed)
    model = _digit_network(generator)
    method = SubsetTraining(divergence=divergence, training=Training(steps=200, learning_rate=3e-3))
    method.fit(model, x, y, generator=generator)
    scores = _subset_scores(lambda s: model.predict(x_test, s), lambda v: float((v.argmax(1) == y_test).float().mean()), 4)
    return statistics.fmean(scores)


RECIPE = Recipe(
    slug="holder-divergence",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("digits",),
    task=SwapTask("accuracy over the 15 subsets of four views of digits", "higher", ADMITS, _task, Hoelder()),
)
