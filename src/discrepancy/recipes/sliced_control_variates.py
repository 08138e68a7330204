"""Sliced Wasserstein estimation with control variates: error against the plain average, on digits and in a gradient flow.

For each pair of digit classes the truth is the mean over 200,000 directions; the estimators get 50 and are repeated 300 times.
The flow moves 200 points under ten fresh directions a step and is judged by the exact W2 (an assignment).
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from discrepancy.datasets import digits
from discrepancy.directions import Uniform
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import LowerBound, SlicedWasserstein, UpperBound

_PAIRS = ((0, 8), (1, 7), (2, 3), (4, 9), (5, 6))
_DIRECTIONS, _REFERENCE = 50, 200_000
_ESTIMATORS = {"plain": None, "lower": LowerBound(), "upper": UpperBound()}


def _squared(x: Tensor, y: Tensor, count: int, control: LowerBound | UpperBound | None, generator: torch.Generator) -> float:
    """The raw estimate of SW_2^2, before the clamp at zero."""
    return float(SlicedWasserstein(2, Uniform(count), control).solve(x, y, generator=generator).raw)


def _errors(pair: tuple[int, int], repeats: int, generator: torch.Generator) -> dict[str, float]:
    """Root mean squared error of each estimator of SW_2^2 for one pair of classes."""
    images, classes = digits()
    x, y = (torch.from_numpy(images[classes == k]) for k in pair)
    n = min(len(x), len(y))
    x, y = x[:n], y[:n]
    truth = _squared(x, y, _REFERENCE, None, generator)
    return {
        name: math.sqrt(statistics.fmean((_squared(x, y, _DIRECTIONS, cv, generator) - truth) ** 2 for _ in range(repeats)))
        for name, cv in _ESTIMATORS.items()
    }


def _time_ratio(repeats: int) -> float:
    """Median processor time of the lower bound over the plain estimator's, calls interleaved."""
    images, classes = digits()
    x, y = (torch.from_numpy(images[classes == k][:174]) for k in (0, 8))
    ratios = []
    for _ in range(repeats):
        seconds = []
        for control in (LowerBound(), None):
            discrepancy = SlicedWasserstein(2, Uniform(_DIRECTIONS), control)
            start = time.process_time()
            discrepancy(x, y)
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _exact_w2(x: Tensor, y: Tensor) -> float:
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))


def _flow(control: LowerBound | None, seed: int, steps: int, *, rate: float = 0.01, n: int = 200) -> list[float]:
    """The exact W2 to the target along Euler steps on n SW_2^2, ten fresh directions a step."""
    start = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=start, dtype=torch.float64) - 10
    y = math.sqrt(0.2) * torch.randn(n, 2, generator=start, dtype=torch.float64) + 10
    discrepancy = SlicedWasserstein(2, Uniform(10), control)
    draws = torch.Generator().manual_seed(1000 + seed)
    path = []
    for step in range(steps):
        if step % (steps // 20) == 0:
            path.append(_exact_w2(x, y))
        moving = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(n * discrepancy(moving, y, generator=draws).square(), moving)
        x = x - rate * slope
    return [*path, _exact_w2(x, y)]


def measure(setting: Setting) -> Row:
    """All pairs, the time ratio and both flows, for one seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    pairs = _PAIRS[:2] if setting.quick else _PAIRS
    repeats = 60 if setting.quick else 300
    row: Row = {}
    for pair in pairs:
        errors = _errors(pair, repeats, generator)
        name = f"{pair[0]}-{pair[1]}"
        row[f"lower {name}"] = errors["lower"] / errors["plain"]
        row[f"upper {name}"] = errors["upper"] / errors["plain"]
    row["time ratio"] = _time_ratio(50 if setting.quick else 200)
    steps = 200 if setting.quick else 500
    for name, control in (("plain", None), ("lower", LowerBound())):
        path = _flow(control, setting.seed, steps)
        row[f"flow {name}"] = path[-1]
        row[f"_path {name}"] = path
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds: error ratios for at least four of five pairs, time at most 1.5 x, the flow no worse."""
    pairs = len(_PAIRS[:2] if quick else _PAIRS)
    need = pairs if quick else 4

    def met(kind: str, bound: float) -> list[float]:
        return [sum(v <= bound for k, v in row.items() if k.startswith(kind)) for row in rows]

    lower, upper = met("lower", 0.25), met("upper", 0.5)
    first = [row["lower 0-8"] for row in rows]
    second = [row["upper 0-8"] for row in rows]
    times = [row["time ratio"] for row in rows]
    gap = [row["flow lower"] - row["flow plain"] for row in rows]
    return [
        check("pairs with RMSE(lower) <= 0.25 RMSE(plain)", lower, f">= {need} of {pairs}", min(lower) >= need),
        check("pairs with RMSE(upper) <= 0.5 RMSE(plain)", upper, f">= {need} of {pairs}", min(upper) >= need),
        check("RMSE ratio of the lower bound, digits 0 and 8", first, "<= 0.25", max(first) <= 0.25),
        check("RMSE ratio of the upper bound, digits 0 and 8", second, "<= 0.5", max(second) <= 0.5),
        check("time of the lower bound over plain", times, "<= 1.5", statistics.median(times) <= 1.5, timing=True),
        check("exact W2 after the flow, lower minus plain", gap, "median <= 0", statistics.median(gap) <= 0),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Error ratios by pair, and the flows' distance to the target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = [k.removeprefix("lower ") for k in rows[0] if k.startswith("lower ")]
    for offset, kind, colour in ((-0.2, "lower", "#2563eb"), (0.2, "upper", "#f59e0b")):
        for row in rows:
            left.plot(np.arange(len(names)) + offset, [row[f"{kind} {n}"] for n in names], "o", color=colour, alpha=0.6)
        left.plot([], [], "o", color=colour, label=f"{kind} bound")
    for level, colour in ((0.25, "#2563eb"), (0.5, "#f59e0b")):
        left.axhline(level, color=colour, lw=0.8, ls="--")
    left.set(xticks=range(len(names)), xticklabels=names, xlabel="digit classes", ylim=(0, None))
    left.set_ylabel(f"RMSE over the plain estimator's ({_DIRECTIONS} directions)")
    left.legend(frameon=False)
    for kind, colour in (("plain", "#6b7280"), ("lower", "#2563eb")):
        for k, row in enumerate(rows):
            path = row[f"_path {kind}"]
            label = {"plain": "plain", "lower": "lower bound"}[kind] if k == 0 else None
            right.semilogy(np.linspace(0, 100, len(path)), path, color=colour, alpha=0.7, label=label)
    right.set(xlabel="% of the steps", ylabel="exact W2 to the target (10 directions a step)")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(
    slug="sliced-control-variates",
    measure=measure,
    judge=judge,
    draw=draw,
    seeds=(0, 1, 2, 3, 4),
    needs=("digits",),
)
