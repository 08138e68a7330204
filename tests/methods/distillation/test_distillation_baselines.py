"""KD, decoupled KD and DIST against torch's own formulas, and the boundary that all losses on logits share."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from discrepancy.divergences import KL, Alpha, ChiSquared, CustomDivergence, JensenShannon, ReverseKL, TotalVariation
from discrepancy.methods.distillation import (
    DIST,
    AdaptiveDivergenceLoss,
    BalancedDivergence,
    DecoupledDistillation,
    KnowledgeDistillation,
    PlackettLuceDistillation,
    decoupled_distillation_loss,
    dist_loss,
    distillation_loss,
)
from discrepancy.methods.distillation.baselines import decoupled_terms
from discrepancy.methods.distillation.logits import ProbabilitiesWarning, logit_rows

LOSSES = [
    KnowledgeDistillation,
    DecoupledDistillation,
    DIST,
    PlackettLuceDistillation,
    BalancedDivergence,
    AdaptiveDivergenceLoss,
]
TAKES_MASS_ZERO = [KnowledgeDistillation, DecoupledDistillation, DIST]


def problem(n=8, classes=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.to(dtype), teacher.to(dtype), torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_kd_is_hintons_loss(T):
    s, t, y = problem()
    s.requires_grad_()
    truth = 0.1 * F.cross_entropy(s, y) + 0.9 * T**2 * F.kl_div(
        torch.log_softmax(s / T, -1), torch.log_softmax(t / T, -1), log_target=True, reduction="batchmean"
    )
    ours = distillation_loss(s, t, y, temperature=T)
    torch.testing.assert_close(ours, truth)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(truth, s))


def test_reverse_kl_has_the_student_first():
    s, t, _ = problem()
    truth = F.kl_div(torch.log_softmax(t, -1), torch.log_softmax(s, -1), log_target=True, reduction="batchmean")
    torch.testing.assert_close(distillation_loss(s, t, divergence=ReverseKL(), temperature=1.0, weight=1.0), truth)


@pytest.mark.parametrize("divergence", [JensenShannon(), Alpha(0.3), 2 * KL() + ReverseKL(), TotalVariation(), KL().skewed(0.2)])
def test_any_divergence_is_taken_and_zero_at_equality(divergence):
    s, t, _ = problem()
    value = distillation_loss(s, t, divergence=divergence, temperature=2.0, weight=1.0)
    torch.testing.assert_close(value, 4 * divergence.from_probs(torch.softmax(t / 2, -1), torch.softmax(s / 2, -1)).mean())
    assert float(distillation_loss(s, s, divergence=divergence)) == 0


def test_a_users_generator_works():
    s, t, _ = problem()
    mine = CustomDivergence(lambda t: (t - 1) ** 2)
    torch.testing.assert_close(
        distillation_loss(s, t, divergence=mine), distillation_loss(s, t, divergence=ChiSquared()), rtol=1e-6, atol=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), T=st.sampled_from([0.5, 1.0, 4.0]))
def test_decoupling_adds_up_to_kl(seed, T):
    s, t, y = problem(seed=seed)
    first, second = decoupled_terms(logit_rows(s, t, y), KL(), T)
    p_t = torch.softmax(t / T, -1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(first + (1 - p_t) * second, KL().from_logits(t / T, s / T))


def test_decoupled_weights_enter_as_stated():
    s, t, y = problem()
    first, second = decoupled_terms(logit_rows(s, t, y), KL(), 3.0)
    truth = 9 * (0.7 * first + 2.5 * second).mean() + 0.4 * F.cross_entropy(s, y)
    ours = decoupled_distillation_loss(s, t, y, temperature=3.0, target_weight=0.7, other_weight=2.5, task_weight=0.4)
    torch.testing.assert_close(ours, truth)


def test_dist_is_one_minus_numpys_correlations():
    s, t, y = problem(n=7, classes=4)
    p, q = (torch.softmax(v / 2, -1).numpy() for v in (t, s))
    rows = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(7)])
    columns = np.mean([1 - np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(4)])
    ours = dist_loss(s, t, y, temperature=2.0, between_weight=0.5, within_weight=3.0, task_weight=0.2)
    assert float(ours) == pytest.approx(4 * (0.5 * rows + 3 * columns) + 0.2 * float(F.cross_entropy(s, y)))


def test_dist_ignores_affine_changes_and_survives_constant_rows():
    s, t, _ = problem()
    assert float(dist_loss(s, s + 7)) == pytest.approx(0, abs=1e-15)
    flat = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    value = dist_loss(flat, t[:4, :3])
    (gradient,) = torch.autograd.grad(value, flat)
    assert float(value.detach()) == pytest.approx(2.0)
    assert bool((gradient == 0).all())


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_gradients_agree_with_finite_differences(kind):
    s, t, y = problem(n=4, classes=4)
    # The clipped adaptive loss has another gradient than its value on purpose: see its own tests.
    loss = kind(clip=None) if kind is AdaptiveDivergenceLoss else kind()
    assert torch.autograd.gradcheck(lambda v: loss(v, t, y), (s.requires_grad_(),))


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_images_of_logits_are_rows_of_logits(kind):
    s, t, y = problem(n=24)
    loss = kind()

    def image(v):
        return v.reshape(2, 3, 4, -1).movedim(-1, 1)

    torch.testing.assert_close(loss(image(s), image(t), y.reshape(2, 3, 4)), loss(s, t, y))


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_ignored_positions_do_not_count(kind):
    s, t, y = problem(n=8)
    masked = torch.where(torch.arange(8) % 2 == 0, y, -100)
    wild = torch.where((torch.arange(8) % 2 == 0)[:, None], s, torch.full_like(s, float("nan")))
    loss = kind()
    torch.testing.assert_close(loss(wild, t, masked), loss(s[::2], t[::2], y[::2]))
    with pytest.raises(ValueError, match="every target is ignore_index"):
        loss(s, t, torch.full_like(y, -100))
    with pytest.raises(ValueError, match="batch is empty"):
        loss(s[:0], t[:0], y[:0])


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_follows_float64(kind, dtype):
    s, t, y = problem()
    s, t = s.to(dtype), t.to(dtype)
    ours, truth = kind()(s, t, y), kind()(s.double(), t.double(), y)
    assert ours.dtype == torch.float32
    assert float(ours) == pytest.approx(float(truth), rel=1e-5)
    leaf = s.requires_grad_()
    kind()(leaf, t, y).backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_views_give_the_same_bits(kind):
    s, t, y = problem()
    apart = torch.stack([s, t], -1)[..., 0].T.contiguous().T
    torch.testing.assert_close(kind()(apart, t, y), kind()(s, t, y), rtol=0, atol=0)
    one = t[:1].expand(8, -1)
    torch.testing.assert_close(kind()(s, one, y), kind()(s, one.contiguous(), y), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_give_no_nan(kind, size):
    s, t, y = problem(n=50, dtype=torch.float32)
    s = (size * s).requires_grad_()
    value = kind()(s, size * t, y)
    (gradient,) = torch.autograd.grad(value, s)
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("kind", TAKES_MASS_ZERO, ids=lambda k: k.__name__)
def test_a_class_that_neither_has_is_no_class(kind):
    s, t, _ = problem()
    y = torch.arange(8) % 4
    without = kind(**({"within_weight": 0.0, "between_weight": 0.0} if kind is DIST else {}))
    s[:, 4] = t[:, 4] = -torch.inf
    torch.testing.assert_close(without(s, t, y), without(s[:, :4], t[:, :4], y))


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_shifted_logits_change_nothing_and_the_teacher_learns_nothing(kind):
    s, t, y = problem()
    t.requires_grad_()
    s.requires_grad_()
    shift = torch.arange(8.0, dtype=torch.float64)[:, None]
    value = kind()(s, t, y)
    torch.testing.assert_close(kind()(s + shift, t - 2 * shift, y), value)
    gradient, teachers = torch.autograd.grad(value, (s, t), allow_unused=True)
    assert teachers is None
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_bad_logits_and_targets_are_refused(kind):
    s, t, y = problem()
    loss = kind()
    with pytest.raises(ValueError, match=r"student has 5 classes.*teacher 4"):
        loss(s, t[:, :4], y)
    with pytest.raises(ValueError, match="student_logits has shape"):
        loss(s, t[:3], y)
    with pytest.raises(TypeError, match="teacher_logits must be a floating tensor"):
        loss(s, t.tolist(), y)
    with pytest.raises(TypeError, match=r"use target\.argmax"):
        loss(s, t, torch.softmax(t, -1))
    with pytest.raises(ValueError, match=r"lie in \[0, 4\]"):
        loss(s, t, torch.full_like(y, 5))
    with pytest.raises(ValueError, match="target must have shape"):
        loss(s, t, y[:3])
    with pytest.raises(ValueError, match="teacher_logits has 1 of 40"):
        loss(s, t.index_fill(1, torch.tensor([2]), 0).masked_fill(torch.arange(40).reshape(8, 5) == 7, float("nan")), y)
    with pytest.raises(ValueError, match="student_logits has"):
        loss(s.masked_fill(torch.arange(40).reshape(8, 5) == 7, float("inf")), t, y)


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_probabilities_passed_as_logits_are_noticed(kind):
    s, t, y = problem()
    with pytest.warns(ProbabilitiesWarning, match="teacher_logits"):
        kind()(s, torch.softmax(t, -1), y)


@pytest.mark.parametrize("kind", [PlackettLuceDistillation, AdaptiveDivergenceLoss])
def test_losses_without_a_zero_class_refuse_infinite_logits(kind):
    s, t, y = problem()
    t[0, 0] = -torch.inf
    with pytest.raises(ValueError, match="teacher_logits has 1 of 40"):
        kind()(s, t, y)


def test_options_are_checked_when_the_loss_is_made():
    for kind in (KnowledgeDistillation, DecoupledDistillation, DIST, BalancedDivergence, AdaptiveDivergenceLoss):
        with pytest.raises(ValueError, match="temperature"):
            kind(temperature=0.0)
    with pytest.raises(ValueError, match="weight"):
        KnowledgeDistillation(weight=-1.0)
    with pytest.raises(TypeError, match=r"got the class ReverseKL itself: write ReverseKL\(\)"):
        KnowledgeDistillation(ReverseKL)
    with pytest.raises(TypeError, match="got str"):
        DecoupledDistillation("kl")
    with pytest.raises(TypeError, match="true class"):
        DecoupledDistillation()(*problem()[:2])
    with pytest.raises(ValueError, match="two classes"):
        decoupled_distillation_loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="two samples"):
        dist_loss(torch.zeros(1, 3), torch.zeros(1, 3))


@pytest.mark.parametrize("kind", LOSSES, ids=lambda k: k.__name__)
def test_modules_survive_pickling(kind):
    s, t, y = problem()
    loss = kind()
    torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(s, t, y), loss(s, t, y), rtol=0, atol=0)


def test_reductions_see_the_values_that_count():
    s, t, y = problem()
    each = distillation_loss(s, t, y, reduction=lambda v: v)
    assert each.shape == (8,)
    torch.testing.assert_close(distillation_loss(s, t, y), each.mean())
    torch.testing.assert_close(distillation_loss(s, t, y, reduction=torch.sum), each.sum())
