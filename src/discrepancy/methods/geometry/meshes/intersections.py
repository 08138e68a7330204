"""Where a surface runs through itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy.methods.geometry.meshes.mesh import as_mesh
from discrepancy.methods.geometry.meshes.tree import TriangleTree


@dataclass(frozen=True, repr=False)
class SelfIntersections(Result):
    """The crossing `pairs` (k, 2) of faces, their `count` k, how many `faces` take part, and their `share` of all faces."""

    count: int
    faces: int
    share: float
    pairs: Int[Tensor, "k 2"] = field(repr=False)


def self_intersections(mesh: Any) -> SelfIntersections:
    """The pairs of faces of a mesh that go through each other.

    Faces that only touch do not cross: at a common corner or edge, or side by side in one plane. Faces of one plane that share
    area do. Neighbours at a common corner are tested like any others. Decided in float64 with volumes below their rounding
    counted as zero, so that contacts closer than 1e-14 of a face's size may go either way. Time about F log F, memory linear.
    Raises TypeError for a mesh that is not on the CPU.
    """
    surface = as_mesh(mesh)
    pairs = TriangleTree.of(surface).crossings()
    involved = len(torch.unique(pairs))
    return SelfIntersections(len(pairs), involved, involved / len(surface.faces), pairs)


__all__ = ["SelfIntersections", "self_intersections"]
