"""Saddle searches on the Muller-Brown surface and a Lennard-Jones cluster: evaluations, and the time that pruned fits save.

Muller-Brown energies are divided by 100 and the cluster has wells of depth 0.1: the barrier on the variance fixes the unit of
energy. The cluster's walls are stiffer than molecules', hence a trust radius of 0.05 where the paper has 0.15 to 0.5.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from discrepancy.methods.physics.analytic_surfaces import LennardJones, MullerBrown
from discrepancy.methods.physics.configurations import ConfigurationDistance
from discrepancy.methods.physics.dimer import Dimer, rigid_modes
from discrepancy.methods.physics.farthest_points import farthest_point_subset
from discrepancy.methods.physics.gp_saddle_pruning import GPDimer, saddle_search
from discrepancy.methods.physics.saddle_options import FixedRadius, SaddleResult
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_PLANE, _CLUSTER, _TYPES = MullerBrown(0.01), LennardJones(0.1), "A" * 7
_STARTS, _QUICK_STARTS = 7, 2  # on the plane, for each seed: 21 in all
_GP_LIMIT, _PLAIN_LIMIT = 50, 1000
_TIMED = 45  # data at which a fit is timed


def _plane(setting: Setting) -> Row:
    """Evaluations and hits of both methods from the minima, taken in turn."""
    saddles = torch.tensor(_PLANE.saddles, dtype=torch.float64)
    methods = {"gp": GPDimer(trust=FixedRadius(0.5)), "plain": Dimer()}
    row: Row = {"_paths": []}
    for name, method in methods.items():
        evaluations, hits = [], []
        starts = _QUICK_STARTS if setting.quick else _STARTS
        for k in range(starts):
            number = setting.seed * starts + k
            generator = torch.Generator().manual_seed(number)
            noise = 0.15 * (2 * torch.rand(2, dtype=torch.float64, generator=generator) - 1)
            start = torch.tensor(_PLANE.minima[number % 3], dtype=torch.float64) + noise
            limit = _GP_LIMIT if name == "gp" else 300
            found = saddle_search(_PLANE, start, method=method, max_evaluations=limit, max_climb=4.0, generator=generator)
            hits.append(float((saddles - found.x).norm(dim=1).min()) < 1e-2)
            evaluations.append(found.evaluations)
            if found.data is not None:
                row["_paths"].append((name, found.data[0], found.x))
        row[f"plane {name} evaluations"], row[f"plane {name} hits"] = evaluations, hits
    return row


def _negative_modes(x: Tensor) -> int:
    """How many eigenvalues of the Hessian are negative, rigid motion projected out."""
    hessian: Tensor = torch.autograd.functional.jacobian(lambda v: _CLUSTER(v)[1], x)  # type: ignore[assignment]
    rigid = rigid_modes(x, _TYPES)
    keep = torch.eye(len(x), dtype=x.dtype) - rigid @ rigid.mT
    return int((torch.linalg.eigvalsh(keep @ hessian @ keep) < -1e-5).sum())


def _cluster(setting: Setting) -> Row:
    """The cluster with each method from one start."""
    pruned = GPDimer(trust=FixedRadius(0.05), distance=ConfigurationDistance(discrepancy=setting.choice))
    methods: dict[str, GPDimer | Dimer] = {"gp": pruned, "plain": Dimer()}
    if not setting.quick:
        methods["unpruned"] = replace(pruned, pruning=None)
        methods["free"] = replace(pruned, trust=None, variance_barrier=None)
    row: Row = {}
    for name, method in methods.items():
        generator = torch.Generator().manual_seed(1000 + setting.seed)
        shift = torch.randn(21, dtype=torch.float64, generator=generator)
        start = _CLUSTER.pentagonal_bipyramid() + 0.1 * shift / shift.norm()
        found = saddle_search(
            _CLUSTER,
            start,
            types=_TYPES,
            method=method,
            tolerance=1e-3,
            max_evaluations=_PLAIN_LIMIT if name == "plain" else _GP_LIMIT,
            generator=generator,
        )
        negative = _negative_modes(found.x) if found.converged else -1
        row |= {f"{name} evaluations": found.evaluations, f"{name} converged": found.converged, f"{name} negative": negative}
        if name == "gp":
            row |= _fit_times(pruned, found, generator)
    return row


def _fit_times(method: GPDimer, found: SaddleResult, generator: torch.Generator) -> Row:
    """Processor seconds of one fit on 45 data of the search (and points around its end), pruned and not, from the same start."""
    assert found.data is not None
    assert method.pruning is not None
    X, E, G = found.data
    while len(X) < _TIMED:
        x = found.x + 0.03 * torch.randn(21, dtype=torch.float64, generator=generator)
        energy, slope = _CLUSTER(x)
        X, E, G = torch.cat([X, x[None]]), torch.cat([E, energy[None]]), torch.cat([G, slope[None]])
    gp = method.process(21, _TYPES)
    recent = range(len(X) - method.pruning.recent, len(X))
    seconds = {}
    for name in ("pruned", "all"):
        began = time.process_time()
        rows: list[int] = list(range(len(X)))
        if name == "pruned":
            rows = list(farthest_point_subset(X, method.pruning.size, lambda p, a: method.distance(p, a, _TYPES), always=recent))
        gp.hyperparameters(X[rows], E[rows] - E[0], G[rows])
        seconds[name] = time.process_time() - began
    return {"fit ratio": seconds["all"] / seconds["pruned"]}


def measure(setting: Setting) -> Row:
    """The plane and the cluster for one seed."""
    return _plane(setting) | _cluster(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; a quick run leaves out the comparison of the variants of the process."""

    def medians(name: str) -> list[float]:
        return [statistics.median(r[f"plane {name} evaluations"]) for r in rows]

    def share(name: str) -> list[float]:
        return [statistics.fmean(float(h) for h in r[f"plane {name} hits"]) for r in rows]

    def median(name: str) -> float:
        return statistics.median(r[f"{name} evaluations"] for r in rows)

    def successes(name: str) -> int:
        return sum(r[f"{name} converged"] and r[f"{name} negative"] == 1 for r in rows)

    hits = share("gp")
    every = {n: statistics.median(e for r in rows for e in r[f"plane {n} evaluations"]) for n in ("gp", "plain")}
    plane_ratio, ratio = every["gp"] / every["plain"], median("gp") / median("plain")
    wrong = [float(r["gp converged"] and r["gp negative"] != 1) for r in rows]
    converged = [float(r["gp converged"]) for r in rows]
    timed = [r["fit ratio"] for r in rows]
    checks = [
        check("plane: share of searches that reach a saddle", hits, ">= 0.9", statistics.fmean(hits) >= 0.9),
        check("plane: the same of the plain dimer (reported)", share("plain"), "any", True),
        check("plane: evaluations over plain, of medians", [plane_ratio], "<= 0.4", plane_ratio <= 0.4),
        check("cluster: share of searches that converge (reported)", converged, "any", True),
        check("cluster: converged at other than one negative mode", wrong, "0", sum(wrong) == 0),
        check("cluster: evaluations over plain, of medians", [ratio], "<= 0.5", ratio <= 0.5),
        check(f"cluster: fit on all {_TIMED} data over pruned, time", timed, ">= 2", min(timed) >= 2, timing=True),
    ]
    if quick:
        return checks
    lost = successes("unpruned") - successes("gp")
    fewer, longer = successes("gp") - successes("free"), median("free") - median("gp")
    return [
        *checks,
        check("cluster: successes that pruning loses", [lost], "<= 1", lost <= 1),
        check("cluster: successes lost without barrier and trust", [fewer], "> 0, or more evaluations", fewer > 0 or longer > 0),
        check("cluster: median evaluations added without them (reported)", [longer], "any", True),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Evaluated points of the first seed's searches on the plane, and the evaluations on the cluster by method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    u, v = torch.meshgrid(torch.linspace(-1.6, 1.2, 90), torch.linspace(-0.6, 2.1, 90), indexing="xy")
    grid = torch.stack([u.flatten(), v.flatten()], 1).double()
    energy = torch.stack([_PLANE(x)[0] for x in grid]).reshape(u.shape)
    left.contour(u, v, energy.clamp(max=1.5), levels=25, colors="#d1d5db", linewidths=0.8)
    colours = {"gp": "#2563eb", "plain": "#f59e0b"}
    for name, points, end in rows[0]["_paths"]:
        left.plot(*points.T, "." if name == "plain" else "o", color=colours[name], markersize=3 if name == "plain" else 5)
        left.plot(*end, "x", color="#dc2626", markersize=9)
    left.set(title="evaluations: plain (orange), on the process (blue); ends (x)", xlim=(-1.6, 1.2), ylim=(-0.6, 2.1))
    names = [n for n in ("plain", "gp", "unpruned", "free") if f"{n} evaluations" in rows[0]]
    for place, name in enumerate(names):
        for row in rows:
            good = row[f"{name} converged"] and row[f"{name} negative"] == 1
            right.plot(place, row[f"{name} evaluations"], "o" if good else "x", color="#1f2937" if good else "#dc2626")
    right.set_xticks(range(len(names)), names)
    right.set(yscale="log", title="cluster of seven: saddles (dots), failures (x)", ylabel="evaluations")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="gp-saddle-pruning", measure=measure, judge=judge, draw=draw, swaps=True)
