"""Any discrepancy between samples as one between surfaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.methods.geometry.meshes.measures import Encoding, check_encoding, warn_of_mismatch
from discrepancy.methods.geometry.meshes.mesh import as_mesh
from discrepancy.transport import SlicedWasserstein


def check_discrepancy(discrepancy: Discrepancy | None) -> Discrepancy:
    """The discrepancy, sliced Wasserstein for None; TypeError for what is none."""
    if discrepancy is None:
        return SlicedWasserstein()
    if not isinstance(discrepancy, Discrepancy):
        raise TypeError(f"discrepancy must be an object such as SlicedWasserstein(), got {discrepancy!r}")
    return discrepancy


def mesh_discrepancy(
    first: Any,
    second: Any,
    discrepancy: Discrepancy | None = None,
    *,
    encoding: Encoding | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The discrepancy between two surfaces, read as measures by `encoding` (default: oriented varifolds).

    Any `Discrepancy` will do; by default the sliced Wasserstein distance, quasi-linear in the faces. An MMD of varifolds is
    their kernel norm, `Chamfer()` with `SampledPoints(n)` the usual loss of surface reconstruction. Differentiable in the
    vertices of both. Areas are divided out: a surface and the same surface covered twice are equal. Warns (`MeshWarning`) of
    scales more than ten times apart and of normals that point inward on one side only. Raises TypeError for what is no mesh,
    discrepancy or encoding. Source: Le, Nguyen, Sun, Han, Ho and Xie (2024).
    """
    a, b = as_mesh(first, "first"), as_mesh(second, "second")
    compare, read = check_discrepancy(discrepancy), check_encoding(encoding)
    warn_of_mismatch(a, b)
    x, y = read(a, generator=generator), read(b, generator=generator)
    return compare(x.points, y.points, x.weights, y.weights, generator=generator)


__all__ = ["check_discrepancy", "mesh_discrepancy"]
