"""Variational bounds: their formulas at given scores, planted truths, overfitting, errors, seeds."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import discrepancy
from discrepancy.divergences import KL, Alpha, ChiSquared, JensenShannon, ReverseKL, SquaredHellinger, TotalVariation
from discrepancy.estimation import (
    NWJ,
    SMILE,
    Concatenated,
    CriticTraining,
    DonskerVaradhan,
    InfoNCE,
    JensenShannonBound,
    NormalScores,
    SampleSizeWarning,
    Separable,
    mutual_information,
)
from discrepancy.estimation.variational.bound import _mean_over_columns
from discrepancy.estimation.variational.critics import shifted_products
from discrepancy.learning import EarlyStopping, Training
from discrepancy.networks import MLP

BOUNDS = (DonskerVaradhan, NWJ, JensenShannonBound, SMILE, InfoNCE)
QUICK = CriticTraining(
    loop=Training(steps=150, learning_rate=4e-3, gradient_clip=1.0, record_every=50),
    stopping=EarlyStopping(every=25, patience=4),
    batch_size=128,
    average=0.95,
)
SMALL = MLP(32, 1, nn.ReLU)
# For what must hold whatever was learned.
BRIEF = {
    "training": CriticTraining(loop=Training(steps=25, learning_rate=4e-3), stopping=EarlyStopping(every=25), batch_size=64),
    "critic": Concatenated(SMALL, negatives=2),
    "folds": 3,
    "negatives": 16,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_pairs(n, correlations, width, seed=0):
    g = seeded(seed)
    x, y = torch.randn(n, width, generator=g), torch.randn(n, width, generator=g)
    for k, rho in enumerate(correlations):
        y[:, k] = rho * x[:, k] + math.sqrt(1 - rho**2) * y[:, k]
    return x, y


def scores(seed=0, n=40, k=7):
    g = seeded(seed)
    return torch.randn(n, generator=g, dtype=torch.float64), torch.randn(n, k, generator=g, dtype=torch.float64)


def test_formulas_at_given_scores():
    t_p, t_q = scores()
    p, q = t_p.numpy(), t_q.numpy()
    assert DonskerVaradhan()._held(KL(), t_p, t_q).value == pytest.approx(p.mean() - np.log(np.exp(q).mean()))
    assert NWJ()._held(KL(), t_p, t_q).value == pytest.approx(p.mean() - np.exp(q).mean() + 1)
    assert JensenShannonBound()._held(KL(), t_p, t_q).value == pytest.approx(p.mean() - np.exp(q).mean() + 1)
    clipped = np.clip(np.exp(q), np.exp(-0.5), np.exp(0.5))
    assert SMILE(clip=0.5)._held(KL(), t_p, t_q).value == pytest.approx(p.mean() - np.log(clipped.mean()))
    rows = [p[i] - np.log((np.exp(p[i]) + np.exp(q[i]).sum()) / 8) for i in range(40)]
    assert InfoNCE()._held(KL(), t_p, t_q).value == pytest.approx(np.mean(rows))
    # chi-squared: f' = 2 (t - 1), f*(s) = s + s^2/4, so that the bound is 2 E_P[t] - E_Q[t^2] - 1
    found = NWJ()._held(ChiSquared(), t_p, t_q).value
    assert found == pytest.approx(2 * np.exp(p).mean() - np.exp(2 * q).mean() - 1)


@pytest.mark.parametrize("bound", [DonskerVaradhan(), NWJ(), SMILE(clip=0.7)], ids=lambda b: type(b).__name__)
def test_influences_are_the_derivative_in_the_weights(bound):
    """Move a thousandth of the weight to one draw of Q: the value moves as its `by_q` says."""
    t_p, t_q = scores(1, n=30, k=5)
    one = t_q[:1].expand(30, 5).contiguous()
    held = bound._held(KL(), t_p, one)
    for j in range(5):
        heavier = torch.cat([one.repeat_interleave(1000, 1), one[:, j : j + 1].expand(30, 5)], 1)
        moved = bound._held(KL(), t_p, heavier).value - held.value
        assert moved / (5 / 5005) == pytest.approx(float(held.by_q[0, j]), rel=0.02, abs=0.01)


def test_influences_of_infonce_are_centred():
    t_p, t_q = scores(1, n=30, k=5)
    held = InfoNCE()._held(KL(), t_p, t_q)
    assert float((held.by_p + held.by_q.mean(1)).mean()) == pytest.approx(0, abs=1e-12)
    assert float(held.by_q.mean()) == pytest.approx(0, abs=1e-12)


def test_shared_negatives_of_infonce_agree_with_the_matrix():
    t_p, t_q = scores(2)
    one = t_q[0]
    vector, matrix = (InfoNCE()._held(KL(), t_p, t) for t in (one, one.expand(40, 7)))
    assert vector.value == pytest.approx(matrix.value)
    assert torch.allclose(vector.by_q, matrix.by_q.mean(0))


def test_shifts_pair_rows_with_other_rows():
    g, h = torch.randn(9, 3, generator=seeded()), torch.randn(9, 3, generator=seeded(1))
    for shifts in (torch.tensor([2]), torch.tensor([1, 5, 8])):
        expected = torch.stack([(g * h[(torch.arange(9) + s) % 9]).sum(1) for s in shifts], 1)
        assert torch.allclose(shifted_products(g, h, shifts), expected, atol=1e-6)
        c = torch.randn(9, len(shifts), generator=seeded(2))
        by_hand = torch.zeros(9)
        for i in range(9):
            for k, s in enumerate(shifts):
                by_hand[(i + int(s)) % 9] += c[i, k] / len(shifts)
        assert torch.allclose(_mean_over_columns(c, shifts), by_hand, atol=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_gaussian_pair(bound):
    x, y = gaussian_pairs(1500, [0.8], 1)
    options = {"critic": Concatenated(SMALL)} if bound is not InfoNCE else {"critic": Separable(SMALL, 8), "negatives": 255}
    found = mutual_information(x, y, bound(training=QUICK, **options), generator=seeded())
    truth = -math.log1p(-0.64) / 2
    assert found.value == pytest.approx(truth, abs=0.09)
    if bound is SMILE:  # no bound, and so without an end that is known
        assert found.low is None
        assert "no bound" in found.note
    else:
        assert found.low == pytest.approx(found.value - 1.645 * found.standard_error, abs=1e-3)
        assert found.low < truth
        assert found.high == math.inf
    assert found.standard_error == pytest.approx(0.8 / math.sqrt(1500), rel=0.4)  # sd of the log ratio is rho


def test_without_a_start_the_network_learns_a_dependence_that_no_correlation_sees():
    g = seeded(3)
    x = torch.randn(1500, 1, generator=g)
    y = x.square() + 0.3 * torch.randn(1500, 1, generator=g)
    training = CriticTraining(loop=Training(steps=350, learning_rate=5e-3, gradient_clip=1.0), batch_size=200, average=0.95)
    method = JensenShannonBound(start=None, training=training, folds=3, negatives=16)
    found = mutual_information(x, y, method, generator=g)
    # I = h(Y) - h(0.3 e), by quadrature of the density of Y
    grid = np.linspace(-1.5, 30, 60001)
    u = np.linspace(-8, 8, 4001)
    density = np.zeros_like(grid)
    for value, weight in zip(u, np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) * (u[1] - u[0]), strict=True):
        density += weight * np.exp(-(((grid - value**2) / 0.3) ** 2) / 2) / (0.3 * math.sqrt(2 * math.pi))
    entropy = -np.sum(np.where(density > 0, density * np.log(np.maximum(density, 1e-300)), 0)) * (grid[1] - grid[0])
    truth = entropy - 0.5 * math.log(2 * math.pi * math.e * 0.09)
    assert 0.6 * truth < found.value < truth + 4 * found.standard_error


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_critic_that_learns_by_heart_reports_nothing(bound):
    """Independent noise in 40 dimensions with 120 rows, a wide critic and no early end worth the name."""
    g = seeded(4)
    x, y = torch.randn(120, 20, generator=g), torch.randn(120, 20, generator=g)
    training = CriticTraining(
        loop=Training(steps=120, learning_rate=1e-2, gradient_clip=1.0),
        stopping=EarlyStopping(every=20, patience=100),
        batch_size=60,
        average=0.5,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        found = mutual_information(x, y, bound(critic=Concatenated(MLP(128, 1, nn.ReLU)), training=training), generator=g)
    assert found.value < 0.1


def test_invariance_to_monotone_maps_and_units():
    x, y = gaussian_pairs(400, [0.7], 2)
    bound = DonskerVaradhan(**BRIEF)
    plain = mutual_information(x.double(), y.double(), bound, generator=seeded(5)).value
    bent = mutual_information(torch.sinh(3 * x.double()), 7 * y.double() ** 3 - 2, bound, generator=seeded(5)).value
    assert bent == pytest.approx(plain, abs=1e-5)


def test_constant_columns_count_for_nothing():
    x, y = gaussian_pairs(300, [0.7], 1)
    bound = NWJ(**BRIEF)
    plain = mutual_information(x, y, bound, generator=seeded(6))
    wider = mutual_information(torch.cat([x, torch.ones(300, 1)], 1), y, bound, generator=seeded(6))
    assert wider.value == plain.value
    nothing = mutual_information(torch.ones(300), y, bound, generator=seeded(6))
    assert nothing.value == 0
    assert "constant" in nothing.note


def test_seeds_fix_every_bit():
    x, y = gaussian_pairs(300, [0.5], 1)
    bound = SMILE(**BRIEF)
    one, two = (mutual_information(x, y, bound, generator=seeded(7)).value for _ in range(2))
    assert one == two
    assert mutual_information(x, y, bound, generator=seeded(8)).value != one
    noncontiguous = torch.cat([x, x], 1)[:, ::2]
    assert mutual_information(noncontiguous, y, bound, generator=seeded(7)).value == one


def test_infonce_says_when_it_is_at_its_limit():
    x = torch.randn(400, 2, generator=seeded(9))
    y = x + 0.01 * torch.randn(400, 2, generator=seeded(10))
    with pytest.warns(SampleSizeWarning, match="cannot exceed"):
        found = mutual_information(x, y, InfoNCE(critic=Separable(SMALL, 8), training=QUICK), generator=seeded())
    assert found.value <= math.log(100)
    assert found.low is None
    assert "raise negatives" in found.note


@pytest.mark.parametrize(
    ("divergence", "truth", "bound"),
    [
        (KL(), 0.5, DonskerVaradhan),
        (KL(), 0.5, NWJ),
        (ReverseKL(), 0.5, SMILE),
        (KL(), 0.5, InfoNCE),
        (SquaredHellinger(), 1 - math.exp(-1 / 8), NWJ),
        (JensenShannon(), 0.10952, JensenShannonBound),
        (2 * JensenShannon(), 0.21904, JensenShannonBound),
        (ChiSquared(), math.e - 1, JensenShannonBound),
        (Alpha(0.5), 4 * (1 - math.exp(-1 / 8)), NWJ),
        (TotalVariation(), 0.38292, JensenShannonBound),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else f"{v}"[:24],
)
def test_divergences_of_two_shifted_gaussians(divergence, truth, bound):
    g = seeded(11)
    x, y = 1 + torch.randn(1500, 1, generator=g), torch.randn(1200, 1, generator=g)
    found = discrepancy.estimate(x, y, divergence, method=bound(training=QUICK, critic=Concatenated(SMALL)), generator=g)
    assert found.value == pytest.approx(truth, abs=max(0.05, 4 * found.standard_error))
    assert found.standard_error > 0
    if found.low is not None:
        largest = {JensenShannon(): math.log(2), 2 * JensenShannon(): 2 * math.log(2), TotalVariation(): 1, Alpha(0.5): 4}
        largest |= {SquaredHellinger(): 1}
        assert found.high == pytest.approx(largest.get(divergence, math.inf))


def test_reverse_is_the_swap():
    g = seeded(12)
    x, y = torch.randn(200, 2, generator=g), 2 * torch.randn(200, 2, generator=g)
    bound = DonskerVaradhan(**BRIEF)
    assert bound(ReverseKL(), x, y, generator=seeded()).value == bound(KL(), y, x, generator=seeded()).value


def test_a_module_of_ones_own():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3))

        def forward(self, x, y=None):
            a, b, c = self.scale
            return (a * x * y + b * (x**2 + y**2)).sum(1) + c

    module = Product()
    x, y = gaussian_pairs(1200, [0.8], 1)
    training = CriticTraining(loop=Training(steps=150, learning_rate=5e-2, gradient_clip=1.0), batch_size=200, average=0.9)
    found = mutual_information(x, y, NWJ(critic=module, start=None, training=training, folds=3), generator=seeded())
    assert found.value == pytest.approx(-math.log1p(-0.64) / 2, abs=0.1)
    assert not bool(module.scale.any())  # copied, never changed
    assert "givencritic" in found.method


def test_no_interval_where_nothing_was_learned():
    g = seeded(13)
    x, y = torch.randn(200, 1, generator=g), torch.randn(200, 1, generator=g)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    nn.init.zeros_(blind[1].weight)
    nn.init.zeros_(blind[1].bias)
    frozen = blind.requires_grad_(True)
    training = CriticTraining(loop=Training(steps=1, learning_rate=1e-12), batch_size=50)
    found = DonskerVaradhan(critic=frozen, start=None, training=training)(KL(), x, x.clone() * 1.0 + 0 * y, generator=g)
    assert abs(found.value) < 1e-6
    assert found.low is None
    assert "better than zero" in found.note


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"folds": 2}, ValueError, "folds must be a whole number of at least 3"),
        ({"critic": "mlp"}, TypeError, "critic must be Concatenated"),
        ({"negatives": 0}, ValueError, "negatives"),
    ],
)
def test_options_are_checked(change, error, message):
    with pytest.raises(error, match=message):
        NWJ(**change)


def test_other_bad_input():
    x, y = gaussian_pairs(100, [0.5], 1)
    with pytest.raises(ValueError, match="20 rows"):
        mutual_information(x[:20], y[:20], NWJ())
    with pytest.raises(ValueError, match="paired"):
        mutual_information(x, y[:50], NWJ())
    with pytest.raises(ValueError, match="non-finite"):
        mutual_information(torch.full((100,), math.nan), y, NWJ())
    with pytest.raises(TypeError, match=r"NWJ\(\) takes any smooth"):
        discrepancy.estimate(x, y, ChiSquared(), method=DonskerVaradhan())
    with pytest.raises(TypeError, match="JensenShannonBound"):
        discrepancy.estimate(x, y, TotalVariation(), method=NWJ())
    with pytest.raises(TypeError, match="FDivergence"):
        discrepancy.estimate(x, y, discrepancy.Renyi(0.5), method=NWJ())
    with pytest.raises(ValueError, match="clip"):
        SMILE(clip=0)
    with pytest.raises(ValueError, match="moving_average"):
        DonskerVaradhan(moving_average=1.0)

    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x, y):
            return self.layer(torch.cat([x, y], 1))

    with pytest.raises(ValueError, match="must score"):
        mutual_information(x, y, NWJ(critic=Wrong()), generator=seeded())


def test_discrete_rows():
    """A channel on four symbols that keeps the symbol with probability 0.7."""
    g = seeded(14)
    x = torch.randint(4, (1500,), generator=g)
    y = torch.where(torch.rand(1500, generator=g) < 0.7, x, torch.randint(4, (1500,), generator=g))
    keep, other = 0.7 + 0.3 / 4, 0.3 / 4
    truth = math.log(4) + keep * math.log(keep) + 3 * other * math.log(other)
    training = CriticTraining(loop=Training(steps=250, learning_rate=1e-2, gradient_clip=1.0), batch_size=200, average=0.9)
    found = mutual_information(x, y, JensenShannonBound(training=training, folds=3, negatives=16), generator=g)
    assert found.value == pytest.approx(truth, abs=0.12)


def test_normal_scores_are_those_of_the_mid_ranks():
    x = torch.tensor([[3.0], [1.0], [1.0], [10.0]], dtype=torch.float64)
    fitted = NormalScores().fit(x)
    from scipy.stats import norm, rankdata

    expected = norm.ppf((rankdata(x[:, 0]) - 0.5) / 4)
    assert torch.allclose(fitted(x)[:, 0], torch.tensor(expected))
    between = fitted(torch.tensor([[2.0], [100.0]], dtype=torch.float64))[:, 0]
    assert float(between[0]) == pytest.approx((expected[0] + expected[1]) / 2)
    assert float(between[1]) == expected[3]
