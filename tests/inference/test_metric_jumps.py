"""Jumps in metric spaces: weights against least squares, the statistic against plain NumPy, planted jumps, size, bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from discrepancy import EnergyDistance, cite
from discrepancy.inference.metric_jumps import (
    CrossValidated,
    Epanechnikov,
    Rectangular,
    Side,
    Triangular,
    VarianceError,
    frechet_anova,
    frechet_jump_test,
    local_frechet_regression,
)
from discrepancy.inference.metric_jumps.smoothing import density_at, density_jump_p, local_linear_weights
from discrepancy.metric_spaces import (
    AffineInvariant,
    Bures,
    CovarianceSpace,
    CustomSpace,
    DistanceMatrixSpace,
    EuclideanSpace,
    LaplacianSpace,
    QuantileSpace,
    SampleSpace,
    SphereSpace,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, generator=seeded(seed), dtype=torch.float64)


def gaussian(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize(("kernel", "constant"), [(Epanechnikov(), 56832 / 12635), (Triangular(), 4.8), (Rectangular(), 4.0)])
def test_boundary_constants(kernel, constant: float) -> None:
    assert kernel.boundary_variance() == pytest.approx(constant, rel=1e-12)
    mass, _ = scipy.integrate.quad(lambda u: float(kernel(torch.tensor(u, dtype=torch.float64))), -1, 1, points=[-1, 0, 1])
    assert mass == pytest.approx(1, abs=1e-6)
    u = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1]
    boundary = kernel.boundary_kernel(u)
    assert float(boundary.mean()) == pytest.approx(1, abs=1e-4)
    assert float((u * boundary).mean()) == pytest.approx(0, abs=1e-4)
    assert float(boundary.square().mean()) == pytest.approx(constant, rel=1e-4)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("kernel", [Epanechnikov(), Triangular(), Rectangular()], ids=repr)
def test_local_weights_are_weighted_least_squares(side: Side, kernel) -> None:
    x, y = uniform(60), gaussian(60)
    at = torch.tensor([0.3, 0.5, 0.75], dtype=torch.float64)
    local = local_linear_weights(x, at, 0.25, kernel, side)
    torch.testing.assert_close(local.weights.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(local.weights @ (3 - 2 * x), 3 - 2 * at)  # linear functions exactly
    for k, place in enumerate(at.tolist()):
        K = kernel((x - place) / 0.25)
        keep = {Side.LEFT: x < place, Side.RIGHT: x >= place, Side.BOTH: torch.ones(60, dtype=torch.bool)}[side]
        root = (K * keep).sqrt().numpy()
        design = np.stack([np.ones(60), x.numpy() - place], -1)
        truth = np.linalg.lstsq(root[:, None] * design, root * y.numpy(), rcond=None)[0][0]
        assert float(local.weights[k] @ y) == pytest.approx(truth)
        assert int(local.count[k]) == int((root > 0).sum())


def test_regression_in_a_euclidean_space_is_local_linear_regression() -> None:
    x, Y = uniform(80), gaussian(80, 2)
    places = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    fit = local_frechet_regression(Y, x, places, EuclideanSpace(), 0.2)
    w = local_linear_weights(x, places, 0.2, Epanechnikov(), Side.BOTH).weights
    torch.testing.assert_close(fit.points, w @ Y)
    gaps = (Y[None] - (w @ Y)[:, None]).square().sum(-1)
    torch.testing.assert_close(fit.variances, (w * gaps).sum(-1))
    assert local_frechet_regression(Y, x, 0.5, EuclideanSpace(), 0.2).points.shape == (1, 2)


def test_regression_follows_a_geodesic_without_noise() -> None:
    """On a great circle, and along a line of diagonal covariances in the Bures geometry, local lines are exact."""
    x = uniform(50)
    circle = torch.stack([x.cos(), x.sin(), torch.zeros_like(x)], -1)
    found = local_frechet_regression(circle, x, [0.3, 0.6], SphereSpace(), 0.25).points
    torch.testing.assert_close(found, torch.tensor([[math.cos(t), math.sin(t), 0] for t in (0.3, 0.6)], dtype=torch.float64))
    roots = torch.stack([1 + x, 2 - x], -1)
    found = local_frechet_regression(
        torch.diag_embed(roots.square()), x, 0.5, CovarianceSpace(Bures()), 0.3, side=Side.RIGHT
    ).points
    torch.testing.assert_close(found[0], torch.diag(torch.tensor([2.25, 2.25], dtype=torch.float64)), rtol=1e-6, atol=1e-6)


def plain_test(Y: np.ndarray, x: np.ndarray, c: float, h: float) -> dict[str, float]:
    """The card's formulas on vectors, written again."""
    n = len(x)

    def K(u: np.ndarray) -> np.ndarray:
        return np.where(np.abs(u) < 1, 0.75 * (1 - u**2), 0)

    w = {}
    for s, keep in (("+", x >= c), ("-", x < c)):
        k = K((x - c) / h) / h * keep
        mu = [np.sum(k * (x - c) ** j) for j in range(3)]
        w[s] = k * (mu[2] - mu[1] * (x - c)) / (mu[0] * mu[2] - mu[1] ** 2)
    w["p"] = (w["+"] + w["-"]) / 2
    mean = {s: v @ Y for s, v in w.items()}
    d2 = {s: ((Y - mean[s]) ** 2).sum(-1) for s in w}
    V = {s: np.sum(w[s] * d2[s]) for s in w}
    sig = {s: np.sum(np.abs(w[s]) * (d2[s] - V[s]) ** 2) / np.sum(np.abs(w[s])) for s in "+-"}
    size = {s: np.abs(w[s]).sum() for s in "+-"}
    lam = size["+"] / (size["+"] + size["-"])
    F = V["p"] - (V["+"] + V["-"]) / 2
    f = scipy.stats.norm.pdf((x - c) / (b := 0.9 * min(x.std(ddof=1), scipy.stats.iqr(x) / 1.34) * n**-0.2)).mean() / b
    denominator = 56832 / 12635 * (sig["+"] + sig["-"]) / f
    T = n * h * ((V["+"] - V["-"]) ** 2 / denominator + F**2 / (lam * (1 - lam) * denominator))
    return {"T": T, "p": scipy.stats.chi2.sf(T, 1), "F": F, "gap": float(((mean["+"] - mean["-"]) ** 2).sum()), "f": f}


@pytest.mark.parametrize("seed", range(3))
def test_the_statistic_against_plain_numpy(seed: int) -> None:
    x, Y = uniform(150, seed), gaussian(150, 3, seed=seed + 10)
    Y[:, 0] += 0.8 * (x >= 0.5)
    truth = plain_test(Y.numpy(), x.numpy(), 0.5, 0.25)
    found = frechet_jump_test(Y, x, 0.5, EuclideanSpace(), bandwidth=0.25)
    assert found.statistic == pytest.approx(truth["T"], rel=1e-9)
    assert found.p_value == pytest.approx(truth["p"], rel=1e-9)
    assert found.variance_component + found.mean_component == pytest.approx(found.statistic)
    assert found.jump**2 == pytest.approx(truth["gap"])
    assert truth["F"] == pytest.approx(truth["gap"] / 4)  # a fact of flat spaces
    assert found.density == pytest.approx(truth["f"])
    wanted = local_frechet_regression(Y, x, 0.5, EuclideanSpace(), 0.25, side=Side.RIGHT)
    torch.testing.assert_close(found.mean_right, wanted.points[0])
    assert found.variance_right == pytest.approx(float(wanted.variances))
    assert found.points_right == int(wanted.counts)


def test_error_of_the_design() -> None:
    """T with the other error, from its definition: e = sum w^2 (d^2 - V)^2 m / (m - 2) over both sides."""
    x, Y = uniform(150), gaussian(150, 2)
    found = frechet_jump_test(Y, x, 0.5, EuclideanSpace(), bandwidth=0.3, error=VarianceError.DESIGN)
    e = 0.0
    for side in (Side.LEFT, Side.RIGHT):
        w = local_linear_weights(x, torch.tensor([0.5], dtype=torch.float64), 0.3, Epanechnikov(), side).weights[0]
        d2 = (Y - w @ Y).square().sum(-1)
        seen = int((w != 0).sum())
        e += float((w.square() * (d2 - w @ d2).square()).sum()) * seen / (seen - 2)
    assert found.variance_component == pytest.approx((found.variance_right - found.variance_left) ** 2 / e)


def test_invariances() -> None:
    """Isometries and the unit of Y, a change of scale of X, and the exchange of the sides."""
    x, Y = uniform(120), gaussian(120, 3)
    base = frechet_jump_test(Y, x, 0.5, EuclideanSpace(), bandwidth=0.3)
    turn, _ = torch.linalg.qr(gaussian(3, 3))
    moved = frechet_jump_test(7 * (Y @ turn) + 2, x, 0.5, EuclideanSpace(), bandwidth=0.3)
    scaled = frechet_jump_test(Y, 10 * x - 3, 2.0, EuclideanSpace(), bandwidth=3.0)
    mirrored = frechet_jump_test(Y, -x, -0.5, EuclideanSpace(), bandwidth=0.3)
    for other in (moved, scaled, mirrored):
        assert other.statistic == pytest.approx(base.statistic, rel=1e-9)
    assert mirrored.variance_left == pytest.approx(base.variance_right)
    assert moved.jump == pytest.approx(7 * base.jump)


def quantile_units(x: torch.Tensor, jump: float, spread: float = 1.0, seed: int = 5) -> torch.Tensor:
    right = (x >= 0.5).double()
    z = torch.randn(len(x), 100, generator=seeded(seed), dtype=torch.float64)
    draws = (0.8 * (x - 0.5) + jump * right)[:, None] + (1 + (spread - 1) * right)[:, None] * z
    return QuantileSpace(50).from_samples(draws)


def test_planted_jumps_of_distributions_are_found_with_their_size() -> None:
    x = uniform(500, 3)
    space = QuantileSpace(50)
    none, shift, spread = (
        frechet_jump_test(quantile_units(x, j, s), x, 0.5, space, bandwidth=0.2) for j, s in ((0, 1), (0.5, 1), (0, 1.5))
    )
    assert none.p_value > 0.05
    assert shift.p_value < 1e-4
    assert shift.jump == pytest.approx(0.5, abs=0.08)
    assert spread.p_value < 1e-4
    assert spread.jump == pytest.approx(0.5, abs=0.08)  # W_2 between N(0, 1) and N(0, 1.5^2)
    assert float((spread.mean_right - spread.mean_left).mean()) == pytest.approx(0, abs=0.08)


def test_size_and_power_of_a_few_data_sets() -> None:
    rejected = [0, 0]
    for seed in range(40):
        x = uniform(200, seed)
        for k, jump in enumerate((0.0, 0.5)):
            p = frechet_jump_test(quantile_units(x, jump, seed=seed), x, 0.5, QuantileSpace(50), bandwidth=0.2).p_value
            rejected[k] += p <= 0.05
    assert rejected[0] <= 5  # P(Bin(40, 0.05) > 5) < 0.02, and the test is conservative
    assert rejected[1] >= 38


def test_every_kind_of_space() -> None:
    x = uniform(60, 2)
    S = gaussian(60, 3, 6)
    S = S @ S.mT / 6
    Y = gaussian(60, 3)
    D = torch.cdist(Y, Y)
    clouds = gaussian(60, 5, 2)
    edges = torch.rand(60, 4, 4, generator=seeded(), dtype=torch.float64).triu(1)
    custom = CustomSpace(lambda Y, o: (Y - o).norm(dim=-1), lambda Y, w: w @ Y)
    cases = {
        "affine": (S, CovarianceSpace(AffineInvariant())),
        "bures": (S, CovarianceSpace(Bures())),
        "sphere": (Y / Y.norm(dim=-1, keepdim=True), SphereSpace()),
        "laplacian": (LaplacianSpace.from_adjacency(edges + edges.mT), LaplacianSpace(1.0)),
        "custom": (Y, custom),
        "distances": (torch.arange(60), DistanceMatrixSpace(D)),
        "samples": (clouds, SampleSpace(EnergyDistance(), 2.0)),
    }
    for name, (points, space) in cases.items():
        found = frechet_jump_test(points, x, 0.5, space, bandwidth=0.4)
        assert 0 <= found.p_value <= 1, name
        assert found.outcome.ok, name
        assert (found.note is not None) == space.approximate, name
    flat = frechet_jump_test(Y, x, 0.5, EuclideanSpace(), bandwidth=0.4)
    assert frechet_jump_test(Y, x, 0.5, custom, bandwidth=0.4).statistic == pytest.approx(flat.statistic)


def test_outcomes_without_spread() -> None:
    x = uniform(60)
    space = EuclideanSpace()
    constant = frechet_jump_test(torch.ones(60, 2), x, 0.5, space, bandwidth=0.4)
    assert (constant.statistic, constant.p_value) == (0.0, 1.0)
    step = frechet_jump_test((x >= 0.5).double()[:, None], x, 0.5, space, bandwidth=0.4)
    assert (step.statistic, step.p_value) == (math.inf, 0.0)
    assert step.to_dict()["statistic"] is None


def test_float32() -> None:
    x, Y = uniform(100), gaussian(100, 2)
    single = frechet_jump_test(Y.float(), x.float(), 0.5, EuclideanSpace(), bandwidth=0.3)
    double = frechet_jump_test(Y, x.float(), 0.5, EuclideanSpace(), bandwidth=0.3)
    assert single.mean_left.dtype == torch.float32
    assert single.statistic == pytest.approx(double.statistic, rel=1e-3)


def test_cross_validated_bandwidth() -> None:
    """A line asks for the widest bandwidth, a fast wave for a narrow one; no randomness, any unit of X."""
    x = uniform(300, 4)
    noise = 0.1 * gaussian(300, 1)
    line, wave = x[:, None] + noise, torch.sin(25 * x)[:, None] + noise
    widths = [frechet_jump_test(y, x, 0.5, EuclideanSpace()).bandwidth for y in (line, wave)]
    assert widths[0] > 0.3
    assert widths[1] < 0.12
    again = frechet_jump_test(wave, 100 * x, 50.0, EuclideanSpace()).bandwidth
    assert again == pytest.approx(100 * widths[1])
    plain = frechet_jump_test(line, x, 0.5, EuclideanSpace(), bandwidth=CrossValidated(undersmooth=1.0)).bandwidth
    assert 0.87 < widths[0] / plain < 0.93  # the two grids differ a little
    one = CrossValidated(candidates=1)
    tight = frechet_jump_test(line, x, 0.5, EuclideanSpace(), bandwidth=one)
    assert min(tight.points_left, tight.points_right) == 10


def test_a_jump_of_the_density_gives_a_warning() -> None:
    x = torch.cat([uniform(100, 1) * 0.5, 0.5 + 0.5 * uniform(400, 2)])
    with pytest.warns(UserWarning, match="density of X jumps"):
        found = frechet_jump_test(gaussian(500, 2), x, 0.5, EuclideanSpace(), bandwidth=0.2)
    assert found.density_jump_p < 1e-3
    p = torch.tensor([density_jump_p(uniform(200, s), 0.5, 0.2, Epanechnikov()) for s in range(400)])
    assert 0.02 < float((p < 0.05).double().mean()) < 0.09
    z = gaussian(20_000)
    assert density_at(z, 0.5) == pytest.approx(scipy.stats.norm.pdf(0.5), rel=0.05)


def test_anova_against_plain_numpy() -> None:
    groups = [gaussian(n, 2, seed=n) * s for n, s in ((30, 1.0), (40, 1.2), (25, 0.9))]
    arrays = [g.numpy() for g in groups]
    n, lam = 95, np.array([30, 40, 25]) / 95
    d2 = [((a - a.mean(0)) ** 2).sum(-1) for a in arrays]
    V, s2 = np.array([d.mean() for d in d2]), np.array([d.var() for d in d2])
    pooled = np.concatenate(arrays)
    F = ((pooled - pooled.mean(0)) ** 2).sum(-1).mean() - lam @ V
    U = sum(lam[i] * lam[j] * (V[i] - V[j]) ** 2 / (s2[i] * s2[j]) for i in range(3) for j in range(i + 1, 3))
    T = n * U / (lam / s2).sum() + n * F**2 / (lam**2 * s2).sum()
    found = frechet_anova(groups, EuclideanSpace())
    assert found.statistic == pytest.approx(T)
    assert found.p_value == pytest.approx(scipy.stats.chi2.sf(T, 2))
    torch.testing.assert_close(found.variances, torch.from_numpy(V))


def test_anova_by_permutation() -> None:
    groups = [gaussian(15, 2, seed=3), gaussian(12, 2, seed=4) + 2]
    first, again = (frechet_anova(groups, EuclideanSpace(), permutations=199, generator=seeded(1)) for _ in range(2))
    assert first.to_dict() == again.to_dict()
    assert first.p_value == 1 / 200
    p = [
        frechet_anova(
            [gaussian(8, 1, seed=s), gaussian(10, 1, seed=1000 + s)], EuclideanSpace(), permutations=19, generator=seeded(s)
        )
        for s in range(200)
    ]
    low = sum(r.p_value <= 0.05 for r in p)
    assert 1 <= low <= 22  # Bin(200, 0.05), 99.9 %
    covariances = gaussian(20, 2, 5)
    covariances = covariances @ covariances.mT
    curved = frechet_anova([covariances[:10], covariances[10:]], CovarianceSpace(AffineInvariant()), permutations=9)
    assert 0.1 <= curved.p_value <= 1


def test_anova_takes_a_trend_for_a_jump_and_the_jump_test_does_not() -> None:
    x = uniform(300, 8)
    Y = quantile_units(x, 0.0)
    assert frechet_anova([Y[x < 0.5], Y[x >= 0.5]], QuantileSpace(50)).p_value < 1e-4
    assert frechet_jump_test(Y, x, 0.5, QuantileSpace(50), bandwidth=0.2).p_value > 0.05


X, FLAT = uniform(60), EuclideanSpace()
Y2 = gaussian(60, 2)
BAD = {
    "cutoff outside": (lambda: frechet_jump_test(Y2, X, 1.5, FLAT), "outside the range"),
    "cutoff at the least": (lambda: frechet_jump_test(Y2, X, float(X.min()), FLAT), "outside the range"),
    "cutoff nan": (lambda: frechet_jump_test(Y2, X, math.nan, FLAT), "finite"),
    "few in all": (lambda: frechet_jump_test(Y2, X, 0.01 + float(X.min()), FLAT), "at least 10 points, got"),
    "few in the window": (lambda: frechet_jump_test(Y2, X, 0.5, FLAT, bandwidth=0.05), "points left and"),
    "equal X": (lambda: frechet_jump_test(Y2, (X > 0.5).double(), 0.5, FLAT), "are equal"),
    "equal X in the window": (
        lambda: frechet_jump_test(
            Y2, torch.where(X > 0.6, X, (X > 0.5).double() * 0.55), 0.5, FLAT, bandwidth=0.08, min_points=3
        ),
        "equal|at least 3",
    ),
    "lengths": (lambda: frechet_jump_test(Y2[:50], X, 0.5, FLAT), "must be paired"),
    "X in the plane": (lambda: frechet_jump_test(Y2, Y2, 0.5, FLAT), "one number"),
    "nan in X": (lambda: frechet_jump_test(Y2, torch.where(X > 0.9, math.nan, X), 0.5, FLAT), "non-finite"),
    "nan in Y": (lambda: frechet_jump_test(torch.where(Y2 > 1, math.nan, Y2), X, 0.5, FLAT), "non-finite"),
    "no covariance": (lambda: frechet_jump_test(-torch.eye(2).expand(60, 2, 2), X, 0.5, CovarianceSpace()), "no covariance"),
    "no Laplacian": (lambda: frechet_jump_test(torch.eye(2).expand(60, 2, 2), X, 0.5, LaplacianSpace()), "no Laplacian"),
    "falling quantiles": (lambda: frechet_jump_test(-torch.arange(5.0).expand(60, 5), X, 0.5, QuantileSpace(5)), "decrease"),
    "bandwidth": (lambda: frechet_jump_test(Y2, X, 0.5, FLAT, bandwidth=-1.0), "positive"),
    "min_points": (lambda: frechet_jump_test(Y2, X, 0.5, FLAT, min_points=2), "at least 3"),
    "folds": (lambda: CrossValidated(folds=1), "folds"),
    "undersmooth": (lambda: CrossValidated(undersmooth=1.5), "undersmooth"),
    "empty window": (lambda: local_frechet_regression(Y2, X, 5.0, FLAT, 0.1), r"sees 0 point\(s\)"),
    "one group": (lambda: frechet_anova([Y2], FLAT), "at least two"),
    "one point": (lambda: frechet_anova([Y2, Y2[:1]], FLAT), "a variance needs two"),
    "shapes": (lambda: frechet_anova([Y2, Y2[:, :1]], FLAT), "shape"),
    "permutations": (lambda: frechet_anova([Y2, Y2], FLAT, permutations=0), "at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types() -> None:
    for call in (
        lambda: frechet_jump_test(Y2, X, 0.5, "wasserstein"),
        lambda: frechet_jump_test(Y2, X, 0.5, FLAT, kernel="epanechnikov"),
        lambda: frechet_jump_test(Y2, X, 0.5, FLAT, error="design"),
        lambda: local_frechet_regression(Y2, X, 0.5, FLAT, 0.3, side="left"),
        lambda: frechet_anova([Y2, Y2], "flat"),
    ):
        with pytest.raises(TypeError):
            call()


def test_result_prints_and_cites() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = frechet_jump_test(Y2, X, 0.5, FLAT, bandwidth=0.4)
    assert "variance_component" in repr(found)
    assert found.to_dict()["points_left"] == found.points_left
    assert "Dijcke" in cite(found)
    assert "Dubey" in cite(frechet_anova([Y2, Y2 + 1], FLAT))
