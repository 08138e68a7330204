"""Which architecture is simple for these data: prior weight near the truth, and the bound on regret that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from discrepancy._results import Result
from discrepancy.learning.prior_coordinates import GaussianPrior, PriorCoordinates
from discrepancy.methods.diagnostics.outcome_models import Likelihood
from discrepancy.methods.diagnostics.universality_lens import (
    RegretBound,
    WeightCurve,
    effective_dimension,
    regret_bound,
)
from discrepancy.methods.diagnostics.weight_curves import Estimator, fisher_spectrum, weight_curve


@dataclass(frozen=True, repr=False)
class ComplexityRow(Result):
    """One architecture: its number of `parameters`, the directions that n rows see at its present parameters
    (`effective_dimension`),
    the weight `curve` and the `bound` on the regret at n rows."""

    name: str
    parameters: int
    effective_dimension: float
    curve: WeightCurve
    bound: RegretBound


def complexity_report(
    models: Mapping[str, nn.Module],
    x: Any,
    likelihood: Likelihood,
    *,
    n: int,
    teacher: Any = None,
    labels: Any = None,
    epsilons: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    prior: GaussianPrior | None = None,
    method: Estimator | None = None,
    generator: torch.Generator | None = None,
) -> tuple[ComplexityRow, ...]:
    """The models by ascending bound on the regret at n rows; arguments as in `weight_curve`, the same prior for all.

    Bounds are estimates where the curves are; compare them with the curves' standard errors over n in mind.
    """
    if not models:
        raise ValueError("models is empty: name at least one")
    rows = []
    for name, module in models.items():
        curve = weight_curve(
            module,
            x,
            likelihood,
            teacher=teacher,
            labels=labels,
            epsilons=epsilons,
            prior=prior,
            method=method,
            generator=generator,
        )
        spectrum, _ = fisher_spectrum(module, x, likelihood, prior=prior)
        seen, size = effective_dimension(spectrum, n), PriorCoordinates(module, prior).dimension
        rows.append(ComplexityRow(name, size, seen, curve, regret_bound(curve, n)))
    return tuple(sorted(rows, key=lambda row: row.bound.value))


__all__ = ["ComplexityRow", "complexity_report"]
