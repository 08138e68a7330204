"""The peers of entropic transport: POT, regot, GeomLoss and OTT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from transport import judging
from transport.row import Contender, Problem

_MANY = 10_000_000  # iterations: the time limit ends a run, not a count
# Their own stopping rules are other norms than ours: thresholds from the row's error downwards, the first that reaches it.
_TIGHTER = (1.0, 1 / 4, 1 / 16, 1 / 64, 1 / 1000)


def thresholds(goal: float) -> tuple[float, ...]:
    """Thresholds to try in turn for an L1 error of `goal`."""
    return tuple(goal * factor for factor in _TIGHTER)


def _of_plan(problem: Problem, answer: Any, reference: Any) -> judging.Judgement:
    return judging.of_entropic_plan(problem, np.asarray(answer))


def pot_kernel(goal: float) -> Contender:
    """Scaling of the kernel matrix."""

    def prepare(problem: Problem, threshold: float) -> Callable[[], Any]:
        import ot

        return lambda: ot.sinkhorn(
            problem.a, problem.b, problem.matrix(), problem.epsilon, "sinkhorn", numItermax=_MANY, stopThr=threshold, warn=False
        )

    return Contender("POT kernel form", prepare, _of_plan, settings=thresholds(goal))


def _regot(name: str, solver: str, goal: float) -> Contender:
    def prepare(problem: Problem, threshold: float) -> Callable[[], Any]:
        import regot

        run, cost = getattr(regot, solver), np.asfortranarray(problem.matrix())
        return lambda: run(cost, problem.a, problem.b, problem.epsilon, tol=threshold, max_iter=1_000_000).plan

    return Contender(name, prepare, _of_plan, settings=thresholds(goal))


def regot(goal: float) -> list[Contender]:
    """Its sparse Newton solver and its sparse-plus-low-rank quasi-Newton solver."""
    return [_regot("regot SSNS", "sinkhorn_ssns", goal), _regot("regot SPLR", "sinkhorn_splr", goal)]


def pot_relaxed() -> Contender:
    """Translation-invariant Sinkhorn with both marginals relaxed."""

    def prepare(problem: Problem, threshold: float) -> Callable[[], Any]:
        import ot

        return lambda: ot.unbalanced.sinkhorn_unbalanced(
            problem.a,
            problem.b,
            problem.matrix(),
            problem.epsilon,
            problem.rho,
            method="sinkhorn_translation_invariant",
            reg_type="kl",
            numItermax=_MANY,
            stopThr=threshold,
        )

    steps = tuple(10.0**-k for k in range(5, 15))
    return Contender(
        "POT translation invariant", prepare, lambda p, plan, want: judging.of_relaxed_plan(plan, want), settings=steps
    )


def pot_batch(goal: float) -> list[Contender]:
    """ot.batch on a stack of cost matrices, in the kernel form where it may and in the log domain."""

    def prepared(method: str) -> Callable[[Problem, float], Callable[[], Any]]:
        def prepare(problem: Problem, threshold: float) -> Callable[[], Any]:
            import ot.batch

            # torch: on stacks of matrices faster than NumPy here
            cost, a, b = (torch.from_numpy(v) for v in (problem.matrix(), problem.a, problem.b))

            def run() -> Any:
                found = ot.batch.solve_batch(
                    cost, problem.epsilon, a, b, max_iter=_MANY, tol=threshold, method=method, reg_type="kl"
                )
                return found.plan

            return run

        return prepare

    return [
        Contender(f"ot.batch, {method}", prepared(method), _of_plan, settings=thresholds(goal))
        for method in ("sinkhorn", "log_sinkhorn")
    ]


def geomloss_batch(goal: float) -> Contender:
    """GeomLoss on a stack of cost matrices; more iterations until the error is reached."""

    def prepare(problem: Problem, iterations: int) -> Callable[[], Any]:
        import geomloss.ot

        cost, a, b = (torch.from_numpy(v) for v in (problem.matrix(), problem.a, problem.b))
        return lambda: geomloss.ot.solve_batch(cost, reg=problem.epsilon, a=a, b=b, max_iter=iterations).plan

    return Contender("GeomLoss solve_batch", prepare, _of_plan, settings=(50, 400, 1600))


def geomloss_divergence() -> Contender:
    """SamplesLoss on tensors, annealed more and more slowly. Its cost is half of ours, its epsilon blur^2."""

    def prepare(problem: Problem, scaling: float) -> Callable[[], Any]:
        from geomloss import SamplesLoss

        blur = (problem.epsilon / 2) ** 0.5
        loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")
        x, y = (torch.from_numpy(v) for v in problem.points())

        def run() -> tuple[float, np.ndarray]:
            leaf = x.clone().requires_grad_()
            value = 2 * loss(leaf, y)
            (slope,) = torch.autograd.grad(value, leaf)
            return float(value.detach()), slope.numpy()

        return run

    return Contender(
        "GeomLoss", prepare, lambda p, answer, want: judging.of_gradient(answer, want), settings=(0.9, 0.98, 0.99, 0.995, 0.998)
    )


def ott_divergence() -> Contender:
    """OTT's divergence with its gradient, compiled, in float64, to thresholds on its marginal error."""

    def prepare(problem: Problem, threshold: float) -> Callable[[], Any]:
        import jax

        jax.config.update("jax_enable_x64", True)
        from jax import numpy as jnp
        from ott.geometry import pointcloud
        from ott.tools import sinkhorn_divergence

        x, y = (jnp.asarray(v) for v in problem.points())

        def value(left: Any, right: Any, epsilon: Any) -> Any:
            return sinkhorn_divergence.sinkhorn_divergence(
                pointcloud.PointCloud,
                left,
                right,
                epsilon=epsilon,
                solve_kwargs={"threshold": threshold, "max_iterations": 100_000},
            )[0]

        key = (x.shape, threshold)
        if key not in _compiled:
            _compiled.clear()
            _compiled[key] = jax.jit(jax.value_and_grad(value))

        def run() -> tuple[float, np.ndarray]:
            found, slope = _compiled[key](x, y, problem.epsilon)
            return float(found), np.asarray(slope)

        return run

    return Contender(
        "OTT",
        prepare,
        lambda p, answer, want: judging.of_gradient(answer, want),
        settings=(1e-3, 1e-4, 1e-5, 1e-6, 1e-7),
        warm="same",
    )


_compiled: dict[Any, Any] = {}


__all__ = [
    "geomloss_batch",
    "geomloss_divergence",
    "ott_divergence",
    "pot_batch",
    "pot_kernel",
    "pot_relaxed",
    "regot",
    "thresholds",
]
