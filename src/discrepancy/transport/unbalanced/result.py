"""The answer of an unbalanced problem: a TransportResult that also tells how much mass is carried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Number, TransportResult
from discrepancy.transport.entropic.maps import OutOfSample
from discrepancy.transport.entropic.plan_operator import plan_on_request
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.unbalanced.certificate import certify
from discrepancy.transport.unbalanced.newton import UnbalancedPotentials
from discrepancy.transport.unbalanced.penalties import MarginalPenalty


@dataclass(frozen=True, repr=False)
class UnbalancedResult(TransportResult):
    """A TransportResult with the total `mass` of the plan.

    `marginal_error` is the L1 distance of the plan's marginals from those that the potentials ask for (an optimality error:
    marginals need not equal the weights); `dual_gap` is the primal value of the plan minus the dual value of the potentials,
    rigorous and never negative but for rounding.
    """

    mass: Number = float("nan")


def unbalanced_result(
    problem: Problem,
    found: UnbalancedPotentials,
    epsilon: Tensor,
    value: Tensor,
    batch: torch.Size,
    swapped: bool,
    penalties: tuple[MarginalPenalty, MarginalPenalty],
) -> UnbalancedResult:
    """The result of a solve; sides exchanged back if they were."""
    rows, columns = penalties[::-1] if swapped else penalties
    proof = certify(problem, found, epsilon, rows, columns)
    plan, apply = plan_on_request(problem, found.f, found.g, epsilon, batch, swapped)
    f, g = (found.g, found.f) if swapped else (found.f, found.g)

    def shaped(t: Tensor) -> Tensor:
        return t.to(problem.dtype).reshape((*batch, *t.shape[1:]))

    return UnbalancedResult(
        value=value,
        cost=shaped(proof.cost),
        f=shaped(f),
        g=shaped(g),
        marginal_error=found.error.reshape(batch),
        dual_gap=proof.dual_gap.reshape(batch),
        iterations=found.iterations,
        epsilon=epsilon.reshape(batch),
        outcome=found.outcome,
        rungs=found.rungs,
        mass=shaped(proof.mass),
        _plan=plan,
        _apply=apply,
    )


def out_of_sample(
    setting: Setting,
    found: UnbalancedPotentials,
    epsilon: Tensor,
    penalties: tuple[MarginalPenalty, MarginalPenalty],
    *,
    selves: tuple[Tensor, Tensor] | None = None,
) -> OutOfSample:
    """Map and potentials at new points: potentials take the proximal step of their side after the soft-minimum."""
    rows, columns = penalties[::-1] if setting.swapped else penalties
    return OutOfSample.of(setting, found.f, found.g, epsilon, selves=selves, steps=(rows.step, columns.step))


__all__ = ["UnbalancedResult", "out_of_sample", "unbalanced_result"]
