"""Generators of rows given a class, fitted on small labelled samples: Gaussians, kernel densities, mixtures, or one of yours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.methods.generation.labelled_rows import LabelledRows, allocation, labelled_rows


class Sampler(Protocol):
    """What fit returns: labelled rows on demand."""

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> tuple[Any, Any]:
        """`count` rows (count, d) of the learned law D_G(S), and their labels (count,)."""
        ...


class ClassGenerator(Protocol):
    """A conditional generator: a diffusion model or a GAN of your own needs these two methods only."""

    def fit(self, X: Any, y: Any) -> Sampler:
        """Learn from labelled rows; returns the sampler (itself, say)."""
        ...


class FewRowsWarning(UserWarning):
    """A class has too few rows for a scale of its own; it borrows that of all classes."""


@dataclass(frozen=True)
class FittedClasses:
    """Class k is the mixture, with `weights[k]` (c,), of N(`centres[k]` (c, d), R R') for the `roots[k]` (c or 1, d, d) = R.

    Labels are dealt in proportion to `shares` (K,), by largest remainders, so that fakes keep the class shares of the sample.
    """

    classes: np.ndarray
    shares: np.ndarray
    weights: Sequence[np.ndarray]
    centres: Sequence[np.ndarray]
    roots: Sequence[np.ndarray]

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`count` rows, class by class. Raises ValueError for a negative count."""
        whole_number(count, 0, "count")
        source = generator_or_default(generator)
        counts = allocation(count, self.shares)
        rows = []
        for k, n in enumerate(counts.tolist()):
            centres, roots = self.centres[k], self.roots[k]
            noise = torch.randn(n, centres.shape[1], dtype=torch.float64, generator=source).numpy()
            if n == 0:
                rows.append(noise)
                continue
            pick = torch.multinomial(torch.from_numpy(self.weights[k]), n, replacement=True, generator=source).numpy()
            own = noise @ roots[0].T if len(roots) == 1 else np.einsum("nij,nj->ni", roots[pick], noise)
            rows.append(centres[pick] + own)
        return np.concatenate(rows), np.repeat(self.classes, counts)


@dataclass(frozen=True)
class ClassGaussians:
    """N(mean of the class, covariance), maximum-likelihood (1/m), shrunk by `shrinkage` toward its diagonal.

    pooled: one covariance for all classes, the prior-weighted mean of theirs; shrinkage = 1 then is Gaussian naive Bayes with a
    shared variance. Else each class its own, and a class of one row borrows the pooled one, with a `FewRowsWarning`.
    Raises ValueError unless 0 <= shrinkage <= 1. Time O(n d^2 + d^3).
    """

    shrinkage: float = 0.5
    pooled: bool = True

    def __post_init__(self) -> None:
        """Check the option."""
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"shrinkage must lie in [0, 1], got {self.shrinkage!r}")

    def fit(self, X: Any, y: Any) -> FittedClasses:
        """Means and covariances of the classes of X (n, d), y (n,)."""
        data = labelled_rows(X, y)
        means = _means(data)
        shared = _root(_shrunk(_scatter(data.X - means[data.codes]), self.shrinkage))
        roots = []
        for k in range(len(data.classes)):
            own = data.X[data.codes == k] - means[k]
            if not self.pooled and len(own) < 2:
                _warn_of_one_row(data.classes[k], "the pooled covariance")
            roots.append(shared if self.pooled or len(own) < 2 else _root(_shrunk(_scatter(own), self.shrinkage)))
        return FittedClasses(
            data.classes, _shares(data), [np.ones(1)] * len(roots), list(means[:, None]), [r[None] for r in roots]
        )


@dataclass(frozen=True)
class ClassKernelDensities:
    """A row of the class at random plus Gaussian noise, of each coordinate's standard deviation in the class times `bandwidth`.

    bandwidth None is Scott's n_k^(-1/(d + 4)); 0 copies rows. A class of one row takes the deviations within all classes, with a
    `FewRowsWarning`. Raises ValueError for a negative bandwidth.
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        """Check the option."""
        if self.bandwidth is not None and not (self.bandwidth >= 0 and math.isfinite(self.bandwidth)):
            raise ValueError(f"bandwidth must be non-negative and finite, or None for Scott's rule, got {self.bandwidth!r}")

    def fit(self, X: Any, y: Any) -> FittedClasses:
        """Keep the rows of X (n, d) by class, and their scales."""
        data = labelled_rows(X, y)
        within = np.sqrt(np.square(data.X - _means(data)[data.codes]).mean(0))
        weights, centres, roots = [], [], []
        for k in range(len(data.classes)):
            own = data.X[data.codes == k]
            if len(own) < 2:
                _warn_of_one_row(data.classes[k], "the deviations within all classes")
            width = len(own) ** (-1 / (own.shape[1] + 4)) if self.bandwidth is None else self.bandwidth
            weights.append(np.full(len(own), 1 / len(own)))
            centres.append(own)
            roots.append(np.diag(width * (own.std(0) if len(own) > 1 else within))[None])
        return FittedClasses(data.classes, _shares(data), weights, centres, roots)


@dataclass(frozen=True)
class ClassMixtures:
    """A Gaussian mixture of `components` a class (fewer where the class has fewer rows), diagonal covariances, by EM.

    regularisation: a share of each coordinate's variance within classes, added to every component's. `seed` starts EM. Raises
    ValueError for options out of range. Needs scikit-learn.
    """

    components: int = 3
    regularisation: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.components, 1, "components")
        positive(self.regularisation, "regularisation")

    def fit(self, X: Any, y: Any) -> FittedClasses:
        """Run EM in every class, on coordinates scaled by their deviation within classes."""
        from sklearn.mixture import GaussianMixture

        data = labelled_rows(X, y)
        within = np.sqrt(np.square(data.X - _means(data)[data.codes]).mean(0))
        scale = np.where(within > 0, within, 1.0)
        weights, centres, roots = [], [], []
        for k in range(len(data.classes)):
            own = data.X[data.codes == k] / scale
            if len(own) < 2:
                _warn_of_one_row(data.classes[k], "the deviations within all classes")
                weights.append(np.ones(1))
                centres.append(own * scale)
                roots.append(np.diag(within)[None])
                continue
            model = GaussianMixture(
                min(self.components, len(own) // 2),
                covariance_type="diag",
                reg_covar=self.regularisation,
                random_state=self.seed,
            ).fit(own)
            shares = np.asarray(model.weights_)
            weights.append(shares / shares.sum())
            centres.append(model.means_ * scale)
            # A coordinate without variance stays as it is; the regularisation would blur it.
            roots.append(np.stack([np.diag(np.sqrt(v) * within) for v in np.asarray(model.covariances_)]))
        return FittedClasses(data.classes, _shares(data), weights, centres, roots)


def _warn_of_one_row(label: Any, what: str) -> None:
    warnings.warn(f"class {label!r} has one row: it borrows {what}", FewRowsWarning, stacklevel=4)


def _shares(data: LabelledRows) -> np.ndarray:
    return np.bincount(data.codes, minlength=len(data.classes)) / len(data)


def _means(data: LabelledRows) -> np.ndarray:
    return np.stack([data.X[data.codes == k].mean(0) for k in range(len(data.classes))])


def _scatter(centred: np.ndarray) -> np.ndarray:
    return centred.T @ centred / len(centred)


def _shrunk(covariance: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * covariance + share * np.diag(np.diag(covariance))


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R R' = covariance, also where it is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0, None))


__all__ = [
    "ClassGaussians",
    "ClassGenerator",
    "ClassKernelDensities",
    "ClassMixtures",
    "FewRowsWarning",
    "FittedClasses",
    "Sampler",
]
