"""Finitely many features whose inner products are a kernel's, exactly at chosen points and nearly so close to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.kernels.kernel import Kernel


@dataclass(frozen=True, eq=False)
class LandmarkFeatures:
    """phi(x) = (k(x, l_1), ..., k(x, l_m)) U L^(-1/2), with U L U' the kernel matrix of the landmarks l: the Nystroem features.

    phi(x).phi(y) is k(x, y) where x or y is a landmark, and in general the kernel of the projections on the landmarks' span; for
    f = phi.alpha the norm in the space of the kernel is |alpha|. `features_at` chooses the landmarks.
    """

    kernel: Kernel
    landmarks: Tensor
    transform: Tensor

    @property
    def count(self) -> int:
        """How many features there are."""
        return self.transform.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """The features (n, count) of points x (n, d)."""
        return self.kernel.matrix(x, self.landmarks) @ self.transform


def features_at(
    points: Tensor, kernel: Kernel, *, most: int = 300, tolerance: float = 1e-9, generator: torch.Generator | None = None
) -> LandmarkFeatures:
    """Features of a kernel at points (n, d): all of them are landmarks, or `most` drawn without replacement where there are more.

    A bandwidth that is a rule is chosen from the points. Directions whose share of the largest eigenvalue is below `tolerance`
    are dropped. Time O(most^3) and memory O(most^2). Raises ValueError if the kernel is not positive semi-definite there.
    Source: Williams and Seeger (2001).
    """
    points = points.detach().double()
    kernel = kernel.resolve(points, torch.full((len(points),), 1 / len(points), dtype=points.dtype))
    if len(points) > most:
        points = points[torch.randperm(len(points), generator=generator)[:most]]
    values, vectors = torch.linalg.eigh(kernel.matrix(points, points))
    top = float(values[-1])
    if not top > 0 or float(values[0]) < -1e-6 * top:
        raise ValueError(f"{kernel!r} is not positive semi-definite: its smallest eigenvalue there is {float(values[0]):.3g}")
    kept = values > tolerance * top
    return LandmarkFeatures(kernel, points, vectors[:, kept] / values[kept].sqrt())


__all__ = ["LandmarkFeatures", "features_at"]
