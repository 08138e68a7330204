"""Frechet means against closed forms (commuting matrices, midpoints, Gaussians on the line), POT, SciPy, convex programs."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import EnergyDistance, Wasserstein, cite
from discrepancy._results import NumericalError
from discrepancy.metric_spaces import (
    AffineInvariant,
    AitchisonSpace,
    Bures,
    Cholesky,
    CorrelationSpace,
    CovarianceSpace,
    CustomSpace,
    DistanceMatrixSpace,
    EuclideanSpace,
    Frobenius,
    LaplacianSpace,
    LogCholesky,
    LogEuclidean,
    MetricSpace,
    PowerMetric,
    QuantileSpace,
    SampleSpace,
    SphereSpace,
    SquareRootCompositionSpace,
    frechet_mean,
    frechet_variance,
)
from discrepancy.transport.gaussian.geometry import bures_barycenter, bures_geodesic

METRICS = [Frobenius(), PowerMetric(0.5), PowerMetric(2.0), Cholesky(), LogCholesky(), LogEuclidean(), AffineInvariant(), Bures()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariances(n: int, d: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    A = torch.randn(n, d, d + 3, generator=seeded(seed), dtype=torch.float64)
    return (A @ A.mT / (d + 3)).to(dtype)


def quantiles(n: int, K: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, K, generator=seeded(seed), dtype=torch.float64).sort(-1).values


def laplacians(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    A = torch.rand(n, d, d, generator=seeded(seed), dtype=torch.float64).triu(1)
    return LaplacianSpace.from_adjacency(A + A.mT)


def directions(n: int, d: int = 3, seed: int = 0, spread: float = 0.5) -> torch.Tensor:
    x = spread * torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    x[:, 0] += 1
    return x / x.norm(dim=-1, keepdim=True)


def correlations(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    S = covariances(n, d, seed)
    s = S.diagonal(dim1=-2, dim2=-1).rsqrt()
    R = S * s[:, :, None] * s[:, None, :]
    R.diagonal(dim1=-2, dim2=-1).fill_(1)
    return R


def shares(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.softmax(torch.randn(n, d, generator=seeded(seed), dtype=torch.float64), -1)


SPACES: dict[str, tuple[MetricSpace, object]] = {
    "euclidean": (EuclideanSpace(), lambda n, s=0: torch.randn(n, 3, generator=seeded(s), dtype=torch.float64)),
    "quantiles": (QuantileSpace(20), lambda n, s=0: quantiles(n, 20, s)),
    "correlations": (CorrelationSpace(), lambda n, s=0: correlations(n, seed=s)),
    "laplacians": (LaplacianSpace(1.0), lambda n, s=0: laplacians(n, seed=s)),
    "sphere": (SphereSpace(), lambda n, s=0: directions(n, seed=s)),
    "aitchison": (AitchisonSpace(), lambda n, s=0: shares(n, seed=s)),
    "roots of shares": (SquareRootCompositionSpace(), lambda n, s=0: shares(n, seed=s)),
} | {repr(m): (CovarianceSpace(m), lambda n, s=0: covariances(n, seed=s)) for m in METRICS}


@pytest.mark.parametrize("name", SPACES)
def test_axioms_of_a_metric(name: str) -> None:
    space, draw = SPACES[name]
    Y = draw(8)
    D = space.distance(Y[:, None], Y[None, :])
    torch.testing.assert_close(D, D.mT, rtol=1e-9, atol=1e-12)
    assert float(D.diagonal().abs().max()) < 1e-7
    assert bool((D + 1e-9 >= 0).all())
    assert bool((D[:, :, None] <= D[:, None, :] + D.mT[None, :, :] + 1e-9).all())
    assert float(D[0, 1]) > 0.01


@pytest.mark.parametrize("name", SPACES)
def test_the_mean_beats_its_neighbours_and_ignores_order(name: str) -> None:
    """No point on the way from the mean to any sample point has a smaller objective, for positive weights."""
    space, draw = SPACES[name]
    Y = draw(7)
    w = torch.tensor([0.3, 0.1, 0.05, 0.2, 0.15, 0.1, 0.1], dtype=torch.float64)
    found = frechet_mean(Y, space, w)
    assert found.outcome.ok
    space.points(found.point)  # inside the space
    for y in Y:
        for t in (1e-3, 1e-2, 0.1):
            nearby = frechet_mean(torch.stack([found.point, y]), space, [1 - t, t]).point
            assert float(w @ space.squared_distance(Y, nearby)) >= float(found.variance) - 1e-12
    perm = torch.randperm(7, generator=seeded(1))
    torch.testing.assert_close(frechet_mean(Y[perm], space, w[perm]).point, found.point, rtol=1e-7, atol=1e-8)
    assert float(found.variance) == pytest.approx(float(w @ space.squared_distance(Y, found.point)))


@pytest.mark.parametrize("name", SPACES)
def test_two_points_have_the_geodesic_midpoint(name: str) -> None:
    space, draw = SPACES[name]
    a, b = draw(2, 3)
    middle = frechet_mean(torch.stack([a, b]), space).point
    whole = float(space.distance(a, b))
    assert float(space.distance(a, middle)) == pytest.approx(whole / 2, rel=1e-6)
    assert float(space.distance(middle, b)) == pytest.approx(whole / 2, rel=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_many_weightings_at_once_are_each_alone(name: str) -> None:
    """Also with negative weights, as local linear regression has them."""
    space, draw = SPACES[name]
    Y = draw(6)
    W = torch.tensor([[0.5, 0.5, 0.4, -0.2, -0.1, -0.1], [1 / 6] * 6, [0.9, 0.3, 0.1, 0.0, -0.1, -0.2]], dtype=torch.float64)
    together = frechet_mean(Y, space, W)
    for w, point, variance in zip(W, together.point, together.variance, strict=True):
        alone = frechet_mean(Y, space, w)
        torch.testing.assert_close(alone.point, point, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(alone.variance, variance, rtol=1e-7, atol=1e-8)
    space.points(together.point)


@pytest.mark.parametrize("name", SPACES)
def test_float32_keeps_its_dtype_and_agrees(name: str) -> None:
    space, draw = SPACES[name]
    Y = draw(6)
    found, truth = frechet_mean(Y.float(), space), frechet_mean(Y, space)
    assert found.point.dtype == found.variance.dtype == torch.float32
    torch.testing.assert_close(found.point.double(), truth.point, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", SPACES)
def test_gradient_of_the_variance(name: str) -> None:
    """The envelope theorem against finite differences of the whole minimum, along a curve that stays in the space."""
    space, draw = SPACES[name]
    Y = draw(5)
    w = torch.tensor([0.4, 0.1, 0.2, 0.2, 0.1], dtype=torch.float64)

    def moved(t: float) -> torch.Tensor:
        return torch.cat([frechet_mean(Y[:2], space, [1 - t, t]).point[None], Y[1:]])

    h = 1e-4
    t = 0.3
    points = moved(t).clone().requires_grad_(True)
    share = w.clone().requires_grad_(True)
    frechet_mean(points, space, share).variance.backward()
    speed = (moved(t + h) - moved(t - h)) / (2 * h)
    analytic = float((points.grad * speed).sum())
    numeric = float(frechet_mean(moved(t + h), space, w).variance - frechet_mean(moved(t - h), space, w).variance) / (2 * h)
    assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-7)
    direction = torch.tensor([1.0, -1.0, 0, 0, 0], dtype=torch.float64)
    up, down = (float(frechet_mean(points.detach(), space, w + s * h * direction).variance) for s in (1, -1))
    assert float(share.grad @ direction) == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-6)


def test_euclidean_mean_and_variance_are_the_usual_ones() -> None:
    Y = torch.randn(50, 3, generator=seeded(), dtype=torch.float64)
    found = frechet_variance(Y, EuclideanSpace())
    assert float(found.value) == pytest.approx(float(Y.var(0, correction=0).sum()))
    squares = (Y - Y.mean(0)).square().sum(-1)
    assert float(found.standard_error) == pytest.approx(float(squares.std(correction=0)) / math.sqrt(50))
    ratio = float(found.standard_error) / float(found.value)
    assert math.log(float(found.high / found.value)) == pytest.approx(1.959964 * ratio, rel=1e-5)
    assert float(found.low * found.high) == pytest.approx(float(found.value) ** 2)
    constant = frechet_variance(torch.ones(5, 2), EuclideanSpace())
    assert (float(constant.low), float(constant.value), float(constant.high)) == (0, 0, 0)
    assert frechet_variance(Y[:1], EuclideanSpace()).standard_error is None


def test_quantiles_of_samples_give_wasserstein_on_the_line() -> None:
    x = torch.randn(2, 30, generator=seeded(), dtype=torch.float64)
    space = QuantileSpace(30)
    Q = space.from_samples(x)
    truth = ot.wasserstein_1d(x[0].numpy(), x[1].numpy(), p=2)
    assert float(space.squared_distance(*Q)) == pytest.approx(truth)
    # Sizes 4 and 6 have all steps at multiples of 1/12; the middles of 12 cells see every one of them.
    fine = QuantileSpace(12)
    Q = fine.from_samples([x[0][:4], x[1][:6]])
    assert float(fine.squared_distance(*Q)) == pytest.approx(ot.wasserstein_1d(x[0][:4].numpy(), x[1][:6].numpy(), p=2))
    weighted = QuantileSpace(4).from_samples([[3.0, 1.0, 2.0]], [[0.25, 0.5, 0.25]])
    assert weighted.tolist() == [[1.0, 1.0, 2.0, 3.0]]


def test_gaussians_on_the_line() -> None:
    """W_2^2 = (m1 - m2)^2 + (s1 - s2)^2, and the mean of Gaussians has the mean parameters."""
    space = QuantileSpace(4000)
    z = torch.special.ndtri(space.grid)
    m, s = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64), torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)
    Y = m[:, None] + s[:, None] * z
    assert float(space.squared_distance(Y[0], Y[1])) == pytest.approx(4.25, rel=1e-3)
    w = torch.tensor([0.5, 0.7, -0.2], dtype=torch.float64)  # spread 0.5 + 0.35 - 0.6 > 0: no projection
    torch.testing.assert_close(frechet_mean(Y, space, w).point, w @ m + (w @ s) * z)


def test_grids_of_levels_integrate() -> None:
    trapezoid = QuantileSpace(np.linspace(0, 1, 11).tolist())
    assert trapezoid.cells.tolist() == pytest.approx([0.05] + [0.1] * 9 + [0.05])
    assert QuantileSpace(5).cells.tolist() == pytest.approx([0.2] * 5)
    assert float(QuantileSpace([0.1, 0.2, 0.9]).cells.sum()) == pytest.approx(1)


@given(st.integers(1, 30), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_monotone_projection_is_isotonic_regression(K: int, seed: int) -> None:
    from discrepancy.metric_spaces.isotonic import _min_max, isotonic_projection

    v = torch.randn(3, K, generator=seeded(seed), dtype=torch.float64)
    w = torch.rand(K, generator=seeded(seed + 1), dtype=torch.float64) + 0.05
    found = isotonic_projection(v, w)
    for row, fitted in zip(v, found, strict=True):
        truth = scipy.optimize.isotonic_regression(row.numpy(), weights=w.numpy()).x
        np.testing.assert_allclose(fitted, truth, atol=1e-12)
    torch.testing.assert_close(_min_max(v, w)[0], found)  # the path of other devices


def test_gradient_through_the_monotone_projection() -> None:
    from discrepancy.metric_spaces.isotonic import isotonic_projection

    v = torch.tensor([[1.0, 0.5, 2.0, 3.0, 2.5, 2.4], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: isotonic_projection(x, w), (v,))


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_commuting_covariances(metric) -> None:
    """Diagonal matrices: each metric has its own mean of the eigenvalues."""
    a = torch.tensor([[1.0, 4.0], [9.0, 4.0], [4.0, 25.0]], dtype=torch.float64)
    w = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    powers = {"Frobenius": 1, "PowerMetric": getattr(metric, "alpha", 0), "Cholesky": 0.5, "Bures": 0.5}
    p = powers.get(type(metric).__name__)
    truth = (w @ a.log()).exp() if p is None else (w @ a**p) ** (1 / p)
    found = frechet_mean(torch.diag_embed(a), CovarianceSpace(metric), w).point
    torch.testing.assert_close(found, torch.diag(truth), rtol=1e-8, atol=1e-8)
    gap = float(CovarianceSpace(metric).squared_distance(torch.diag(a[0]), torch.diag(a[1])))
    expected = {
        "Frobenius": 64.0,
        "PowerMetric": ((9**p - 1) / p) ** 2 if p else 0,
        "Cholesky": 4.0,
        "Bures": 4.0,
        "LogCholesky": (math.log(9) / 2) ** 2,
    }.get(type(metric).__name__, math.log(9) ** 2)
    assert gap == pytest.approx(expected)


def test_invariances_of_covariance_metrics() -> None:
    S = covariances(5)
    M = torch.randn(3, 3, generator=seeded(7), dtype=torch.float64)
    turned = M @ S @ M.mT
    space = CovarianceSpace(AffineInvariant())
    torch.testing.assert_close(space.distance(turned[0], turned[1]), space.distance(S[0], S[1]))
    torch.testing.assert_close(space.distance(S[0].inverse(), S[1].inverse()), space.distance(S[0], S[1]))
    mean = frechet_mean(S, space).point
    torch.testing.assert_close(frechet_mean(turned, space).point, M @ mean @ M.mT, rtol=1e-7, atol=1e-8)
    # det of the mean is the geometric mean of the determinants, for this metric and log-Euclidean.
    for metric in (AffineInvariant(), LogEuclidean(), LogCholesky()):
        point = frechet_mean(S, CovarianceSpace(metric)).point
        assert float(torch.logdet(point)) == pytest.approx(float(torch.logdet(S).mean()))
    truth = scipy.linalg.sqrtm(S[0].numpy()) @ scipy.linalg.sqrtm(scipy.linalg.inv(S[0].numpy()) @ S[1].numpy())
    middle = frechet_mean(S[:2], space).point  # the geometric mean A # B = A (A^-1 B)^(1/2)
    truth = S[0].numpy() @ scipy.linalg.sqrtm(np.linalg.solve(S[0].numpy(), S[1].numpy()))
    np.testing.assert_allclose(middle, truth, atol=1e-8)


def test_log_euclidean_is_the_limit_of_powers() -> None:
    S = covariances(4)
    limit = frechet_mean(S, CovarianceSpace(LogEuclidean())).point
    torch.testing.assert_close(frechet_mean(S, CovarianceSpace(PowerMetric(1e-5))).point, limit, rtol=1e-4, atol=1e-5)
    near = CovarianceSpace(PowerMetric(1e-5)).distance(S[0], S[1])
    torch.testing.assert_close(near, CovarianceSpace(LogEuclidean()).distance(S[0], S[1]), rtol=1e-4, atol=1e-5)


def test_bures_mean_is_the_barycenter_and_extrapolates_geodesics() -> None:
    S = covariances(6)
    w = torch.rand(6, generator=seeded(3), dtype=torch.float64)
    w = w / w.sum()
    found = frechet_mean(S, CovarianceSpace(Bures()), w)
    torch.testing.assert_close(found.point, bures_barycenter(None, S, w).covariance, rtol=1e-8, atol=1e-9)
    _, ahead = bures_geodesic(None, S[0], None, S[1], 1.2)
    signed = frechet_mean(S[:2], CovarianceSpace(Bures()), [-0.2, 1.2]).point
    torch.testing.assert_close(signed, ahead, rtol=1e-7, atol=1e-8)


def test_bures_takes_singular_matrices() -> None:
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    found = frechet_mean(torch.diag_embed(a), CovarianceSpace(Bures()))
    torch.testing.assert_close(found.point, torch.diag(a.sqrt().mean(0).square()))


def test_negative_weights_project_covariances_onto_the_cone() -> None:
    a = torch.diag_embed(torch.tensor([[1.0, 3.0], [4.0, 1.0]], dtype=torch.float64))
    found = frechet_mean(a, CovarianceSpace(), [2.0, -1.0]).point  # diag(-2, 5)
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 5.0], dtype=torch.float64)))
    chol = frechet_mean(a, CovarianceSpace(Cholesky()), [1.5, -0.5]).point  # 1.5 - 1 = 0.5 and 1.5 sqrt 3 - 0.5
    truth = torch.tensor([0.25, (1.5 * math.sqrt(3) - 0.5) ** 2], dtype=torch.float64)
    torch.testing.assert_close(chol, torch.diag(truth))


def test_affine_invariant_mean_with_negative_weights_extrapolates() -> None:
    S = covariances(2)
    space = CovarianceSpace(AffineInvariant())
    out = frechet_mean(S, space, [-0.5, 1.5]).point
    whole = float(space.distance(*S))
    assert float(space.distance(S[0], out)) == pytest.approx(1.5 * whole, rel=1e-6)
    assert float(space.distance(S[1], out)) == pytest.approx(0.5 * whole, rel=1e-6)


def test_sphere_closed_forms() -> None:
    space = SphereSpace()
    e = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(space.distance(e[0], e[1]), torch.tensor(math.pi / 2, dtype=torch.float64))
    assert float(space.distance(e[0], -e[0])) == pytest.approx(math.pi)
    tiny = torch.tensor([1.0, 1e-9, 0.0], dtype=torch.float64)
    assert float(space.distance(e[0], tiny)) == pytest.approx(1e-9, rel=1e-9)
    torch.testing.assert_close(frechet_mean(e, space).point, torch.full((3,), 3**-0.5, dtype=torch.float64))
    # On a great circle angles average, with weights of either sign.
    angle = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    w = torch.tensor([0.8, 0.5, -0.3], dtype=torch.float64)
    point = frechet_mean(circle, space, w).point
    assert float(torch.atan2(point[1], point[0])) == pytest.approx(float(w @ angle))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=seeded(), dtype=torch.float64))
    Y = directions(6)
    torch.testing.assert_close(frechet_mean(Y @ turn.T, space).point, turn @ frechet_mean(Y, space).point)
    opposite = frechet_mean(torch.stack([e[0], -e[0]]), space)  # the average vanishes: the search starts at a sample point
    assert float(opposite.variance) <= math.pi**2 / 2 + 1e-12


def test_compositions() -> None:
    p = shares(5)
    w = torch.tensor([0.5, 0.5, 0.5, -0.25, -0.25], dtype=torch.float64)
    geometric = (w @ p.log()).exp()
    torch.testing.assert_close(frechet_mean(p, AitchisonSpace(), w).point, geometric / geometric.sum())
    ratios = p.log()[:2, :, None] - p.log()[:2, None, :]  # Aitchison: all log-ratios, halved by d
    truth = ((ratios[0] - ratios[1]).square().sum() / (2 * 4)).sqrt()
    torch.testing.assert_close(AitchisonSpace().distance(p[0], p[1]), truth)
    angle = torch.arccos((p[0] * p[1]).sqrt().sum())
    torch.testing.assert_close(SquareRootCompositionSpace().distance(p[0], p[1]), angle)
    corner = torch.eye(3, dtype=torch.float64)
    assert float(SquareRootCompositionSpace().distance(corner[0], corner[1])) == pytest.approx(math.pi / 2)
    out = frechet_mean(corner, SquareRootCompositionSpace(), [0.8, 0.5, -0.3]).point
    assert bool((out >= 0).all())
    assert float(out.sum()) == pytest.approx(1)


def test_laplacian_means_average_and_project() -> None:
    L = laplacians(5)
    torch.testing.assert_close(frechet_mean(L, LaplacianSpace(1.0)).point, L.mean(0))
    w = torch.tensor([1.2, 0.8, 0.6, -0.9, -0.7], dtype=torch.float64)
    space = LaplacianSpace(1.0)
    found = frechet_mean(L, space, w)
    assert found.outcome.ok
    average = torch.tensordot(w, L, dims=1)
    d = L.shape[-1]
    i, j = torch.triu_indices(d, d, 1)

    def build(e: np.ndarray) -> torch.Tensor:
        A = torch.zeros(d, d, dtype=torch.float64)
        A[i, j] = torch.from_numpy(e)
        return LaplacianSpace.from_adjacency(A + A.mT)

    best = scipy.optimize.minimize(
        lambda e: float((build(e) - average).square().sum()), np.full(len(i), 0.5), bounds=[(0, 1)] * len(i), tol=1e-14
    )
    clipped = build((-average[i, j]).clamp(0, 1).numpy())
    assert float((found.point - average).square().sum()) <= best.fun + 1e-10
    torch.testing.assert_close(found.point, build(np.clip(best.x, 0, 1)), rtol=1e-3, atol=1e-4)
    assert float((clipped - average).square().sum()) > best.fun + 1e-4  # clipping edges is not the projection


def test_nearest_correlation() -> None:
    """Higham's example: the nearest correlation matrix to tridiag(1, 1, 1) has 0.7607 and 0.1573 off the diagonal."""
    from discrepancy.metric_spaces.covariances import nearest_correlation

    A = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    found = nearest_correlation(A)
    assert found.outcome.ok
    truth = torch.tensor([[1.0, 0.7607, 0.1573], [0.7607, 1.0, 0.7607], [0.1573, 0.7607, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(found.point, truth, rtol=0, atol=5e-5)
    R = correlations(4)
    point = frechet_mean(R, CorrelationSpace(), [2.5, 1.0, -1.5, -1.0]).point
    CorrelationSpace().points(point)
    torch.testing.assert_close(point.diagonal(), torch.ones(4, dtype=torch.float64))


def test_known_by_distances_only() -> None:
    x = torch.tensor([0.0, 1.0, 1.5, 10.0], dtype=torch.float64)
    D = (x[:, None] - x[None, :]).abs()
    space = DistanceMatrixSpace(D)
    found = frechet_mean(torch.arange(4), space)
    assert found.approximate
    assert int(found.point) == 2  # the mean is 3.125; 1.5 is the closest point
    assert float(found.variance) == pytest.approx(float((x - 1.5).square().mean()))
    assert int(frechet_mean([0, 1, 2, 3], space, [0.6, 0.3, 0.1, 0.0]).point) in (0, 1)
    assert frechet_variance(torch.arange(4), space).note == "the mean is a medoid"


@pytest.mark.parametrize(("D", "power"), [(Wasserstein(2), 1.0), (EnergyDistance(), 2.0)])
def test_any_discrepancy_between_samples(D, power: float) -> None:
    clouds = torch.randn(5, 12, 2, generator=seeded(), dtype=torch.float64)
    clouds[4] += 6
    space = SampleSpace(D, power)
    value = float(D(clouds[0], clouds[1]))
    assert float(space.distance(clouds[0], clouds[1])) == pytest.approx(value ** (1 / power))
    found = frechet_mean(clouds, space)
    squares = torch.stack([torch.stack([D(a, b) for b in clouds]) for a in clouds]) ** (2 / power)
    best = int(squares.sum(0).argmin())
    assert torch.equal(found.point, clouds[best])
    assert best != 4
    assert float(found.variance) == pytest.approx(float(squares[best].mean()))


def test_custom_space_is_the_space_that_it_imitates() -> None:
    Y = torch.randn(6, 3, generator=seeded(), dtype=torch.float64)
    w = torch.tensor([0.5, 0.3, 0.2, 0.2, -0.1, -0.1], dtype=torch.float64)
    space = CustomSpace(lambda Y, o: (Y - o).norm(dim=-1), lambda Y, w: w @ Y)
    assert not space.approximate
    mine, truth = frechet_mean(Y, space, w), frechet_mean(Y, EuclideanSpace(), w)
    torch.testing.assert_close(mine.point, truth.point)
    torch.testing.assert_close(mine.variance, truth.variance)
    D = space.squared_distance(Y[:, None], Y[None, :])
    torch.testing.assert_close(D, torch.cdist(Y, Y).square())
    torch.testing.assert_close(space.distance(Y, Y.flip(0)), (Y - Y.flip(0)).norm(dim=-1))
    numpy_only = CustomSpace(lambda Y, o: np.abs(np.asarray(Y) - np.asarray(o)).sum(-1))
    assert numpy_only.approximate
    assert bool((frechet_mean(Y, numpy_only).point == Y).all(-1).any())


BAD = {
    "no space": lambda: frechet_mean([[1.0]], "sphere"),
    "weights sum": lambda: frechet_mean(torch.ones(3, 2), EuclideanSpace(), [1.0, 1.0, 1.0]),
    "weights length": lambda: frechet_mean(torch.ones(3, 2), EuclideanSpace(), [0.5, 0.5]),
    "empty": lambda: frechet_mean(torch.ones(0, 2), EuclideanSpace()),
    "nan": lambda: frechet_mean([[float("nan")]], EuclideanSpace()),
    "one point only": lambda: frechet_mean(torch.ones(2), EuclideanSpace()),
    "levels decrease": lambda: QuantileSpace([0.5, 0.2]),
    "levels outside": lambda: QuantileSpace([0.5, 1.2]),
    "no levels": lambda: QuantileSpace(0),
    "quantiles decrease": lambda: frechet_mean([[1.0, 0.0]], QuantileSpace(2)),
    "levels differ": lambda: frechet_mean([[1.0, 2.0]], QuantileSpace(3)),
    "no samples": lambda: QuantileSpace(3).from_samples([]),
    "samples in the plane": lambda: QuantileSpace(3).from_samples(torch.ones(2, 3, 2)),
    "indefinite": lambda: frechet_mean(torch.diag(torch.tensor([1.0, -1.0]))[None], CovarianceSpace()),
    "singular": lambda: frechet_mean(torch.diag(torch.tensor([1.0, 0.0]))[None], CovarianceSpace(LogEuclidean())),
    "asymmetric": lambda: frechet_mean([[[1.0, 0.5], [0.0, 1.0]]], CovarianceSpace()),
    "metric": lambda: CovarianceSpace("bures"),
    "alpha": lambda: PowerMetric(0.0),
    "diagonal": lambda: frechet_mean(torch.diag(torch.tensor([1.0, 2.0]))[None], CorrelationSpace()),
    "row sums": lambda: frechet_mean([[[1.0, 0.0], [0.0, 1.0]]], LaplacianSpace()),
    "positive edge": lambda: frechet_mean([[[-1.0, 1.0], [1.0, -1.0]]], LaplacianSpace()),
    "heavy edge": lambda: frechet_mean([[[2.0, -2.0], [-2.0, 2.0]]], LaplacianSpace(1.0)),
    "directed": lambda: LaplacianSpace.from_adjacency([[0.0, 1.0], [0.0, 0.0]]),
    "negative adjacency": lambda: LaplacianSpace.from_adjacency([[0.0, -1.0], [-1.0, 0.0]]),
    "max_weight": lambda: LaplacianSpace(0.0),
    "not a unit": lambda: frechet_mean([[1.0, 1.0]], SphereSpace()),
    "shares": lambda: frechet_mean([[0.5, 0.6]], AitchisonSpace()),
    "zero share": lambda: frechet_mean([[0.0, 1.0]], AitchisonSpace()),
    "negative share": lambda: frechet_mean([[-0.5, 1.5]], SquareRootCompositionSpace()),
    "asymmetric distances": lambda: DistanceMatrixSpace([[0.0, 1.0], [2.0, 0.0]]),
    "negative distances": lambda: DistanceMatrixSpace([[0.0, -1.0], [-1.0, 0.0]]),
    "distances of self": lambda: DistanceMatrixSpace([[1.0, 1.0], [1.0, 0.0]]),
    "index": lambda: frechet_mean([0, 5], DistanceMatrixSpace(torch.zeros(2, 2))),
    "index type": lambda: frechet_mean([0.0, 1.0], DistanceMatrixSpace(torch.zeros(2, 2))),
    "not a discrepancy": lambda: SampleSpace("mmd"),
    "not a function": lambda: CustomSpace("euclid"),
    "mean elsewhere": lambda: frechet_mean(
        torch.ones(3, 2), CustomSpace(lambda Y, o: (Y - o).norm(dim=-1), lambda Y, w: torch.ones(3))
    ),
    "level": lambda: frechet_variance(torch.ones(3, 2), EuclideanSpace(), level=1.0),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        BAD[name]()


def test_bad_distances_of_a_user_are_named() -> None:
    with pytest.raises(NumericalError, match="returned -1"):
        frechet_mean(torch.ones(3, 2), CustomSpace(lambda Y, o: -torch.ones(len(Y)), lambda Y, w: w @ Y))
    with pytest.raises(NumericalError, match="one distance a point"):
        frechet_mean(torch.ones(3, 2), CustomSpace(lambda Y, o: Y - o, lambda Y, w: w @ Y))


def test_references_exist() -> None:
    for space in (QuantileSpace(), LaplacianSpace(), AffineInvariant(), Bures(), LogCholesky(), AitchisonSpace()):
        assert "title" in cite(space)
