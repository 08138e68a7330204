"""The kinds of object that a user hands to a method: `Discrepancy` (two samples) and `Dependence` (paired rows).

`Divergence` (two densities) lives with its formulas in `discrepancy.divergences`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Estimate, Result, TransportResult
from discrepancy._validate import SamplePair, paired_rows, sample, sample_lists, sample_pair

PooledStatistic = Callable[[Float[Tensor, "r n"], Float[Tensor, "r n"]], Float[Tensor, " r"]]
PermutedStatistic = Callable[[Int[Tensor, "r n"]], Float[Tensor, " r"]]


@dataclass(frozen=True)
class Claims:
    """What a discrepancy promises; the conformity suite in `discrepancy.testing` holds it to every word.

    symmetric             D(x, y) = D(y, x), bit for bit
    non_negative          D >= 0 (an unbiased estimator of a squared distance is not)
    zero_at_equality      D(x, x) = 0, exactly
    metric                the triangle inequality holds
    translation_invariant D(x + c, y + c) = D(x, y)
    degree                D(s x, s y) = s^degree D(x, y), or None where there is no such law
    norm_power            D = ||F - G||^k for a norm of the signed measure F - G: k is 1 or 2, else None. The pooled
                          statistic of such a D depends on (A, B) through A - B only, and takes signed rows.
    random                the value depends on a generator
    dimension             the only dimension that it takes, or None
    any_mass              weights may have any positive sum, not one only
    """

    symmetric: bool = True
    non_negative: bool = True
    zero_at_equality: bool = True
    metric: bool = False
    translation_invariant: bool = True
    degree: float | None = None
    norm_power: int | None = None
    random: bool = False
    dimension: int | None = None
    any_mass: bool = False


class Discrepancy(ABC):
    """Compares two weighted samples of one space; a subclass is a frozen dataclass whose fields are its options.

    A subclass implements `_value` on validated tensors and sets `claims` and `references`; everything else
    (the boundary, resampling, methods, tests, the conformity suite) follows from that.
    """

    claims: ClassVar[Claims] = Claims()
    references: ClassVar[tuple[str, ...]] = ()

    def __call__(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "..."]:
        """The discrepancy between two samples.

        x (..., n, d) and y (..., m, d) are samples of one space, a (..., n) and b (..., m) their weights (equal where
        omitted). Returns a tensor of the batch shape (...), differentiable in all four. Samples of different sizes come as lists
        of K arrays (n_k, d), weights then as lists of K vectors or None; the values are (K,), one pair after the other.
        """
        pairs = sample_lists(x, y, a, b)
        if pairs is None:
            return self._value(self._checked(x, y, a, b), generator)
        return torch.stack([self(*pair, generator=generator) for pair in pairs])

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> Estimate | TransportResult | Result:
        """The value with whatever else there is to tell: a plan, a chosen bandwidth, a standard error."""
        return Estimate(self(x, y, a, b, generator=generator), method=repr(self))

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Discrepancy:
        """This discrepancy with whatever it chooses from the data (a bandwidth, an epsilon) fixed at the number chosen here.

        Itself where nothing is chosen. Gradients hold those numbers fixed, so finite differences of the resolved
        discrepancy are what its gradients are compared with.
        """
        return self

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic as a function of two weightings of one cloud z (N, d), for permutations and bootstraps.

        The returned callable takes weight matrices A and B (R, N), whose rows sum to one, and returns the R values,
        without gradients. Whatever is random or chosen from the data (directions, bandwidths) is fixed here, once.
        This general form evaluates D once a row; discrepancies override it where the work can be shared.
        """
        cloud = sample(z, "z")

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            rows = []
            for a, b in zip(A, B, strict=True):
                keep_a, keep_b = a > 0, b > 0
                pair = sample_pair(cloud[keep_a], cloud[keep_b], a[keep_a] / a.sum(), b[keep_b] / b.sum())
                rows.append(self._value(pair, generator))
            return torch.stack(rows)

        if self.claims.random:
            raise TypeError(
                f"{type(self).__name__} draws at random and must define pooled(), so that all resamples share one draw"
            )
        return torch.no_grad()(statistic)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        pair = sample_pair(x, y, a, b)
        need = self.claims.dimension
        if need is not None and pair.x.shape[-1] != need:
            raise ValueError(f"{type(self).__name__} takes samples in {need} dimension(s), got {pair.x.shape[-1]}")
        return pair

    @abstractmethod
    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The value on validated samples, of the batch shape."""


class Dependence(ABC):
    """Compares a joint law with the product of its margins, on paired rows of any two widths; a subclass is a frozen dataclass.

    `random` says that the value depends on a generator.
    """

    random: ClassVar[bool] = False
    references: ClassVar[tuple[str, ...]] = ()

    def __call__(self, x: Any, y: Any, weights: Any = None, *, generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
        """The dependence between x (..., n, d1) and y (..., n, d2), row by row, under weights (..., n)."""
        return self._value(*paired_rows(x, y, weights), generator)

    def permuted(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> PermutedStatistic:
        """The dependence of x (n, d1) with permuted rows of y (n, d2), for tests of independence.

        The returned callable takes permutations (R, n) and returns the R values, without gradients; whatever is random or chosen
        from the data is fixed here, once. This general form evaluates the dependence once a row.
        """
        left, right, equal = paired_rows(x, y)
        if self.random:
            raise TypeError(f"{type(self).__name__} draws at random and must define permuted(), so that all rows share one draw")

        def statistic(order: Tensor) -> Tensor:
            return torch.stack([self._value(left, right[row], equal, None) for row in order])

        return torch.no_grad()(statistic)

    @abstractmethod
    def _value(self, x: Tensor, y: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
        """The value on validated rows, of the batch shape."""


__all__ = ["Claims", "Dependence", "Discrepancy", "PermutedStatistic", "PooledStatistic"]
