"""Every density-ratio method on laws of known ratio, and what all of them share: seeds, orientation, sizes, errors."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from discrepancy import KL, JensenShannon, NumericalError, density_ratio, estimate
from discrepancy.estimation.ratios import (
    KLIEP,
    ULSIF,
    Classifier,
    DensityRatio,
    Joined,
    KernelFeatures,
    Logistic,
    NeuralLogistic,
    OneStep,
    PlugIn,
    Quadratic,
    RelativeULSIF,
    Telescoping,
    TimeScore,
    Widths,
)
from discrepancy.estimation.ratios.calibration import CalibrationReport
from discrepancy.estimation.ratios.least_squares import left_out_loss, solution
from discrepancy.estimation.ratios.logistic import _left_out_loss, _newton
from discrepancy.kernels import Laplacian
from discrepancy.learning import Training
from discrepancy.networks import MLP

P = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
Q = MultivariateNormal(torch.tensor([0.7, 0.0], dtype=torch.float64), 1.44 * torch.eye(2, dtype=torch.float64))


def drawn(n, m, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 2, generator=generator).double(), torch.randn(m, 2, generator=generator).double()
    return x, 1.2 * y + Q.mean


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quick_time_score(**options):
    return TimeScore(network=MLP(32, 2), training=Training(300, 5e-3, final_share=0.0), batch_size=256, **options)


def quick_network(**options):
    return NeuralLogistic(MLP(32, 1), Training(200, 5e-3), **options)


def methods():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "logistic": (Logistic(), 0.25),
        "logistic kernels": (Logistic(KernelFeatures(Laplacian(), centers=50)), 0.5),
        "KLIEP": (KLIEP(), 0.8),
        "uLSIF": (ULSIF(), 0.4),
        "RuLSIF": (RelativeULSIF(share=0.3), 0.4),
        "classifier": (Classifier(LogisticRegression(), calibrate=False), 0.5),  # linear: misses the square
        "forest": (Classifier(RandomForestClassifier(30, min_samples_leaf=10)), 0.7),
        "support vectors": (Classifier(SVC()), 0.8),
        "network": (quick_network(), 0.4),
        "telescoping": (Telescoping(bridges=3), 0.35),
        "time score": (quick_time_score(), 0.4),
    }


METHODS = methods()


@pytest.mark.parametrize("name", METHODS)
def test_gaussians_of_unequal_sizes(name):
    """Unequal sizes: a prior that is not taken out would shift every log-ratio by log 2."""
    method, tolerance = METHODS[name]
    x, y = drawn(2000, 1000, seed=1) if isinstance(method, Logistic) else drawn(1000, 500, seed=1)
    ratio = density_ratio(x, y, method, generator=seeded())
    points = torch.cat(drawn(400, 400, seed=2))
    truth = P.log_prob(points) - Q.log_prob(points)
    found = ratio.log_ratio(points)
    assert found.dtype == torch.float64
    assert float((found - truth).square().mean().sqrt()) < tolerance
    assert float((found - truth).median()) == pytest.approx(0, abs=0.25)
    torch.testing.assert_close(ratio.ratio(points), found.exp())
    assert float(ratio.weights.sum()) == pytest.approx(1, abs=1e-12)
    assert ratio.effective_sample_size == pytest.approx(1 / float(ratio.weights.square().sum()), rel=1e-9)
    truth_weights = torch.softmax(P.log_prob(y) - Q.log_prob(y), 0)
    assert ratio.effective_sample_size == pytest.approx(1 / float(truth_weights.square().sum()), rel=0.35)


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bits_and_exchanged_samples_change_the_sign(name):
    method, _ = METHODS[name]
    x, y = drawn(300, 300, seed=3)
    y = (y - Q.mean) / 1.2 + 1.0  # of the same width, so that neither ratio is unbounded beyond the other's reach
    one, two = (density_ratio(x, y, method, generator=seeded(5)).log_ratio(x) for _ in range(2))
    assert torch.equal(one, two)
    swapped = density_ratio(y, x, method, generator=seeded(5)).log_ratio(x)
    seen = (x - 0.5).square().sum(1) < 2  # beyond both samples a sum of bumps falls to nothing in either direction
    assert float(torch.corrcoef(torch.stack([one[seen], swapped[seen]]))[0, 1]) < -0.5


@pytest.mark.parametrize("name", METHODS)
def test_float32_strided_and_pickled(name):
    method, _ = METHODS[name]
    x, y = drawn(120, 100, seed=4)
    wide = torch.stack([x, x], -1).float()[..., 0]
    assert not wide.is_contiguous()
    ratio = density_ratio(wide, y.float(), method, generator=seeded())
    found = ratio.log_ratio(wide)
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())
    again = density_ratio(np.asarray(wide), np.asarray(y.float()), method, generator=seeded()).log_ratio(wide)
    assert torch.equal(found, again)
    assert torch.equal(pickle.loads(pickle.dumps(ratio)).log_ratio(wide), found)


@pytest.mark.parametrize("name", ["logistic", "network", "telescoping", "time score", "KLIEP", "uLSIF"])
def test_estimates_through_the_front_door(name):
    method, _ = METHODS[name]
    x, y = drawn(600, 600, seed=6)
    truth = float(kl_divergence(P, Q))
    found = estimate(x, y, KL(), method=method, generator=seeded())
    assert float(found) == pytest.approx(truth, abs=0.12)
    assert type(method).__name__ in found.method


def test_interval_of_the_default_holds_the_truth():
    x, y = drawn(1500, 1200, seed=7)
    found = estimate(x, y, KL(), method=Logistic(), generator=seeded())
    assert found.low < float(kl_divergence(P, Q)) < found.high
    assert found.standard_error < 0.05


def test_an_overfitted_ratio_cannot_report_a_high_value():
    x, y = drawn(150, 150, seed=8)
    y = x[torch.randperm(150, generator=seeded())] + 1e-9  # one law
    memory = Logistic(KernelFeatures(Laplacian(0.01), centers=300), ridge=1e-8)
    ratio = density_ratio(x, y, memory, generator=seeded())
    assert float(ratio.divergence(KL())) < 0.05
    assert float(ratio.held_out_score()) <= 0.02


def test_held_out_parts_of_the_result():
    x, y = drawn(500, 400, seed=9)
    ratio = density_ratio(x, y, generator=seeded())
    assert isinstance(ratio, DensityRatio)
    report = ratio.calibration()
    assert isinstance(report, CalibrationReport)
    assert report.mean_ratio == pytest.approx(1, abs=0.15)
    assert report.slope == pytest.approx(1, abs=0.3)
    score = ratio.held_out_score()
    assert 0 < float(score) < math.log(2)
    assert float(score) == float(ratio.divergence(JensenShannon(), evaluation=OneStep()))
    assert ratio.divergence(KL(), evaluation=PlugIn()).standard_error is None
    assert float(ratio.divergence(KL())) == float(ratio.divergence(KL()))
    assert "effective_sample_size" in repr(ratio)
    assert set(ratio.to_dict()) == {"method", "effective_sample_size", "n", "m", "dimension"}


def test_equal_samples_have_ratio_one():
    x, _ = drawn(400, 1, seed=10)
    ratio = density_ratio(x, x.clone(), generator=seeded())
    assert float(ratio.log_ratio(x).abs().max()) < 1e-6
    assert ratio.effective_sample_size == pytest.approx(400, rel=1e-6)


def test_invariance_to_affine_maps_and_huge_units():
    x, y = drawn(300, 300, seed=11)
    points = x[:50]
    plain = density_ratio(x, y, Logistic(ridge=1e-3), generator=seeded()).log_ratio(points)
    for scale, shift in ((1e150, 0.0), (1e-150, 0.0), (3.0, 7.0)):
        moved = density_ratio(x * scale + shift, y * scale + shift, Logistic(ridge=1e-3), generator=seeded())
        torch.testing.assert_close(moved.log_ratio(points * scale + shift), plain, rtol=1e-6, atol=1e-6)


def test_constant_columns_and_more_columns_than_rows():
    x, y = drawn(60, 60, seed=12)
    constant = torch.ones(60, 1, dtype=torch.float64)
    plain = density_ratio(x, y, Logistic(ridge=1e-2), generator=seeded()).log_ratio(x)
    wider = [torch.cat([s, constant], 1) for s in (x, y)]
    torch.testing.assert_close(density_ratio(*wider, Logistic(ridge=1e-2), generator=seeded()).log_ratio(wider[0]), plain)
    wide = torch.randn(30, 50, generator=seeded(1)), torch.randn(25, 50, generator=seeded(2))
    assert bool(torch.isfinite(density_ratio(*wide, generator=seeded()).log_ratio(wide[0])).all())


# -- the methods, one by one --------------------------------------------------------------------------------------------


def test_logistic_meets_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y = drawn(80, 50, seed=13)
    model = Logistic(Quadratic(), ridge=0.01).fit(x, y, seeded())
    rows = ((model.features(model.scaling(torch.cat([x, y]))) - model.centre) / model.spread).numpy()
    # A mean of losses with weights 1/2n, 1/2m against a sum of losses times C.
    weight = np.r_[np.full(80, 0.5 / 80), np.full(50, 0.5 / 50)]
    peer = LogisticRegression(C=100.0, tol=1e-12, max_iter=10_000).fit(rows, [1] * 80 + [0] * 50, sample_weight=weight)
    np.testing.assert_allclose(model.beta[1:].numpy(), peer.coef_[0], atol=1e-5)
    assert float(model.beta[0]) == pytest.approx(float(peer.intercept_[0]), abs=1e-5)


def test_logistic_left_out_loss_is_near_the_refitted_one():
    """The formula is one Newton step without the row: its error is of second order in the row's leverage."""
    x, y = drawn(100, 100, seed=14)
    design = torch.cat([torch.ones(200, 1, dtype=torch.float64), torch.cat([x, y])], 1)
    sign = torch.cat([torch.ones(100), -torch.ones(100)]).double()
    weight = torch.full((200,), 0.5 / 100, dtype=torch.float64)
    start = torch.zeros(3, dtype=torch.float64)
    beta, _ = _newton(design, sign, weight, 0.01, start)
    exact = 0.0
    for i in range(200):
        kept = torch.arange(200) != i
        without, _ = _newton(design[kept], sign[kept], weight[kept], 0.01, start)
        exact += float(weight[i] * torch.nn.functional.softplus(-sign[i] * (design[i] @ without)))
    fitted = float((weight * torch.nn.functional.softplus(-sign * (design @ beta))).sum())
    found = _left_out_loss(design, sign, weight, 0.01, beta)
    assert abs(found - exact) < 0.05 * (exact - fitted)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_least_squares_left_out_loss_is_that_of_refitting(share):
    generator = seeded(15)
    at_x, at_y = (torch.rand(k, 6, generator=generator, dtype=torch.float64) for k in (12, 9))
    ridge = 0.05

    def fitted(rows_x, rows_y):
        return solution(rows_x, rows_y, share, ridge).clamp_min(0)

    at_p = torch.stack([at_x[i] @ fitted(at_x[torch.arange(12) != i], at_y) for i in range(12)])
    at_q = torch.stack([at_y[j] @ fitted(at_x, at_y[torch.arange(9) != j]) for j in range(9)])
    exact = share * at_p.square().mean() / 2 + (1 - share) * at_q.square().mean() / 2 - at_p.mean()
    assert left_out_loss(at_x, at_y, share, ridge) == pytest.approx(float(exact), rel=1e-10)


def test_least_squares_solution_has_no_gradient():
    generator = seeded(16)
    at_x, at_y = (torch.rand(k, 6, generator=generator, dtype=torch.float64) for k in (12, 9))
    theta = solution(at_x, at_y, 0.3, 0.05).requires_grad_()
    mixed = 0.3 * (at_x @ theta).square().mean() + 0.7 * (at_y @ theta).square().mean()
    loss = mixed / 2 - (at_x @ theta).mean() + 0.05 * theta.square().sum() / 2
    (slope,) = torch.autograd.grad(loss, theta)
    assert float(slope.abs().max()) < 1e-12


def test_relative_ratio_is_bounded_and_consistent():
    x, y = drawn(800, 800, seed=17)
    model = RelativeULSIF(share=0.5).fit(x, y, seeded())
    truth = P.log_prob(x) - torch.log(0.5 * P.log_prob(x).exp() + 0.5 * Q.log_prob(x).exp())
    found = model.relative_log_ratio(x)
    assert float(found.max()) < math.log(2) + 0.2
    assert float((found - truth).square().mean().sqrt()) < 0.15


def test_kliep_is_normalised_and_optimal():
    from scipy.optimize import minimize

    x, y = drawn(150, 120, seed=18)
    model = KLIEP(Widths((0.5,)), centers=8, tolerance=1e-9, max_iterations=200_000).fit(x, y, seeded())
    inside_x, inside_y = model.scaling(x), model.scaling(y)
    at_x, at_y = model.bumps.values(inside_x), model.bumps.values(inside_y)
    assert float((at_y @ model.theta).mean()) + model.constant == pytest.approx(1, abs=1e-12)
    assert bool((model.theta >= 0).all())
    assert model.constant >= 0
    values = np.column_stack([at_x.numpy(), np.ones(len(x))])
    mean = np.append(at_y.mean(0).numpy(), 1)

    def loss(theta):
        return -np.log(values @ theta).mean()

    start = np.full(9, 1 / 9) / mean
    limit = {"type": "eq", "fun": lambda theta: mean @ theta - 1}
    options = {"ftol": 1e-14, "maxiter": 500}
    peer = minimize(loss, start, bounds=[(0, None)] * 9, constraints=[limit], method="SLSQP", options=options)
    assert loss(np.append(model.theta.numpy(), model.constant)) == pytest.approx(peer.fun, abs=1e-7)


@pytest.mark.parametrize("seed", [0, 2])
def test_kliep_holds_where_no_bump_reaches(seed):
    # N(0, I) and N(.5, I), .25 nats: chosen by held-out points of P alone, the width gave -3.9 and the like on new points.
    draw = seeded(seed)
    x, y = torch.randn(600, 2, generator=draw), 0.5 + torch.randn(500, 2, generator=draw)
    found = estimate(x, y, KL(), method=KLIEP(), generator=seeded())
    assert found.value == pytest.approx(0.25, abs=0.1)
    assert found.low < 0.25 < found.high
    far = KLIEP().fit(x, y, seeded()).log_ratio(torch.full((1, 2), -50.0))
    assert -30 < float(far) < 5


def test_kliep_says_when_it_stops_early_and_when_the_samples_are_too_far_apart():
    from discrepancy import ConvergenceWarning

    x, y = drawn(60, 60, seed=19)
    with pytest.warns(ConvergenceWarning, match="KLIEP"):
        density_ratio(x, y, KLIEP(tolerance=1e-12, max_iterations=3), generator=seeded())
    with pytest.raises(ValueError, match="too far apart"):
        density_ratio(x, y + 1e6, KLIEP(Widths((1e-4,))), generator=seeded())


def test_a_certain_classifier_is_refused_until_it_is_calibrated():
    from sklearn.tree import DecisionTreeClassifier

    x, y = drawn(200, 200, seed=20)
    with pytest.raises(NumericalError, match="calibrate=True"):
        density_ratio(x, y, Classifier(DecisionTreeClassifier(), calibrate=False), generator=seeded())
    ratio = density_ratio(x, y, Classifier(DecisionTreeClassifier(max_leaf_nodes=20)), generator=seeded())
    assert ratio.calibration().slope > 0.5
    with pytest.raises(TypeError, match="fit"):
        Classifier(DecisionTreeClassifier)
    with pytest.raises(TypeError, match="fit"):
        Classifier("forest")


def test_telescoping_crosses_a_chasm_that_one_ratio_does_not():
    generator = seeded(21)
    x, y = 6 + torch.randn(1000, 1, generator=generator).double(), torch.randn(1000, 1, generator=generator).double()
    points = torch.cat([x, y])
    truth = (Normal(6.0, 1.0).log_prob(points) - Normal(0.0, 1.0).log_prob(points))[:, 0]
    features = Logistic(Joined((Quadratic(),)), ridge=1e-3)
    errors = [
        float((density_ratio(x, y, m, generator=seeded()).log_ratio(points) - truth).square().mean().sqrt())
        for m in (features, Telescoping(features, bridges=8))
    ]
    assert errors[1] < errors[0] / 3
    model = Telescoping(features, bridges=8).fit(x, y, seeded())
    terms = model.bridge_log_ratios(points)
    assert terms.shape == (8, 2000)
    torch.testing.assert_close(terms.sum(0), model.log_ratio(points))


def test_mutual_information_by_ratio():
    from discrepancy import mutual_information

    generator = seeded(22)
    a, e = torch.randn(1500, 1, generator=generator), torch.randn(1500, 1, generator=generator)
    b = 0.7 * a + math.sqrt(1 - 0.49) * e
    truth = -0.5 * math.log(1 - 0.49)
    found = mutual_information(a, b, Logistic(), generator=seeded())
    assert found.low < truth < found.high
    assert float(mutual_information(a, b, Logistic(), generator=seeded())) == float(found)
    null = mutual_information(a, e, Logistic(), generator=seeded())
    assert float(null) == pytest.approx(0, abs=0.02)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x, y: density_ratio(x, y[:, :1]), ValueError, "features"),
        (lambda x, y: density_ratio(x.where(x < 1, torch.nan), y), ValueError, "non-finite"),
        (lambda x, y: density_ratio(x[:4], y), ValueError, "rows"),
        (lambda x, y: density_ratio(x[None].expand(2, -1, -1), y), ValueError, "batch"),
        (lambda x, y: density_ratio(x, y, Logistic), TypeError, r"Logistic\(\)"),
        (lambda x, y: density_ratio(x, y, "kliep"), TypeError, "method"),
        (lambda x, y: density_ratio(x, y).log_ratio(x[:, :1]), ValueError, "points"),
        (lambda x, y: density_ratio(x, y).divergence(KL(), evaluation="plug-in"), TypeError, "OneStep"),
        (lambda x, y: estimate(x, y, KL(), method=Logistic(), a=torch.ones(50)), ValueError, "weights"),
        (lambda x, y: Logistic(ridge=-1.0), ValueError, "ridge"),
        (lambda x, y: Logistic(folds=1), ValueError, "folds"),
        (lambda x, y: Logistic(evaluation="one"), TypeError, "evaluation"),
        (lambda x, y: Logistic("kernel"), TypeError, "features"),
        (lambda x, y: Quadratic(3), ValueError, "degree"),
        (lambda x, y: KernelFeatures(centers=0), ValueError, "centers"),
        (lambda x, y: KernelFeatures("rbf"), TypeError, "kernel"),
        (lambda x, y: Joined(()), ValueError, "at least one"),
        (lambda x, y: Widths((0.0,)), ValueError, "factors"),
        (lambda x, y: KLIEP(tolerance=0.0), ValueError, "tolerance"),
        (lambda x, y: KLIEP(widths=(1.0,)), TypeError, "widths"),
        (lambda x, y: ULSIF(ridges=()), ValueError, "ridges"),
        (lambda x, y: ULSIF(ridges=(0.0,)), ValueError, "ridges"),
        (lambda x, y: RelativeULSIF(share=1.0), ValueError, "share"),
        (lambda x, y: Telescoping(bridges=1), ValueError, "bridges"),
        (lambda x, y: Telescoping("logistic"), TypeError, "bridge"),
        (lambda x, y: NeuralLogistic(held_out_share=1.0), ValueError, "held_out_share"),
    ],
)
def test_wrong_input(make, error, message):
    x, y = drawn(50, 50, seed=23)
    with pytest.raises(error, match=message):
        make(x, y)
