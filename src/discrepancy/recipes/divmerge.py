"""DivMerge against averaging, sums, TIES and entropy minimisation: digits seen in two or four ways, text, and halves of MNIST.

digits  experts of the same digits upright, turned, mirrored, transposed; 100 unlabelled images a task; for the two levels of
        coefficients also from a base that was trained less (a third of the learning rate)
text    two small language models, one gone on with prose and one with code, of the language's own documentation
halves  convolutional networks with batch normalisation, one trained on the digits 0-4 and one on 5-9 of 5,000 MNIST images
"""

from __future__ import annotations

import copy
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy.datasets import digits, library_text
from discrepancy.divergences import KL, JensenShannon
from discrepancy.divergences.divergence import Divergence
from discrepancy.language_models import CharacterTokenizer, fit_language_model, tiny_gpt2
from discrepancy.methods.merging import (
    TIES,
    WUDI,
    AdaMerging,
    Averaging,
    Descent,
    DivMerge,
    GreedyGeneration,
    MergedModel,
    Slerp,
    Task,
    TaskArithmetic,
    TaskVectors,
    divergence_matrix,
    recalibrated,
)
from discrepancy.methods.merging.divmerge import ADMITS
from discrepancy.recipes.merging_tasks import accuracy, digit_family, fit_classifier
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check


def _methods(choice: Divergence, epochs: int, rate: float = 0.02, batch: int = 100) -> dict[str, Any]:
    descent = Descent(epochs, batch, rate)
    return {
        "average": Averaging(),
        "sum": TaskArithmetic(0.5),
        "TIES": TIES(),
        "WUDI": WUDI(),
        "slerp": Slerp(),
        "AdaMerging": AdaMerging(descent=Descent(epochs, batch, rate, start=0.3)),
        "TL-JS": DivMerge(choice, level=Task(), descent=descent),
        "LL-JS": DivMerge(choice, descent=descent),
        "LL-KL": DivMerge(KL(), descent=descent),
    }


def _merged(method: Any, vectors: TaskVectors, inputs: list[Tensor], seed: int) -> MergedModel:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(method, DivMerge | AdaMerging):
        return method.merge(vectors, inputs, generator=generator)
    return method.merge(vectors, generator=generator)


def _digits(setting: Setting, choice: Divergence) -> Row:
    from scipy.stats import spearmanr

    row: Row = {}
    for tasks in (2, 4):
        family = digit_family(setting.seed, tasks, 200 if setting.quick else 600)
        row[f"digits {tasks} base"] = family.performance(family.vectors.module)
        for name, method in _methods(choice, 60 if setting.quick else 200).items():
            row[f"digits {tasks} {name}"] = family.performance(_merged(method, family.vectors, family.inputs, setting.seed))
    models = [family.vectors.model(family.vectors.expert(j)) for j in range(4)]
    across = np.array([[accuracy(model, *test) for model in models] for test in family.tests])
    apart = divergence_matrix(family.vectors, family.inputs, choice).numpy()
    off = ~np.eye(4, dtype=bool)
    for tasks in (2, 4):
        weak = digit_family(setting.seed, tasks, 200 if setting.quick else 600, base_rate=1e-3)
        row[f"weak base {tasks} base"] = weak.performance(weak.vectors.module)
        for name, method in _methods(choice, 60 if setting.quick else 200).items():
            if name in ("average", "TL-JS", "LL-JS"):
                row[f"weak base {tasks} {name}"] = weak.performance(_merged(method, weak.vectors, weak.inputs, setting.seed))
    row["digits rank correlation"] = float(spearmanr(-apart[off], across[off]).statistic)  # type: ignore[attr-defined]
    return row


def _corpora() -> tuple[str, str]:
    """The documentation's paragraphs with the largest and the smallest share of letters: prose, and code with grammar."""
    paragraphs = [p for p in library_text().split("\n\n") if len(p) >= 60]
    order = sorted(range(len(paragraphs)), key=lambda i: sum(c.isalpha() or c == " " for c in paragraphs[i]) / len(paragraphs[i]))
    third = len(order) // 3
    # Sorted again: neighbours in the text stay neighbours.
    return tuple("\n\n".join(paragraphs[i] for i in sorted(part)) for part in (order[-third:], order[:third]))  # type: ignore[return-value]


@torch.no_grad()
def _nats(model: nn.Module, ids: Tensor, length: int = 64) -> float:
    """Negative log-likelihood in nats a character, on consecutive windows."""
    windows = ids[: len(ids) // length * length].reshape(-1, length)[:100]
    logits = model(windows).logits
    return float(nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten()))


def _text(setting: Setting, choice: Divergence) -> Row:
    steps = 40 if setting.quick else 150
    prose, code = _corpora()
    tokens = CharacterTokenizer(prose + code)
    parts = [tokens.encode(text) for text in (prose, code)]
    train, held_out = [p[: len(p) * 4 // 5] for p in parts], [p[len(p) * 4 // 5 :] for p in parts]
    generator = torch.Generator().manual_seed(setting.seed)
    base = tiny_gpt2(tokens.size, layers=2, width=64, positions=64, seed=setting.seed)
    fit_language_model(base, torch.cat(train), steps=steps, length=48, generator=generator)
    experts = []
    for ids in train:
        expert = copy.deepcopy(base)
        fit_language_model(expert, ids, steps=steps, length=48, generator=generator)
        experts.append(expert)
    vectors = TaskVectors(base, experts)
    starts = [torch.randint(len(ids) - 24, (16, 1), generator=generator) for ids in train]
    prompts = [ids[start + torch.arange(24)] for ids, start in zip(train, starts, strict=True)]
    descent = Descent(epochs=20, batch=8, learning_rate=0.02)
    learned = DivMerge(choice, source=GreedyGeneration(max_new_tokens=24), descent=descent)
    row: Row = {}
    for name, model in {
        "base": base,
        "prose expert": experts[0],
        "code expert": experts[1],
        "average": Averaging().merge(vectors).model(),
        "TIES": TIES().merge(vectors).model(),
        "LL-JS": learned.merge(vectors, prompts, generator=generator).model(),
    }.items():
        for corpus, ids in zip(("prose", "code"), held_out, strict=True):
            row[f"text {corpus} {name}"] = _nats(model, ids)
    return row


def _convolutions(generator: torch.Generator) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 36, 10),
        )  # fmt: skip


def _halves(setting: Setting, choice: Divergence) -> Row:
    generator = torch.Generator().manual_seed(300 + setting.seed)
    images, labels = digits("mnist-5k")
    order = np.random.default_rng(setting.seed).permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32).reshape(-1, 1, 28, 28)
    y = torch.tensor(labels[order])
    train, test = slice(0, 3500), slice(3500, 5000)
    sides = [y < 5, y >= 5]
    base = fit_classifier(_convolutions(generator), x[:400], y[:400], 40, generator)
    experts, inputs = [], []
    for side in sides:
        here = side[train]
        steps = 40 if setting.quick else 150
        experts.append(fit_classifier(copy.deepcopy(base), x[train][here], y[train][here], steps, generator))
        inputs.append(x[train][here][:100])
    vectors = TaskVectors(base, experts)
    row: Row = {"halves base": accuracy(base, x[test], y[test])}
    row["halves experts"] = statistics.fmean(
        accuracy(m, x[test][side[test]], y[test][side[test]]) for m, side in zip(experts, sides, strict=True)
    )
    for name, method in _methods(choice, 15 if setting.quick else 40, 0.05).items():
        merged = _merged(method, vectors, inputs, setting.seed).model()
        row[f"halves {name}"] = accuracy(merged, x[test], y[test])
        if name == "average":
            row["halves average, recalibrated"] = accuracy(recalibrated(merged, torch.cat(inputs)), x[test], y[test])
    return row


def measure(setting: Setting) -> Row:
    """All three problems for one seed."""
    choice: Any = JensenShannon() if setting.choice is None else setting.choice
    ADMITS.check(choice)
    return _digits(setting, choice) | _text(setting, choice) | _halves(setting, choice)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds, and what the other two problems should show."""

    def gain(problem: str, method: str, other: str) -> list[float]:
        return [r[f"{problem} {method}"] - r[f"{problem} {other}"] for r in rows]

    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    out = []
    for tasks, bound in ((2, 0.04), (4, 0.10)):
        over = gain(f"digits {tasks}", "LL-JS", "average")
        out.append(check(f"digits, {tasks} tasks: ANP of LL-JS over averaging", over, f">= {bound}", mean(over) >= bound))
    for problem, words in (("digits", ""), ("weak base", ", base trained less")):
        for tasks in (2, 4):
            fine = gain(f"{problem} {tasks}", "LL-JS", "TL-JS")
            name = f"digits, {tasks} tasks{words}: a coefficient a layer over one a task"
            out.append(check(name, fine, ">= 0", mean(fine) >= 0))
    for tasks in (2, 4):
        sure = gain(f"digits {tasks}", "LL-JS", "AdaMerging")
        out.append(check(f"digits, {tasks} tasks: LL-JS over AdaMerging", sure, ">= 0 in every seed", min(sure) >= 0))
    drops = {m: [r[f"digits 2 {m}"] - r[f"digits 4 {m}"] for r in rows] for m in ("LL-JS", "average")}
    less = [a - b for a, b in zip(drops["average"], drops["LL-JS"], strict=True)]
    out.append(check("digits: what averaging loses more from 2 to 4 tasks than LL-JS", less, "> 0", mean(less) > 0))
    rank = [r["digits rank correlation"] for r in rows]
    out.append(check("digits: rank correlation of divergence and cross-accuracy", rank, "> 0.5", mean(rank) > 0.5))
    for problem, words in (("digits", ""), ("weak base", ", base trained less")):
        unmerged = gain(f"{problem} 4", "LL-JS", "base")
        out.append(check(f"digits, 4 tasks{words}: LL-JS over the base as it is", unmerged, "> 0", mean(unmerged) > 0))
    for corpus in ("prose", "code"):
        saved = [r[f"text {corpus} average"] - r[f"text {corpus} LL-JS"] for r in rows]
        out.append(check(f"text: nats a character below averaging, {corpus}", saved, "> 0", mean(saved) > 0))
    both = [sum(r[f"text {c} average"] - r[f"text {c} LL-JS"] for c in ("prose", "code")) / 2 for r in rows]
    out.append(check("text: nats a character below averaging, mean of both", both, "> 0", mean(both) > 0))
    for other in ("average", "TIES"):
        more = gain("halves", "LL-JS", other)
        out.append(check(f"halves of MNIST: accuracy of LL-JS over {other}", more, "> 0", mean(more) > 0))
    return out


def draw(rows: list[Row], file: Path) -> None:
    """Performance by method on the digits, and accuracy on the halves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ["base", *_methods(JensenShannon(), 1)]
    fig, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharey=True)
    titles = {"digits 2": "digits, two tasks", "digits 4": "digits, four tasks", "halves": "halves of MNIST"}
    for axis, (problem, title) in zip(axes, titles.items(), strict=True):
        for k, name in enumerate(names):
            values = [r[f"{problem} {name}"] for r in rows]
            colour = "#2563eb" if "L-" in name else "#9ca3af"
            axis.barh(k, statistics.fmean(values), color=colour, height=0.7)
            axis.plot(values, [k] * len(values), "k.", ms=4, alpha=0.6)
        axis.set(title=title, xlim=(0, 1), xlabel="accuracy" if problem == "halves" else "mean accuracy over the expert's")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _small_task(divergence: Any, seed: int) -> float:
    family = digit_family(seed, 2, 300)
    method = DivMerge(divergence, descent=Descent(80, 100, 0.05))
    return 100 * family.performance(_merged(method, family.vectors, family.inputs, seed))


RECIPE = Recipe(
    slug="divmerge",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    swaps=True,
    needs=("digits", "mnist-5k"),
    task=SwapTask(
        measures="performance of a merge of two over its experts', in %",
        better="higher",
        admits=ADMITS,
        run=_small_task,
        default=JensenShannon(),
    ),
)
