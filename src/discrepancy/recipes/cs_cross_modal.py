"""Cauchy-Schwarz alignment of modalities against KL, MMD and CORAL, on halves and bands of handwritten digits.

Two modalities: left and right four columns of an image; three: its upper, middle and lower rows. Exact pairs retrieve each other
among 597 test images, R@10 (chance 0.017), mean over the directions. Networks 32-128-32, batches of 100, Adam 1e-3, 40 epochs,
temperature 0.1. KL with the identity as target is InfoNCE.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy.datasets import digits
from discrepancy.divergences import KL, CauchySchwarz, GeneralizedCauchySchwarz
from discrepancy.kernel_methods import MMD, GeneralizedKernelCauchySchwarz
from discrepancy.learning import Training
from discrepancy.methods.representation.baselines import CorrelationAlignment
from discrepancy.methods.representation.cs_cross_modal import ADMITS, CrossModalAligner, CrossModalLoss, Scheme
from discrepancy.methods.representation.retrieval import recall_at_k
from discrepancy.networks import MLP
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check

_TRAIN, _BATCH, _AMONG, _TEMPERATURE = 1200, 100, 10, 0.1
_TEMPERATURES = (0.02, 0.05, 0.2)

Views = Mapping[str, Tensor]


def _halves(images: Tensor) -> Views:
    return {"left": images[:, :, :4].flatten(1), "right": images[:, :, 4:].flatten(1)}


def _bands(images: Tensor) -> Views:
    return {"top": images[:, :3].flatten(1), "middle": images[:, 3:5].flatten(1), "bottom": images[:, 5:].flatten(1)}


class _Task:
    """The images of one seed, split and cut into views."""

    def __init__(self, seed: int, cut: Any) -> None:
        pixels, _ = digits()
        views = cut(torch.tensor(pixels, dtype=torch.float32).reshape(-1, 8, 8))
        self.seed = seed
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
        self.train = {name: view[order[:_TRAIN]] for name, view in views.items()}
        self.test = {name: view[order[_TRAIN:]] for name, view in views.items()}

    def score(self, embedded: Views) -> float:
        """R@10 of the test images, the mean over ordered pairs of views."""
        return statistics.fmean(recall_at_k(embedded[a], embedded[b], _AMONG) for a, b in permutations(embedded, 2))

    def aligner(self, loss: CrossModalLoss) -> CrossModalAligner:
        """Fresh encoders, the same for all losses of a seed."""
        chance = torch.Generator().manual_seed(1000 + self.seed)
        net = MLP(128, 1, nn.ReLU)
        return CrossModalAligner({name: net.build(v.shape[1], 32, generator=chance) for name, v in self.train.items()}, loss)

    def recall(self, aligner: CrossModalAligner) -> float:
        """R@10 of its embeddings."""
        return self.score({name: aligner.embed(name, view) for name, view in self.test.items()})

    def trained(self, loss: CrossModalLoss, epochs: int) -> float:
        """R@10 after training; NaN where the training breaks down."""
        chance = torch.Generator().manual_seed(2000 + self.seed)
        aligner, batches = self.aligner(loss), _TRAIN // _BATCH
        order = torch.randperm(_TRAIN, generator=chance)

        def draw(k: int) -> tuple[Views, None]:
            nonlocal order
            if k % batches == 0:
                order = torch.randperm(_TRAIN, generator=chance)
            rows = order[k % batches * _BATCH : (k % batches + 1) * _BATCH]
            return {name: view[rows] for name, view in self.train.items()}, None

        try:
            aligner.fit(draw, Training(steps=batches * epochs, final_share=1.0), generator=chance)
        except NumericalError:
            return math.nan
        return self.recall(aligner)

    def correlated(self) -> float:
        """R@10 of linear canonical correlation analysis, 16 components."""
        from sklearn.cross_decomposition import CCA

        left, right = self.train
        # Pixels that never vary have no correlation.
        keep = {name: view.std(0) > 1e-3 for name, view in self.train.items()}
        model = CCA(16, max_iter=1000).fit(*(self.train[n][:, keep[n]].double().numpy() for n in (left, right)))
        found = model.transform(*(self.test[n][:, keep[n]].double().numpy() for n in (left, right)))
        return self.score({n: torch.as_tensor(z) for n, z in zip((left, right), found, strict=True)})


def _loss(divergence: Any, scheme: Scheme = Scheme.BIDIRECTIONAL, temperature: float = _TEMPERATURE) -> CrossModalLoss:
    return CrossModalLoss(divergence, temperature=temperature, scheme=scheme)


def _identities(seed: int) -> Row:
    """How far the divergence is from its algebra, on random vectors of four laws over 50 categories."""
    chance = torch.Generator().manual_seed(seed)
    p = torch.rand(100, 4, 50, generator=chance, dtype=torch.float64).square()
    p = p / p.sum(-1, keepdim=True)
    D = GeneralizedCauchySchwarz()
    values, order = D.from_probs(p), torch.randperm(4, generator=chance)
    two = CauchySchwarz().from_probs(p[:, 0], p[:, 1]) / 2
    same = D.from_probs(p[:, :1].expand(-1, 4, -1))
    return {
        "least value": float(values.min()),
        "identity error": max(
            float(same.abs().max()),
            float((values - D.from_probs(p[:, order])).abs().max()),
            float((D.from_probs(p[:, :2]) - two).abs().max()),
        ),
    }


def _domains(seed: int, quick: bool) -> float:
    """By how much the mean distance between the means of three shifted Gaussians falls under the sample divergence."""
    chance = torch.Generator().manual_seed(3000 + seed)
    clouds = [torch.randn(60, 2, generator=chance) for _ in range(3)]
    shifts = nn.Parameter(3 * torch.randn(3, 2, generator=chance))
    D = GeneralizedKernelCauchySchwarz()

    def moved() -> list[Tensor]:
        return [z + s for z, s in zip(clouds, shifts, strict=True)]

    def spread() -> float:
        return float(torch.pdist(torch.stack([z.mean(0) for z in moved()]).detach()).mean())

    before = spread()
    Training(steps=100 if quick else 200, learning_rate=0.1).run([shifts], lambda _: (D(moved()), {}))
    return 1 - spread() / before


def measure(setting: Setting) -> Row:
    """All parts for one seed; a divergence of the user's choice replaces Cauchy-Schwarz in the alignments."""
    epochs = 6 if setting.quick else 40
    chosen = GeneralizedCauchySchwarz() if setting.choice is None else ADMITS.check(setting.choice)
    row = _identities(setting.seed)
    two = _Task(setting.seed, _halves)
    row["2 untrained"] = two.recall(two.aligner(_loss(chosen)))
    row["2 cca"] = two.correlated()
    row["2 cs"] = two.trained(_loss(chosen), epochs)
    row["2 infonce"] = two.trained(_loss(KL()), epochs)
    if not setting.quick:
        row["2 mmd"] = two.trained(_loss(MMD(biased=True)), epochs)
        row["2 coral"] = two.trained(_loss(CorrelationAlignment()), epochs)
    three = _Task(setting.seed, _bands)
    row["3 gcs"] = three.trained(_loss(chosen), epochs)
    row["3 pairwise"] = three.trained(_loss(chosen, Scheme.PAIRWISE), epochs)
    row["3 kl"] = three.trained(_loss(KL(), Scheme.PAIRWISE), epochs)
    for temperature in _TEMPERATURES:
        short = 1 if setting.quick else 10
        row[f"3 gcs at {temperature:g}"] = three.trained(_loss(chosen, temperature=temperature), short)
        row[f"3 kl at {temperature:g}"] = three.trained(_loss(KL(), Scheme.PAIRWISE, temperature), short)
    row["domains"] = _domains(setting.seed, setting.quick)
    return {k: v if math.isfinite(v) else None for k, v in row.items()}


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks."""

    def of(name: str) -> list[float]:
        return [r[name] for r in rows]

    against_cca = [r["2 cs"] - r["2 cca"] for r in rows]
    against_nce = [r["2 cs"] / r["2 infonce"] for r in rows]
    gain = [r["2 cs"] / r["2 untrained"] for r in rows]
    share = [r["3 gcs"] / r["3 pairwise"] for r in rows]
    over_kl = [r["3 gcs"] - r["3 kl"] for r in rows]
    wins, needed = sum(v > 0 for v in over_kl), math.ceil(2 * len(rows) / 3)
    finite = [float(all(r[f"3 gcs at {t:g}"] is not None for t in _TEMPERATURES)) for r in rows]
    checks = [
        check("least value on random laws", of("least value"), ">= 0", min(of("least value")) >= 0),
        check(
            "error of proportional inputs, permutations and m = 2",
            of("identity error"),
            "<= 1e-6",
            max(of("identity error")) <= 1e-6,
        ),
        check("two modalities: R@10 over the untrained encoders'", gain, ">= 3", min(gain) >= 3),
        check("two modalities: R@10 above linear CCA", against_cca, ">= -0.01", statistics.fmean(against_cca) >= -0.01),
        check("two modalities: R@10 over InfoNCE's", against_nce, ">= 0.9", statistics.fmean(against_nce) >= 0.9),
        check("three modalities: R@10 over pairwise losses'", share, ">= 0.95", statistics.fmean(share) >= 0.95),
        check(f"three modalities: R@10 above the KL row loss ({wins} of {len(rows)})", over_kl, "> 0 on 2 of 3", wins >= needed),
        check("three modalities: finite at temperatures 0.02, 0.05, 0.2", finite, "all", min(finite) == 1),
        check("share of the distance between domains that is gone", of("domains"), ">= 0.9", min(of("domains")) >= 0.9),
    ]
    if not quick:
        others = [r["2 cs"] - max(r["2 mmd"] or 0, r["2 coral"] or 0) for r in rows]
        checks.append(check("two modalities: R@10 above the better of MMD and CORAL", others, "> 0", min(others) > 0))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """R@10 by loss, for two and three modalities."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = {"untrained": "untrained", "cca": "linear CCA", "mmd": "MMD", "coral": "CORAL", "infonce": "InfoNCE", "cs": "CS"}
    three = {"kl": "KL rows", "pairwise": "CS, pairwise", "gcs": "generalised CS"}
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True, width_ratios=[2, 1])
    for axis, count, names in ((axes[0], 2, labels), (axes[1], 3, three)):
        shown = [n for n in names if rows[0].get(f"{count} {n}") is not None]
        for k, name in enumerate(shown):
            values = [r[f"{count} {name}"] for r in rows]
            ours = "cs" in name or name == "pairwise"
            axis.bar(k, statistics.fmean(values), color="#2563eb" if ours else "#9ca3af", width=0.6)
            axis.plot([k] * len(values), values, ".", color="black", ms=5)
        axis.axhline(_AMONG / 597, color="#dc2626", lw=1, ls=":", label="chance")
        axis.set_xticks(range(len(shown)), [names[n] for n in shown])
        axis.set_title(f"{'two' if count == 2 else 'three'} views of a digit", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("R@10, exact pairs among 597 images")
    axes[0].legend(frameon=False, loc="upper left")
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _swap(divergence: Any, seed: int) -> float:
    task = _Task(100 + seed, _halves)
    return task.trained(_loss(divergence), 5)


RECIPE = Recipe(
    slug="cs-cross-modal",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("digits",),
    task=SwapTask("R@10 of the other half of a digit, 597 candidates", "higher", ADMITS, _swap, GeneralizedCauchySchwarz()),
)
