"""How strongly each of many columns goes with one outcome: the measures that screening ranks by."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Dependence
from discrepancy._results import Estimate, NumericalError
from discrepancy.estimation.information import InformationMethod


class Association(ABC):
    """Scores columns by their association with an outcome; a subclass is a frozen dataclass of its options.

    `scores` takes several outcomes at once, the observed one and its permutations, so that the work on the columns is shared.
    """

    @abstractmethod
    def scores(self, columns: Tensor, outcomes: Tensor, classes: int | None = None) -> Tensor:
        """The association (R, p) of columns (n, p), none of them constant, with each row of outcomes (R, n).

        The rows of `outcomes` are rearrangements of one another. classes: the outcomes are labels 0, ..., classes - 1 in
        float64, each of which occurs; None: they are numbers. Columns are float64. Not differentiable.
        """

    def describe(self) -> str:
        """What the scores are, in words."""
        return repr(self)


@dataclass(frozen=True)
class LinearInformation(Association):
    """-log(1 - r^2) / 2 with Pearson's correlation r: the mutual information of the Gaussian law with the same correlation.

    For labels r^2 is the share of the column's variance between classes, for two classes the squared correlation with the label.
    It sees means only: y = x^2 with symmetric x scores zero. +inf where r^2 = 1. O(n p R) time.
    """

    def scores(self, columns: Tensor, outcomes: Tensor, classes: int | None = None) -> Tensor:
        """The Gaussian information in nats."""
        x = columns - columns.mean(0)
        x = x / torch.linalg.vector_norm(x, dim=0)
        if classes is None:
            y = outcomes - outcomes.mean(1, keepdim=True)
            share = (y / torch.linalg.vector_norm(y, dim=1, keepdim=True) @ x).square()
        else:
            member = torch.nn.functional.one_hot(outcomes.long(), classes).to(x.dtype)
            # Between-class sum of squares of a column of unit length: sum over classes of (sum in class)^2 / size.
            sums = torch.einsum("rnc,np->rcp", member, x)
            share = (sums.square() / member.sum(1)[..., None]).sum(1)
        return -0.5 * torch.log1p(-share.clamp(0, 1))


@dataclass(frozen=True)
class EachColumn(Association):
    """Any measure of two samples, one column after the other: what an object or function for one pair is made a screen with.

    measure: an estimator of mutual information (`NeighborInformation()`), a `Dependence` (`HSIC()`, `DistanceCovariance()`), or a
    function (x (n,), y (n,)) -> number. Labels are handed over as numbers. p R evaluations.
    Raises TypeError for anything else, NumericalError where a value is NaN.
    """

    measure: InformationMethod | Dependence | Callable[[Tensor, Tensor], Any]

    def __post_init__(self) -> None:
        """Check the measure."""
        if isinstance(self.measure, type) or not (isinstance(self.measure, InformationMethod) or callable(self.measure)):
            raise TypeError(
                "measure must be an estimator of mutual information, a Dependence such as HSIC(), or a function of two vectors, "
                f"got {self.measure!r}"
            )

    def scores(self, columns: Tensor, outcomes: Tensor, classes: int | None = None) -> Tensor:
        """The measure of every column and outcome."""
        table = torch.tensor([[self._one(x, y) for x in columns.unbind(1)] for y in outcomes], dtype=torch.float64)
        if bool(torch.isnan(table).any()):
            row, column = (int(v) for v in table.isnan().nonzero()[0])
            raise NumericalError(f"{self.measure!r} is NaN for column {column} and outcome {row}")
        return table

    def _one(self, x: Tensor, y: Tensor) -> float:
        if isinstance(self.measure, InformationMethod):
            return float(self.measure.mutual_information(x[:, None], y[:, None]))
        return float(self.measure(x[:, None], y[:, None]) if isinstance(self.measure, Dependence) else self.measure(x, y))

    def describe(self) -> str:
        """The measure."""
        return getattr(self.measure, "__name__", repr(self.measure))


def linfoot(information: Tensor) -> Tensor:
    """sqrt(1 - exp(-2 I)), elementwise: |r| for a Gaussian law, between 0 and 1 for any. Source: Linfoot (1957)."""
    return torch.sqrt(-torch.expm1(-2 * information.clamp_min(0)))


def one_pair(measure: Association, x: Tensor, y: Tensor, labels: bool, method: str, bias: str) -> Estimate:
    """The estimate of a measure for one pair x (n, 1), y (n, 1); zero for a constant side. `bias` says why it has no interval."""
    for name, side in (("x", x), ("y", y)):
        if side.shape[1] != 1:
            raise ValueError(
                f"{name} has {side.shape[1]} columns and {type(measure).__name__} takes one: NeighborInformation() takes vectors"
            )
    if bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return Estimate(0.0, None, None, None, None, method, "no interval: one side is constant, and shares no information")
    outcome, classes = outcome_of(y[:, 0], labels)
    value = float(measure.scores(x.detach().double(), outcome[None], classes)[0, 0])
    if not math.isfinite(value):
        raise NumericalError(f"{measure!r} gave {value}")
    return Estimate(value, None, None, None, None, method, f"no interval: {bias}")


def outcome_of(y: Tensor, labels: bool) -> tuple[Tensor, int | None]:
    """An outcome (n,) in float64 as scores take it: codes of its distinct values with their number, or its numbers and None."""
    if not labels:
        return y.detach().double(), None
    values, codes = torch.unique(y.detach(), return_inverse=True)
    return codes.double(), len(values)


__all__ = ["Association", "EachColumn", "LinearInformation", "linfoot", "one_pair", "outcome_of"]
