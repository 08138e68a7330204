"""Token divergences with masks: TRL's loss on the same logits, the survey's formulas, extreme and odd inputs, refusals."""

import math
import os
import warnings

import pytest
import torch

from discrepancy.divergences import (
    KL,
    Alpha,
    CauchySchwarz,
    CustomDivergence,
    Jeffreys,
    JensenShannon,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.language_models import sequence_mean, token_mean
from discrepancy.methods.distillation.token_divergence import (
    RatioWeightedKL,
    TokenDivergence,
    VocabularyWarning,
    gkd_divergence,
    token_divergence,
    token_values,
)


def _logits(seed=0, shape=(3, 4, 7), dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=g, dtype=dtype)


def _mask():
    return torch.tensor([[True, True, False, False], [True] * 4, [False, True, True, True]])


def _square(t):
    return (t - 1) ** 2


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_agrees_with_trl(beta, temperature):
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    gkd = pytest.importorskip("trl.experimental.gkd")
    mask = _mask()
    labels = torch.where(mask, 1, -100)
    grads, values = [], []
    for ours in (True, False):
        student, teacher = _logits(0).requires_grad_(), _logits(1)
        if ours:
            value = token_divergence(
                student, teacher, mask, gkd_divergence(beta), temperature=temperature, aggregation=token_mean
            )
        else:
            value = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta, temperature=temperature)
        value.backward()
        values.append(float(value.detach()))
        grads.append(student.grad)
    assert values[0] == pytest.approx(values[1], abs=1e-9, rel=1e-6)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-9)
    assert float(grads[0][~mask].abs().max()) == 0


def test_formulas_of_the_survey():
    student, teacher = _logits(0, (1, 1, 5)), _logits(1, (1, 1, 5))
    s, t = torch.softmax(student[0, 0], -1), torch.softmax(teacher[0, 0], -1)
    mask = torch.ones(1, 1, dtype=torch.bool)

    def kl(a, b):
        return float((a * (a / b).log()).sum())

    expected = {
        KL(): kl(t, s),
        ReverseKL(): kl(s, t),
        KL().skewed(0.1): kl(t, 0.1 * t + 0.9 * s),
        KL().skewed(0.1).reversed(): kl(s, 0.9 * t + 0.1 * s),
        gkd_divergence(0.3): 0.3 * kl(t, 0.3 * t + 0.7 * s) + 0.7 * kl(s, 0.3 * t + 0.7 * s),
        RatioWeightedKL(): kl(t, s) * 0 + float((t / (t + s) * t * (t / s).log() + s / (t + s) * s * (s / t).log()).sum()),
    }
    for divergence, value in expected.items():
        assert float(token_divergence(student, teacher, mask, divergence)) == pytest.approx(value, rel=1e-12), divergence


def test_ratio_weighted_kl_has_the_value_of_jeffreys_and_the_gradient_of_fixed_weights():
    u, v = _logits(0, (4, 6)), _logits(1, (4, 6)).requires_grad_()
    torch.testing.assert_close(RatioWeightedKL().from_logits(u, v), Jeffreys().from_logits(u, v))
    p, log_q = torch.softmax(u, -1), torch.log_softmax(v, -1)
    w = (p / (p + log_q.exp())).detach()
    literal = (w * p * (p.log() - log_q) + (1 - w) * log_q.exp() * (log_q - p.log())).sum()
    (expected,) = torch.autograd.grad(literal, v)
    (found,) = torch.autograd.grad(RatioWeightedKL().from_logits(u, v).sum(), v)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(RatioWeightedKL().from_probs(p, log_q.exp()), Jeffreys().from_probs(p, log_q.exp()))
    assert RatioWeightedKL().reversed() == RatioWeightedKL()
    hole = torch.tensor([0.0, -math.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaf = torch.zeros(2, requires_grad=True)
        value = RatioWeightedKL().from_logits(hole, leaf)
        value.backward()
    assert value.item() == math.inf
    assert leaf.grad.tolist() == [0.0, 0.0]
    assert float(RatioWeightedKL().from_logits(hole, hole)) == 0


def test_ends_of_jsd_are_conventions_and_rescaling_connects_them():
    u, v = _logits(0, (6,)), _logits(1, (6,))
    for near, limit in ((lambda e: e, KL()), (lambda e: 1 - e, ReverseKL())):
        end = float(limit.from_logits(u, v))
        assert float(gkd_divergence(near(1e-6)).from_logits(u, v)) < 1.1e-6 * end
        # The rescaled value differs from the end's by a multiple of the distance to it.
        errors = [abs(float(gkd_divergence(near(e), rescaled=True).from_logits(u, v)) - end) for e in (1e-4, 1e-6)]
        assert errors[1] < 0.03 * errors[0] < 0.03 * 0.02 * end
    assert gkd_divergence(0) == KL()
    assert gkd_divergence(1.0) == ReverseKL()
    assert float(gkd_divergence(0.5).from_logits(u, v)) == pytest.approx(float(JensenShannon().from_logits(u, v)))
    for beta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\]"):
            gkd_divergence(beta)


@pytest.mark.parametrize(
    "divergence",
    [
        KL(),
        ReverseKL(),
        TotalVariation(),
        Alpha(0.5),
        0.3 * KL() + SquaredHellinger(),
        KL().skewed(0.1),
        CustomDivergence(_square, name="square"),
        RatioWeightedKL(),
        Renyi(0.5),
        CauchySchwarz(),
    ],
    ids=repr,
)
def test_any_divergence_with_gradients(divergence):
    teacher, mask = _logits(1), _mask()
    student = _logits(0).requires_grad_()
    value = token_divergence(student, teacher, mask, divergence)
    (gradient,) = torch.autograd.grad(value, student)
    per_token = torch.stack([divergence.from_logits(teacher[i, j], student[i, j]) for i, j in mask.nonzero().tolist()])
    lengths = mask.sum(-1)[mask.nonzero()[:, 0]]
    torch.testing.assert_close(value, (per_token / lengths).sum() / 3)
    if not isinstance(divergence, RatioWeightedKL):  # fixed weights are no derivative of the value
        direction = _logits(5)
        shift = 1e-6
        ends = [float(token_divergence(student.detach() + e * direction, teacher, mask, divergence)) for e in (shift, -shift)]
        assert (ends[0] - ends[1]) / (2 * shift) == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-8)


def test_masked_positions_may_hold_anything():
    student, teacher, mask = _logits(0), _logits(1), _mask()
    expected = token_divergence(student, teacher, mask, KL())
    dirty = student.clone()
    dirty[~mask] = math.nan
    leaf = dirty.requires_grad_()
    value = token_divergence(leaf, teacher, mask, KL())
    torch.testing.assert_close(value, expected)
    value.backward()
    assert bool(torch.isfinite(leaf.grad).all())


def test_aggregations_differ_by_length():
    student, teacher, mask = _logits(0), _logits(1), _mask()
    values = token_values(student, teacher, mask, KL())
    assert float(token_divergence(student, teacher, mask, KL())) == pytest.approx(
        sum(float(values[i][mask[i]].mean()) for i in range(3)) / 3
    )
    assert float(token_divergence(student, teacher, mask, KL(), aggregation=token_mean)) == pytest.approx(
        float(values[mask].mean())
    )
    assert bool((values[~mask] == 0).all())


@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_tokens_and_a_bin_for_the_rest(k):
    student, teacher, mask = _logits(0).requires_grad_(), _logits(1), torch.ones(3, 4, dtype=torch.bool)
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    top = p.topk(k, -1).indices
    bins = [torch.cat([x.gather(-1, top), 1 - x.gather(-1, top).sum(-1, keepdim=True)], -1) for x in (p, q)]
    for divergence in (KL(), ReverseKL(), TotalVariation()):
        found = token_values(student, teacher, mask, divergence, top_tokens=k)
        torch.testing.assert_close(found, divergence.from_probs(*[b / b.sum(-1, keepdim=True) for b in bins]))
        assert bool((found <= token_values(student, teacher, mask, divergence) + 1e-12).all())
    full = token_values(student, teacher, mask, KL(), top_tokens=7)
    assert torch.equal(full, token_values(student, teacher, mask, KL()))


def test_precisions_layouts_and_extreme_logits():
    mask = _mask()
    exact = token_divergence(_logits(0), _logits(1), mask, JensenShannon())
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 5e-3)):
        student = _logits(0).to(dtype).requires_grad_()
        value = token_divergence(student, _logits(1).to(dtype), mask, JensenShannon())
        value.backward()
        assert value.dtype == torch.float32
        assert student.grad.dtype == dtype
        assert value.item() == pytest.approx(float(exact), rel=tolerance)
    strided = _logits(0, (3, 7, 4)).transpose(1, 2)
    expanded = _logits(1, (1, 1, 7)).expand(3, 4, 7)
    torch.testing.assert_close(
        token_divergence(strided, expanded, mask, KL()), token_divergence(strided.contiguous(), expanded.clone(), mask, KL())
    )
    student = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[-1e4, 1e4, -math.inf]]])
    value = token_divergence(student, teacher, torch.ones(1, 1, dtype=torch.bool), JensenShannon())
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert bool(torch.isfinite(student.grad).all())


def test_teacher_gets_no_gradient():
    teacher = _logits(1).requires_grad_()
    token_divergence(_logits(0).requires_grad_(), teacher, _mask(), KL()).backward()
    assert teacher.grad is None


def test_vocabularies():
    mask = _mask()
    student, teacher = _logits(0), _logits(1, (3, 4, 9))
    with pytest.raises(ValueError, match=r"student has a vocabulary of 7 and the teacher one of 9.*Outcome"):
        token_divergence(student, teacher, mask, KL())
    with pytest.warns(VocabularyWarning, match="student's 7 and the teacher's 9 logits are cut to the 6"):
        value = token_divergence(student, teacher, mask, KL(), vocabulary=6)
    torch.testing.assert_close(value, token_divergence(student[..., :6], teacher[..., :6], mask, KL()))
    with pytest.raises(ValueError, match="7, the teacher one of 9, and vocabulary = 8"):
        token_divergence(student, teacher, mask, KL(), vocabulary=8)


def test_refusals():
    student, teacher, mask = _logits(0), _logits(1), _mask()
    with pytest.raises(ValueError, match="keeps none of the 12 positions"):
        token_divergence(student, teacher, torch.zeros_like(mask), KL())
    with pytest.raises(ValueError, match="mask must be boolean of shape"):
        token_divergence(student, teacher, mask.long(), KL())
    with pytest.raises(ValueError, match="both must be"):
        token_divergence(student, teacher[:2], mask, KL())
    with pytest.raises(TypeError, match="on_policy_distillation takes an object of kind Divergence, got str"):
        token_divergence(student, teacher, mask, "jsd")
    with pytest.raises(TypeError, match=r"write KL\(\)"):
        TokenDivergence(KL)
    with pytest.raises(ValueError, match="temperature must be positive"):
        token_divergence(student, teacher, mask, KL(), temperature=0.0)
    with pytest.raises(ValueError, match="top_tokens"):
        token_divergence(student, teacher, mask, KL(), top_tokens=0)


def test_module_is_the_function():
    student, teacher, mask = _logits(0), _logits(1), _mask()
    module = TokenDivergence(KL(), temperature=2.0, aggregation=sequence_mean)
    assert torch.equal(module(student, teacher, mask), token_divergence(student, teacher, mask, KL(), temperature=2.0))
