"""Every method that takes a distance runs, and improves, with at least four of them.

A case is one function `case(D) -> (before, after)`: the distance D, evaluated on held-fixed data, before and after the method
ran briefly with it. It must have fallen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from discrepancy import MMD, Discrepancy, EnergyDistance, SinkhornDivergence, SlicedWasserstein, barycenter, flow
from discrepancy.directions import Uniform
from discrepancy.dynamics import PreconditionedScore, VarianceExploding
from discrepancy.kernels import Gaussian
from discrepancy.learning import Training
from discrepancy.methods.audit.drift import score_test
from discrepancy.methods.audit.records import AuditRecords
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.diver_decoding import Diver, diver_decoding
from discrepancy.methods.decoding.embedding_score import DiscrepancyScore
from discrepancy.methods.decoding.spans import FixedSpan
from discrepancy.methods.diagnostics.hadamard_rotations import hadamard_rotations
from discrepancy.methods.distillation.wcord import WCoRD
from discrepancy.methods.geometry.amortized_vdsw import Reconstruction
from discrepancy.methods.geometry.diffeomorphic_mesh import fit_mesh
from discrepancy.methods.geometry.functional_maps_ot import ShapeMatcher
from discrepancy.methods.geometry.laplacians import HeatKernelSignature
from discrepancy.methods.geometry.meshes import ellipsoid, icosphere
from discrepancy.methods.physics.configurations import ConfigurationDistance
from discrepancy.methods.physics.farthest_points import farthest_point_subset
from discrepancy.methods.physics.wassdiff import DistributionRegularizedScoreMatching
from discrepancy.metric_spaces import SampleSpace
from discrepancy.networks import MLP, PointCloudAutoencoder, PointNet, UNet
from discrepancy.transport import NeuralMap, WassersteinDependency

DISCREPANCIES: dict[str, Discrepancy] = {
    "sliced": SlicedWasserstein(directions=Uniform(20)),
    "sinkhorn": SinkhornDivergence(),
    "energy": EnergyDistance(),
    "mmd": MMD(Gaussian(1.0), biased=True),
}


def _clouds() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    return x, 0.5 * torch.randn(30, 2, generator=generator, dtype=torch.float64) + 1


def _distance(D: Discrepancy, x: Tensor, y: Tensor) -> float:
    return float(D(x, y, generator=torch.Generator().manual_seed(1)))


def neural_map(D: Discrepancy) -> tuple[float, float]:
    x, y = _clouds()
    fitted = NeuralMap(fitting=D, steps=40, network=MLP(16, 1), residual=True, gap_weight=0.1, random_state=0).fit(x, y)
    return _distance(D, x, y), _distance(D, fitted.transform(x), y)


def particle_flow(D: Discrepancy) -> tuple[float, float]:
    x, y = _clouds()
    moved = flow(x, y, D, steps=20, generator=torch.Generator().manual_seed(2))
    return _distance(D, x, y), _distance(D, moved.points, y)


def cloud_barycenter(D: Discrepancy) -> tuple[float, float]:
    x, y = _clouds()
    start = x[:15] + 1.5
    found = barycenter([x, y], discrepancy=D, start=start, max_iterations=20, generator=torch.Generator().manual_seed(2))
    return tuple((_distance(D, p, x) + _distance(D, p, y)) / 2 for p in (start, found.points))  # type: ignore[return-value]


def regularized_diffusion(D: Discrepancy) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    truth = 2 + torch.rand(24, 1, 4, 4, generator=generator).square()
    schedule = VarianceExploding(0.1, 2)
    score = PreconditionedScore(UNet((4,), 8, 4).build(1, 1, generator=generator), schedule, data_deviation=0.5)
    model = DistributionRegularizedScoreMatching(score, schedule, weight=0.8, discrepancy=D)

    def term() -> float:
        found = model(truth, generator=torch.Generator().manual_seed(1)).distribution
        assert found is not None
        return float(found)

    before = term()
    model.fit(truth, training=Training(steps=25, learning_rate=2e-2), batch_size=24, average=None, generator=generator)
    return before, term()


def reconstruction(D: Discrepancy) -> tuple[float, float]:
    clouds = torch.stack([_clouds()[0][k : k + 16] / 2 + k / 12 for k in range(0, 24, 2)])
    small = PointCloudAutoencoder(PointNet((8, 16)), (16,))
    values = []
    for steps in (1, 60):
        fitting = Reconstruction(small, Training(steps=steps, learning_rate=5e-3), batch_size=12)
        network, _ = fitting.fit(clouds, D, generator=torch.Generator().manual_seed(2))
        values.append(float(D(clouds, network(clouds).detach(), generator=torch.Generator().manual_seed(1)).mean()))
    return values[0], values[1]


def mesh_fit(D: Discrepancy) -> tuple[float, float]:
    training = Training(steps=15, learning_rate=1e-2)
    start, goal = icosphere(1), ellipsoid(subdivisions=1)
    found = fit_mesh(start, goal, D, training=training, generator=torch.Generator().manual_seed(0))
    return found.before, found.after


def dependency(D: Discrepancy) -> tuple[float, float]:
    """The measure of dependent rows is larger than that of independent ones."""
    x, _ = _clouds()
    other = torch.randn(40, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    measure = WassersteinDependency(D)
    tied, free = (float(measure(x, y, generator=torch.Generator().manual_seed(1))) for y in (x + 0.1 * other, other))
    return tied, free


def shape_matching(D: Discrepancy) -> tuple[float, float]:
    """The transport term of a pair, under a network trained for one step and for thirty."""
    x, y = ellipsoid((1.0, 0.7, 0.5), 1), ellipsoid((0.9, 0.8, 0.5), 1)
    values = []
    for epochs in (1, 30):
        matcher = ShapeMatcher(
            k=8, descriptors=HeatKernelSignature(6), network=MLP(8, 1), features=6, discrepancy=D, epochs=epochs, random_state=0
        )
        found = matcher.fit([(x, y)]).match(x, y, refine=0, generator=torch.Generator().manual_seed(1))
        values.append(float(found.losses.transport))
    return values[0], values[1]


def rotations_of_an_axis(D: Discrepancy) -> tuple[float, float]:
    """A coordinate's difference from uniform rotations, with one Hadamard block and with two."""
    axis = torch.eye(16, dtype=torch.float64)[0]

    def report(blocks: int) -> float:
        generator = torch.Generator().manual_seed(3)
        return hadamard_rotations(axis, D, blocks=blocks, count=80, permutations=1, generator=generator).coordinate_test.statistic

    return report(1), report(2)


def frechet_mean_of_clouds(D: Discrepancy) -> tuple[float, float]:
    """The mean distance of samples to one of them, and to their Frechet mean."""
    clouds = torch.stack([_clouds()[0][5 * k : 5 * k + 5] for k in range(6)])
    clouds[0] += 3
    space = SampleSpace(D, seed=1)
    found = space.frechet_mean(clouds)
    return float(space.squared_distance(clouds, clouds[0]).mean()), float(found.variance)


def spread_configurations(D: Discrepancy) -> tuple[float, float]:
    """How far, atom type by atom type, configurations are from the nearest of four: the first ones, and the farthest points."""
    generator = torch.Generator().manual_seed(4)
    spread = torch.linspace(0, 3, 12, dtype=torch.float64)[:, None, None]
    many = torch.randn(6, 3, generator=generator, dtype=torch.float64) + spread
    distance = ConfigurationDistance(discrepancy=D)
    table = torch.stack([distance(x, many, "AAABBB") for x in many])
    chosen = farthest_point_subset(many, 4, lambda x, others: distance(x, others, "AAABBB").clamp_min(0))
    return tuple(float(table[list(c)].amin(0).max()) for c in (range(4), chosen))  # type: ignore[return-value]


def span_verification(D: Discrepancy) -> tuple[float, float]:
    """How far, token by token, an output is from its input: decoded without, and with the distance as what verifies spans."""
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    class Flat(torch.nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            return -1e-3 * torch.arange(12.0).expand(*input_ids.shape, 12)

    x, verifier = torch.tensor([3, 7, 9, 11]), DiscrepancyScore(D, lambda ids: points[ids])
    values = []
    for weight in (0.0, 10.0):
        settings = Diver(PlausibleSet(0.5), FixedSpan(1), pmi_weight=weight)
        made = diver_decoding(Flat(), x, verifier=verifier, settings=settings, max_new_tokens=4)
        values.append(_distance(D, points[x], points[made.tokens]))
    return values[0], values[1]


def judged_scores(D: Discrepancy) -> tuple[float, float]:
    """The two-sample statistic of a tuned model's scores against the base's, and of another run of the base."""
    rng = np.random.default_rng(6)
    scores = np.clip(rng.normal([[70.0, 80.0]], 12, (90, 2)), 0, 100)
    scores[30:60] = np.clip(scores[30:60] - 25, 0, 100)
    model = ["base"] * 30 + ["tuned"] * 30 + ["again"] * 30
    records = AuditRecords.from_columns(model, ["q"] * 90, ["natural"] * 90, *scores.T)
    values = [
        score_test(records, "base", name, D, permutations=1, generator=torch.Generator().manual_seed(1))
        for name in ("tuned", "again")
    ]
    return values[0].statistic, values[1].statistic


def contrastive_distillation(D: Discrepancy) -> tuple[float, float]:
    """The local term between embeddings of a student and of its teacher, trained alone for 25 steps."""
    generator = torch.Generator().manual_seed(0)
    x, teacher = torch.randn(30, 6, generator=generator), torch.randn(30, 4, generator=generator)
    student = MLP(8, 1).build(6, 3, generator=generator)
    loss = WCoRD(3, 4, width=5, local=D, global_weight=0.0, local_weight=1.0, generator=generator)

    def term() -> Tensor:
        return loss(student(x), teacher, generator=torch.Generator().manual_seed(1))

    before = float(term().detach())
    Training(steps=25, learning_rate=2e-2).run([*student.parameters(), *loss.parameters()], lambda _: (term(), {}))
    return before, float(term().detach())


CASES: dict[str, Callable[[Discrepancy], tuple[float, float]]] = {
    "diffeomorphic-mesh": mesh_fit,
    "functional-maps-ot": shape_matching,
    "neural-map": neural_map,
    "wassdiff": regularized_diffusion,
    "flow": particle_flow,
    "barycenter": cloud_barycenter,
    "wasserstein-dependency": dependency,
    "amortized-vdsw": reconstruction,
    "hadamard-rotations": rotations_of_an_axis,
    "frechet-mean": frechet_mean_of_clouds,
    "gp-saddle-pruning": spread_configurations,
    "diver-decoding": span_verification,
    "wcord": contrastive_distillation,
    "emergent-misalignment": judged_scores,
}


@pytest.mark.filterwarnings("ignore::discrepancy.ConvergenceWarning")
@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("method", CASES)
def test_any_discrepancy_will_do(method: str, name: str) -> None:
    before, after = CASES[method](DISCREPANCIES[name])
    assert after < before
