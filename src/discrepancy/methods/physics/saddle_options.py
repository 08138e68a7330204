"""The choices of a saddle search on a surrogate: which data are kept, how far it is trusted; and what a search returns."""

from __future__ import annotations

import enum
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import positive
from discrepancy.methods.physics.gradient_gp import Hyperparameters


class TrustRadius(ABC):
    """How far from all data, in the configuration distance, the surrogate is followed."""

    @abstractmethod
    def radius(self, evaluations: int, atoms: int) -> float:
        """The radius after so many evaluations, for so many atoms (1 on plain surfaces)."""


@dataclass(frozen=True)
class FixedRadius(TrustRadius):
    """A constant, in units of the configuration distance."""

    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the value."""
        positive(self.value, "value")

    def radius(self, evaluations: int, atoms: int) -> float:
        """The constant."""
        return self.value


@dataclass(frozen=True)
class AdaptiveRadius(TrustRadius):
    """min(start + growth (1 - 2^(-n / half_life)), max(floor, per_atom / sqrt N)) after n evaluations, for N atoms."""

    start: float = 0.15
    growth: float = 0.35
    half_life: float = 50.0
    floor: float = 0.2
    per_atom: float = 1.3

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("start", "growth", "half_life", "floor", "per_atom"):
            positive(getattr(self, name), name)

    def radius(self, evaluations: int, atoms: int) -> float:
        """The formula."""
        grown = self.start + self.growth * (1 - 2 ** (-evaluations / self.half_life))
        return min(grown, max(self.floor, self.per_atom / math.sqrt(atoms)))


@dataclass(frozen=True)
class Pruning:
    """Hyper-parameters are fitted on `size` data: the `recent` last ones, and those farthest from them and each other.

    Where the last `window` fits made the hyper-parameters oscillate (more than `tolerated` of their consecutive changes turn
    about), the size grows by `step`, up to `largest`. Raises ValueError for a size below `recent`, which are always kept.
    """

    size: int = 10
    recent: int = 3
    window: int = 5
    tolerated: float = 0.8
    step: int = 2
    largest: int = 30

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not 1 <= self.recent <= self.size <= self.largest:
            raise ValueError(
                f"size must lie between recent ({self.recent}, always kept) and largest ({self.largest}), got {self.size}"
            )
        if self.window < 3:
            raise ValueError(f"window must be at least 3 fits, got {self.window}")

    def grown(self, size: int, fits: Sequence[Hyperparameters]) -> int:
        """The size for the next fit, given all fits so far."""
        if len(fits) < self.window:
            return size
        rows = [f.vector() for f in fits[-self.window :]]
        changes = [b - a for a, b in itertools.pairwise(rows)]
        flips = [float((a * b < 0).mean()) for a, b in itertools.pairwise(changes)]
        return min(size + self.step, self.largest) if sum(flips) / len(flips) > self.tolerated else size


class SaddleOutcome(enum.Enum):
    """How a saddle search ended; the value is what happened and what to do about it."""

    CONVERGED = "converged: the gradient is below the tolerance and the curvature along the dimer is negative"
    EVALUATION_LIMIT = "evaluation limit: raise max_evaluations, or start nearer to the saddle"
    LOST = "lost: the energy rose by more than max_climb both ways; raise it, or start elsewhere"
    SURROGATE_FAILED = (
        "surrogate failed: its covariance does not factor; keep the barrier and the trust radius, or raise the noise"
    )
    ORACLE_FAILED = "oracle failed: it returned a value that is not finite; the last good point is returned"


@dataclass(frozen=True)
class SaddleStep:
    """One pass of a search: evaluations so far, energy and largest gradient component, curvature of the dimer, how many data the
    hyper-parameters were fitted on (0: no fit), the processor seconds that took, and the hyper-parameters."""

    evaluations: int
    energy: float
    largest_gradient: float
    curvature: float
    subset: int = 0
    fit_seconds: float = 0.0
    hyper: Hyperparameters | None = None


@dataclass(frozen=True, repr=False)
class SaddleResult(Result):
    """Where a search ended: `x` (D,), its `energy`, the `curvature` along `direction` (D,), `evaluations` of the oracle, the
    `outcome`, the processor seconds of all hyper-parameter fits, every pass (`trace`) and all evaluated points (`data`)."""

    x: Tensor
    energy: float
    curvature: float
    direction: Tensor
    evaluations: int
    outcome: SaddleOutcome
    fit_seconds: float
    trace: tuple[SaddleStep, ...] = field(default=(), repr=False)
    data: tuple[Tensor, Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def converged(self) -> bool:
        """Whether it is a saddle to the tolerance asked for."""
        return self.outcome is SaddleOutcome.CONVERGED


__all__ = [
    "AdaptiveRadius",
    "FixedRadius",
    "Pruning",
    "SaddleOutcome",
    "SaddleResult",
    "SaddleStep",
    "TrustRadius",
]
