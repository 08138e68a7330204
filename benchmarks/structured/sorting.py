"""Rows bound by sorting: sliced W_2, and W_p on the line; beside them the bare sort of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transport.row import Contender, Row

from discrepancy import SlicedWasserstein, Wasserstein
from discrepancy.directions import Directions, Uniform
from structured.instance import Instance, Judgement, relative

# Directions whose projections are formed at once in the reference and by the bare sort.
_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Given(Directions):
    """The directions (L, d) that everyone in a row uses."""

    theta: torch.Tensor

    def _draw(self, d: int, generator: torch.Generator) -> torch.Tensor:
        return self.theta.double()


def _clouds(n: int, d: int, count: int) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        generator = torch.Generator().manual_seed(seed)
        size = max(500, n // 100) if quick else n
        x = torch.randn(size, d, generator=generator)
        y = 1.1 * torch.randn(size, d, generator=generator) + 0.2
        theta = Uniform(count).draw(d, generator, torch.float32)
        return Instance({"x": x.numpy(), "y": y.numpy(), "theta": theta.numpy()})

    return make


def _reference(problem: Instance) -> tuple[float, np.ndarray]:
    """SW_2 and its gradient in x in float64, some directions at a time."""
    x, y, theta = (problem[k].astype(np.float64) for k in ("x", "y", "theta"))
    n, total, slope = len(x), 0.0, np.zeros_like(x)
    for block in np.array_split(theta, max(1, len(theta) // _BLOCK)):
        u, v = (x @ block.T).T, np.sort((y @ block.T).T, axis=1)
        order = np.argsort(u, axis=1)
        gap = np.take_along_axis(u, order, 1) - v
        total += float(np.square(gap).sum())
        moved = np.empty_like(gap)
        np.put_along_axis(moved, order, gap, 1)
        slope += moved.T @ block
    value = np.sqrt(total / (n * len(theta)))
    return value, slope / (n * len(theta) * value)


def _judge(problem: Instance, answer: Any, wanted: tuple[float, np.ndarray]) -> Judgement:
    value, slope = answer
    error = abs(float(value) - wanted[0]) / wanted[0]
    if slope is not None:
        error = max(error, float(np.linalg.norm(np.asarray(slope, np.float64) - wanted[1]) / np.linalg.norm(wanted[1])))
    return {"error": error}


def _wrapped(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, gradient: bool) -> Callable[[], Any]:
    def value() -> Any:
        with torch.no_grad():
            return run(x), None

    def both() -> Any:
        leaf = x.clone().requires_grad_()
        found = run(leaf)
        (slope,) = torch.autograd.grad(found, leaf)
        return found.detach(), slope.numpy()

    return both if gradient else value


def _sliced_contenders(gradient: bool, *, jax: bool) -> list[Contender]:
    """jax: XLA's sort takes seconds on the smallest row, and is left out of the others."""

    def ours(p: Instance, setting: Any) -> Callable[[], Any]:
        D, y = SlicedWasserstein(2, Given(p.tensor("theta"))), p.tensor("y")
        return _wrapped(lambda x: D(x, y), p.tensor("x"), gradient)

    def pot(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        y, theta = p.tensor("y"), p.tensor("theta").T
        return _wrapped(lambda x: ot.sliced_wasserstein_distance(x, y, projections=theta), p.tensor("x"), gradient)

    def pot_numpy(p: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        return lambda: (ot.sliced_wasserstein_distance(p["x"], p["y"], projections=p["theta"].T), None)

    def plain(p: Instance, setting: Any) -> Callable[[], Any]:
        y, theta = p.tensor("y"), p.tensor("theta").T
        return _wrapped(
            lambda x: ((x @ theta).sort(0).values - (y @ theta).sort(0).values).square().mean().sqrt(), p.tensor("x"), gradient
        )

    def ott(p: Instance, setting: Any) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        x, y, theta = (jnp.asarray(p[k]) for k in ("x", "y", "theta"))

        def distance(x: Any, y: Any, theta: Any) -> Any:
            u, v = jnp.sort(x @ theta.T, 0), jnp.sort(y @ theta.T, 0)
            return jnp.sqrt(jnp.mean((u - v) ** 2))

        run = jax.jit(jax.value_and_grad(distance) if gradient else lambda *given: (distance(*given), None))
        return lambda: jax.tree.map(np.asarray, run(x, y, theta))

    def bare(p: Instance, setting: Any) -> Callable[[], Any]:
        theta = p["theta"]
        keys = [(p[k] @ theta[:_BLOCK].T).T.copy() for k in ("x", "y")]

        def run() -> Any:
            for k in range(0, len(theta), _BLOCK):
                for some in keys:
                    np.sort(some[: len(theta) - k], axis=1)
            return np.nan, None

        return run

    def unjudged(p: Instance, answer: Any, wanted: Any) -> Judgement:
        return {"error": 0.0}

    found = [
        Contender("discrepancy", ours, _judge, role="ours", warm="small"),  # type: ignore[arg-type]
        Contender("POT sliced_wasserstein_distance (torch)", pot, _judge),  # type: ignore[arg-type]
        Contender("torch, plain formula", plain, _judge),  # type: ignore[arg-type]
        Contender("bare np.sort of the 2 n L keys", bare, unjudged, role="shown"),  # type: ignore[arg-type]
    ]
    if jax:
        found.append(Contender("JAX, plain formula (as in OTT)", ott, _judge, warm="same"))  # type: ignore[arg-type]
    if not gradient:
        found.insert(2, Contender("POT sliced_wasserstein_distance (NumPy)", pot_numpy, _judge))  # type: ignore[arg-type]
    return found


def sliced_rows() -> Iterator[Row]:
    """Value, and value with gradient, in single precision, the same directions for all."""
    sizes = [(10_000, 3, 50), (10_000, 64, 500), (100_000, 3, 50), (100_000, 64, 100), (1_000_000, 3, 50), (1_000_000, 64, 500)]
    for n, d, count in sizes:
        large = n * count > 100_000_000
        for gradient in (False, True):
            yield Row(
                "sliced W_2",
                f"n = {n:,}, d = {d}, L = {count}, float32, value{' and gradient' if gradient else ''}",
                _clouds(n, d, count),  # type: ignore[arg-type]
                _sliced_contenders(gradient, jax=n * d * count <= 1_500_000),
                1e-3 if gradient else 1e-4,
                "relative error of value (and gradient, the larger)",
                reach=5.0,
                reference=_reference,  # type: ignore[arg-type]
                seeds=1,
                long=large,
                limit=120.0 if large else None,
                threads=(1,),
            )


def _line(n: int, m: int, weighted: bool) -> Callable[[int, bool], Instance]:
    def make(seed: int, quick: bool) -> Instance:
        rng = np.random.default_rng(seed)
        k, j = (n // 50, m // 50) if quick else (n, m)
        arrays = {"u": rng.normal(size=k), "v": 0.3 + 1.2 * rng.standard_t(5, size=j)}
        if weighted:
            arrays |= {"a": rng.dirichlet(np.ones(k)), "b": rng.dirichlet(np.ones(j))}
        return Instance(arrays)

    return make


def _line_reference(p: int) -> Callable[[Instance], float]:
    def reference(problem: Instance) -> float:
        """W_p by matching quantiles on the union of the levels."""
        u, v = problem["u"], problem["v"]
        a, b = (problem.arrays.get(k, np.full(len(t), 1 / len(t))) for k, t in (("a", u), ("b", v)))
        i, j = np.argsort(u), np.argsort(v)
        A, B = np.cumsum(a[i]), np.cumsum(b[j])
        levels = np.sort(np.concatenate([A, B]))
        middle = (levels + np.concatenate([[0.0], levels[:-1]])) / 2
        mass = np.diff(levels, prepend=0.0)
        left = u[i][np.minimum(np.searchsorted(A, middle), len(u) - 1)]
        right = v[j][np.minimum(np.searchsorted(B, middle), len(v) - 1)]
        return float((mass @ np.abs(left - right) ** p) ** (1 / p))

    return reference


def _line_contenders(p: int) -> list[Contender]:
    def ours(q: Instance, setting: Any) -> Callable[[], Any]:
        given = [torch.from_numpy(q.arrays[k])[:, None] if k in "uv" else torch.from_numpy(q.arrays[k]) for k in q.arrays]
        D = Wasserstein(p)
        return lambda: D(*given)

    def pot(q: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        return lambda: ot.wasserstein_1d(q["u"], q["v"], q.arrays.get("a"), q.arrays.get("b"), p=p) ** (1 / p)

    def emd(q: Instance, setting: Any) -> Callable[[], Any]:
        import ot

        weights = (q.arrays.get("a"), q.arrays.get("b"))
        return lambda: ot.emd2_1d(q["u"], q["v"], *weights, metric="minkowski", p=p) ** (1 / p)

    def scipy(q: Instance, setting: Any) -> Callable[[], Any]:
        from scipy.stats import wasserstein_distance

        return lambda: wasserstein_distance(q["u"], q["v"], q.arrays.get("a"), q.arrays.get("b"))

    def bare(q: Instance, setting: Any) -> Callable[[], Any]:
        sort = np.argsort if "a" in q.arrays else np.sort
        return lambda: (sort(q["u"]), sort(q["v"]))

    def judge(q: Instance, answer: Any, wanted: float) -> Judgement:
        return relative(float(answer), wanted)

    found = [
        Contender("discrepancy", ours, judge, role="ours", warm="small"),  # type: ignore[arg-type]
        Contender("POT wasserstein_1d", pot, judge),  # type: ignore[arg-type]
        Contender("POT emd2_1d", emd, judge),  # type: ignore[arg-type]
        Contender("bare np.sort (weighted: argsort) of the keys", bare, lambda q, r, w: {"error": 0.0}, role="shown"),  # type: ignore[arg-type]
    ]
    if p == 1:
        found.insert(3, Contender("SciPy wasserstein_distance", scipy, judge))  # type: ignore[arg-type]
    return found


def line_rows() -> Iterator[Row]:
    """A million points on the line: equal sizes, unequal sizes, weights."""
    n, m = 1_000_000, 700_000
    for words, other, weighted in ((f"m = {n:,}", n, False), (f"m = {m:,}", m, False), (f"m = {m:,}, weighted", m, True)):
        for p in (1, 2):
            yield Row(
                "line",
                f"W_{p}, n = {n:,}, {words}, value",
                _line(n, other, weighted),  # type: ignore[arg-type]
                _line_contenders(p),
                1e-9,
                "relative error",
                reach=2.0,
                reference=_line_reference(p),  # type: ignore[arg-type]
                seeds=1,
                threads=(1,),
            )


__all__ = ["line_rows", "sliced_rows"]
