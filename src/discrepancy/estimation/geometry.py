"""Two samples in common coordinates, the neighbourhoods of one in both, and their volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.estimation.reference import FittedGaussian, GaussianReference, ball_nodes
from discrepancy.neighbors import Neighbors, nearest_neighbors


@dataclass(frozen=True)
class Neighborhoods:
    """Around each of n points the ball to the k-th neighbour in its own sample and that in the other sample, of m points.

    `log_ratio` (n,) is the log of the other ball's volume over the own ball's, corrected by the reference with `weight`.
    """

    points: Tensor
    own: Neighbors
    other: Neighbors
    m: int
    weight: float
    fits: tuple[FittedGaussian, FittedGaussian] | None
    nodes: Tensor | None
    log_ratio: Tensor

    @property
    def n(self) -> int:
        """How many balls of each kind."""
        return len(self.points)

    def shared(self, contribution: Tensor) -> tuple[Tensor, Tensor]:
        """Each point's sum of the contributions (n,) of the balls that it lies in: (n,) in its own sample, (m,) in the other."""
        totals = []
        for neighbors, count in ((self.own, self.n), (self.other, self.m)):
            spread = contribution[:, None].expand_as(neighbors.distances).reshape(-1)
            totals.append(contribution.new_zeros(count).index_add_(0, neighbors.indices.reshape(-1), spread))
        return totals[0], totals[1]

    def through_reference(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Each point's influence on mean(slope * log_ratio) through the fitted references: (n,) and (m,)."""
        if self.fits is None or self.nodes is None or self.weight == 0:
            return slope.new_zeros(self.n), slope.new_zeros(self.m)
        own, other = self.fits
        return (
            -own.influence(self.points, self.own.distances[:, -1], self.nodes, self.weight * slope),
            other.influence(self.points, self.other.distances[:, -1], self.nodes, self.weight * slope),
        )


@dataclass(frozen=True)
class Space:
    """x and y after the affine map to unit pooled covariance, with the weight of the reference and what there is to remark.

    `negentropy` is the larger of the two samples' KL from their fitted Gaussians, infinite where none is fitted.
    """

    x: Tensor
    y: Tensor
    k: int
    own_x: Neighbors
    own_y: Neighbors
    weight: float
    fits: tuple[FittedGaussian, FittedGaussian] | None
    nodes: Tensor | None
    notes: tuple[str, ...]
    negentropy: float = math.inf

    @staticmethod
    def of(x: Tensor, y: Tensor, k: int, reference: GaussianReference | None) -> Space:
        """The common space of two samples. A divergence is invariant under an invertible map of both.

        Raises ValueError where k + 1 points of a sample coincide, or a sample lies in a subspace of what both span.
        """
        notes: list[str] = []
        x, y = _whitened(x, y, notes)
        own_x, own_y = (nearest_neighbors(s, s, k, exclude_self=True) for s in (x, y))
        for name, own in (("x", own_x), ("y", own_y)):
            _require_no_atoms(name, own, k)
            ties = int((own.distances[:, 0] == 0).sum())
            if ties:
                notes.append(f"{ties} of {len(own.distances)} points of {name} are duplicates, which a density has none of")
        d = x.shape[1]
        fits, nodes, weight, negentropy = None, None, 0.0, math.inf
        if reference is not None and min(len(x), len(y)) > d + 1:
            fits = (FittedGaussian.fit(x), FittedGaussian.fit(y))
            nodes = ball_nodes(d, x)
            negentropy = max(_negentropy(s, own, fit, nodes, k) for s, own, fit in zip((x, y), (own_x, own_y), fits, strict=True))
            weight = reference.weight(negentropy)
        return Space(x, y, k, own_x, own_y, weight, fits, nodes, tuple(notes), negentropy)

    @property
    def dimension(self) -> int:
        """The dimensions that the samples span."""
        return self.x.shape[1]

    def describe(self) -> str:
        """The engine and the reference's weight, in words."""
        reference = "no reference" if self.fits is None else f"Gaussian reference with weight {self.weight:.2f}"
        return f"{self.own_x.engine}, {reference}"

    def neighborhoods(self, forward: bool) -> Neighborhoods:
        """The balls around the points of x (forward) or of y."""
        points, others = (self.x, self.y) if forward else (self.y, self.x)
        own = self.own_x if forward else self.own_y
        other = nearest_neighbors(points, others, self.k)
        r, s = own.distances[:, -1], other.distances[:, -1]
        if bool((s == 0).any()):
            raise ValueError(
                f"{int((s == 0).sum())} points of one sample coincide with {self.k} points of the other: nearest neighbours need "
                "continuous data; for values with repeats use from_probs on their shares"
            )
        log_ratio = points.shape[1] * (torch.log(s) - torch.log(r))
        fits = self.fits
        if fits is not None and self.nodes is not None and self.weight > 0:
            fits = fits if forward else (fits[1], fits[0])
            correction = fits[1].log_volume_ratio(points, s, self.nodes) - fits[0].log_volume_ratio(points, r, self.nodes)
            log_ratio = log_ratio + self.weight * correction
        return Neighborhoods(points, own, other, len(others), self.weight, fits, self.nodes, log_ratio)


def _whitened(x: Tensor, y: Tensor, notes: list[str]) -> tuple[Tensor, Tensor]:
    n, m = len(x), len(y)
    centre = (x.mean(0) + y.mean(0)) / 2
    x, y = x - centre, y - centre
    scale = torch.cat([x, y]).abs().amax(0)
    varies = scale > 0
    if not bool(varies.any()):
        raise ValueError("x and y are one and the same point: a density needs values that vary")
    x, y = x[:, varies] / scale[varies], y[:, varies] / scale[varies]
    inner = [s - s.mean(0) for s in (x, y)]
    covariance = (inner[0].T @ inner[0] + inner[1].T @ inner[1]) / (n + m - 2)
    values, vectors = torch.linalg.eigh(covariance)
    spans = values > 1e-12 * values[-1]
    d, rank = len(scale), int(spans.sum())
    basis = vectors[:, spans] / values[spans].sqrt()
    if rank < d:
        gap = (x.mean(0) - y.mean(0)) @ vectors[:, ~spans]
        if bool((gap.abs() > 1e-6).any()):
            raise ValueError("x and y lie in parallel, distinct subspaces: their divergence is infinite")
        notes.append(f"the samples span {rank} of {d} dimensions, in which they are compared")
    x, y = x @ basis, y @ basis
    for name, s in (("x", x), ("y", y)):
        if len(s) > rank + 1 and float(torch.linalg.eigvalsh(torch.cov(s.T).reshape(rank, rank))[0]) < 1e-12:
            raise ValueError(f"{name} lies in a subspace of what x and y span: one law has no density with respect to the other")
    return x, y


def _require_no_atoms(name: str, own: Neighbors, k: int) -> None:
    atoms = int((own.distances[:, -1] == 0).sum())
    if atoms:
        raise ValueError(
            f"{atoms} of {len(own.distances)} points of {name} coincide with {k} others or more: nearest neighbours need "
            "continuous data; for values with repeats use from_probs on their shares, or a k above the number of repeats"
        )


def _negentropy(s: Tensor, own: Neighbors, fit: FittedGaussian, nodes: Tensor, k: int) -> float:
    """KL(P || fitted Gaussian) in nats: the nearest-neighbour log-density, reference included, less the Gaussian's."""
    n, d = s.shape
    radius = own.distances[:, -1]
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    log_volume = d * torch.log(radius) + fit.log_volume_ratio(s, radius, nodes) + ball
    counts = torch.digamma(torch.tensor([float(k), float(n)], dtype=torch.float64))
    return float(counts[0] - counts[1] - log_volume.mean()) - fit.mean_log_density()


__all__ = ["Neighborhoods", "Space"]
