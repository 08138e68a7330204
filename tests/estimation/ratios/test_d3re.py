"""Time-score ratios: known ratios between far laws, every path and objective, orientation, and what is refused."""

import pytest
import torch
from torch.distributions import Normal

from discrepancy import KL, NumericalError, density_ratio, estimate, mutual_information
from discrepancy.estimation.ratios import TimeScore
from discrepancy.estimation.ratios.time_score import (
    ConditionalTarget,
    CosinePath,
    DeterministicInterpolant,
    DiffusionBridge,
    FollmerPath,
    JointScoreMatching,
    SchroedingerBridge,
    Simpson,
    TimeScoreMatching,
    UnitWeight,
    VariancePreservingPath,
)
from discrepancy.learning import Training
from discrepancy.networks import MLP

NET, SHORT = MLP(32, 2), Training(200, 1e-2, final_share=0.0)


def far(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(n, 1, generator=generator), torch.randn(n, 1, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def error(method, seed=1):
    x, y = far(1000)
    points = torch.cat(far(300, seed=2))
    truth = (Normal(3.0, 1.0).log_prob(points) - Normal(0.0, 1.0).log_prob(points))[:, 0]
    found = method.fit(x, y, seeded(seed)).log_ratio(points)
    assert bool(torch.isfinite(found).all())
    return float((found - truth).square().mean().sqrt())


@pytest.mark.parametrize(
    ("interpolant", "objective"),
    [
        (DiffusionBridge(), ConditionalTarget()),
        (DiffusionBridge(CosinePath(), gamma=0.2), ConditionalTarget()),
        (DiffusionBridge(FollmerPath(), gamma=0.2, epsilon=1e-2), ConditionalTarget()),
        (DiffusionBridge(VariancePreservingPath(b_max=8.0), gamma=0.2, epsilon=1e-2), ConditionalTarget()),
        (SchroedingerBridge(gamma=0.2), ConditionalTarget()),
        (DiffusionBridge(), TimeScoreMatching()),
        (DiffusionBridge(), JointScoreMatching()),
        (DeterministicInterpolant(), TimeScoreMatching()),
        (DeterministicInterpolant(CosinePath()), TimeScoreMatching(UnitWeight())),
    ],
    ids=lambda v: f"{type(v).__name__}-{type(getattr(v, 'schedule', None)).__name__}",
)
def test_every_path_and_objective_on_laws_four_nats_apart(interpolant, objective):
    """KL is 4.5 nats and the log-ratio runs over some 27: an error of one is one in twenty of it."""
    batch = 128 if isinstance(interpolant, DiffusionBridge) and isinstance(objective, ConditionalTarget) else 256
    batch = 256 if isinstance(interpolant, SchroedingerBridge) else batch
    assert error(TimeScore(interpolant, objective, NET, SHORT, batch)) < 1.0


def test_exchanging_the_samples_changes_the_sign():
    x, y = far(800)
    method = TimeScore(network=NET, training=SHORT, batch_size=128)
    one, two = (method.fit(*pair, seeded()).log_ratio(torch.cat([x, y])) for pair in ((x, y), (y, x)))
    assert float(torch.corrcoef(torch.stack([one, two]))[0, 1]) < -0.99
    assert float((one + two).abs().mean()) < 0.15 * float(one.abs().mean())


def test_same_seed_same_bits_and_the_average_is_kept():
    x, y = far(200)
    method = TimeScore(network=NET, training=Training(20, 5e-3), batch_size=64)
    one, two, other = (method.fit(x, y, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one.log_ratio(x), two.log_ratio(x))
    assert not torch.equal(one.log_ratio(x), other.log_ratio(x))
    assert len(one.history["loss"]) >= 2
    assert "20 steps" in one.describe()


def test_the_integral_does_not_hang_on_the_rule():
    x, y = far(600)
    results = [
        TimeScore(network=NET, training=SHORT, batch_size=128, quadrature=rule).fit(x, y, seeded()).log_ratio(x)
        for rule in (TimeScore().quadrature, Simpson(256))
    ]
    torch.testing.assert_close(results[0], results[1], atol=0.02, rtol=0.01)


def test_smoothing_biases_the_ratio_by_the_smoothed_laws():
    """N(2, 0.1^2) smoothed by a variance as large as its own: the ratio is that of the wider law, as the docstring says."""
    generator = seeded(5)
    x, y = 2 + 0.1 * torch.randn(2000, 1, generator=generator), torch.randn(2000, 1, generator=generator)
    unit = float(((x - 1).square().mean() + (y - 1).square().mean()) / 2)  # the pooled variance, about
    epsilon = 0.01 / unit
    method = TimeScore(DiffusionBridge(epsilon=epsilon), network=NET, training=SHORT, batch_size=128)
    found = method.fit(x, y, seeded()).log_ratio(x)
    smooth = (Normal(2.0, 0.02**0.5).log_prob(x) - Normal(0.0, 1.01**0.5).log_prob(x))[:, 0]
    sharp = (Normal(2.0, 0.1).log_prob(x) - Normal(0.0, 1.0).log_prob(x))[:, 0]
    assert float((found - smooth).square().mean()) < 0.5 * float((found - sharp).square().mean())


def test_disjoint_supports_stay_finite():
    generator = seeded(6)
    y, x = (torch.rand(500, 2, generator=generator) for _ in range(2))
    x = x + torch.tensor([1.2, 0.0])
    model = TimeScore(network=NET, training=Training(100, 5e-3), batch_size=128).fit(x, y, seeded())
    for t in (0.0, 0.5, 1.0):
        assert float(model.time_score(torch.cat([x, y]), t).abs().max()) < 1e4
    assert bool((model.log_ratio(x) > 0).float().mean() > 0.9)


def test_divergence_and_information_through_the_front_doors():
    x, y = far(600)
    method = TimeScore(network=NET, training=SHORT, batch_size=128, folds=2)
    found = estimate(x, y, KL(), method=method, generator=seeded())
    assert float(found) == pytest.approx(4.5, rel=0.15)
    assert found.standard_error is None
    assert "plug-in" in found.method
    generator = seeded(7)
    a, e = (torch.randn(2000, 1, generator=generator) for _ in range(2))
    b = 0.9 * a + 0.19**0.5 * e
    method = TimeScore(DiffusionBridge(gamma=0.2), training=Training(500, 4e-3, final_share=0.0), folds=2)
    information = mutual_information(a, b, method, generator=seeded())
    assert float(information) == pytest.approx(0.830, abs=0.2)


def test_duplicated_rows_and_a_constant_column():
    x, y = far(200)
    x, y = (torch.cat([s.round(decimals=1), torch.ones(200, 1)], 1) for s in (x, y))
    model = TimeScore(network=NET, training=Training(20, 5e-3), batch_size=64).fit(x, y, seeded())
    assert bool(torch.isfinite(model.log_ratio(x)).all())


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x, y: density_ratio(x[:60], y, TimeScore()), ValueError, "at least 64"),
        (lambda x, y: density_ratio(x, torch.cat([y, y], 1), TimeScore()), ValueError, "features"),
        (lambda x, y: density_ratio(x.where(x < 3, torch.nan), y, TimeScore()), ValueError, "non-finite"),
        (lambda x, y: TimeScore(DiffusionBridge(gamma=0.0, epsilon=0.0)), ValueError, "variance vanishes"),
        (lambda x, y: TimeScore(DeterministicInterpolant()), ValueError, "variance vanishes"),
        (
            lambda x, y: density_ratio(x.round(), y.round(), TimeScore(DeterministicInterpolant(), TimeScoreMatching())),
            ValueError,
            "epsilon",
        ),
        (lambda x, y: TimeScore("ddbi"), TypeError, "interpolant"),
        (lambda x, y: TimeScore(objective="joint"), TypeError, "objective"),
        (lambda x, y: TimeScore(quadrature=16), TypeError, "quadrature"),
        (lambda x, y: TimeScore(batch_size=1), ValueError, "batch_size"),
        (
            lambda x, y: density_ratio(x, y, TimeScore(training=Training(200, 1e6), batch_size=64, network=NET)),
            NumericalError,
            "not finite|learning rate",
        ),
    ],
)
def test_wrong_input(make, kind, message):
    x, y = far(100)
    with pytest.raises(kind, match=message):
        make(x, y)


def test_small_batches_of_a_paired_bridge_are_called_out():
    x, y = far(100)
    with pytest.warns(UserWarning, match="256"):
        TimeScore(SchroedingerBridge(), network=NET, training=Training(2), batch_size=64).fit(x, y, seeded())
