"""Differential entropy from nearest-neighbour distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import whole_number
from discrepancy.estimation.rank_extrapolation import RankExtrapolation
from discrepancy.estimation.reference import FittedGaussian, GaussianReference, ball_nodes
from discrepancy.neighbors import Norm, nearest_neighbors

_COVERED = 3  # dimensions up to which the interval's coverage has been measured


@dataclass(frozen=True)
class KozachenkoLeonenko:
    """The entropy h(X) = -E log p(X), in nats, from the distance r_i of each row to its k-th neighbour:

        h = psi(n) - psi(k) + mean_i log V(r_i),

    V(r) the volume of the Euclidean ball, or with norm="maximum" of the cube, after an affine map to unit covariance whose
    logarithmic volume is added back; the value of a x + b is hence that of x plus log |a|, exactly. With a `reference` V is
    measured by the fitted Gaussian law, in full where the sample is nearly Gaussian and less the farther it is (balls only; None:
    volumes as they are). What bias remains is that of a density that is not constant in the ball; `extrapolation` measures it and
    gives the interval (None: no interval). Not differentiable; nothing is drawn.

    Time O(n log n) in low dimension, memory O(n k).
    Raises ValueError for k < 1, fewer than k + 2 rows, rows that coincide with k others, and samples in a subspace: such laws
    have no density, and entropy -inf.
    """

    k: int = 5
    norm: Norm = "euclidean"
    reference: GaussianReference | None = field(default_factory=GaussianReference)
    extrapolation: RankExtrapolation | None = field(default_factory=RankExtrapolation)

    references = ("kozachenko-leonenko-1987", "lombardi-pant-2016")

    def __post_init__(self) -> None:
        whole_number(self.k, 1, "k")
        if self.norm not in ("euclidean", "maximum"):
            raise ValueError(f"norm must be 'euclidean' or 'maximum', got {self.norm!r}")

    @torch.no_grad()
    def entropy(self, x: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None) -> Estimate:
        """h(X) from a sample x (n, d). `generator` is accepted and not used."""
        n, d = x.shape
        if n < max(self.k, d) + 2:
            raise ValueError(f"k = {self.k} neighbours in {d} dimensions need at least {max(self.k, d) + 2} rows, got {n}")
        z, log_volume = _whitened(x.double())
        found = nearest_neighbors(z, z, self.k, exclude_self=True, norm=self.norm)
        stuck = int((found.distances[:, -1] == 0).sum())
        if stuck:
            raise ValueError(
                f"{stuck} of {n} rows coincide with {self.k} others: a law with repeats has no density; for discrete data take "
                "the entropy of the shares"
            )
        notes = []
        ties = int((found.distances[:, 0] == 0).sum())
        if ties:
            notes.append(f"{ties} of {n} rows are duplicates, which a density has none of")
        weight = self._weight(z)

        def statistic(samples: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
            return log_volume + self._at_ranks(samples[0], ranks, weight)

        reference = "no reference" if weight is None else f"Gaussian reference with weight {weight:.2f}"
        method = f"Kozachenko-Leonenko, k = {self.k}, {found.engine}, {reference}"
        if self.extrapolation is not None and d <= _COVERED:
            return self.extrapolation.estimate(
                statistic, [z], self.k, paired=False, level=level, method=method, notes=notes, dimension=d
            )
        why = (
            "the extrapolation is switched off"
            if self.extrapolation is None
            else (f"in {d} dimensions the smoothing bias is not known to be smaller than the standard error")
        )
        value = float(statistic([z], (self.k,))[0])
        return Estimate(value, None, None, None, None, method, "; ".join([f"no interval: {why}", *notes]))

    def _weight(self, z: Tensor) -> float | None:
        """The reference's weight, from the negentropy that its own full use would find."""
        if self.reference is None or self.norm == "maximum":
            return None
        full = float(self._at_ranks(z, (self.k,), 1.0)[0])
        return self.reference.weight(-full - FittedGaussian.fit(z).mean_log_density())

    def _at_ranks(self, z: Tensor, ranks: Sequence[int], weight: float | None) -> Tensor:
        n, d = z.shape
        radii = nearest_neighbors(z, z, max(ranks), exclude_self=True, norm=self.norm).distances
        unit = d * math.log(2) if self.norm == "maximum" else d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
        k = torch.tensor(ranks, dtype=torch.float64)
        columns = radii[:, torch.tensor(ranks) - 1]
        values = torch.digamma(torch.tensor(float(n), dtype=torch.float64)) - torch.digamma(k) + unit + d * columns.log().mean(0)
        if weight:
            fit, nodes = FittedGaussian.fit(z), ball_nodes(d, z)
            corrections = [fit.log_volume_ratio(z, r, nodes).mean() for r in columns.unbind(1)]
            values = values + weight * torch.stack(corrections)
        return values


def _whitened(x: Tensor) -> tuple[Tensor, float]:
    """The sample at unit covariance, and the log of the volume that the map back multiplies by."""
    centred = x - x.mean(0)
    scale = centred.abs().amax(0)
    flat = int((scale == 0).sum())
    if flat:
        raise ValueError(
            f"{flat} of {x.shape[1]} columns of x are constant: a law in a subspace has no density, and entropy -inf"
        )
    centred = centred / scale
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
    if bool((values <= 1e-12 * values[-1]).any()):
        spans = int((values > 1e-12 * values[-1]).sum())
        raise ValueError(f"x spans {spans} of {x.shape[1]} dimensions: a law in a subspace has no density, and entropy -inf")
    return centred @ (vectors / values.sqrt()), float(scale.log().sum() + values.log().sum() / 2)


__all__ = ["KozachenkoLeonenko"]
