"""Calculus and Lipschitz functions on metric graphs, against definitions, networkx and closed forms."""

from __future__ import annotations

import math
import warnings

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from discrepancy import MetricMeasureSpace

GRAPHS = {"karate": nx.karate_club_graph(), "les-mis": nx.les_miserables_graph(), "florentine": nx.florentine_families_graph()}


def weighted(graph: nx.Graph, seed: int = 0) -> nx.Graph:
    """The graph with random lengths and edge measures."""
    rng = np.random.default_rng(seed)
    copy = nx.Graph(graph.edges)
    for _, _, data in copy.edges(data=True):
        data["length"], data["measure"] = rng.uniform(0.3, 3.0, 2)
    return copy


@pytest.mark.parametrize("name", GRAPHS)
def test_integration_by_parts(name: str) -> None:
    space = MetricMeasureSpace.from_graph(weighted(GRAPHS[name]), length="length", measure="measure")
    rng = np.random.default_rng(1)
    f, b = torch.as_tensor(rng.normal(size=(3, space.n))), torch.as_tensor(rng.normal(size=(3, len(space.edges))))
    left = (space.measures * b * space.gradient(f)).sum(-1)
    right = -(space.mass * f * space.divergence(b)).sum(-1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    # One edge by hand: the derivative along e = (i -> j) is (f_j - f_i) / l.
    i, j = space.edges[4].tolist()
    assert float(space.gradient(f)[0, 4]) == pytest.approx(float((f[0, j] - f[0, i]) / space.lengths[4]))


def test_default_mass_is_half_the_edges_at_a_vertex() -> None:
    space = MetricMeasureSpace([[0, 1], [1, 2]], [2.0, 4.0])
    assert space.mass.tolist() == [1.0, 3.0, 2.0]
    assert space.measures.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_energy_is_the_best_derivation(p: float) -> None:
    space = MetricMeasureSpace.from_graph(weighted(GRAPHS["karate"]), length="length", measure="measure")
    q, rng = p / (p - 1), np.random.default_rng(2)
    f = torch.as_tensor(rng.normal(size=space.n))
    slope = space.gradient(f)

    def dual(b: torch.Tensor) -> torch.Tensor:
        return -(space.mass * f * space.divergence(b)).sum() - space.derivation_norm(b, q) ** q / q

    best = slope.sign() * slope.abs() ** (p - 1)
    assert float(dual(best)) == pytest.approx(float(space.energy(f, p)) / p, rel=1e-12)
    for _ in range(5):
        assert float(dual(best + 0.01 * torch.as_tensor(rng.normal(size=len(best))))) < float(dual(best))


def test_energies_on_the_interval() -> None:
    x = torch.linspace(0, 1, 1000, dtype=torch.float64)
    edges = torch.stack([torch.arange(999), torch.arange(1, 1000)], 1)
    space = MetricMeasureSpace(edges, x.diff())
    f = (2 * math.pi * x).sin()
    assert float(space.energy(f, 2)) == pytest.approx(2 * math.pi**2, rel=1e-4)
    assert float(space.energy(f, 3)) == pytest.approx((2 * math.pi) ** 3 * 4 / (3 * math.pi), rel=1e-4)
    assert float(space.energy(f, math.inf)) == pytest.approx(2 * math.pi, rel=1e-4)
    # integral of sin^2 is 1/2: the Sobolev norm squared is 1/2 + 2 pi^2
    assert float(space.sobolev_norm(f, 2)) == pytest.approx(math.sqrt(0.5 + 2 * math.pi**2), rel=1e-4)
    assert float(space.sobolev_norm(f, math.inf)) == pytest.approx(2 * math.pi, rel=1e-4)


def test_distances_and_lipschitz_constant_are_those_of_shortest_paths() -> None:
    graph = weighted(GRAPHS["les-mis"])
    space = MetricMeasureSpace.from_graph(graph, length="length")
    known = dict(nx.all_pairs_dijkstra_path_length(graph, weight="length"))
    want = np.array([[known[i][j] for j in space.labels] for i in space.labels])  # type: ignore[union-attr]
    np.testing.assert_allclose(space.distances(), want, rtol=1e-12)
    f = torch.as_tensor(np.random.default_rng(3).normal(size=(2, space.n)))
    gaps = (f[:, :, None] - f[:, None]).abs().numpy()
    pairs = ~np.eye(space.n, dtype=bool)
    np.testing.assert_allclose(space.lipschitz_constant(f), (gaps[:, pairs] / want[pairs]).max(1), rtol=1e-12)
    for r in (0.5, 2.0):
        close = pairs & (want <= r)
        local = np.where(close, gaps / np.where(pairs, want, 1), 0).max(-1)
        np.testing.assert_allclose(space.asymptotic_lipschitz(f, r), local, rtol=1e-12)


def test_extension_keeps_constant_bounds_and_values() -> None:
    rng = np.random.default_rng(4)
    X = torch.as_tensor(np.r_[rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 100])  # two components
    space = MetricMeasureSpace.from_points(X, 5)
    assert int(space.components.max()) == 1
    anchors = np.array([0, 3, 7, 21, 33])
    values = torch.as_tensor(rng.normal(size=5)).requires_grad_()
    F = space.extend_lipschitz(anchors, values)
    torch.testing.assert_close(F[anchors], values, rtol=0, atol=0)
    d = space.distances(anchors)[:, anchors].numpy()
    v = values.detach().numpy()
    constant = max(abs(v[i] - v[j]) / d[i, j] for i in range(5) for j in range(5) if i != j)
    assert float(space.lipschitz_constant(F.detach())) == pytest.approx(constant, rel=1e-12)
    assert float(F.detach().min()) >= v.min()
    assert bool((F.detach()[40:] == v.max()).all())  # nothing is known there
    F.sum().backward()
    assert bool(values.grad.isfinite().all())  # type: ignore[union-attr]
    constant_one = space.extend_lipschitz(anchors, np.full(5, 2.0))
    assert bool((constant_one == 2.0).all())
    # One anchor in each component: no pair at finite distance, so the constant is 0.
    assert space.extend_lipschitz([0, 50], [1.0, 3.0])[[1, 60]].tolist() == [1.0, 3.0]


def test_constructors_agree() -> None:
    graph = weighted(GRAPHS["karate"])
    one = MetricMeasureSpace.from_graph(graph, length="length")
    two = MetricMeasureSpace.from_graph(nx.to_scipy_sparse_array(graph, weight="length", format="coo"))
    torch.testing.assert_close(one.distances(), two.distances())
    three = MetricMeasureSpace.from_distance_matrix(one.distances())
    torch.testing.assert_close(one.distances(), three.distances())
    assert len(three.edges) == one.n * (one.n - 1) // 2
    assert repr(one) == "MetricMeasureSpace(34 vertices, 78 edges, 1 component)"


def test_neighbor_graphs() -> None:
    rng = np.random.default_rng(5)
    X = np.r_[rng.normal(size=(30, 3)), rng.normal(size=(25, 3)) + 50, rng.normal(size=(4, 3)) - 80]
    open_space = MetricMeasureSpace.from_points(X, 3)
    assert int(open_space.components.max()) >= 2
    joined = MetricMeasureSpace.from_points(X, 3, connected=True)
    assert int(joined.components.max()) == 0
    added = len(joined.edges) - len(open_space.edges)
    assert added == int(open_space.components.max())  # a link for each component but one
    euclid = torch.cdist(*[torch.as_tensor(X)] * 2, compute_mode="donot_use_mm_for_euclid_dist")
    assert bool((joined.distances() >= euclid - 1e-9).all())
    # The links between the three clouds are the shortest ones.
    links = joined.lengths[joined.lengths > 20]
    blocks = [euclid[:30, 30:55].min(), euclid[:30, 55:].min(), euclid[30:55, 55:].min()]
    assert sorted(links.tolist()) == pytest.approx(sorted(float(b) for b in blocks)[:2])


def test_float32_and_batches() -> None:
    space = MetricMeasureSpace.from_points(np.random.default_rng(6).normal(size=(20, 2)).astype(np.float32), 4)
    assert space.lengths.dtype == torch.float32
    f = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    assert space.gradient(f).shape == (2, 3, len(space.edges))
    assert space.divergence(space.gradient(f)).dtype == torch.float32
    assert space.energy(f.double(), 3).dtype == torch.float64


def test_extended_spaces_and_single_vertices_are_legal() -> None:
    D = np.array([[0, 1, np.inf], [1, 0, np.inf], [np.inf, np.inf, 0]])
    space = MetricMeasureSpace.from_distance_matrix(D)
    assert space.distances().tolist() == D.tolist()
    assert space.mass.tolist() == [0.5, 0.5, 0.0]
    assert space.divergence([3.0]).tolist() == [6.0, -6.0, 0.0]
    single = MetricMeasureSpace.from_distance_matrix([[0.0]])
    assert single.n == 1
    assert float(single.energy([3.0])) == 0.0
    assert float(single.energy([3.0], math.inf)) == 0.0


BAD = {
    "not symmetric": (lambda: MetricMeasureSpace.from_distance_matrix([[0, 1.0], [2, 0]]), "must be symmetric"),
    "one-sided infinity": (lambda: MetricMeasureSpace.from_distance_matrix([[0, 1.0], [np.inf, 0]]), "must be symmetric"),
    "negative": (lambda: MetricMeasureSpace.from_distance_matrix([[0, -1.0], [-1, 0]]), "must be non-negative"),
    "NaN": (lambda: MetricMeasureSpace.from_distance_matrix([[0, np.nan], [np.nan, 0]]), "1? ?.*NaN"),
    "zero between two": (lambda: MetricMeasureSpace.from_distance_matrix([[0, 0.0], [0, 0]]), "edge of length zero"),
    "diagonal": (lambda: MetricMeasureSpace.from_distance_matrix([[1.0]]), "zero on its diagonal"),
    "zero length": (lambda: MetricMeasureSpace([[0, 1]], [0.0]), "lengths must be positive"),
    "zero length in a graph": (
        lambda: MetricMeasureSpace.from_graph(nx.Graph([(0, 1, {"w": 0.0})]), length="w"),
        "lengths must be positive",
    ),
    "explicit zero": (
        lambda: MetricMeasureSpace.from_graph(sp.coo_array((np.zeros(2), ([0, 1], [1, 0])), shape=(2, 2))),
        "lengths must be positive",
    ),
    "duplicates": (lambda: MetricMeasureSpace.from_points(np.zeros((4, 2)), 2), "edge of length zero"),
    "too few points": (lambda: MetricMeasureSpace.from_points(np.eye(3), 3), "k must be a whole number from 1 to 2"),
    "loop": (lambda: MetricMeasureSpace([[1, 1]], [1.0]), "joins vertex 1 to itself"),
    "out of range": (lambda: MetricMeasureSpace([[0, 5]], [1.0], None, [1.0, 1.0]), "must join vertices 0 to 1"),
    "mass of zero": (lambda: MetricMeasureSpace([[0, 1]], [1.0], None, [1.0, 0.0]), "mass must be positive"),
    "measure": (lambda: MetricMeasureSpace([[0, 1]], [1.0], [-1.0]), "measures must be positive"),
    "empty": (lambda: MetricMeasureSpace(np.zeros((0, 2), int), []), "at least one vertex"),
    "f too short": (lambda: MetricMeasureSpace([[0, 1]], [1.0]).gradient([1.0]), "f must have one value"),
    "p": (lambda: MetricMeasureSpace([[0, 1]], [1.0]).energy([1.0, 2.0], 1), "p must be greater than 1"),
    "anchor twice": (lambda: MetricMeasureSpace([[0, 1]], [1.0]).extend_lipschitz([0, 0], [1.0, 2.0]), "twice"),
    "asymmetric sparse": (lambda: MetricMeasureSpace.from_graph(sp.csr_array([[0, 1.0], [2.0, 0]])), "must be symmetric"),
    "missing attribute": (lambda: MetricMeasureSpace.from_graph(nx.path_graph(3), length="w"), "no attribute 'w'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_directed_graphs_are_refused_and_broken_triangles_warn() -> None:
    with pytest.raises(TypeError, match="to_undirected"):
        MetricMeasureSpace.from_graph(nx.DiGraph([(0, 1)]))
    with pytest.warns(UserWarning, match="triangle inequality, by 3"):
        MetricMeasureSpace.from_distance_matrix([[0, 1.0, 5], [1, 0, 1], [5, 1, 0]])
    with pytest.warns(UserWarning, match="triangle inequality, by inf"):
        MetricMeasureSpace.from_distance_matrix([[0, 1.0, np.inf], [1, 0, 1], [np.inf, 1, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MetricMeasureSpace.from_distance_matrix([[0, 1.0, 2.0], [1, 0, 1], [2, 1, 0]])
