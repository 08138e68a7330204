"""Surfaces as measures: closed forms, invariances, gradients, degenerate faces; Chamfer against all pairs."""

import itertools
import math

import pytest
import torch

from discrepancy import MMD, EnergyDistance, SinkhornDivergence, SlicedWasserstein
from discrepancy.directions import Uniform
from discrepancy.kernels import Gaussian
from discrepancy.methods.geometry.baselines import Chamfer
from discrepancy.methods.geometry.meshes import (
    AreaDifference,
    EdgeLengthVariance,
    LaplacianSmoothing,
    Mesh,
    MeshWarning,
    NormalBending,
    SampledPoints,
    SurfaceMeasure,
    Varifold,
    bumpy_sphere,
    ellipsoid,
    folded_sphere,
    icosphere,
    mesh_discrepancy,
    mesh_to_measure,
    sheet,
    subdivided,
    torus,
)
from discrepancy.testing.conformity import CHECKS, Case

SLICED = SlicedWasserstein(directions=Uniform(50))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _value(a, b, D=SLICED, **options):
    return float(mesh_discrepancy(a, b, D, generator=_seeded(), **options))


def test_a_varifold_is_centroids_and_normals_weighted_by_area():
    ball = ellipsoid(subdivisions=1, dtype=torch.float64)
    found = mesh_to_measure(ball, Varifold(0.5))
    assert found.points.shape == (80, 6)
    assert torch.equal(found.points[:, :3], ball.centroids())
    assert torch.allclose(found.points[:, 3:].square().sum(-1), torch.full((80,), 0.25, dtype=torch.float64))
    assert found.weights is not None
    assert torch.allclose(found.weights, ball.areas() / ball.area())
    assert float(found.area) == pytest.approx(float(ball.area()))
    assert torch.equal(mesh_to_measure(ball, SurfaceMeasure()).points, ball.centroids())


def test_parallel_sheets_are_their_distance_apart():
    """Sliced W_2 of a translate by c in R^d is |c| / sqrt(d) over many directions; an opposite side adds 2 gamma."""
    low = sheet(4, 4, dtype=torch.float64)
    high = low.moved(low.vertices + torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    D = SlicedWasserstein(directions=Uniform(3000))
    assert _value(low, high, D) == pytest.approx(0.7 / math.sqrt(6), rel=0.05)
    assert _value(low, high, D, encoding=SurfaceMeasure()) == pytest.approx(0.7 / math.sqrt(3), rel=0.05)
    turned = Mesh(low.vertices, low.faces.flip(-1))
    assert _value(low, turned, D, encoding=Varifold(0.3)) == pytest.approx(0.6 / math.sqrt(6), rel=0.05)
    assert _value(low, turned, D, encoding=SurfaceMeasure()) < 1e-7


@pytest.mark.parametrize("encoding", [Varifold(), SurfaceMeasure()], ids=repr)
def test_triangulation_matters_little_and_shape_a_lot(encoding):
    coarse, fine, egg = icosphere(3), icosphere(4), ellipsoid()
    same, other = _value(coarse, fine, encoding=encoding), _value(coarse, egg, encoding=encoding)
    assert same < 0.05 * other
    assert _value(coarse, coarse, encoding=encoding) == 0.0


def test_the_error_of_a_triangulation_falls_at_least_linearly_in_its_edges():
    D = SlicedWasserstein(directions=Uniform(100))
    levels = [sheet(3, 3, dtype=torch.float64)]
    for _ in range(4):
        levels.append(subdivided(levels[-1]))
    errors = [_value(m, levels[-1], D) for m in levels[:-1]]
    assert all(after < before / 1.8 for before, after in itertools.pairwise(errors))


def test_the_order_and_numbering_of_faces_do_not_matter():
    ball, egg = icosphere(2, dtype=torch.float64), ellipsoid(subdivisions=2, dtype=torch.float64)
    order = torch.randperm(len(ball.faces), generator=_seeded(1))
    rolled = Mesh(ball.vertices, ball.faces[order].roll(1, -1))
    assert _value(rolled, egg) == pytest.approx(_value(ball, egg), rel=1e-12)


@pytest.mark.parametrize("encoding", [Varifold(0.7), SurfaceMeasure(), SampledPoints(30)], ids=repr)
@pytest.mark.parametrize("D", [SLICED, EnergyDistance(), MMD(Gaussian(0.5), biased=True)], ids=lambda d: type(d).__name__)
def test_gradients_in_the_vertices(encoding, D):
    noise = 0.2 * torch.randn(12, 3, generator=_seeded(2), dtype=torch.float64)
    ball, egg = icosphere(0, dtype=torch.float64), ellipsoid(subdivisions=1, dtype=torch.float64)

    def value(v):
        return mesh_discrepancy(ball.moved(v), egg, D, encoding=encoding, generator=_seeded())

    vertices = (ball.vertices + noise).requires_grad_()
    if isinstance(encoding, SampledPoints):  # the choice of faces has no gradient: hold it by moving all vertices alike
        shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s: value(vertices.detach() + s), (shift,))
    else:
        assert torch.autograd.gradcheck(value, (vertices,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_face_that_shrinks_has_bounded_gradients(dtype):
    """A normal's gradient grows like 1 / area, its weight like the area: the product stays."""
    sizes = []
    for width in (1e-1, 1e-3, 1e-5):
        corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, width]], dtype=dtype, requires_grad=True)
        mesh = Mesh(corners, [[0, 1, 2], [2, 1, 3]])
        mesh_discrepancy(mesh, icosphere(1, dtype=dtype), EnergyDistance()).backward()
        assert corners.grad is not None
        sizes.append(float(corners.grad.abs().max()))
    assert max(sizes) < 10 * sizes[0]


def test_faces_without_area_are_dropped_with_a_count():
    ball = icosphere(1, dtype=torch.float64)
    with pytest.warns(MeshWarning, match="1 of 81 faces have no area"):
        extra = Mesh(ball.vertices, torch.cat([ball.faces, torch.tensor([[3, 3, 5]])]))
    found = mesh_to_measure(extra)
    assert found.dropped == 1
    assert len(found.points) == 80
    assert torch.equal(found.points, mesh_to_measure(ball).points)
    with pytest.warns(MeshWarning):
        line = Mesh([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]])
    with pytest.raises(ValueError, match="no area"):
        mesh_to_measure(line)


def test_open_surfaces_are_fine():
    assert _value(sheet(), torus()) > 0


def test_scales_far_apart_and_inside_out_are_warnings():
    with pytest.warns(MeshWarning, match="more than ten times apart"):
        mesh_discrepancy(icosphere(0), icosphere(0, 11.0), SLICED)
    inward = Mesh(icosphere(1).vertices, icosphere(1).faces.flip(-1))
    with pytest.warns(MeshWarning, match="outward and the other's inward"):
        mesh_discrepancy(icosphere(1), inward, SLICED)


def test_pairs_and_objects_are_meshes_too():
    ball, egg = icosphere(1), ellipsoid(subdivisions=1)
    pair = (egg.vertices.numpy(), egg.faces.numpy())
    assert _value((ball.vertices, ball.faces), pair) == _value(ball, egg)


def test_the_same_seed_is_the_same_number():
    a, b = icosphere(2), folded_sphere(subdivisions=2)
    assert _value(a, b, Chamfer(), encoding=SampledPoints(200)) == _value(a, b, Chamfer(), encoding=SampledPoints(200))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Varifold(-1.0), ValueError, "normal_weight must be at least 0"),
        (lambda: SampledPoints(0), ValueError, "number of points"),
        (lambda: mesh_to_measure(icosphere(0), "varifold"), TypeError, "encoding must be Varifold"),
        (lambda: mesh_discrepancy(icosphere(0), icosphere(0), "sw"), TypeError, "discrepancy must be an object"),
        (lambda: mesh_discrepancy(icosphere(0), torch.zeros(3, 3)), TypeError, "second must be a Mesh"),
        (lambda: NormalBending(-1.0), ValueError, "weight must be at least 0"),
        (lambda: Chamfer(3), ValueError, "power must be 1 or 2"),
    ],
)
def test_bad_options(call, error, message):
    with pytest.raises(error, match=message):
        call()


# penalties


def test_penalties_on_shapes_whose_values_are_known():
    plane = sheet(5, 5, dtype=torch.float64)
    assert float(NormalBending(1.0)(plane, plane)) == 0
    fold = Mesh([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3]])  # a right angle
    assert float(NormalBending(2.0)(fold, plane)) == pytest.approx(2.0)
    sides = torch.tensor([2.0, 2.0, math.sqrt(8)])
    triangle = Mesh([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]], [[0, 1, 2]])
    assert float(EdgeLengthVariance(1.0)(triangle, plane)) == pytest.approx(float(sides.var(correction=0) / sides.mean() ** 2))
    # Each corner's neighbours average to the middle of the opposite side: squared distances 2, 5, 5; squared edges 4, 4, 8.
    assert float(LaplacianSmoothing(1.0)(triangle, plane)) == pytest.approx(4 / (16 / 3))
    assert float(AreaDifference(1.0)(triangle, plane)) == pytest.approx(1.0)


@pytest.mark.parametrize("penalty", [NormalBending, EdgeLengthVariance, LaplacianSmoothing, AreaDifference])
def test_penalties_do_not_depend_on_the_scale_and_have_gradients(penalty):
    ball = bumpy_sphere(subdivisions=0, dtype=torch.float64)
    ball = ball.moved(ball.vertices + 0.1 * torch.randn(12, 3, generator=_seeded(), dtype=torch.float64))
    large = ball.moved(10 * ball.vertices)
    goal, big = icosphere(1, dtype=torch.float64), icosphere(1, 10.0, dtype=torch.float64)
    assert float(penalty(1.0)(ball, goal)) == pytest.approx(float(penalty(1.0)(large, big)), rel=1e-9)
    assert torch.autograd.gradcheck(lambda v: penalty(1.0)(ball.moved(v), goal), ball.vertices.clone().requires_grad_())


# Chamfer


@pytest.mark.parametrize("power", [1, 2])
def test_chamfer_is_the_mean_over_nearest_points(power):
    x = torch.randn(17, 3, generator=_seeded(), dtype=torch.float64)
    y = torch.randn(23, 3, generator=_seeded(1), dtype=torch.float64)
    costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** power
    a, b = torch.rand(17, generator=_seeded(2)).double(), torch.rand(23, generator=_seeded(3)).double()
    b[4] = 0
    a, b = a / a.sum(), b / b.sum()
    assert float(Chamfer(power)(x, y)) == pytest.approx(float(costs.min(1).values.mean() + costs.min(0).values.mean()))
    kept = costs[:, b > 0]
    truth = (a * kept.min(1).values).sum() + (b[b > 0] * kept.min(0).values).sum()
    assert float(Chamfer(power)(x, y, a, b)) == pytest.approx(float(truth))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_chamfer_conforms(power, check):
    check(Case(Chamfer(power)))


def test_any_discrepancy_compares_surfaces():
    a, b = icosphere(2), ellipsoid(subdivisions=2)
    for D in (SLICED, SinkhornDivergence(), EnergyDistance(), MMD(Gaussian(1.0), biased=True), Chamfer()):
        assert _value(a, b, D) > _value(a, icosphere(3), D) > -1e-9
