"""Sliced W_2 under the same directions for all, and what control variates save at equal time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import ot
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from discrepancy import SlicedWasserstein
from discrepancy.directions import Directions, Uniform
from discrepancy.transport import LowerBound
from side_by_side.measure import FLOOR, Case, Contender, gradient_of, value_of


@dataclass(frozen=True, eq=False)
class Given(Directions):
    """The directions (L, d) that everyone in a row uses."""

    theta: Tensor

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        return self.theta.double()


def _plain(theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def distance(x: Tensor, y: Tensor) -> Tensor:
        u, v = (x @ theta.T).sort(0).values, (y @ theta.T).sort(0).values
        return (u - v).square().mean().sqrt()

    return distance


def cases(quick: bool) -> Iterator[Case]:
    """Value, and value with gradient, in single precision."""
    sizes = ((2_000, 3, 10),) if quick else ((10_000, 3, 50), (10_000, 64, 100), (100_000, 3, 50), (100_000, 64, 100))
    generator = torch.Generator().manual_seed(0)
    for n, d, count in sizes:
        x, y = (torch.randn(n, d, generator=generator) for _ in range(2))
        y = 1.1 * y + 0.2
        theta = Uniform(count).draw(d, generator, torch.float32)
        ours, plain = SlicedWasserstein(2, Given(theta)), _plain(theta)

        def sliced(x, y, theta=theta):
            return ot.sliced_wasserstein_distance(x, y, projections=theta.T)

        leaf = x.double().requires_grad_()
        truth = _plain(theta.double())(leaf, y.double())
        (slope,) = torch.autograd.grad(truth, leaf)
        runs = (("discrepancy", ours), ("POT sliced_wasserstein_distance (torch)", sliced), ("torch, plain formula", plain))
        name = f"sliced W_2, n = m = {n:,}, d = {d}, L = {count}, float32"
        for suffix, wrap in (("", value_of), (", with gradient", gradient_of)):
            contenders = [Contender(who, wrap(run, x, y), ours=run is ours) for who, run in runs]
            gradient = slope.numpy() if suffix else None
            yield Case(name + suffix, contenders, float(truth.detach()), gradient, floor=FLOOR[torch.float32])
    yield _at_equal_time(quick)


def _at_equal_time(quick: bool) -> Case:
    """Digits 0 against 8: error over directions of a controlled mean, and of plain means that take at least that long."""
    images, classes = load_digits(return_X_y=True)
    x, y = (torch.from_numpy(images[classes == k][:174] / 16) for k in (0, 8))
    generator = torch.Generator().manual_seed(1)
    truth = float(SlicedWasserstein(2, Uniform(2_000 if quick else 200_000))(x, y, generator=generator))
    controlled = SlicedWasserstein(2, Uniform(50), LowerBound())

    def plain(count: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: SlicedWasserstein(2, Uniform(count))(x, y, generator=generator)

    def pot(count: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: ot.sliced_wasserstein_distance(x, y, n_projections=count)

    def best(run: Callable[[Tensor, Tensor], Tensor]) -> float:
        def once() -> float:
            start = time.process_time()
            run(x, y)
            return time.process_time() - start

        return statistics.median(once() for _ in range(60))

    def rmse(run: Callable[[Tensor, Tensor], Tensor]) -> float:
        return math.sqrt(np.mean([(float(run(x, y)) / truth - 1) ** 2 for _ in range(300)]))

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return controlled(x, y, generator=generator)

    limit = best(ours)
    runs = [("discrepancy, L = 50 with LowerBound()", ours, True)]
    for who, build in (("discrepancy", plain), ("POT", pot)):
        count = 50
        while best(build(count)) < limit:
            count = count * 5 // 4
        runs.append((f"{who}, plain, L = {count}", build(count), False))
    runs += [("discrepancy, plain, L = 50", plain(50), False)]
    contenders = [Contender(who, value_of(run, x, y), ours=mine, error=rmse(run)) for who, run, mine in runs]
    return Case(
        "sliced W_2 with a control variate, digits 0 and 8 (n = 174, d = 64)",
        contenders,
        error_is="relative RMSE over directions, 300 repeats",
        reason="plain means with as many directions as the same time allows, and with the same number",
    )
