"""Free-support barycenters: translates, the line's quantile average, POT from the same start, and other discrepancies."""

from __future__ import annotations

from typing import Any

import numpy as np
import ot
import pytest
import torch

from discrepancy import EnergyDistance, OptimalTransport, SinkhornDivergence, barycenter
from discrepancy.transport import OptimisedWeights


def test_barycenter_of_translates_is_the_translate() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    shifts = rng.normal(size=(3, 3))
    found = barycenter([x + s for s in shifts], [0.5, 0.25, 0.25], start=x)
    expected = x + np.array([0.5, 0.25, 0.25]) @ shifts
    np.testing.assert_allclose(found.points.numpy(), expected, atol=1e-10)
    spread = sum(
        w * np.square(s - np.array([0.5, 0.25, 0.25]) @ shifts).sum() for w, s in zip([0.5, 0.25, 0.25], shifts, strict=True)
    )
    assert found.value == pytest.approx(spread, rel=1e-9)


def test_on_the_line_quantiles_are_averaged() -> None:
    rng = np.random.default_rng(1)
    clouds = [np.sort(rng.normal(size=(20, 1)), 0), np.sort(rng.exponential(size=(20, 1)), 0)]
    found = barycenter(clouds, [0.3, 0.7], generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.sort(found.points.numpy(), 0), 0.3 * clouds[0] + 0.7 * clouds[1], atol=1e-10)


def test_no_worse_than_pot_from_the_same_start() -> None:
    rng = np.random.default_rng(2)
    clouds = [rng.normal(size=(n, 2)) + 3 * rng.normal(size=2) for n in (25, 30, 40)]
    masses = [rng.dirichlet(np.ones(len(c))) for c in clouds]
    start = rng.normal(size=(20, 2))
    ours = barycenter(clouds, weights_of=masses, start=start, tolerance=1e-12)
    theirs: Any = ot.lp.free_support_barycenter(clouds, masses, start, numItermax=200, stopThr=1e-14)

    def objective(points: np.ndarray) -> float:
        u = np.full(20, 1 / 20)
        return float(np.mean([ot.emd2(u, m, ot.dist(points, c)) for c, m in zip(clouds, masses, strict=True)]))

    assert ours.value == pytest.approx(objective(ours.points.numpy()), rel=1e-9)
    assert ours.value <= objective(theirs) * (1 + 1e-6)
    assert bool((ours.values.diff() <= 1e-12).all())


@pytest.mark.parametrize("D", [SinkhornDivergence(), EnergyDistance()], ids=["sinkhorn", "energy"])
def test_other_discrepancies_are_descended(D) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    x = rng.normal(size=(25, 2))
    clouds = [x - np.array([2.0, 0.0]), x + np.array([2.0, 0.0])]
    found = barycenter(clouds, None, D, generator=torch.Generator().manual_seed(1), max_iterations=400, tolerance=1e-4)
    assert found.value < found.values[0]
    assert float(found.points.mean(0).norm()) == pytest.approx(float(np.linalg.norm(x.mean(0))), abs=0.15)
    if isinstance(D, SinkhornDivergence):
        assert float(OptimalTransport()(found.points, x)) < 0.15


def test_optimised_weights_descend_below_equal_ones_and_find_planted_masses() -> None:
    rng = np.random.default_rng(4)
    clouds = [rng.normal(size=(n, 2)) + rng.normal(size=2) for n in (14, 17)]
    masses = [rng.dirichlet(np.ones(len(c))) for c in clouds]
    start = rng.normal(size=(6, 2))
    options: Any = {"weights_of": masses, "start": start, "tolerance": 1e-10}
    equal = barycenter(clouds, [0.4, 0.6], **options)
    free = barycenter(clouds, [0.4, 0.6], support_weights=OptimisedWeights(), **options)
    assert free.value < equal.value
    assert bool((free.values.diff() <= 1e-12).all())
    assert float(free.weights.sum()) == pytest.approx(1.0)
    again = sum(
        w * ot.emd2(free.weights.numpy(), m, ot.dist(free.points.numpy(), c))
        for w, m, c in zip([0.4, 0.6], masses, clouds, strict=True)
    )
    assert free.value == pytest.approx(float(again), rel=1e-9)
    # One measure of as many points: its own points and masses, cost zero.
    x, m = 5 * rng.normal(size=(5, 2)), rng.dirichlet(np.ones(5))
    same = barycenter([x, x + 1.0], weights_of=[m, m], start=x + 0.3, support_weights=OptimisedWeights())
    order = np.argsort(same.points[:, 0].numpy())
    np.testing.assert_allclose(
        same.points.numpy()[order], np.sort(x + 0.5, 0)[:, :1] * [1, 0] + (x + 0.5)[np.argsort(x[:, 0])] * [0, 1]
    )
    np.testing.assert_allclose(same.weights.numpy()[order], m[np.argsort(x[:, 0])], atol=1e-9)


def test_optimised_weights_refuse_what_they_cannot_do() -> None:
    x = np.zeros((3, 2))
    with pytest.raises(TypeError, match="support_weights must be"):
        barycenter([x], support_weights="optimised")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="squared Euclidean"):
        barycenter([x], discrepancy=EnergyDistance(), support_weights=OptimisedWeights())
    with pytest.raises(ValueError, match="unknowns"):
        barycenter([x], support_weights=OptimisedWeights(max_unknowns=5))
    with pytest.raises(ValueError, match="max_unknowns"):
        OptimisedWeights(max_unknowns=0)


def test_bad_input_is_named() -> None:
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"clouds\[1\] must have shape"):
        barycenter([x, np.zeros((3, 1))])
    with pytest.raises(ValueError, match="at least one"):
        barycenter([])
    with pytest.raises(ValueError, match="weights_of"):
        barycenter([x, x], weights_of=[None])
    with pytest.raises(ValueError, match="size"):
        barycenter([x], size=0)
