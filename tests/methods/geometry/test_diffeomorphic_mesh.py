"""Flows of velocity fields on meshes: planted flows, the fit's promises, its seeds, its bad input."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from discrepancy import EnergyDistance, SlicedWasserstein, cite
from discrepancy.directions import Uniform
from discrepancy.dynamics.ode import Euler, RungeKutta4
from discrepancy.learning import Training
from discrepancy.methods.geometry.baselines import Chamfer
from discrepancy.methods.geometry.diffeomorphic_mesh import FreeVertices, MeshFit, NeuralODEDeformer, fit_mesh
from discrepancy.methods.geometry.meshes import (
    AreaDifference,
    Mesh,
    MeshWarning,
    NormalBending,
    SampledPoints,
    Varifold,
    ellipsoid,
    folded_sphere,
    icosphere,
    self_intersections,
    surface_distance,
)
from discrepancy.methods.geometry.velocity_fields import VelocityMLP, VolumeFeatures
from discrepancy.networks import MLP

SLICED = SlicedWasserstein(directions=Uniform(20))
SMALL = VelocityMLP(MLP(16, 1, nn.SiLU), waves=0)


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _fit(start, goal, D=SLICED, steps=40, **options):
    options = {"deformation": SMALL, "integrator": Euler(3), "generator": _seeded()} | options
    return fit_mesh(start, goal, D, training=Training(steps=steps, learning_rate=2e-2), **options)


def _linear(matrix):
    return lambda x, t: x @ matrix.T


# the flow


def test_a_linear_field_flows_by_the_matrix_exponential():
    matrix = 0.5 * torch.randn(3, 3, generator=_seeded(), dtype=torch.float64)
    deformer = NeuralODEDeformer(_linear(matrix), RungeKutta4(20))
    x = torch.randn(7, 3, generator=_seeded(1), dtype=torch.float64)
    grown = torch.linalg.matrix_exp(matrix)
    assert torch.allclose(deformer(x), x @ grown.T, atol=1e-5)
    assert torch.allclose(deformer.inverse(deformer(x)), x, atol=1e-5)
    jacobians = deformer.jacobians(x)
    assert torch.allclose(jacobians, grown.expand(7, 3, 3), atol=1e-5)
    assert float(jacobians[0].det()) == pytest.approx(math.exp(float(matrix.trace())), rel=1e-5)
    assert deformer.step_lipschitz(x) == pytest.approx(float(torch.linalg.matrix_norm(matrix, ord=2)) / 20)


def test_the_rows_of_the_jacobian_are_the_components():
    shear = torch.tensor([[0.0, 2.0, 0.0], [0, 0, 0], [0, 0, 0]], dtype=torch.float64)  # dx/dt = 2 y
    found = NeuralODEDeformer(_linear(shear), Euler(4)).jacobians(torch.zeros(1, 3, dtype=torch.float64))[0]
    assert torch.allclose(found, torch.eye(3, dtype=torch.float64) + shear)


def test_a_long_euler_step_folds_and_the_certificate_says_so():
    """dx/dt = -30 x / 10 over one step: x -> -2 x. Smaller steps keep orientation."""
    pull = -3 * torch.eye(3, dtype=torch.float64)
    points = icosphere(0, dtype=torch.float64).vertices
    coarse, fine = (NeuralODEDeformer(_linear(pull), Euler(n)) for n in (1, 10))
    assert coarse.step_lipschitz(points) == pytest.approx(3)
    assert float(coarse.jacobians(points).det().max()) < 0
    assert fine.step_lipschitz(points) == pytest.approx(0.3)
    assert float(fine.jacobians(points).det().min()) > 0


def test_a_new_network_is_the_identity_in_any_unit():
    net = VelocityMLP().build(torch.tensor([5.0, 0, 0], dtype=torch.float64), 80.0, generator=_seeded())
    x = torch.randn(4, 3, generator=_seeded(), dtype=torch.float64)
    assert torch.equal(NeuralODEDeformer(net)(x), x)
    with torch.no_grad():
        net.net[-1].bias.copy_(torch.tensor([0.5, 0.0, 0.0]))
    assert torch.allclose(NeuralODEDeformer(net)(x), x + torch.tensor([40.0, 0, 0], dtype=torch.float64))


# image features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_linear_volume_is_read_exactly_at_every_level(levels, dtype):
    """Trilinear interpolation and means over cubes both reproduce linear functions, between the outermost voxel centres."""
    low, high, shape = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([3.0, 1.0, 5.0]), (8, 12, 16)
    centres = [
        lo + (hi - lo) * (torch.arange(n, dtype=torch.float64) + 0.5) / n for lo, hi, n in zip(low, high, shape, strict=True)
    ]
    grid = torch.meshgrid(*centres, indexing="ij")
    volume = torch.stack([grid[0] + 10 * grid[1] + 100 * grid[2], grid[1]])
    features = VolumeFeatures(volume.to(dtype), low, high, levels=levels)
    inside = 0.3 + 0.4 * torch.rand(20, 3, generator=_seeded(), dtype=torch.float64)
    points = (low + inside * (high - low)).requires_grad_()
    found = features(points)
    assert found.shape == (20, features.width) == (20, 2 * levels)
    truth = torch.stack([points @ torch.tensor([1.0, 10, 100], dtype=torch.float64), points[:, 1]], -1)
    assert torch.allclose(found, truth.repeat(1, levels), atol=1e-3 if dtype == torch.float32 else 1e-10)
    found[:, 0].sum().backward()
    assert points.grad is not None
    assert torch.allclose(
        points.grad,
        torch.tensor([1.0, 10, 100], dtype=torch.float64).expand(20, 3),
        atol=5e-3 if dtype == torch.float32 else 1e-9,
    )


def test_a_field_can_read_an_image():
    """A network that looks at the image alone moves the points that lie in its bright half."""
    image = torch.zeros(1, 8, 8, 8)
    image[0, 4:] = 1.0
    features = VolumeFeatures(image, [-1] * 3, [1] * 3, levels=1)
    net = VelocityMLP(MLP(8, 1, nn.ReLU), waves=0, features=features).build(torch.zeros(3), 1.0, generator=_seeded())
    with torch.no_grad():
        for weight in (net.net[0].weight, net.net[0].bias):
            weight.zero_()
        net.net[0].weight[0, 4] = 1.0  # the first hidden unit is the image, the first coordinate moves with it
        net.net[2].weight[0, 0] = 0.5
    points = torch.tensor([[-0.5, 0.1, 0.2], [0.3, 0.1, 0.2]])
    assert torch.allclose(net(points, torch.tensor(0.0)), torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]))
    found = _fit(icosphere(1), ellipsoid(subdivisions=1), steps=3, deformation=VelocityMLP(features=features))
    assert found.after < found.before


# the fit


def test_a_sphere_becomes_the_ellipsoid():
    start, goal = icosphere(2), ellipsoid(subdivisions=2)
    found = _fit(start, goal, steps=100)
    before = surface_distance(start, goal, points=1000, generator=_seeded()).mean
    after = surface_distance(found.mesh, goal, points=1000, generator=_seeded())
    assert after.mean < 0.1 * before
    assert after.normal_consistency > 0.97
    assert found.deformer is not None
    assert self_intersections(found.mesh).count == 0
    assert bool((found.deformer.jacobians(start.vertices).det() > 0).all())
    fine = NeuralODEDeformer(found.deformer.velocity, RungeKutta4(20))
    with torch.no_grad():
        back = fine.inverse(fine(start.vertices))
    assert float((back - start.vertices).abs().max()) < 1e-4
    assert torch.equal(found.mesh.vertices, found.deformer.deform(start).vertices.detach())
    assert {"step", "loss", "discrepancy"} <= set(found.history)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shift_in_millimetres_is_found_in_millimetres(dtype):
    """Loss and field work in the unit of the template's box; what comes back is in the template's own."""
    start = icosphere(1, 60.0, dtype=dtype)
    goal = start.moved(start.vertices + torch.tensor([15.0, -6.0, 0.0], dtype=dtype))
    found = _fit(start, goal, EnergyDistance(), steps=120)
    assert found.mesh.vertices.dtype == dtype
    assert (found.mesh.vertices - start.vertices).mean(0).tolist() == pytest.approx([15, -6, 0], abs=1.5)


def test_the_result_does_not_depend_on_the_unit():
    ball, egg = icosphere(1, dtype=torch.float64), ellipsoid(subdivisions=1, dtype=torch.float64)
    one = _fit(ball, egg, steps=5).mesh
    ten = _fit(ball.moved(ball.vertices * 16 + 3), egg.moved(egg.vertices * 16 + 3), steps=5).mesh
    assert torch.allclose(ten.vertices, 16 * one.vertices + 3, atol=1e-6)


@pytest.mark.parametrize(("D", "encoding"), [(SLICED, Varifold()), (Chamfer(), SampledPoints(100))], ids=["varifold", "chamfer"])
def test_a_seed_fixes_the_fit(D, encoding):
    def vertices(seed):
        return _fit(icosphere(1), ellipsoid(subdivisions=1), D, 3, encoding=encoding, generator=_seeded(seed)).mesh.vertices

    assert torch.equal(vertices(1), vertices(1))
    assert not torch.equal(vertices(1), vertices(2))


def test_free_vertices_have_no_flow():
    found = _fit(icosphere(1), ellipsoid(subdivisions=1), deformation=FreeVertices(), integrator=None)
    assert found.deformer is None
    assert found.after < found.before


def test_free_vertices_cross_where_a_flow_does_not():
    """Nearest points say nothing about neighbours: vertices that move alone tangle, those that a flow moves cannot."""
    start, goal = icosphere(2), folded_sphere(subdivisions=2)
    options = {"D": Chamfer(), "steps": 80, "encoding": SampledPoints(1000)}
    alone = _fit(start, goal, deformation=FreeVertices(), integrator=None, **options)
    assert self_intersections(alone.mesh).count > 0
    assert self_intersections(_fit(start, goal, deformation=VelocityMLP(), **options).mesh).count == 0


def test_a_deformer_is_trained_on():
    start, goal = icosphere(1), ellipsoid(subdivisions=1)
    first = _fit(start, goal, steps=20)
    second = _fit(start, goal, steps=20, deformation=first.deformer, integrator=None)
    assert second.deformer is first.deformer
    assert second.after < first.after


def test_penalties_join_the_loss_and_the_record():
    found = _fit(icosphere(1), ellipsoid(subdivisions=1), penalties=[NormalBending(0.5), AreaDifference(2.0)])
    assert {"NormalBending", "AreaDifference"} <= set(found.history)
    total = [sum(found.history[k][i] for k in ("discrepancy", "NormalBending", "AreaDifference")) for i in range(4)]
    assert total == pytest.approx(found.history["loss"][:4], rel=1e-5)


def test_neither_template_nor_target_is_changed():
    start, goal = icosphere(1), ellipsoid(subdivisions=1)
    copies = start.vertices.clone(), goal.vertices.clone()
    _fit(start, SimpleNamespace(vertices=goal.vertices, faces=goal.faces), steps=2)
    assert torch.equal(start.vertices, copies[0])
    assert torch.equal(goal.vertices, copies[1])


def test_all_of_it_can_be_cited():
    text = cite(Varifold(), Chamfer(), NeuralODEDeformer(lambda x, t: x), MeshFit)
    assert all(name in text for name in ("2305.17555", "Charon", "Barrow", "Fan"))


# bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"D": "sw"}, TypeError, "discrepancy must be an object"),
        ({"encoding": "varifold"}, TypeError, "encoding must be Varifold"),
        ({"deformation": "ode"}, TypeError, "deformation must be VelocityMLP"),
        ({"deformation": NeuralODEDeformer(lambda x, t: x), "integrator": None}, TypeError, "no parameters to train"),
        ({"deformation": NeuralODEDeformer(lambda x, t: x)}, TypeError, "integrator of its own"),
        ({"penalties": [0.1]}, TypeError, "penalties must be objects"),
        ({"goal": 3}, TypeError, "target must be a Mesh"),
    ],
    ids=lambda v: None,
)
def test_bad_options(options, error, message):
    given = {"goal": ellipsoid(subdivisions=1), "steps": 1} | options
    with pytest.raises(error, match=message):
        _fit(icosphere(1), given.pop("goal"), given.pop("D", SLICED), **given)


def test_bad_pieces():
    with pytest.raises(TypeError, match="velocity must be"):
        NeuralODEDeformer(3)
    with pytest.raises(TypeError, match="integrator must be"):
        NeuralODEDeformer(lambda x, t: x, "euler")
    with pytest.raises(ValueError, match="vertices must be of shape"):
        NeuralODEDeformer(lambda x, t: x).jacobians(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="waves"):
        VelocityMLP(waves=-1)
    with pytest.raises(ValueError, match="scale must be positive"):
        VelocityMLP().build(torch.zeros(3), 0.0)
    with pytest.raises(ValueError, match="volume must be of shape"):
        VolumeFeatures(torch.zeros(4, 4, 4), [0] * 3, [1] * 3)
    with pytest.raises(ValueError, match="low below high"):
        VolumeFeatures(torch.zeros(1, 4, 4, 4), [0] * 3, [1, 1, 0])
    with pytest.raises(ValueError, match="levels must be at least 1"):
        VolumeFeatures(torch.zeros(1, 4, 4, 4), [0] * 3, [1] * 3, levels=4)
    with pytest.raises(ValueError, match="non-finite"):
        VolumeFeatures(torch.full((1, 4, 4, 4), math.nan), [0] * 3, [1] * 3, levels=1)


def test_other_units_and_inside_out_targets_are_warnings():
    with pytest.warns(MeshWarning, match="ten times apart"):
        _fit(icosphere(0), icosphere(0, 20.0), steps=1)
    with pytest.warns(MeshWarning, match="outward and the other's inward"):
        _fit(icosphere(0), Mesh(icosphere(0).vertices, icosphere(0).faces.flip(-1)), steps=1)
