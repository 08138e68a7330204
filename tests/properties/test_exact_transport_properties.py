"""What holds of exact transport whatever the data: metric axioms, invariances, convexity, certificates, limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from discrepancy import OptimalTransport, Sinkhorn, SlicedWasserstein, Wasserstein
from discrepancy.costs import Euclidean, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.testing.problems import gaussians

SEEDS = st.integers(0, 2**31 - 1)
ORDERS = st.sampled_from([1, 1.5, 2, 3, math.inf])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(g: torch.Generator, n: int, d: int) -> torch.Tensor:
    """A Gaussian cloud, or, one time in three, a lattice full of ties and duplicates."""
    if int(torch.randint(3, (), generator=g)) == 0:
        return torch.randint(-2, 3, (n, d), generator=g).double()
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def masses(g: torch.Generator, n: int) -> torch.Tensor:
    """Weights of one kind in four: equal, random, with zeros, or one huge among tiny ones."""
    kind = int(torch.randint(4, (), generator=g))
    w = torch.rand(n, generator=g, dtype=torch.float64) + 0.01
    if kind == 0:
        w = torch.ones_like(w)
    if kind == 2 and n > 1:
        w[: n // 2] = 0
    if kind == 3:
        w = 10.0 ** (-9 * w)
        w[0] = 1.0
    return w / w.sum()


def sizes(g: torch.Generator, count: int, most: int = 8) -> list[int]:
    return (torch.randint(most, (count,), generator=g) + 1).tolist()


def by_linear_program(C: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The dual by HiGHS, whose constraints hold whatever the weights: its primal presolve calls weights of 1e-8 infeasible."""
    n, m = C.shape
    below = np.hstack([np.kron(np.eye(n), np.ones((m, 1))), np.kron(np.ones((n, 1)), np.eye(m))])
    scale = float(np.abs(C).max()) or 1.0
    bounds = [(0.0, 0.0)] + [(-4.0, 4.0)] * (n + m - 1)  # one potential is free to choose; the others differ by two costs at most
    found = linprog(-np.concatenate([a, b]), A_ub=below, b_ub=C.ravel() / scale, bounds=bounds, method="highs")
    assert found.status == 0, found.message
    return -float(found.fun) * scale


def assert_certified(C: torch.Tensor, a: torch.Tensor, b: torch.Tensor, start=None) -> float:
    """Optimality, proved from the result alone: marginals, feasible potentials, equal values. Returns the value."""
    result = OptimalTransport().solve_cost(C, a, b, start=start)
    plan = result.plan().to_dense()
    scale = float(C.abs().max()) or 1.0
    assert float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()) <= 1e-13
    assert float(plan.min()) >= 0
    assert result.f is not None
    assert result.g is not None
    assert float((C - result.f[:, None] - result.g).min()) >= -1e-13 * scale
    primal, dual = float((plan * C).sum()), float(a @ result.f + b @ result.g)
    assert abs(primal - dual) <= 1e-12 * scale
    assert result.outcome.ok
    assert float(result.value) == pytest.approx(primal, abs=1e-13 * scale)
    return primal


@settings(max_examples=60, deadline=None)
@given(SEEDS, ORDERS, st.integers(2, 4))
def test_metric_axioms(seed, p, d) -> None:
    g = generator(seed)
    D = Wasserstein(p)
    (n, m, k) = sizes(g, 3)
    x, y, z = cloud(g, n, d), cloud(g, m, d), cloud(g, k, d)
    a, b, c = masses(g, n), masses(g, m), masses(g, k)
    assert torch.equal(D(x, y, a, b), D(y, x, b, a))
    assert float(D(x, x, a, a)) == 0
    assert float(D(x, y, a, b)) >= 0
    assert float(D(x, z, a, c)) <= float(D(x, y, a, b) + D(y, z, b, c)) * (1 + 1e-10) + 1e-7


@settings(max_examples=40, deadline=None)
@given(SEEDS, ORDERS)
def test_order_of_rows_translation_and_scale(seed, p) -> None:
    g = generator(seed)
    D = Wasserstein(p)
    n, m = sizes(g, 2)
    x, y, a, b = cloud(g, n, 3), cloud(g, m, 3), masses(g, n), masses(g, m)
    value = float(D(x, y, a, b))
    s, t = torch.randperm(n, generator=g), torch.randperm(m, generator=g)
    assert float(D(x[s], y[t], a[s], b[t])) == pytest.approx(value, rel=1e-10, abs=1e-12)
    shift = torch.randn(3, generator=g, dtype=torch.float64)
    assert float(D(x + shift, y + shift, a, b)) == pytest.approx(value, rel=1e-9, abs=1e-7)
    assert float(D(-4 * x, -4 * y, a, b)) == pytest.approx(4 * value, rel=1e-10, abs=1e-12)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    assert float(D(x @ turn, y @ turn, a, b)) == pytest.approx(value, rel=1e-9, abs=1e-7)
    # A zero-weight row anywhere, and a row cut in two.
    wide, light = torch.cat([x, x[:1] + 70, x[:1]]), torch.cat([a, a[:1] * 0, a[:1] / 4])
    light[0] *= 0.75
    assert float(D(wide, y, light, b)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_w2_of_translates_splits_into_means_and_shape(seed) -> None:
    """W_2^2(x + t, y) = W_2^2(x, y) + |t|^2 + 2 t.(mean x - mean y), for weighted means."""
    g = generator(seed)
    n, m = sizes(g, 2, 12)
    x, y, a, b = cloud(g, n, 2), cloud(g, m, 2), masses(g, n), masses(g, m)
    t = 3 * torch.randn(2, generator=g, dtype=torch.float64)
    D = OptimalTransport()
    want = D(x, y, a, b) + t.square().sum() + 2 * t @ (a @ x - b @ y)
    assert float(D(x + t, y, a, b)) == pytest.approx(float(want), rel=1e-10, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_convex_in_the_weights_and_concave_in_the_cost(seed, share) -> None:
    g = generator(seed)
    n, m = sizes(g, 2)
    C, K = (torch.randn(n, m, generator=g, dtype=torch.float64) for _ in range(2))
    pairs = [(masses(g, n), masses(g, m)) for _ in range(2)]
    mixed = [share * u + (1 - share) * v for u, v in zip(*pairs, strict=True)]
    ends = [assert_certified(C, *pair) for pair in pairs]
    assert assert_certified(C, *(w / w.sum() for w in mixed)) <= share * ends[0] + (1 - share) * ends[1] + 1e-12
    a, b = pairs[0]
    mixture = assert_certified(share * C + (1 - share) * K, a, b)
    assert mixture >= share * ends[0] + (1 - share) * assert_certified(K, a, b) - 1e-12


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3.5]), st.booleans())
def test_one_dimension_is_sorting_and_slices_are_below(seed, p, equal) -> None:
    """A line in the plane, solved by the simplex, is the sorted line; no projection is longer than the cloud."""
    g = generator(seed)
    n, m = sizes(g, 2, 12)
    u, v = cloud(g, n, 1), cloud(g, m, 1)
    a, b = (None, None) if equal else (masses(g, n), masses(g, m))
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    line = float(Wasserstein(p)(u, v, a, b))
    assert float(Wasserstein(p)(u @ direction, v @ direction, a, b)) == pytest.approx(line, rel=1e-9, abs=1e-8)
    x, y = cloud(g, n, 3), cloud(g, m, 3)
    whole = float(Wasserstein(p)(x, y, a, b))
    assert float(SlicedWasserstein(p)(x, y, a, b, generator=g)) <= whole * (1 + 1e-9) + 1e-9
    assert float(Wasserstein(p)(x[:, :1], y[:, :1], a, b)) <= whole * (1 + 1e-9) + 1e-9


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_orders_increase_and_the_mean_is_below(seed) -> None:
    g = generator(seed)
    n, m = sizes(g, 2)
    x, y, a, b = cloud(g, n, 2), cloud(g, m, 2), masses(g, n), masses(g, m)
    values = [float(Wasserstein(p)(x, y, a, b)) for p in (1, 1.5, 2, 6)]
    assert all(low <= high * (1 + 1e-9) + 1e-9 for low, high in itertools.pairwise(values))
    assert float((a @ x - b @ y).norm()) <= values[0] * (1 + 1e-9) + 1e-12
    assert float(Wasserstein(math.inf)(x, y, a, b)) >= values[-1] * (1 - 1e-7)


def degenerate(kind: str, g: torch.Generator, n: int, m: int) -> torch.Tensor:
    """Cost matrices full of ties, or of extreme size."""
    x, y = torch.randn(n, 2, generator=g, dtype=torch.float64), torch.randn(m, 2, generator=g, dtype=torch.float64)
    if kind == "equal":
        return torch.full((n, m), 0.3, dtype=torch.float64)
    if kind == "zero":
        return torch.zeros(n, m, dtype=torch.float64)
    if kind == "integer":
        return torch.randint(-3, 4, (n, m), generator=g).double()
    if kind == "collinear":
        return SquaredEuclidean().matrix(x[:, :1] @ torch.ones(1, 2).double(), y[:, :1] @ torch.ones(1, 2).double())
    if kind == "lattice":
        i, j = torch.randint(3, (n, 2), generator=g).double(), torch.randint(3, (m, 2), generator=g).double()
        return Manhattan().matrix(i, j)
    if kind == "rank one":
        return x[:, :1] * y[:, 0]
    if kind == "exponential":
        return 10.0 ** (6 * torch.randn(n, m, generator=g, dtype=torch.float64)).clamp(-12, 12)
    scale = {"huge": 1e12, "tiny": 1e-12, "subnormal edge": 1e-290, "overflow edge": 1e290}[kind]
    return scale * torch.rand(n, m, generator=g, dtype=torch.float64)


KINDS = (
    "equal",
    "zero",
    "integer",
    "collinear",
    "lattice",
    "rank one",
    "exponential",
    "huge",
    "tiny",
    "subnormal edge",
    "overflow edge",
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_degenerate_problems_are_certified_and_agree_with_highs(kind, seed) -> None:
    g = generator(seed)
    n, m = sizes(g, 2)
    C, a, b = degenerate(kind, g, n, m), masses(g, n), masses(g, m)
    value = assert_certified(C, a, b)
    spread = float(C.abs().max()) or 1.0
    # HiGHS works to an absolute 1e-7 of its scaled costs: our own certificate above is the sharper proof.
    assert value == pytest.approx(by_linear_program(C.numpy(), a.numpy(), b.numpy()), abs=1e-6 * spread)
    warm = OptimalTransport().solve_cost(C, a, b)
    shaken = C * (1 + 0.01 * torch.rand(n, m, generator=g, dtype=torch.float64))
    assert_certified(shaken, a, b, start=warm)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 12), st.floats(0.1, 1e3))
def test_a_tiny_mass_that_alone_moves(decades, cost) -> None:
    """Nearly all mass stays at no cost, so that the value is far below the rounding of the masses times the costs."""
    C = torch.tensor([[1.0, 4.0], [0.0, cost]], dtype=torch.float64)
    b = torch.tensor([1.0, 10.0**-decades], dtype=torch.float64)
    b = b / b.sum()
    assert assert_certified(C, torch.tensor([0.0, 1.0], dtype=torch.float64), b) == pytest.approx(cost * float(b[1]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adversarial_clouds(dtype) -> None:
    """All points equal, one far outlier of almost all mass, a lattice onto itself, exponentially scaled coordinates."""
    g = generator(0)
    n = 400  # beyond the dense solver
    ones = torch.ones(n, 2, dtype=dtype)
    assert float(OptimalTransport()(ones, ones[: n - 30])) == 0
    assert float(Wasserstein(1)(ones, 2 * ones)) == pytest.approx(math.sqrt(2), rel=1e-6)
    x, y = torch.randn(n, 2, generator=g).to(dtype), torch.randn(n, 2, generator=g).to(dtype)
    a = torch.full((n,), 1e-9, dtype=torch.float64)
    a[7] = 1 - 1e-9 * (n - 1)
    heavy = OptimalTransport().solve(x, y, a.to(dtype))
    assert heavy.outcome.ok
    assert float(heavy.value) == pytest.approx(float((x[7] - y).square().sum(1).double().mean()), rel=1e-5)
    side = torch.arange(20, dtype=dtype)
    lattice = torch.cartesian_prod(side, side)
    shifted = OptimalTransport().solve(lattice, lattice.flip(0) + torch.tensor([1.0, 0.0], dtype=dtype))
    assert float(shifted.value) == pytest.approx(1.0, rel=1e-6)
    assert shifted.outcome.ok
    wild = (10.0 ** (4 * torch.randn(n, 2, generator=g, dtype=torch.float64))).to(dtype)
    result = OptimalTransport(Euclidean()).solve(wild, wild.flip(1))
    assert result.outcome.ok
    assert abs(float(result.dual_gap)) <= 1e-11 * float(result.value)


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.sampled_from([SquaredEuclidean(), Euclidean(), Manhattan(), PowerCost(1.5)]))
def test_multi_scale_and_dense_agree(seed, cost) -> None:
    """Two solvers that share their pivots but not their arcs, on clouds with ties."""
    g = generator(seed)
    x, y = cloud(g, 420, 2), cloud(g, 380, 2)
    a, b = masses(g, 420), masses(g, 380)
    points, matrix = OptimalTransport(cost).solve(x, y, a, b), OptimalTransport(cost).solve_cost(cost.matrix(x, y), a, b)
    assert points.rungs != matrix.rungs
    scale = float(cost.matrix(x, y).max())
    assert float(points.value) == pytest.approx(float(matrix.value), rel=1e-9, abs=1e-13 * scale)
    assert points.f is not None
    assert points.g is not None
    assert float((cost.matrix(x, y) - points.f[:, None] - points.g).min()) >= -1e-9 * scale


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_entropic_transport_tends_to_it(seed) -> None:
    """W_0 <= W_eps <= W_0 + eps min(H(a), H(b)), and the bare cost and the potentials follow."""
    g = generator(seed)
    x, y = torch.randn(7, 2, generator=g, dtype=torch.float64), torch.randn(9, 2, generator=g, dtype=torch.float64)
    a, b = torch.rand(7, generator=g, dtype=torch.float64) + 0.1, torch.rand(9, generator=g, dtype=torch.float64) + 0.1
    a, b = a / a.sum(), b / b.sum()
    exact = float(OptimalTransport()(x, y, a, b))
    entropy = min(float(-(w * w.log()).sum()) for w in (a, b))
    for epsilon in (1.0, 0.1, 0.01):
        found = Sinkhorn(epsilon).solve(x, y, a, b)
        assert exact - 1e-6 <= float(found.value) <= exact + epsilon * entropy + 1e-6
        assert exact - 1e-6 <= float(found.cost) <= exact + epsilon * entropy + 1e-6


@pytest.mark.parametrize(("d", "rate"), [(2, 0.95), (3, 0.6), (5, 0.4)])
def test_gaussians_closed_form_as_n_grows(d, rate) -> None:
    """W_2^2 between samples of N(0, I) and N(e, 1.5^2 I) exceeds its limit by about n^(-2/d) (n^-1 log n for d = 2)."""
    law = gaussians(1.0, 1.0, 1.5, dimension=d)
    limit = law.answer("wasserstein", p=2) ** 2
    g = generator(5)
    excess = []
    counts = (100, 400, 1600)
    for n in counts:
        runs = 3200 // n + 2
        values = [float(OptimalTransport()(*law.draw(n, n, generator=g))) for _ in range(runs)]
        excess.append(np.mean(values) - limit)
    slope = -np.polyfit(np.log(counts), np.log(excess), 1)[0]
    assert slope == pytest.approx(rate, abs=0.15)
    assert 0 < excess[-1] < excess[0] / 2


def test_equal_laws_are_close() -> None:
    """W_2^2 between two samples of one law falls like n^-1 log n in the plane."""
    g = generator(6)
    values = [
        float(OptimalTransport()(*(torch.rand(n, 2, generator=g, dtype=torch.float64) for _ in range(2)))) for n in (100, 1600)
    ]
    assert values[1] < values[0] / 6
