"""What a good mesh avoids, as small terms beside a loss: uneven edges, sharp bends, lost area."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least
from discrepancy.methods.geometry.meshes.mesh import Mesh


@dataclass(frozen=True)
class MeshPenalty(ABC):
    """A term `weight` times something that does not depend on the scale, called with the deformed mesh and its target."""

    weight: float = 0.01

    def __post_init__(self) -> None:
        """Raise ValueError unless weight >= 0."""
        at_least(self.weight, 0.0, "weight")

    def __call__(self, deformed: Mesh, target: Mesh) -> Tensor:
        """The weighted penalty, differentiable in the vertices of `deformed`."""
        return self.weight * self._value(deformed, target)

    @abstractmethod
    def _value(self, deformed: Mesh, target: Mesh) -> Tensor: ...


@dataclass(frozen=True)
class EdgeLengthVariance(MeshPenalty):
    """The variance of the edges' lengths over their squared mean."""

    def _value(self, deformed: Mesh, target: Mesh) -> Tensor:
        ends = deformed.vertices[deformed.edges]
        length = torch.linalg.vector_norm(ends[:, 0] - ends[:, 1], dim=-1)
        return length.var(correction=0) / length.mean().square()


@dataclass(frozen=True)
class NormalBending(MeshPenalty):
    """The mean of 1 - cos(angle) between the normals of neighbouring faces: 0 on a plane."""

    def _value(self, deformed: Mesh, target: Mesh) -> Tensor:
        normals = deformed.normals()[deformed.neighbours]
        return (1 - (normals[:, 0] * normals[:, 1]).sum(-1)).mean()


@dataclass(frozen=True)
class LaplacianSmoothing(MeshPenalty):
    """The mean squared distance of a vertex from the mean of its neighbours, over the mean squared edge length."""

    def _value(self, deformed: Mesh, target: Mesh) -> Tensor:
        x, (i, j) = deformed.vertices, deformed.edges.T
        total = torch.zeros_like(x).index_add(0, i, x[j]).index_add(0, j, x[i])
        count = torch.zeros_like(x[:, :1]).index_add(0, torch.cat([i, j]), torch.ones_like(x[torch.cat([i, j]), :1]))
        used = count[:, 0] > 0
        away = (x[used] - total[used] / count[used]).square().sum(-1).mean()
        return away / (x[i] - x[j]).square().sum(-1).mean()


@dataclass(frozen=True)
class AreaDifference(MeshPenalty):
    """(S / S_target - 1)^2 of the total areas: what a measure of mass one does not see, such as a surface covered twice."""

    def _value(self, deformed: Mesh, target: Mesh) -> Tensor:
        return (deformed.area() / target.detached().area() - 1).square()


__all__ = ["AreaDifference", "EdgeLengthVariance", "LaplacianSmoothing", "MeshPenalty", "NormalBending"]
