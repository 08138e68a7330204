"""Orlicz-Wasserstein distances: closed forms, outliers, and the mass that a Dirichlet-process mixture leaves far from the truth.

The study fits `BayesianGaussianMixture` (Dirichlet process, 15 components) to 0.5 N(-2, 1) + 0.5 N(2, 1) at three sample sizes
and compares its mixing measure with the true one: the mass of atoms farther than t from -2 and 2 against the bound that the
distance certifies.
"""

from __future__ import annotations

import math
import statistics
import warnings
from pathlib import Path

import numpy as np

from discrepancy.costs import PowerCost
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import (
    EntropicPlan,
    ExponentialPower,
    OptimalTransport,
    OrliczFunction,
    OrliczWasserstein,
    Power,
    excess_mass,
    excess_mass_bound,
)

_SIZES, _QUICK_SIZES = (200, 800, 3200), (200, 800)
_RADII = (2.0, 3.0)
_TRUTH = np.array([[-2.0], [2.0]])
_PHIS: dict[str, OrliczFunction] = {"W2": Power(2), "psi1": ExponentialPower(1), "psi2": ExponentialPower(2)}
# A mass e at distance 5 from the other one: W_1, W_2, psi_1 and psi_2.
_OUTLIERS = {0.01: (0.05, 0.5, 5 / math.log(101), 5 / math.sqrt(math.log(101)))}
_OUTLIERS[0.001] = (0.005, 5 * math.sqrt(0.001), 5 / math.log(1001), 5 / math.sqrt(math.log(1001)))


def _closed_forms(rng: np.random.Generator) -> float:
    """The largest relative error over shifts, powers and outliers."""
    x = rng.normal(size=(40, 2))
    errors = []
    for phi in _PHIS.values():
        errors.append(float(OrliczWasserstein(phi)(x, x + np.array([2.0, 0.0]))) * phi.inverse(1.0) / 2 - 1)
    y = rng.normal(size=(40, 2)) + 0.5
    for p in (1.0, 3.0):
        truth = float(OptimalTransport(PowerCost(p))(x, y)) ** (1 / p)
        errors.append(float(OrliczWasserstein(Power(p))(x, y)) / truth - 1)
    for share, values in _OUTLIERS.items():
        for phi, value in zip((Power(1), *_PHIS.values()), values, strict=True):
            found = OrliczWasserstein(phi)(np.zeros((1, 1)), np.array([[0.0], [5.0]]), None, [1 - share, share])
            errors.append(float(found) / value - 1)
    return max(abs(e) for e in errors)


def _entropic(rng: np.random.Generator) -> tuple[float, float]:
    """Excess of the entropic answers at epsilon 0.5 and 0.05 over the exact one, 40 points in the plane."""
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 1
    exact = float(OrliczWasserstein()(x, y))
    coarse, fine = (float(OrliczWasserstein(solver=EntropicPlan(f))(x, y)) / exact - 1 for f in (0.5, 0.05))
    return coarse, fine


def _mixture(n: int, rng: np.random.Generator, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Atoms (15, 1) and weights (15,) of the fitted mixing measure."""
    from sklearn.mixture import BayesianGaussianMixture

    data = rng.choice([-2.0, 2.0], n)[:, None] + rng.normal(size=(n, 1))
    model = BayesianGaussianMixture(
        n_components=15, weight_concentration_prior_type="dirichlet_process", max_iter=1000, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops at its limit is a mixture all the same
        model.fit(data)
    return model.means_, model.weights_ / model.weights_.sum()


def measure(setting: Setting) -> Row:
    """Closed forms, entropic plans, and the mixture at every sample size, for one seed."""
    rng = np.random.default_rng(setting.seed)
    coarse, fine = _entropic(rng)
    row: Row = {"closed forms": _closed_forms(rng), "entropic 0.5": coarse, "entropic 0.05": fine}
    for n in _QUICK_SIZES if setting.quick else _SIZES:
        atoms, share = _mixture(n, rng, setting.seed)
        distances = {name: float(OrliczWasserstein(phi)(atoms, _TRUTH, share, None)) for name, phi in _PHIS.items()}
        for name, value in distances.items():
            row[f"{name} {n}"] = value
        for t in _RADII:
            row[f"excess {n} {t:g}"] = float(excess_mass(atoms, _TRUTH, t, share))
            for name, phi in _PHIS.items():
                row[f"bound {name} {n} {t:g}"] = excess_mass_bound(distances[name], t, phi)
    return row


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's three checks."""
    sizes = _QUICK_SIZES if quick else _SIZES
    cells = [(n, t) for n in sizes for t in _RADII]
    slack = [min(r[f"bound {p} {n} {t:g}"] - r[f"excess {n} {t:g}"] for n, t in cells for p in _PHIS) for r in rows]
    far = [(r, n, t) for r in rows for n, t in cells if t >= 2 * r[f"psi2 {n}"]]
    sharper = [float(r[f"bound psi2 {n} {t:g}"] <= r[f"bound W2 {n} {t:g}"]) for r, n, t in far]
    share = statistics.fmean(sharper) if sharper else 0.0
    smallest = [min(r[f"bound psi2 {n} {t:g}"] for n, t in cells) for r in rows]

    def excess(n: int) -> float:
        return statistics.median(r[f"excess {n} {t:g}"] for r in rows for t in _RADII)

    first, last = excess(sizes[0]), excess(sizes[-1])
    exact = [r["closed forms"] for r in rows]
    coarse, gain = [r["entropic 0.5"] for r in rows], [r["entropic 0.5"] - r["entropic 0.05"] for r in rows]
    return [
        check("largest relative error against closed forms and W_p", exact, "<= 1e-6", max(exact) <= 1e-6),
        check("entropic over exact at epsilon = 0.5", coarse, "0 to 0.1", min(coarse) >= 0 and max(coarse) <= 0.1),
        check("what a tenfold smaller epsilon gains", gain, "> 0", min(gain) > 0),
        check("least slack of the certificate, all runs and functions", slack, ">= 0", min(slack) >= 0),
        check(f"psi2 bounds better than W2: share of {len(far)} cells with t >= 2 psi2", [share], ">= 0.8", share >= 0.8),
        check("smallest psi2 bound", smallest, "< 1", min(smallest) < 1),
        check("median excess mass at the largest n minus the smallest", [last - first], "<= 0", last <= first),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """Distances, and the bounds with the mass that they bound, against the sample size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = sorted({int(k.split()[1]) for k in rows[0] if k.startswith("psi2 ")})
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = {"W2": "#6b7280", "psi1": "#f59e0b", "psi2": "#2563eb"}
    for name, colour in colours.items():
        left.loglog(sizes, [statistics.median(r[f"{name} {n}"] for r in rows) for n in sizes], "o-", color=colour, label=name)
        bounds = [statistics.median(r[f"bound {name} {n} 3"] for r in rows) for n in sizes]
        right.loglog(sizes, bounds, "o-", color=colour, label=f"bound from {name}")
    left.set(xlabel="sample size", ylabel="distance of the mixing measures")
    masses = [max(statistics.median(r[f"excess {n} 3"] for r in rows), 1e-6) for n in sizes]
    right.loglog(sizes, masses, "s--", color="#dc2626", label="mass (at least 1e-6)")
    right.set(xlabel="sample size", ylabel="mass farther than 3 from the truth")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="orlicz-wasserstein", measure=measure, judge=judge, draw=draw, seeds=(0, 1, 2, 3, 4))
