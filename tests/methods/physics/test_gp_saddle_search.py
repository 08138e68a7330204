"""Saddle searches and their parts: distances between configurations, farthest points, kernels, the process, the dimer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from discrepancy import NumericalError, SlicedWasserstein, Wasserstein
from discrepancy.methods.physics.analytic_surfaces import LennardJones, MullerBrown
from discrepancy.methods.physics.configurations import Aggregate, ConfigurationDistance, configuration_distance
from discrepancy.methods.physics.dimer import Dimer, rigid_modes, rotate
from discrepancy.methods.physics.farthest_points import farthest_point_subset
from discrepancy.methods.physics.gp_saddle_pruning import GPDimer, saddle_search
from discrepancy.methods.physics.gradient_gp import GPWithGradients, Hyperparameters, VarianceBarrier, factored
from discrepancy.methods.physics.gradient_kernels import CartesianKernel, InverseDistanceKernel
from discrepancy.methods.physics.saddle_options import AdaptiveRadius, FixedRadius, Pruning, SaddleOutcome

KERNELS = {"cartesian": CartesianKernel(6), "inverse": InverseDistanceKernel(("A", "B"))}
KERNELS["three types"] = InverseDistanceKernel(("A", "B", "A"), box=(3.0, 4.0, 5.0))


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


# --- distances between configurations -----------------------------------------------------------------------------------


def test_the_distance_is_the_mean_assignment_of_each_type() -> None:
    x, y, types = _normal(9, 3), _normal(9, 3, seed=1), list("AABBBBBCA")
    parts = []
    for kind in "ABC":
        own = [i for i, t in enumerate(types) if t == kind]
        cost = torch.cdist(x[own], y[own]).numpy()
        parts.append(cost[linear_sum_assignment(cost)].mean())
    assert float(configuration_distance(x, y, types)) == pytest.approx(sum(parts), rel=1e-12)
    largest = configuration_distance(x, y, types, aggregate=Aggregate.MAXIMUM)
    assert float(largest) == pytest.approx(max(parts), rel=1e-12)


def test_relabelling_equal_atoms_changes_nothing_and_other_labels_follow_their_types() -> None:
    x, y, types = _normal(6, 3, seed=2), _normal(6, 3, seed=3), list("AABBBB")
    value = float(configuration_distance(x, y, types))
    assert float(configuration_distance(x, y[[1, 0, 5, 3, 2, 4]], types)) == pytest.approx(value, rel=1e-14)
    order = [2, 0, 3, 1, 5, 4]
    moved = configuration_distance(x, y[order], types, [types[i] for i in order])
    assert float(moved) == pytest.approx(value, rel=1e-14)
    assert float(configuration_distance(x, x[[1, 0, 4, 5, 2, 3]], types)) == 0.0


def test_the_triangle_inequality_and_symmetry() -> None:
    many = _normal(12, 5, 3, seed=4)
    distance, types = ConfigurationDistance(), "AAABB"
    table = torch.stack([distance(x, many, types) for x in many])
    torch.testing.assert_close(table, table.mT)
    for i, j, k in itertools.permutations(range(12), 3):
        assert table[i, k] <= table[i, j] + table[j, k] + 1e-12


def test_a_large_assignment_is_exact_too() -> None:
    x, y = _normal(60, 3, seed=5).round(decimals=1), _normal(60, 3, seed=6).round(decimals=1)  # ties
    cost = torch.cdist(x, y).numpy()
    truth = cost[linear_sum_assignment(cost)].mean()
    assert float(configuration_distance(x, y, "A" * 60)) == pytest.approx(truth, rel=1e-12)


def test_any_discrepancy_compares_the_types() -> None:
    x, y, types = _normal(6, 3, seed=7), _normal(2, 6, 3, seed=8), "AAABBB"
    exact, other = ConfigurationDistance()(x, y, types), ConfigurationDistance(discrepancy=Wasserstein(1))(x, y, types)
    torch.testing.assert_close(exact, other, rtol=1e-9, atol=1e-12)
    sliced = ConfigurationDistance(discrepancy=SlicedWasserstein(1))
    assert torch.equal(sliced(x, y, types), sliced(x, y, types))  # the same directions each time
    assert (sliced(x, y, types) < exact).all()


def test_a_periodic_box_takes_the_nearest_image() -> None:
    x, y = torch.tensor([[0.1, 0.0, 0.0]]), torch.tensor([[9.9, 0.0, 0.0]])
    assert float(configuration_distance(x, y, "A", box=(10.0, 10.0, 10.0))) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: configuration_distance(_normal(3, 3), _normal(3, 3), "AAB", "ABB"), ValueError, "as often in both"),
        (lambda: configuration_distance(_normal(3, 3), _normal(2, 3), "AAB"), ValueError, "3 coordinates for each of 3"),
        (lambda: configuration_distance(_normal(8), _normal(9), "AAB"), ValueError, "3 coordinates for each of 3"),
        (lambda: ConfigurationDistance()(_normal(3), _normal(2, 4)), ValueError, "one space"),
        (lambda: ConfigurationDistance("sum"), TypeError, "Aggregate"),
        (lambda: ConfigurationDistance(discrepancy=len), TypeError, "Discrepancy"),
        (lambda: ConfigurationDistance(box=(1, 1, 0)), ValueError, "box"),
        (lambda: ConfigurationDistance(box=(1, 1, 1), discrepancy=Wasserstein(1)), ValueError, "box"),
        (lambda: ConfigurationDistance()(_normal(3) * torch.nan, _normal(2, 3)), ValueError, "non-finite"),
    ],
)
def test_bad_configurations_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- farthest points ----------------------------------------------------------------------------------------------------


def test_farthest_points_take_the_farthest_and_cover_within_twice_the_best() -> None:
    line = torch.tensor([0.0, 1.0, 2.0, 9.0, 10.0])[:, None]
    assert farthest_point_subset(torch.cdist(line, line), 3) == (0, 4, 2)
    points = _normal(14, 2, seed=9)
    matrix = torch.cdist(points, points)
    chosen = farthest_point_subset(points, 4, lambda p, all_: torch.linalg.vector_norm(all_ - p, dim=-1))
    assert chosen == farthest_point_subset(matrix, 4)
    radius = float(matrix[list(chosen)].amin(0).max())
    best = min(float(matrix[list(c)].amin(0).max()) for c in itertools.combinations(range(14), 4))
    assert best <= radius <= 2 * best


def test_always_kept_points_lead_and_duplicates_do_not_stop_it() -> None:
    points = torch.zeros(5, 2)
    assert farthest_point_subset(torch.cdist(points, points), 4, always=(3, 1)) == (3, 1, 0, 2)
    assert len(farthest_point_subset(torch.cdist(points, points), 9)) == 5


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(3, 3), 1), {"always": (0, 1)}, "at least those"),
        ((torch.zeros(3, 3), 0), {}, "count"),
        ((torch.zeros(3, 3), 2), {"always": (7,)}, r"0 \.\. 2"),
        ((torch.zeros(3, 2), 2), {}, r"\(n, n\)"),
        ((-torch.ones(3, 3), 2), {}, "non-negative"),
    ],
)
def test_bad_subsets_are_named(arguments, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        farthest_point_subset(*arguments, **options)


# --- the process --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
def test_covariances_are_derivatives_of_the_kernel(name: str) -> None:
    kernel = KERNELS[name]
    X = _normal(2, kernel.dimension, seed=10)
    w = torch.cat([torch.tensor([0.3]), torch.linspace(-0.5, 0.4, kernel.lengths)]).double()

    def value(a: Tensor, b: Tensor) -> Tensor:
        inverse = w[1:].exp()[kernel.groups]
        gap = (kernel.features(a[None])[0] - kernel.features(b[None])[0])[0] * inverse
        return (w[0] - gap.square().sum() / 2).exp()

    K, D = kernel.covariance(kernel.features(X), w[0], w[1:]), kernel.dimension
    slope = torch.autograd.functional.jacobian(lambda b: value(X[0], b), X[1])
    cross = torch.autograd.functional.hessian(value, (X[0], X[1]))[0][1]
    torch.testing.assert_close(K[0, 1], value(X[0], X[1]))
    torch.testing.assert_close(K[0, 2 + D :], slope)
    torch.testing.assert_close(K[2 : 2 + D, 2 + D :], cross)
    torch.testing.assert_close(K, K.mT)
    assert float(torch.linalg.eigvalsh(K).min()) > -1e-10


@pytest.mark.parametrize("name", KERNELS)
def test_jacobians_are_derivatives_of_the_features(name: str) -> None:
    kernel = KERNELS[name]
    x = _normal(kernel.dimension, seed=11)
    truth = torch.autograd.functional.jacobian(lambda v: kernel.features(v[None])[0][0], x)
    torch.testing.assert_close(kernel.features(x[None])[1][0], truth)


def _surface_data(count: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    X = torch.as_tensor(np.random.default_rng(12).uniform(-1, 1, (count, 2)))
    return X, torch.sin(2 * X[:, 0]) * X[:, 1], torch.stack([2 * torch.cos(2 * X[:, 0]) * X[:, 1], torch.sin(2 * X[:, 0])], 1)


def test_the_process_interpolates_energies_and_gradients_and_predicts_between() -> None:
    X, E, G = _surface_data()
    posterior = GPWithGradients(CartesianKernel(2), noise=1e-10).fit(X, E, G)
    energies, gradients = posterior.predict(X)
    torch.testing.assert_close(energies, E, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients, G, rtol=0, atol=1e-4)
    assert float(posterior.standard_error(X).max()) < 1e-3
    middle = torch.tensor([[0.2, -0.3]], dtype=torch.float64)
    found, slope = posterior.predict(middle)
    assert float(found[0]) == pytest.approx(math.sin(0.4) * -0.3, abs=1e-3)
    assert float(slope[0, 1]) == pytest.approx(math.sin(0.4), abs=1e-2)
    far = posterior.standard_error(torch.tensor([[30.0, 30.0]]))
    assert float(far[0]) == pytest.approx(math.exp(posterior.hyper.log_variance / 2), rel=1e-6)  # the prior's
    assert float(posterior.predict(torch.tensor([[30.0, 30.0]]))[0][0]) == pytest.approx(float(E[0]), abs=1e-9)  # the reference


def test_predictions_are_consistent_and_standard_errors_are_those_of_the_joint_normal() -> None:
    X, E, G = _surface_data(5)
    hyper = Hyperparameters(0.2, (0.1,))
    gp = GPWithGradients(CartesianKernel(2), noise=1e-4)
    posterior = gp.fit(X, E, G, optimize_on=(), start=hyper, reference=0.0)
    new = _normal(1, 2, seed=13) * 0.3
    everything = gp.kernel.features(torch.cat([new, X]))
    K = gp.kernel.covariance(everything, torch.tensor(0.2).double(), torch.tensor([0.1]).double())
    rows = [*range(1, 6), *range(8, 18)]  # energies and gradients of the data
    inner, cross = K[rows][:, rows] + 1e-4 * torch.eye(15), K[[0, 6, 7]][:, rows]
    mean = cross @ torch.linalg.solve(inner, torch.cat([E, G.flatten()]))
    energy, slope = posterior.predict(new)
    torch.testing.assert_close(torch.cat([energy, slope[0]]), mean)
    variance = K[0, 0] - cross[0] @ torch.linalg.solve(inner, cross[0])
    torch.testing.assert_close(posterior.standard_error(new)[0], variance.sqrt())


@pytest.mark.parametrize("barrier", [None, VarianceBarrier()])
def test_the_loss_is_differentiated_and_the_fit_is_stationary(barrier: VarianceBarrier | None) -> None:
    X, E, G = _surface_data()
    gp = GPWithGradients(CartesianKernel(2), variance_barrier=barrier, noise=1e-4)
    base = np.array([-0.4, 0.3])
    _, slope = gp.loss(X, E, G, Hyperparameters(base[0], (base[1],)))
    for k in range(2):
        ends = []
        for step in (1e-5, -1e-5):
            moved = base.copy()
            moved[k] += step
            ends.append(gp.loss(X, E, G, Hyperparameters(moved[0], (moved[1],)))[0])
        assert slope[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)
    found = gp.hyperparameters(X, E, G)
    value, flat = gp.loss(X, E, G, found)
    assert np.abs(flat).max() < 0.05
    assert value < gp.loss(X, E, G, Hyperparameters(base[0], (base[1],)))[0]
    if barrier is not None:
        assert found.log_variance < math.log(2)


def test_the_barrier_holds_back_the_variance_of_large_energies() -> None:
    X, E, G = _surface_data()
    free, held = (
        GPWithGradients(CartesianKernel(2), variance_barrier=b).fit(X, 50 * E, 50 * G) for b in (None, VarianceBarrier())
    )
    assert free.hyper.log_variance > 2
    assert held.hyper.log_variance < math.log(2)
    assert VarianceBarrier().strength(3) == pytest.approx(3.1e-3)
    assert VarianceBarrier().strength(10_000) == 0.5


def test_bad_data_of_the_process_are_named() -> None:
    X, E, G = _surface_data()
    gp = GPWithGradients(CartesianKernel(2))
    with pytest.raises(ValueError, match=r"must have shape \(n, 2\)"):
        gp.fit(X, E, G[:, :1])
    with pytest.raises(ValueError, match="E has 1 non-finite"):
        gp.fit(X, torch.where(torch.arange(12) == 3, torch.nan, E), G)
    with pytest.raises(ValueError, match="coincide"):
        InverseDistanceKernel(("A", "A")).features(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="at least two atoms"):
        InverseDistanceKernel(("A",))
    with pytest.raises(TypeError, match="GradientKernel"):
        GPWithGradients("se")  # type: ignore[arg-type]
    with pytest.raises(NumericalError, match="does not factor"):
        factored(-torch.eye(2, dtype=torch.float64), 1e-7)


# --- the dimer and the search -------------------------------------------------------------------------------------------


def test_the_dimer_turns_to_the_softest_mode_of_a_quadratic() -> None:
    q, _ = torch.linalg.qr(_normal(5, 5, seed=14))
    H = (q * torch.tensor([-2.0, 1.0, 3.0, 5.0, 8.0], dtype=torch.float64)) @ q.mT
    x = _normal(5, seed=15)
    turned = rotate(
        lambda v: (float(v @ H @ v) / 2, H @ v),
        x,
        H @ x,
        _normal(5, seed=16),
        Dimer(rotations=200, rotation_tolerance=1e-6),
        torch.zeros(5, 0).double(),
    )
    assert turned.settled
    assert turned.curvature == pytest.approx(-2.0, rel=1e-5)
    assert abs(float(turned.direction @ q[:, 0])) == pytest.approx(1.0, abs=1e-6)


def test_rigid_modes_cost_no_energy() -> None:
    x = LennardJones.pentagonal_bipyramid() + 0.05 * _normal(21, seed=17)
    modes = rigid_modes(x, "A" * 7)
    assert modes.shape == (21, 6)
    torch.testing.assert_close(modes.mT @ modes, torch.eye(6, dtype=torch.float64))
    assert float((modes.mT @ LennardJones()(x)[1]).abs().max()) < 1e-9
    assert rigid_modes(torch.tensor([0.0, 0, 0, 0, 0, 1]), "AA").shape == (6, 5)
    assert rigid_modes(x, "A" * 7, periodic=True).shape == (21, 3)


@pytest.mark.parametrize("surface", [MullerBrown(), LennardJones(0.3)])
def test_analytic_surfaces_have_their_gradients_and_stationary_points(surface) -> None:
    x = (
        torch.tensor([-0.5, 1.0], dtype=torch.float64)
        if isinstance(surface, MullerBrown)
        else LennardJones.pentagonal_bipyramid() * 1.1
    )
    truth = torch.autograd.functional.jacobian(lambda v: surface(v)[0], x)
    torch.testing.assert_close(surface(x)[1], truth)


def test_known_points_of_the_surfaces() -> None:
    full = MullerBrown(1.0)
    for point in full.minima + full.saddles:
        assert float(full(torch.tensor(point, dtype=torch.float64))[1].abs().max()) < 2e-3
    energy, slope = LennardJones()(LennardJones.pentagonal_bipyramid())
    assert float(energy) == pytest.approx(-16.505384, abs=1e-6)  # the cluster's published minimum
    assert float(slope.abs().max()) < 1e-10
    assert float(LennardJones()(torch.tensor([0.0, 0, 0, 0, 0, 2 ** (1 / 6)], dtype=torch.float64))[0]) == pytest.approx(-1.0)


@pytest.mark.parametrize("method", [Dimer(), GPDimer(trust=FixedRadius(0.5))])
def test_the_search_finds_a_saddle_of_muller_brown_from_the_middle_minimum(method) -> None:
    surface = MullerBrown()
    start = torch.tensor(surface.minima[2], dtype=torch.float64) + torch.tensor([0.03, -0.02])
    calls: list[Tensor] = []

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(x)
        return surface(x)

    found = saddle_search(oracle, start, method=method, generator=torch.Generator().manual_seed(0))
    again = saddle_search(surface, start, method=method, generator=torch.Generator().manual_seed(0))
    assert found.converged
    assert found.evaluations == len(calls)
    assert torch.equal(found.x, again.x)
    distances = (torch.tensor(surface.saddles, dtype=torch.float64) - found.x).norm(dim=1)
    assert float(distances.min()) < 1e-2
    hessian = torch.autograd.functional.jacobian(lambda v: surface(v)[1], found.x)
    assert found.curvature == pytest.approx(float(torch.linalg.eigvalsh(hessian)[0]), rel=0.05)
    assert found.evaluations < (30 if isinstance(method, GPDimer) else 120)


def test_a_climb_that_leads_nowhere_turns_back() -> None:
    """Energy grows without end one way; the only saddle lies the other way."""

    def oracle(x: Tensor) -> tuple[float, list[float]]:
        u, v = float(x[0]), float(x[1])
        return u**3 / 3 + u**2 + 2 * v**2, [u**2 + 2 * u, 4 * v]  # minimum at 0, saddle at u = -2

    start, way = torch.tensor([0.1, 0.02], dtype=torch.float64), [1.0, 0.1]
    lost = saddle_search(oracle, start, way, method=Dimer(), max_evaluations=100)
    assert not lost.converged
    found = saddle_search(oracle, start, way, method=Dimer(), max_climb=2.0, max_evaluations=150)
    assert found.converged
    assert float(found.x[0]) == pytest.approx(-2.0, abs=1e-2)


def test_an_oracle_that_fails_ends_the_search_with_the_last_good_point() -> None:
    surface, count = MullerBrown(), itertools.count()

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        energy, slope = surface(x)
        return energy, slope * (math.nan if next(count) >= 6 else 1.0)

    found = saddle_search(oracle, surface.minima[2], [1.0, 0.0])
    assert found.outcome is SaddleOutcome.ORACLE_FAILED
    assert found.evaluations == 6
    assert torch.isfinite(found.x).all()
    assert "outcome=oracle_failed" in repr(found)


def test_the_limit_on_evaluations_is_kept() -> None:
    found = saddle_search(MullerBrown(), MullerBrown().minima[0], [1.0, 0.0], max_evaluations=7)
    assert found.outcome is SaddleOutcome.EVALUATION_LIMIT
    assert found.evaluations == 7


def test_predictions_use_all_data_and_fits_only_the_subset() -> None:
    surface = MullerBrown()
    method = GPDimer(pruning=Pruning(size=4, recent=2, largest=4), trust=FixedRadius(0.15))
    found = saddle_search(surface, surface.minima[2], [0.0, 1.0], method=method)
    assert found.converged
    assert max(s.subset for s in found.trace) == 4
    assert found.evaluations > 6
    assert found.fit_seconds == pytest.approx(sum(s.fit_seconds for s in found.trace))


def test_trust_radii_and_pruning_follow_their_formulas() -> None:
    assert AdaptiveRadius().radius(0, 1) == pytest.approx(0.15)
    assert AdaptiveRadius().radius(50, 1) == pytest.approx(0.15 + 0.35 / 2)
    assert AdaptiveRadius().radius(10_000, 100) == pytest.approx(0.2)
    assert FixedRadius(0.3).radius(5, 9) == 0.3
    swinging = [Hyperparameters(float(k % 2), (float(-k % 2),)) for k in range(5)]
    steady = [Hyperparameters(float(k), (float(k),)) for k in range(5)]
    assert Pruning().grown(10, swinging) == 12
    assert Pruning().grown(29, swinging) == 30
    assert Pruning().grown(10, steady) == 10
    assert Pruning().grown(10, swinging[:4]) == 10


def test_a_zero_direction_is_replaced_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="random one"):
        saddle_search(MullerBrown(), MullerBrown().minima[2], [0.0, 0.0], max_evaluations=3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Pruning(size=2), ValueError, "always kept"),
        (lambda: FixedRadius(0), ValueError, "value"),
        (lambda: saddle_search(MullerBrown(), _normal(8), types="AAB"), ValueError, "3 coordinates for each of 3"),
        (lambda: saddle_search(LennardJones(), torch.zeros(9), types="AAA"), ValueError, "coincide"),
        (lambda: saddle_search(MullerBrown(), [0.0, math.nan]), ValueError, "non-finite"),
        (lambda: saddle_search(MullerBrown(), [0.0, 0.0], [1.0]), ValueError, "2 components"),
        (lambda: saddle_search(MullerBrown(), [0.0, 0.0], method="gp-dimer"), TypeError, "GPDimer"),
        (lambda: saddle_search(MullerBrown(), [0.0, 0.0], tolerance=0), ValueError, "tolerance"),
        (lambda: saddle_search(lambda x: (0.0, [1.0]), [0.0, 0.0]), ValueError, "gradient of 2 components"),
        (lambda: Dimer(step_limit=-1), ValueError, "step_limit"),
    ],
)
def test_bad_searches_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
