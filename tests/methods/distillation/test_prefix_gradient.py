"""Gradients through sampled prefixes, against enumeration of a small chain; exact prefix laws against enumeration."""

import itertools
import math

import pytest
import torch

from discrepancy.divergences import KL, JensenShannon, ReverseKL, TotalVariation
from discrepancy.methods.distillation.context_tables import ContextTable, contexts, exact_prefix_divergence, prefix_law
from discrepancy.methods.distillation.prefix_gradient import SequenceLevel, accumulated_divergence_loss, outcome_loss
from discrepancy.methods.distillation.responses import Padded, chosen_log_probs, response_logits

SIZE, LENGTH = 3, 3


def _table(seed, order):
    g = torch.Generator().manual_seed(seed)
    return ContextTable(torch.randn((SIZE + 1) ** order, SIZE, generator=g, dtype=torch.float64), order)


def _everything(student, teacher, divergence):
    """All strings, the divergences behind their prefixes, and both log-probabilities of their tokens."""
    answers = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))
    start = torch.full((len(answers), 1), SIZE)
    prompts = Padded(start, torch.ones_like(start, dtype=torch.bool))
    mine = response_logits(student, prompts, answers)
    theirs = response_logits(teacher, prompts, answers).detach()
    values = divergence.from_logits(theirs, mine)
    return answers, values, chosen_log_probs(mine, answers), chosen_log_probs(theirs, answers)


def _gradient(value, student):
    return torch.autograd.grad(value, student.table, retain_graph=True)[0]


@pytest.mark.parametrize("divergence", [KL(), ReverseKL(), JensenShannon(), TotalVariation()], ids=repr)
@pytest.mark.parametrize("gamma", [1.0, 0.0])
def test_gradient_is_that_of_the_accumulated_divergence(divergence, gamma):
    student, teacher = _table(0, 1), _table(1, 2)
    _, values, log_s, _ = _everything(student, teacher, divergence)
    mask = torch.ones_like(values, dtype=torch.bool)
    exact = exact_prefix_divergence(
        student, teacher, divergence, size=SIZE, order=2, length=LENGTH, on_policy=1.0, through_prefixes=gamma == 1.0
    ).sum()
    expected = _gradient(exact, student)
    # The expectation under the student: every string weighted by its probability, as a proposal's uniform sample.
    law = log_s.sum(-1).detach().exp()
    level = SequenceLevel(gamma=gamma, position_baseline=False)
    total = torch.zeros_like(expected)
    value = 0.0
    for i in range(len(law)):
        row = slice(i, i + 1)
        loss = accumulated_divergence_loss(values[row], log_s[row], mask[row], level)
        total += law[i] * torch.autograd.grad(loss, student.table, retain_graph=True)[0]
        value += float((law[i] * loss).detach())
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-12)
    assert value == pytest.approx(float(exact.detach()), rel=1e-12)


def test_reverse_kl_accumulates_to_that_of_sequences():
    student, teacher = _table(0, 1), _table(1, 2)
    _, _, log_s, log_t = _everything(student, teacher, ReverseKL())
    whole = ReverseKL().from_logits(log_t.sum(-1), log_s.sum(-1))
    accumulated = exact_prefix_divergence(
        student, teacher, ReverseKL(), size=SIZE, order=2, length=LENGTH, on_policy=1.0, through_prefixes=True
    ).sum()
    torch.testing.assert_close(accumulated, whole)
    torch.testing.assert_close(_gradient(accumulated, student), _gradient(whole, student))


def test_discounted_gradient_against_a_literal_sum():
    student, teacher, gamma = _table(0, 1), _table(1, 2), 0.6
    _, values, log_s, _ = _everything(student, teacher, KL())
    mask = torch.ones_like(values, dtype=torch.bool)
    literal = values.sum()
    for t in range(LENGTH):
        later = sum(gamma ** (u - t) * values[:, u].detach() for u in range(t + 1, LENGTH))
        literal = literal + (log_s[:, t] * later).sum()
    expected = _gradient(literal / len(values), student)
    level = SequenceLevel(gamma=gamma, position_baseline=False)
    found = _gradient(accumulated_divergence_loss(values, log_s, mask, level), student)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("baseline", [False, True])
def test_importance_weights_and_baselines_keep_the_gradient(baseline):
    student, teacher, behaviour = _table(0, 1), _table(1, 2), _table(2, 1)
    answers, values, log_s, _ = _everything(student, teacher, JensenShannon())
    log_b = _everything(behaviour, teacher, JensenShannon())[2].detach()
    expected = _gradient(
        exact_prefix_divergence(
            student, teacher, JensenShannon(), size=SIZE, order=2, length=LENGTH, on_policy=1.0, through_prefixes=True
        ).sum(),
        student,
    )
    # All pairs of strings, so that each one's baseline comes from an independent partner.
    level = SequenceLevel(position_baseline=baseline)
    total, law = torch.zeros_like(expected), log_b.sum(-1).exp()
    pairs = list(itertools.product(range(len(answers)), repeat=2)) if baseline else [(i, i) for i in range(len(answers))]
    loss = torch.zeros((), dtype=torch.float64)
    for i, j in pairs:
        rows = torch.tensor([i, j] if baseline else [i])
        mask = torch.ones(len(rows), LENGTH, dtype=torch.bool)
        weight = law[i] * law[j] if baseline else law[i]
        loss = loss + weight * accumulated_divergence_loss(
            values[rows], log_s[rows], mask, level, behaviour_log_probs=log_b[rows]
        )
    total = _gradient(loss, student)
    torch.testing.assert_close(total, expected, rtol=1e-8, atol=1e-11)


def test_a_window_keeps_the_last_ratios_only():
    values = torch.ones(1, 4, dtype=torch.float64)
    log_s = torch.log(torch.tensor([[0.5, 0.5, 0.5, 0.5]], dtype=torch.float64))
    log_b = torch.log(torch.tensor([[0.25, 0.1, 0.5, 0.5]], dtype=torch.float64))
    mask = torch.ones(1, 4, dtype=torch.bool)

    def value(window):
        level = SequenceLevel(window=window, position_baseline=False)
        return float(accumulated_divergence_loss(values, log_s, mask, level, behaviour_log_probs=log_b))

    assert value(None) == pytest.approx(1 + 2 + 10 + 10)
    assert value(1) == pytest.approx(1 + 2 + 5 + 1)


def test_clipping_stops_the_gradient_of_a_token_that_moved_too_far():
    log_s = torch.log(torch.tensor([[0.9, 0.5]], dtype=torch.float64)).requires_grad_()
    old = torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    mask = torch.ones(1, 2, dtype=torch.bool)

    def gradient(sign):
        # A negative cost behind the first token makes that token good: its gain is clipped from above.
        values = torch.tensor([[0.0, sign * 2.0]], dtype=torch.float64)
        level = SequenceLevel(clip=(0.2, 0.2), position_baseline=False)
        loss = accumulated_divergence_loss(values, log_s, mask, level, behaviour_log_probs=old)
        return torch.autograd.grad(loss, log_s)[0]

    assert float(gradient(-1.0)[0, 0]) == 0
    assert float(gradient(1.0)[0, 0]) == pytest.approx(2.0 * 0.9 / 0.5)


def test_padding_and_position_means():
    values = torch.tensor([[1.0, 2.0, 99.0], [1.0, 4.0, 8.0], [1.0, 99.0, 99.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])
    log_s = torch.full((3, 3), -1.0, dtype=torch.float64, requires_grad=True)
    loss = accumulated_divergence_loss(values, log_s, mask, SequenceLevel())
    (gradient,) = torch.autograd.grad(loss, log_s)
    assert float(loss) == pytest.approx((3 + 13 + 1) / 3)
    # returns after: row 0: 2, 0; row 1: 12, 8; row 2: 0; baselines: means of the others at the position.
    expected = torch.tensor([[2 - 6.0, 0 - 8.0, 0], [12 - 1.0, 8 - 0.0, 0 - 0.0], [0 - 7.0, 0, 0]], dtype=torch.float64) / 3
    torch.testing.assert_close(gradient, expected)
    normalised = accumulated_divergence_loss(values, log_s, mask, SequenceLevel(length_normalised=True, position_baseline=False))
    (gradient,) = torch.autograd.grad(normalised, log_s)
    torch.testing.assert_close(gradient[1], torch.tensor([6.0, 8.0, 0.0], dtype=torch.float64) / 3)


def test_outcome_gradient_by_enumeration():
    student, teacher = _table(0, 1), _table(1, 2)
    answers, _, log_s, log_t = _everything(student, teacher, KL())
    law = log_s.sum(-1)
    scores = torch.randn(len(answers), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = _gradient(-(law.exp() * scores).sum(), student)
    rows = [slice(i, i + 1) for i in range(len(answers))]
    mask = torch.ones(1, LENGTH, dtype=torch.bool)
    p = law.detach().exp()
    loss = sum(p[i] * outcome_loss(scores[r], log_s[r], mask, position_baseline=False) for i, r in enumerate(rows))
    torch.testing.assert_close(_gradient(loss, student), expected, rtol=1e-9, atol=1e-12)
    assert loss.item() == pytest.approx(float(-(p * scores).sum()))
    # log T - log S a token as rewards: sequence-level reverse KL in its sampled form.
    rewards = (log_t - log_s).detach()
    _, _, log_s, _ = _everything(student, teacher, KL())
    sampled = sum(p[i] * outcome_loss(rewards[r], log_s[r], mask, position_baseline=False) for i, r in enumerate(rows))
    whole = ReverseKL().from_logits(log_t.sum(-1), log_s.sum(-1))
    torch.testing.assert_close(_gradient(sampled, student), _gradient(whole, student), rtol=1e-9, atol=1e-12)


def test_prefix_law_is_that_of_enumeration():
    teacher = _table(1, 2)
    probs = torch.softmax(teacher(contexts(SIZE, 2))[:, -1], -1)
    law = prefix_law(probs, 2, LENGTH)
    answers, _, _, log_t = _everything(_table(0, 1), teacher, KL())
    padded = torch.cat([torch.full((len(answers), 2), SIZE), answers], -1)
    expected = torch.zeros_like(law)
    weights = log_t.sum(-1).exp()
    for t in range(LENGTH):
        index = padded[:, t] * (SIZE + 1) + padded[:, t + 1]
        expected[t].index_add_(0, index, weights.detach())
    torch.testing.assert_close(law, expected)


def test_refusals():
    ones, mask = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got 1.5"):
        SequenceLevel(gamma=1.5)
    with pytest.raises(ValueError, match="teacher_share"):
        SequenceLevel(teacher_share=1.0)
    with pytest.raises(ValueError, match="window"):
        SequenceLevel(window=0)
    with pytest.raises(ValueError, match="every label is masked"):
        accumulated_divergence_loss(ones, ones, ~mask)
    with pytest.raises(ValueError, match=r"log_probs has shape \(2, 2\)"):
        accumulated_divergence_loss(ones, ones[:, :2], mask)
    with pytest.raises(ValueError, match="rewards must be finite, got nan"):
        outcome_loss(torch.full((2, 3), math.nan), ones, mask)
    with pytest.raises(ValueError, match="too many"):
        contexts(100, 4)
    with pytest.raises(ValueError, match=r"logits must be \(\(V \+ 1\)\^2, V\)"):
        ContextTable(torch.zeros(4, 3), 2)
