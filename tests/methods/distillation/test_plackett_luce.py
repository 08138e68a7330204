"""The ranking model against enumeration, and PLD against its formula written out, its gradient and its limits."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from discrepancy import NumericalError
from discrepancy.methods.distillation import (
    Confidence,
    PlackettLuceDistillation,
    PositionRanks,
    TopOne,
    UniformRanks,
    plackett_luce_distillation_loss,
    plackett_luce_log_prob,
    sample_rankings,
)
from discrepancy.methods.distillation.plackett_luce_distillation import teacher_ranking


def problem(n=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(classes, (n,), generator=generator)


def written_out(s, t, y, tau):
    """The card's sum, in plain Python."""
    total = 0.0
    for i in range(len(s)):
        others = sorted((c for c in range(s.shape[1]) if c != int(y[i])), key=lambda c: -float(t[i, c]))
        order = [int(y[i]), *others]
        q = [math.exp(float(t[i, c]) / tau) for c in range(s.shape[1])]
        for k, c in enumerate(order):
            left = math.log(sum(math.exp(float(s[i, j])) for j in order[k:]))
            total += q[c] / sum(q) * (left - float(s[i, c]))
    return total / len(s)


def test_rankings_sum_to_one_by_enumeration():
    worths = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    full = torch.tensor(list(itertools.permutations(range(4))))
    assert float(plackett_luce_log_prob(worths, full).exp().sum()) == pytest.approx(1.0, abs=1e-14)
    top = torch.tensor(list(itertools.permutations(range(4), 2)))
    partial = plackett_luce_log_prob(worths, top).exp()
    assert float(partial.sum()) == pytest.approx(1.0, abs=1e-14)
    # A top-two ranking has the chance of all rankings that begin with it.
    begins = (full[:, :2] == top[5]).all(-1)
    assert float(partial[5]) == pytest.approx(float(plackett_luce_log_prob(worths, full[begins]).exp().sum()))


def test_samples_follow_the_model():
    worths = torch.tensor([0.5, -0.5, 1.0], dtype=torch.float64)
    draws = sample_rankings(worths, 40_000, generator=torch.Generator().manual_seed(0))
    for ranking in itertools.permutations(range(3)):
        p = float(plackett_luce_log_prob(worths, torch.tensor(ranking)).exp())
        share = float((draws == torch.tensor(ranking)).all(-1).double().mean())
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / 40_000)


def test_samples_repeat_with_the_generator():
    worths = torch.randn(4, 6)
    first, second = (sample_rankings(worths, 3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == (3, 4, 6)
    assert torch.equal(first, second)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_the_loss_is_the_papers_sum(tau):
    s, t, y = problem()
    ours = plackett_luce_distillation_loss(s, t, y, weights=Confidence(tau))
    assert float(ours) == pytest.approx(written_out(s, t, y, tau), rel=1e-12)


def test_the_gradient_is_the_papers():
    s, t, y = problem()
    s.requires_grad_()
    (gradient,) = torch.autograd.grad(plackett_luce_distillation_loss(s, t, y, reduction=torch.sum), s)
    ranking, alpha = teacher_ranking(t, y), torch.softmax(t, -1)
    expected = torch.zeros_like(gradient)
    for i in range(len(s)):
        order = ranking[i].tolist()
        for rank, c in enumerate(order):
            for k in range(rank + 1):
                left = torch.softmax(s[i, order[k:]].detach(), -1)[rank - k]
                expected[i, c] += alpha[i, order[k]] * left
            expected[i, c] -= alpha[i, c]
    torch.testing.assert_close(gradient, expected)


def test_the_true_class_comes_first_though_the_teacher_errs():
    t = torch.tensor([[5.0, 1.0, 3.0, 3.0]])
    assert teacher_ranking(t, torch.tensor([1])).tolist() == [[1, 0, 2, 3]]  # ties in the order of the classes
    assert torch.equal(t, torch.tensor([[5.0, 1.0, 3.0, 3.0]]))
    # The first weight is the teacher's probability of the true class, not its largest.
    weights = Confidence()(t, torch.tensor([[1, 0, 2, 3]]))
    assert float(weights[0, 0]) == pytest.approx(float(torch.softmax(t, -1)[0, 1]))


def test_top_one_and_a_certain_teacher_are_cross_entropy():
    s, t, y = problem()
    truth = F.cross_entropy(s, y)
    certain = torch.zeros_like(t).scatter(1, y[:, None], 1e4)
    torch.testing.assert_close(plackett_luce_distillation_loss(s, t, y, weights=TopOne()), truth)
    torch.testing.assert_close(plackett_luce_distillation_loss(s, certain, y), truth)


def test_uniform_weights_are_the_likelihood_of_the_ranking():
    s, t, y = problem()
    truth = -plackett_luce_log_prob(s, teacher_ranking(t, y)).mean() / 5
    torch.testing.assert_close(plackett_luce_distillation_loss(s, t, y, weights=UniformRanks()), truth)


def test_position_weights_fall_and_sum_to_one_for_many_classes():
    for classes in (1, 2, 10, 3000):
        ranking = torch.arange(classes)[None]
        weights = PositionRanks()(torch.zeros(1, classes, dtype=torch.float64), ranking)[0]
        assert bool((weights[1:] <= weights[:-1]).all())
        assert float(weights.sum()) == pytest.approx(float(classes > 1))
    expected = torch.tensor([7.0, 3.0, 1.0, 0.0]) / 11
    torch.testing.assert_close(PositionRanks()(torch.zeros(1, 4), torch.arange(4)[None])[0], expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_convex_and_non_negative(seed, share):
    s, t, y = problem(seed=seed)
    other = problem(seed=seed + 1)[0]

    def loss(v):
        return float(plackett_luce_distillation_loss(v, t, y))

    assert loss(s) >= 0
    assert loss(share * s + (1 - share) * other) <= share * loss(s) + (1 - share) * loss(other) + 1e-12


def test_top_keeps_the_first_choices_with_their_weights():
    s, t, y = problem()
    ranking = teacher_ranking(t, y)
    for k in (1, 3, 5):
        stages = torch.stack([plackett_luce_log_prob(s, ranking[:, : j + 1]) for j in range(k)], -1)
        stages = torch.diff(stages, dim=-1, prepend=torch.zeros(6, 1, dtype=torch.float64))
        truth = -(torch.softmax(t, -1).gather(1, ranking[:, :k]) * stages).sum(-1).mean()
        torch.testing.assert_close(plackett_luce_distillation_loss(s, t, y, top=k), truth)


def test_a_users_weights_are_called_with_logits_and_ranking():
    s, t, y = problem()
    ours = plackett_luce_distillation_loss(s, t, y, weights=lambda logits, ranking: torch.softmax(logits, -1).gather(1, ranking))
    torch.testing.assert_close(ours, plackett_luce_distillation_loss(s, t, y))
    with pytest.raises(ValueError, match=r"shape \(6, 5\), got \(6, 1\)"):
        plackett_luce_distillation_loss(s, t, y, weights=lambda logits, ranking: logits[:, :1])
    with pytest.raises(ValueError, match="non-negative"):
        plackett_luce_distillation_loss(s, t, y, weights=lambda logits, ranking: -torch.ones_like(logits))
    with pytest.raises(NumericalError, match="not finite"):
        plackett_luce_distillation_loss(s, t, y, weights=lambda logits, ranking: logits / 0)


def test_bad_options_are_refused():
    s, t, y = problem()
    with pytest.raises(ValueError, match="temperature"):
        Confidence(0.0)
    with pytest.raises(ValueError, match="number of classes, 5"):
        plackett_luce_distillation_loss(s, t, y, top=6)
    with pytest.raises(ValueError, match="top"):
        PlackettLuceDistillation(top=0)
    with pytest.raises(TypeError, match="callable"):
        PlackettLuceDistillation("confidence")
    with pytest.raises(TypeError, match="starts with the true class"):
        PlackettLuceDistillation()(s, t)


def test_bad_rankings_are_refused():
    worths = torch.zeros(4)
    with pytest.raises(ValueError, match="twice"):
        plackett_luce_log_prob(worths, torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="from 0 to 3"):
        plackett_luce_log_prob(worths, torch.tensor([4]))
    with pytest.raises(ValueError, match="from 1 to 4 items"):
        plackett_luce_log_prob(worths, torch.tensor([0, 1, 2, 3, 0]))
    with pytest.raises(TypeError, match="integer"):
        plackett_luce_log_prob(worths, torch.tensor([0.0]))
    with pytest.raises(ValueError, match="non-finite"):
        plackett_luce_log_prob(torch.tensor([0.0, float("nan")]), torch.tensor([0]))
    with pytest.raises(ValueError, match="broadcast"):
        plackett_luce_log_prob(torch.zeros(2, 4), torch.zeros(3, 1, dtype=torch.long))
