"""Policies over responses: padding, end tokens, temperature, adapters, and f-DPO on language models."""

import math

import pytest
import torch

from discrepancy.divergences import KL, Alpha, JensenShannon, ReverseKL
from discrepancy.language_models import logits_of, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    FDPO,
    GRPO,
    CategoricalPolicy,
    CausalResponses,
    DivergencePenalty,
    NashMirrorProx,
    PreferencePairs,
    ResponsePolicy,
)
from discrepancy.methods.alignment.response_policy import (
    as_of,
    response_log_probs,
    restore,
    snapshot,
    trained_weights,
    without_adapters,
)

pytest.importorskip("transformers")
END, PAD = 1, 0


def _policy(**options):
    return CausalResponses(tiny_gpt2(11, width=16, heads=2, positions=16), max_new_tokens=4, **options)


def _by_hand(policy, prompt, response):
    """Token by token, without padding."""
    ids = torch.cat([prompt, response])
    logs = torch.log_softmax(logits_of(policy.model, ids[None])[0].double() / policy.temperature, -1).detach()
    return sum(logs[len(prompt) - 1 + i, token] for i, token in enumerate(response))


def test_padding_and_end_tokens_do_not_change_log_probabilities():
    policy = _policy(eos_token_id=END, pad_token_id=PAD)
    prompts = torch.tensor([[PAD, PAD, 5, 6], [4, 3, 2, 7]])
    responses = torch.tensor([[[8, END, PAD, PAD], [9, 9, 9, 9]], [[END, 3, 3, 3], [7, 6, PAD, PAD]]])
    found = response_log_probs(policy, prompts, responses)
    wanted = [
        [_by_hand(policy, prompts[0, 2:], responses[0, 0, :2]), _by_hand(policy, prompts[0, 2:], responses[0, 1])],
        [_by_hand(policy, prompts[1], responses[1, 0, :1]), _by_hand(policy, prompts[1], responses[1, 1, :2])],
    ]
    torch.testing.assert_close(found.double(), torch.tensor(wanted), atol=1e-4, rtol=1e-4)
    _, mask = policy.log_probs(prompts, responses)
    assert mask.sum(-1).tolist() == [[2, 4], [1, 2]]


def test_an_end_token_that_also_pads_counts_once():
    policy = _policy(eos_token_id=END, pad_token_id=END)
    _, mask = policy.log_probs(torch.tensor([[END, 4, 5]]), torch.tensor([[[6, END, END, END]]]))
    assert mask.tolist() == [[[True, True, False, False]]]


def test_samples_follow_the_scored_law():
    policy = _policy(temperature=0.7)
    policy.max_new_tokens = 1
    prompts = torch.tensor([[3, 4]])
    responses = policy.sample(prompts, 4000, generator=torch.Generator().manual_seed(0))
    assert responses.shape == (1, 4000, 1)
    law = policy.log_probs(prompts, torch.arange(11).reshape(1, 11, 1))[0][0, :, 0].exp()
    assert float(law.sum()) == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(responses.flatten(), minlength=11) / 4000
    assert float((counts - law.detach()).abs().max()) < 4.5 * math.sqrt(0.25 / 4000)
    again = policy.sample(prompts, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(responses, again)


def test_samples_are_padded_to_one_length():
    policy = _policy(eos_token_id=END, pad_token_id=PAD)
    drawn = policy.sample(torch.tensor([[3], [4]]), 3, generator=torch.Generator().manual_seed(1))
    assert drawn.shape == (2, 3, 4)


def test_categorical_policy():
    table = torch.nn.Embedding(2, 4)
    policy = CategoricalPolicy(table)
    assert isinstance(policy, ResponsePolicy)
    found, mask = policy.log_probs(torch.tensor([0, 1]), torch.tensor([[[2]], [[0]]]))
    wanted = torch.log_softmax(table.weight, -1)
    torch.testing.assert_close(found[:, 0, 0], torch.stack([wanted[0, 2], wanted[1, 0]]))
    assert mask.all()
    with pytest.raises(ValueError, match="one token"):
        policy.log_probs(torch.tensor([0]), torch.zeros(1, 1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"integers \(n, c, L\)"):
        policy.log_probs(torch.tensor([0, 1]), torch.zeros(1, 1, 1, dtype=torch.long))


def test_bad_input():
    policy = _policy(eos_token_id=END, pad_token_id=PAD)
    with pytest.raises(ValueError, match="padding only"):
        policy.log_probs(torch.tensor([[PAD, PAD]]), torch.tensor([[[3]]]))
    with pytest.raises(ValueError, match="no token that counts"):
        response_log_probs(policy, torch.tensor([[3, 4]]), torch.full((1, 1, 3), PAD))
    with pytest.raises(ValueError, match="outside the vocabulary of 11"):
        policy.log_probs(torch.tensor([[3, 4]]), torch.tensor([[[12]]]))
    with pytest.raises(ValueError, match="token ids"):
        policy.sample(torch.rand(1, 2), 1)
    for options in ({"max_new_tokens": 0}, {"max_new_tokens": 3, "temperature": 0.0}):
        with pytest.raises(ValueError, match=r"max_new_tokens|temperature"):
            CausalResponses(policy.model, **options)


def test_snapshots():
    policy = _policy()
    prompts, responses = torch.tensor([[3, 4]]), torch.tensor([[[5, 6]]])
    before = response_log_probs(policy, prompts, responses).detach()
    old = snapshot(policy)
    with torch.no_grad():
        for w in trained_weights(policy):
            w.mul_(1.5)
    moved = response_log_probs(policy, prompts, responses).detach()
    assert not torch.equal(before, moved)
    with as_of(policy, old):
        inside = response_log_probs(policy, prompts, responses)
        torch.testing.assert_close(inside, before)
        assert not inside.requires_grad
    assert torch.equal(response_log_probs(policy, prompts, responses).detach(), moved)
    restore(policy, old)
    assert torch.equal(response_log_probs(policy, prompts, responses).detach(), before)


def _pairs(count=16):
    generator = torch.Generator().manual_seed(0)
    prompts, chosen, rejected = (torch.randint(2, 11, (count, 4), generator=generator) for _ in range(3))
    return PreferencePairs(prompts, chosen, rejected)


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), 2 * JensenShannon(), Alpha(0.5)], ids=repr)
def test_f_dpo_on_a_language_model(divergence):
    policy = _policy()
    training = Training(steps=25, learning_rate=3e-3, record_every=1)
    fit = FDPO(divergence, batch=8, training=training).fit(policy, _pairs(), generator=torch.Generator().manual_seed(1))
    losses = fit.history["loss"]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)  # the reference is the policy as it came
    assert all(map(math.isfinite, losses))
    assert sum(losses[-5:]) / 5 < 0.95 * math.log(2)
    assert fit.accuracy > 0.8


def test_batches_of_the_reference_do_not_matter():
    policy, pairs = _policy(), _pairs(7)
    small, large = pairs.with_reference(policy, batch=2), pairs.with_reference(policy)
    torch.testing.assert_close(small.reference, large.reference, atol=1e-5, rtol=1e-5)
    assert pairs.reference is None


@pytest.fixture
def _drawn():
    """PEFT draws an adapter's weights from torch's default generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.usefixtures("_drawn")
def test_an_adapter_is_trained_alone_and_its_base_is_the_reference():
    peft = pytest.importorskip("peft")
    base = tiny_gpt2(11, width=16, heads=2, positions=16)
    plain, pairs = CausalResponses(base, max_new_tokens=4), _pairs(6)
    wanted = pairs.with_reference(plain).reference
    frozen = {k: v.clone() for k, v in base.state_dict().items()}
    config = peft.LoraConfig(r=4, target_modules=["c_attn"], lora_dropout=0.0, fan_in_fan_out=True)
    policy = CausalResponses(peft.get_peft_model(base, config), max_new_tokens=4)
    assert all("lora" in name for name, w in policy.named_parameters() if w.requires_grad)
    training = Training(steps=60, learning_rate=2e-2)
    fit = FDPO(KL(), batch=None, training=training).fit(policy, pairs)
    assert fit.loss < 0.95 * math.log(2)
    # The base has not moved, and answers once the adapter is off.
    after = {k.replace("base_layer.", ""): v for k, v in policy.model.base_model.model.state_dict().items() if "lora" not in k}
    assert all(torch.equal(frozen[k], after[k]) for k in frozen)
    torch.testing.assert_close(pairs.with_reference(policy).reference, wanted, atol=1e-5, rtol=1e-5)
    with without_adapters(policy), torch.no_grad():
        off = response_log_probs(policy, pairs.prompts, pairs.responses)
    torch.testing.assert_close(off, wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        on = response_log_probs(policy, pairs.prompts, pairs.responses)
    assert float((on - off).abs().max()) > 0.1
    assert len(snapshot(policy)) == sum(w.requires_grad for w in policy.parameters()) == 4  # A and B in two layers
    assert policy.sample(pairs.prompts, 2, generator=torch.Generator().manual_seed(0)).shape == (6, 2, 4)


@pytest.mark.usefixtures("_drawn")
def test_an_adapter_is_its_own_reference_in_policy_gradients_and_self_play():
    peft = pytest.importorskip("peft")
    base = tiny_gpt2(11, width=16, heads=2, positions=16)
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.0, fan_in_fan_out=True)
    policy = CausalResponses(peft.get_peft_model(base, config), max_new_tokens=2)
    frozen = [w.clone() for w in policy.parameters() if not w.requires_grad]
    prompts = torch.tensor([[3, 4], [5, 6]])
    generator = torch.Generator().manual_seed(0)

    def even(_, responses):
        return (responses % 2 == 0).float().mean(-1)

    search = GRPO(group=4, prompts=2, penalty=DivergencePenalty(KL(), 0.1), training=Training(steps=3, learning_rate=1e-2))
    found = search.fit(policy, prompts, even, reference=policy, generator=generator)
    assert all(map(math.isfinite, found.history["loss"]))

    def judge(_, first, second):
        return torch.sigmoid(even(_, first) - even(_, second))

    start = snapshot(policy)
    play = NashMirrorProx(iterations=1, group=4, prompts=2, inner=Training(steps=2, learning_rate=1e-2))
    play.fit(policy, prompts, judge, generator=generator)
    assert any(not torch.equal(a, b) for a, b in zip(start, snapshot(policy), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(frozen, (w for w in policy.parameters() if not w.requires_grad), strict=True))
