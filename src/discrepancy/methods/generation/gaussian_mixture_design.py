"""The worked case of augmentation: two Gaussian classes, a naive Bayes generator, a linear classifier, all in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import generator_or_default, positive, whole_number


@dataclass(frozen=True, repr=False)
class DesignRow(Result):
    """Means over repetitions at one `ratio` of fakes to real rows, and their standard errors.

    `error_gap` and `nll_gap`: mean absolute difference between the loss on the augmented training set and on the law (0-1 loss,
    and |x - y theta|^2 / (2 sigma^2)); `test_error`, `test_nll`: the losses on the law, exact given theta.
    """

    ratio: float
    error_gap: float
    error_gap_error: float
    nll_gap: float
    nll_gap_error: float
    test_error: float
    test_error_error: float
    test_nll: float
    test_nll_error: float


@dataclass(frozen=True)
class GaussianMixtureDesign:
    """y = +-1 balanced, x | y ~ N(y mu, sigma^2 I_d), |mu| = 1; `rows` real ones, half of either class.

    Generator: the means of both classes and one variance a coordinate, pooled, maximum-likelihood (1/m). Classifier: sign(theta'
    x) with theta = mean of y x over real and fake rows. Raises ValueError unless dimension >= 1, rows >= 2 and even, sigma > 0.
    """

    dimension: int = 1
    rows: int = 10
    sigma: float = 0.6

    references = ("generative-data-augmentation",)

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.dimension, 1, "dimension")
        whole_number(self.rows, 2, "rows")
        if self.rows % 2:
            raise ValueError(f"rows must be even, half of either class, got {self.rows}")
        positive(self.sigma, "sigma")

    def run(
        self,
        ratios: Sequence[float] = (0, 1, 2, 5, 10, 20),
        *,
        repeats: int = 150,
        generator: torch.Generator | None = None,
    ) -> tuple[DesignRow, ...]:
        """One row a ratio, all on the same real samples. Time and memory O(repeats rows (1 + ratio) dimension)."""
        whole_number(repeats, 2, "repeats")
        source = generator_or_default(generator)
        half, d = self.rows // 2, self.dimension
        mean = torch.full((d,), d**-0.5, dtype=torch.float64)
        # In coordinates y x every real row is N(mu, sigma^2 I), whatever its class.
        real = mean + self.sigma * torch.randn(repeats, 2, half, d, dtype=torch.float64, generator=source)
        centres = real.mean(2, keepdim=True)
        spread = (real - centres).square().mean((1, 2), keepdim=True).sqrt()
        found = []
        for ratio in ratios:
            fakes = _fakes_a_class(ratio, self.rows)
            noise = torch.randn(repeats, 2, fakes, d, dtype=torch.float64, generator=source)
            train = torch.cat([real, centres + spread * noise], 2).flatten(1, 2)
            found.append(self._row(ratio, train, mean))
        return tuple(found)

    def _row(self, ratio: float, train: Tensor, mean: Tensor) -> DesignRow:
        theta = train.mean(1)
        margin = (theta @ mean) / (self.sigma * torch.linalg.vector_norm(theta, dim=-1))
        test_error = torch.special.ndtr(-margin)
        train_error = ((train * theta[:, None]).sum(-1) <= 0).double().mean(1)
        scale = 2 * self.sigma**2
        test_nll = (self.dimension * self.sigma**2 + (theta - mean).square().sum(-1)) / scale
        train_nll = (train - theta[:, None]).square().sum(-1).mean(1) / scale
        numbers = []
        for values in ((train_error - test_error).abs(), (train_nll - test_nll).abs(), test_error, test_nll):
            numbers += [float(values.mean()), float(values.std() / len(values) ** 0.5)]
        return DesignRow(float(ratio), *numbers)


def _fakes_a_class(ratio: float, rows: int) -> int:
    if not ratio >= 0:
        raise ValueError(f"a ratio of fakes to real rows must not be negative, got {ratio!r}")
    return round(ratio * rows / 2)


__all__ = ["DesignRow", "GaussianMixtureDesign"]
