"""Results whose cost, potentials, plan and plan products carry gradients, by implicit differentiation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from discrepancy._results import TransportResult
from discrepancy.transport.entropic.implicit import ImplicitPlan


def differentiable(result: TransportResult, optimum: ImplicitPlan, batch: torch.Size, *, swapped: bool) -> TransportResult:
    """The result with every output a function of the optimum: one linear solve a backward pass, for all of them together.

    swapped: the optimum's two sides are the user's in exchanged order.
    """
    dtype = optimum.inputs[0].dtype

    def shaped(t: Tensor) -> Tensor:
        return t.to(dtype).reshape((*batch, *t.shape[1:]))

    def plan() -> Tensor:
        dense = optimum.plan()
        return shaped(dense.mT if swapped else dense)

    def apply(v: Tensor) -> Tensor:
        columns = v.double().expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:])
        return shaped(optimum.apply_transposed(columns) if swapped else optimum.apply(columns))

    f, g = (optimum.g, optimum.f) if swapped else (optimum.f, optimum.g)
    return replace(result, cost=shaped(optimum.cost()), f=shaped(f), g=shaped(g), _plan=plan, _apply=apply)


__all__ = ["differentiable"]
