"""Sinkhorn-Newton-sparse against plain log-domain Sinkhorn: iterations to an L1 marginal error of 1e-11, and what a step costs.

digits      histograms of handwritten digits on an 8 x 8 grid, classes i and i + 1, squared Euclidean cost on [0, 1]^2
assignment  uniform random costs, uniform weights: sharp plans without geometry
step        processor time of a Newton step, conjugate gradients included, in sweeps
ablation    Newton steps with the sparsified and with the dense Hessian

An iteration is a sweep (both potentials once) or a Newton step; either is one pass over the pairs, and a pass more for each
trial of the line search. A seed picks the image of each class, or draws the costs.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.costs import SquaredEuclidean
from discrepancy.datasets import digits
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import LogSinkhorn, SinkhornNewtonSparse
from discrepancy.transport.entropic.problem import MatrixProblem

_GOAL = 1e-11
_INVERSE_EPSILONS = (200, 1200)
_SWEEPS = LogSinkhorn(tolerance=_GOAL, max_iterations=50_000)
_SPARSE = SinkhornNewtonSparse(tolerance=_GOAL, max_newton=300)
_DENSE = SinkhornNewtonSparse(tolerance=_GOAL, max_newton=300, density=1.0)


def _level(inverse: float) -> Tensor:
    return torch.tensor([1 / inverse], dtype=torch.float64)


def _problem(cost: Tensor, a: Tensor, b: Tensor) -> MatrixProblem:
    return MatrixProblem(cost[None], a[None], b[None], torch.float64)


def _digit_pairs(setting: Setting) -> dict[str, MatrixProblem]:
    """The seed-th image of classes i and i + 1, each pixel (0 to 16) raised by 0.16, normalised; three pairs in a quick run."""
    images, classes = digits()
    pixels, labels = torch.from_numpy(images), torch.from_numpy(classes)
    mass = torch.stack([pixels[labels == k][setting.seed] for k in range(10)]) + 0.16 / 16
    mass = mass / mass.sum(-1, keepdim=True)
    side = torch.linspace(0, 1, 8, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    cost = SquaredEuclidean().matrix(grid, grid)
    first = range(3) if setting.quick else range(10)
    return {f"{k}-{(k + 1) % 10}": _problem(cost, mass[k], mass[(k + 1) % 10]) for k in first}


def _assignment(n: int, seed: int) -> MatrixProblem:
    cost = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    equal = torch.full((n,), 1 / n, dtype=torch.float64)
    return _problem(cost, equal, equal)


def _error(problem: MatrixProblem, f: Tensor, g: Tensor, epsilon: Tensor) -> float:
    """The L1 error of both marginals of the plan, from scratch."""
    a, b = problem.a[0], problem.b[0]
    plan = a[:, None] * b * torch.exp((f[0][:, None] + g[0] - problem.cost[0]) / epsilon)
    return float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())


def _on_digits(setting: Setting) -> Row:
    row: Row = {}
    for inverse in _INVERSE_EPSILONS:
        epsilon = _level(inverse)
        for pair, problem in _digit_pairs(setting).items():
            plain = _SWEEPS.solve(problem, epsilon)
            sparse = _SPARSE.solve(problem, epsilon)
            dense = _DENSE.solve(problem, epsilon)
            name = f"{inverse} {pair}"
            row[f"sweeps {name}"] = plain.iterations
            row[f"iterations {name}"] = sparse.iterations
            row[f"newton {name}"] = sparse.newton
            row[f"dense newton {name}"] = dense.newton
            row[f"entries {name}"] = sparse.entries
            row[f"error {name}"] = _error(problem, sparse.f, sparse.g, epsilon)
            row[f"at the limit {name}"] = plain.outcome is Outcome.ITERATION_LIMIT
    return row


def _on_assignment(setting: Setting) -> Row:
    epsilon = _level(200)
    problem = _assignment(80 if setting.quick else 200, setting.seed)
    plain, sparse = _SWEEPS.solve(problem, epsilon), _SPARSE.solve(problem, epsilon)
    values = [float((problem.a * s.f).sum() + (problem.b * s.g).sum()) for s in (plain, sparse)]
    errors = [_error(problem, s.f, s.g, epsilon) for s in (plain, sparse)]
    return {
        "assignment sweeps": plain.iterations,
        "assignment iterations": sparse.iterations,
        "assignment error": max(errors),
        "assignment difference": abs(values[0] - values[1]),
    }


def _step_in_sweeps(setting: Setting) -> float:
    """Processor time of a Newton step over that of a sweep at n = 500: the best of three runs of each, interleaved."""
    problem, epsilon = _assignment(500, setting.seed), _level(200)
    sweeps, steps = 40, 8
    warm = LogSinkhorn(tolerance=_GOAL, max_iterations=sweeps)
    newton = SinkhornNewtonSparse(tolerance=1e-300, warm_sweeps=1, max_newton=steps)
    start = warm.solve(problem, epsilon).g
    newton.solve(problem, epsilon, start=start)  # loads the compiled loop
    of_sweep, of_step = [], []
    for _ in range(3):
        begin = time.process_time()
        warm.solve(problem, epsilon)
        middle = time.process_time()
        found = newton.solve(problem, epsilon, start=start)
        end = time.process_time()
        of_sweep.append((middle - begin) / sweeps)
        of_step.append((end - middle - of_sweep[-1] * found.sweeps) / found.newton)
    return min(of_step) / min(of_sweep)


def _path(setting: Setting) -> list[tuple[float, int, int]]:
    """For the pair 0-1 and the smaller epsilon: the goal, sweeps and iterations to it."""
    problem, epsilon = _digit_pairs(setting)["0-1"], _level(_INVERSE_EPSILONS[-1])
    found, at, sweeps = [], None, 0
    for k in range(1, 12):
        goal = 10.0**-k
        # Sweeps go on from where the last goal was reached, whose point is evaluated once more.
        plain = LogSinkhorn(tolerance=goal, max_iterations=50_000).solve(problem, epsilon, start=at)
        at, sweeps = plain.g, sweeps + plain.iterations - (at is not None)
        found.append((goal, sweeps, SinkhornNewtonSparse(tolerance=goal).solve(problem, epsilon).iterations))
    return found


def measure(setting: Setting) -> Row:
    """Digits, assignment and the cost of a step, for one seed."""
    row = _on_digits(setting) | _on_assignment(setting)
    row["step in sweeps"] = _step_in_sweeps(setting)
    if setting.seed == 0:
        row["_path"] = _path(setting)
    return row


def _pairs(row: Row, inverse: int) -> list[str]:
    return [key.removeprefix("sweeps ") for key in row if key.startswith(f"sweeps {inverse} ")]


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's five bounds, counts of pairs with its allowance of two in ten; a quick run has three pairs, two must hold."""
    total = len(_pairs(rows[0], 200))
    need = 2 if quick else 8
    checks = []
    for inverse in reversed(_INVERSE_EPSILONS):
        ratios = [[row[f"sweeps {p}"] / row[f"iterations {p}"] for p in _pairs(row, inverse)] for row in rows]
        met = [float(sum(r >= 10 for r in of_seed)) for of_seed in ratios]
        low = [statistics.median(of_seed) for of_seed in ratios]
        at = f"digits at eps 1/{inverse}"
        checks.append(check(f"{at}: pairs with 10 times fewer iterations", met, f">= {need} of {total}", min(met) >= need))
        checks.append(check(f"{at}: median ratio of iterations", low, ">= 10", min(low) >= 10))
    errors = [max(v for k, v in row.items() if k.startswith("error ")) for row in rows]
    differences = [row["assignment difference"] for row in rows]
    reached = [row["assignment error"] for row in rows]
    steps = [row["step in sweeps"] for row in rows]
    same, near = [], []
    for row in rows:
        names = [p for inverse in _INVERSE_EPSILONS for p in _pairs(row, inverse)]
        same.append(sum(row[f"newton {p}"] for p in names) / sum(row[f"dense newton {p}"] for p in names))
        near.append(float(sum(0.5 <= row[f"newton {p}"] / row[f"dense newton {p}"] <= 1.5 for p in names)))
    checks += [
        check("digits: largest L1 error", errors, "< 1e-10", max(errors) < 1e-10),
        check("assignment: L1 error, both solvers", reached, "< 1e-10", max(reached) < 1e-10),
        check("assignment: difference of values", differences, "<= 1e-9", max(differences) <= 1e-9),
        check("Newton step in sweeps, n = 500", steps, "<= 30", statistics.median(steps) <= 30, timing=True),
        check("Newton steps over all pairs, sparse over dense", same, "0.5 to 1.5", all(0.5 <= s <= 1.5 for s in same)),
        check("pairs with sparse within 50 % of dense", near, f">= {2 * need} of {2 * total}", min(near) >= 2 * need),
    ]
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """Iterations to an error for one pair, and for all pairs to 1e-11."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    goals, sweeps, iterations = zip(*rows[0]["_path"], strict=True)
    left.loglog(sweeps, goals, "o-", color="#6b7280", label="Sinkhorn sweeps")
    left.loglog(iterations, goals, "o-", color="#2563eb", label="Sinkhorn-Newton-sparse")
    left.set(xlabel="iterations", ylabel="L1 marginal error", title=f"digits 0 and 1, eps = 1/{_INVERSE_EPSILONS[-1]}")
    left.legend(frameon=False)
    for inverse, colour in zip(_INVERSE_EPSILONS, ("#f59e0b", "#2563eb"), strict=True):
        points = [(row[f"sweeps {p}"], row[f"iterations {p}"]) for row in rows for p in _pairs(row, inverse)]
        right.loglog(*zip(*points, strict=True), "o", color=colour, alpha=0.6, label=f"eps = 1/{inverse}")
    ends = torch.tensor([300.0, 50_000.0])
    right.loglog(ends, ends / 10, color="#9ca3af", lw=0.8, ls="--", label="10 times fewer")
    right.set(xlabel="sweeps of Sinkhorn to 1e-11", ylabel="sweeps and Newton steps")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="sinkhorn-newton-sparse", measure=measure, judge=judge, draw=draw, needs=("digits",))
