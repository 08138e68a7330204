"""How much the updates of several tasks get into each other's way, layer by layer: the conflict of their geometries."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import at_least, fraction, whole_number
from discrepancy.methods.merging.merge import task_weights
from discrepancy.methods.merging.task_vectors import TaskVectors
from discrepancy.metric_spaces import Bures, CovarianceMetric


class MergeWarning(UserWarning):
    """Something about the models to merge is suspicious: too far from the base, a rank cut off, a branch that blew up."""


@dataclass(frozen=True)
class Energy:
    """As many singular directions as carry this share of an update's squared Frobenius norm."""

    share: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for a share outside (0, 1)."""
        fraction(self.share, "share")


@dataclass(frozen=True)
class LayerGeometry:
    """The shared coordinates of K updates Delta_k (out, in) of one layer, and each update's metric in them.

    `basis` Q (in, q) spans the leading right singular vectors of all; `metrics` (K, q, q) are Q^T V_k diag(s_k^2) V_k^T Q +
    ridge I; `frames` the V_k (in, r_k). In float64.
    """

    matrices: Tensor
    basis: Tensor
    metrics: Tensor
    frames: tuple[Tensor, ...]
    ridge: float

    def norms(self) -> Tensor:
        """|Delta_k|_F, (K,)."""
        return torch.linalg.matrix_norm(self.matrices)

    def cosines(self) -> Tensor:
        """<Delta_i, Delta_j> / (|Delta_i| |Delta_j|), (K, K); 0 where an update is zero."""
        flat = self.matrices.flatten(1)
        return _ratio(flat @ flat.mT, torch.outer(self.norms(), self.norms()))

    def alignment(self) -> Tensor:
        """The subspace alignment ratios |Delta_i V_j|_F / |Delta_i|_F, (K, K); 0 where an update is zero. Blind to spectra."""
        across = torch.stack([torch.linalg.matrix_norm(self.matrices @ frame) for frame in self.frames], 1)
        return _ratio(across, self.norms()[:, None].expand_as(across))

    def conflict(self, metric: CovarianceMetric) -> Tensor:
        """d^2(B_i, B_j) / (d^2(B_i, O) + d^2(B_j, O)), (K, K), in [0, 1]; exactly symmetric, zero on the diagonal.

        O is the metric's floor: the zero matrix where that is at a finite distance (Bures: tr B_i + tr B_j below the line), and
        ridge I for metrics of definite matrices.
        """
        B = self.metrics
        if B.shape[-1] == 0:
            return B.new_zeros(len(B), len(B))
        eye = torch.eye(B.shape[-1], dtype=B.dtype)
        floor = metric.squared(B, self.ridge * eye if metric.definite else torch.zeros_like(eye))
        upper = metric.squared(B[:, None], B[None, :]).triu(1)
        return _ratio(upper + upper.mT, floor[:, None] + floor[None, :])


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, torch.ones_like(below)), torch.zeros_like(above))


def layer_geometry(matrices: Tensor, rank: int | Energy, ridge: float) -> LayerGeometry:
    """The geometry of K updates (K, out, in) of one layer from their leading `rank` singular directions.

    `ridge` is relative: the number added to each metric's diagonal is `ridge` times the mean over updates of |Delta|_F^2 / in.
    Singular values that are rounding of the largest count as zero. K singular value decompositions of (out, in).
    """
    matrices = matrices.detach().double()
    _, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    frames, spectra = [], []
    for s, rows in zip(sizes, right, strict=True):
        real = int((s > s[0] * max(matrices.shape[1:]) * torch.finfo(torch.float32).eps).sum())
        if isinstance(rank, Energy):
            energy = s.square().cumsum(0)
            kept = int((energy < rank.share * energy[-1]).sum()) + 1
        else:
            kept = rank
        kept = min(kept, real)
        frames.append(rows[:kept].mT)
        spectra.append(s[:kept].square())
    together = torch.cat(frames, 1)
    left, strength, _ = torch.linalg.svd(together, full_matrices=False)
    basis = left[:, strength > 1e-6]
    absolute = ridge * float(matrices.square().sum((1, 2)).mean()) / matrices.shape[-1]
    eye = torch.eye(basis.shape[1], dtype=torch.float64)
    metrics = []
    for frame, energy in zip(frames, spectra, strict=True):
        inside = basis.mT @ frame
        B = (inside * energy) @ inside.mT
        metrics.append((B + B.mT) / 2 + absolute * eye)
    return LayerGeometry(matrices, basis, torch.stack(metrics), tuple(frames), absolute)


@dataclass(frozen=True, repr=False)
class LayerConflict(Result):
    """One layer's conflict: the mean over pairs of tasks, and by pair (K, K) `pairs`, `alignment`, `cosines`; `norms` (K,).

    `subspace` is the number of shared coordinates, `ridge` what the metrics were raised by.
    """

    layer: str
    conflict: float
    subspace: int
    ridge: float
    pairs: Tensor
    alignment: Tensor
    cosines: Tensor
    norms: Tensor


@dataclass(frozen=True, repr=False)
class ConflictReport(Result):
    """The conflict of task vectors, layer by layer; `conflict` is the mean over layers."""

    conflict: float
    layers: tuple[LayerConflict, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a layer and pair of tasks, ready for a DataFrame: conflict, symmetrised alignment, cosine, both norms."""
        out = []
        for layer in self.layers:
            K = len(layer.norms)
            for i in range(K):
                for j in range(i + 1, K):
                    out.append(
                        {
                            "layer": layer.layer,
                            "first": i,
                            "second": j,
                            "conflict": float(layer.pairs[i, j]),
                            "alignment": float((layer.alignment[i, j] + layer.alignment[j, i]) / 2),
                            "cosine": float(layer.cosines[i, j]),
                            "first_norm": float(layer.norms[i]),
                            "second_norm": float(layer.norms[j]),
                        }
                    )
        return out


def mean_conflict(pairs: Tensor, weights: Tensor) -> float:
    """sum over i < j of w_ij gamma_ij with w_ij proportional to w_i w_j; 0 for a single update."""
    share = torch.outer(weights, weights).to(pairs).triu(1)
    total = float(share.sum())
    return float((share * pairs).sum()) / total if total > 0 else 0.0


def layer_conflict(name: str, geometry: LayerGeometry, metric: CovarianceMetric, weights: Tensor) -> LayerConflict:
    """The report of one layer."""
    pairs = geometry.conflict(metric)
    return LayerConflict(
        name,
        mean_conflict(pairs, weights),
        geometry.basis.shape[1],
        geometry.ridge,
        pairs,
        geometry.alignment(),
        geometry.cosines(),
        geometry.norms(),
    )


def target_layers(vectors: TaskVectors, layers: Iterable[str] | None, kernels: bool) -> tuple[str, ...]:
    """The parameters that are treated as matrices: those named, else all matrices that are no tables of embeddings.

    `kernels` adds convolution kernels. Raises ValueError for a name that is unknown or no matrix.
    """
    allowed = (2, 3, 4, 5) if kernels else (2,)
    if layers is None:
        return tuple(k for k, v in vectors.base.items() if v.ndim in allowed and v.numel() and not vectors.is_embedding(k))
    names = tuple(layers)
    for name in names:
        if name not in vectors.base:
            raise ValueError(f"layers names {name!r}, which is no parameter; the first one is {vectors.names[0]!r}")
        shape = tuple(vectors.base[name].shape)
        if len(shape) not in allowed:
            hint = "; kernels=True reads a convolution's kernel as a matrix" if len(shape) > 2 else ""
            raise ValueError(f"layers names {name!r} of shape {shape}, which is no matrix{hint}")
    return names


def as_matrices(vectors: TaskVectors, name: str, updates: Tensor) -> Tensor:
    """Updates (K, *shape) of a parameter as matrices (K, out, in): kernels flattened, (in, out) storage transposed."""
    return updates.mT if vectors.stored_transposed(name) else updates.flatten(2)


def check_options(rank: Any, ridge: float, metric: Any) -> None:
    """ValueError or TypeError for options that no geometry can be built with."""
    if not isinstance(rank, Energy):
        whole_number(rank, 1, "rank")
    at_least(ridge, 0.0, "ridge")
    if not isinstance(metric, CovarianceMetric):
        raise TypeError(f"metric must be a CovarianceMetric such as Bures() or AffineInvariant(), got {type(metric).__name__}")
    if metric.definite and ridge == 0:
        raise ValueError(f"{metric!r} is defined for definite matrices only: ridge must be positive, got 0")


def warn_far(vectors: TaskVectors, *, stacklevel: int = 3) -> None:
    """Warn where an expert moved farther than the base is long: it may come from another base. A base of zeros is meant."""
    norms, base = vectors.norms(), vectors.base_norm()
    far = [i for i in range(len(vectors)) if float(norms[i]) > base > 0]
    if far:
        warnings.warn(
            f"expert(s) {far} moved by {float(norms[far[0]]):.3g}, farther than the base is long ({base:.3g}): "
            "are they fine-tunings of this base?",
            MergeWarning,
            stacklevel=stacklevel,
        )


def warn_clipped(vectors: TaskVectors, names: tuple[str, ...], rank: int | Energy, kernels: bool, *, stacklevel: int = 3) -> None:
    """Warn where the rank exceeds what a layer has."""
    if isinstance(rank, Energy):
        return
    clipped = [k for k in names if rank > min(as_matrices(vectors, k, vectors.updates[k][:1]).shape[1:])]
    if clipped:
        warnings.warn(f"rank {rank} exceeds the smaller side of {len(clipped)} layer(s), first {clipped[0]!r}: clipped there",
                      MergeWarning, stacklevel=3)  # fmt: skip


@dataclass(frozen=True)
class GeometryConflict:
    """The conflict of task vectors in every linear layer, from the geometry C_k = Delta_k^T Delta_k of what each one changed.

    In the joint span Q of the leading `rank` right singular vectors of all updates each is B_k = Q^T V_k S_k^2 V_k^T Q + ridge
    I, and the conflict of two is d^2(B_i, B_j) over their distances from the floor: 0 where both change the same input
    directions as strongly, near 1 where they change orthogonal ones. `metric` is any metric on covariances (Bures is the
    paper's); `ridge` is relative to |Delta|_F^2 / in. `layers` names parameters (default: all matrices but embeddings),
    `kernels` adds convolutions. High conflict is not by itself harm: orthogonal updates do not disturb each other.
    State-relative versions: task vectors of the state so far and the new expert. Source: 2605.09608 (2026).
    """

    rank: int | Energy = 16
    metric: CovarianceMetric = field(default_factory=Bures)
    ridge: float = 1e-3
    layers: tuple[str, ...] | None = None
    kernels: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.rank, self.ridge, self.metric)

    def report(self, vectors: TaskVectors, weights: Any = None) -> ConflictReport:
        """Layer by layer; weights (n,) of the experts sum to one. A singular value decomposition an expert and layer."""
        share = task_weights(vectors, weights)
        warn_far(vectors)
        names = target_layers(vectors, self.layers, self.kernels)
        warn_clipped(vectors, names, self.rank, self.kernels)
        found = []
        for name in names:
            geometry = layer_geometry(as_matrices(vectors, name, vectors.updates[name]), self.rank, self.ridge)
            found.append(layer_conflict(name, geometry, self.metric, share))
        if not found:
            raise ValueError("there is no layer to compare: no parameter is a matrix")
        return ConflictReport(sum(layer.conflict for layer in found) / len(found), tuple(found))


__all__ = [
    "ConflictReport",
    "Energy",
    "GeometryConflict",
    "LayerConflict",
    "LayerGeometry",
    "MergeWarning",
    "as_matrices",
    "check_options",
    "layer_conflict",
    "layer_geometry",
    "mean_conflict",
    "target_layers",
    "warn_clipped",
    "warn_far",
]
