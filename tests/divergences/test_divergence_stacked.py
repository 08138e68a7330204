"""Several laws at once: entropies, pairs, bounds, edges, refusals."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import KL, CauchySchwarz, Hoelder, JensenShannon
from discrepancy.divergences import (
    GeneralizedCauchySchwarz,
    GeneralizedJensenShannon,
    InfiniteDivergenceWarning,
    SkewedJensenShannon,
)

float64 = torch.float64
seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=25, deadline=None)


def stack(seed, *shape, spread=1.5):
    return (spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=float64)).softmax(-1)


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


@given(seed=seeds, n=st.integers(2, 6), spread=st.floats(0.1, 10))
@quick
def test_jensen_shannon_is_entropy_of_the_mean_less_mean_of_entropies(seed, n, spread):
    p = stack(seed, 3, n, 5, spread=spread)
    w = 0.05 + torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=float64)
    w = w / w.sum()
    for D, weights in (
        (GeneralizedJensenShannon(), torch.full((n,), 1 / n, dtype=float64)),
        (GeneralizedJensenShannon(tuple(w.tolist())), w),
    ):
        want = entropy(torch.einsum("n,bnk->bk", weights, p)) - entropy(p) @ weights
        torch.testing.assert_close(D.from_probs(p), want, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(D.from_logits(p.log() + 5), want, rtol=1e-9, atol=1e-13)
        bound = float(-(weights * weights.log()).sum())
        assert float(D.from_probs(p).max()) <= bound * (1 + 1e-12)
        assert bound <= math.log(n) * (1 + 1e-12)
        assert torch.equal(D.from_probs(p[:, :1].expand(3, n, 5)), torch.zeros(3, dtype=float64))
    assert GeneralizedJensenShannon().from_probs(torch.eye(n, dtype=float64)).item() == pytest.approx(math.log(n))


@given(seed=seeds, w=st.floats(0.01, 0.99))
@quick
def test_two_laws(seed, w):
    p = stack(seed, 2, 6)
    torch.testing.assert_close(GeneralizedJensenShannon().from_probs(p), JensenShannon().from_probs(*p), rtol=1e-12, atol=1e-17)
    torch.testing.assert_close(
        GeneralizedJensenShannon((w, 1 - w)).from_probs(p), SkewedJensenShannon(w).from_probs(*p), rtol=1e-9, atol=1e-15
    )
    torch.testing.assert_close(GeneralizedCauchySchwarz().from_probs(p), Hoelder(2, 2).from_probs(*p), rtol=1e-10, atol=1e-16)
    torch.testing.assert_close(
        2 * GeneralizedCauchySchwarz().from_probs(p), CauchySchwarz().from_probs(*p), rtol=1e-10, atol=1e-16
    )


@given(seed=seeds, n=st.integers(2, 6), spread=st.floats(0.1, 10))
@quick
def test_cauchy_schwarz_of_many(seed, n, spread):
    p = stack(seed, 3, n, 5, spread=spread)
    logs = p.log()
    want = torch.logsumexp(n * logs, -1).sum(-1) / n - torch.logsumexp(logs.sum(-2), -1)
    D = GeneralizedCauchySchwarz()
    torch.testing.assert_close(D.from_probs(p), want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(D.from_logits(logs - 3), want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(D.from_probs(p.flip(-2)), want, rtol=1e-9, atol=1e-12)
    assert torch.equal(D.from_probs(p[:, :1].expand(3, n, 5)), torch.zeros(3, dtype=float64))
    assert bool((D.from_probs(p) >= 0).all())


def test_next_to_equality_every_digit_is_kept():
    p = stack(0, 1, 30).expand(3, 30)
    change = 1e-8 * torch.randn(3, 30, generator=torch.Generator().manual_seed(1), dtype=float64)
    near = p * (1 + change)
    near = near / near.sum(-1, keepdim=True)
    r = near / near.mean(0) - 1
    second = float((near.mean(0) * r.square()).sum() / 6)  # (1/3) sum_i KL(P_i || M) to second order
    assert GeneralizedJensenShannon().from_probs(near).item() == pytest.approx(second, rel=1e-5)
    assert 0 < GeneralizedCauchySchwarz().from_probs(near).item() < 1e-14


def test_gradients():
    u = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=float64, requires_grad=True)
    for D in (GeneralizedJensenShannon(), GeneralizedJensenShannon((0.2, 0.0, 0.8)), GeneralizedCauchySchwarz()):
        assert torch.autograd.gradcheck(D.from_logits, u)
        assert torch.autograd.gradcheck(lambda u, D=D: D.from_probs(u.softmax(-1)), u)
        far = (10 * u).detach().requires_grad_()
        assert torch.autograd.gradcheck(D.from_logits, far)


def test_edges_and_huge_logits():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.2, 0.0, 0.8]], dtype=float64, requires_grad=True)
    m = p.detach().mean(0)
    want = sum(KL().from_probs(row, m) for row in p.detach()) / 3
    value = GeneralizedJensenShannon().from_probs(p)
    assert value.item() == pytest.approx(want.item())
    with pytest.warns(InfiniteDivergenceWarning):
        infinite = GeneralizedCauchySchwarz().from_probs(p)
    assert infinite.item() == math.inf
    for grad in (torch.autograd.grad(value, p)[0], torch.autograd.grad(infinite, p, materialize_grads=True)[0]):
        assert bool(torch.isfinite(grad).all())
    for dtype in (torch.float32, float64):
        u = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        for D in (GeneralizedJensenShannon(), GeneralizedCauchySchwarz()):
            value = D.from_logits(u)
            (grad,) = torch.autograd.grad(value, u)
            assert value.dtype == dtype
            assert bool(torch.isfinite(value))
            assert bool(torch.isfinite(grad).all())
    kept = GeneralizedJensenShannon().from_logits(u, mask=torch.tensor([True, True, False]))
    torch.testing.assert_close(kept, GeneralizedJensenShannon().from_logits(u[:, :2]))


def test_refusals_and_pickles():
    with pytest.raises(ValueError, match=r"at least two laws as \(\.\.\., N, K\), got shape \(3,\)"):
        GeneralizedJensenShannon().from_probs(torch.ones(3) / 3)
    with pytest.raises(ValueError, match="2 weights were given for 3 laws"):
        GeneralizedJensenShannon((0.5, 0.5)).from_probs(torch.ones(3, 3) / 3)
    with pytest.raises(ValueError, match="weights must sum to 1"):
        GeneralizedJensenShannon((0.5, 0.6))
    with pytest.raises(ValueError, match="two laws at least"):
        GeneralizedJensenShannon((1.0,))
    with pytest.raises(ValueError, match="p must sum to 1"):
        GeneralizedCauchySchwarz().from_probs(torch.ones(2, 3))
    with pytest.raises(ValueError, match="row without a category"):
        GeneralizedCauchySchwarz().from_logits(torch.full((2, 3), -math.inf))
    with pytest.raises(ValueError, match="u has 1 logit"):
        GeneralizedCauchySchwarz().from_logits(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]))
    thirds = GeneralizedJensenShannon(torch.ones(3) / 3)  # type: ignore[arg-type]  (float32, exact to its own rounding)
    assert thirds.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3), rel=1e-12)
    D = GeneralizedJensenShannon((0.25, 0.75))
    assert pickle.loads(pickle.dumps(D)) == D
    assert repr(D) == "GeneralizedJensenShannon(weights=(0.25, 0.75))"
