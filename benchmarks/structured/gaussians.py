"""Rows on covariance matrices: Bures-Wasserstein distances of many pairs, and barycenters."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transport.row import Contender, Row

from discrepancy.transport import bures_barycenter, bures_wasserstein
from structured.instance import Instance, Judgement, of_array

# Peers that form all products of a batch at once stop here instead of taking the machine with them.
_ADDRESS_SPACE = 8 << 30


def _covariances(count: int, d: int) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        size = max(4, count // 50) if quick else count
        arrays = {}
        for name in ("S", "R"):
            A = rng.standard_normal((size, d, 2 * d)) / np.sqrt(2 * d)
            arrays[name] = A @ A.swapaxes(1, 2) + 0.01 * np.eye(d)
        return Instance(arrays)

    return make


def _reference_distances(problem: Instance) -> np.ndarray:
    """sqrt(tr S + tr R - 2 sum of the roots of the eigenvalues of S R), pair by pair."""
    from scipy.linalg import eigh

    found = []
    for S, R in zip(problem["S"], problem["R"], strict=True):
        # S R has the eigenvalues of the symmetric pencil R v = lambda S^-1 v.
        values = eigh(R, np.linalg.inv(S), eigvals_only=True)
        found.append(np.sqrt(np.trace(S) + np.trace(R) - 2 * np.sqrt(np.maximum(values, 0)).sum()))
    return np.array(found)


def _distance_contenders() -> list[Contender]:
    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        S, R = p.tensor("S"), p.tensor("R")
        return lambda: bures_wasserstein(None, S, None, R).numpy()

    def plain(p: Instance, setting: Any) -> Callable[[], Any]:
        S, R = p.tensor("S"), p.tensor("R")

        def run() -> Any:
            L = torch.linalg.cholesky(S)
            roots = torch.linalg.eigvalsh(L.mT @ R @ L).clamp_min(0).sqrt().sum(-1)
            return ((S + R).diagonal(dim1=-2, dim2=-1).sum(-1) - 2 * roots).clamp_min(0).sqrt().numpy()

        return run

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        zero = np.zeros(p["S"].shape[-1])

        def run() -> Any:
            return np.array([ot.gaussian.bures_wasserstein_distance(zero, zero, S, R) for S, R in zip(p["S"], p["R"])])

        return run

    def pyriemann(p: Instance, setting: Any) -> Callable[[], Any]:
        from pyriemann.utils.distance import distance_wasserstein

        return lambda: np.asarray(distance_wasserstein(p["S"], p["R"]))

    def geomstats(p: Instance, setting: Any) -> Callable[[], Any]:
        from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDMatrices

        metric = SPDBuresWassersteinMetric(SPDMatrices(p["S"].shape[-1], equip=False))
        return lambda: np.sqrt(np.maximum(np.asarray(metric.squared_dist(p["S"], p["R"])), 0))

    def judge(p: Instance, answer: np.ndarray, wanted: np.ndarray) -> Judgement:
        return of_array(answer, wanted)

    return [
        Contender("discrepancy", ours, judge, role="ours", warm="small"),  # type: ignore[arg-type]
        Contender("yardstick: plain formula in torch, no checks", plain, judge, role="shown"),  # type: ignore[arg-type]
        Contender("POT bures_wasserstein_distance, pair by pair", pot, judge),  # type: ignore[arg-type]
        Contender("pyriemann distance_wasserstein", pyriemann, judge),  # type: ignore[arg-type]
        Contender("geomstats SPDBuresWassersteinMetric", geomstats, judge),  # type: ignore[arg-type]
    ]


def _reference_barycenter(problem: Instance) -> np.ndarray:
    """The fixed point S = mean of (S^1/2 S_k S^1/2)^1/2 by plain iteration to rounding."""
    given = problem["S"]
    S = given.mean(0)
    for _ in range(200):
        values, vectors = np.linalg.eigh(S)
        half = (vectors * np.sqrt(values)) @ vectors.T
        inverse = (vectors / np.sqrt(values)) @ vectors.T
        inner, turn = np.linalg.eigh(half @ given @ half)
        middle = ((turn * np.sqrt(np.maximum(inner, 0))[:, None]) @ turn.swapaxes(1, 2)).mean(0)
        following = inverse @ middle @ middle @ inverse
        change = np.linalg.norm(following - S) / np.linalg.norm(S)
        S = (following + following.T) / 2
        if change < 1e-12:
            break
    return S


def _barycenter_contenders() -> list[Contender]:
    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        S = p.tensor("S")
        return lambda: bures_barycenter(None, S, tolerance=setting).covariance.numpy()

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        means = np.zeros(p["S"].shape[:2])
        return lambda: ot.gaussian.bures_wasserstein_barycenter(means, p["S"], num_iter=1000, eps=setting)[1]

    def pyriemann(p: Instance, setting: Any) -> Callable[[], Any]:
        from pyriemann.utils.mean import mean_wasserstein

        return lambda: mean_wasserstein(p["S"], tol=setting, maxiter=1000)

    def geomstats(p: Instance, setting: Any) -> Callable[[], Any]:
        from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDMatrices
        from geomstats.learning.frechet_mean import FrechetMean

        space = SPDMatrices(p["S"].shape[-1], equip=False)
        space.equip_with_metric(SPDBuresWassersteinMetric)
        mean = FrechetMean(space)
        return lambda: mean.fit(p["S"]).estimate_

    def judge(p: Instance, answer: np.ndarray, wanted: np.ndarray) -> Judgement:
        return of_array(answer, wanted)

    settings = (1e-4, 1e-6, 1e-8)
    return [
        Contender("discrepancy", ours, judge, role="ours", settings=settings, warm="small"),  # type: ignore[arg-type]
        Contender("POT bures_wasserstein_barycenter", pot, judge, settings=settings),  # type: ignore[arg-type]
        Contender("pyriemann mean_wasserstein", pyriemann, judge, settings=settings),  # type: ignore[arg-type]
        Contender("geomstats FrechetMean", geomstats, judge),  # type: ignore[arg-type]
    ]


def rows() -> Iterator[Row]:
    """Distances of pairs, and barycenters."""
    for count, d in ((1000, 32), (64, 512)):
        yield Row(
            "Bures",
            f"distances of {count} pairs, {d} x {d}",
            _covariances(count, d),  # type: ignore[arg-type]
            _distance_contenders(),
            1e-7,
            "relative error of all distances",
            reach=1.0,
            reference=_reference_distances,  # type: ignore[arg-type]
            seeds=1,
            limit=60.0,
            threads=(1,),
        )
    for count, d in ((1000, 32), (64, 512)):
        yield Row(
            "Bures",
            f"barycenter of {count}, {d} x {d}",
            _covariances(count, d),  # type: ignore[arg-type]
            _barycenter_contenders(),
            1e-6,
            "relative error of the covariance",
            reach=2.0,
            reference=_reference_barycenter,  # type: ignore[arg-type]
            seeds=1,
            limit=60.0,
            threads=(1,),
        )


__all__ = ["rows"]
