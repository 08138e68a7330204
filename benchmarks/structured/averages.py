"""Rows on barycenters: free support, fixed support on points and on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transport.problems import squared_distances
from transport.row import Contender, Row

from discrepancy import barycenter, fixed_support_barycenter
from discrepancy.transport import DebiasedBarycenter, EntropicBarycenter, Grid
from structured.instance import Instance, Judgement


def _clouds(count: int, n: int, size: int, d: int) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        m, k = (max(20, n // 10), max(10, size // 10)) if quick else (n, size)
        spread = rng.uniform(0.3, 1.5, (count, d))
        clouds = spread[:, None] * rng.standard_normal((count, m, d)) + 2 * rng.standard_normal((count, 1, d))
        return Instance({"clouds": clouds, "start": rng.standard_normal((k, d))})

    return make


def _free_contenders() -> list[Contender]:
    """All take the same fixed-point steps from the same start; judged by the steps' common objective."""

    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        clouds, start = list(p.tensor("clouds")), p.tensor("start")
        return lambda: barycenter(clouds, start=start, tolerance=setting, max_iterations=1000).points.numpy()

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        clouds = list(p["clouds"])
        masses = [np.full(len(c), 1 / len(c)) for c in clouds]
        return lambda: ot.lp.free_support_barycenter(clouds, masses, p["start"], numItermax=1000, stopThr=setting)

    def judge(p: Instance, answer: np.ndarray, wanted: float) -> Judgement:
        return {"error": max(0.0, _objective(p, answer) / wanted - 1)}

    return [
        Contender("discrepancy", ours, judge, role="ours", settings=(1e-4, 1e-6, 1e-8), warm="small"),  # type: ignore[arg-type]
        Contender("POT free_support_barycenter", pot, judge, settings=(1e-3, 1e-5, 1e-8)),  # type: ignore[arg-type]
    ]


def _objective(p: Instance, points: np.ndarray) -> float:
    import ot

    a = np.full(len(points), 1 / len(points))
    return float(np.mean([ot.emd2(a, np.full(len(c), 1 / len(c)), squared_distances(points, c)) for c in p["clouds"]]))


def _free_reference(p: Instance) -> float:
    """The objective that POT's fixed point reaches when nothing moves any more."""
    import ot

    clouds = list(p["clouds"])
    masses = [np.full(len(c), 1 / len(c)) for c in clouds]
    return _objective(p, ot.lp.free_support_barycenter(clouds, masses, p["start"], numItermax=2000, stopThr=1e-14))


def _histograms(n: int, count: int, share: float) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        size = max(60, n // 10) if quick else n
        points = rng.random((size, 2))
        cost = squared_distances(points, points)
        return Instance({"measures": rng.dirichlet(np.ones(size), count), "cost": cost}, {"epsilon": share * cost.mean()})

    return make


def _l1(p: Instance, answer: np.ndarray, wanted: np.ndarray) -> Judgement:
    answer = np.asarray(answer, np.float64)
    return {"error": float(np.abs(answer / answer.sum() - wanted).sum()) if np.isfinite(answer).all() else float("inf")}


def _projected(measures: np.ndarray, forth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Bregman projections in the log domain of their results, until they stand still."""
    u, before = np.ones_like(measures), np.inf
    while True:
        s = forth(measures / forth(u))
        a = np.exp(np.log(s).mean(0))
        u = a / s
        change = np.abs(a - before).sum()
        if change < 1e-12:
            return a / a.sum()
        before = a


def _histogram_reference(p: Instance) -> np.ndarray:
    kernel = np.exp(-p["cost"] / p.numbers["epsilon"])
    return _projected(p["measures"], lambda v: v @ kernel)


def _fixed_contenders() -> list[Contender]:
    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        measures, cost = p.tensor("measures"), p.tensor("cost")
        problem = EntropicBarycenter(p.numbers["epsilon"], tolerance=setting)
        return lambda: fixed_support_barycenter(measures, costs=cost, problem=problem).weights.numpy()

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        A, cost = p["measures"].T.copy(), p["cost"]
        return lambda: ot.bregman.barycenter(A, cost, p.numbers["epsilon"], stopThr=setting, numItermax=100_000)

    def ott(p: Instance, setting: Any) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp
        from ott.geometry import geometry
        from ott.problems.linear.barycenter_problem import FixedBarycenterProblem
        from ott.solvers.linear.discrete_barycenter import FixedBarycenter

        jax.config.update("jax_enable_x64", True)
        geom = geometry.Geometry(jnp.asarray(p["cost"]), epsilon=p.numbers["epsilon"])
        problem = FixedBarycenterProblem(geom, jnp.asarray(p["measures"]))
        solver = jax.jit(FixedBarycenter(threshold=setting, max_iterations=20_000, lse_mode=False))
        return lambda: np.asarray(solver(problem).histogram)

    settings = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    return [
        Contender("discrepancy", ours, _l1, role="ours", settings=settings[:5], warm="small"),  # type: ignore[arg-type]
        Contender("POT bregman.barycenter", pot, _l1, settings=settings),  # type: ignore[arg-type]
        Contender("OTT FixedBarycenter", ott, _l1, settings=settings[:4], warm="same"),  # type: ignore[arg-type]
    ]


def _bumps(side: int, epsilon: float) -> Callable[[int, bool], Instance]:
    """Five Gaussian bumps of one covariance: their debiased barycenter is the bump of the mean place."""

    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        size = 32 if quick else side
        t = np.linspace(0, 1, size)

        def bump(place: np.ndarray) -> np.ndarray:
            u, v = (np.exp(-np.square((t - c) / 0.07) / 2) for c in place)
            image = np.outer(u, v)
            return image / image.sum()

        places = rng.uniform(0.3, 0.7, (5, 2))
        images = np.stack([bump(c) for c in places])
        return Instance({"images": images, "truth": bump(places.mean(0))}, {"epsilon": epsilon})

    return make


def _image_contenders(debiased: bool) -> list[Contender]:
    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        images, side = p.tensor("images"), p["images"].shape[1]
        problem = (DebiasedBarycenter if debiased else EntropicBarycenter)(p.numbers["epsilon"], tolerance=setting)
        grid = Grid((1 / (side - 1),) * 2)
        return lambda: fixed_support_barycenter(images, grid, problem=problem).weights.numpy()

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        run = ot.bregman.convolutional_barycenter2d_debiased if debiased else ot.bregman.convolutional_barycenter2d
        return lambda: run(p["images"], p.numbers["epsilon"], stopThr=setting, numItermax=100_000)

    settings = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    name = "POT convolutional_barycenter2d" + ("_debiased" if debiased else "")
    return [
        Contender("discrepancy", ours, _l1, role="ours", settings=settings[1:6], warm="small"),  # type: ignore[arg-type]
        Contender(name, pot, _l1, settings=settings),  # type: ignore[arg-type]
    ]


def _image_reference(p: Instance) -> np.ndarray:
    t = np.linspace(0, 1, p["images"].shape[1])
    kernel = np.exp(-np.square(t[:, None] - t) / p.numbers["epsilon"])
    return _projected(p["images"], lambda v: kernel @ v @ kernel)


def rows() -> Iterator[Row]:
    """Free support, then fixed support."""
    for count, n, size, d in ((4, 300, 300, 2), (10, 200, 100, 10)):
        yield Row(
            "barycenter",
            f"free support, {count} clouds of {n}, {size} points, d = {d}",
            _clouds(count, n, size, d),  # type: ignore[arg-type]
            _free_contenders(),
            1e-4,
            "objective above that of POT's fixed point, relative",
            reach=2.0,
            reference=_free_reference,  # type: ignore[arg-type]
            limit=60.0,
            threads=(1,),
        )
    for share in (0.05, 0.01):
        yield Row(
            "barycenter",
            f"entropic on 1,000 points, 5 measures, epsilon {share} of the mean cost",
            _histograms(1000, 5, share),  # type: ignore[arg-type]
            _fixed_contenders(),
            1e-6,
            "L1 distance of the weights from the solution",
            reach=2.0,
            reference=_histogram_reference,  # type: ignore[arg-type]
            seeds=1,
            limit=60.0,
            threads=(1,),
        )
    for side, epsilon in ((64, 0.004), (256, 0.002)):
        for debiased in (False, True):
            yield Row(
                "barycenter",
                f"{'debiased' if debiased else 'entropic'}, 5 images of {side} x {side}, epsilon {epsilon}",
                _bumps(side, epsilon),  # type: ignore[arg-type]
                _image_contenders(debiased),
                1e-2 if debiased else 1e-6,
                "L1 distance of the weights from the " + ("closed form" if debiased else "solution"),
                reach=2.0,
                reference=(lambda p: p["truth"]) if debiased else _image_reference,  # type: ignore[arg-type]
                seeds=1,
                limit=60.0,
                threads=(1,),
            )


__all__ = ["rows"]
