"""f-DPO: closed forms of the implicit reward, gradients, refusals, and training to the known optimum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.divergences import (
    KL,
    Alpha,
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
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    FDPO,
    CategoricalPolicy,
    FDPOLoss,
    PreferencePairs,
    dpo_loss,
    f_dpo_loss,
    implicit_reward,
    regularised_optimum,
)

Z = torch.linspace(-8, 8, 33, dtype=torch.float64)
TABLE = {  # the paper's h, shifted so that h(0) = 0, and its derivative
    "reverse KL": (ReverseKL(), lambda z: z, lambda z: torch.ones_like(z)),
    "forward KL": (KL(), lambda z: 1 - torch.exp(-z), lambda z: torch.exp(-z)),
    "JS": (2 * JensenShannon(), lambda z: math.log(2) - torch.nn.functional.softplus(-z), lambda z: torch.sigmoid(-z)),
    "alpha": (Alpha(0.3), lambda z: (1 - torch.exp(-0.3 * z)) / 0.3, lambda z: torch.exp(-0.3 * z)),
    "Hellinger": (SquaredHellinger(), lambda z: (1 - torch.exp(-z / 2)) / 2, lambda z: torch.exp(-z / 2) / 4),
    "Jeffreys": (Jeffreys(), lambda z: z + 1 - torch.exp(-z), lambda z: 1 + torch.exp(-z)),
    "chi squared": (ChiSquared(), lambda z: 1 - torch.exp(-2 * z), lambda z: 2 * torch.exp(-2 * z)),
    "user's": (
        CustomDivergence(lambda t: t * torch.log(t) - torch.log(t)),
        lambda z: z + 1 - torch.exp(-z),
        lambda z: 1 + torch.exp(-z),
    ),
}


def _logs(seed, n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [-torch.rand(n, generator=generator, dtype=torch.float64).mul(9).to(dtype) for _ in range(4)]


@pytest.mark.parametrize("name", TABLE)
def test_implicit_reward_is_the_derivative_in_the_papers_direction(name):
    divergence, h, slope = TABLE[name]
    z = Z.clone().requires_grad_()
    found = implicit_reward(z, divergence, cap=30.0)
    torch.testing.assert_close(found, h(Z), rtol=1e-7, atol=1e-8)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    torch.testing.assert_close(gradient, slope(Z), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", TABLE)
def test_loss_and_gradient_by_hand(name):
    divergence, h, slope = TABLE[name]
    chosen, rejected, ref_c, ref_r = _logs(1)
    chosen.requires_grad_(), rejected.requires_grad_()
    beta = 0.3
    found = f_dpo_loss(chosen, rejected, ref_c, ref_r, divergence, beta=beta, cap=30.0)
    margin = beta * (h(chosen - ref_c) - h(rejected - ref_r))
    torch.testing.assert_close(found.losses, torch.log1p(torch.exp(-margin)), rtol=1e-6, atol=1e-8)
    gradients = torch.autograd.grad(found.losses.sum(), (chosen, rejected))
    pull = torch.sigmoid(-margin) * beta
    torch.testing.assert_close(gradients[0], -pull * slope(chosen - ref_c), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradients[1], pull * slope(rejected - ref_r), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.chosen_rewards - found.rejected_rewards, margin.detach(), rtol=1e-6, atol=1e-8)
    assert not found.chosen_rewards.requires_grad


@pytest.mark.parametrize("divergence", [KL(), 2 * JensenShannon(), Alpha(0.5)], ids=repr)
def test_gradient_by_finite_differences(divergence):
    chosen, rejected, ref_c, ref_r = _logs(2, 3)

    def value(c, r):
        return f_dpo_loss(c, r, ref_c, ref_r, divergence, beta=0.2, cap=4.0, label_smoothing=0.1).losses

    assert torch.autograd.gradcheck(value, (chosen.requires_grad_(), rejected.requires_grad_()))


def test_reverse_kl_is_dpo_and_label_smoothing_is_a_mixture():
    logs = _logs(3)
    for smoothing in (0.0, 0.2):
        ours = f_dpo_loss(*logs, beta=0.5, label_smoothing=smoothing)
        torch.testing.assert_close(ours.losses, dpo_loss(*logs, beta=0.5, label_smoothing=smoothing).losses)
    straight = dpo_loss(*logs, beta=0.5).losses
    swapped = dpo_loss(logs[1], logs[0], logs[3], logs[2], beta=0.5).losses
    torch.testing.assert_close(ours.losses, 0.8 * straight + 0.2 * swapped)
    noise = torch.linspace(0, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(
        f_dpo_loss(*logs, beta=0.5, label_smoothing=noise).losses, (1 - noise) * straight + noise * swapped
    )


def test_limits_of_alpha():
    logs = _logs(4)
    close = f_dpo_loss(*logs, Alpha(1e-6), beta=0.5).losses
    torch.testing.assert_close(close, f_dpo_loss(*logs, ReverseKL(), beta=0.5).losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(f_dpo_loss(*logs, Alpha(1.0)).losses, f_dpo_loss(*logs, KL()).losses)


def test_the_factor_of_a_divergence_is_that_of_beta():
    logs = _logs(5)
    torch.testing.assert_close(
        f_dpo_loss(*logs, 3 * KL(), beta=0.2).losses, f_dpo_loss(*logs, KL(), beta=0.6).losses, rtol=1e-12, atol=1e-12
    )


@given(z=st.floats(-1e4, 1e4), cap=st.floats(1.0, 20.0), name=st.sampled_from(sorted(set(TABLE) - {"user's"})))
@settings(max_examples=60, deadline=None)
def test_rewards_rise_and_are_finite_with_bounded_slopes(z, cap, name):
    divergence = TABLE[name][0]
    place = torch.tensor([z, z + 1e-2], dtype=torch.float64, requires_grad=True)
    values = implicit_reward(place, divergence, cap=cap)
    (slope,) = torch.autograd.grad(values.sum(), place)
    assert torch.isfinite(values).all()
    assert float(values[1]) >= float(values[0])
    at_zero = float(TABLE[name][2](torch.zeros((), dtype=torch.float64)))
    assert float(slope.max()) <= at_zero * math.exp(cap) * (1 + 1e-6)
    if z < 0:
        assert float(slope.min()) > 0  # the tangent keeps pulling


def test_the_tangent_joins_smoothly_where_the_card_caps():
    for divergence, edge in ((KL(), -10.0), (Alpha(0.5), -20.0)):
        z = torch.tensor([edge - 1e-6, edge + 1e-6, edge - 5], dtype=torch.float64, requires_grad=True)
        values = implicit_reward(z, divergence)
        (slope,) = torch.autograd.grad(values.sum(), z)
        torch.testing.assert_close(slope, torch.full_like(slope, math.exp(10.0)), rtol=1e-5, atol=0.0)
        assert float(values[1] - values[0]) == pytest.approx(2e-6 * math.exp(10.0), rel=1e-3)


@pytest.mark.parametrize("divergence", [TotalVariation(), LeCam(), NeymanChiSquared(), Alpha(-0.5), KL().skewed(0.1)], ids=repr)
def test_inadmissible_divergences_are_refused(divergence):
    with pytest.raises(TypeError, match=r"f_dpo needs .* try ReverseKL\(\)"):
        f_dpo_loss(*_logs(6), divergence)
    with pytest.raises(TypeError):
        FDPOLoss(divergence)
    with pytest.raises(TypeError):
        FDPO(divergence)


def test_the_refusal_names_the_condition():
    with pytest.raises(TypeError, match="KKT"):
        implicit_reward(Z, LeCam())


def test_bad_input():
    chosen, rejected, ref_c, ref_r = _logs(7)
    with pytest.raises(ValueError, match="beta must be positive"):
        f_dpo_loss(chosen, rejected, ref_c, ref_r, beta=0.0)
    with pytest.raises(ValueError, match="one shape"):
        f_dpo_loss(chosen, rejected[:3], ref_c, ref_r)
    with pytest.raises(ValueError, match="at most 0"):
        f_dpo_loss(chosen.exp(), rejected, ref_c, ref_r)
    with pytest.raises(ValueError, match="not finite, the first at index"):
        f_dpo_loss(chosen, rejected, ref_c.clone().fill_(-torch.inf), ref_r)
    with pytest.raises(ValueError, match="no pair"):
        f_dpo_loss(*[t[:0] for t in (chosen, rejected, ref_c, ref_r)])
    for smoothing in (0.5, -0.1):
        with pytest.raises(ValueError, match="label_smoothing"):
            f_dpo_loss(chosen, rejected, ref_c, ref_r, label_smoothing=smoothing)
    with pytest.raises(ValueError, match="label_smoothing"):
        f_dpo_loss(chosen, rejected, ref_c, ref_r, label_smoothing=torch.ones(3))
    with pytest.raises(ValueError, match="cap"):
        f_dpo_loss(chosen, rejected, ref_c, ref_r, cap=-1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_computed_in_single(dtype):
    logs = _logs(8, dtype=dtype)
    logs[0].requires_grad_()
    found = FDPOLoss(KL(), beta=0.1)(*logs)
    assert found.losses.dtype == torch.float32
    wanted = f_dpo_loss(*[t.detach().double() for t in logs], KL(), beta=0.1)
    torch.testing.assert_close(found.losses.detach().double(), wanted.losses, rtol=1e-5, atol=1e-6)
    found.mean.backward()
    assert logs[0].grad.dtype == dtype


def test_strided_and_expanded_log_probabilities():
    logs = torch.stack(_logs(9))
    wanted = f_dpo_loss(*logs, KL()).losses
    wide = logs.repeat_interleave(2, 1)[:, ::2]
    torch.testing.assert_close(f_dpo_loss(*wide, KL()).losses, wanted)
    one = logs[2, :1].expand(6)
    torch.testing.assert_close(f_dpo_loss(logs[0], logs[1], one, one, KL()).losses.shape, wanted.shape)


def test_extreme_ratios_stay_finite():
    far = torch.tensor([-1e4, -1.0], requires_grad=True)
    near = torch.tensor([-1.0, -1e4], requires_grad=True)
    for divergence in (KL(), ReverseKL(), 2 * JensenShannon(), Jeffreys(), SquaredHellinger()):
        found = f_dpo_loss(far, near, near.detach(), far.detach(), divergence)
        gradients = torch.autograd.grad(found.mean, (far, near))
        assert torch.isfinite(found.losses).all()
        assert all(torch.isfinite(g).all() for g in gradients)
        assert float(gradients[0][0]) < 0  # a chosen response that lost its mass is still pulled up


REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARDS = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), 2 * JensenShannon(), Jeffreys() + SquaredHellinger()], ids=repr)
def test_training_on_all_pairs_reaches_the_optimum(divergence):
    first, second = torch.combinations(torch.arange(4)).T
    noise = torch.sigmoid(REWARDS[second] - REWARDS[first])
    pairs = PreferencePairs(torch.zeros(6, dtype=torch.long), first, second, label_noise=noise)
    table = torch.nn.Embedding(1, 4, dtype=torch.float64)
    with torch.no_grad():
        table.weight.copy_(REFERENCE.log())
    training = Training(steps=250, learning_rate=0.05, final_share=0.01)
    fit = FDPO(divergence, beta=1.0, batch=None, training=training).fit(CategoricalPolicy(table), pairs)
    found = torch.softmax(table.weight.detach()[0], -1)
    torch.testing.assert_close(found, regularised_optimum(REFERENCE, REWARDS, divergence), atol=1e-3, rtol=0)
    assert fit.loss == fit.history["loss"][-1] < math.log(2)


def test_training_is_reproducible_and_batches_differ():
    generator = torch.Generator().manual_seed(0)
    prompts, chosen, rejected = (torch.randint(5, (40,), generator=generator) for _ in range(3))
    rejected = torch.where(chosen == rejected, (rejected + 1) % 5, rejected)
    pairs = PreferencePairs(prompts, chosen, rejected)

    def run(seed):
        table = torch.nn.Embedding(5, 5)
        torch.nn.init.zeros_(table.weight)
        training = Training(steps=5, learning_rate=0.05)
        FDPO(KL(), batch=8, training=training).fit(CategoricalPolicy(table), pairs, generator=torch.Generator().manual_seed(seed))
        return table.weight.detach()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_pairs_check_their_parts():
    prompts, chosen = torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2])
    with pytest.warns(UserWarning, match="1 of 3 pairs have equal responses"):
        PreferencePairs(prompts, chosen, torch.tensor([1, 1, 1]))
    with pytest.raises(ValueError, match="one row a pair"):
        PreferencePairs(prompts, chosen, torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="integers"):
        PreferencePairs(prompts, chosen.float(), chosen)
    with pytest.raises(ValueError, match="no pair"):
        PreferencePairs(prompts[:0], chosen[:0], chosen[:0])
    with pytest.raises(ValueError, match=r"reference must be \(3, 2\)"):
        PreferencePairs(prompts, chosen, (chosen + 1) % 3, reference=-torch.ones(3))
    with pytest.raises(ValueError, match="label_noise"):
        PreferencePairs(prompts, chosen, (chosen + 1) % 3, label_noise=torch.full((3,), 2.0))
    noisy = PreferencePairs(prompts, chosen, (chosen + 1) % 3, label_noise=torch.full((3,), 0.2))
    with pytest.raises(ValueError, match="label_noise of their own"):
        FDPO(label_smoothing=0.1).fit(CategoricalPolicy(torch.nn.Embedding(1, 3)), noisy)


def test_a_frozen_policy_is_refused():
    table = torch.nn.Embedding(1, 3).requires_grad_(False)
    pairs = PreferencePairs(torch.zeros(1, dtype=torch.long), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="nothing to train"):
        FDPO().fit(CategoricalPolicy(table), pairs)
