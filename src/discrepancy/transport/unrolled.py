"""Sinkhorn's loop cut off after a fixed number of rounds and differentiated through: what networks are often trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from discrepancy._results import Outcome, TransportResult
from discrepancy._validate import cost_matrix, positive, require_finite, weights, whole_number
from discrepancy.transport.entropic.certificate import certify
from discrepancy.transport.entropic.plan_operator import plan_on_request
from discrepancy.transport.entropic.problem import MatrixProblem


@dataclass(frozen=True)
class UnrolledSinkhorn:
    """<P, C> for P after `iterations` rounds of row and column scaling of exp(-C / epsilon), with autograd through the loop.

    The column step comes last: columns are exact, rows are off by `marginal_error`. The value is the bare cost of that plan,
    not an optimal value: its gradient is that of the truncated loop and tends to the implicit one
    (`Sinkhorn.solve_cost(..., differentiable=True).cost`) as rounds are added. `Sinkhorn` itself is the regularised optimum,
    whose gradient is the plan. Log domain, in C's dtype (float32 at least). Time and memory `iterations` n m: the loop is kept
    for the backward pass. `outcome` is always the iteration limit, by design, and does not warn. Raises ValueError for options or
    costs that do not fit. Source: Genevay, Peyre and Cuturi (2018).
    """

    epsilon: float = 0.1
    iterations: int = 20
    references: ClassVar[tuple[str, ...]] = ("genevay-2018",)

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.epsilon, "epsilon")
        whole_number(self.iterations, 1, "iterations")

    def solve_cost(self, C: Any, a: Any = None, b: Any = None) -> TransportResult:
        """The result for a cost matrix C (..., n, m) with weights a (..., n), b (..., m), equal where omitted."""
        matrix = cost_matrix(C)
        require_finite(matrix, "C")
        batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
        left, right = weights(a, (*batch, n), "a", like=matrix), weights(b, (*batch, m), "b", like=matrix)
        score = -matrix / self.epsilon
        log_a, log_b = left.log()[..., None], right.log()[..., None, :]
        v = torch.zeros_like(right)[..., None, :]
        u = torch.zeros_like(left)[..., None]
        for _ in range(self.iterations):  # u, v are potentials over epsilon
            u = -torch.logsumexp(score + v + log_b, -1, keepdim=True)
            v = -torch.logsumexp(score + u + log_a, -2, keepdim=True)
        plan = torch.exp(score + u + v + log_a + log_b)
        value = (plan * matrix).sum((-2, -1))
        f, g = (self.epsilon * t.detach() for t in (u[..., 0], v[..., 0, :]))
        flat_f, flat_g = f.reshape(-1, n).double(), g.reshape(-1, m).double()
        masses = left.detach().reshape(-1, n), right.detach().reshape(-1, m)
        problem = MatrixProblem(matrix.detach().reshape(-1, n, m), *masses, matrix.dtype)
        epsilon = torch.full((flat_f.shape[0],), self.epsilon, dtype=torch.float64, device=matrix.device)
        proof = certify(problem, flat_f, flat_g, epsilon)
        _, apply = plan_on_request(problem, flat_f, flat_g, epsilon, batch, False)
        return TransportResult(
            value=value,
            cost=value.detach(),
            f=f,
            g=g,
            marginal_error=proof.marginal_error.reshape(batch),
            dual_gap=proof.dual_gap.reshape(batch),
            iterations=self.iterations,
            epsilon=self.epsilon,
            outcome=Outcome.ITERATION_LIMIT,
            rungs=(f"unrolled rounds: {self.iterations}",),
            _plan=lambda: plan,
            _apply=apply,
        )


__all__ = ["UnrolledSinkhorn"]
