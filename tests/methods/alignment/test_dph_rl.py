"""DPH-RL and its pieces: penalties from samples, GRPO, pre-sampling, pass@k, divergences from reference samples."""

import copy
import itertools
import math

import pytest
import torch

from discrepancy.divergences import KL, Alpha, ChiSquared, CustomDivergence, JensenShannon, Renyi, ReverseKL, TotalVariation
from discrepancy.language_models import sequence_sum
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    DPHRL,
    GRPO,
    CategoricalPolicy,
    DivergencePenalty,
    PresampleSplit,
    RehearsalLoss,
    divergence_from_reference,
    dph_loss,
    grpo_loss,
    pass_at_k,
    penalised_rewards,
    presample_split,
)
from discrepancy.methods.alignment.penalties import generator_terms

P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
LOGITS = torch.tensor([0.3, -0.2, 0.5, -1.0], dtype=torch.float64)
ALL = torch.ones(4, 1, dtype=torch.bool)
USER = CustomDivergence(lambda t: (t - 1) ** 2 / (t + 0.5))


def _weighted(weights):
    return lambda values, mask: (weights * values[:, 0]).sum()


@pytest.mark.parametrize("linear", [0.0, -1.0, 0.7])
@pytest.mark.parametrize(
    "divergence", [KL(), ReverseKL(), 2 * JensenShannon(), Alpha(0.2), ChiSquared(), TotalVariation(), USER], ids=repr
)
def test_reference_samples_give_the_divergence_and_its_gradient(divergence, linear):
    """Enumerated over the reference: E_ref[g(u)] = D(ref || pi) whatever the control variate, value and gradient."""
    logits = LOGITS.clone().requires_grad_()
    log_q = torch.log_softmax(logits, -1)
    found = divergence_from_reference(log_q[:, None], P.log()[:, None], ALL, divergence, linear=linear, aggregate=_weighted(P))
    wanted = divergence.from_probs(P, log_q.exp())
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), JensenShannon(), USER], ids=repr)
@pytest.mark.parametrize("linear", [0.0, -1.0])
def test_policy_samples_give_the_same_divergence(divergence, linear):
    q = torch.softmax(LOGITS, -1)
    penalty = DivergencePenalty(divergence, 0.5, linear)
    values = penalty.terms(q.log()[:, None], P.log()[:, None])
    assert float((q * values[:, 0]).sum()) == pytest.approx(0.5 * float(divergence.from_probs(P, q)), abs=1e-10)


def test_the_papers_generators():
    u = torch.linspace(-3, 3, 13, dtype=torch.float64)
    t = u.exp()
    ours = {
        "forward KL": generator_terms(KL().reversed(), u, linear=-1.0),
        "forward KL, centred": generator_terms(KL().reversed(), u),
        "JS": generator_terms((2 * JensenShannon()).reversed(), u),
        "alpha": generator_terms(Alpha(0.2).reversed(), u),
        "k1": generator_terms(ReverseKL(), -u, linear=-1.0),
        "k3": generator_terms(ReverseKL(), -u),
    }
    a = 0.2
    theirs = {
        "forward KL": -u,
        "forward KL, centred": t - 1 - u,
        "JS": t * u - (t + 1) * torch.log((t + 1) / 2),
        "alpha": (t ** (1 - a) - (1 - a) * t - a) / (a * (a - 1)),
        "k1": u,
        "k3": 1 / t - 1 + u,
    }
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-9, atol=1e-10)


def test_far_ratios_keep_a_finite_gradient():
    u = torch.tensor([-1e4, -25.0, 25.0, 1e4], requires_grad=True)
    for divergence in (KL(), ReverseKL(), JensenShannon(), ChiSquared()):
        for linear in (0.0, -1.0):
            values = generator_terms(divergence, u, linear=linear)
            (slope,) = torch.autograd.grad(values.sum(), u)
            assert torch.isfinite(values).all()
            assert torch.isfinite(slope).all()
    lost = generator_terms(KL().reversed(), u, linear=-1.0)  # -log u, exactly: tangents of a line are the line
    torch.testing.assert_close(lost, -u.detach(), rtol=1e-6, atol=0.0)
    assert torch.autograd.grad(lost.sum(), u)[0].tolist() == [-1.0] * 4


def test_filtered_answers_are_why_linear_matters():
    """On correct answers only E[u] is not 1: -log u pulls their probabilities up, the centred form holds them."""
    right = torch.tensor([True, True, False, False])
    logits = P.log().clone().requires_grad_()
    log_q = torch.log_softmax(logits, -1)[right][:, None]
    stored = P.log()[right][:, None]
    mask = torch.ones(2, 1, dtype=torch.bool)
    (pull,) = torch.autograd.grad(divergence_from_reference(log_q, stored, mask, KL(), linear=-1.0), logits, retain_graph=True)
    (still,) = torch.autograd.grad(divergence_from_reference(log_q, stored, mask, KL()), logits)
    assert float(pull[0]) < 0 < float(pull[2])
    torch.testing.assert_close(still, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


def test_reference_estimator_refuses_what_does_not_fit():
    values, mask = -torch.rand(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="another tokeniser"):
        divergence_from_reference(values, values[:, :2], mask)
    with pytest.raises(ValueError, match="at most 0"):
        divergence_from_reference(values.exp(), values, mask)
    with pytest.raises(ValueError, match="keeps none"):
        divergence_from_reference(values, values, ~mask)
    with pytest.raises(TypeError, match="FDivergence"):
        divergence_from_reference(values, values, mask, Renyi(2.0))
    with pytest.raises(ValueError, match="linear"):
        divergence_from_reference(values, values, mask, linear=math.nan)
    module = RehearsalLoss(JensenShannon(), linear=0.3)
    expanded = values[:1].expand(2, 3)
    torch.testing.assert_close(
        module(expanded, values, mask), divergence_from_reference(expanded, values, mask, JensenShannon(), linear=0.3)
    )
    with pytest.raises(TypeError, match="FDivergence"):
        RehearsalLoss(Renyi(2.0))
    half = divergence_from_reference(values.bfloat16(), values.bfloat16(), mask)
    assert half.dtype == torch.float32


def test_grpo_gradient_is_that_of_the_expected_reward():
    """Enumerated pairs of answers: the group-relative gradient without scaling is (c - 1) / c times the policy gradient."""
    logits = LOGITS.clone().requires_grad_()
    rewards = torch.tensor([1.0, 0.0, 0.5, -1.0], dtype=torch.float64)
    law = torch.softmax(logits, -1)
    (wanted,) = torch.autograd.grad((law * rewards).sum(), logits)
    total = torch.zeros_like(wanted)
    for pair in itertools.product(range(4), repeat=2):
        index = torch.tensor(pair)
        log_probs = torch.log_softmax(logits, -1)[index][None, :, None]
        advantage = (rewards[index] - rewards[index].mean())[None]
        loss = grpo_loss(log_probs, log_probs.detach(), torch.ones(1, 2, 1, dtype=torch.bool), advantage)
        weight = float(law.detach()[index].prod())
        total -= weight * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(total, wanted / 2)


def test_grpo_clips_and_penalises():
    old = torch.tensor([[-1.0, -1.0]], dtype=torch.float64)
    new = (old + torch.tensor([[1.0, -1.0]])).requires_grad_()
    mask = torch.ones(1, 2, dtype=torch.bool)
    up = grpo_loss(new, old, mask, torch.tensor([1.0], dtype=torch.float64))
    assert torch.autograd.grad(up, new)[0].tolist()[0][0] == 0  # beyond 1 + 0.28: no gradient
    assert float(up.detach()) == pytest.approx(-(1.28 + math.exp(-1)) / 2)
    penalty = DivergencePenalty(ReverseKL(), 0.1)
    both = grpo_loss(new, old, mask, torch.ones(1, dtype=torch.float64), penalty=penalty, reference_log_probs=old)
    extra = 0.1 * ((math.exp(-1) - 1 + 1) + (math.e - 1 - 1)) / 2
    assert float((both - up).detach()) == pytest.approx(extra)
    with pytest.raises(ValueError, match="needs reference_log_probs"):
        grpo_loss(new, old, mask, torch.ones(1), penalty=penalty)
    with pytest.raises(ValueError, match="advantages"):
        grpo_loss(new, old, mask, torch.ones(2))
    with pytest.raises(ValueError, match="keeps none"):
        grpo_loss(new, old, ~mask, torch.ones(1, dtype=torch.float64))


def test_penalised_rewards_are_those_of_ppo():
    log_probs, reference = torch.log(torch.rand(3, 5)), torch.log(torch.rand(3, 5))
    mask = torch.rand(3, 5) > 0.3
    rewards = torch.rand(3)
    found = penalised_rewards(rewards, log_probs, reference, mask, DivergencePenalty(ReverseKL(), 0.2, -1.0))
    wanted = rewards - 0.2 * ((log_probs - reference) * mask).sum(-1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="rewards must be"):
        penalised_rewards(rewards[:2], log_probs, reference, mask, DivergencePenalty())


def test_dph_loss_is_the_sum_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    new, old, kept, stored = (-torch.rand(2, 3, generator=generator) for _ in range(4))
    mask = torch.ones(2, 3, dtype=torch.bool)
    advantage = torch.tensor([1.0, -1.0])
    found = dph_loss(new, old, mask, advantage, kept, stored, mask, JensenShannon(), eta=0.3, aggregate=sequence_sum)
    wanted = grpo_loss(new, old, mask, advantage, aggregate=sequence_sum) + 0.3 * divergence_from_reference(
        kept, stored, mask, JensenShannon(), aggregate=sequence_sum
    )
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="eta"):
        dph_loss(new, old, mask, advantage, kept, stored, mask, eta=-0.1)


def test_pass_at_k_against_enumeration():
    n = 7
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations(range(n), k))
        wanted = sum(any(i < c for i in draw) for draw in draws) / len(draws)
        assert float(pass_at_k(n, c, k)) == pytest.approx(wanted, abs=1e-12)
    many = pass_at_k(10_000, torch.tensor([0, 1, 9_999]), 100)
    torch.testing.assert_close(many, torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64))
    for arguments in ((5, 6, 1), (5, 1, 6), (5, -1, 1), (5, 1, 0), (5.0, 1, 1)):
        with pytest.raises(ValueError, match=r"c must|k must|counts"):
            pass_at_k(*arguments)


def _bandit():
    """Two prompts of four answers: the first is mastered, the second is not."""
    table = torch.nn.Embedding(2, 4)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[0.58, 0.38, 0.02, 0.02], [0.05, 0.05, 0.45, 0.45]]).log())
    return CategoricalPolicy(table), torch.arange(2)


def _reward(_, responses):
    return (responses[..., 0] < 2).float()


def test_presampling_splits_and_stores_correct_answers_only():
    policy, prompts = _bandit()
    split = presample_split(
        policy, prompts, _reward, k=64, threshold=0.85, rehearsals=40, generator=torch.Generator().manual_seed(0)
    )
    assert split.mastered.tolist() == [True, False]
    assert split.explore.tolist() == [1]
    assert 30 <= split.rehearsed <= 40
    assert (split.rehearsal_responses < 2).all()
    assert (split.rehearsal_prompts == 0).all()
    wanted = policy.log_probs(split.rehearsal_prompts, split.rehearsal_responses)[0]
    torch.testing.assert_close(split.rehearsal_log_probs, wanted.detach())
    assert split.to_dict() == {"mastered": 1, "explore": 1, "rehearsed": split.rehearsed}
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        presample_split(policy, prompts, lambda p, r: 3 * _reward(p, r))
    with pytest.raises(ValueError, match="threshold"):
        presample_split(policy, prompts, _reward, threshold=0.0)
    with pytest.raises(ValueError, match="one reward a response"):
        presample_split(policy, prompts, lambda p, r: torch.zeros(3))


def _split(policy, prompts):
    return presample_split(
        policy, prompts, _reward, k=64, threshold=0.85, rehearsals=40, generator=torch.Generator().manual_seed(0)
    )


def _fit(divergence=None, eta=1.0, linear=-1.0, seed=0):
    policy, prompts = _bandit()
    search = GRPO(group=8, prompts=4, training=Training(steps=60, learning_rate=0.05, final_share=1.0))
    method = DPHRL(KL() if divergence is None else divergence, eta, linear, search=search)
    method.fit(policy, _split(*_bandit()), _reward, generator=torch.Generator().manual_seed(seed))
    return policy.laws(prompts).exp().detach()


@pytest.mark.parametrize(("divergence", "linear"), [(KL(), -1.0), (2 * JensenShannon(), 0.0), (Alpha(0.2), 0.0)], ids=str)
def test_training_learns_the_new_and_keeps_the_old(divergence, linear):
    law = _fit(divergence, linear=linear)
    assert float(law[1, :2].sum()) > 0.8
    assert float(law[0, :2].min()) > 0.3  # both modes of the mastered prompt
    assert torch.equal(law, _fit(divergence, linear=linear))
    assert not torch.equal(law, _fit(divergence, linear=linear, seed=1))


def test_no_reference_policy_is_needed_or_changed():
    policy, prompts = _bandit()
    split = _split(policy, prompts)
    stored = copy.deepcopy(split.rehearsal_log_probs)
    search = GRPO(group=4, prompts=2, training=Training(steps=5, learning_rate=0.05))
    DPHRL(search=search).fit(policy, split, _reward, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stored, split.rehearsal_log_probs)
    assert not split.rehearsal_log_probs.requires_grad


def test_empty_halves():
    policy, prompts = _bandit()
    search = GRPO(group=4, prompts=2, training=Training(steps=3, learning_rate=0.01))
    nothing_known = presample_split(policy, prompts[1:], _reward, generator=torch.Generator().manual_seed(0))
    assert nothing_known.rehearsed == 0
    with pytest.warns(UserWarning, match="without rehearsal"):
        DPHRL(search=search).fit(policy, nothing_known, _reward)
    all_known = presample_split(policy, prompts[:1], _reward, threshold=0.5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="nothing to learn"):
        DPHRL(search=search).fit(policy, all_known, _reward)


def test_options_and_stored_parts_are_checked():
    with pytest.raises(TypeError, match="dph_rl takes an object of kind FDivergence"):
        DPHRL(Renyi(2.0))
    with pytest.raises(ValueError, match="explores without a penalty"):
        DPHRL(search=GRPO(penalty=DivergencePenalty()))
    with pytest.raises(ValueError, match="eta"):
        DPHRL(eta=-1.0)
    with pytest.raises(ValueError, match="clip"):
        GRPO(clip=(0.0, 0.2))
    with pytest.raises(ValueError, match="group"):
        GRPO(group=1)
    policy, prompts = _bandit()
    split = _split(policy, prompts)
    with pytest.raises(ValueError, match="another tokeniser"):
        PresampleSplit(
            split.accuracy, split.mastered, split.explore, split.rehearsal_prompts, split.rehearsal_responses,
            split.rehearsal_log_probs[:, :, :0], split.rehearsal_mask,
        )  # fmt: skip
    with pytest.raises(ValueError, match="needs a reference policy"):
        GRPO(penalty=DivergencePenalty()).fit(policy, prompts, _reward)
    with pytest.raises(ValueError, match="one number a response"):
        GRPO().fit(policy, prompts, lambda p, r: torch.zeros(2))
    with pytest.raises(ValueError, match="not finite"):
        GRPO().fit(policy, prompts, lambda p, r: _reward(p, r) * math.nan)


def test_reuse_takes_clipped_steps_on_one_batch():
    drawn = []

    def reward(prompts, responses):
        drawn.append(len(prompts))
        return _reward(prompts, responses)

    policy, prompts = _bandit()
    GRPO(group=4, prompts=2, reuse=3, training=Training(steps=7, learning_rate=0.05)).fit(policy, prompts, reward)
    assert len(drawn) == 3
