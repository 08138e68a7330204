"""The balance of two divergences on hand-made samples, and networks trained together that see each other as constants."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy import NumericalError
from discrepancy.divergences import KL, Alpha, JensenShannon, NeymanChiSquared, ReverseKL
from discrepancy.methods.distillation import (
    BalancedDivergence,
    EntropyGap,
    Epochs,
    FixedWeights,
    OnlineDistiller,
    SoftEntropyGap,
    balanced_divergence_loss,
    distillation_loss,
)
from discrepancy.methods.distillation.bd_kd import InvertedRuleWarning, row_entropies, teacher_regulariser

SHARP, FLAT = [4.0, 0.0, 0.0], [1.0, 0.0, 0.0]


def problem(n=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(classes, (n,), generator=generator)


def test_weights_go_to_the_stated_sides():
    # First the student is the more confident, then the teacher.
    student, teacher = torch.tensor([SHARP, FLAT]), torch.tensor([FLAT, SHARP])
    torch.testing.assert_close(EntropyGap(3.0)(student, teacher), torch.tensor([[1.5, 0.5], [0.5, 1.5]]))
    torch.testing.assert_close(EntropyGap(3.0, swap=True)(student, teacher), torch.tensor([[0.5, 1.5], [1.5, 0.5]]))
    soft = SoftEntropyGap(0.5)(student, teacher)
    assert float(soft[0, 0]) > 1 > float(soft[0, 1])
    assert float(soft[1, 0]) < 1 < float(soft[1, 1])
    torch.testing.assert_close(soft.sum(-1), torch.full((2,), 2.0))
    torch.testing.assert_close(SoftEntropyGap(0.5, swap=True)(student, teacher), soft.flip(-1))


def test_the_soft_rule_is_its_formula():
    student, teacher, _ = problem()
    gap = torch.distributions.Categorical(logits=teacher).entropy() - torch.distributions.Categorical(logits=student).entropy()
    torch.testing.assert_close(SoftEntropyGap(0.3)(student, teacher)[:, 0], 2 * torch.sigmoid(gap / 0.3))


def test_entropies_are_exact_at_the_ends():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [0.0, -torch.inf, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(row_entropies(logits), torch.tensor([math.log(3), 0.0, math.log(2)], dtype=torch.float64))


def test_the_loss_is_the_weighted_sum_of_both_divergences():
    s, t, y = problem()
    forward = (torch.softmax(t / 3, -1) * (torch.log_softmax(t / 3, -1) - torch.log_softmax(s / 3, -1))).sum(-1)
    reverse = (torch.softmax(s / 3, -1) * (torch.log_softmax(s / 3, -1) - torch.log_softmax(t / 3, -1))).sum(-1)
    confident = torch.distributions.Categorical(logits=s).entropy() < torch.distributions.Categorical(logits=t).entropy()
    a = torch.where(confident, 4 / 3, 2 / 3)
    truth = F.cross_entropy(s, y) + 0.7 * 9 * (a * forward + (2 - a) * reverse).mean()
    torch.testing.assert_close(balanced_divergence_loss(s, t, y, temperature=3.0, weight=0.7), truth)


def test_fixed_weights_are_plain_distillation():
    s, t, y = problem()
    for weights, divergence in (((1.0, 0.0), KL()), ((0.0, 1.0), ReverseKL()), ((1.0, 1.0), KL() + ReverseKL())):
        ours = balanced_divergence_loss(s, t, y, rule=FixedWeights(*weights), temperature=2.0)
        torch.testing.assert_close(
            ours, distillation_loss(s, t, y, divergence=divergence, temperature=2.0, weight=1, task_weight=1)
        )


def test_a_divergence_of_weight_zero_is_not_evaluated():
    s, t, _ = problem()
    t[:, 0] = -torch.inf  # the reverse divergence is infinite
    value = balanced_divergence_loss(s, t, divergences=(KL(), ReverseKL()), rule=FixedWeights(1.0, 0.0))
    assert bool(torch.isfinite(value))


@pytest.mark.parametrize("pair", [(Alpha(1.5), Alpha(-0.5)), (JensenShannon(), NeymanChiSquared())])
def test_any_pair_of_divergences_is_taken(pair):
    s, t, _ = problem()
    each = balanced_divergence_loss(s, t, divergences=pair, rule=FixedWeights(0.3, 0.9), temperature=1.0, reduction=lambda v: v)
    torch.testing.assert_close(each, 0.3 * pair[0].from_logits(t, s) + 0.9 * pair[1].from_logits(t, s))


def test_weights_carry_no_gradient_and_are_taken_at_temperature_one():
    s, t, _ = problem()
    s.requires_grad_()
    seen = []

    def rule(student, teacher):
        seen.append((student, teacher))
        return torch.stack([student.sum(-1).abs(), torch.ones(8)], -1)

    (gradient,) = torch.autograd.grad(balanced_divergence_loss(s, t, rule=rule, temperature=4.0), s)
    torch.testing.assert_close(seen[0][0], s.detach())
    constant = seen[0][0].sum(-1).abs()
    truth = balanced_divergence_loss(s, t, rule=lambda *_: torch.stack([constant, torch.ones(8)], -1), temperature=4.0)
    torch.testing.assert_close(gradient, torch.autograd.grad(truth, s)[0])


def test_bad_rules_and_options_are_refused():
    s, t, y = problem()
    with pytest.warns(InvertedRuleWarning, match="swap=True"):
        EntropyGap(0.5)
    with pytest.raises(ValueError, match="delta"):
        EntropyGap(0.0)
    with pytest.raises(ValueError, match="scale"):
        SoftEntropyGap(-1.0)
    with pytest.raises(ValueError, match="first"):
        FixedWeights(-1.0)
    with pytest.raises(TypeError, match="a pair"):
        BalancedDivergence((KL(),))
    with pytest.raises(TypeError, match="write KL"):
        BalancedDivergence((KL, ReverseKL()))
    with pytest.raises(TypeError, match="rule must be callable"):
        BalancedDivergence(rule="entropy_gap")
    with pytest.raises(ValueError, match=r"shape \(8, 2\)"):
        balanced_divergence_loss(s, t, y, rule=lambda *_: torch.ones(8))
    with pytest.raises(ValueError, match="non-negative"):
        balanced_divergence_loss(s, t, y, rule=lambda *_: -torch.ones(8, 2))
    with pytest.raises(NumericalError, match="not finite"):
        balanced_divergence_loss(s, t, y, rule=lambda *_: torch.full((8, 2), torch.nan))


def test_the_teachers_loss_is_kl_from_its_own_side():
    t, s, y = problem()
    kl = (torch.softmax(t / 2, -1) * (torch.log_softmax(t / 2, -1) - torch.log_softmax(s / 2, -1))).sum(-1).mean()
    torch.testing.assert_close(teacher_regulariser(2.0, 0.3)(t, s, y), F.cross_entropy(t, y) + 0.3 * 4 * kl)


def test_online_gradients_are_those_of_each_loss_alone():
    torch.manual_seed(0)
    x, y = torch.randn(16, 3), torch.randint(4, (16,))
    teacher, student = nn.Linear(3, 4), nn.Linear(3, 4)
    both = OnlineDistiller((teacher, student))
    loss, terms = both(x, y)
    loss.backward()
    assert list(terms) == ["network 0", "network 1"]
    own = {"teacher": teacher.weight.grad.clone(), "student": student.weight.grad.clone()}
    for name, net, value in (
        ("teacher", teacher, teacher_regulariser()(teacher(x), student(x).detach(), y)),
        ("student", student, BalancedDivergence()(student(x), teacher(x).detach(), y)),
    ):
        torch.testing.assert_close(torch.autograd.grad(value, net.weight)[0], own[name])


def test_three_networks_average_over_their_partners():
    torch.manual_seed(0)
    x, y = torch.randn(16, 3), torch.randint(4, (16,))
    nets = [nn.Linear(3, 4) for _ in range(3)]
    loss = BalancedDivergence(rule=FixedWeights(1.0, 0.0), temperature=1.0)
    _, terms = OnlineDistiller(nets, [loss] * 3)(x, y)
    own, first, second = (net(x).detach() for net in nets)
    truth = F.cross_entropy(own, y) + (KL().from_logits(first, own) + KL().from_logits(second, own)).mean() / 2
    torch.testing.assert_close(terms["network 0"], truth)


def test_online_training_learns_and_repeats():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        nets = (nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 4)), nn.Linear(2, 4))
        options = Epochs(40, batch=50, learning_rate=3e-2)
        history = OnlineDistiller(nets).fit(x, y, epochs=options, generator=torch.Generator().manual_seed(2))
        assert set(history) == {"step", "loss", "network 0", "network 1"}
        assert all(float((net(x).argmax(-1) == y).float().mean()) > 0.85 for net in nets)
        runs.append(nets[1].weight.detach().clone())
    assert torch.equal(*runs)


def test_bad_sets_of_networks_are_refused():
    net = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="names one module twice"):
        OnlineDistiller((net, net))
    with pytest.raises(ValueError, match="two or more"):
        OnlineDistiller((net,))
    with pytest.raises(ValueError, match="one for each of the 2"):
        OnlineDistiller((net, nn.Linear(2, 3)), [KL()])
    with pytest.raises(ValueError, match=r"student has 3 classes.*teacher 4"):
        OnlineDistiller((nn.Linear(2, 3), nn.Linear(2, 4)))(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="5 inputs and 4 targets"):
        OnlineDistiller((net, nn.Linear(2, 3))).fit(torch.zeros(5, 2), torch.zeros(4, dtype=torch.long))
