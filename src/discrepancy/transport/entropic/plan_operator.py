"""The plan of entropic potentials on request: dense, or as a product that forms it block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.streamed.problem import FusedProblem


def plan_on_request(
    problem: Problem, f: Tensor, g: Tensor, epsilon: Tensor, batch: torch.Size, swapped: bool
) -> tuple[Callable[[], Tensor], Callable[[Tensor], Tensor]]:
    """plan() (..., n, m) and apply(v) = plan @ v for v (..., m, k), in the user's orientation, batch shape and dtype.

    The plan costs n m memory, its product one block at a time.
    """

    def shaped(t: Tensor) -> Tensor:
        return t.to(problem.dtype).reshape((*batch, *t.shape[1:]))

    def plan() -> Tensor:
        dense = torch.cat([p for _, p, _ in problem.plan_blocks(f, g, epsilon)], -2)
        return shaped(dense.mT if swapped else dense)

    def apply(v: Tensor) -> Tensor:
        columns = v.double().expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:])
        if isinstance(problem, FusedProblem) and not v.requires_grad:
            return shaped(problem.apply(f, g, epsilon, columns, transposed=swapped))
        pieces: list[Tensor] = []
        total = torch.zeros(problem.b.shape[0], problem.b.shape[1], v.shape[-1], dtype=torch.float64, device=v.device)
        for part, block, _ in problem.plan_blocks(f, g, epsilon):
            if swapped:
                total = total + torch.matmul(block.mT, columns[:, part])
            else:
                pieces.append(torch.matmul(block, columns))
        return shaped(total if swapped else torch.cat(pieces, -2))

    return plan, apply


__all__ = ["plan_on_request"]
