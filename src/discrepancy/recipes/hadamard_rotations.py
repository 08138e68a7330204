"""Two Hadamard blocks against uniform rotations: coordinates that agree, whole vectors that do not, and what it costs.

coordinates   Kolmogorov distance of one coordinate from its law under Haar's, for an axis and for a sum of two axes
vectors       distance of the image of an axis to the vertices of the transformed cube, and of a random vector's image
tests         MMD permutation tests that do not see what the vertices show
speed         2^14 dimensions, 64 vectors, against the dense product (processor seconds of one thread)
one bit       what the signs of the rotated coordinates keep of a direction
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from discrepancy import MMD, permutation_test
from discrepancy.directions import (
    HadamardRotation,
    haar_images,
    hadamard_images,
    hadamard_w2_to_sphere,
    marginal_ks,
    sign_quantisation_cosine,
    vertex_gap,
)
from discrepancy.kernels import Gaussian
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_DIMS = (16, 64, 256)
_GAP_DIM = 256


def _axis(d: int, ones: int = 1) -> Tensor:
    u = torch.zeros(d, dtype=torch.float64)
    u[:ones] = ones**-0.5
    return u


def _coordinates(quick: bool, generator: torch.Generator) -> Row:
    draws = 5_000 if quick else 20_000
    row: Row = {}
    for d in _DIMS:
        for blocks, ones in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)):
            y = hadamard_images(_axis(d, ones), draws, blocks=blocks, generator=generator)
            row[f"ks {blocks} {ones} {d}"] = float(marginal_ks(y[:, 0], d))
    return row


def _vectors(quick: bool, generator: torch.Generator) -> Row:
    draws, d = 2_000 if quick else 10_000, _GAP_DIM
    u = torch.randn(d, generator=generator, dtype=torch.float64)
    axis, generic = (hadamard_images(v, draws, generator=generator) for v in (_axis(d), u))
    haar = haar_images(_axis(d), draws, generator=generator)
    # An independent draw of the sphere's law, by the closed form in |x|_1 in place of the function under test.
    x = torch.randn(4 * draws, d, generator=generator, dtype=torch.float64)
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    truth = float((2 - 2 * x.abs().sum(-1) / math.sqrt(d)).sqrt().mean())
    return {
        "gap axis": float(vertex_gap(axis).mean()),
        "gap haar": float(vertex_gap(haar).mean()),
        "gap generic": float(vertex_gap(generic).mean()),
        "gap truth": truth,
        "gap root mean square haar": float(vertex_gap(haar).square().mean().sqrt()),
        "W2 closed form": hadamard_w2_to_sphere(d),
        "_gaps": tuple(vertex_gap(y) for y in (axis, generic, haar)),
    }


def _tests(setting: Setting, generator: torch.Generator) -> Row:
    """Rejections at 5 % over repetitions with a fresh random vector each, n = 500 of either kind in d = 64."""
    D = setting.choice or MMD(Gaussian(1.0))
    d, n, repeats = 64, 500, 4 if setting.quick else 20
    rejected, missed = 0, 0
    for _ in range(repeats):
        u = torch.randn(d, generator=generator, dtype=torch.float64)
        y, z = hadamard_images(u, n, generator=generator), haar_images(u, n, generator=generator)
        unit = math.sqrt(d) / float(u.norm())
        p = permutation_test(unit * y[:, :1], unit * z[:, :1], D, permutations=199, generator=generator).p_value
        rejected += p <= 0.05
        on_axis, haar = (draw(_axis(d), n, generator=generator) for draw in (hadamard_images, haar_images))
        missed += float(vertex_gap(on_axis).max()) >= float(vertex_gap(haar).min())
    return {"test rejections": rejected / repeats, "vertices not separated": missed / repeats}


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of a few runs."""
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def _speed(quick: bool, generator: torch.Generator) -> Row:
    d, batch = 2**14, 64
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        T = HadamardRotation(d, generator=generator)
        x = torch.randn(batch, d, generator=generator)
        # Any dense matrix takes as long as a Haar one, which would take minutes to draw.
        M = torch.randn(d // 4 if quick else d, d, generator=generator)
        dense = _seconds(lambda: x @ M.T, 1 if quick else 3) * d / M.shape[0]
        fast = _seconds(lambda: T(x), 5)
    finally:
        torch.set_num_threads(threads)
    lengths = T(x).double().norm(dim=-1) / x.double().norm(dim=-1)
    return {"speed ratio": dense / fast, "milliseconds": 1e3 * fast, "length error": float((lengths - 1).abs().max())}


def _one_bit(generator: torch.Generator) -> Row:
    row: Row = {}
    for d in (1024, 4096):
        for blocks in (1, 2):
            y = hadamard_images(_axis(d), 500, blocks=blocks, generator=generator)
            row[f"cosine {blocks} {d}"] = float(sign_quantisation_cosine(y).mean())
    return row


def measure(setting: Setting) -> Row:
    """All five parts for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    row = _coordinates(setting.quick, generator) | _vectors(setting.quick, generator) | _tests(setting, generator)
    return row | _speed(setting.quick, generator) | _one_bit(generator)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's five checks."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows]

    falls = [max(r[f"ks 2 {k} {b}"] - r[f"ks 2 {k} {a}"] for k in (1, 2) for a, b in pairwise(_DIMS)) for r in rows]
    two = [max(r["ks 2 1 256"], r["ks 2 2 256"]) for r in rows]
    one = [min(r[f"ks 1 {k} {d}"] for k in (1, 2) for d in _DIMS) for r in rows]
    haar = [abs(r["gap haar"] / r["gap truth"] - 1) for r in rows]
    generic = [abs(r["gap generic"] / r["gap haar"] - 1) for r in rows]
    closed = [abs(r["gap root mean square haar"] / r["W2 closed form"] - 1) for r in rows]
    bits = [max(abs(r[f"cosine 2 {d}"] - math.sqrt(2 / math.pi)) for d in (1024, 4096)) for r in rows]
    degenerate = [max(abs(r[f"cosine 1 {d}"] - 1) for d in (1024, 4096)) for r in rows]
    ratio, error, gap = column("speed ratio"), column("length error"), column("gap axis")
    rejections, missed = column("test rejections"), column("vertices not separated")
    rate = sum(rejections) / len(rows)
    return [
        check("two blocks: change of the KS distance with d, the worst", falls, "< 0 in every seed", max(falls) < 0),
        check("two blocks: KS distance at d = 256", two, "< 0.05 in every seed", max(two) < 0.05),
        check("one block: smallest KS distance", one, "> 0.24 in every seed", min(one) > 0.24),
        check("vertex gap of an axis", gap, "< 1e-5", max(gap) < 1e-5),
        check("vertex gap of Haar against the law of |x|_1", haar, "relative difference <= 0.01", max(haar) <= 0.01),
        check("vertex gap of a random vector against Haar's", generic, "relative difference <= 0.02", max(generic) <= 0.02),
        check("root mean square gap of Haar against the closed W_2", closed, "relative difference <= 0.01", max(closed) <= 0.01),
        check("rejections of a coordinate by MMD, random vectors", rejections, "mean <= 0.1", rate <= 0.1),
        check("runs in which the vertex gap does not separate an axis", missed, "none", max(missed) == 0),
        check("dense product over rotation, processor time", ratio, ">= 10", min(ratio) >= 10, timing=True),
        check("relative error of lengths in float32", error, "<= 1e-5", max(error) <= 1e-5),
        check("one bit: cosine of two blocks on an axis minus 0.798", bits, "<= 0.01", max(bits) <= 0.01),
        check("one bit: cosine of one block on an axis minus 1", degenerate, "<= 1e-9", max(degenerate) <= 1e-9),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Kolmogorov distances against the dimension, and the vertex gaps of an axis, a random vector and Haar."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    lines = {
        "1 1": ("one block, axis", "#dc2626", "o-"),
        "1 2": ("one block, sum of two axes", "#f59e0b", "s-"),
        "2 1": ("two blocks, axis", "#2563eb", "o-"),
        "2 2": ("two blocks, sum of two axes", "#60a5fa", "s-"),
        "3 1": ("three blocks, axis", "#059669", "o-"),
    }
    for key, (label, colour, style) in lines.items():
        mean = [sum(r[f"ks {key} {d}"] for r in rows) / len(rows) for d in _DIMS]
        left.loglog(_DIMS, mean, style, color=colour, label=label)
    left.set(xlabel="dimension d", ylabel="Kolmogorov distance of a coordinate from Haar's", xticks=_DIMS, ylim=(None, 0.8))
    left.set_xticks(_DIMS, [str(d) for d in _DIMS], minor=False)
    left.minorticks_off()
    left.set_yticks((0.01, 0.03, 0.1, 0.3), ["0.01", "0.03", "0.1", "0.3"])
    left.legend(frameon=False, fontsize=8, ncols=2)
    names = ("two blocks, axis", "two blocks, random vector", "Haar")
    for gaps, name, colour in zip(rows[0]["_gaps"], names, ("#2563eb", "#6b7280", "#111827"), strict=True):
        right.hist(gaps.numpy(), bins=torch.linspace(0, 0.75, 151).tolist(), histtype="step", color=colour, label=name)
    right.set(xlabel="distance of the whole vector to the nearest vertex", ylabel="draws", yscale="log", xlim=(-0.03, 0.75))
    right.legend(frameon=False, loc="upper center")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="hadamard-rotations", measure=measure, judge=judge, draw=draw, swaps=True)
