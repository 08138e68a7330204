"""Log-probabilities, generation and small policies, against transformers, by hand and by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from discrepancy import NumericalError
from discrepancy.language_models import (
    CausalPolicy,
    CharacterTokenizer,
    MarkovPolicy,
    TabularPolicy,
    fit_language_model,
    generate,
    logits_of,
    sequence_log_probs,
    sequence_mean,
    sequence_sum,
    tiny_gpt2,
    token_log_probs,
    token_mean,
)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_gpt2(11, layers=2, width=16, heads=2, positions=32).double()


class _Bigram(nn.Module):
    """A module of one's own: returns a plain tensor and keeps no cache."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]


def test_sequence_log_probs_are_those_of_transformers_loss(model):
    ids = torch.randint(11, (3, 9), generator=_seeded())
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1, 7:] = -100
    log_probs, mask = token_log_probs(logits_of(model, ids), labels)
    assert mask.sum() == 5 + 3 + 5
    loss = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(-token_mean(log_probs, mask).float(), loss)  # transformers computes its loss in single
    by_hand = torch.log_softmax(model(ids).logits, -1)[1, 3:6].gather(-1, ids[1, 4:7, None]).sum()
    torch.testing.assert_close(sequence_log_probs(logits_of(model, ids), labels)[1], by_hand)


def test_half_precision_logits_are_scored_in_single():
    logits = torch.randn(2, 5, 4001, generator=_seeded()).bfloat16()
    labels = torch.randint(4001, (2, 5), generator=_seeded(1))
    found, _ = token_log_probs(logits, labels)
    exact, _ = token_log_probs(logits.double(), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=2e-6, rtol=1e-6)


def test_tokens_that_the_model_has_not_are_named(model):
    with pytest.raises(ValueError, match=r"no token or no position.*\[0, 11\]"):
        logits_of(model, torch.tensor([[0, 11]]))
    with pytest.raises(ValueError, match="sequences of 40"):
        logits_of(model, torch.zeros(1, 40, dtype=torch.long))


def test_the_three_means_differ_as_they_should():
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert float(token_mean(values, mask)) == 4.0
    assert float(sequence_mean(values, mask)) == 6.0
    assert float(sequence_sum(values, mask)) == 8.0
    infinite = torch.where(mask, values, torch.full_like(values, torch.nan))
    assert float(token_mean(infinite, mask)) == 4.0


@pytest.mark.parametrize("mean", [token_mean, sequence_mean, sequence_sum])
def test_an_empty_mask_is_refused(mean):
    with pytest.raises(ValueError, match="none of the 6 tokens"):
        mean(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="boolean"):
        mean(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="must be equal"):
        mean(torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool))


def test_labels_outside_the_vocabulary_are_named():
    with pytest.raises(ValueError, match="token 11, outside the vocabulary of 11"):
        token_log_probs(torch.zeros(1, 3, 11), torch.tensor([[1, 11, 2]]))
    with pytest.raises(ValueError, match="at least two"):
        token_log_probs(torch.zeros(1, 1, 11), torch.tensor([[1]]))
    with pytest.raises(ValueError, match=r"\(B, T, V\)"):
        token_log_probs(torch.zeros(1, 3, 11), torch.tensor([[1, 1]]))


def test_greedy_generation_is_that_of_transformers(model):
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    ours = generate(model, prompt, max_new_tokens=8, temperature=0.0)
    theirs = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(ours.sequences, theirs)
    assert ours.mask[:, :3].sum() == 0
    assert ours.mask[:, 3:].all()


def test_left_padding_does_not_change_a_continuation(model):
    alone = generate(model, torch.tensor([[4, 5]]), max_new_tokens=6, temperature=0.0)
    padded = generate(
        model,
        torch.tensor([[1, 2, 3, 7], [0, 0, 4, 5]]),
        attention_mask=torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
        max_new_tokens=6,
        temperature=0.0,
    )
    assert torch.equal(alone.responses[0], padded.responses[1])


def test_generation_with_and_without_a_cache_agree(model):
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(ids).logits

    prompt = torch.tensor([[1, 2], [3, 4]])
    cached = generate(model, prompt, max_new_tokens=7, generator=_seeded(3))
    plain = generate(Plain(), prompt, max_new_tokens=7, generator=_seeded(3))
    assert torch.equal(cached.sequences, plain.sequences)


def test_samples_follow_the_model_and_the_seed():
    table = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]]))
    model = _Bigram(table)
    prompt = torch.zeros(20_000, 1, dtype=torch.long)
    drawn = generate(model, prompt, max_new_tokens=2, generator=_seeded(1))
    again = generate(model, prompt, max_new_tokens=2, generator=_seeded(1))
    assert torch.equal(drawn.sequences, again.sequences)
    first = torch.bincount(drawn.sequences[:, 1], minlength=3) / 20_000
    second = torch.bincount(drawn.sequences[:, 2], minlength=3) / 20_000
    torch.testing.assert_close(first, torch.softmax(table[0], -1), atol=0.015, rtol=0)
    torch.testing.assert_close(second, torch.softmax(table[0], -1) @ torch.softmax(table, -1), atol=0.015, rtol=0)


def test_generation_stops_at_the_end_token_and_pads():
    model = _Bigram(torch.tensor([[-9.0, 9.0, -9.0], [-9.0, -9.0, 9.0], [9.0, -9.0, -9.0]]))
    drawn = generate(model, torch.tensor([[0], [1]]), max_new_tokens=5, temperature=0.0, eos_token_id=2, pad_token_id=0)
    assert drawn.sequences.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert drawn.mask.tolist() == [[False, True, True], [False, True, False]]
    assert drawn.labels().tolist() == [[-100, 1, 2], [-100, 2, -100]]


def test_top_k_keeps_the_most_probable_tokens():
    model = _Bigram(torch.log(torch.tensor([[0.4, 0.35, 0.25]] * 3)))
    drawn = generate(model, torch.zeros(500, 1, dtype=torch.long), max_new_tokens=3, top_k=2, generator=_seeded())
    assert set(drawn.responses.unique().tolist()) == {0, 1}


def test_generation_refuses_what_it_cannot_do(model):
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, torch.zeros(2, 0, dtype=torch.long), max_new_tokens=2)
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(model, torch.tensor([[1]]), max_new_tokens=0)
    with pytest.raises(ValueError, match="temperature"):
        generate(model, torch.tensor([[1]]), max_new_tokens=2, temperature=-1.0)
    with pytest.raises(NumericalError, match="step 0"):
        generate(_Bigram(torch.full((3, 3), torch.nan)), torch.tensor([[1]]), max_new_tokens=2)


def test_a_model_that_returns_no_logits_is_refused():
    with pytest.raises(TypeError, match="must return logits"):
        logits_of(nn.Flatten(), torch.tensor([[1, 2]]))


def test_padding_without_a_mask_to_say_so_is_refused():
    with pytest.raises(ValueError, match="takes no attention_mask"):
        logits_of(_Bigram(torch.zeros(3, 3)), torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))


def test_a_causal_policy_scores_what_it_samples():
    table = torch.randn(4, 4, generator=_seeded(), dtype=torch.float64)
    policy = CausalPolicy(_Bigram(table), torch.tensor([3]), max_new_tokens=3, eos_token_id=0)
    drawn = policy.sample(400, _seeded(2))
    log_p = torch.log_softmax(table, -1)
    for row, found in zip(drawn[:50], policy.log_prob(drawn)[:50], strict=True):
        total, previous = 0.0, 3
        for token in row.tolist():
            total += float(log_p[previous, token])
            previous = token
            if token == 0:
                break
        assert math.isclose(total, float(found), abs_tol=1e-12)
    # All responses of at most three tokens: their probabilities sum to one.
    support = [(0,), *((a, 0) for a in (1, 2, 3)), *((a, b, c) for a in (1, 2, 3) for b in (1, 2, 3) for c in range(4))]
    padded = torch.tensor([[*r, 0, 0][:3] for r in support])
    assert math.isclose(float(policy.log_prob(padded).exp().sum()), 1.0, abs_tol=1e-12)


def test_the_temperature_of_a_policy_enters_its_log_probability():
    table = torch.randn(3, 3, generator=_seeded(), dtype=torch.float64)
    policy = CausalPolicy(_Bigram(table), torch.tensor([1]), max_new_tokens=1, temperature=0.5)
    torch.testing.assert_close(policy.log_prob(torch.arange(3)[:, None]), torch.log_softmax(2 * table[1], -1))


def test_a_markov_policy_is_a_law_over_strings():
    policy = MarkovPolicy(torch.randn(3, generator=_seeded()).double(), torch.randn(3, 3, generator=_seeded(1)).double(), 4)
    strings, log_probs = policy.enumerate()
    assert strings.shape == (81, 4)
    assert len({tuple(s) for s in strings.tolist()}) == 81
    assert math.isclose(float(log_probs.detach().exp().sum()), 1.0, abs_tol=1e-12)
    drawn = policy.sample(40_000, _seeded(5))
    index = (drawn * torch.tensor([27, 9, 3, 1])).sum(-1)
    frequency = torch.bincount(index, minlength=81) / 40_000
    torch.testing.assert_close(frequency, log_probs.exp().float(), atol=0.01, rtol=0, check_dtype=False)
    with pytest.raises(ValueError, match="too many to enumerate"):
        MarkovPolicy(torch.zeros(10), torch.zeros(10, 10), 9).enumerate()


def test_a_tabular_policy_with_contexts():
    policy = TabularPolicy.from_probs(torch.tensor([[0.1, 0.9], [0.5, 0.5]]))
    drawn = policy.sample(5000, _seeded())
    assert drawn.shape == (2, 5000)
    assert abs(float(drawn[0].float().mean()) - 0.9) < 0.02
    torch.testing.assert_close(policy.log_prob(drawn).exp()[0].unique(), torch.tensor([0.1, 0.9]))


def test_characters_come_back():
    tokenizer = CharacterTokenizer("hello world")
    ids = tokenizer.encode("hold", begin=True, end=True)
    assert ids[0] == 1
    assert ids[-1] == 2
    assert tokenizer.decode(ids) == "hold"
    assert tokenizer.decode(tokenizer.encode("h?")) == "h\ufffd"
    assert tokenizer.size == 8 + 4
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([99])


def test_a_tiny_model_learns_a_period():
    ids = torch.tensor([4, 5, 6, 7] * 50)
    model = tiny_gpt2(8, layers=1, width=16, heads=2, positions=16)
    again = tiny_gpt2(8, layers=1, width=16, heads=2, positions=16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    record = fit_language_model(model, ids, steps=120, batch=8, length=12, learning_rate=1e-2, generator=_seeded())
    assert record["loss"][-1] < 0.3 < record["loss"][0]
    drawn = generate(model, torch.tensor([[4, 5, 6, 7]]), max_new_tokens=8, temperature=0.0)
    assert drawn.responses[0].tolist() == [4, 5, 6, 7] * 2
    with pytest.raises(ValueError, match="heads must divide"):
        tiny_gpt2(8, width=10, heads=4)
    with pytest.raises(ValueError, match="at least length"):
        fit_language_model(model, ids[:5], steps=2)
