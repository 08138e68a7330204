"""Log-linear models of tables of counts."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.estimation.exponential_family.enumerated import STATES, EnumeratedFamily
from discrepancy.estimation.exponential_family.family import rows


@dataclass(frozen=True)
class LogLinear(EnumeratedFamily):
    """Log-linear models of a K-way table: all interactions of up to `order` factors, or the given `terms`.

    levels[k] is the number of values 0, 1, ... of factor k; a term is a tuple of factors. xi holds, for each term, the indicators
    of its factors' combinations of values other than zero. LogLinear((2, 2, 2, 2), order=2) has 4 + 6 parameters.
    """

    levels: tuple[int, ...]
    order: int = 2
    terms: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for levels, order or terms that make no sense."""
        object.__setattr__(self, "levels", tuple(whole_number(k, 2, "a number of levels") for k in self.levels))
        if not self.levels:
            raise ValueError("levels must name at least one factor")
        if math.prod(self.levels) > STATES:
            raise ValueError(f"{math.prod(self.levels)} cells are too many to enumerate: {STATES} at most")
        whole_number(self.order, 1, "order")
        if self.order > len(self.levels):
            raise ValueError(f"order must be at most the number of factors {len(self.levels)}, got {self.order}")
        if self.terms is not None:
            chosen = tuple(tuple(sorted(set(term))) for term in self.terms)
            if not chosen or any(not term or min(term) < 0 or max(term) >= len(self.levels) for term in chosen):
                raise ValueError(f"terms must be tuples of factors 0 to {len(self.levels) - 1}, at least one, got {self.terms!r}")
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"terms must differ, got {self.terms!r}")
            object.__setattr__(self, "terms", chosen)

    @cached_property
    def interactions(self) -> tuple[tuple[int, ...], ...]:
        """The terms of the model."""
        if self.terms is not None:
            return self.terms
        factors = range(len(self.levels))
        return tuple(term for k in range(1, self.order + 1) for term in itertools.combinations(factors, k))

    @cached_property
    def _cells(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """(term, values) of every statistic."""
        return tuple(
            (term, values)
            for term in self.interactions
            for values in itertools.product(*(range(1, self.levels[k]) for k in term))
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Indicators as "x0=1 x2=1"."""
        return tuple(" ".join(f"x{k}={v}" for k, v in zip(*cell, strict=True)) for cell in self._cells)

    def _states(self) -> Tensor:
        """All cells."""
        return torch.tensor(list(itertools.product(*(range(k) for k in self.levels))), dtype=torch.float64)

    def _evaluated(self, x: Tensor) -> Tensor:
        """The indicators of cells."""
        columns = [torch.stack([x[:, k] == v for k, v in zip(term, values, strict=True)]).all(0) for term, values in self._cells]
        return torch.stack(columns, -1).double()

    def statistic(self, x: Any) -> Tensor:
        """The indicators of a sample of integer codes (n, K)."""
        found = rows(x, len(self.levels))
        for k, count in enumerate(self.levels):
            wrong = (found[:, k] < 0) | (found[:, k] >= count) | (found[:, k] != found[:, k].round())
            if bool(wrong.any()):
                raise ValueError(f"x has {float(found[wrong, k][0]):g} for factor {k}, whose values are 0 to {count - 1}")
        return self._evaluated(found)

    def without(self, term: tuple[int, ...]) -> LogLinear:
        """The model without one term."""
        left = tuple(t for t in self.interactions if t != tuple(sorted(term)))
        if len(left) == len(self.interactions):
            raise ValueError(f"{term!r} is no term of the model, which has {self.interactions}")
        return LogLinear(self.levels, self.order, left)


__all__ = ["LogLinear"]
