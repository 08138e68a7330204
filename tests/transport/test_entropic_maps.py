"""Entropic maps and potentials out of sample: at the samples, against closed forms, their slopes, debiased, streamed."""

from dataclasses import replace

import pytest
import torch

from discrepancy.costs import Euclidean, SquaredEuclidean
from discrepancy.transport import (
    KLPenalty,
    SemiDualNewton,
    Sinkhorn,
    SinkhornDivergence,
    UnbalancedNewton,
    UnbalancedSinkhorn,
    UnbalancedSinkhornDivergence,
)
from discrepancy.transport.entropic import maps

TIGHT = SemiDualNewton(tolerance=1e-10)


def uphill(x, y):
    """A cost that is not symmetric."""
    return (x - y).square().sum(-1) + 0.4 * (y - x)[..., 0].clamp_min(0)


def clouds(n=14, m=9, d=2, batch=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, n, d, generator=generator, dtype=torch.float64)
    y = 1.3 * torch.randn(*batch, m, d, generator=generator, dtype=torch.float64) + 0.7
    a = torch.rand(*batch, n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(*batch, m, generator=generator, dtype=torch.float64) + 0.1
    return x, y, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


@pytest.mark.parametrize("sizes", [(14, 9), (9, 14)])
@pytest.mark.parametrize(
    "D",
    [
        Sinkhorn(0.3, solver=TIGHT),
        Sinkhorn(0.3, Euclidean(), TIGHT),
        Sinkhorn(0.3, uphill, TIGHT),
        UnbalancedSinkhorn(0.3, penalty=(KLPenalty(0.5), KLPenalty(2.0)), solver=UnbalancedNewton(tolerance=1e-10)),
    ],
    ids=["squared", "euclidean", "asymmetric", "unbalanced"],
)
def test_at_the_samples_they_are_the_plan_and_the_potentials(D, sizes):
    x, y, a, b = clouds(*sizes)
    found = D.solve(x, y, a, b)
    f, g = found.potentials()
    torch.testing.assert_close(f(x), found.f, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(g(y), found.g, atol=1e-8, rtol=1e-8)
    plan = found.plan()
    torch.testing.assert_close(found.map()(x), plan @ y / plan.sum(-1, keepdim=True), atol=1e-8, rtol=1e-8)


def test_gaussians_have_a_linear_map():
    """Between N(0, s^2) and N(m, t^2) the entropic plan is Gaussian: for |x - y|^2 and epsilon = 2 e its covariance c solves
    c^2 + e c = s^2 t^2, and T(z) = m + c / s^2 z (Janati et al. 2020)."""
    n, s, t, shift, epsilon = 2000, 1.0, 0.6, 1.5, 0.4
    q = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    normal = (2 * q - 1).erfinv() * 2**0.5
    x, y = s * normal[:, None], shift + t * normal[:, None]
    s2, t2 = float((x**2).mean()), float(((y - shift) ** 2).mean())
    e = epsilon / 2
    c = (-e + (e**2 + 4 * s2 * t2) ** 0.5) / 2
    z = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    got = Sinkhorn(epsilon).solve(x, y).map()(z)
    torch.testing.assert_close(got, shift + c / s2 * z, atol=3e-3, rtol=0)
    # Debiased, z + T(z) - T_x(z): closer to the optimal map shift + t / s z than T is.
    debiased = SinkhornDivergence(epsilon).solve(x, y).map()(z)
    optimal = shift + t / s * z
    own = (-e + (e**2 + 4 * s2**2) ** 0.5) / 2 / s2
    torch.testing.assert_close(debiased, z + shift + (c / s2 - own) * z, atol=3e-3, rtol=0)
    assert float((debiased - optimal).abs().max()) < float((got - optimal).abs().max())


def test_the_map_is_the_slope_of_the_potential_and_differentiable_itself():
    x, y, a, b = clouds()
    found = Sinkhorn(0.3, solver=TIGHT).solve(x, y, a, b)
    z = (torch.randn(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(found.potentials()[0](z).sum(), z)
    T = found.map()
    torch.testing.assert_close(T(z), z - slope / 2, atol=1e-10, rtol=1e-10)
    assert torch.autograd.gradcheck(T, (z,))
    (back,) = torch.autograd.grad(found.potentials()[1](z).sum(), z)
    assert float(back.abs().min()) > 0


@pytest.mark.parametrize(
    "D",
    [SinkhornDivergence(0.3, solver=TIGHT), UnbalancedSinkhornDivergence(0.3, solver=UnbalancedNewton(tolerance=1e-10))],
    ids=["balanced", "unbalanced"],
)
def test_the_debiased_map_moves_as_the_gradient_says(D):
    """a_i (T(x_i) - x_i) is minus half the gradient in x_i of the balanced divergence; at equality T is the identity; either
    order of the samples is served."""
    for sizes in ((14, 9), (9, 14), (10, 10)):
        x, y, a, b = clouds(*sizes)
        found = D.solve(x.requires_grad_(), y, a, b)
        (gradient,) = torch.autograd.grad(found.value, x)
        moved = found.map()(x.detach()) - x.detach()
        if isinstance(D, SinkhornDivergence):
            torch.testing.assert_close(a[:, None] * moved, -gradient / 2, atol=1e-8, rtol=1e-7)
    x = x.detach()
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for cost in (D.cost, uphill):
        same = replace(D, cost=cost).solve(x, x.clone(), a, a.clone()).map()
        torch.testing.assert_close(same(z), z, atol=1e-9, rtol=0)


def test_batches_dtypes_and_blocks(monkeypatch):
    x, y, a, b = clouds(batch=(3,))
    found = Sinkhorn(0.3, solver=TIGHT).solve(x, y, a, b)
    shared = torch.randn(5, 2, dtype=torch.float64)
    z = shared.expand(3, 5, 2)
    whole, values = found.map()(shared), found.potentials()[0](shared)
    assert whole.shape == (3, 5, 2)
    assert values.shape == (3, 5)
    for k in range(3):
        alone = Sinkhorn(0.3, solver=TIGHT).solve(x[k], y[k], a[k], b[k])
        torch.testing.assert_close(whole[k], alone.map()(shared), atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(values[k], alone.potentials()[0](shared), atol=1e-8, rtol=1e-8)

    def slopes():
        at = z.clone().requires_grad_()
        return torch.autograd.grad(found.map()(at).square().sum() + found.potentials()[1](at).sum(), at)[0]

    want = slopes()
    monkeypatch.setattr(maps, "_BLOCK_BYTES", 1)  # a row at a time
    torch.testing.assert_close(found.map()(shared), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes(), want, rtol=1e-12, atol=1e-12)
    single = Sinkhorn(0.3).solve(x[0].float(), y[0].float())
    assert single.map()(shared.float()).dtype == torch.float32


def test_a_zero_weight_attracts_nothing():
    x, y, a, b = clouds()
    b[0] = 0
    b = b / b.sum()
    far = y.clone()
    far[0] = 1e3
    D = Sinkhorn(0.3, solver=TIGHT)
    z = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(D.solve(x, far, a, b).map()(z), D.solve(x, y[1:], a, b[1:]).map()(z), atol=1e-8, rtol=1e-8)


def test_wrong_points_are_refused():
    x, y, a, b = clouds()
    T = Sinkhorn(0.3).solve(x, y, a, b).map()
    with pytest.raises(ValueError, match="z has 3 features"):
        T(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="knows no points"):
        Sinkhorn(0.3).solve_cost(SquaredEuclidean().matrix(x, y)).map()
