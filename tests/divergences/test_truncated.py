"""Top-k teachers: lower bounds that grow with k, exact gradients, extreme k."""

import pytest
import torch
from divergence_table import EVERY
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import KL, JensenShannon, ReverseKL
from discrepancy.divergences import TruncatedLogits, truncated

f64 = torch.float64


def pair(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=draw, dtype=f64), 2 * torch.randn(shape, generator=draw, dtype=f64)


def merged(u, v, k):
    """Probabilities of the k likeliest of u and of the others together, by sorting all of them."""
    order = u.argsort(-1, descending=True)
    p, q = u.softmax(-1).gather(-1, order), v.softmax(-1).gather(-1, order)
    return tuple(torch.cat([t[..., :k], t[..., k:].sum(-1, keepdim=True)], -1) for t in (p, q))


@pytest.mark.parametrize("D", EVERY, ids=repr)
def test_lower_bounds_grow_to_the_full_value(D):
    u, v = pair(6, 9)
    full = D.from_logits(u, v)
    values = torch.stack([truncated(D, TruncatedLogits.of(u, k), v) for k in range(1, 10)])
    assert bool((values.diff(dim=0) >= -1e-13 * full).all())
    torch.testing.assert_close(values[7], full, rtol=1e-12, atol=0)  # one category is left: the rest is that category
    torch.testing.assert_close(values[8], full, rtol=1e-12, atol=0)
    for k in (1, 4):
        torch.testing.assert_close(values[k - 1], D.from_probs(*merged(u, v, k)), rtol=1e-10, atol=1e-13)
    assert bool((values[0] < full).all())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 12), which=st.integers(0, len(EVERY) - 1))
def test_never_above_the_full_divergence(seed, k, which):
    u, v = pair(12, seed=seed)
    D = EVERY[which]
    assert float(truncated(D, TruncatedLogits.of(u, k), v)) <= float(D.from_logits(u, v)) * (1 + 1e-12)


@pytest.mark.parametrize("k", [1, 3, 7, 8])
def test_gradients(k, monkeypatch):
    u, v = pair(2, 3, 8)
    teacher = TruncatedLogits.of(u, k)
    leaf = v.requires_grad_()
    for D in (KL(), ReverseKL(), JensenShannon(), KL().skewed(0.2)):
        assert torch.autograd.gradcheck(lambda t, D=D: truncated(D, teacher, t), leaf)
        (got,) = torch.autograd.grad(truncated(D, teacher, leaf).sum(), leaf)
        p, q = merged(u, leaf, k)
        (want,) = torch.autograd.grad(D.from_probs(p.detach(), q).sum(), leaf)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(torch.func.grad(lambda t, D=D: truncated(D, teacher, t).sum())(v.detach()), want)
    assert torch.autograd.gradgradcheck(lambda t: truncated(JensenShannon(), teacher, t), leaf)


def test_half_precision_and_rows_that_count():
    u, v = pair(4, 50)
    teacher = TruncatedLogits.of(u.bfloat16(), 10)
    student = v.bfloat16().requires_grad_()
    where = torch.tensor([True, False, True, True])
    value = truncated(KL(), teacher, student, where=where)
    value.sum().backward()
    want = truncated(KL(), TruncatedLogits.of(u.bfloat16().double(), 10), v.bfloat16().double())
    torch.testing.assert_close(value[where].double(), want[where], rtol=2e-6, atol=0)
    assert value.dtype == torch.float32
    assert student.grad.dtype == torch.bfloat16
    assert bool((student.grad[1] == 0).all())
    assert value[1] == 0


def test_from_log_probabilities():
    u, v = pair(5, 20)
    whole = TruncatedLogits.of(u, 6)
    log_p = torch.log_softmax(u, -1)
    again = TruncatedLogits.with_normaliser(log_p.gather(-1, whole.indices), whole.indices)
    torch.testing.assert_close(truncated(KL(), again, v), truncated(KL(), whole, v), rtol=1e-10, atol=0)
    logits = TruncatedLogits.with_normaliser(whole.values, whole.indices, torch.logsumexp(u, -1))
    torch.testing.assert_close(truncated(KL(), logits, v), truncated(KL(), whole, v), rtol=1e-10, atol=0)
    everything = TruncatedLogits.with_normaliser(log_p, torch.arange(20).expand(5, 20))
    torch.testing.assert_close(truncated(KL(), everything, v), KL().from_logits(u, v), rtol=1e-6, atol=1e-9)


def test_refusals():
    u, v = pair(2, 6)
    teacher = TruncatedLogits.of(u, 3)
    with pytest.raises(ValueError, match="k must be at most"):
        TruncatedLogits.of(u, 7)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        TruncatedLogits.of(u, 0)
    with pytest.raises(ValueError, match="the student has 2: teacher and student must share a vocabulary"):
        truncated(KL(), teacher, v[:, :2])
    with pytest.raises(ValueError, match=r"v has rows \(1,\)"):
        truncated(KL(), teacher, v[:1])
    with pytest.raises(ValueError, match="names a category twice"):
        TruncatedLogits(teacher.values, torch.zeros_like(teacher.indices), teacher.log_rest)
    with pytest.raises(TypeError, match="indices must be integers"):
        TruncatedLogits(teacher.values, teacher.indices.double(), teacher.log_rest)
    with pytest.raises(ValueError, match="one shape"):
        TruncatedLogits(teacher.values, teacher.indices[:, :2], teacher.log_rest)
    with pytest.raises(ValueError, match="log_rest must have shape"):
        TruncatedLogits(teacher.values, teacher.indices, teacher.log_rest[:1])
    with pytest.raises(ValueError, match=r"NaN or \+inf"):
        TruncatedLogits(teacher.values, teacher.indices, teacher.log_rest * torch.nan)
    with pytest.raises(ValueError, match="times the normaliser"):
        TruncatedLogits.with_normaliser(u + 5, torch.arange(6).expand(2, 6))
