"""Divergences of probability vectors and of logits: values, supports, gradients, refusals."""

import math
import warnings

import numpy as np
import pytest
import torch
from divergence_table import COMPOSED, EVERY
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from discrepancy import (
    KL,
    Alpha,
    ChiSquared,
    FDivergence,
    JensenShannon,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.divergences import GeneralizedJensenShannon, InfiniteDivergenceWarning

float64 = torch.float64


def laws(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=draw, dtype=float64).mul(1.5).softmax(-1)


def test_scipy_agrees():
    p, q = laws(40, 7)
    torch.testing.assert_close(
        KL().from_probs(p, q), torch.from_numpy(rel_entr(p.numpy(), q.numpy()).sum(-1)), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        ReverseKL().from_probs(p, q), torch.from_numpy(rel_entr(q.numpy(), p.numpy()).sum(-1)), rtol=1e-12, atol=0
    )
    want = jensenshannon(p.numpy(), q.numpy(), axis=-1) ** 2
    torch.testing.assert_close(JensenShannon().from_probs(p, q), torch.from_numpy(want), rtol=1e-11, atol=0)
    torch.testing.assert_close(TotalVariation().from_probs(p, q), (p - q).abs().sum(-1) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(SquaredHellinger().from_probs(p, q), 1 - (p * q).sqrt().sum(-1), rtol=1e-11, atol=1e-15)
    torch.testing.assert_close(ChiSquared().from_probs(p, q), (p * p / q).sum(-1) - 1, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(NeymanChiSquared().from_probs(p, q), (q * q / p).sum(-1) - 1, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
def test_definition_gradients_and_dimensions(D: FDivergence):
    p, q = laws(3, 5)
    want = (q * D.generator(p / q)).sum(-1)
    torch.testing.assert_close(D.from_probs(p, q), want, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(D.from_probs(p.T, q.T, dim=0), want, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(D.from_logits(p.log() + 3, q.log() - 7), want, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(D.from_logits(p.log().T, q.log().T, dim=0), want, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(D.from_probs(p[0], q), torch.stack([D.from_probs(p[0], r) for r in q]))
    u, v = p.log().requires_grad_(), q.log().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: D.from_probs(a.softmax(-1), b.softmax(-1)), (u, v))
    assert torch.autograd.gradcheck(D.from_logits, (u, v))
    if D.smooth:
        assert torch.autograd.gradgradcheck(lambda a, b: D.from_probs(a.softmax(-1), b.softmax(-1)), (u[0], v[0]))


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
def test_support_and_infinite_values(D: FDivergence):
    p = torch.tensor([[0.0, 0.4, 0.6, 0.0], [0.5, 0.5, 0.0, 0.0]], dtype=float64, requires_grad=True)
    q = torch.tensor([[0.3, 0.7, 0.0, 0.0], [0.1, 0.2, 0.7, 0.0]], dtype=float64, requires_grad=True)
    t = torch.tensor([0.4 / 0.7, 5.0, 2.5], dtype=float64)
    f = D.generator(t)
    want = [0.3 * D.at_zero + 0.7 * f[0] + 0.6 * D.slope_at_infinity, 0.1 * f[1] + 0.2 * f[2] + 0.7 * D.at_zero]
    infinite = [not math.isfinite(w) for w in want]
    for value, leaves in (
        (D.from_probs, (p, q)),
        (D.from_logits, (p.detach().log().requires_grad_(), q.detach().log().requires_grad_())),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = value(*leaves)
        assert [w.category for w in caught] == [InfiniteDivergenceWarning] * any(infinite)
        torch.testing.assert_close(got, torch.stack([torch.as_tensor(w, dtype=float64).detach() for w in want]))
        grads = torch.autograd.grad(got.sum(), leaves)
        assert all(bool(torch.isfinite(grad).all()) for grad in grads)
        flat = (torch.cat(grads, -1) == 0).all(-1)
        assert flat.tolist() == infinite


def test_finite_slopes_at_the_edge_of_the_support_are_kept():
    # Leaving the simplex along one coordinate, before renormalisation, costs f'(p/q): -2 at zero for Pearson.
    p = torch.tensor([0.0, 1.0], dtype=float64, requires_grad=True)
    q = torch.tensor([0.5, 0.5], dtype=float64)
    (grad,) = torch.autograd.grad(ChiSquared().from_probs(p, q), p)
    step = 1e-6
    moved = torch.tensor([step, 1 - step], dtype=float64)
    slope = (ChiSquared().from_probs(moved, q) - ChiSquared().from_probs(p, q)) / step
    assert (grad[0] - grad[1]).item() == pytest.approx(slope.item(), rel=1e-5)
    assert slope.item() == pytest.approx(-4, rel=1e-5)


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, float64])
def test_equality_is_exactly_zero_and_next_to_it_is_positive(D, dtype):
    p = laws(50)[0].to(dtype)
    assert D.from_probs(p, p).tolist() == 0.0
    u = torch.randn(6, 50, dtype=dtype)
    assert D.from_logits(u, u.clone()).tolist() == [0.0] * 6
    q = p * (1 + 1e-5 * torch.where(torch.arange(50) % 2 == 0, 1.0, -1.0).to(dtype))
    q = q / q.sum()
    assert float(D.from_probs(p, q)) > 0
    if D.smooth:
        # Second order in the difference: f''(1)/2 chi^2, which needs every digit of p - q.
        first = float(D.curvature(torch.ones(1, dtype=float64))) / 2 * float(((p.double() - q.double()) ** 2 / q.double()).sum())
        assert float(D.from_probs(p, q)) == pytest.approx(first, rel=1e-2 if dtype == torch.float32 else 1e-4)


def test_huge_logits():
    u = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], requires_grad=True)
    v = torch.tensor([[-1e4, 0.0, 1e4], [1e4, -1e4, 0.0]], requires_grad=True)
    for D in (KL(), ReverseKL(), JensenShannon(), SquaredHellinger(), TotalVariation(), KL().skewed(0.1), Alpha(0.3)):
        value = D.from_logits(u, v)
        assert bool(torch.isfinite(value).all())
        for grad in torch.autograd.grad(value.sum(), (u, v)):
            assert bool(torch.isfinite(grad).all())
    assert KL().from_logits(u, v)[0].item() == pytest.approx(2e4)
    assert JensenShannon().from_logits(u, v)[0].item() == pytest.approx(math.log(2))
    with pytest.warns(InfiniteDivergenceWarning):
        value = NeymanChiSquared().from_logits(u, v)
    assert value[0].item() == math.inf
    # e^(-1200 + 800) is moderate although the ratio e^800 is not a float.
    w = torch.tensor([0.0, -1200.0], dtype=float64)
    z = torch.tensor([0.0, -600.0], dtype=float64)
    assert float(ChiSquared().from_logits(z, w)) == pytest.approx(1.0, rel=1e-6)


def test_a_mask_removes_categories_from_both_laws():
    u, v = torch.randn(2, 4, 6, dtype=float64)
    mask = torch.tensor([True, True, False, True, False, True])
    u.requires_grad_()
    got = KL().from_logits(u, v, mask=mask)
    torch.testing.assert_close(got, KL().from_logits(u[:, mask], v[:, mask]))
    (grad,) = torch.autograd.grad(got.sum(), u)
    assert bool((grad[:, ~mask] == 0).all())
    assert bool((grad[:, mask] != 0).all())


def test_inputs_of_any_kind_and_dtype():
    assert KL().from_probs([0.5, 0.5], np.array([0.25, 0.75])).dtype == float64
    assert KL().from_probs(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).dtype == torch.float32
    assert KL().from_logits(torch.zeros(2, 3, dtype=torch.bfloat16), torch.ones(3)).shape == (2,)


@pytest.mark.parametrize(
    ("p", "q", "match"),
    [
        ([0.5, 0.6], [0.5, 0.5], "p must sum to 1"),
        ([0.5, 0.5], [1.5, -0.5], "q must be non-negative"),
        ([0.5, 0.5], [0.2, 0.3, 0.5], "p has .* q|categories along"),
        ([math.nan, 0.5], [0.5, 0.5], "p has 1 non-finite"),
    ],
)
def test_bad_probabilities(p, q, match):
    with pytest.raises(ValueError, match=match):
        KL().from_probs(p, q)


def test_bad_logits():
    zero = torch.zeros(3)
    with pytest.raises(ValueError, match=r"u has 1 logit\(s\) that are NaN or \+inf, the first at index \(1,\)"):
        KL().from_logits(torch.tensor([0.0, math.inf, 0.0]), zero)
    with pytest.raises(ValueError, match="v has a row without a category"):
        KL().from_logits(zero, torch.full((3,), -math.inf))
    with pytest.raises(TypeError, match="mask must be boolean"):
        KL().from_logits(zero, zero, mask=torch.ones(3))
    with pytest.raises(ValueError, match="dim must lie in"):
        KL().from_logits(zero, zero, dim=1)
    with pytest.raises(TypeError, match="p must be numeric"):
        KL().from_probs(["a", "b"], [0.5, 0.5])


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_probabilities_in_half_precision_are_laws(dtype, error):
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.softmax(torch.randn(20, 300, generator=generator, dtype=torch.float64), -1) for _ in range(2))
    found = KL().from_probs(p.to(dtype), q.to(dtype).requires_grad_())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), KL().from_probs(p, q), rtol=error, atol=0)
    stacked = GeneralizedJensenShannon().from_probs(torch.stack([p, q], -2).to(dtype))
    torch.testing.assert_close(stacked.double(), JensenShannon().from_probs(p, q), rtol=error, atol=0)
    with pytest.raises(ValueError, match="sum to 1"):
        KL().from_probs((p * 1.02).to(dtype), q.to(dtype))
