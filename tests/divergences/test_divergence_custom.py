"""A user's own f against the class that implements the same divergence, and what is refused."""

import math

import pytest
import torch

from discrepancy import KL, ChiSquared, CustomDivergence, JensenShannon, LeCam, NeymanChiSquared, ReverseKL, TotalVariation

PAIRS = [
    (CustomDivergence(lambda t: t * torch.log(t)), KL()),
    (CustomDivergence(lambda t: 3 - torch.log(t)), ReverseKL()),
    (CustomDivergence(lambda t: t * t - 4 * t), ChiSquared()),
    (CustomDivergence(lambda t: 1 / t), NeymanChiSquared()),
    (CustomDivergence(lambda t: (t * torch.log(t) - (1 + t) * torch.log((1 + t) / 2)) / 2), JensenShannon()),
    (CustomDivergence(lambda t: (t - 1) ** 2 / (2 * (t + 1))), LeCam()),
    (CustomDivergence(lambda t: (t - 1).abs() / 2, smooth=False), TotalVariation()),
]


@pytest.mark.parametrize(("mine", "table"), PAIRS, ids=lambda v: repr(v))
def test_only_f_is_needed(mine, table):
    t = torch.tensor([1e-8, 0.2, 0.99, 0.9999, 1.0, 1.0003, 1.01, 3.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(mine.generator(t), table.generator(t), rtol=1e-8, atol=0)
    torch.testing.assert_close(mine.derivative(t), table.derivative(t), rtol=1e-8, atol=1e-15)
    assert (mine.at_zero, mine.slope_at_zero) == pytest.approx((table.at_zero, table.slope_at_zero))
    assert mine.slope_at_infinity == pytest.approx(table.slope_at_infinity)
    s = torch.tensor([-1.3, -0.4, 0.0, 0.2, 0.32], dtype=torch.float64)
    torch.testing.assert_close(mine.conjugate(s), table.conjugate(s), rtol=1e-8, atol=1e-12)
    p, q = torch.randn(2, 3, 5, dtype=torch.float64).softmax(-1).requires_grad_().unbind()
    torch.testing.assert_close(mine.from_probs(p, q), table.from_probs(p, q), rtol=1e-8, atol=0)
    torch.testing.assert_close(mine.reversed().from_probs(p, q), table.from_probs(q, p), rtol=1e-8, atol=0)
    got = torch.autograd.grad(mine.from_logits(p.log(), q.log()).sum(), (p, q), retain_graph=True)
    want = torch.autograd.grad(table.from_logits(p.log(), q.log()).sum(), (p, q))
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    if table.smooth:
        # Autograd's second derivative of a formula has the formula's own rounding, which at t = 1e6 is all of it for Le Cam.
        torch.testing.assert_close(mine.curvature(t[:-1]), table.curvature(t[:-1]), rtol=1e-8, atol=0)
        torch.testing.assert_close(mine.inverse_derivative(s), table.inverse_derivative(s), rtol=1e-7, atol=0)
        s.requires_grad_()
        assert torch.autograd.gradcheck(mine.inverse_derivative, s)
    assert (2 * mine).skewed(0.3).from_probs(p, q)[0].item() == pytest.approx(
        (2 * table).skewed(0.3).from_probs(p, q)[0].item(), rel=1e-8
    )


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda t: -t * torch.log(t), "must be convex"),
        (lambda t: 2 * t - 1, "straight line"),
        (lambda t: (t * t).sum(), "must be elementwise"),
        (lambda t: 1 / (t - 1), "finite at t = 1"),
        (lambda t: torch.log(t - 2), "finite at t = 1"),
        (lambda t: (t - 1).abs(), "smooth=False"),
        (lambda t: math.exp(t.item()), "elementwise, differentiable"),
    ],
)
def test_what_is_no_generator_is_refused(f, match):
    with pytest.raises(ValueError, match=match):
        CustomDivergence(f)


def test_limits_can_be_given_and_a_name():
    D = CustomDivergence(lambda t: t * torch.log(t), zero=0.0, infinity=math.inf, name="mine")
    assert D.at_zero == 1.0
    assert repr(D) == "mine"
    with pytest.raises(TypeError, match="function of a tensor"):
        CustomDivergence("t log t")  # type: ignore[arg-type]
