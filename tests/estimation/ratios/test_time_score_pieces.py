"""Schedules, paths, objectives and quadrature of time-score ratios, against derivatives and known time scores."""

import math

import pytest
import torch

from discrepancy.estimation.ratios.time_score import (
    BridgeWeight,
    ConditionalTarget,
    CosinePath,
    DeterministicInterpolant,
    DiffusionBridge,
    FollmerPath,
    GaussLegendre,
    IndependentCoupling,
    JointScoreMatching,
    LinearPath,
    MiniBatchTransport,
    SchroedingerBridge,
    Simpson,
    TimeScoreMatching,
    UnitWeight,
    VariancePreservingPath,
)
from discrepancy.estimation.ratios.time_score.network import PathMoments, TimeScoreNetwork
from discrepancy.estimation.ratios.time_score.objectives import Batch
from discrepancy.estimation.ratios.time_score.times import TimeSampler
from discrepancy.networks import MLP
from discrepancy.transport import Sinkhorn

SCHEDULES = [LinearPath(), CosinePath(), FollmerPath(), VariancePreservingPath()]
NAMES = [type(s).__name__ for s in SCHEDULES]
T = torch.linspace(0.01, 0.99, 23, dtype=torch.float64)


@pytest.mark.parametrize("s", SCHEDULES, ids=NAMES)
def test_schedules_run_from_one_law_to_the_other_with_the_stated_slopes(s):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert float(s.alpha(ends)[0]) == 1
    assert float(s.beta(ends)[0]) == 0
    assert float(s.alpha(ends)[1]) == pytest.approx(0, abs=7e-3)
    assert float(s.beta(ends)[1]) == pytest.approx(1, abs=3e-5)
    h = 1e-6
    for value, slope in ((s.alpha, s.alpha_slope), (s.beta, s.beta_slope)):
        torch.testing.assert_close(slope(T), (value(T + h) - value(T - h)) / (2 * h), rtol=1e-6, atol=1e-7)
        assert bool(torch.isfinite(slope(ends)).all())


@pytest.mark.parametrize("s", SCHEDULES, ids=NAMES)
def test_variance_of_a_bridge_has_the_derivative_that_the_official_code_misses(s):
    bridge = DiffusionBridge(s, gamma=0.3, epsilon=0.02)
    h = 1e-6
    torch.testing.assert_close(
        bridge.variance_slope(T), (bridge.variance(T + h) - bridge.variance(T - h)) / (2 * h), rtol=1e-6, atol=1e-7
    )
    ends = bridge.variance(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.full_like(ends, 0.02), rtol=1e-4, atol=0)


@pytest.mark.parametrize("s", SCHEDULES, ids=NAMES)
def test_conditional_time_score_is_the_derivative_of_the_gaussian(s):
    path = DiffusionBridge(s, gamma=0.4, epsilon=0.01)
    generator = torch.Generator().manual_seed(0)
    x0, x1, z = (torch.randn(len(T), 3, generator=generator, dtype=torch.float64) for _ in range(3))
    points = path.at(x0, x1, T, z)

    def log_density(t):
        v = path.variance(t)
        return -1.5 * torch.log(2 * math.pi * v) - (points - path.mean(x0, x1, t)).square().sum(1) / (2 * v)

    t = T.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_density(t).sum(), t)
    torch.testing.assert_close(path.conditional_time_score(x0, x1, T, z), slope, rtol=1e-9, atol=1e-9)


class ScaledTruth(torch.nn.Module):
    """A multiple of the true time and data score of the path between two normal laws on the line."""

    def __init__(self, path, factor):
        super().__init__()
        self.path, self.factor = path, factor

    def _moments(self, t):
        s = self.path.schedule
        a, b = s.alpha(t), s.beta(t)
        return b * 2.0 - a, a**2 * 0.5 + b**2 * 0.25 + self.path.variance(t)

    def forward(self, x, t):
        s = self.path.schedule
        mean, v = self._moments(t)
        mean_slope = 2 * s.beta_slope(t) - s.alpha_slope(t)
        a, b, da, db = s.alpha(t), s.beta(t), s.alpha_slope(t), s.beta_slope(t)
        v_slope = a * da + 0.5 * b * db + self.path.variance_slope(t)
        u = x[:, 0] - mean
        return self.factor * (u * mean_slope / v + v_slope / 2 * (u**2 / v**2 - 1 / v))

    def both(self, x, t):
        mean, v = self._moments(t)
        return self.forward(x, t), -self.factor * (x - mean[:, None]) / v[:, None]


@pytest.mark.parametrize(
    ("objective", "path"),
    [
        (ConditionalTarget(), DiffusionBridge(gamma=0.5, epsilon=0.05)),
        (ConditionalTarget(), DiffusionBridge(CosinePath(), gamma=0.5, epsilon=0.05)),
        (TimeScoreMatching(BridgeWeight()), DiffusionBridge(gamma=0.5, epsilon=0.05)),
        (TimeScoreMatching(UnitWeight()), DiffusionBridge(gamma=0.5, epsilon=0.05)),
        (TimeScoreMatching(UnitWeight()), DeterministicInterpolant()),
        (JointScoreMatching(BridgeWeight()), DiffusionBridge(gamma=0.5, epsilon=0.05)),
        (JointScoreMatching(UnitWeight()), DeterministicInterpolant(CosinePath())),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_objective_is_least_at_the_true_score(objective, path):
    generator = torch.Generator().manual_seed(1)
    n = 200_000
    x0 = -1 + math.sqrt(0.5) * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x1 = 2 + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    z = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    t = torch.rand(n, generator=generator, dtype=torch.float64)
    batch = Batch(path, x0, x1, t, torch.ones_like(t), z, torch.ones_like(z))
    losses = [float(objective.loss(ScaledTruth(path, c), batch)) for c in (0.8, 1.0, 1.2)]
    # A parabola through the three: its vertex is at the truth.
    vertex = 1 + 0.2 * (losses[0] - losses[2]) / (2 * (losses[0] - 2 * losses[1] + losses[2]))
    assert losses[1] < min(losses[0], losses[2])
    assert vertex == pytest.approx(1, abs=0.03)


def test_joint_and_single_objectives_agree_where_the_data_score_is_fixed():
    path, generator = DiffusionBridge(gamma=0.5, epsilon=0.05), torch.Generator().manual_seed(2)
    x0, x1, z = (torch.randn(1000, 1, generator=generator, dtype=torch.float64) for _ in range(3))
    t = torch.rand(1000, generator=generator, dtype=torch.float64)
    batch = Batch(path, x0, x1, t, torch.ones_like(t), z, torch.ones_like(z))
    for weight in (BridgeWeight(), UnitWeight()):
        differences = []
        for c in (0.5, 1.0):
            truth = ScaledTruth(path, c)
            fixed = ScaledTruth(path, 1.0)
            truth.both = lambda x, t, truth=truth, fixed=fixed: (truth(x, t), fixed.both(x, t)[1])
            joint, single = (float(o(weight).loss(truth, batch)) for o in (JointScoreMatching, TimeScoreMatching))
            differences.append(joint - single / 2)
        assert differences[0] == pytest.approx(differences[1], abs=1e-9)


def test_quadrature_rules_are_exact_for_their_degree():
    for rule, degree in ((GaussLegendre(4), 7), (GaussLegendre(1), 1), (Simpson(2), 3), (Simpson(10), 3)):
        nodes, weights = rule.rule()
        assert float(weights.sum()) == pytest.approx(1, abs=1e-14)
        for k in range(degree + 1):
            assert float(weights @ nodes**k) == pytest.approx(1 / (k + 1), abs=1e-13)


def test_path_moments_are_those_of_the_path():
    generator = torch.Generator().manual_seed(3)
    x0, x1 = torch.randn(4000, 2, generator=generator) * 0.5 - 1, torch.randn(4000, 2, generator=generator) + 1
    for path in (DiffusionBridge(gamma=0.2, epsilon=0.01), SchroedingerBridge(gamma=0.2, epsilon=0.01)):
        moments = PathMoments.of(path, x0, x1, generator, 512)
        left, right = path.coupling.pairs(x0[:2000], x1[:2000], generator)
        for time in (0.2, 0.7):
            t = torch.full((2000,), time)
            drawn = path.at(left, right, t, torch.randn(2000, 2, generator=generator))
            mean, variance = moments.at(t[:1])
            torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.07, rtol=0)
            torch.testing.assert_close(drawn.var(0), variance[0], atol=0, rtol=0.12)


def test_scale_of_the_path_is_that_of_gaussian_time_scores():
    generator = torch.Generator().manual_seed(4)
    path = DiffusionBridge(gamma=0.5, epsilon=0.05)
    moments = PathMoments(path, torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [0.25]]), torch.zeros(1))
    truth = ScaledTruth(path, 1.0)
    for time in (0.1, 0.5, 0.9):
        t = torch.full((100_000,), time)
        mean, v = truth._moments(t)
        x = mean[:, None] + v.sqrt()[:, None] * torch.randn(100_000, 1, generator=generator)
        size = float(truth(x, t).square().mean())
        assert math.sqrt(size + 0.5) == pytest.approx(float(moments.scale(t[:1])), rel=0.02)


def test_times_are_drawn_from_the_stated_density():
    generator = torch.Generator().manual_seed(5)
    path = DiffusionBridge(gamma=0.5, epsilon=1e-3)
    moments = PathMoments(path, torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.01]]), torch.zeros(1))
    times = TimeSampler.of(moments)
    t, density = times.draw(20_000, generator)
    assert float(t.min()) >= 0
    assert float(t.max()) <= 1
    for k in range(3):  # importance sampling of the integrals of t^k
        assert float((t**k / density).mean()) == pytest.approx(1 / (k + 1), rel=0.01)
    assert float(density.min()) >= 0.49


def test_a_joint_network_returns_both_scores_and_gradients_flow():
    generator = torch.Generator().manual_seed(6)
    path = DiffusionBridge()
    x0, x1 = torch.randn(300, 3, generator=generator), torch.randn(300, 3, generator=generator) + 1
    network = TimeScoreNetwork(PathMoments.of(path, x0, x1, generator, 128), MLP(8, 1), joint=True, generator=generator)
    time, data = network.both(x0, torch.full((300,), 0.3))
    assert time.shape == (300,)
    assert data.shape == (300, 3)
    torch.testing.assert_close(network(x0, torch.full((300,), 0.3)), time)
    t, density = torch.rand(300, generator=generator), torch.ones(300)
    batch = Batch(path, x0, x1, t, density, torch.randn(300, 3, generator=generator), torch.ones(300, 3))
    JointScoreMatching().loss(network, batch).backward()
    for part in (network.net, network.form[-1]):  # the form starts at zero: its first layer moves once its last has
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in part.parameters())


def test_transport_shortens_pairs_and_keeps_the_rows():
    generator = torch.Generator().manual_seed(7)
    x0, x1 = torch.randn(256, 2, generator=generator), torch.randn(256, 2, generator=generator) + 1
    random = float((x1 - x0).square().sum(1).mean())
    left, right = MiniBatchTransport().pairs(x0, x1, generator)
    assert float((right - left).square().sum(1).mean()) < 0.8 * random
    torch.testing.assert_close(right.sort(0).values, x1.sort(0).values)  # a permutation of the rows
    soft = MiniBatchTransport(Sinkhorn(0.5)).pairs(x0, x1, generator)
    assert float((soft[1] - soft[0]).square().sum(1).mean()) < random
    assert IndependentCoupling().pairs(x0, x1, generator)[1] is x1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SchroedingerBridge(CosinePath()), "LinearPath"),
        (lambda: SchroedingerBridge(epsilon=-1), "epsilon"),
        (lambda: DiffusionBridge(epsilon=-1e-3), "epsilon"),
        (lambda: DiffusionBridge(gamma=-0.1), "gamma"),
        (lambda: FollmerPath(0.0), "margin"),
        (lambda: VariancePreservingPath(b_min=2.0, b_max=1.0), "b_max"),
        (lambda: Simpson(3), "even"),
        (lambda: GaussLegendre(0), "nodes"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_coupling_needs_a_plan():
    with pytest.raises(TypeError, match="plan"):
        MiniBatchTransport(Sinkhorn)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coupling"):
        DiffusionBridge(coupling="transport")  # type: ignore[arg-type]
