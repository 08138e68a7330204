"""The mesh container and what it measures, against closed forms; bad input one by one."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from discrepancy.methods.geometry.meshes import Mesh, MeshWarning, as_mesh, icosphere, sheet, torus

TRIANGLE = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 4.0, 0.0]], dtype=torch.float64)


def test_a_right_triangle():
    mesh = Mesh(TRIANGLE, [[0, 1, 2]])
    assert mesh.areas().tolist() == [6.0]
    assert mesh.area_vectors().tolist() == [[0.0, 0.0, 6.0]]
    assert mesh.normals().tolist() == [[0.0, 0.0, 1.0]]
    assert torch.allclose(mesh.centroids(), torch.tensor([[1.0, 4 / 3, 0.0]], dtype=torch.float64))
    assert mesh.vertex_areas().tolist() == [2.0, 2.0, 2.0]
    assert mesh.diagonal() == 5.0
    assert Mesh(TRIANGLE, [[0, 2, 1]]).normals().tolist() == [[0.0, 0.0, -1.0]]


def test_area_and_volume_of_a_sphere_converge_quadratically_and_normals_point_outward():
    errors = []
    for k in (2, 3, 4):
        ball = icosphere(k, 2.0, dtype=torch.float64)
        assert len(ball.vertices) == 10 * 4**k + 2
        assert len(ball.faces) == 20 * 4**k
        assert bool(((ball.normals() * ball.centroids()).sum(-1) > 0).all())
        assert float(ball.vertex_areas().sum()) == pytest.approx(float(ball.area()), rel=1e-12)
        errors.append((1 - float(ball.area()) / (16 * math.pi), 1 - float(ball.volume()) / (32 * math.pi / 3)))
    for before, after in itertools.pairwise(errors):
        assert [b / a for b, a in zip(before, after, strict=True)] == pytest.approx([4, 4], rel=0.05)


def test_torus_and_sheet():
    ring = torus(2.0, 0.5, 96, 48, dtype=torch.float64)
    assert float(ring.area()) == pytest.approx(4 * math.pi**2, rel=2e-3)
    assert float(ring.volume()) == pytest.approx(math.pi**2, rel=5e-3)  # 2 pi^2 R r^2, and positive: outward
    plane = sheet(7, 5, dtype=torch.float64)
    assert float(plane.area()) == pytest.approx(1.0)
    assert bool((plane.normals() == torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).all())


def test_volume_does_not_depend_on_the_place():
    ball = icosphere(2, dtype=torch.float64)
    assert float(ball.moved(ball.vertices + 5).volume()) == pytest.approx(float(ball.volume()), rel=1e-12)


def test_vertex_normals_of_a_sphere_are_its_vertices():
    ball = icosphere(4, dtype=torch.float64)
    assert float((ball.vertex_normals() * ball.vertices).sum(-1).min()) > 1 - 1e-4


@pytest.mark.parametrize(
    "quantity", ["areas", "normals", "centroids", "area_vectors", "volume", "vertex_areas", "vertex_normals"]
)
def test_gradients(quantity):
    ball = icosphere(0, dtype=torch.float64)
    noisy = ball.vertices + 0.1 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: getattr(ball.moved(v), quantity)(), noisy.requires_grad_())


def test_a_face_without_area_has_finite_gradients():
    flat = TRIANGLE.clone()
    flat[2] = flat[1] / 3
    vertices = flat.requires_grad_()
    with pytest.warns(MeshWarning, match="1 of 1 faces have no area"):
        mesh = Mesh(vertices, [[0, 1, 2]])
    (mesh.areas().sum() + mesh.normals().sum()).backward()
    assert vertices.grad is not None
    assert bool(torch.isfinite(vertices.grad).all())
    assert not bool(mesh.solid.any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    ball = icosphere(1, dtype=dtype)
    assert ball.areas().dtype == ball.volume().dtype == ball.vertex_normals().dtype == dtype


def test_meshes_come_in_by_attribute_or_as_a_pair():
    array = TRIANGLE.numpy()
    for given in (SimpleNamespace(vertices=array, faces=np.array([[0, 1, 2]])), (array, [[0, 1, 2]]), [TRIANGLE, [(0, 1, 2)]]):
        assert as_mesh(given).areas().tolist() == [6.0]
    mesh = Mesh(TRIANGLE, [[0, 1, 2]])
    assert as_mesh(mesh) is mesh
    assert repr(mesh) == "Mesh(3 vertices, 1 faces, torch.float64)"
    with pytest.raises(TypeError, match="target must be a Mesh, a pair"):
        as_mesh(3, "target")


def test_unused_vertices_do_not_count():
    mesh = Mesh(torch.cat([TRIANGLE, torch.tensor([[100.0, 0, 0]])]), [[0, 1, 2]])
    assert mesh.diagonal() == 5.0
    assert mesh.topology.vertices == 3
    assert float(mesh.vertex_areas()[3]) == 0
    assert mesh.vertex_normals()[3].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("vertices", "faces", "error", "message"),
    [
        (TRIANGLE, [[0, 1, 3]], ValueError, "faces must number vertices 0 to 2, got 3"),
        (TRIANGLE, [[0, 1, -1]], ValueError, "faces must number vertices 0 to 2, got -1"),
        (TRIANGLE, [[0, 1, 2, 0]], ValueError, "quadrilaterals"),
        (TRIANGLE, [0, 1, 2], ValueError, r"faces must be triangles of shape \(F, 3\)"),
        (TRIANGLE, np.zeros((0, 3), int), ValueError, "faces is empty"),
        (TRIANGLE, [], ValueError, "faces is empty"),
        (TRIANGLE, [[0.0, 1.0, 2.0]], TypeError, "faces must be whole numbers"),
        (TRIANGLE[:, :2], [[0, 1, 2]], ValueError, r"vertices must be points in space of shape \(N, 3\)"),
        (np.zeros((0, 3)), [[0, 1, 2]], ValueError, "vertices is empty"),
        (TRIANGLE * math.nan, [[0, 1, 2]], ValueError, "vertices has 9 non-finite"),
    ],
)
def test_bad_input(vertices, faces, error, message):
    with pytest.raises(error, match=message):
        Mesh(vertices, faces)


def test_contradicting_faces_are_a_warning():
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    with pytest.warns(MeshWarning, match="1 edge"):
        Mesh(square, [[0, 1, 2], [0, 3, 2]])


def test_moving_needs_as_many_vertices():
    with pytest.raises(ValueError, match="one for each that there is"):
        icosphere(0).moved(torch.zeros(3, 3))


def test_subdivisions_are_whole():
    with pytest.raises(ValueError, match="subdivisions"):
        icosphere(-1)


def test_what_the_faces_determine_is_handed_on_to_deformations():
    ball = icosphere(1)
    edges = ball.edges
    assert ball.moved(2 * ball.vertices).edges is edges
    assert "neighbours" not in ball.moved(ball.vertices).__dict__
