"""Our side of every row: the public objects, called as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from transport import judging
from transport.row import Contender, Problem


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def exact(*, plan: bool = True) -> Contender:
    """OptimalTransport on points; its value is judged by its plan and by our own lower bound from its potentials."""
    from discrepancy import OptimalTransport

    def prepare(problem: Problem, setting: Any) -> Callable[[], Any]:
        given = _tensors(*problem.points(), problem.a, problem.b)
        return lambda: OptimalTransport().solve(*given)

    def judge(problem: Problem, result: Any, reference: Any) -> judging.Judgement:
        lower = {"lower": float(result.value) - float(result.dual_gap), "certified_gap": float(result.dual_gap)}
        if not plan:
            return judging.of_value(problem, float(result.value)) | lower
        entries = result.plan().coalesce()
        rows, columns = entries.indices().numpy()
        lower["lower"] = max(lower["lower"], judging.lower_bound(problem, result.g.numpy()))
        return judging.of_plan(problem, rows, columns, entries.values().numpy()) | lower

    return Contender("discrepancy", prepare, judge, role="ours", warm="small")


def sinkhorn(goal: float, **solver_options: Any) -> Contender:
    """Sinkhorn on a cost matrix with its default solver."""
    from discrepancy import Sinkhorn
    from discrepancy.transport import SemiDualNewton

    def prepare(problem: Problem, setting: Any) -> Callable[[], Any]:
        cost, a, b = _tensors(problem.matrix(), problem.a, problem.b)
        solver = SemiDualNewton(tolerance=goal, **solver_options)
        return lambda: Sinkhorn(problem.epsilon, solver=solver).solve_cost(cost, a, b)

    def judge(problem: Problem, result: Any, reference: Any) -> judging.Judgement:
        return judging.of_potentials(problem, result.f.numpy(), result.g.numpy()) | {"iterations": result.iterations}

    return Contender("discrepancy", prepare, judge, role="ours", warm="small")


def newton_sparse(goal: float) -> Contender:
    """The paper's solver by name, for its iteration count; not the one that the ratio is taken of."""
    from discrepancy import Sinkhorn
    from discrepancy.transport import SinkhornNewtonSparse

    def prepare(problem: Problem, setting: Any) -> Callable[[], Any]:
        cost, a, b = _tensors(problem.matrix(), problem.a, problem.b)
        solver = SinkhornNewtonSparse(tolerance=goal)
        return lambda: Sinkhorn(problem.epsilon, solver=solver).solve_cost(cost, a, b)

    def judge(problem: Problem, result: Any, reference: Any) -> judging.Judgement:
        return judging.of_potentials(problem, result.f.numpy(), result.g.numpy()) | {"iterations": result.iterations}

    return Contender("our SinkhornNewtonSparse", prepare, judge, role="shown", warm="small")


def divergence(name: str = "discrepancy", tolerance: float | None = None, memory: float = 1.0) -> Contender:
    """SinkhornDivergence with its gradient in the first cloud."""
    from discrepancy import SinkhornDivergence
    from discrepancy.transport import SemiDualNewton

    def prepare(problem: Problem, setting: Any) -> Callable[[], Any]:
        x, y = _tensors(*problem.points())
        loss = SinkhornDivergence(problem.epsilon, solver=SemiDualNewton(tolerance=setting, memory=memory))

        def run() -> tuple[float, np.ndarray]:
            leaf = x.clone().requires_grad_()
            value = loss(leaf, y)
            (slope,) = torch.autograd.grad(value, leaf)
            return float(value.detach()), slope.numpy()

        return run

    settings = (1e-3, 1e-4, 1e-5, 1e-6) if tolerance is None else (tolerance,)
    return Contender(
        name, prepare, lambda p, answer, want: judging.of_gradient(answer, want), role="ours", settings=settings, warm="small"
    )


def unbalanced() -> Contender:
    """UnbalancedSinkhorn with KL penalties on both sides, on a cost matrix."""
    from discrepancy import UnbalancedSinkhorn
    from discrepancy.transport import KLPenalty

    def prepare(problem: Problem, setting: Any) -> Callable[[], Any]:
        cost, a, b = _tensors(problem.matrix(), problem.a, problem.b)
        loss = UnbalancedSinkhorn(problem.epsilon, penalty=KLPenalty(problem.rho))
        return lambda: loss.solve_cost(cost, a, b)

    def judge(problem: Problem, result: Any, reference: Any) -> judging.Judgement:
        return judging.of_relaxed_plan(result.plan().numpy(), reference) | {"iterations": result.iterations}

    return Contender("discrepancy", prepare, judge, role="ours", warm="small")


__all__ = ["divergence", "exact", "newton_sparse", "sinkhorn", "unbalanced"]
