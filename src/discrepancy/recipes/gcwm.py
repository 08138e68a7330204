"""Geometry conflict and the merge gated by it: planted updates, experts on digits, one task after another, CHGNet.

planted    two updates of rank four on the same or on orthogonal input directions, with equal or opposite spectra
digits     experts of the same digits upright, turned, mirrored, transposed: all weights, or changes of rank four
separate   two tasks on orthogonal inputs with low-rank experts: nothing needs to be lost
continual  the four experts one after another, at three rates
CHGNet     the graph network 0.3.0, its fine-tuning on another density functional, and the older 0.2.0
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from discrepancy.datasets import chgnet_weights
from discrepancy.methods.merging import (
    GCWM,
    TIES,
    WUDI,
    Averaging,
    ContinualMerger,
    Gate,
    GeometryConflict,
    LeastSquares,
    Merge,
    MergeWarning,
    TaskVectors,
)
from discrepancy.recipes.merging_tasks import Family, accuracy, digit_family, low_rank_family, separate_family
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_METHODS: dict[str, Merge] = {
    "average": Averaging(),
    "TIES": TIES(),
    "WUDI": WUDI(),
    "WUDI exact": WUDI(LeastSquares()),
    "GCWM": GCWM(),
    "GCWM wide": GCWM(ridge=0.5),
    "GCWM of TIES": GCWM(base_merge=TIES()),
}
_RATES = (0.1, 0.3, 1.0)


def _planted(seed: int) -> Row:
    """The conflict of the card's three pairs, and the subspace alignment that cannot tell the first two apart."""
    generator = torch.Generator().manual_seed(seed)

    def turned(n: int, k: int) -> Tensor:
        return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q

    right = turned(20, 8)
    flat, steep = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([9.0, 4.0, 1.0, 0.1])
    cases = {
        "same": (flat, right[:, :4], flat, right[:, :4]),
        "opposite spectra": (steep, right[:, :4], steep.flip(0), right[:, :4]),
        "orthogonal": (flat, right[:, :4], flat, right[:, 4:]),
    }
    base = {"w": torch.full((24, 20), 10.0, dtype=torch.float64)}
    row: Row = {}
    for name, (s, V, t, W) in cases.items():
        experts = [{"w": base["w"] + (turned(24, 4) * r.double().sqrt()) @ X.mT} for r, X in ((s, V), (t, W))]
        layer = GeometryConflict(rank=4).report(TaskVectors(base, experts)).layers[0]
        row[f"conflict {name}"] = layer.conflict
        row[f"alignment {name}"] = float(layer.alignment[0, 1] + layer.alignment[1, 0]) / 2
    return row


def _compared(family: Family, problem: str) -> Row:
    row: Row = {f"{problem} base": family.performance(family.vectors.module)}
    for name, method in _METHODS.items():
        merged = method.merge(family.vectors)
        row[f"{problem} {name}"] = family.performance(merged)
        if name == "GCWM":
            row[f"{problem} conflict"] = statistics.fmean(layer.conflict for layer in merged.layers)  # type: ignore[attr-defined]
            row[f"{problem} longest branch"] = max(
                (layer.geometric_norm or 0.0) / layer.sum_norm
                for layer in merged.layers  # type: ignore[attr-defined]
            )
    return row


def _identities(family: Family) -> Row:
    """What must hold exactly: a shut gate is the plain merge, one expert alone is returned."""
    plain, shut = WUDI().merge(family.vectors).update, GCWM(gate=Gate(low=0, high=0)).merge(family.vectors).update
    alone = TaskVectors(family.vectors.module, [family.vectors.model(family.vectors.expert(0))])
    single = GCWM(rank=10, gate=Gate(low=1, high=1)).merge(alone).update
    return {
        "shut gate": max(float((plain[k] - shut[k]).abs().max()) for k in plain),
        "one expert": max(float((single[k] - u[0]).abs().max()) for k, u in alone.updates.items()),
    }


def _pairs(family: Family) -> Row:
    """Conflict of each pair of experts beside what either forgets when the two are averaged: the rank correlation."""
    from scipy.stats import spearmanr

    vectors = family.vectors
    models = [vectors.model(vectors.expert(i)) for i in range(len(vectors))]
    conflicts, alignments, forgotten = [], [], []
    for i, j in combinations(range(len(vectors)), 2):
        pair = TaskVectors(vectors.module, [models[i], models[j]])
        report = GeometryConflict().report(pair)
        conflicts.append(report.conflict)
        alignments.append(statistics.fmean(r["alignment"] for r in report.rows()))
        merged = Averaging().merge(pair).model()
        forgotten.append(sum(family.experts[k] - accuracy(merged, *family.tests[k]) for k in (i, j)) / 2)
    return {
        "rank correlation conflict": float(spearmanr(conflicts, forgotten).statistic),  # type: ignore[attr-defined]
        "rank correlation alignment": float(spearmanr(alignments, forgotten).statistic),  # type: ignore[attr-defined]
    }


def _continual(family: Family, quick: bool) -> Row:
    """The experts one after another: mean accuracy on the tasks seen so far after each step, by rate and method."""
    vectors = family.vectors
    models = [vectors.model(vectors.expert(i)) for i in range(len(vectors))]
    row: Row = {}
    for rate in _RATES[1:2] if quick else _RATES:
        for name in ("average", "WUDI", "GCWM"):
            merger = ContinualMerger(vectors.module, _METHODS[name], rate=rate)
            for step, expert in enumerate(models):
                done = merger.update(expert)
                state = merger.model()
                found = [accuracy(state, *family.tests[k]) for k in range(step + 1)]
                row[f"continual {rate:g} {name} step {step + 1}"] = statistics.fmean(found)
                if name == "GCWM":
                    row[f"continual rows {rate:g} step {step + 1}"] = len(done.layers)
    return row


def _separate(family: Family) -> Row:
    """The largest loss of accuracy of either expert."""
    row: Row = {}
    for name, gate in (("geometry", Gate(low=1, high=1)), ("plain", Gate(low=0, high=0))):
        merged = replace(GCWM(), gate=gate).merge(family.vectors)
        row[f"separate lost {name}"] = max(e - a for e, a in zip(family.experts, family.accuracies(merged), strict=True))
    row["separate conflict"] = GeometryConflict(layers=("0.weight",)).report(family.vectors).conflict
    return row


def _chgnet() -> Row:
    """How far fine-tuning moved CHGNet, how its layers' geometry compares with an independent training's, and a merge on disk."""
    base, tuned, older = (chgnet_weights(version) for version in ("0.3.0", "r2scan", "0.2.0"))
    vectors = TaskVectors(base, [tuned])
    row: Row = {"CHGNet moved": float(vectors.norms()[0]) / vectors.base_norm()}
    shares = {
        name: float(u[0].norm() / vectors.base[name].norm())
        for name, u in vectors.updates.items()
        if vectors.base[name].norm() > 0
    }
    row["CHGNet layer that moved most"] = max(shares, key=lambda name: shares[name])
    row["CHGNet its share"] = max(shares.values())
    common = [
        k for k, v in base.items()
        if k in older and v.ndim == 2 and min(v.shape) > 1 and older[k].shape == v.shape and v.is_floating_point()
    ]  # fmt: skip
    zero = {k: torch.zeros_like(base[k]) for k in common}
    for name, other in (("fine-tuned", tuned), ("older", older)):
        both = TaskVectors(zero, [{k: s[k] for k in common} for s in (base, other)])
        found = GeometryConflict(rank=16).report(both)
        row[f"CHGNet conflict {name}"] = found.conflict
        row[f"CHGNet conflict {name}, highest layer"] = max(layer.conflict for layer in found.layers)
    merged = Averaging().merge(TaskVectors(base, [base, tuned]))
    with tempfile.TemporaryDirectory() as folder:
        from safetensors.torch import load_file

        back = load_file(merged.save(Path(folder) / "midpoint.safetensors"))
    row["CHGNet tensors"] = len(back)
    row["CHGNet midpoint error"] = max(
        float((back[k].double() - (base[k].double() + tuned[k].double()) / 2).abs().max() / base[k].abs().max().clamp_min(1e-6))
        for k in back
        if back[k].is_floating_point()
    )
    return row


def measure(setting: Setting) -> Row:
    """All five problems for one seed; CHGNet with the first."""
    row = _planted(setting.seed)
    steps = 200 if setting.quick else 600
    with warnings.catch_warnings():
        # Long branches and far experts are measured below, which is better than being warned of them.
        warnings.simplefilter("ignore", MergeWarning)
        for tasks in (2,) if setting.quick else (2, 4):
            row |= _compared(digit_family(setting.seed, tasks, steps), f"full {tasks}")
            row |= _compared(low_rank_family(setting.seed, tasks, steps), f"low-rank {tasks}")
        four = digit_family(setting.seed, 4, steps)
        row |= _identities(four) | _pairs(four) | _continual(four, setting.quick)
        row |= _separate(separate_family(setting.seed, steps))
        if setting.seed == 0:
            row |= _chgnet()
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; those on which the card's own pilot failed are judged like the others."""

    def column(name: str) -> list[float]:
        return [r[name] for r in rows]

    def gain(problem: str, other: str) -> list[float]:
        return [r[f"{problem} GCWM"] - r[f"{problem} {other}"] for r in rows]

    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    same, between, apart = (column(f"conflict {name}") for name in ("same", "opposite spectra", "orthogonal"))
    ordered = [min(b - a, c - b) for a, b, c in zip(same, between, apart, strict=True)]
    blind = [abs(r["alignment same"] - r["alignment opposite spectra"]) for r in rows]
    out = [
        check("planted: conflict of equal geometries", same, "< 0.02", max(same) < 0.02),
        check("planted: conflict of orthogonal inputs", apart, "> 0.9", min(apart) > 0.9),
        check("planted: opposite spectra lie between, least distance", ordered, "> 0", min(ordered) > 0),
        check("planted: subspace alignment sees no spectra, difference", blind, "< 1e-6", max(blind) < 1e-6),
        check("shut gate: largest difference from WUDI", column("shut gate"), "exactly 0", max(column("shut gate")) == 0),
        check("one expert: largest difference from it", column("one expert"), "<= 1e-4", max(column("one expert")) <= 1e-4),
    ]
    for branch in ("geometry", "plain"):
        lost = column(f"separate lost {branch}")
        out.append(check(f"orthogonal inputs: accuracy lost by the {branch} branch", lost, "<= 0.02", max(lost) <= 0.02))
    for problem in [p for p in ("full 2", "full 4", "low-rank 2", "low-rank 4") if f"{p} GCWM" in rows[0]]:
        kind, tasks = problem.split()
        for other in ("WUDI", "average"):
            better = gain(problem, other)
            out.append(check(f"digits, {kind}, {tasks} tasks: ANP of GCWM over {other}", better, "> 0", mean(better) > 0))
        elected = [r[f"{problem} GCWM of TIES"] - r[f"{problem} TIES"] for r in rows]
        out.append(check(f"digits, {kind}, {tasks} tasks: ANP of GCWM of TIES over TIES", elected, "> 0", mean(elected) > 0))
    rank = column("rank correlation conflict")
    out.append(check("rank correlation of conflict and forgetting over pairs", rank, "> 0", mean(rank) > 0))
    kept = [r["continual 0.3 GCWM step 4"] - r["continual 0.3 WUDI step 4"] for r in rows]
    out.append(check("one after another: accuracy of GCWM over WUDI after four, rate 0.3", kept, "> 0", mean(kept) > 0))
    lines = [v for r in rows for k, v in r.items() if k.startswith("continual rows")]
    out.append(check("one after another: rows of each step's report", lines, "3, one a layer", set(lines) == {3}))
    first = rows[0]
    far = first["CHGNet conflict older"] - first["CHGNet conflict fine-tuned"]
    out.append(check("CHGNet: conflict with 0.2.0 over that with its own fine-tuning", [far], "> 0", far > 0))
    error = first["CHGNet midpoint error"]
    out.append(check("CHGNet: midpoint written and read, largest relative error", [error], "<= 1e-6", error <= 1e-6))
    return out


def draw(rows: list[Row], file: Path) -> None:
    """Performance by method, and the tasks seen so far one after another."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    problems = [p for p in ("full 2", "full 4", "low-rank 2", "low-rank 4") if f"{p} GCWM" in rows[0]]
    names = ["base", *_METHODS]
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    width = 0.8 / len(names)
    colours = ["#d1d5db", "#9ca3af", "#6b7280", "#f59e0b", "#b45309", "#2563eb", "#60a5fa", "#1e3a8a"]
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        places = [i + (k - len(names) / 2 + 0.5) * width for i in range(len(problems))]
        left.bar(places, [statistics.fmean(r[f"{p} {name}"] for r in rows) for p in problems], width, color=colour, label=name)
        for place, p in zip(places, problems, strict=True):
            left.plot([place] * len(rows), [r[f"{p} {name}"] for r in rows], "k.", ms=3)
    left.set_xticks(range(len(problems)), [f"{p.replace(' ', ', ')} tasks" for p in problems])
    left.set(ylabel="mean accuracy over the expert's", ylim=(0, 1), title="digits")
    left.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    styles = {0.1: ":", 0.3: "--", 1.0: "-"}
    for rate in [r for r in _RATES if f"continual {r:g} GCWM step 1" in rows[0]]:
        for name, colour in (("average", "#6b7280"), ("WUDI", "#f59e0b"), ("GCWM", "#2563eb")):
            values = [statistics.fmean(r[f"continual {rate:g} {name} step {s}"] for r in rows) for s in (1, 2, 3, 4)]
            right.plot((1, 2, 3, 4), values, styles[rate], color=colour, marker=".", label=f"{name}, rate {rate:g}")
    right.set(
        xlabel="experts seen", ylabel="accuracy on their tasks", ylim=(0, 1), xticks=(1, 2, 3, 4), title="one after another"
    )
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(
    slug="gcwm",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    needs=("digits", "chgnet-0.2.0", "chgnet-0.3.0", "chgnet-r2scan"),
)
