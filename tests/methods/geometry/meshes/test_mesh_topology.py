"""Edges, borders, orientation and Euler characteristics of surfaces whose topology is known."""

import pytest
import torch

from discrepancy.methods.geometry.meshes import (
    boundary_edges,
    bumpy_sphere,
    coarsened,
    edges,
    icosphere,
    inconsistent_edges,
    neighbouring_faces,
    sheet,
    subdivided,
    topology_of,
    torus,
)


def test_sphere_torus_and_sheet():
    ball, ring, plane = icosphere(2).topology, torus().topology, sheet(4, 6).topology
    assert (ball.euler, ring.euler, plane.euler) == (2, 0, 1)
    assert ball.closed
    assert ball.oriented
    assert not plane.closed
    assert plane.oriented
    assert plane.boundary == 2 * (3 + 5)
    assert len(boundary_edges(sheet(4, 6).faces)) == 16


def test_splitting_faces_keeps_surface_and_topology():
    ring = torus(dtype=torch.float64)
    fine = subdivided(ring)
    assert fine.topology.euler == 0
    assert fine.topology.faces == 4 * ring.topology.faces
    assert torch.allclose(fine.area(), ring.area())


def test_coarsening_undoes_splitting_whatever_was_done_to_the_vertices():
    for mesh in (icosphere(2), torus(), bumpy_sphere()):
        back = coarsened(subdivided(mesh))
        assert torch.equal(back.vertices, mesh.vertices)
        turned = {tuple(f[k:] + f[:k]) for f in back.faces.tolist() for k in range(3)}
        assert {tuple(f) for f in mesh.faces.tolist()} <= turned
        assert len(back.faces) == len(mesh.faces)
    bent = bumpy_sphere(subdivisions=3)
    assert torch.equal(coarsened(bent).vertices, bumpy_sphere(subdivisions=2).vertices)


@pytest.mark.parametrize("mesh", [torus(), icosphere(0), sheet(5, 5)], ids=repr)
def test_only_split_surfaces_can_be_coarsened(mesh):
    with pytest.raises(ValueError, match="faces were split into four"):
        coarsened(mesh)


def test_two_spheres_are_two_pieces():
    ball = icosphere(1)
    both = topology_of(torch.cat([ball.faces, ball.faces + len(ball.vertices)]))
    assert both.pieces == 2
    assert both.euler == 4


def test_an_edge_of_three_faces_is_no_manifold():
    found = topology_of(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    assert found.non_manifold == 1
    assert not found.closed
    assert not found.oriented
    assert len(neighbouring_faces(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))) == 0


def test_a_turned_face_is_found():
    faces = icosphere(1).faces.clone()
    faces[7] = faces[7].flip(0)
    found = topology_of(faces)
    assert found.inconsistent == 3
    assert found.closed
    assert not found.oriented
    wrong = {tuple(sorted(e)) for e in inconsistent_edges(faces).tolist()}
    a, b, c = faces[7].tolist()
    assert wrong == {tuple(sorted(e)) for e in ((a, b), (b, c), (c, a))}


def test_neighbours_of_a_closed_surface():
    faces = icosphere(2).faces
    pairs = neighbouring_faces(faces)
    assert len(pairs) == len(edges(faces)[0]) == len(faces) * 3 // 2
    for i, j in pairs[:40].tolist():
        assert len(set(faces[i].tolist()) & set(faces[j].tolist())) == 2
    assert bool((torch.bincount(pairs.flatten(), minlength=len(faces)) == 3).all())
