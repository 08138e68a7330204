"""Distances to surfaces and crossings against closed forms and against all pairs tried one by one."""

import math

import numpy as np
import pytest
import torch

from discrepancy.methods.geometry.meshes import (
    Mesh,
    ellipsoid,
    folded_sphere,
    icosphere,
    project_to_surface,
    sample_surface,
    self_intersections,
    sheet,
    surface_distance,
    torus,
)

TRIANGLE = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64), [[0, 1, 2]])


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _soup(count, size, seed):
    """Triangles of no surface: three own corners each."""
    g = _seeded(seed)
    centre = torch.rand(count, 1, 3, generator=g, dtype=torch.float64)
    corners = centre + size * torch.randn(count, 3, 3, generator=g, dtype=torch.float64)
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))


@pytest.mark.parametrize(
    ("point", "distance", "nearest"),
    [
        ((0.2, 0.3, 2.0), 2.0, (0.2, 0.3, 0.0)),  # above the inside
        ((-3.0, -4.0, 0.0), 5.0, (0.0, 0.0, 0.0)),  # a corner
        ((0.5, -1.0, 0.0), 1.0, (0.5, 0.0, 0.0)),  # an edge
        ((1.0, 1.0, 1.0), math.sqrt(1.5), (0.5, 0.5, 0.0)),  # the long edge
        ((4.0, -1.0, 0.0), math.sqrt(10), (1.0, 0.0, 0.0)),
    ],
)
def test_one_triangle(point, distance, nearest):
    found = project_to_surface([list(point)], TRIANGLE)
    assert float(found.distances) == pytest.approx(distance, rel=1e-12)
    assert found.points[0].tolist() == pytest.approx(list(nearest), abs=1e-12)


def test_nearest_points_by_convex_programming():
    """The nearest point of each triangle by projected gradient on the simplex of barycentric coordinates, all pairs tried."""
    mesh = _soup(40, 0.2, 1)
    points = torch.rand(25, 3, generator=_seeded(2), dtype=torch.float64)
    corners = mesh.corners()[None]
    # Barycentric coordinates on a fine lattice bound the distance from above within the lattice's width.
    steps = 60
    lattice = torch.tensor([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)], dtype=torch.float64)
    spots = torch.einsum("lk,fkd->fld", lattice / steps, corners[0]).reshape(-1, 3)
    bound = torch.cdist(points, spots).min(-1).values
    found = project_to_surface(points, mesh)
    assert bool((found.distances <= bound + 1e-12).all())
    assert bool((found.distances >= bound - 2.0 / steps).all())
    # And it is a point of the triangle named.
    own = corners[0][found.faces]
    weights = torch.linalg.lstsq(own.mT, found.points[..., None]).solution[..., 0]
    assert bool((weights > -1e-9).all())
    assert torch.allclose(weights.sum(-1), torch.ones(25, dtype=torch.float64))


def test_the_tree_finds_what_all_pairs_find():
    mesh = folded_sphere(dtype=torch.float64)
    points = 1.5 * torch.randn(300, 3, generator=_seeded(3), dtype=torch.float64)
    part = mesh.faces[: 64 * 3]
    alone = [project_to_surface(points, Mesh(mesh.vertices[one], [[0, 1, 2]])).distances for one in part]
    every = torch.stack(alone).amin(0)
    # On a common edge either face may be found, and rounds differently.
    assert torch.allclose(project_to_surface(points, Mesh(mesh.vertices, part)).distances, every, rtol=1e-13, atol=0)
    assert bool((project_to_surface(points, mesh).distances <= every * (1 + 1e-13)).all())


def test_gradients_of_distances_in_points_and_vertices():
    ball = icosphere(1, dtype=torch.float64)
    points = 1.3 * torch.randn(12, 3, generator=_seeded(4), dtype=torch.float64)

    def distances(p, v):
        return project_to_surface(p, ball.moved(v)).distances

    assert torch.autograd.gradcheck(distances, (points.requires_grad_(), ball.vertices.clone().requires_grad_()))


def test_a_point_on_the_surface_has_gradient_zero():
    point = torch.tensor([[0.25, 0.25, 0.0]], dtype=torch.float64, requires_grad=True)
    project_to_surface(point, TRIANGLE).distances.sum().backward()
    assert point.grad is not None
    assert bool(torch.isfinite(point.grad).all())


def test_distance_between_concentric_spheres():
    found = surface_distance(icosphere(5), icosphere(5, 1.5), points=4000, generator=_seeded())
    assert found.mean == pytest.approx(0.5, rel=2e-3)
    assert found.hausdorff == pytest.approx(0.5, rel=5e-3)
    assert found.normal_consistency == pytest.approx(1, abs=1e-3)


def test_equal_surfaces_have_distance_zero_whatever_their_triangles():
    plane, fine = sheet(3, 4, dtype=torch.float64), sheet(17, 9, dtype=torch.float64)
    found = surface_distance(plane, fine, points=500, generator=_seeded())
    assert found.mean < 1e-15
    assert found.normal_consistency == pytest.approx(1)
    turned = Mesh(fine.vertices, fine.faces.flip(-1))
    assert surface_distance(plane, turned, points=500, generator=_seeded()).normal_consistency == pytest.approx(-1)


def test_distance_is_symmetric_in_law_and_carries_its_error():
    ball, egg = icosphere(3), ellipsoid()
    values = [surface_distance(ball, egg, points=2000, generator=_seeded(s)) for s in range(12)]
    spread = torch.tensor([v.mean for v in values], dtype=torch.float64).std()
    assert float(spread) == pytest.approx(values[0].standard_error, rel=0.6)
    other = [surface_distance(egg, ball, points=2000, generator=_seeded(s)).mean for s in range(12)]
    assert sum(other) / 12 == pytest.approx(sum(v.mean for v in values) / 12, abs=4 * float(spread) / math.sqrt(6))


def test_sampling_is_uniform_by_area():
    """A sheet with one large and many small faces: counts per region, first two moments, and the normals."""
    flat = Mesh([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [-1, 0, 0]], [[0, 1, 2], [0, 2, 3]])
    n = 40_000
    drawn = sample_surface(flat, n, generator=_seeded())
    assert float((drawn.faces == 0).double().mean()) == pytest.approx(0.75, abs=0.01)
    inside = drawn.points[drawn.faces == 0]
    assert inside.mean(0).tolist() == pytest.approx([1.0, 1 / 3, 0.0], abs=0.02)
    assert inside[:, 1].var().item() == pytest.approx(1 / 18, rel=0.03)  # of a triangle of height 1
    assert bool((drawn.normals == torch.tensor([0.0, 0.0, 1.0])).all())
    again = sample_surface(flat, n, generator=_seeded())
    assert torch.equal(drawn.points, again.points)


def test_samples_in_both_precisions_are_the_same_points():
    single = sample_surface(icosphere(2), 100, generator=_seeded()).points
    double = sample_surface(icosphere(2, dtype=torch.float64), 100, generator=_seeded()).points
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=1e-6)


def test_sampled_points_carry_gradients():
    ball = icosphere(0, dtype=torch.float64)

    def points(v):
        return sample_surface(ball.moved(v), 1, generator=_seeded(6)).points

    vertices = ball.vertices.clone().requires_grad_()
    moved = points(vertices)
    moved.sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.sum(0).tolist() == pytest.approx([1, 1, 1])


# crossings


def _crosses(p, q):
    """Two triangles in general position cross iff an edge of one meets the inside of the other: solved as 3 x 3 systems."""
    for a, b in ((p, q), (q, p)):
        for k in range(3):
            start, end = a[k], a[(k + 1) % 3]
            system = np.stack([b[1] - b[0], b[2] - b[0], start - end], -1)
            u, v, t = np.linalg.solve(system, start - b[0])
            if u > 0 and v > 0 and u + v < 1 and 0 < t < 1:
                return True
    return False


@pytest.mark.parametrize(("count", "size", "seed"), [(60, 0.15, 0), (150, 0.05, 1), (13, 0.5, 2)])
def test_crossings_are_those_of_all_pairs(count, size, seed):
    mesh = _soup(count, size, seed)
    corners = mesh.corners().numpy()
    truth = [(i, j) for i in range(count) for j in range(i + 1, count) if _crosses(corners[i], corners[j])]
    found = self_intersections(mesh)
    assert sorted(map(tuple, found.pairs.tolist())) == truth
    assert len(truth) > 3
    assert found.count == len(truth)
    assert found.faces == len({i for pair in truth for i in pair})
    assert found.share == found.faces / count


@pytest.mark.parametrize("mesh", [icosphere(3), torus(), sheet(), folded_sphere(subdivisions=4)], ids=repr)
def test_embedded_surfaces_do_not_cross_themselves_however_they_lie(mesh):
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=_seeded(), dtype=torch.float64))
    assert self_intersections(mesh).count == 0
    assert self_intersections(mesh.moved(mesh.vertices.double() @ turn.T + 3)).count == 0


def test_a_corner_pushed_through_the_far_side_crosses_there():
    ball = icosphere(3, dtype=torch.float64)
    vertices = ball.vertices.clone()
    vertices[0] = -1.5 * vertices[0]
    found = self_intersections(ball.moved(vertices))
    assert found.count > 0
    around = (ball.faces == 0).any(-1).nonzero()[:, 0].tolist()
    assert all(set(pair) & set(around) for pair in found.pairs.tolist())


def test_faces_with_a_common_corner_can_cross():
    fan = torch.tensor([[0.0, 0, 0], [1, -1, 0], [1, 1, 0], [1, 0, -1], [1, 0.2, 1]], dtype=torch.float64)
    assert self_intersections(Mesh(fan, [[0, 1, 2], [0, 3, 4]])).pairs.tolist() == [[0, 1]]
    fan[3:, 1] += 5
    assert self_intersections(Mesh(fan, [[0, 1, 2], [0, 3, 4]])).count == 0


def test_faces_of_one_plane_cross_where_they_share_area():
    square = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0.5, 0.5, 0], [3, 0.5, 0], [0.5, 3, 0]], dtype=torch.float64)
    assert self_intersections(Mesh(square, [[0, 1, 2], [3, 4, 5]])).count == 1
    square[3:, :2] += 0.5  # now corner 3 lies on the long edge: they touch
    assert self_intersections(Mesh(square, [[0, 1, 2], [3, 4, 5]])).count == 0


def test_touching_is_no_crossing():
    """A corner of one triangle on the inside of the other, from one side."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.2, 0], [0.2, 0.3, 1], [0.3, 0.2, 1]], dtype=torch.float64)
    assert self_intersections(Mesh(points, [[0, 1, 2], [3, 4, 5]])).count == 0
    points[3, 2] = -0.1
    assert self_intersections(Mesh(points, [[0, 1, 2], [3, 4, 5]])).count == 1


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 13])
def test_small_trees(count):
    mesh = _soup(count, 0.3, count)
    points = torch.rand(20, 3, generator=_seeded(), dtype=torch.float64)
    alone = [project_to_surface(points, Mesh(c, [[0, 1, 2]])).distances for c in mesh.corners()]
    assert torch.equal(project_to_surface(points, mesh).distances, torch.stack(alone).amin(0))


def test_bad_input():
    with pytest.raises(ValueError, match=r"points must be of shape \(n, 3\)"):
        project_to_surface(torch.zeros(4, 2), TRIANGLE)
    with pytest.raises(ValueError, match="at least 2"):
        surface_distance(TRIANGLE, TRIANGLE, points=1)
    with pytest.raises(ValueError, match="number of points must be a whole number"):
        sample_surface(TRIANGLE, 0)
    with pytest.warns(UserWarning, match="no area"):
        line = Mesh([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]])
    with pytest.raises(ValueError, match="no area"):
        sample_surface(line, 3)
