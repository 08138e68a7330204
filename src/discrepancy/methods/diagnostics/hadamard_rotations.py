"""May a structured rotation replace a uniform one? A report for the vector, the blocks and the statistics that matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result, TestResult
from discrepancy._validate import generator_or_default
from discrepancy.directions import (
    haar_images,
    hadamard_images,
    marginal_ks,
    sign_quantisation_cosine,
    sketch_distortion,
    vertex_gap,
)
from discrepancy.inference import permutation_test
from discrepancy.kernel_methods import MMD


@dataclass(frozen=True, repr=False)
class RotationReport(Result):
    """How the images of one vector under structured rotations differ from those under Haar's, on `count` draws of each.

    `marginal_ks` and `marginal_ks_critical`: the Kolmogorov distance of a coordinate from its law under Haar's, and what only
    one sample in twenty exceeds without a difference. `vertex_gap`, `vertex_gap_haar`: mean distances to the nearest vertex
    of the transformed cube, a lower bound on W_1 by their difference. `distortion`, `distortion_haar`: 95 % quantiles of the
    relative error of squared length when an eighth of the coordinates is kept. `sign_cosine`, `sign_cosine_haar`: what one
    bit a coordinate keeps. `largest`, `largest_haar`: 95 % quantiles of the largest coordinate, in units of |u| / sqrt(d),
    which sets the range of a uniform quantiser. `coordinate_test`, `vector_test`: two-sample tests of a coordinate and of
    whole vectors.
    """

    blocks: int
    dimension: int
    count: int
    marginal_ks: float
    marginal_ks_critical: float
    vertex_gap: float
    vertex_gap_haar: float
    distortion: float
    distortion_haar: float
    sign_cosine: float
    sign_cosine_haar: float
    largest: float
    largest_haar: float
    coordinate_test: TestResult
    vector_test: TestResult

    references = ("hadamard-rotations",)


def hadamard_rotations(
    u: Any,
    D: Discrepancy | None = None,
    *,
    blocks: int = 2,
    coordinate: int = 0,
    count: int = 500,
    permutations: int = 199,
    generator: torch.Generator | None = None,
) -> RotationReport:
    """Compare the images of u (d,) under `blocks`-block Hadamard rotations with those under Haar rotations.

    d a power of two. D (default `MMD()`, a Gaussian kernel at the median distance) compares one coordinate, and whole vectors,
    in permutation tests on `count` images of each kind, scaled to coordinates of variance one. A test that does not reject
    tells little about special vectors: a smooth kernel does not see that the image of an axis is a vertex of a cube, which
    the vertex gap shows at once. Ask with the sparsest vectors that your application meets, not with random ones.
    Time: count d log d, and D's permutation tests. Memory: count x d.
    Raises ValueError for u = 0, a d that is no power of two, or a coordinate outside. Source: Zilca and Mendelson (2026).
    """
    D = MMD() if D is None else D
    source = generator_or_default(generator)
    y = hadamard_images(u, count, blocks=blocks, generator=source)
    z = haar_images(u, count, generator=source)
    d = y.shape[-1]
    if not 0 <= coordinate < d:
        raise ValueError(f"coordinate must lie between 0 and {d - 1}, got {coordinate!r}")
    scale = math.sqrt(d) / float(torch.linalg.vector_norm(y[0].double()))
    y, z = y * scale, z * scale
    kept = max(d // 8, 1)

    def test(a: Tensor, b: Tensor) -> TestResult:
        return permutation_test(a, b, D, permutations=permutations, generator=source)

    def quantile(values: Tensor) -> float:
        return float(values.abs().quantile(0.95))

    return RotationReport(
        blocks=blocks,
        dimension=d,
        count=count,
        marginal_ks=float(marginal_ks(y[:, coordinate] / math.sqrt(d), d)),
        marginal_ks_critical=1.3581 / math.sqrt(count),
        vertex_gap=float(vertex_gap(y).mean()),
        vertex_gap_haar=float(vertex_gap(z).mean()),
        distortion=quantile(sketch_distortion(y, kept)),
        distortion_haar=quantile(sketch_distortion(z, kept)),
        sign_cosine=float(sign_quantisation_cosine(y).mean()),
        sign_cosine_haar=float(sign_quantisation_cosine(z).mean()),
        largest=quantile(y.abs().amax(-1)),
        largest_haar=quantile(z.abs().amax(-1)),
        coordinate_test=test(y[:, coordinate : coordinate + 1], z[:, coordinate : coordinate + 1]),
        vector_test=test(y, z),
    )


__all__ = ["RotationReport", "hadamard_rotations"]
