"""Divergences from log-ratios: exact on finite laws at the true ratio, a lower bound elsewhere, honest about the spread."""

import math

import pytest
import torch

from discrepancy import (
    KL,
    Alpha,
    CauchySchwarz,
    ChiSquared,
    CustomDivergence,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.estimation.ratios import CalibrationReport, Logistic, OneStep, PlugIn
from discrepancy.estimation.ratios.calibration import logistic_line, recalibrated
from discrepancy.estimation.ratios.evaluation import HeldOut, _gap

P = torch.tensor([2, 5, 1, 8, 4], dtype=torch.float64) / 20
Q = torch.tensor([4, 4, 6, 1, 5], dtype=torch.float64) / 20
LOG_R = (P / Q).log()
# Every point as often as its law says: means over these are expectations.
AT_P, AT_Q = (LOG_R.repeat_interleave((law * 20).round().long()) for law in (P, Q))
DIVERGENCES = [
    KL(), ReverseKL(), Jeffreys(), JensenShannon(), Alpha(0.3), SquaredHellinger(), ChiSquared(), NeymanChiSquared(), LeCam(),
    TotalVariation(), 2 * JensenShannon() + KL(), KL().reversed(), KL().skewed(0.2), CustomDivergence(lambda t: (t - 1) ** 4),
]  # fmt: skip
NAMES = [f"{k}-{type(f).__name__}" for k, f in enumerate(DIVERGENCES)]


def value(evaluation, f, at_p, at_q):
    return float(evaluation(f, HeldOut.of(at_p, at_q), 0.95, "test"))


@pytest.mark.parametrize("f", DIVERGENCES, ids=NAMES)
@pytest.mark.parametrize("evaluation", [OneStep(), PlugIn()], ids=["one-step", "plug-in"])
def test_exact_at_the_true_ratio_of_finite_laws(f, evaluation):
    truth = float(f.from_probs(P, Q))
    assert value(evaluation, f, AT_P, AT_Q) == pytest.approx(truth, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("f", DIVERGENCES, ids=NAMES)
def test_one_step_is_a_lower_bound_at_any_ratio_with_an_error_of_second_order(f):
    truth = float(f.from_probs(P, Q))
    generator = torch.Generator().manual_seed(1)
    wrong = torch.randn(5, generator=generator, dtype=torch.float64)
    gaps = []
    for size in (0.02, 0.2):
        bent = LOG_R + size * wrong
        at_p, at_q = (bent.repeat_interleave((law * 20).round().long()) for law in (P, Q))
        gaps.append(truth - value(OneStep(), f, at_p, at_q))
    assert min(gaps) >= -1e-9
    if f.smooth:
        assert gaps[0] < gaps[1] / 30  # ten times the error, about a hundred times the gap


@pytest.mark.parametrize("f", DIVERGENCES, ids=NAMES)
@pytest.mark.parametrize("evaluation", [OneStep(), PlugIn()], ids=["one-step", "plug-in"])
def test_exchanging_the_samples_is_reversing_the_divergence(f, evaluation):
    generator = torch.Generator().manual_seed(2)
    at_p, at_q = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (30, 50))
    assert value(evaluation, f, at_p, at_q) == pytest.approx(value(evaluation, f.reversed(), -at_q, -at_p), rel=1e-9)


def test_the_interval_is_that_of_two_means():
    generator = torch.Generator().manual_seed(3)
    # The log-ratio of N(1/8, 1/4) over N(-1/8, 1/4) at u is u.
    at_p, at_q = (m + torch.randn(k, generator=generator).double() / 2 for m, k in ((0.125, 400), (-0.125, 300)))
    found = OneStep()(JensenShannon(), HeldOut.of(at_p, at_q), 0.9, "test")
    one, two = torch.nn.functional.logsigmoid(at_p) / 2, torch.nn.functional.logsigmoid(-at_q) / 2
    assert float(found) == pytest.approx(math.log(2) + float(one.mean() + two.mean()), abs=1e-12)
    error = math.sqrt(float(one.var()) / 400 + float(two.var()) / 300)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.high - found.low == pytest.approx(2 * 1.6448536269514722 * error, rel=1e-9)


def test_no_interval_where_few_points_carry_the_spread_or_the_ratio_is_biased():
    generator = torch.Generator().manual_seed(4)
    at_p, at_q = 5 + torch.randn(500, generator=generator).double(), -5 + torch.randn(500, generator=generator).double()
    at_q[0] = 12.0
    found = OneStep()(KL(), HeldOut.of(at_p, at_q), 0.95, "test")
    assert found.standard_error is None
    assert "carries" in found.note
    # The log-ratio of N(1/8, 1/4) over N(-1/8, 1/4) at u is u.
    at_p, at_q = (m + torch.randn(2000, generator=generator).double() / 2 for m in (0.125, -0.125))
    assert OneStep()(KL(), HeldOut.of(at_p, at_q), 0.95, "test").standard_error is not None
    biased = OneStep()(JensenShannon(), HeldOut.of(3 * at_p, 3 * at_q), 0.95, "test")
    assert biased.standard_error is None
    assert "biased" in biased.note
    overflow = OneStep()(KL(), HeldOut.of(at_p, at_q + 1e4), 0.95, "test")
    assert float(overflow) == -math.inf
    assert "overflows" in overflow.note
    assert math.isfinite(float(PlugIn()(KL(), HeldOut.of(1e4 + at_p, at_q - 1e4), 0.95, "test")))


def test_the_variance_of_the_ratio_raises_the_upper_end_by_what_it_takes_from_the_value():
    """At log r + noise of variance s the bound loses about E_P[r f''(r)] s / 2: for KL, s / 2."""
    generator = torch.Generator().manual_seed(5)
    at_p, at_q = (m + torch.randn(300_000, generator=generator).double() / 2 for m in (0.125, -0.125))
    noise = [0.2 * torch.randn(300_000, generator=generator).double() for _ in range(2)]
    spread = torch.full_like(at_p, 0.04)
    for f in (KL(), JensenShannon(), SquaredHellinger()):
        exact, noisy = value(OneStep(), f, at_p, at_q), value(OneStep(), f, at_p + noise[0], at_q + noise[1])
        assert _gap(f, HeldOut(at_p, at_q, spread)) == pytest.approx(exact - noisy, rel=0.15)
    assert _gap(KL(), HeldOut(at_p, at_q, spread)) == pytest.approx(0.02, abs=1e-9)
    assert _gap(TotalVariation(), HeldOut(at_p, at_q, spread)) == 0
    raised, plain = (OneStep()(KL(), h, 0.95, "test") for h in (HeldOut(at_p, at_q, spread), HeldOut.of(at_p, at_q)))
    assert raised.high == pytest.approx(plain.high + 0.02, abs=1e-9)
    assert raised.low == plain.low


def test_plug_in_gives_no_interval():
    found = PlugIn()(KL(), HeldOut.of(AT_P, AT_Q), 0.95, "test")
    assert found.standard_error is None
    assert "first order" in found.note


def test_calibration_of_the_true_ratio_and_of_a_bent_one():
    report = CalibrationReport.of(AT_P, AT_Q)
    assert report.mean_ratio == pytest.approx(1, abs=1e-12)
    assert report.mean_inverse == pytest.approx(1, abs=1e-12)
    assert report.slope == pytest.approx(1, abs=1e-6)
    assert report.intercept == pytest.approx(0, abs=1e-6)
    assert report.error == pytest.approx(0, abs=1e-12)
    bent = CalibrationReport.of(0.3 + 2 * AT_P, 0.3 + 2 * AT_Q)
    assert bent.slope == pytest.approx(0.5, abs=1e-6)
    assert bent.intercept == pytest.approx(-0.15, abs=1e-6)
    assert bent.error > 0.05
    back = recalibrated(0.3 + 2 * AT_P, 0.3 + 2 * AT_Q)
    torch.testing.assert_close(back[0], AT_P, atol=1e-6, rtol=0)


def test_calibration_line_against_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(5)
    at_p, at_q = 1 + 2 * torch.randn(70, generator=generator).double(), 2 * torch.randn(40, generator=generator).double() - 1
    a, b = logistic_line(at_p, at_q)
    rows = torch.cat([at_p, at_q])[:, None].numpy()
    label = [1] * 70 + [0] * 40
    fitted = LogisticRegression(C=1e10, tol=1e-12, max_iter=10_000).fit(rows, label, sample_weight=[40 / 70] * 70 + [1.0] * 40)
    assert a == pytest.approx(float(fitted.intercept_[0]), abs=1e-4)
    assert b == pytest.approx(float(fitted.coef_[0, 0]), abs=1e-4)


def test_calibration_line_of_separable_and_of_constant_scores():
    one, two = torch.tensor([2.0, 3.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert logistic_line(one, two) == (0.0, math.inf)
    assert logistic_line(two, one) == (0.0, -math.inf)
    assert logistic_line(torch.ones(3).double(), torch.ones(2).double()) == (0.0, 0.0)


def test_what_is_no_f_divergence_is_refused():
    x = torch.randn(50, 1)
    with pytest.raises(TypeError, match="FDivergence"):
        Logistic()(CauchySchwarz(), x, x)
    with pytest.raises(TypeError, match=r"KL\(\)"):
        Logistic()(KL, x, x)
