"""Generalisation bounds: closed forms, contraction against exact channels, Lipschitz constants, planted layer profiles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from discrepancy import KL, MMD, ChiSquared, JensenShannon, SquaredHellinger, TotalVariation
from discrepancy.methods.diagnostics.contraction import (
    binary_gaussian_channel,
    contraction_coefficient,
    contraction_dropconnect,
    contraction_dropout,
    contraction_gaussian,
)
from discrepancy.methods.diagnostics.generalization_bounds import (
    contracted_bounds,
    finite_class_bound,
    gaussian_conditional_divergence,
    gaussian_linear_case,
    gibbs_bound,
    gibbs_posterior,
    kl_generalization_bound,
    wasserstein_generalization_bound,
)
from discrepancy.methods.diagnostics.layer_profile import ClassConditional, LabelBlock, layer_profile
from discrepancy.networks import MLP
from discrepancy.networks.lipschitz import log_lipschitz


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_root_is_inside_the_sum():
    found = kl_generalization_bound([0.0, 4.0], sigma=1.0)
    assert float(found) == pytest.approx(math.sqrt(2) * (0 + 2) / 2)
    assert float(found) < math.sqrt(2) * math.sqrt(2.0)
    batch = kl_generalization_bound(torch.ones(3, 7, dtype=torch.float64))
    assert batch.shape == (3,)
    assert batch.dtype == torch.float64
    assert float(kl_generalization_bound([math.inf, 0.0])) == math.inf
    assert float(wasserstein_generalization_bound([1.0, 3.0], 2.0)) == pytest.approx(4.0)
    assert float(wasserstein_generalization_bound([1.0, 3.0], [1.0, 0.0])) == pytest.approx(0.5)


def test_the_solvable_case_has_the_numbers_of_the_paper():
    case = gaussian_linear_case(20, 10, (5, 1))
    assert case.per_sample == pytest.approx((0.256466, 0.128233, 0.0256466), abs=1e-6)
    assert case.bounds[0] == pytest.approx(0.358097, abs=1e-6)
    assert case.bounds[-1] == pytest.approx(0.113240, abs=1e-6)
    # Against the Gaussian KL itself, averaged over the weights: s^2 = 2.25, n = 7, three dimensions.
    n, s = 7, 1.5
    w = 1 + s / n**0.5 * torch.randn(200_000, 3, generator=_seeded(), dtype=torch.float64)
    given = 0.5 * (3 * (1 - 1 / n) + (w - 1).square().sum(1) / s**2 - 3 - 3 * math.log(1 - 1 / n))
    assert gaussian_linear_case(n, 3).per_sample[0] == pytest.approx(float(given.mean()), abs=5 * float(given.std()) / 447)


def test_retrainings_find_the_divergence():
    n, R = 10, 4000
    Z = 1 + torch.randn(R, n, 2, generator=_seeded(), dtype=torch.float64)
    fresh = 1 + torch.randn(R, 2, generator=_seeded(1), dtype=torch.float64)
    found = gaussian_conditional_divergence(Z[:, 0], fresh, Z.mean(1))
    assert float(found) == pytest.approx(gaussian_linear_case(n, 2).per_sample[0], abs=3 * found.standard_error)
    # A representation that the weights do not know.
    independent = gaussian_conditional_divergence(Z[:, 0], fresh, torch.randn(R, 2, generator=_seeded(2)))
    assert float(independent) < 0.01
    hellinger = gaussian_conditional_divergence(Z[:, 0], fresh, Z.mean(1), SquaredHellinger())
    assert 0 < float(hellinger) < float(found) / 2  # squared Hellinger <= KL / 2
    with pytest.raises(ValueError, match="too few"):
        gaussian_conditional_divergence(Z[:30, 0], fresh[:30], Z[:30, 1])
    with pytest.raises(ValueError, match="weights must be"):
        gaussian_conditional_divergence(Z[:, 0], fresh[:5], Z.mean(1))


def test_contraction_bounds():
    assert contraction_dropout(0.5, 3) == 0.875
    assert contraction_dropconnect(0.5, 3, 2) == pytest.approx(1 - 2**-6)
    assert contraction_dropout(0.0, 3) == 1.0
    assert contraction_dropout(1.0, 3) == 0.0
    assert contraction_dropout(1 - 1e-12, 2) == pytest.approx(2e-12, rel=1e-3)
    assert contraction_gaussian(0.5, 2.0) == pytest.approx(0.9544997361036416)
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="probability"):
            contraction_dropout(bad, 2)
    with pytest.raises(ValueError, match="width"):
        contraction_dropout(0.5, 0)
    with pytest.raises(ValueError, match="unbounded activation"):
        contraction_gaussian(1.0, None)
    with pytest.raises(ValueError, match="noise_std"):
        contraction_gaussian(0.0, 1.0)


def test_coefficients_of_known_channels():
    # Binary symmetric with flip e: eta_KL = eta_chi2 = (1 - 2 e)^2, eta_TV = |1 - 2 e|. Erasure with e: 1 - e for every f.
    symmetric = [[0.9, 0.1], [0.1, 0.9]]
    for f in (KL(), ChiSquared(), SquaredHellinger()):
        assert contraction_coefficient(symmetric, f) == pytest.approx(0.64, abs=2e-3)
    assert contraction_coefficient(symmetric, TotalVariation()) == pytest.approx(0.8)
    for f in (KL(), JensenShannon(), TotalVariation()):
        assert contraction_coefficient([[0.7, 0.0, 0.3], [0.0, 0.7, 0.3]], f) == pytest.approx(0.7, abs=1e-6)
    assert contraction_coefficient([[0.5, 0.5], [0.5, 0.5]]) == 0.0
    # The pair of rows that differ most counts.
    assert contraction_coefficient([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]], TotalVariation()) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="two rows"):
        contraction_coefficient([0.5, 0.5])
    with pytest.raises(ValueError, match="sum to 1"):
        contraction_coefficient([[0.5, 0.6], [0.5, 0.5]])
    with pytest.raises(TypeError, match="FDivergence"):
        contraction_coefficient(symmetric, MMD())


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_the_gaussian_channel_contracts_no_less_than_its_bound(noise):
    channel = binary_gaussian_channel(1.0, noise)
    assert contraction_coefficient(channel, TotalVariation()) == pytest.approx(contraction_gaussian(noise, 2.0), abs=1e-6)
    assert contraction_coefficient(channel, grid=15) <= contraction_gaussian(noise, 2.0)


def test_noisy_layers_multiply():
    bounds = contracted_bounds([0.5, 0.1], [0.5, 0.25])
    direct = [kl_generalization_bound(torch.tensor([0.5, 0.1]) * c) for c in (1, 0.5, 0.125)]
    torch.testing.assert_close(bounds, torch.stack(direct))
    with pytest.raises(ValueError, match="coefficients"):
        contracted_bounds([0.5], [1.5])


def test_gibbs():
    assert gibbs_bound(10, 30) == pytest.approx(10 / 60)
    losses = torch.tensor([[0.1, 0.4], [0.9, 0.2]], dtype=torch.float64)
    post = gibbs_posterior(losses, 5.0)
    weight = torch.exp(-5 * losses)
    torch.testing.assert_close(post, weight / weight.sum(1, keepdim=True))
    assert gibbs_posterior(losses, 1e6)[0].tolist() == [1.0, 0.0]
    prior = torch.tensor([0.0, -math.inf], dtype=torch.float64)
    assert gibbs_posterior(losses, 5.0, prior)[1].tolist() == [1.0, 0.0]
    assert finite_class_bound(50, 30) == pytest.approx(0.5 * math.sqrt(2 * math.log(50) / 30))


def test_bad_input_one_by_one():
    for sigma in (0.0, -1.0):
        with pytest.raises(ValueError, match="sigma"):
            kl_generalization_bound([0.1], sigma)
    with pytest.raises(ValueError, match="divergences"):
        kl_generalization_bound([-0.1])
    with pytest.raises(ValueError, match="divergences"):
        kl_generalization_bound([math.nan])
    with pytest.raises(ValueError, match="lipschitz"):
        wasserstein_generalization_bound([0.1], -1.0)
    with pytest.raises(ValueError, match="n must be"):
        gaussian_linear_case(1, 3)
    with pytest.raises(ValueError, match="cannot grow"):
        gaussian_linear_case(5, 3, (2, 3))
    with pytest.raises(ValueError, match="inverse_temperature"):
        gibbs_bound(-1.0, 5)


def test_lipschitz_constants_of_layers():
    linear = nn.Linear(5, 3)
    assert log_lipschitz(linear, torch.zeros(1, 5)) == pytest.approx(
        math.log(float(torch.linalg.svdvals(linear.weight.detach().double())[0])), abs=1e-9
    )
    for side in (5, 8):
        conv = nn.Conv2d(1, 2, 3, padding=1).double()
        x = torch.zeros(1, 1, side, side, dtype=torch.float64)
        with torch.no_grad():
            units = torch.eye(side**2, dtype=torch.float64).view(-1, 1, 1, side, side)
            rows = torch.stack([(conv(e) - conv(x)).flatten() for e in units])
        assert log_lipschitz(conv, x) == pytest.approx(math.log(float(torch.linalg.svdvals(rows)[0])), abs=1e-7)
        assert log_lipschitz(conv.float(), x.float()) == pytest.approx(log_lipschitz(conv.double(), x), abs=1e-5)
    nn.init.zeros_(conv.weight)
    assert log_lipschitz(conv.float(), x.float()) == -math.inf
    x = torch.zeros(1, 1, 5, 5)
    net = nn.Sequential(linear, nn.ReLU(), nn.BatchNorm1d(3), nn.LeakyReLU(-2.0), nn.Sigmoid())
    net[2].running_var.fill_(0.25)
    expected = log_lipschitz(linear, torch.zeros(1, 5)) + math.log(2) + math.log(2) + math.log(0.25)
    assert log_lipschitz(net, torch.zeros(1, 5)) == pytest.approx(expected, abs=1e-4)
    assert log_lipschitz(nn.MaxPool2d(3, 1), x) == pytest.approx(math.log(3))
    assert log_lipschitz(nn.AvgPool2d(2), x) == pytest.approx(math.log(0.5))
    slopes = torch.linspace(-6, 6, 200_001, dtype=torch.float64, requires_grad=True)
    for module in (nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh()):
        (slope,) = torch.autograd.grad(module(slopes).sum(), slopes)
        assert math.exp(log_lipschitz(module, x)) == pytest.approx(float(slope.abs().max()), abs=1e-4)
    with torch.no_grad():
        linear.weight.zero_()
    assert log_lipschitz(linear, torch.zeros(1, 5)) == -math.inf
    with pytest.raises(TypeError, match="LSTM"):
        log_lipschitz(nn.LSTM(3, 3), x)


class _Shift(nn.Module):
    """Moves the rows that were trained on (marked by their last column) by `by`."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x[:, :-1] + self.by * x[:, -1:]


def _planted(n=240):
    x = torch.randn(2, n, 3, generator=_seeded(), dtype=torch.float64)
    mark = torch.stack([torch.ones(n, 1), torch.zeros(n, 1)]).double()
    y = torch.arange(n) % 2
    data = torch.cat([x, mark], -1)
    return (data[0], y), (data[1], y)


def test_a_planted_shift_is_found_at_its_layer():
    train, test = _planted()
    model = nn.Sequential(nn.Identity(), _Shift(1.0)).eval()
    found = layer_profile(
        model, train, test, layers=["1"], splits=3, resamples=8, generator=_seeded(), lipschitz={"1": 0.5}, loss_lipschitz=1.0
    )
    row = found.rows[0]
    # W_1 of a shift by (1, 1, 1) along a uniform direction: E|<v, theta>| = |v| / 2 in three dimensions.
    assert row.value == pytest.approx(math.sqrt(3) / 2, abs=0.15)
    assert row.excess > 4 * row.standard_error
    assert row.log_bound == pytest.approx(math.log(row.value) + math.log(0.5))
    assert found.funnel == "1"
    level = layer_profile(nn.Sequential(_Shift(0.0)).eval(), train, test, splits=5, resamples=8, generator=_seeded())
    assert abs(level.rows[0].excess) < 3 * level.rows[0].standard_error
    assert level.funnel == "0"
    again = layer_profile(nn.Sequential(_Shift(0.0)).eval(), train, test, splits=5, resamples=8, generator=_seeded())
    assert again.rows == level.rows


@pytest.mark.parametrize("D", [KL(), MMD()], ids=["divergence", "MMD"])
def test_any_discrepancy_and_either_treatment_of_labels(D):
    train, test = _planted()
    model = nn.Sequential(_Shift(1.0)).eval()
    for labels in (ClassConditional(), LabelBlock(2.0)):
        if isinstance(D, KL) and isinstance(labels, LabelBlock):
            continue  # nearest neighbours need continuous rows
        found = layer_profile(model, train, test, discrepancy=D, labels=labels, splits=2, resamples=2, generator=_seeded())
        assert found.rows[0].excess > 0.1


def test_batches_and_constants_of_a_sequential():
    net = MLP(8, 2, nn.ReLU).build(3, 2, generator=_seeded()).eval()
    (x, y), (z, w) = ((a[:, :3].float(), b) for a, b in _planted())
    whole = layer_profile(net, (x, y), (z, w), splits=1, resamples=2, generator=_seeded())
    batches = layer_profile(net, [(x[:100], y[:100]), (x[100:], y[100:])], [(z, w)], splits=1, resamples=2, generator=_seeded())
    assert [r.value for r in whole.rows] == pytest.approx([r.value for r in batches.rows], rel=1e-5)
    last, before = whole.rows[-1], whole.rows[-2]
    assert last.log_lipschitz == pytest.approx(0.5 * math.log(2))
    top = float(torch.linalg.matrix_norm(net[-1].weight, 2))
    assert before.log_lipschitz == pytest.approx(0.5 * math.log(2) + math.log(top))


def test_profiles_refuse_what_cannot_be_compared():
    train, test = _planted()
    model = nn.Sequential(_Shift(0.0))
    with pytest.warns(UserWarning, match="training mode"):
        layer_profile(model, train, test, splits=1, resamples=2)
    assert model.training
    model.eval()
    with pytest.warns(UserWarning, match="same object"):
        layer_profile(model, train, train, splits=1, resamples=2)
    with pytest.raises(KeyError, match="no module 'head'"):
        layer_profile(model, train, test, layers=["head"])
    with pytest.raises(ValueError, match="50 each are needed"):
        layer_profile(model, (train[0][:80], train[1][:80]), test, discrepancy=KL())
    with pytest.raises(ValueError, match="no row of the class"):
        layer_profile(model, (train[0][::2], train[1][::2]), test)
    with pytest.raises(ValueError, match="must be named"):
        layer_profile(_Shift(0.0).eval(), train, test)
    with pytest.raises(TypeError, match="Discrepancy or a Divergence"):
        layer_profile(model, train, test, discrepancy="sliced_w1")
    with pytest.raises(ValueError, match="class numbers"):
        layer_profile(model, (train[0], train[1].float()), test)
    with pytest.raises(ValueError, match="scale"):
        LabelBlock(0.0)
