"""The surrogate against autograd of the divergence, the clip by hand, and the maximum a sample at a time."""

import math
import warnings

import pytest
import torch

from discrepancy.divergences import (
    KL,
    Alpha,
    CustomDivergence,
    InfiniteDivergenceWarning,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.methods.distillation import AdaptiveDivergenceLoss, PowerClip, adaptive_alpha, adaptive_divergence_loss
from discrepancy.methods.distillation.alphanet import adaptive_divergence, power

ALPHAS = [-1.0, 0.0, 0.5, 1.0, 2.0]


def problem(n=40, classes=6, seed=0, size=1.5):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (size * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


@pytest.mark.parametrize(
    "f",
    [
        *map(power, ALPHAS),
        JensenShannon(),
        SquaredHellinger(),
        LeCam(),
        Jeffreys(),
        TotalVariation(),
        3 * KL() + ReverseKL(),
        KL().skewed(0.3),
        Alpha(1.7).reversed(),
        CustomDivergence(lambda t: (t - 1) ** 4),
    ],
    ids=repr,
)
def test_without_a_clip_it_is_the_divergence_and_its_gradient(f):
    s, t = problem()
    truth = f.from_logits(t, s)
    ours = adaptive_divergence_loss(s, t, divergences=(f,), clip=None, reduction=lambda v: v)
    torch.testing.assert_close(ours, truth)
    (gradient,), (exact,) = (torch.autograd.grad(v.mean(), s) for v in (ours, truth))
    torch.testing.assert_close(gradient, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_clipped_surrogate_is_the_papers_formula(alpha):
    s, t = problem(size=3.0)
    beta = 5.0
    p, q = torch.softmax(t, -1), torch.softmax(s, -1).detach()
    ratio = p / q
    if alpha == 0:
        rho = ratio.clamp(max=beta).log()
    else:
        rho = (ratio**alpha).clamp(max=beta) / alpha
    truth = -(q * rho * torch.log_softmax(s, -1)).sum(-1).mean()
    ours = adaptive_divergence_loss(s, t, divergences=(power(alpha),), clip=PowerClip(beta, exempt=()))
    torch.testing.assert_close(torch.autograd.grad(ours, s)[0], torch.autograd.grad(truth, s)[0])


def test_the_clip_is_on_the_power_and_leaves_kl_alone():
    clip = PowerClip(5.0)
    assert clip.interval(KL()) == (-math.inf, math.inf)
    assert clip.interval(Alpha(2.0)) == (-math.inf, pytest.approx(math.log(5) / 2))
    assert clip.interval(Alpha(-1.0)) == (pytest.approx(-math.log(5)), math.inf)
    assert clip.interval(ReverseKL()) == (-math.inf, pytest.approx(math.log(5)))
    assert clip.interval(Alpha(3.0) + NeymanChiSquared()) == (pytest.approx(-math.log(5)), pytest.approx(math.log(5) / 3))
    assert clip.interval(JensenShannon()) == (pytest.approx(-math.log(5)), pytest.approx(math.log(5)))
    assert PowerClip(5.0, exempt=()).interval(KL()) == (-math.inf, pytest.approx(math.log(5)))


def test_the_clipped_gradient_is_bounded_where_the_plain_one_is_not():
    # The student gives the second class 1/2 and the teacher e^-12: 1/t, about 80,000, is 5 at most for Alpha(-1).
    s = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[12.0, 0.0]], dtype=torch.float64)
    sizes = [
        float(torch.autograd.grad(adaptive_divergence_loss(s, t, divergences=(Alpha(-1.0),), clip=clip), s)[0].abs().max())
        for clip in (None, PowerClip(5.0))
    ]
    assert sizes[0] > 10_000
    assert 0.5 < sizes[1] < 1.25


def test_the_maximum_is_taken_sample_by_sample():
    s, t = problem(size=0.5)
    pair = (Alpha(-1.0), Alpha(2.0))
    found = adaptive_divergence(s, t, pair, None)
    each = torch.stack([f.from_logits(t, s) for f in pair])
    torch.testing.assert_close(found.value, each.max(0).values.detach())
    assert set(found.chosen.tolist()) == {0, 1}  # both win somewhere, so that a maximum of means would differ
    assert float(found.value.mean()) > float(each.detach().mean(1).max())
    (gradient,) = torch.autograd.grad(found.surrogate.sum(), s)
    torch.testing.assert_close(gradient, torch.autograd.grad(each.max(0).values.sum(), s)[0])


def test_alpha_zero_is_a_value():
    s, t = problem()
    loss = adaptive_alpha(0.0, 0.0, clip=None)
    torch.testing.assert_close(loss(s, t), ReverseKL().from_logits(t, s).mean())
    assert adaptive_alpha().divergences == (Alpha(-1.0), KL())
    with pytest.raises(ValueError, match="must not exceed"):
        adaptive_alpha(1.0, -1.0)
    with pytest.raises(ValueError, match="must not exceed"):
        adaptive_alpha(float("nan"), 1.0)


def test_temperature_and_task():
    s, t = problem()
    y = torch.arange(40) % 6
    ours = adaptive_divergence_loss(s, t, y, divergences=(KL(),), temperature=2.0, weight=0.5, task_weight=0.3)
    truth = 0.5 * 4 * KL().from_logits(t / 2, s / 2).mean() + 0.3 * torch.nn.functional.cross_entropy(s, y)
    torch.testing.assert_close(ours, truth)


@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("pair", [(Alpha(-1.0), KL()), (Alpha(-2.0), ReverseKL()), (JensenShannon(),), (Alpha(3.0),)], ids=repr)
def test_large_logits_stay_finite_under_the_clip(pair, size):
    s, t = problem(n=200, size=size)
    s = s.detach().float().requires_grad_()
    value = adaptive_divergence_loss(s, t.float(), divergences=pair)
    (gradient,) = torch.autograd.grad(value, s)
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(gradient).all())


def test_an_infinite_row_warns_and_moves_nothing():
    s = torch.tensor([[0.0, 2000.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[2000.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    with pytest.warns(InfiniteDivergenceWarning, match="1 of 2"):
        each = adaptive_divergence_loss(s, t, divergences=(Alpha(-1.0),), clip=None, reduction=lambda v: v)
    assert each.detach()[0] == torch.inf
    (gradient,) = torch.autograd.grad(each.sum(), s)
    assert bool((gradient[0] == 0).all())
    assert float(gradient[1].abs().max()) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_divergence_loss(s, t)


def test_equal_networks_have_no_loss_and_no_gradient():
    s, _ = problem()
    value = adaptive_divergence_loss(s, s.detach().clone())
    assert float(value.detach()) == 0
    assert float(torch.autograd.grad(value, s)[0].abs().max()) < 1e-17


def test_bad_options_are_refused():
    with pytest.raises(TypeError, match="FDivergence, got Renyi"):
        AdaptiveDivergenceLoss((KL(), Renyi(2.0)))
    with pytest.raises(TypeError, match="a tuple such as"):
        AdaptiveDivergenceLoss(())
    with pytest.raises(TypeError, match="a tuple such as"):
        AdaptiveDivergenceLoss(KL())
    with pytest.raises(TypeError, match=r"write PowerClip\(5\.0\)"):
        AdaptiveDivergenceLoss(clip=5.0)
    for bound in (0.0, -1.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="bound"):
            PowerClip(bound)
