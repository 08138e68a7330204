"""The shape matcher: it learns, it is reproducible, it takes any discrepancy, and it refuses what is no shape."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from discrepancy import EnergyDistance, NumericalError, SlicedWasserstein
from discrepancy.directions import Uniform
from discrepancy.methods.geometry.functional_maps import (
    Correspondence,
    LossWeights,
    SoftmaxCorrespondence,
    TransportCorrespondence,
    geodesic_distances,
    geodesic_error,
)
from discrepancy.methods.geometry.functional_maps_ot import ShapeMatcher, feature_transport
from discrepancy.methods.geometry.laplacians import LaplacianBasis, WaveKernelSignature
from discrepancy.methods.geometry.meshes import Mesh, radial
from discrepancy.networks import MLP
from discrepancy.networks.diffusion_net import DiffusionNet


def _animal() -> Mesh:
    def radius(u):
        bumps = [((1, 0, 0), 0.7, 0.15), ((0, 1, 0.3), 0.5, 0.2), ((-0.6, 0.2, 0.8), 0.4, 0.12), ((0, -0.5, -1), 0.6, 0.2)]
        total = torch.ones(len(u), dtype=u.dtype)
        for centre, height, width in bumps:
            c = torch.tensor(centre, dtype=u.dtype)
            total = total + height * torch.exp(-(1 - u @ (c / c.norm())) / width)
        return total

    return radial(radius, 2, dtype=torch.float64)


def _posed(bend: float, seed: int | None = None) -> tuple[Mesh, torch.Tensor]:
    """The animal bent, its vertices in another order where there is a seed; and which vertex each one was."""
    mesh = _animal()
    x, y, z = mesh.vertices.unbind(-1)
    c, s = torch.cos(bend * x), torch.sin(bend * x)
    vertices = torch.stack([c * x - s * y, s * x + c * y, z], -1)
    order = torch.arange(len(vertices))
    if seed is not None:
        order = torch.randperm(len(vertices), generator=torch.Generator().manual_seed(seed))
    return Mesh(vertices[order], order.argsort()[mesh.faces]), order


def _matcher(**options) -> ShapeMatcher:
    settings = {
        "k": 15,
        "descriptors": WaveKernelSignature(16),
        "network": DiffusionNet(16, 2),
        "features": 24,
        "learning_rate": 5e-3,
        "discrepancy": SlicedWasserstein(directions=Uniform(20)),
        "epochs": 15,
        "random_state": 0,
    }
    return ShapeMatcher(**(settings | options))


def _described(basis: LaplacianBasis) -> torch.Tensor:
    """Signatures, and the distance from the centre, which bending keeps."""
    assert basis.points is not None
    centred = basis.points - (basis.mass[:, None] * basis.points).sum(0)
    return torch.cat([WaveKernelSignature(16)(basis), centred.norm(dim=1, keepdim=True)], 1)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Mesh, Mesh]]:
    return [(_posed(0.05 * i)[0], _posed(-0.08 * i, i)[0]) for i in range(1, 4)]


@pytest.fixture(scope="module")
def fitted(pairs) -> ShapeMatcher:
    return _matcher(epochs=40, descriptors=_described, network=DiffusionNet(32, 2), features=32).fit(pairs)


def test_it_learns_a_correspondence_without_labels(fitted):
    X, (Y, truth) = _posed(0.12)[0], _posed(-0.12, 9)
    D = geodesic_distances(X)
    found = fitted.match(X, Y, refine=0)
    error = geodesic_error(found.y_to_x, truth, D).mean
    descriptors = [_described(LaplacianBasis.from_mesh(m, k=15)) for m in (Y, X)]
    raw = geodesic_error(torch.cdist(*descriptors).argmin(1), truth, D).mean
    assert error < 0.1
    assert error < raw / 2
    assert fitted.history_["loss"][-1] < fitted.history_["loss"][0]
    assert set(fitted.history_) == {"step", "loss", "bijectivity", "orthogonality", "alignment", "transport"}


def test_refinement_lowers_the_loss_of_its_pair_and_leaves_the_fit(fitted):
    X, Y = _posed(0.12)[0], _posed(-0.12, 9)[0]
    before = [p.clone() for p in fitted.module_.parameters()]
    found = fitted.match(X, Y, refine=15)
    assert found.history is not None
    assert len(found.history["loss"]) == 15
    assert found.history["loss"][-1] < found.history["loss"][0]
    assert all(torch.equal(p, q) for p, q in zip(before, fitted.module_.parameters(), strict=True))
    assert "history" not in repr(found)


def test_direction_of_the_point_map(fitted):
    X, (Y, truth) = _posed(0.0)[0], _posed(0.0, 4)
    # Identical shapes in another order: the same features in that order, whatever the network.
    torch.testing.assert_close(fitted.describe(X)[truth], fitted.describe(Y), rtol=1e-5, atol=1e-6)
    found = dataclasses.replace(fitted, isometric=False)
    found.module_ = fitted.module_
    assert torch.equal(found.match(X, Y, refine=0).y_to_x, truth)
    through_the_basis = fitted.match(X, Y, refine=0)
    assert geodesic_error(through_the_basis.y_to_x, truth, geodesic_distances(X)).mean < 0.05
    assert (through_the_basis.C_xy.abs() - through_the_basis.C_yx.abs()).abs().max() < 1e-6


def test_the_same_seed_gives_the_same_map(pairs):
    a, b = (_matcher(epochs=2).fit(pairs) for _ in range(2))
    for p, q in zip(a.module_.parameters(), b.module_.parameters(), strict=True):
        assert torch.equal(p, q)
    first, second = (m.match(*pairs[0], refine=2) for m in (a, b))
    assert torch.equal(first.y_to_x, second.y_to_x)
    c = _matcher(epochs=2).fit(pairs, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(next(iter(a.module_.parameters())), next(iter(c.module_.parameters())))


@pytest.mark.parametrize(
    "options",
    [
        {"network": MLP(16, 2)},
        {"isometric": False},
        {"bidirectional": True, "mass_weights": True},
        {"discrepancy": EnergyDistance()},
        {"weights": LossWeights(transport=0, dirichlet=1.0, commutativity=1.0)},
        {"refinement": TransportCorrespondence()},
    ],
    ids=["mlp", "features", "masses", "energy", "dirichlet", "optimal"],
)
def test_options_run(pairs, options):
    found = _matcher(epochs=2, **options).fit(pairs).match(*pairs[0], refine=2)
    assert int(found.y_to_x.max()) < len(pairs[0][0].vertices)
    assert found.losses.total.isfinite()


def test_a_module_of_ones_own_is_copied(pairs):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 24, dtype=torch.float64)

        def forward(self, descriptors, basis):
            return self.layer(descriptors) + 0 * basis.mass[:, None]

    net = Net()
    before = net.layer.weight.clone()
    fitted = _matcher(network=net, epochs=1).fit(pairs)
    assert torch.equal(net.layer.weight, before)
    assert not torch.equal(fitted.module_.net.layer.weight, before)


def test_graphs_and_single_precision():
    nx = pytest.importorskip("networkx")
    graph = nx.random_geometric_graph(80, 0.25, seed=3)
    graph = graph.subgraph(max(nx.connected_components(graph), key=len))
    order = list(graph.nodes)[::-1]
    turned = nx.Graph()
    turned.add_nodes_from(order)
    turned.add_edges_from(graph.edges)
    X, Y = (LaplacianBasis.from_graph(g, 20) for g in (graph, turned))
    assert X.vectors.dtype == torch.float32
    found = _matcher(epochs=10, isometric=False).fit([(X, Y)]).match(X, Y, refine=2)
    truth = torch.arange(len(order)).flip(0)
    assert (found.y_to_x == truth).double().mean() > 0.6
    assert found.C_xy.dtype == torch.float32


def test_feature_transport_by_hand():
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 4))
    maps = SoftmaxCorrespondence()(f, g)
    D = EnergyDistance()
    one = D(f, maps.xy @ g)
    assert torch.equal(feature_transport(f, g, maps, D), one)
    torch.testing.assert_close(feature_transport(f, g, maps, D, bidirectional=True), one + D(g, maps.yx @ f))
    m, n = torch.rand(6, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    torch.testing.assert_close(feature_transport(f, g, maps, D, masses=(m, n)), D(f, maps.xy @ g, m / m.sum(), m / m.sum()))


def test_no_transport_where_the_pulled_features_are_the_features():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    eye = torch.eye(6, dtype=torch.float64)
    loss = feature_transport(f, f.detach(), Correspondence(eye, eye), SlicedWasserstein(), generator=generator)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, f)[0].abs().max() == 0  # and not NaN, at the root of zero


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 1}, ValueError, "k must be"),
        ({"epochs": 0}, ValueError, "epochs must be"),
        ({"features": 0.5}, ValueError, "features must be"),
        ({"mask_weight": -1}, ValueError, "mask_weight"),
        ({"gamma": 0}, ValueError, "gamma must be positive"),
        ({"discrepancy": "sliced"}, TypeError, "must be a Discrepancy"),
        ({"weights": 100.0}, TypeError, "LossWeights"),
        ({"network": 64}, TypeError, "DiffusionNet"),
        ({"descriptors": 3}, TypeError, "callable"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_options_that_make_no_sense(options, error, words):
    with pytest.raises(error, match=words):
        _matcher(**options)


def test_shapes_that_will_not_do(fitted, pairs):
    with pytest.raises(TypeError, match="not fitted"):
        _matcher().match(*pairs[0])
    with pytest.raises(TypeError, match="not fitted"):
        _matcher().describe(pairs[0][0])
    with pytest.raises(ValueError, match="pairs"):
        _matcher().fit([])
    with pytest.raises(ValueError, match="pairs"):
        _matcher().fit([pairs[0][0]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="mesh must be a Mesh"):
        _matcher().fit([("X", "Y")])
    with pytest.raises(ValueError, match="refine"):
        fitted.match(*pairs[0], refine=-1)
    with pytest.raises(ValueError, match="15"):
        fitted.match(LaplacianBasis.from_mesh(pairs[0][0], k=10), pairs[0][1])
    with pytest.raises(ValueError, match="k must lie between"):
        _matcher(k=400).fit(pairs)
    with pytest.raises(ValueError, match="a row for each point"):
        _matcher(descriptors=lambda basis: basis.values[:, None]).fit(pairs)


def test_training_that_diverges_is_named(pairs):
    with pytest.raises((NumericalError, ValueError), match=r"step|non-finite"):
        _matcher(learning_rate=1e30).fit(pairs)
