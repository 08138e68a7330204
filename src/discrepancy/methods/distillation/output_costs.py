"""Ground costs between output distributions: what it costs to exchange the student's prediction i for the teacher's prediction j.

A cost of points acts on the probability vectors (`Manhattan()` is the L1 distance in [0, 2], `Euclidean()` the L2 distance); any
`Divergence` is a cost, D(teacher_j || student_i); `RootDivergence(SquaredHellinger())` is the Hellinger distance, and
`ClassTransport(costs)` moves mass between classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from discrepancy._results import TransportResult
from discrepancy._validate import as_tensor, require_finite
from discrepancy.costs import Cost, as_cost
from discrepancy.divergences import Divergence
from discrepancy.transport import OptimalTransport

# Entries (pairs times classes) that a divergence may hold at once; above, pairs are computed in slabs, and again in backward.
_AT_ONCE = 1 << 22


@runtime_checkable
class CostTransport(Protocol):
    """A transport problem on a cost matrix: `Sinkhorn`, `UnrolledSinkhorn`, `OptimalTransport`, `InexactProximal`, their like."""

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> TransportResult:
        """The result for costs C (..., n, m), whose value is differentiable in C and in the weights."""
        ...


class OutputCost(ABC):
    """A cost between two output distributions, given by their logits."""

    @abstractmethod
    def matrix(self, student: Tensor, teacher: Tensor) -> Tensor:
        """All costs (n, m) between laws with logits student (n, C) and teacher (m, C), differentiable."""


@dataclass(frozen=True)
class ProbabilityCost(OutputCost):
    """A cost of points, taken between the probability vectors."""

    cost: Cost

    def matrix(self, student: Tensor, teacher: Tensor) -> Tensor:
        """c(p_i, q_j)."""
        return self.cost.matrix(torch.softmax(student, -1), torch.softmax(teacher, -1))


@dataclass(frozen=True)
class DivergenceCost(OutputCost):
    """D(teacher_j || student_i): P is the teacher. Time n m C, memory that of a slab of pairs."""

    divergence: Divergence

    def __post_init__(self) -> None:
        """Raise TypeError unless it is a divergence."""
        if not isinstance(self.divergence, Divergence):
            raise TypeError(f"divergence must be a Divergence such as KL(), got {self.divergence!r}")

    def matrix(self, student: Tensor, teacher: Tensor) -> Tensor:
        """All pairs, in slabs of students."""
        step = max(1, _AT_ONCE // max(1, teacher.numel()))
        if step >= len(student):
            return self._slab(student, teacher)
        parts = [checkpoint(self._slab, part, teacher, use_reentrant=False) for part in student.split(step)]
        return torch.cat(parts)  # type: ignore[arg-type]

    def _slab(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.divergence.from_logits(teacher[None], student[:, None])


@dataclass(frozen=True)
class RootDivergence(OutputCost):
    """sqrt(D(teacher_j || student_i)): a metric where D is squared Hellinger or Jensen-Shannon; its slope at equality is zero."""

    divergence: Divergence

    def __post_init__(self) -> None:
        """Raise TypeError unless it is a divergence."""
        DivergenceCost(self.divergence)

    def matrix(self, student: Tensor, teacher: Tensor) -> Tensor:
        """All pairs."""
        square = DivergenceCost(self.divergence).matrix(student, teacher)
        apart = square > 0
        return torch.where(apart, torch.where(apart, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square))


@dataclass(frozen=True, eq=False)
class ClassTransport(OutputCost):
    """The transport cost from p_i to q_j between classes: costs[k, l] is the price of taking mass from class k to class l.

    It sees how far a wrong class is from the right one, which no divergence does. transport: any object with `solve_cost`; exact
    by default, a solve of C x C for each pair (an entropic one, `Sinkhorn(0.05)`, solves all pairs together).
    Raises ValueError unless costs is a finite square matrix.
    """

    costs: Tensor
    transport: CostTransport = field(default_factory=OptimalTransport)

    def __post_init__(self) -> None:
        """Check the options."""
        costs = as_tensor(self.costs, "costs")
        if costs.ndim != 2 or costs.shape[0] != costs.shape[1]:
            raise ValueError(f"costs must be a square matrix, a price for each pair of classes, got shape {tuple(costs.shape)}")
        require_finite(costs, "costs")
        object.__setattr__(self, "costs", costs)
        check_transport(self.transport)

    def matrix(self, student: Tensor, teacher: Tensor) -> Tensor:
        """All pairs: n m problems between classes."""
        n, m, classes = len(student), len(teacher), student.shape[-1]
        left = student[:, None].expand(n, m, classes).reshape(-1, classes)
        right = teacher[None].expand(n, m, classes).reshape(-1, classes)
        return self.pairs(left, right).reshape(n, m)

    def pairs(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The costs (n,) of paired rows of logits."""
        if student.shape[-1] != len(self.costs):
            raise ValueError(f"costs is for {len(self.costs)} classes and the logits have {student.shape[-1]}")
        costs = self.costs.to(student).expand(len(student), -1, -1)
        found = self.transport.solve_cost(costs, torch.softmax(student, -1), torch.softmax(teacher, -1))
        return torch.as_tensor(found.value)


def check_transport(transport: Any) -> Any:
    """The object itself; TypeError unless it has `solve_cost`."""
    if isinstance(transport, type) or not isinstance(transport, CostTransport):
        raise TypeError(f"transport must be an object with solve_cost, such as Sinkhorn(0.1), got {transport!r}")
    return transport


def as_output_cost(ground: Any) -> OutputCost:
    """A cost of points, a divergence or an output cost as an output cost; TypeError for anything else."""
    if isinstance(ground, OutputCost):
        return ground
    if isinstance(ground, Divergence):
        return DivergenceCost(ground)
    if isinstance(ground, Cost):
        return ProbabilityCost(ground)
    if callable(ground) and not isinstance(ground, type):
        return ProbabilityCost(as_cost(ground))  # pyright: ignore[reportArgumentType]  # a function of points
    raise TypeError(
        f"ground must be a cost such as Manhattan(), a divergence, RootDivergence(...) or ClassTransport(...), got {ground!r}"
    )


__all__ = [
    "ClassTransport",
    "CostTransport",
    "DivergenceCost",
    "OutputCost",
    "ProbabilityCost",
    "RootDivergence",
    "as_output_cost",
    "check_transport",
]
