"""The Sinkhorn divergence, converged, against GeomLoss and POT at the epsilon that we choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import ot
import torch
from geomloss import SamplesLoss
from scipy.spatial.distance import cdist
from torch import Tensor

from discrepancy import SinkhornDivergence
from discrepancy.transport import SemiDualNewton
from side_by_side.measure import FLOOR, Case, Contender, gradient_of, value_of

_FRACTION = 0.05


def samples(n: int, d: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two samples and the epsilon: 5 % of their mean squared distance."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), 1.1 * rng.normal(size=(n, d)) + 0.3
    mean = float((x**2).sum(1).mean() + (y**2).sum(1).mean() - 2 * x.mean(0) @ y.mean(0))
    return x, y, _FRACTION * mean


def _kernel(x: np.ndarray, y: np.ndarray, epsilon: float) -> np.ndarray:
    kernel = cdist(x, y, "sqeuclidean")
    kernel /= -epsilon
    return np.exp(kernel, out=kernel)


def reference(x: np.ndarray, y: np.ndarray, epsilon: float, gradient: bool = True) -> tuple[float, np.ndarray | None]:
    """The divergence and its gradient in x by scaling of the kernel matrix, to a marginal error of 1e-11."""
    value, slope = 0.0, np.zeros_like(x)
    for factor, u, v in ((1.0, x, y), (-0.5, x, x), (-0.5, y, y)):
        kernel = _kernel(u, v, epsilon)
        left, right = np.ones(len(u)), np.ones(len(v))
        while True:
            fresh = 1 / (kernel @ right / len(v))
            error = np.abs(left / fresh - 1).mean()
            left = fresh
            if u is v:  # the symmetric fixed point, approached from both sides at once
                left = right = np.sqrt(left * right)
            else:
                right = 1 / (left @ kernel / len(u))
            if error < 1e-11:
                break
        value += factor * epsilon * (np.log(left).mean() + np.log(right).mean())
        if gradient and u is x:
            plan = left[:, None] * kernel * right / (len(u) * len(v))
            own = 2 * (u * plan.sum(1)[:, None] - plan @ v)
            slope += own if v is not x else -own
        del kernel
    return value, slope if gradient else None


def geomloss(epsilon: float, **options: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Its cost is |x - y|^2 / 2 and its epsilon is blur^2: half of ours on both counts."""
    loss = SamplesLoss("sinkhorn", p=2, blur=(epsilon / 2) ** 0.5, backend="tensorized", **options)
    return lambda x, y: 2 * loss(x, y)


def pot(epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Three entropic problems with KL(P | a b^T) in the value, as in ours."""

    def value(u: Tensor, v: Tensor) -> Tensor:
        return ot.solve_sample(u, v, reg=epsilon, reg_type="KL", grad="envelope", tol=1e-9, max_iter=10_000).value

    return lambda x, y: value(x, y) - (value(x, x) + value(y, y)) / 2


def cases(quick: bool) -> Iterator[Case]:
    """Value with gradient at two sizes and two dimensions, in both precisions."""
    for n in (64,) if quick else (256, 1024):
        for d in (2, 64):
            x, y, epsilon = samples(n, d)
            truth, slope = reference(x, y, epsilon)
            for dtype in (torch.float64, torch.float32):
                left, right = torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)
                runs = [
                    ("discrepancy", SinkhornDivergence(epsilon), True),
                    ("discrepancy, tolerance 1e-3", SinkhornDivergence(epsilon, solver=SemiDualNewton(1e-3)), True),
                    ("discrepancy, tolerance 1e-2", SinkhornDivergence(epsilon, solver=SemiDualNewton(1e-2)), True),
                    ("GeomLoss (default, scaling 0.5)", geomloss(epsilon), False),
                    ("GeomLoss, scaling 0.9", geomloss(epsilon, scaling=0.9), False),
                ]
                if dtype == torch.float64:  # in single precision its tolerance is never met
                    runs.append(("POT solve_sample, tol 1e-9", pot(epsilon), False))
                contenders = [Contender(who, gradient_of(run, left, right), mine) for who, run, mine in runs]
                name = f"Sinkhorn divergence with gradient, n = m = {n:,}, d = {d}, {str(dtype)[6:]}"
                yield Case(name, contenders, truth, slope, floor=FLOOR[dtype])
            yield _sharp(x, y, epsilon, f"n = m = {n:,}, d = {d}")


def _sharp(x: np.ndarray, y: np.ndarray, epsilon: float, setting: str) -> Case:
    """POT's empirical_sinkhorn_divergence is another number, the plans' bare costs: each side is held to its own reference."""
    truth, _ = reference(x, y, epsilon, gradient=False)
    left, right = torch.from_numpy(x), torch.from_numpy(y)

    def bare(stop: float) -> float:
        return float(ot.bregman.empirical_sinkhorn_divergence(x, y, epsilon, stopThr=stop, numIterMax=20_000))

    def relative(found: float, want: float) -> float:
        return abs(found - want) / want

    exact = bare(1e-15)
    ours = SinkhornDivergence(epsilon)
    return Case(
        f"Sinkhorn divergence, {setting}, value, float64: POT's own function",
        [
            Contender("discrepancy", value_of(ours, left, right), True, relative(float(ours(left, right)), truth)),
            Contender("POT empirical_sinkhorn_divergence", lambda: (bare(1e-9), None), False, relative(bare(1e-9), exact)),
        ],
        error_is="relative error of the value, each against its own definition converged",
    )
