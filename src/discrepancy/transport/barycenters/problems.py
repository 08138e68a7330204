"""Which barycenter on a fixed support: exact, entropic or debiased, each with its numerics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from discrepancy._validate import positive, whole_number
from discrepancy.costs import Cost, SquaredEuclidean, as_cost
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon, check_epsilon


@dataclass(frozen=True)
class _Smoothed:
    """What the two entropic barycenters share."""

    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    cost: Cost = field(default_factory=SquaredEuclidean)
    tolerance: float | None = None
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        """Raise for options that make no sense."""
        check_epsilon(self.epsilon)
        object.__setattr__(self, "cost", as_cost(self.cost))
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")


@dataclass(frozen=True)
class EntropicBarycenter(_Smoothed):
    """The a that minimises sum_k w_k min_P <P, C> + epsilon KL(P | 1 x b_k), P a coupling of a and b_k.

    Smooth, unique, positive everywhere, and blurred: with the cost |x - y|^2 Gaussians come out with a variance too large by
    epsilon / 2 in each direction (on an unbounded fine grid). Solved by Bregman projections, accelerated. tolerance: the sum
    w_k |P_k 1 - a|_1, 1e-6 by default (1e-4 for float32). Source: Cuturi and Doucet (2014); Benamou et al. (2015).
    """

    references: ClassVar[tuple[str, ...]] = ("cuturi-doucet-2014", "benamou-2015")


@dataclass(frozen=True)
class DebiasedBarycenter(_Smoothed):
    """The a that minimises sum_k w_k S_epsilon(a, b_k), the Sinkhorn divergence, whose blur is taken off again.

    Gaussians of equal covariance keep it. The cost must be symmetric and all measures live on one support. Taking a blur off is
    ill-posed: the objective is nearly flat along details finer than sqrt(epsilon), so that weights there settle long after the
    value has; `dual_gap` bounds by how much the value can still fall (convexity, up to the marginal error). tolerance: the sum
    w_k |P_k 1 - a|_1 plus the same for the problem of a against itself, 1e-4 by default, where values have three to four digits.
    Source: Janati, Cuturi and Gramfort (2020).
    """

    references: ClassVar[tuple[str, ...]] = ("janati-2020",)


@dataclass(frozen=True)
class ExactBarycenter:
    """The a that minimises sum_k w_k W(a, b_k), W the exact transport cost: a linear programme in all plans at once.

    For small problems: K n m unknowns, at most `max_unknowns` (a million take minutes). The solution is a vertex: at most
    sum_k m_k - K + 1 points carry mass. Needs no points, only costs. Source: Agueh and Carlier (2011); Anderes, Borgwardt and
    Miller (2016).
    """

    cost: Cost = field(default_factory=SquaredEuclidean)
    max_unknowns: int = 1_000_000
    references: ClassVar[tuple[str, ...]] = ("agueh-carlier-2011",)

    def __post_init__(self) -> None:
        """Raise for options that make no sense."""
        object.__setattr__(self, "cost", as_cost(self.cost))
        whole_number(self.max_unknowns, 1, "max_unknowns")


FixedSupportProblem = EntropicBarycenter | DebiasedBarycenter | ExactBarycenter

__all__ = ["DebiasedBarycenter", "EntropicBarycenter", "ExactBarycenter", "FixedSupportProblem"]
