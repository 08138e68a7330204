"""SPD batch normalisation: closed forms of each geometry, a batch afterwards, statistics, gradients, bad inputs."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from discrepancy import NumericalError
from discrepancy.linalg import congruence, lyapunov, symmetric_power
from discrepancy.methods.representation.bures_wasserstein_normalization import Dispersion, SPDBatchNorm
from discrepancy.methods.representation.spd_layers import BiMap, LogEig, ReEig, SPDNet
from discrepancy.methods.representation.spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    GeneralizedBuresWasserstein,
    LogEuclidean,
    SPDMetric,
)
from discrepancy.transport import bures_barycenter, bures_exp, bures_geodesic, bures_log, bures_wasserstein

METRICS: dict[str, SPDMetric] = {
    "bures": BuresWasserstein(),
    "generalized": GeneralizedBuresWasserstein(),
    "affine": AffineInvariant(),
    "log-euclidean": LogEuclidean(),
}


def _wishart(count: int, n: int, seed: int) -> Tensor:
    x = torch.as_tensor(np.random.default_rng(seed).normal(size=(count, n, n + 4)))
    return x @ x.mT / (n + 4)


def _norm_at(P: Tensor, V: Tensor) -> Tensor:
    """sqrt(tr(L_P[V] V) / 2), the Bures-Wasserstein metric by its definition."""
    return ((lyapunov(P, V) @ V).diagonal(dim1=-2, dim2=-1).sum(-1) / 2).sqrt()


def test_bures_tangent_vectors_are_transported_logarithms_of_the_right_length() -> None:
    Y, G = _wishart(5, 4, 0), _wishart(1, 4, 1)[0]
    log = bures_log(G.expand(5, 4, 4), Y)
    distance = bures_wasserstein(None, G, None, Y)
    torch.testing.assert_close(_norm_at(G.expand(5, 4, 4), log), distance)
    values, U = torch.linalg.eigh(G)
    factor = (2 / (values[:, None] + values[None])).sqrt()  # the card's closed form, to the identity
    truth = U @ (factor * (U.mT @ log @ U)) @ U.mT
    found = BuresWasserstein().to_tangent(Y, G)
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(BuresWasserstein().squared_norm(found), distance.square())


def test_bures_exponential_is_that_of_the_transported_vector() -> None:
    W, V = _wishart(1, 4, 2)[0] + torch.eye(4), 0.2 * (_wishart(3, 4, 3) - torch.eye(4))
    values, U = torch.linalg.eigh(W)
    moved = U @ (((values[:, None] + values[None]) / 2).sqrt() * (U.mT @ V @ U)) @ U.mT
    found, clipped = BuresWasserstein().from_tangent(V, W)
    assert clipped == 0
    torch.testing.assert_close(found, bures_exp(W.expand(3, 4, 4), moved))


@pytest.mark.parametrize("name", METRICS)
def test_there_and_back_is_the_identity_and_lengths_are_distances(name: str) -> None:
    metric, Y, G = METRICS[name], _wishart(6, 4, 4), _wishart(1, 4, 5)[0]
    V = metric.to_tangent(Y, G)
    back, clipped = metric.from_tangent(V, G)
    assert clipped == 0
    torch.testing.assert_close(back, Y)
    torch.testing.assert_close(metric.squared_norm(V), metric.squared_distance(Y, G.expand_as(Y)))


@pytest.mark.parametrize("name", METRICS)
def test_geodesics_have_constant_speed_and_the_mean_of_two_is_their_middle(name: str) -> None:
    metric, (P, Q) = METRICS[name], _wishart(2, 4, 6)
    whole = metric.squared_distance(P, Q).sqrt()
    torch.testing.assert_close(metric.squared_distance(P, metric.geodesic(P, Q, 0.3)).sqrt(), 0.3 * whole)
    torch.testing.assert_close(metric.mean(torch.stack([P, Q]), 100), metric.geodesic(P, Q, 0.5))


def test_bures_mean_and_geodesic_are_the_library_s() -> None:
    Y = _wishart(8, 4, 7)
    torch.testing.assert_close(BuresWasserstein().mean(Y, 100), bures_barycenter(None, Y).covariance)
    torch.testing.assert_close(BuresWasserstein().geodesic(Y[0], Y[1], 0.4), bures_geodesic(None, Y[0], None, Y[1], 0.4)[1])


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("power", [1.0, 0.5, -1.0])
def test_a_batch_has_the_bias_for_mean_and_the_squared_scale_for_dispersion(name: str, power: float) -> None:
    layer = SPDBatchNorm(6, metric=METRICS[name], power=power, mean_iterations=100)
    with torch.no_grad():
        layer.log_scale.fill_(math.log(0.2))
    layer.bias = _wishart(1, 6, 8)[0] + torch.eye(6)
    if METRICS[name].learns_reference:
        layer.reference = _wishart(1, 6, 9)[0] + torch.eye(6)
    Y = layer.coordinates(layer(_wishart(64, 6, 10))).detach()
    target = layer.coordinates(layer.bias).detach()
    assert int(layer.clipped) == 0
    torch.testing.assert_close(METRICS[name].mean(Y, 200), target, rtol=1e-7, atol=1e-7)
    spread = float(METRICS[name].squared_distance(Y, target.expand_as(Y)).mean()) / power**2
    assert spread == pytest.approx(0.04, rel=1e-3)  # v + eps under the root: eps / v is some 1e-5


def test_generalized_distance_is_the_pull_back() -> None:
    layer = SPDBatchNorm(4)
    M = _wishart(1, 4, 11)[0] + torch.eye(4)
    layer.reference = M
    torch.testing.assert_close(layer.reference, M)
    P, Q = _wishart(2, 4, 12)
    inside = layer.metric.squared_distance(layer.coordinates(P), layer.coordinates(Q)).detach()
    torch.testing.assert_close(inside, bures_wasserstein(None, P, None, Q, metric=M).square())
    torch.testing.assert_close(layer.undo(layer.coordinates(P)), P)


def test_running_statistics_move_along_the_geodesic_and_rule_evaluation() -> None:
    X = _wishart(20, 3, 13)
    layer = SPDBatchNorm(3, metric=BuresWasserstein(), mean_iterations=50, momentum=0.25)
    layer(X)
    center = bures_barycenter(None, X)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(layer.running_mean[0], bures_geodesic(None, eye, None, center.covariance, 0.25)[1])
    assert float(layer.running_variance[0]) == pytest.approx(0.75 + 0.25 * float(center.variance), rel=1e-9)
    still = SPDBatchNorm(3, metric=BuresWasserstein(), mean_iterations=50, momentum=1)
    trained = still(X)
    torch.testing.assert_close(still.eval()(X), trained)
    torch.testing.assert_close(still(X[:1]), trained[:1])  # one matrix is fine outside training
    still.reset_running_statistics()
    torch.testing.assert_close(still.running_mean[0], eye)


def test_dispersion_about_the_identity_is_larger_off_it() -> None:
    X = _wishart(20, 3, 14)
    kept = {}
    for dispersion in Dispersion:
        layer = SPDBatchNorm(3, metric=BuresWasserstein(), mean_iterations=50, momentum=1, dispersion=dispersion)
        layer(X)
        kept[dispersion] = float(layer.running_variance[0])
    eye = torch.eye(3, dtype=torch.float64)
    about_identity = float((symmetric_power(X, 0.5) - eye).square().sum((-1, -2)).mean())  # d^2(X, I) = |X^1/2 - I|^2
    assert kept[Dispersion.ABOUT_IDENTITY] == pytest.approx(about_identity, rel=1e-9)
    assert kept[Dispersion.ABOUT_MEAN] == pytest.approx(float(bures_barycenter(None, X).variance), rel=1e-9)


def test_domains_keep_their_own_statistics_and_channels_share_one_batch() -> None:
    X = _wishart(24, 3, 15)
    layer = SPDBatchNorm(3, domains=2)
    layer(X, domain=1)
    torch.testing.assert_close(layer.running_mean[0], torch.eye(3, dtype=torch.float64))
    assert float((layer.running_mean[1] - layer.running_mean[0]).abs().max()) > 1e-3
    flat, stacked = SPDBatchNorm(3)(X), SPDBatchNorm(3)(X.reshape(6, 4, 3, 3))
    torch.testing.assert_close(stacked.reshape(24, 3, 3), flat)


def test_scaling_up_beyond_the_injectivity_domain_is_clipped_and_counted() -> None:
    layer = SPDBatchNorm(3, metric=BuresWasserstein(), mean_iterations=20)
    with torch.no_grad():
        layer.log_scale.fill_(math.log(20.0))
    out = layer(_wishart(10, 3, 16))
    assert int(layer.clipped) > 0
    lowest = torch.linalg.eigvalsh(out.detach())[:, 0]
    assert float(lowest.min()) == pytest.approx(5e-4**2, rel=1e-6)  # (1 - (1 - 5e-4))^2 at the identity
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_gradients_agree_with_finite_differences_from_the_identity(name: str, power: float) -> None:
    """At the start M = W = I, where all eigenvalues coincide; statistics are held fixed in evaluation."""
    layer = SPDBatchNorm(3, metric=METRICS[name], power=power, momentum=1)
    X = _wishart(5, 3, 17)
    layer(X)
    layer.eval()
    probe = torch.as_tensor(np.random.default_rng(18).normal(size=(5, 3, 3)))

    def value(x: Tensor) -> Tensor:
        return (layer((x + x.mT) / 2) * probe).sum()

    assert torch.autograd.gradcheck(value, X.clone().requires_grad_())
    layer.zero_grad()
    value(X).backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        direction = torch.as_tensor(np.random.default_rng(19).normal(size=tuple(parameter.shape)))
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                ends.append(float(value(X)))
                parameter -= step * direction
        assert float((parameter.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_ill_conditioned_matrices_pass_in_float64() -> None:
    q, _ = torch.linalg.qr(torch.as_tensor(np.random.default_rng(20).normal(size=(12, 4, 4))))
    X = (q * torch.tensor([1e-9, 1e-6, 1.0, 1e3], dtype=torch.float64)) @ q.mT
    X = ((X + X.mT) / 2).requires_grad_()
    for metric in METRICS.values():
        layer = SPDBatchNorm(4, metric=metric)
        out = layer(X)
        (slope,) = torch.autograd.grad(out.sum(), X)
        assert torch.isfinite(out).all()
        assert torch.isfinite(slope).all()


def test_at_the_limit_of_float64_bures_goes_on_and_affine_says_why_not() -> None:
    q, _ = torch.linalg.qr(torch.as_tensor(np.random.default_rng(20).normal(size=(12, 4, 4))))
    X = (q * torch.tensor([1e-12, 1e-6, 1.0, 1e3], dtype=torch.float64)) @ q.mT
    X = (X + X.mT) / 2
    assert torch.isfinite(SPDBatchNorm(4)(X)).all()
    with pytest.raises(NumericalError, match="ill-conditioned"):
        SPDBatchNorm(4, metric=AffineInvariant())(X)


def test_float32_is_kept_agrees_and_warns_when_it_cannot_hold_the_matrices() -> None:
    X = _wishart(10, 3, 21)
    double, single = SPDBatchNorm(3)(X), SPDBatchNorm(3)(X.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)
    bad = torch.diag(torch.tensor([1e-4, 1.0, 1e4])).expand(4, 3, 3)
    with pytest.warns(UserWarning, match="condition number of 1e\\+08"):
        SPDBatchNorm(3, metric=LogEuclidean())(bad * torch.tensor([1.0, 1.1, 1.2, 1.3])[:, None, None])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X + torch.triu(torch.ones(3, 3), 1) * 1e-4, "not symmetric"),
        (lambda X: X - 10 * torch.eye(3), "put ReEig before, or shrink"),
        (lambda X: X * torch.nan, "non-finite"),
        (lambda X: X[:, :2], "square"),
        (lambda X: X[:1], "batch of one matrix"),
        (lambda X: X[:, :2, :2], r"\(b, 3, 3\)"),
        (lambda X: X[0], r"\(b, 3, 3\)"),
    ],
)
def test_bad_matrices_are_named(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPDBatchNorm(3)(change(_wishart(4, 3, 22)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"power": 0}, ValueError, "LogEuclidean"),
        ({"power": math.nan}, ValueError, "power"),
        ({"metric": "bw"}, TypeError, "SPDMetric"),
        ({"dispersion": "about_identity"}, TypeError, "Dispersion"),
        ({"momentum": 0}, ValueError, "momentum"),
        ({"eps": 0}, ValueError, "eps"),
        ({"domains": 0}, ValueError, "domains"),
    ],
)
def test_bad_options_are_named(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        SPDBatchNorm(3, **options)


def test_a_domain_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"0 \.\. 0"):
        SPDBatchNorm(3)(_wishart(4, 3, 23), domain=1)


def test_bimap_keeps_orthonormal_columns_through_a_step_and_is_seeded() -> None:
    first, second = (BiMap(5, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    X = _wishart(4, 5, 24)
    optimiser = torch.optim.SGD(first.parameters(), lr=0.5)
    before = first.weight.detach().clone()
    (first(X) * torch.arange(9.0).reshape(3, 3)).sum().backward()
    optimiser.step()
    W = first.weight.detach()
    assert float((W - before).abs().max()) > 1e-2
    torch.testing.assert_close(W.mT @ W, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(first(X).detach(), congruence(W.mT, X))
    with pytest.raises(ValueError, match="singular"):
        BiMap(3, 5)


def test_rectified_and_logarithmic_layers() -> None:
    X = torch.diag(torch.tensor([1e-9, 2.0], dtype=torch.float64))
    torch.testing.assert_close(ReEig(1e-3)(X), torch.diag(torch.tensor([1e-3, 2.0], dtype=torch.float64)))
    P, Q = _wishart(2, 4, 25)
    distance = LogEuclidean().squared_distance(P, Q)
    torch.testing.assert_close((LogEig()(P) - LogEig()(Q)).square().sum(), distance)
    with pytest.raises(ValueError, match="floor"):
        ReEig(0)


def test_a_network_learns_to_tell_two_shapes_apart_and_pickles() -> None:
    rng = torch.Generator().manual_seed(0)
    X = _wishart(60, 4, 26)
    y = torch.arange(60) % 2
    stretch = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    X[y == 1] = congruence(stretch, X[y == 1])
    net = SPDNet((4, 3), 2, generator=rng)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(net(X), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    state = pickle.loads(pickle.dumps(net.state_dict()))
    copy = SPDNet((4, 3), 2)
    copy.load_state_dict(state)
    torch.testing.assert_close(copy.eval()(X), net.eval()(X))
    with pytest.raises(ValueError, match="sizes"):
        SPDNet((4,), 2)


def test_numpy_stacks_are_taken_without_a_warning() -> None:
    X = _wishart(6, 4, 27).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SPDNet((4, 2), 3)(X).shape == (6, 3)
