"""The problems' closed forms against numerical integration, SciPy, and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, wasserstein_distance

from discrepancy.testing import problems


@pytest.mark.parametrize(("shift", "s", "t"), [(0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 1.0, 2.0), (0.7, 1.3, 0.6)])
def test_gaussians_on_the_line_by_quadrature(shift: float, s: float, t: float) -> None:
    problem = problems.gaussians(shift, s, t)
    P, Q = norm(0, s), norm(shift, t)

    def integral(f) -> float:
        return quad(f, -15, 15, limit=400, epsabs=1e-11, points=[0, shift])[0]

    want = {
        "energy": integral(lambda u: 2 * (P.cdf(u) - Q.cdf(u)) ** 2),
        "kl": integral(lambda u: P.pdf(u) * (P.logpdf(u) - Q.logpdf(u))),
        "reverse-kl": integral(lambda u: Q.pdf(u) * (Q.logpdf(u) - P.logpdf(u))),
        "squared-sliced-wasserstein": shift**2 + (s - t) ** 2,
    }
    if s == t:
        want["total-variation"] = integral(lambda u: abs(P.pdf(u) - Q.pdf(u)) / 2)
    for quantity, value in want.items():
        assert problem.answer(quantity) == pytest.approx(value, abs=1e-7), quantity
    w1 = integral(lambda u: abs(P.cdf(u) - Q.cdf(u)))
    assert problem.answer("wasserstein", p=1) == pytest.approx(w1, abs=1e-6)
    w2 = quad(lambda u: (P.ppf(u) - Q.ppf(u)) ** 2, 0, 1, limit=400)[0]
    assert problem.answer("wasserstein", p=2) == pytest.approx(math.sqrt(w2), abs=1e-5)
    if shift == 0.0:
        w3 = quad(lambda u: abs(P.ppf(u) - Q.ppf(u)) ** 3, 0, 1, limit=400)[0]
        assert problem.answer("wasserstein", p=3) == pytest.approx(w3 ** (1 / 3), abs=1e-4)


@pytest.mark.parametrize("d", [1, 2, 7])
def test_mean_norm_and_samples_in_more_dimensions(d: int) -> None:
    problem = problems.gaussians(1.5, 1.0, 0.5, dimension=d)
    x, y = problem.draw(200_000, 200_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (200_000, d)
    across, wide, narrow = (
        (x - y).norm(dim=1).mean(),
        (x - x.roll(1, 0)).norm(dim=1).mean(),
        (y - y.roll(1, 0)).norm(dim=1).mean(),
    )
    assert problem.answer("energy") == pytest.approx(float(2 * across - wide - narrow), abs=0.02)
    k = [torch.exp(-(u - v).square().sum(1) / 2).mean() for u, v in ((x, x.roll(1, 0)), (y, y.roll(1, 0)), (x, y))]
    assert problem.answer("mmd", bandwidth=1.0) == pytest.approx(float(k[0] + k[1] - 2 * k[2]), abs=0.01)
    np.testing.assert_allclose(y.mean(0).norm(), 1.5, atol=0.02)


def test_uniforms_by_quadrature() -> None:
    for shift in (0.0, 0.3, 1.0):
        problem = problems.uniforms(shift)
        grid = (np.arange(20_000) + 0.5) / 20_000
        assert problem.answer("wasserstein", p=1) == pytest.approx(wasserstein_distance(grid, grid + shift), abs=1e-3)
        heights = np.clip(np.linspace(0, 2, 200_001), 0, 1) - np.clip(np.linspace(0, 2, 200_001) - shift, 0, 1)
        assert problem.answer("energy") == pytest.approx(2 * np.trapezoid(heights**2, dx=1e-5), abs=1e-8)
        assert problem.answer("total-variation") == shift


def test_the_table_by_its_definition() -> None:
    problem = problems.table()
    p, q = problem.a.numpy(), problem.b.numpy()
    m = (p + q) / 2
    want = {
        "kl": (p * np.log(p / q)).sum(),
        "reverse-kl": (q * np.log(q / p)).sum(),
        "total-variation": abs(p - q).sum() / 2,
        "chi-squared": ((p - q) ** 2 / q).sum(),
        "squared-hellinger": ((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2,
        "jensen-shannon": (p * np.log(p / m) + q * np.log(q / m)).sum() / 2,
        "energy": 2 * (np.cumsum(p - q)[:-1] ** 2).sum(),
        "wasserstein": wasserstein_distance([0, 1, 2], [0, 1, 2], p, q),
    }
    for quantity, value in want.items():
        assert problem.answer(quantity) == pytest.approx(value, abs=1e-12), quantity
    assert problem.answer("wasserstein", p=2) == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_precision_batch_and_mass_that_was_asked_for(dtype: torch.dtype) -> None:
    for problem in problems.sample_problems(dtype=dtype):
        assert {t.dtype for t in (problem.x, problem.y, problem.a, problem.b)} == {dtype}
        torch.testing.assert_close(problem.a.sum(-1), torch.ones_like(problem.a.sum(-1)))
        torch.testing.assert_close(problem.b.sum(-1), torch.ones_like(problem.b.sum(-1)))
    moved = problems.translation(7, 1.5, 2, dtype=dtype, batch=(2, 3))
    assert moved.x.shape == (2, 3, 7, 2)
    torch.testing.assert_close(moved.y.mean(-2) - moved.x.mean(-2), torch.full((2, 3, 2), 1.5 / 2**0.5, dtype=dtype))
    x, y = problems.uniforms().draw(4, 5, dtype=dtype, batch=(6,))
    assert (x.shape, y.shape, x.dtype) == ((6, 4, 1), (6, 5, 1), dtype)


def test_unknown_answers_and_impossible_problems() -> None:
    with pytest.raises(ValueError, match="known are"):
        problems.uniforms().answer("kl")
    with pytest.raises(ValueError, match="no closed form"):
        problems.gaussians(1.0, 1.0, 2.0).answer("wasserstein", p=3)
    with pytest.raises(ValueError, match="shift"):
        problems.uniforms(1.5)
    with pytest.raises(ValueError, match="scales"):
        problems.gaussians(0.0, -1.0)
