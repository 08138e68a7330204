"""A bandwidth from the data: cross-validated prediction at the end of the data, as at a cutoff."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import fraction, whole_number
from discrepancy.inference.metric_jumps.regression import blocks_of_places, local_means
from discrepancy.inference.metric_jumps.smoothing import Side, SmoothingKernel, local_linear_weights
from discrepancy.metric_spaces import MetricSpace


@dataclass(frozen=True)
class CrossValidated:
    """The bandwidth that predicts held-out points best from one side only, times `undersmooth`.

    Points are split into `folds` by their rank on their side (no randomness). A held-out point right of the cutoff is predicted
    from training points to its right, one left of it from points to its left: the predictions are made at the end of the data,
    as the test does at the cutoff. Scored are the `nearest` share of points of each side (at most `scored` of
    them, evenly spread), by the mean squared distance, for `candidates` bandwidths from the smallest that the test can use to
    `widest` times the range of X, in equal ratios. The factor below one makes the bias of the local fits small against their
    error. Time: candidates x 2 scored Frechet means at most. Memory: 16 n.
    Source: Imbens and Lemieux (2008) for the one-sided prediction.
    """

    folds: int = 5
    candidates: int = 10
    nearest: float = 0.5
    scored: int = 200
    widest: float = 0.5
    undersmooth: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for options outside their ranges."""
        for name, least in (("folds", 2), ("candidates", 1), ("scored", 1)):
            value = getattr(self, name)
            whole_number(value, least, name)
        fraction(self.widest, "widest")
        for name in ("nearest", "undersmooth"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)!r}")

    def choose(self, Y: Tensor, x: Tensor, cutoff: float, space: MetricSpace, kernel: SmoothingKernel, min_points: int) -> float:
        """The undersmoothed bandwidth for a validated sample; ValueError where no point can be predicted."""
        right = x >= cutoff
        distance = (x - cutoff).abs()
        needed = [float(distance[s].sort().values[min_points - 1]) for s in (right, ~right)]
        least = max(needed) * (1 + 1e-6) / self.undersmooth
        most = max(self.widest * float(x.max() - x.min()), least)
        grid = torch.logspace(0, 1, self.candidates, base=most / least, dtype=torch.float64) * least
        scored = torch.zeros_like(right)
        fold = torch.zeros_like(x, dtype=torch.int64)
        for s in (right, ~right):
            order = distance[s].argsort(stable=True).argsort(stable=True)
            fold[s] = order % self.folds
            near = max(int(self.nearest * int(s.sum())), 1)
            # At most `scored` of them, spread evenly over the ranks.
            scored[s] = (order < near) & ((order * self.scored) % near < self.scored)
        rows = scored.nonzero()[:, 0]
        rows = rows[x[rows].argsort()]  # neighbours share their searches

        def seen(block: slice) -> Tensor:
            at = rows[block, None]
            beyond = torch.where(right[at], x[None, :] > x[at], x[None, :] < x[at])
            return beyond & (fold[None, :] != fold[at]) & (right[None, :] == right[at])

        least_h = float(grid[0])
        usable = torch.cat(
            [
                local_linear_weights(x, x[rows[block]], least_h, kernel, Side.BOTH, seen(block)).solvable
                for block in blocks_of_places(len(rows), len(x))
            ]
        )
        if not bool(usable.any()):
            raise ValueError("no held-out point near the cutoff can be predicted: give the bandwidth as a number")
        rows = rows[usable]
        scores = []
        for h in grid.tolist():
            found = local_means(space, Y, x, x[rows], h, kernel, Side.BOTH, seen)
            found.outcome.warn("cross-validation of the bandwidth")
            scores.append(float(space._squared(Y[rows], found.points).mean()))
        best = min(range(len(scores)), key=lambda k: (scores[k], -k))
        return self.undersmooth * float(grid[best])


__all__ = ["CrossValidated"]
