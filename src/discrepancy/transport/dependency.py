"""The Wasserstein dependency measure: transport from a joint law to the product of its margins."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from discrepancy._kinds import Dependence, Discrepancy, PermutedStatistic
from discrepancy._validate import generator_or_default, paired_rows, whole_number
from discrepancy.transport.wasserstein import Wasserstein

# Where one side's spread exceeds the other's by so much, the metric of the pair sees one side only.
_DOMINATES = 100.0


class Pairing(NamedTuple):
    """Row numbers of a sample from the joint law (j,), and of one from the product: rows of x and of y (k,)."""

    joint: Tensor
    left: Tensor
    right: Tensor


class ProductSample(ABC):
    """How a sample from the product of the margins is made of n paired rows."""

    least: ClassVar[int] = 2
    random: ClassVar[bool] = True

    def draw(self, n: int, generator: torch.Generator | None = None) -> Pairing:
        """The pairing of n rows; ValueError for too few."""
        if n < self.least:
            raise ValueError(f"{type(self).__name__}() needs at least {self.least} paired rows, got {n}")
        return self._draw(n, generator)

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> Pairing:
        """The pairing."""


def _derangement(rows: Tensor, shift: int) -> Tensor:
    """Each row's partner, `shift` places on in a circle."""
    return rows.roll(-shift)


@dataclass(frozen=True)
class Shuffled(ProductSample):
    """Each x with the y of another row, `copies` times: n copies pairs, n transport costs a row and copy.

    The rows are put on a random circle; copy c takes the y that lies c places on, so that no pair is its own or occurs twice.
    """

    copies: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError unless copies is a whole number of at least 1."""
        whole_number(self.copies, 1, "copies")

    def _draw(self, n: int, generator: torch.Generator | None) -> Pairing:
        if self.copies >= n:
            raise ValueError(f"copies must be below the number of rows, got {self.copies} of {n}: take AllPairs()")
        circle = torch.randperm(n, generator=generator_or_default(generator))
        right = torch.cat([_derangement(circle, c) for c in range(1, self.copies + 1)])
        return Pairing(torch.arange(n), circle.repeat(self.copies), right)


@dataclass(frozen=True)
class Halves(ProductSample):
    """A random half of the rows for the joint law, the other half, shuffled, for the product: the samples share no point.

    The two samples are then independent, as two-sample theory wants them; half of the data serves each.
    """

    least: ClassVar[int] = 4

    def _draw(self, n: int, generator: torch.Generator | None) -> Pairing:
        order = torch.randperm(n, generator=generator_or_default(generator))
        joint, rest = order[: n // 2], order[n // 2 :]
        return Pairing(joint, rest, _derangement(rest, 1))


@dataclass(frozen=True)
class AllPairs(ProductSample):
    """All n^2 pairs, own ones included: the product of the empirical margins itself, without chance; n^3 costs."""

    least: ClassVar[int] = 1
    random: ClassVar[bool] = False

    def _draw(self, n: int, generator: torch.Generator | None) -> Pairing:
        rows = torch.arange(n)
        return Pairing(rows, rows.repeat_interleave(n), rows.repeat(n))


@dataclass(frozen=True)
class WassersteinDependency(Dependence):
    """I_D(x; y) = D(law of (x, y), law of x times law of y), for D = W_1 the Wasserstein dependency measure.

    D compares the rows (x_i, y_i), side by side in R^(d1 + d2), with those of a sample of the product: any `Discrepancy`;
    `OptimalTransport(SumOfEuclidean(d1))` is W_1 under the sum metric |x - x'| + |y - y'|, `Wasserstein(1)` (the default) that
    under the Euclidean one. Zero in the limit exactly where x and y are independent; bounded by the diameter, in units of the
    data, and changed by rescaling one side (a warning where one side's spread is over 100 times the other's), unlike mutual
    information.

    From n rows the estimate is biased upward, by the distance of two samples of one law, O(n^(-1/(d1 + d2))) for W_1: judge it by
    `independence_test`, never by its size alone. Weights need `product=AllPairs()`. Differentiable in x, y and weights. Time and
    memory: those of D on n and k rows, k = n for `Shuffled()`. Raises ValueError for fewer rows than the product needs.
    Source: Ozair, Lynch, Bengio, van den Oord, Levine and Sermanet (2019, 1903.11780).
    """

    discrepancy: Discrepancy = field(default_factory=lambda: Wasserstein(1))
    product: ProductSample = field(default_factory=Shuffled)
    references: ClassVar[tuple[str, ...]] = ("ozair-2019",)

    def __post_init__(self) -> None:
        """Raise TypeError for options of the wrong kind."""
        if not isinstance(self.discrepancy, Discrepancy):
            raise TypeError(f"discrepancy must be a Discrepancy such as Wasserstein(1), got {self.discrepancy!r}")
        if not isinstance(self.product, ProductSample):
            raise TypeError(f"product must be Shuffled(), Halves() or AllPairs(), got {self.product!r}")

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether the value depends on a generator."""
        return self.product.random or self.discrepancy.claims.random

    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        """D between joint and product rows, over the batch."""
        self._warn_of_scales(x, y)
        return self._compared(x, y, w, self._drawn(x, w, generator), generator)

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """The pairing is drawn once, as is whatever D draws: every permutation meets the same."""
        left, right, w = paired_rows(x, y)
        self._warn_of_scales(left, right)
        pairing = self._drawn(left, w, generator)
        source = generator_or_default(generator)
        seed = int(torch.randint(2**62, (), generator=source, device=source.device))

        def statistic(order: Tensor) -> Tensor:
            values = [
                self._compared(left, right[row], w, pairing, torch.Generator(left.device).manual_seed(seed)) for row in order
            ]
            return torch.stack(values)

        return torch.no_grad()(statistic)

    def _drawn(self, x: Tensor, w: Tensor, generator: torch.Generator | None) -> Pairing:
        if self.product.random and not bool((w == w[..., :1]).all()):
            raise ValueError(f"weights need product=AllPairs(): {self.product!r} makes pairs of equal weight")
        pairing = self.product.draw(x.shape[-2], generator)
        return Pairing(*(rows.to(x.device) for rows in pairing))

    def _compared(self, x: Tensor, y: Tensor, w: Tensor, rows: Pairing, generator: torch.Generator | None) -> Tensor:
        joint = torch.cat([x, y], -1)[..., rows.joint, :]
        product = torch.cat([x[..., rows.left, :], y[..., rows.right, :]], -1)
        if self.product.random:
            return self.discrepancy(joint, product, generator=generator)
        return self.discrepancy(joint, product, w, (w[..., :, None] * w[..., None, :]).flatten(-2), generator=generator)

    def _warn_of_scales(self, x: Tensor, y: Tensor) -> None:
        if x.shape[-2] < 2:
            return
        spreads = [float(t.detach().var(-2, correction=0).sum(-1).sqrt().max()) for t in (x, y)]
        if min(spreads) > 0 and max(spreads) > _DOMINATES * min(spreads):
            warnings.warn(
                f"the spreads of x and y, {spreads[0]:.3g} and {spreads[1]:.3g}, differ by more than {_DOMINATES:g}: the "
                "distance between pairs sees one of them only; standardise both",
                UserWarning,
                stacklevel=4,
            )


__all__ = ["AllPairs", "Halves", "Pairing", "ProductSample", "Shuffled", "WassersteinDependency"]
