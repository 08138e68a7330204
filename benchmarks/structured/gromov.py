"""Rows on Gromov-Wasserstein: the squared loss between squared distances, by conditional gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transport.problems import squared_distances
from transport.row import Contender, Row

from discrepancy import GromovWasserstein
from structured.instance import Instance, Judgement


def _spaces(n: int) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        size = max(40, n // 10) if quick else n
        x = rng.standard_normal((size, 2)) * [1.0, 0.4] + 2.0 * (rng.random((size, 1)) < 0.3)
        y = rng.standard_normal((size, 3)) * [1.0, 0.5, 0.2] + 2.5 * (rng.random((size, 1)) < 0.3)
        return Instance({"Cx": squared_distances(x, x), "Cy": squared_distances(y, y)})

    return make


def _objective(p: Instance, plan: np.ndarray) -> float:
    a, b = plan.sum(1), plan.sum(0)
    constant = (p["Cx"] ** 2 @ a)[:, None] + (p["Cy"] ** 2 @ b)[None]
    return float(((constant - 2 * p["Cx"] @ plan @ p["Cy"]) * plan).sum())


def _pot(p: Instance, tolerance: float, **options: Any) -> np.ndarray:
    import ot

    a, b = (np.full(len(p[k]), 1 / len(p[k])) for k in ("Cx", "Cy"))
    return ot.gromov.gromov_wasserstein(
        p["Cx"], p["Cy"], a, b, "square_loss", tol_rel=tolerance, tol_abs=0, max_iter=1000, **options
    )


def _contenders() -> list[Contender]:
    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        Cx, Cy = p.tensor("Cx"), p.tensor("Cy")
        return lambda: GromovWasserstein(tolerance=setting).solve_cost(Cx, Cy).plan().numpy()

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        return lambda: _pot(p, setting, symmetric=True)

    def entropic(p: Instance, setting: Any) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp
        from ott.geometry import geometry
        from ott.problems.quadratic import quadratic_problem
        from ott.solvers.linear import sinkhorn
        from ott.solvers.quadratic import gromov_wasserstein

        jax.config.update("jax_enable_x64", True)
        spaces = [geometry.Geometry(jnp.asarray(p[k])) for k in ("Cx", "Cy")]
        problem = quadratic_problem.QuadraticProblem(*spaces)
        solver = jax.jit(gromov_wasserstein.GromovWasserstein(sinkhorn.Sinkhorn(), epsilon=setting, relative_epsilon="mean"))
        return lambda: np.asarray(solver(problem).matrix)

    def judge(p: Instance, answer: np.ndarray, wanted: float) -> Judgement:
        return {"error": max(0.0, _objective(p, answer) / wanted - 1)}

    return [
        Contender("discrepancy", ours, judge, role="ours", settings=(1e-6, 1e-9), warm="small"),  # type: ignore[arg-type]
        Contender("POT gromov_wasserstein", pot, judge, settings=(1e-6, 1e-9)),  # type: ignore[arg-type]
        Contender("OTT GromovWasserstein (entropic)", entropic, judge, settings=(1e-2, 1e-3), warm="same"),  # type: ignore[arg-type]
    ]


def rows() -> Iterator[Row]:
    """Two sizes."""
    for n, seeds in ((200, 3), (1000, 1)):
        yield Row(
            "Gromov-Wasserstein",
            f"n = m = {n:,}, squared distances in 2 and 3 dimensions",
            _spaces(n),  # type: ignore[arg-type]
            _contenders(),
            1e-5,
            "objective above that of POT's local minimum, relative",
            reach=2.0,
            reference=lambda p: _objective(p, _pot(p, 1e-12, symmetric=True)),  # type: ignore[arg-type, misc]
            seeds=seeds,
            limit=120.0,
            threads=(1,),
        )


__all__ = ["rows"]
