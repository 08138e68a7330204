"""Laplacian bases against spectra that are known, and meshes that are not quite surfaces."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from discrepancy.methods.geometry.laplacians import (
    HeatKernelSignature,
    LaplacianBasis,
    WaveKernelSignature,
    cotangent_operator,
)
from discrepancy.methods.geometry.meshes import Mesh, MeshWarning, bumpy_sphere, icosphere, sheet, torus


def _orthonormal(basis: LaplacianBasis) -> None:
    product = basis.coefficients(basis.vectors)
    assert (product - torch.eye(basis.k, dtype=product.dtype)).abs().max() < (1e-10 if product.dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("subdivisions", [3, 4])  # 642 points with k = 320 would be dense: both routes
def test_sphere(subdivisions):
    basis = LaplacianBasis.from_mesh(icosphere(subdivisions, radius=7.0, dtype=torch.float64), k=36)
    _orthonormal(basis)
    # l (l + 1) with multiplicity 2 l + 1 on the unit sphere; on one of area 1 times 4 pi.
    truth = torch.tensor([degree * (degree + 1) for degree in range(6) for _ in range(2 * degree + 1)], dtype=torch.float64)
    error = (basis.values / (4 * math.pi) - truth).abs() / (truth + 1)
    assert error.max() < (0.07 if subdivisions == 3 else 0.02)
    assert basis.values[0] == 0
    assert basis.area == pytest.approx(4 * math.pi * 49, rel=0.02)
    assert float(basis.mass.sum()) == pytest.approx(1)


def test_dense_and_sparse_agree_on_a_mesh_without_symmetry():
    generator = torch.Generator().manual_seed(0)
    mesh = bumpy_sphere(0.3, 3, dtype=torch.float64)
    mesh = mesh.moved(mesh.vertices + 0.02 * torch.randn(mesh.vertices.shape, generator=generator, dtype=torch.float64))
    operator = cotangent_operator(mesh).operator
    root = np.sqrt(operator.mass)
    dense, sparse = operator._dense(root, 12), operator._sparse(root, 12)
    np.testing.assert_allclose(sparse[0], dense[0], atol=1e-9 * dense[0][-1])
    agreement = np.abs((sparse[1] * dense[1]).sum(0))
    np.testing.assert_allclose(agreement, 1, atol=1e-8)


def test_square_with_free_border():
    # Neumann: pi^2 (i^2 + j^2) on the unit square.
    basis = LaplacianBasis.from_mesh(sheet(41, 41, dtype=torch.float64), k=8)
    truth = math.pi**2 * torch.tensor([0.0, 1, 1, 2, 4, 4, 5, 5], dtype=torch.float64)
    assert ((basis.values - truth).abs() / (truth + 1)).max() < 5e-3


def test_energy_of_a_linear_function_is_exact():
    # |grad x|^2 = 1 over the unit square: linear elements have no error there.
    basis = LaplacianBasis.from_mesh(sheet(7, 5, dtype=torch.float64), k=5)
    assert basis.points is not None
    assert float(basis.dirichlet_energy(basis.points[:, :1])) == pytest.approx(1.0)
    values = basis.values[3]
    assert float(basis.dirichlet_energy(basis.vectors[:, 3:4])) == pytest.approx(float(values))


def test_scale_is_taken_out_and_kept_on_request():
    mesh = torus(dtype=torch.float64)
    large = mesh.moved(3.0 * mesh.vertices + 100.0)
    small, big = (LaplacianBasis.from_mesh(m, k=10) for m in (mesh, large))
    torch.testing.assert_close(small.values, big.values, rtol=1e-8, atol=1e-8)
    raw = LaplacianBasis.from_mesh(large, k=10, normalize=False)
    torch.testing.assert_close(raw.values * raw.area, big.values, rtol=1e-8, atol=1e-8)
    assert float(raw.mass.sum()) == pytest.approx(float(large.area()))


def test_rotation_and_order_of_vertices_do_not_matter():
    generator = torch.Generator().manual_seed(1)
    mesh = bumpy_sphere(0.2, 2, dtype=torch.float64)
    mesh = mesh.moved(mesh.vertices * torch.tensor([1.0, 1.3, 0.8], dtype=torch.float64))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    order = torch.randperm(len(mesh.vertices), generator=generator)
    other = Mesh((mesh.vertices @ turn)[order], order.argsort()[mesh.faces])
    a, b = LaplacianBasis.from_mesh(mesh, k=9), LaplacianBasis.from_mesh(other, k=9)
    torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(a.vectors[order].abs(), b.vectors.abs(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(WaveKernelSignature(20)(a)[order], WaveKernelSignature(20)(b), rtol=1e-6, atol=1e-6)


def test_the_same_answer_bit_for_bit_and_in_single_precision():
    mesh = bumpy_sphere(0.3, 3, dtype=torch.float64)
    a, b = LaplacianBasis.from_mesh(mesh, k=20), LaplacianBasis.from_mesh(mesh, k=20)
    assert torch.equal(a.vectors, b.vectors)
    single = LaplacianBasis.from_mesh(mesh.moved(mesh.vertices.float()), k=20)
    assert single.vectors.dtype == torch.float32
    _orthonormal(single)
    torch.testing.assert_close(single.values.double(), a.values, rtol=1e-5, atol=1e-4)


def test_the_shape_of_meshes_of_other_packages_is_enough():
    class Scan:
        def __init__(self, mesh):
            self.vertices, self.faces = mesh.vertices.numpy(), mesh.faces.numpy()

    mesh = icosphere(2, dtype=torch.float64)
    assert torch.equal(LaplacianBasis.from_mesh(Scan(mesh), k=5).values, LaplacianBasis.from_mesh(mesh, k=5).values)
    assert torch.equal(
        LaplacianBasis.from_mesh(mesh.vertices, mesh.faces, k=5).values, LaplacianBasis.from_mesh(mesh, k=5).values
    )


# ---- what is not quite a surface -------------------------------------------------------------------------------------------


def _twice(mesh: Mesh, shift: float) -> Mesh:
    n = len(mesh.vertices)
    return Mesh(torch.cat([mesh.vertices, mesh.vertices + shift]), torch.cat([mesh.faces, mesh.faces + n]))


def test_two_parts_warn_and_have_two_zeros():
    with pytest.warns(UserWarning, match="2 unconnected parts"):
        basis = LaplacianBasis.from_mesh(_twice(icosphere(2, dtype=torch.float64), 5.0), k=6)
    assert torch.equal(basis.values[:2], torch.zeros(2, dtype=torch.float64))
    assert basis.values[2] > 1
    _orthonormal(basis)


def test_more_parts_than_eigenvalues_are_refused():
    with pytest.raises(ValueError, match="2 unconnected parts, so the 2 lowest eigenvalues are all zero"):
        LaplacianBasis.from_mesh(_twice(icosphere(1), 5.0), k=2)


@pytest.mark.parametrize("k", [0, 42, 100, 2.5])
def test_k_beyond_the_points_is_refused(k):
    with pytest.raises(ValueError, match="k must lie between 1 and 41"):
        LaplacianBasis.from_mesh(icosphere(1), k=k)


def test_faces_without_area_are_dropped():
    mesh = icosphere(2, dtype=torch.float64)
    a, b, _ = mesh.faces[0].tolist()
    faces = torch.cat([mesh.faces, torch.tensor([[a, a, b]])])
    with pytest.warns(MeshWarning, match="no area"):
        basis = LaplacianBasis.from_mesh(mesh.vertices, faces, k=8)
    torch.testing.assert_close(basis.vectors, LaplacianBasis.from_mesh(mesh, k=8).vectors)


def test_repeated_faces_count_once():
    mesh = icosphere(2, dtype=torch.float64)
    with pytest.warns(MeshWarning, match="more than once"):
        basis = LaplacianBasis.from_mesh(mesh.vertices, torch.cat([mesh.faces, mesh.faces[:3].roll(1, 1)]), k=8)
    torch.testing.assert_close(basis.values, LaplacianBasis.from_mesh(mesh, k=8).values)


def test_seams_are_welded():
    # A cut along which all vertices are there twice: the same surface to the Laplacian.
    mesh = bumpy_sphere(0.3, 2, dtype=torch.float64)
    n = len(mesh.vertices)
    used, place = torch.unique(mesh.faces[100:], return_inverse=True)
    seamed = Mesh(torch.cat([mesh.vertices, mesh.vertices[used]]), torch.cat([mesh.faces[:100], place.reshape(-1, 3) + n]))
    with pytest.warns(MeshWarning) as caught:
        basis = LaplacianBasis.from_mesh(seamed, k=8)
    assert any("welded" in str(w.message) for w in caught)
    whole = LaplacianBasis.from_mesh(mesh, k=8)
    torch.testing.assert_close(basis.values, whole.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(basis.vectors[n:], basis.vectors[used])
    assert float(basis.mass.sum()) == pytest.approx(1)
    _orthonormal(basis)
    assert float(basis.dirichlet_energy(basis.vectors[:, 4:5])) == pytest.approx(float(basis.values[4]))


def test_vertices_without_faces_follow_their_neighbour():
    mesh = icosphere(2, dtype=torch.float64)
    vertices = torch.cat([mesh.vertices, mesh.vertices[5:6] * 1.01])
    with pytest.warns(MeshWarning, match="belong to no face"):
        basis = LaplacianBasis.from_mesh(vertices, mesh.faces, k=8)
    assert basis.n == len(vertices)
    assert basis.mass[-1] == 0
    torch.testing.assert_close(basis.vectors[-1], basis.vectors[5])
    _orthonormal(basis)


def test_edges_of_three_faces_are_joined():
    # Three half-planes that meet in one edge: the Laplacian is that of all three.
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    with pytest.warns(MeshWarning, match="three or more faces"):
        basis = LaplacianBasis.from_mesh(mesh, k=3)
    assert basis.values[0] == 0
    assert basis.values[1] > 0


def test_a_mesh_without_area_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([[0, 1, 2]]))
        with pytest.raises(ValueError, match="no face of positive area"):
            LaplacianBasis.from_mesh(mesh, k=1)


# ---- graphs and clouds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [40, 900])  # dense and sparse
def test_path_and_cycle_graphs(n):
    nx = pytest.importorskip("networkx")
    j = torch.arange(10, dtype=torch.float64)
    path = LaplacianBasis.from_graph(nx.path_graph(n), 10)
    torch.testing.assert_close(path.values.double(), 2 - 2 * torch.cos(math.pi * j / n), rtol=1e-4, atol=1e-6)
    cycle = LaplacianBasis.from_graph(nx.cycle_graph(n), 9)
    k = torch.tensor([0, 1, 1, 2, 2, 3, 3, 4, 4], dtype=torch.float64)
    torch.testing.assert_close(cycle.values.double(), 2 - 2 * torch.cos(2 * math.pi * k / n), rtol=1e-4, atol=1e-6)


def test_normalised_complete_graph_by_matrix():
    from scipy.sparse import csr_array

    n = 12
    W = np.ones((n, n)) - np.eye(n)
    for graph in (W, csr_array(3.0 * W)):
        basis = LaplacianBasis.from_graph(graph, 5, normalize=True)
        torch.testing.assert_close(basis.values, torch.tensor([0.0, *[n / (n - 1)] * 4]))
        _orthonormal(basis)


def test_weights_of_edges_and_loops():
    nx = pytest.importorskip("networkx")
    graph = nx.Graph()
    graph.add_edge("a", "b", weight=2.0)
    graph.add_edge("b", "b", weight=5.0)
    graph.add_edge("b", "c", weight=0.5)
    L = np.array([[2, -2, 0], [-2, 2.5, -0.5], [0, -0.5, 0.5]])
    np.testing.assert_allclose(LaplacianBasis.from_graph(graph, 2).values, np.linalg.eigvalsh(L)[:2], atol=1e-6)


def test_graphs_that_will_not_do():
    nx = pytest.importorskip("networkx")
    with pytest.raises(ValueError, match="directed"):
        LaplacianBasis.from_graph(nx.DiGraph([(0, 1), (1, 2)]), 2)
    with pytest.raises(ValueError, match="not symmetric"):
        LaplacianBasis.from_graph(np.triu(np.ones((4, 4))), 2)
    with pytest.raises(ValueError, match="non-negative"):
        LaplacianBasis.from_graph(-np.ones((4, 4)), 2)
    with pytest.raises(ValueError, match="square"):
        LaplacianBasis.from_graph(np.ones((4, 3)), 2)
    with pytest.raises(TypeError, match="NetworkX graph"):
        LaplacianBasis.from_graph("graph", 2)
    lonely = nx.path_graph(5)
    lonely.add_node("alone")
    with pytest.raises(ValueError, match="1 nodes have no edges"):
        LaplacianBasis.from_graph(lonely, 3, normalize=True)


@pytest.mark.parametrize("density", ["even", "uneven"])
def test_a_cloud_on_the_sphere(density):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3000, 3, generator=generator, dtype=torch.float64)
    if density == "uneven":  # three times as many on one side: the limit is the same
        x = x[(x[:, 0] > 0) | (torch.rand(3000, generator=generator) < 0.33)]
    x = 5 * x / x.norm(dim=1, keepdim=True) + 2
    basis = LaplacianBasis.from_point_cloud(x, 9)
    truth = torch.tensor([0, 2, 2, 2, 6, 6, 6, 6, 6], dtype=torch.float64)
    # Centred at the sample's mean, the radius is not one where the sample is lopsided: compare ratios.
    ratio = basis.values / basis.values[1:4].mean() * 2
    assert ((ratio - truth).abs() <= 0.12 * truth).all()
    if density == "even":
        assert float(basis.values[1:4].mean()) == pytest.approx(2, rel=0.1)
    # Masses measure area and not numbers, of which three quarters are on the right; the bias is that of the kernel's width.
    assert float(basis.mass[x[:, 0] > 2].sum()) == pytest.approx(0.5, abs=0.07)


def test_clouds_with_duplicates_and_too_few_points():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    twice = LaplacianBasis.from_point_cloud(torch.cat([x, x]), 6, neighbors=20)
    once = LaplacianBasis.from_point_cloud(x, 6, neighbors=10)
    # Nearly the same graph; ties among the last neighbours and the point's own weight make the difference.
    torch.testing.assert_close(twice.values, once.values, rtol=0.1, atol=1e-9)
    with pytest.raises(ValueError, match="neighbors must lie between 1 and 9"):
        LaplacianBasis.from_point_cloud(x[:10], 3)
    with pytest.raises(ValueError, match="dimension must lie between 1 and 2"):
        LaplacianBasis.from_point_cloud(x, 3, dimension=3)
    with pytest.raises(ValueError, match="all points are the same"):
        LaplacianBasis.from_point_cloud(torch.zeros(50, 2), 3)
    with pytest.raises(ValueError, match="one cloud"):
        LaplacianBasis.from_point_cloud(torch.zeros(2, 50, 2), 3)


# ---- the basis itself, and signatures --------------------------------------------------------------------------------------


def test_own_eigenpairs_are_checked():
    good = LaplacianBasis.from_mesh(icosphere(2, dtype=torch.float64), k=6)
    with pytest.raises(ValueError, match="ascend"):
        LaplacianBasis(good.vectors, good.values.flip(0), good.mass)
    with pytest.raises(ValueError, match="shapes"):
        LaplacianBasis(good.vectors, good.values[:4], good.mass)
    with pytest.raises(ValueError, match="values must not be negative"):
        LaplacianBasis(good.vectors, good.values - 1, good.mass)
    with pytest.raises(ValueError, match="mass must be non-negative"):
        LaplacianBasis(good.vectors, good.values, -good.mass)
    with pytest.raises(ValueError, match="non-finite"):
        LaplacianBasis(good.vectors * math.nan, good.values, good.mass)
    with pytest.raises(ValueError, match="one row for each"):
        good.coefficients(torch.zeros(3, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="between 1 and 6"):
        good.truncated(7)
    with pytest.raises(TypeError, match="no stiffness"):
        LaplacianBasis(good.vectors, good.values, good.mass).dirichlet_energy(good.vectors)


def test_projection_keeps_what_the_basis_spans():
    basis = LaplacianBasis.from_mesh(bumpy_sphere(0.3, 2, dtype=torch.float64), k=12)
    f = basis.vectors @ torch.arange(24.0, dtype=torch.float64).reshape(12, 2)
    torch.testing.assert_close(basis.synthesis(basis.coefficients(f)), f)
    assert basis.truncated(5).k == 5


def test_heat_kernel_signature_by_hand():
    basis = LaplacianBasis.from_mesh(bumpy_sphere(0.3, 2, dtype=torch.float64), k=15)
    got = HeatKernelSignature(3)(basis)
    times = [4 * math.log(10) / float(v) for v in (basis.values[-1], basis.values[1])]
    for column, t in ((0, times[0]), (2, times[1]), (1, math.sqrt(times[0] * times[1]))):
        weights = torch.exp(-t * basis.values)
        expected = (basis.vectors.square() * weights).sum(1) / weights.sum()
        torch.testing.assert_close(got[:, column], expected)
    # Its integral over the shape is one at any time.
    torch.testing.assert_close(basis.mass @ got, torch.ones(3, dtype=torch.float64))


def test_wave_kernel_signature_by_hand():
    basis = LaplacianBasis.from_mesh(bumpy_sphere(0.3, 2, dtype=torch.float64), k=15)
    got = WaveKernelSignature(10, width=2.0)(basis)
    logs = basis.values[1:].log()
    sigma = 2.0 * float(logs[-1] - logs[0]) / (10 + 8.0)
    for column, e in ((0, logs[0] + 2 * sigma), (9, logs[-1] - 2 * sigma)):
        weights = torch.exp(-((e - logs) ** 2) / (2 * sigma**2))
        torch.testing.assert_close(got[:, column], (basis.vectors[:, 1:].square() * weights).sum(1) / weights.sum())
    torch.testing.assert_close(basis.mass @ got, torch.ones(10, dtype=torch.float64))


def test_signatures_need_eigenvalues():
    small = LaplacianBasis.from_mesh(icosphere(1), k=1)
    for signature in (HeatKernelSignature(), WaveKernelSignature()):
        with pytest.raises(ValueError, match="raise k"):
            signature(small)
    for bad in (lambda: HeatKernelSignature(0), lambda: WaveKernelSignature(2.5), lambda: WaveKernelSignature(width=0)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"count|width"):
            bad()
