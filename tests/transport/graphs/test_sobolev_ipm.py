"""Sobolev dual norms on graphs: linear programmes, resistances, closed forms, finite differences, and limits."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from discrepancy import MetricMeasureSpace, OptimalTransport, SobolevIPM

GRAPHS = {"karate": nx.karate_club_graph(), "les-mis": nx.les_miserables_graph(), "florentine": nx.florentine_families_graph()}
EXPONENTS = [1.01, 1.5, 2.0, 3.0, 10.0, 50.0, math.inf]


def space_of(graph: nx.Graph, seed: int | None = 0) -> MetricMeasureSpace:
    """Random lengths and measures; seed None: both one."""
    rng = np.random.default_rng(seed)
    n = graph.number_of_nodes()
    order = {v: k for k, v in enumerate(graph)}
    edges = np.array([(order[i], order[j]) for i, j in graph.edges])
    lengths, measures = rng.uniform(0.3, 3.0, (2, len(edges))) if seed is not None else np.ones((2, len(edges)))
    return MetricMeasureSpace(edges, lengths, measures, None if seed is None else rng.uniform(0.5, 2.0, n))


def signed(n: int, seed: int, *batch: int) -> np.ndarray:
    sigma = np.random.default_rng(seed).normal(size=(*batch, n))
    return sigma - sigma.mean(-1, keepdims=True)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("name", GRAPHS)
def test_certificate(name: str, p: float) -> None:
    space = space_of(GRAPHS[name])
    sigma = signed(space.n, 1, 3)
    found = space.dual_norm(sigma, p)
    value = found.value.numpy()  # type: ignore[union-attr]
    assert (found.dual_gap.numpy() <= 1e-9 * value).all()
    assert (found.dual_gap.numpy() >= -1e-9 * value).all()
    # By the definitions: the potential has energy one and attains the value; the flow delivers sigma and has that norm.
    np.testing.assert_allclose((sigma * found.potential.numpy()).sum(-1), value, rtol=1e-8)
    np.testing.assert_allclose(space.energy(found.potential, p), 1, rtol=1e-9)
    b = space.lengths * found.flow / space.measures
    np.testing.assert_allclose(-(space.mass * space.divergence(b)), sigma, atol=1e-9)
    q = 1.0 if math.isinf(p) else p / (p - 1)
    np.testing.assert_allclose(space.derivation_norm(b, q), value, rtol=1e-9)
    assert bool((found.density == 0).all())
    assert found.outcome.ok


@pytest.mark.parametrize("name", GRAPHS)
def test_infinite_exponent_is_transport_by_shortest_paths(name: str) -> None:
    space = space_of(GRAPHS[name])
    rng = np.random.default_rng(2)
    mu, nu = rng.dirichlet(np.ones(space.n)), rng.dirichlet(np.full(space.n, 0.2))
    mu[:5] = 0
    mu /= mu.sum()
    want = float(OptimalTransport().solve_cost(space.distances(), mu, nu).value)
    assert float(SobolevIPM(space, math.inf)(mu, nu)) == pytest.approx(want, rel=1e-12)


def test_two_vertices_are_the_root_of_their_resistance_apart() -> None:
    graph = GRAPHS["les-mis"]
    space = MetricMeasureSpace.from_graph(graph)
    nodes = list(graph)
    for i, j in ((0, 5), (3, 70), (12, 40)):
        sigma = np.zeros(space.n)
        sigma[i], sigma[j] = 1, -1
        want = math.sqrt(nx.resistance_distance(graph, nodes[i], nodes[j]))
        assert float(space.dual_norm(sigma).value) == pytest.approx(want, rel=1e-10)


def test_weighted_laplacian() -> None:
    space = space_of(GRAPHS["karate"])
    i, j = space.edges.numpy().T
    A = np.zeros((space.n, len(i)))
    A[j, range(len(i))], A[i, range(len(i))] = 1, -1
    L = A @ np.diag((space.measures / space.lengths**2).numpy()) @ A.T
    sigma = signed(space.n, 3, 4)
    want = np.sqrt(np.einsum("bi,ij,bj->b", sigma, np.linalg.pinv(L), sigma))
    np.testing.assert_allclose(space.dual_norm(sigma, 2).value, want, rtol=1e-11)


@pytest.mark.parametrize("p", EXPONENTS)
def test_closed_forms(p: float) -> None:
    q = 1.0 if math.isinf(p) else p / (p - 1)
    rng = np.random.default_rng(4)
    # In series: the flow over each edge is what lies beyond it.
    n = 12
    lengths, measures = rng.uniform(0.2, 2, (2, n - 1))
    sigma = signed(n, 5)
    beyond = np.cumsum(sigma)[:-1]
    want = (measures * np.abs(lengths * beyond / measures) ** q).sum() ** (1 / q)
    path = MetricMeasureSpace(np.stack([np.arange(n - 1), np.arange(1, n)], 1), lengths, measures)
    assert float(path.dual_norm(sigma, p).value) == pytest.approx(want, rel=1e-9)
    # Side by side: costs c_e |J_e|^q add like conductances c_e^(-1 / (q - 1)); for q = 1 all takes the shortest.
    lengths, measures = np.array([1.0, 0.7, 2.0]), np.array([0.5, 1.0, 3.0])
    cost = measures ** (1 - q) * lengths**q
    want = 0.7 if math.isinf(p) else (cost ** (-1 / (q - 1))).sum() ** (-(q - 1) / q)
    bundle = MetricMeasureSpace([[0, 1], [1, 0], [0, 1]], lengths, measures)
    assert float(bundle.dual_norm([1.0, -1.0], p).value) == pytest.approx(want, rel=1e-9)
    # One vertex of mass m: only the density pays.
    single = MetricMeasureSpace(np.zeros((0, 2), int), np.zeros(0), None, [3.0])
    assert float(single.dual_norm([2.0], p, homogeneous=False).value) == pytest.approx(2 * 3.0 ** (1 / q - 1), rel=1e-12)


def _programme(space: MetricMeasureSpace, sigma: np.ndarray) -> float:
    """max <sigma, f> over |f| <= 1 with slopes at most 1."""
    i, j = space.edges.numpy().T
    D = np.zeros((len(i), space.n))
    D[range(len(i)), j], D[range(len(i)), i] = 1, -1
    ends = np.r_[space.lengths, space.lengths]
    return -linprog(-sigma, A_ub=np.r_[D, -D], b_ub=ends, bounds=(-1, 1)).fun


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, math.inf])
def test_full_norm(p: float) -> None:
    space = space_of(GRAPHS["florentine"])
    sigma = np.random.default_rng(6).normal(size=space.n) + 0.3
    found = SobolevIPM(space, p, homogeneous=False).norm(sigma)
    value = float(found.value)
    if math.isinf(p):
        want = _programme(space, sigma)
    else:

        def negative(f: np.ndarray) -> tuple[float, np.ndarray]:
            t = torch.as_tensor(f).requires_grad_()
            loss = space.sobolev_norm(t, p) ** p / p - (torch.as_tensor(sigma) * t).sum()
            (slope,) = torch.autograd.grad(loss, t)
            return float(loss.detach()), slope.numpy()

        best = minimize(negative, np.zeros(space.n) + 1e-3, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 5000})
        want = (-best.fun * p / (p - 1)) ** ((p - 1) / p)
    assert value == pytest.approx(want, rel=1e-7)
    assert float(space.sobolev_norm(found.potential, p)) == pytest.approx(1, rel=1e-8)
    assert float((torch.as_tensor(sigma) * found.potential).sum()) == pytest.approx(value, rel=1e-8)
    b = space.lengths * found.flow / space.measures
    torch.testing.assert_close(space.mass * (found.density - space.divergence(b)), torch.as_tensor(sigma), rtol=0, atol=1e-9)


def test_norms_of_total_measure_one_fall_to_w1() -> None:
    space = space_of(GRAPHS["karate"])
    one = MetricMeasureSpace(space.edges, space.lengths, space.measures / space.measures.sum())
    sigma = signed(space.n, 7)
    values = [float(one.dual_norm(sigma, p).value) for p in (1.1, 2, 3, 6, 12, 25, 50, 400, math.inf)]
    assert all(a > b for a, b in itertools.pairwise(values))
    assert values[-2] == pytest.approx(values[-1], rel=0.02)


@pytest.mark.parametrize("homogeneous", [True, False])
@pytest.mark.parametrize("p", [1.5, 2.0, 4.0, math.inf])
def test_gradients(p: float, homogeneous: bool) -> None:
    graph = nx.random_regular_graph(3, 8, seed=1)
    base = space_of(graph)
    mu, nu = (torch.as_tensor(t).requires_grad_() for t in np.random.default_rng(8).normal(size=(2, base.n)))
    arrays = [t.clone().requires_grad_() for t in (base.lengths, base.measures, base.mass)]

    def value(u, v, lengths, measures, mass):  # type: ignore[no-untyped-def]
        space = MetricMeasureSpace(base.edges, lengths, measures, mass)
        scale = 1.0 if homogeneous else 1.7
        return SobolevIPM(space, p, homogeneous=homogeneous)(scale * u.softmax(-1), v.softmax(-1))

    assert torch.autograd.gradcheck(value, (mu, nu, *arrays), atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(mu, nu, *arrays), mu, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(slope.sum(), nu)


def test_components_zeros_and_batches() -> None:
    space = MetricMeasureSpace([[0, 1], [2, 3], [3, 4]], [1.0, 2.0, 0.5])
    sigma = np.array([[1.0, -1, 0, 0, 0], [0, 0, 1, 0, -1], [0, 0, 0, 0, 0], [0.5, -0.5, 1, -2, 1]])
    for p in (1.5, 2.0, math.inf):
        whole = space.dual_norm(sigma, p)
        alone = [float(space.dual_norm(s, p).value) for s in sigma]
        np.testing.assert_allclose(whole.value, alone, rtol=1e-9)
        assert alone[2] == 0.0
        flipped = space.dual_norm(-sigma, p)
        assert torch.equal(flipped.value, whole.value)  # type: ignore[arg-type]
    assert space.dual_norm(sigma, math.inf).value.tolist() == [1.0, 2.5, 0.0, 0.5 + 2.0 + 0.5]  # type: ignore[union-attr]
    mu = torch.tensor([0.2, 0.3, 0.5, 0, 0], dtype=torch.float64, requires_grad=True)
    zero = SobolevIPM(space)(mu, mu.detach())
    zero.backward()
    assert zero.item() == 0.0
    assert mu.grad.tolist() == [0.0] * 5  # type: ignore[union-attr]


def test_float32_stays_and_weights_broadcast() -> None:
    space = space_of(GRAPHS["karate"])
    rng = np.random.default_rng(9)
    mu, nu = rng.dirichlet(np.ones(space.n), 6).reshape(2, 3, -1), rng.dirichlet(np.ones(space.n))
    for p in (1.5, 2.0, math.inf):
        wide = SobolevIPM(space, p)(mu, nu)
        single = SobolevIPM(space, p)(mu.astype(np.float32), nu.astype(np.float32))
        assert (wide.dtype, wide.shape, single.dtype) == (torch.float64, (2, 3), torch.float32)
        torch.testing.assert_close(single.double(), wide, rtol=1e-5, atol=0)
        strided = SobolevIPM(space, p)(np.asfortranarray(mu), np.repeat(nu, 2)[::2])
        torch.testing.assert_close(strided, wide, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["path", "grid", "neighbours"])
def test_larger_graphs_by_iterations_and_sparse_factors(kind: str) -> None:
    rng = np.random.default_rng(10)
    if kind == "path":
        n = 20_000
        space = MetricMeasureSpace(np.stack([np.arange(n - 1), np.arange(1, n)], 1), np.full(n - 1, 1 / n))
    elif kind == "grid":
        space = MetricMeasureSpace.from_graph(nx.convert_node_labels_to_integers(nx.grid_2d_graph(40, 40)))
    else:
        space = MetricMeasureSpace.from_points(rng.normal(size=(900, 6)), 6, connected=True)
    sigma = signed(space.n, 11)
    for p in (2.0, 3.0, math.inf):
        found = space.dual_norm(sigma, p)
        assert float(found.dual_gap) <= 1e-9 * float(found.value)
        assert float(found.marginal_error) <= 1e-9 * np.abs(sigma).sum()
        if kind == "path":
            q = 1.0 if math.isinf(p) else p / (p - 1)
            flow = np.abs(np.cumsum(sigma)[:-1])
            assert float(found.value) == pytest.approx((flow**q).sum() ** (1 / q) * float(space.lengths[0]) ** (1 / q), rel=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 25),
    decades=st.floats(0, 3),
    exponent=st.floats(1.05, 40),
    sparse=st.booleans(),
)
def test_any_graph_is_certified(seed: int, n: int, decades: float, exponent: float, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(n, 0.3, seed=seed)
    nx.add_path(graph, range(n))
    edges = np.array(graph.edges)
    lengths, measures = 10 ** rng.uniform(-decades / 2, decades / 2, (2, len(edges)))
    space = MetricMeasureSpace(edges, lengths, measures)
    sigma = np.zeros(n)
    if sparse:
        sigma[rng.choice(n, 2, replace=False)] = 1, -1
    else:
        sigma = signed(n, seed)
    for p in (exponent, math.inf):
        found = space.dual_norm(sigma, p)
        assert abs(float(found.dual_gap)) <= 1e-8 * float(found.value)
        assert float(found.marginal_error) <= 1e-10 * np.abs(sigma).sum()


BAD = {
    "unbalanced component": (
        lambda: MetricMeasureSpace([[0, 1], [2, 3]], [1.0, 1.0]).dual_norm([1.0, 0.0, -1.0, 0.0]),
        r"component 0 \(vertices 0, 1\), where the norm is infinite",
    ),
    "different masses": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]))([1.0, 0.0], [1.0, 1.0]), "on component 0"),
    "mass on a vertex of none": (
        lambda: MetricMeasureSpace([[0, 1]], [1.0], None, [1.0, 1.0, 0.0]).dual_norm([0, 0, 1.0], homogeneous=False),
        "a vertex of mass 0",
    ),
    "p = 1": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]), 1.0), "p must be greater than 1"),
    "p NaN": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]), math.nan), "p must be greater than 1"),
    "tolerance": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]), tolerance=0.0), "tolerance"),
    "iterations": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]), max_iterations=0), "max_iterations"),
    "length": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]))([1.0, 0, 0], [1.0, 0, 0]), "each of the 2 vertices"),
    "negative": (lambda: SobolevIPM(MetricMeasureSpace([[0, 1]], [1.0]))([2.0, -1.0], [1.0, 0]), "mu must be non-negative"),
    "NaN": (lambda: MetricMeasureSpace([[0, 1]], [1.0]).dual_norm([math.nan, 0.0]), "sigma has 1 non-finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_not_a_space() -> None:
    with pytest.raises(TypeError, match="MetricMeasureSpace"):
        SobolevIPM(nx.path_graph(3))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::discrepancy.ConvergenceWarning")
def test_an_iteration_limit_is_said() -> None:
    space = space_of(GRAPHS["karate"])
    found = space.dual_norm(signed(space.n, 12), 7.0, max_iterations=2)
    assert not found.outcome.ok
    assert float(found.dual_gap) > 1e-6 * float(found.value)
    with pytest.warns(UserWarning, match="SobolevIPM: iteration limit"):
        space.dual_norm(signed(space.n, 12), 7.0, max_iterations=2)
