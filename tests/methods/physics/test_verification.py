"""Scores of ensembles and events, regridding, scalers, quantile mapping, random fields: against definitions and known laws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from discrepancy.methods.physics.baselines import QuantileMapping
from discrepancy.methods.physics.grids import bilinear, block_mean
from discrepancy.methods.physics.scalers import LinearScaler, Log1pScaler
from discrepancy.methods.physics.verification import (
    critical_success_index,
    crps,
    extremes_report,
    fractions_skill_score,
    radial_spectrum,
)
from discrepancy.testing.random_fields import SyntheticRain, gaussian_random_field


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def test_crps_against_its_two_definitions():
    x, y = torch.randn(7, 3, dtype=torch.float64, generator=seeded()), torch.randn(3, dtype=torch.float64, generator=seeded(1))
    error, pairs = (x - y).abs().mean(0), (x[:, None] - x[None]).abs().sum((0, 1))
    assert torch.allclose(crps(x, y, fair=False), error - pairs / (2 * 49))
    assert torch.allclose(crps(x, y), error - pairs / (2 * 42))
    # the integral of (F_M - step)^2, exactly, piece by piece
    for k in range(3):
        knots = np.sort(np.append(x[:, k].numpy(), float(y[k])))
        middle = (knots[1:] + knots[:-1]) / 2
        F = (x[:, k].numpy()[:, None] <= middle).mean(0)
        integral = float((np.diff(knots) * (F - (middle >= float(y[k]))) ** 2).sum())
        assert float(crps(x, y, fair=False)[k]) == pytest.approx(integral)
    assert torch.equal(crps(x[:1], y), (x[0] - y).abs())


def test_fair_crps_of_a_gaussian():
    # E CRPS(N(0,1), 0) = sqrt(2/pi) - 1/sqrt(pi), whatever the number of members
    truth = math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi)
    for m in (2, 8):
        x = torch.randn(m, 200_000, dtype=torch.float64, generator=seeded())
        assert float(crps(x, torch.zeros(200_000, dtype=torch.float64)).mean()) == pytest.approx(truth, abs=0.01)


def test_event_scores_by_hand():
    truth = torch.zeros(1, 4, 4)
    truth[0, 0, :2] = 5.0
    forecast = torch.zeros(1, 4, 4)
    forecast[0, 0, 1:4] = 5.0  # one hit, two false alarms, one miss
    assert float(critical_success_index(forecast, truth, 5.0)) == pytest.approx(1 / 4)
    assert float(critical_success_index(truth, truth, 100.0)) == 1
    assert float(fractions_skill_score(forecast, truth, 5.0, 1)) == pytest.approx(1 - 3 / 5)
    assert float(fractions_skill_score(truth, truth, 5.0, 3)) == 1
    assert float(fractions_skill_score(truth, truth, 100.0, 3)) == 1
    wide = float(fractions_skill_score(forecast, truth, 5.0, 4))
    assert wide == pytest.approx(1 - (1 / 16) ** 2 / ((3 / 16) ** 2 + (2 / 16) ** 2))  # displacement forgiven, the count not
    with pytest.raises(ValueError, match="window"):
        fractions_skill_score(forecast, truth, 5.0, 5)


def test_extremes_report():
    truth = torch.arange(32.0, dtype=torch.float64).reshape(2, 1, 4, 4)
    samples = torch.stack([truth + 1, truth + 3])
    report = extremes_report(samples, truth, thresholds=(10.0,), quantiles=(0.5,))
    assert report.bias == pytest.approx(2)
    assert report.mae == pytest.approx(2)
    assert report.crps == pytest.approx(2 - 1)  # E|X - y| = 2, E|X - X'| over different members = 2
    assert report.peak_error == pytest.approx(2)
    assert report.intensity_w1 == pytest.approx(2)
    assert report.quantiles[0.5][1] == pytest.approx(15.5)
    assert report.quantiles[0.5][0] == pytest.approx(17.5)
    assert report.quantiles[0.5][2] == pytest.approx(2 / 15.5)
    # counts of cells >= 10: truth 6 and 16; members 7, 9 and 16, 16
    assert report.region_error[10.0] == pytest.approx((1 + 3 + 0 + 0) / 4)
    assert report.csi[10.0] == pytest.approx((22 + 22) / (23 + 25))
    single = extremes_report(truth + 1, truth)
    assert single.crps == pytest.approx(1)
    assert "crps" in single.to_dict()
    with pytest.raises(ValueError, match="must end in the truth's shape"):
        extremes_report(samples[..., :2], truth)
    with pytest.raises(ValueError, match="quantiles"):
        extremes_report(samples, truth, quantiles=(1.0,))
    with pytest.raises(ValueError, match="non-finite"):
        extremes_report(samples * math.nan, truth)


def test_regridding():
    x = torch.randn(2, 1, 6, 9, generator=seeded(), dtype=torch.float64)
    coarse = block_mean(x, 3)
    assert torch.allclose(coarse[0, 0, 1, 2], x[0, 0, 3:6, 6:9].mean())
    assert torch.allclose(coarse.mean(), x.mean())
    ramp = torch.arange(4.0, dtype=torch.float64)[None, :].expand(4, 4)
    fine = bilinear(ramp, 3)
    assert torch.allclose(fine[5, 1:11], torch.linspace(0, 3, 10, dtype=torch.float64))  # linear between middles
    assert fine[0, 0] == 0
    with pytest.raises(ValueError, match="must divide both sides"):
        block_mean(x, 4)
    with pytest.raises(ValueError, match="factor"):
        bilinear(x, 0)


@pytest.mark.parametrize("scaler", [Log1pScaler(), Log1pScaler(50.0), LinearScaler()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalers(scaler, dtype):
    rain = torch.tensor([0.0, 0.1, 3.0, scaler.top], dtype=dtype)
    scaled = scaler.transform(rain)
    assert scaled.dtype == dtype
    assert float(scaled[0]) == 0
    assert float(scaled[-1]) == pytest.approx(1)
    assert torch.allclose(scaler.inverse(scaled), rain, rtol=1e-5)
    assert float(scaler.inverse(torch.tensor(-0.2))) == 0
    for bad in (-1.0, math.nan):
        spoiled = torch.tensor([1.0, bad])
        with pytest.raises(ValueError, match=r"at \(1,\).*mask"):
            scaler.transform(spoiled)
        kept = scaler.transform(spoiled, mask=torch.tensor([True, False]))
        assert float(kept[1]) == 0
        assert float(kept[0]) == pytest.approx(float(scaler.transform([1.0])[0]))
    with pytest.raises(ValueError, match="top"):
        type(scaler)(0.0)


def test_quantile_mapping_carries_one_law_onto_another():
    x = torch.randn(20_000, generator=seeded(), dtype=torch.float64)
    y = torch.randn(30_000, generator=seeded(1), dtype=torch.float64).exp()
    new = torch.randn(5000, generator=seeded(2), dtype=torch.float64)
    mapped = QuantileMapping().fit(x, y).transform(new)
    assert stats.kstest(mapped.numpy(), "lognorm", args=(1,)).statistic < 0.03
    assert torch.equal(mapped.argsort(), new.argsort())
    assert torch.allclose(mapped[new.abs() < 2], new[new.abs() < 2].exp(), rtol=0.1)
    identity = QuantileMapping().fit(x, x)
    assert torch.allclose(identity.transform(x[:100]), x[:100], atol=1e-12)
    assert torch.allclose(
        identity.transform([float(x.max()) + 3, float(x.min()) - 2]).double(), torch.stack([x.max() + 3, x.min() - 2])
    )


def test_quantile_mapping_with_ties_and_bad_input():
    mapping = QuantileMapping(101).fit([0.0] * 50 + [1.0] * 50, torch.arange(100.0))
    low, high = mapping.transform([0.0, 1.0]).tolist()
    assert low == pytest.approx(24.5, abs=1)  # the mean of the wanted values that go with the tie
    assert high == pytest.approx(74.5, abs=1)
    with pytest.raises(AttributeError, match="not fitted"):
        QuantileMapping().transform([1.0])
    with pytest.raises(ValueError, match="non-finite"):
        QuantileMapping().fit([math.nan], [1.0])
    with pytest.raises(ValueError, match="levels"):
        QuantileMapping(1)
    constant = QuantileMapping().fit([2.0, 2.0], [5.0, 7.0]).transform([2.0, 3.0])
    assert constant.tolist() == [6.0, 7.0]


def test_random_fields_have_their_variance_and_spectrum():
    g = gaussian_random_field(3000, (16, 16), 3.0, generator=seeded())
    assert torch.allclose(g.var(0).mean(), torch.tensor(1.0, dtype=torch.float64), atol=0.05)
    assert float(g.mean((-2, -1)).abs().max()) < 1e-12
    power = radial_spectrum(g)
    # rings 1 and 2 hold wave numbers up to 1.5 and 2.5; the exact mean power over their members
    k = np.fft.fftfreq(16, 1 / 16)
    length = np.hypot(*np.meshgrid(k, k, indexing="ij"))
    spectrum = np.where(length > 0, np.maximum(length, 1) ** -3.0, 0)
    spectrum /= spectrum.mean()
    for ring in (1, 2, 5):
        assert float(power[ring - 1]) == pytest.approx(spectrum[np.round(length) == ring].mean(), rel=0.05)


def test_rain_has_its_law():
    law = SyntheticRain((16, 16))
    rain = law.draw(4000, generator=seeded())
    assert rain.shape == (4000, 1, 16, 16)
    assert float((rain > 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    levels = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    found = torch.quantile(rain.flatten()[::4].double(), levels)
    truth = law.quantile(levels)
    assert float(truth[0]) == 0
    assert torch.allclose(found, truth, rtol=0.04)
    assert float(truth[1]) == pytest.approx(10 * (math.exp(stats.norm.ppf(0.9)) - math.exp(stats.norm.ppf(0.7))))
    with pytest.raises(ValueError, match="wet"):
        SyntheticRain(wet=1.0)
