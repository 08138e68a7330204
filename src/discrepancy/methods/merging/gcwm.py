"""Geometry-conflict Wasserstein merging: merge in whitened coordinates where the updates' geometries clash."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import positive
from discrepancy.linalg import symmetric_power
from discrepancy.methods.merging.baselines import require_merge
from discrepancy.methods.merging.geometry_conflict import (
    Energy,
    LayerConflict,
    LayerGeometry,
    MergeWarning,
    as_matrices,
    check_options,
    layer_conflict,
    layer_geometry,
    target_layers,
    warn_clipped,
    warn_far,
)
from discrepancy.methods.merging.merge import Merge, MergedModel, merged_model, task_weights
from discrepancy.methods.merging.task_vectors import TaskVectors
from discrepancy.methods.merging.wudi import WUDI
from discrepancy.metric_spaces import Bures, CovarianceMetric

# A geometry branch longer than this many times the sum of the updates has blown up.
_EXPLODED = 2.0


@dataclass(frozen=True)
class Gate:
    """alpha = low + (high - low) sigmoid(sharpness (g - threshold)): the more conflict g, the more of the geometry branch.

    Within `skip` of 0 or 1 it counts as 0 or 1, and the other branch is left out.
    """

    threshold: float = 0.12
    sharpness: float = 10.0
    low: float = 0.0
    high: float = 1.0
    skip: float = 0.01

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        positive(self.sharpness, "sharpness")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"low and high must satisfy 0 <= low <= high <= 1, got {self.low!r} and {self.high!r}")
        if not 0 <= self.skip < 0.5:
            raise ValueError(f"skip must lie in [0, 0.5), got {self.skip!r}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be finite, got {self.threshold!r}")

    def __call__(self, conflict: float) -> float:
        """The share of the geometry branch."""
        z = self.sharpness * (conflict - self.threshold)
        half = math.exp(-abs(z))
        sigmoid = (1.0 if z >= 0 else half) / (1 + half)
        alpha = self.low + (self.high - self.low) * sigmoid
        return 0.0 if alpha < self.skip else 1.0 if alpha > 1 - self.skip else alpha


@dataclass(frozen=True, repr=False)
class GatedLayer(Result):
    """What the gate did in one layer: conflict, `alpha`, and the Frobenius norms of both branches and of the updates' sum.

    `geometric_norm` is None where that branch was left out. `details` has the conflict by pair.
    """

    layer: str
    conflict: float
    alpha: float
    geometric_norm: float | None
    plain_norm: float
    sum_norm: float
    details: LayerConflict = field(repr=False)


@dataclass(frozen=True, repr=False)
class GatedMerge(MergedModel):
    """A merged model with the `layers` that were gated."""

    layers: tuple[GatedLayer, ...]


@dataclass(frozen=True)
class GCWM(Merge):
    """Delta = alpha M({Delta_i F^-1/2}) F^1/2 + (1 - alpha) M({Delta_i}) for each linear layer, alpha = gate(conflict).

    F is the barycenter of the updates' metrics B_i in `metric` (Bures: the Wasserstein barycenter of centred Gaussians), extended
    from the shared subspace Q to all inputs by its ridge, F = Q B Q^T + ridge (I - Q Q^T); `residual` False drops what of the
    updates lies outside Q instead, which bounds the branch. M is any nonlinear `base_merge`: with a linear one (averages, sums)
    whitening and colouring cancel. Parameters that are no matrices are what M makes of the whole task vectors, and so is the
    plain branch: with a gate shut, GCWM is M, bit for bit.
    `rank`, `ridge`, `layers` and `kernels` are as in `GeometryConflict`. The ridge is relative; the branch multiplies what lies
    outside the leading directions by ridge^-1/2 before M sees it, so a small one blows up: a norm above twice that of the sum
    warns. One expert has no conflict. An eigendecomposition of q x q and two runs of M a layer. Source: 2605.09608 (2026).
    """

    rank: int | Energy = 16
    gate: Gate = Gate()
    base_merge: Merge = field(default_factory=WUDI)
    metric: CovarianceMetric = field(default_factory=Bures)
    ridge: float = 0.05
    residual: bool = True
    layers: tuple[str, ...] | None = None
    kernels: bool = False
    references: ClassVar[tuple[str, ...]] = ("gcwm",)

    def __post_init__(self) -> None:
        """Check the options; TypeError where an object is of the wrong kind, ValueError where a number is out of range."""
        check_options(self.rank, self.ridge, self.metric)
        positive(self.ridge, "ridge")
        require_merge(self.base_merge, "base_merge")
        if not isinstance(self.gate, Gate):
            raise TypeError(f"gate must be a Gate, got {type(self.gate).__name__}")

    @torch.no_grad()
    def merge(self, vectors: TaskVectors, weights: Any = None, *, generator: torch.Generator | None = None) -> GatedMerge:
        """Merge, and report the gate layer by layer."""
        share = task_weights(vectors, weights)
        warn_far(vectors, stacklevel=4)  # no_grad's wrapper is a frame too
        names = target_layers(vectors, self.layers, self.kernels)
        warn_clipped(vectors, names, self.rank, self.kernels, stacklevel=4)
        update = self.base_merge._updates(vectors, share, generator)
        gated = []
        for name in names:
            matrices = as_matrices(vectors, name, vectors.updates[name])
            plain = as_matrices(vectors, name, update[name][None])[0]
            mixed, row = self._layer(name, matrices, plain, share, generator)
            stored = mixed.mT if vectors.stored_transposed(name) else mixed.reshape(update[name].shape)
            update[name] = stored.to(update[name])
            gated.append(row)
        _warn_exploded(gated)
        return GatedMerge(**merged_model(repr(self), vectors, update, share, layers=tuple(gated)))

    def combine(self, updates: Tensor, weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One matrix (n, out, in); other parameters are M's."""
        plain = self.base_merge.combine(updates, weights, generator=generator)
        if updates.ndim != 3 or plain.numel() == 0:
            return plain
        return self._layer("", updates, plain, weights, generator)[0].to(plain)

    def _layer(
        self, name: str, matrices: Tensor, plain: Tensor, weights: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, GatedLayer]:
        geometry = layer_geometry(matrices, self.rank, self.ridge)
        report = layer_conflict(name, geometry, self.metric, weights)
        alpha, size = self.gate(report.conflict), None
        mixed = plain
        if alpha > 0 and geometry.basis.shape[1] > 0:
            branch = self._branch(geometry, weights, generator).to(plain)
            size = float(branch.norm())
            mixed = branch if alpha == 1 else alpha * branch + (1 - alpha) * plain
        total = float((matrices.double() * (len(weights) * weights.double())[:, None, None]).sum(0).norm())
        return mixed, GatedLayer(name, report.conflict, alpha, size, float(plain.norm()), total, report)

    def _branch(self, geometry: LayerGeometry, weights: Tensor, generator: torch.Generator | None) -> Tensor:
        """M in whitened coordinates, coloured again; in float64."""
        found = self.metric.mean(geometry.metrics, weights.double())
        found.outcome.warn("the barycenter of GCWM", stacklevel=4)
        Q = geometry.basis
        inverse, root = symmetric_power(found.point, -0.5), symmetric_power(found.point, 0.5)
        inside = geometry.matrices @ Q
        whitened = inside @ inverse
        if not self.residual:
            return self.base_merge.combine(whitened, weights.double(), generator=generator) @ root @ Q.mT
        edge = math.sqrt(geometry.ridge)
        full = whitened @ Q.mT + (geometry.matrices - inside @ Q.mT) / edge
        merged = self.base_merge.combine(full, weights.double(), generator=generator)
        within = merged @ Q
        return within @ root @ Q.mT + (merged - within @ Q.mT) * edge


def _warn_exploded(rows: list[GatedLayer]) -> None:
    big = [r for r in rows if r.geometric_norm is not None and r.geometric_norm > _EXPLODED * r.sum_norm]
    if big:
        worst = max(big, key=lambda r: r.geometric_norm / r.sum_norm if r.sum_norm else math.inf)  # type: ignore[operator]
        warnings.warn(
            f"the geometry branch is longer than {_EXPLODED:g} times the sum of the updates in {len(big)} of {len(rows)} "
            f"layer(s), most in {worst.layer!r} ({worst.geometric_norm:.3g} against {worst.sum_norm:.3g}): "
            "raise ridge, or take fewer steps",
            MergeWarning,
            stacklevel=4,
        )


__all__ = ["GCWM", "Gate", "GatedLayer", "GatedMerge"]
