"""MMD against double sums and closed forms; the standard error, the pooled statistic, the witness, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from discrepancy import MMD, Discrepancy, EnergyDistance
from discrepancy.kernels import Gaussian, Kernel, Laplacian, MedianHeuristic
from discrepancy.testing import problems


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def masses(n: int, seed: int) -> torch.Tensor:
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 2
    w[0] = 0.0
    return w / w.sum()


def by_hand(x, y, a, b, h: float, biased: bool) -> float:
    """The definition, with scikit-learn's kernel matrix of the pooled sample."""
    K = rbf_kernel(torch.cat([x, y]), gamma=1 / (2 * h * h))
    n = len(x)
    xx, yy, xy = np.outer(a, a) * K[:n, :n], np.outer(b, b) * K[n:, n:], np.outer(a, b) * K[:n, n:]
    if biased:
        return xx.sum() + yy.sum() - 2 * xy.sum()
    within_x = (xx.sum() - np.trace(xx)) / (1 - (a**2).sum())
    within_y = (yy.sum() - np.trace(yy)) / (1 - (b**2).sum())
    return within_x + within_y - 2 * xy.sum()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 1), (20, 20, 3), (25, 60, 9), (700, 900, 6)])
def test_is_the_double_sum(n: int, m: int, d: int, biased: bool) -> None:
    x, y = sample(n, d, 0), sample(m, d, 1, 0.5)
    a, b = masses(n, 2), masses(m, 3)
    uniform = (np.full(n, 1 / n), np.full(m, 1 / m))
    D = MMD(Gaussian(1.4), biased=biased)
    np.testing.assert_allclose(D(x, y), by_hand(x, y, *uniform, 1.4, biased), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(D(x, y, a, b), by_hand(x, y, a.numpy(), b.numpy(), 1.4, biased), rtol=1e-9, atol=1e-13)


def test_bandwidth_is_the_median_of_the_pooled_sample_and_recorded() -> None:
    x, y = sample(30, 3, 0), sample(20, 3, 1, 0.5)
    h = float(np.median(pdist(torch.cat([x, y]))))
    np.testing.assert_allclose(MMD()(x, y), MMD(Gaussian(h))(x, y), rtol=1e-9)
    assert f"Gaussian(bandwidth={MMD().resolved(x, y).kernel.bandwidth!r})" in MMD().solve(x, y).method  # type: ignore[attr-defined]
    np.testing.assert_allclose(MMD().resolved(x, y).kernel.bandwidth, h, rtol=1e-12)  # type: ignore[attr-defined]
    mixture = Gaussian(MedianHeuristic(0.5)) + Gaussian(MedianHeuristic(2.0))
    want = MMD(Gaussian(h / 2))(x, y) + MMD(Gaussian(2 * h))(x, y)
    np.testing.assert_allclose(MMD(mixture)(x, y), want, rtol=1e-9)


@pytest.mark.parametrize("population", [p for p in problems.populations() if "mmd" in p.answers], ids=lambda p: p.name)
def test_unbiased_for_the_closed_form(population: problems.Population) -> None:
    truth = population.answer("mmd", bandwidth=1.2)
    x, y = population.draw(60, 40, generator=torch.Generator().manual_seed(0), batch=(400,))
    values = MMD(Gaussian(1.2))(x, y)
    error = float(values.std()) / 400**0.5
    assert abs(float(values.mean()) - truth) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("problem", [p for p in problems.sample_problems() if "mmd" in p.answers], ids=lambda p: p.name)
def test_exact_problems(problem: problems.SampleProblem) -> None:
    got = MMD(Gaussian(1.5), biased=True)(problem.x, problem.y, problem.a, problem.b)
    np.testing.assert_allclose(got, problem.answer("mmd", bandwidth=1.5), atol=1e-15, rtol=1e-13)


def test_float32_far_from_the_origin_is_as_good_as_float64() -> None:
    for d in (3, 12):
        x = (sample(300, d, 0) * 256).round() / 256
        y = (sample(200, d, 1, 0.25) * 256).round() / 256
        want = MMD(Gaussian(2.0), biased=True)(x, y)
        got = MMD(Gaussian(2.0), biased=True)((x + 1000).float(), (y + 1000).float())
        np.testing.assert_allclose(got, want, rtol=3e-7)


def test_standard_error_in_blocks_and_of_one_point() -> None:
    x, y = sample(900, 5, 0), sample(700, 5, 1, 0.2)
    K = rbf_kernel(torch.cat([x, y]), gamma=0.5)
    n, m = len(x), len(y)
    s = (K[:n, :n].sum(1) - 1) / (n - 1) - K[:n, n:].mean(1)
    t = (K[n:, n:].sum(1) - 1) / (m - 1) - K[n:, :n].mean(1)
    first = 4 * s.var(ddof=1) / n + 4 * t.var(ddof=1) / m

    def centred(k):
        return k - k.mean(0) - k.mean(1, keepdims=True) + k.mean()

    second = 4 * (centred(K[:n, n:]) ** 2).mean() / (n * m)
    for k, size in ((K[:n, :n], n), (K[n:, n:], m)):
        own = (k.sum(1) - 1) / (size - 1)
        off = k - own[:, None] - own[None] + own.mean()
        np.fill_diagonal(off, 0)
        second += 2 * (off**2).sum() / (size * (size - 1)) ** 2 * size * (size - 1) / (size * (size - 1))
    want = np.sqrt(max(first - second, second))
    got = MMD(Gaussian(1.0)).solve(x, y).standard_error
    np.testing.assert_allclose(got, want, rtol=2e-3)
    alone = MMD(Gaussian(1.0), biased=True).solve(x[:1], y)
    assert alone.standard_error is None
    assert "one point" in alone.note


@pytest.mark.parametrize("memory", [1.0, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pooled_kept_or_streamed(memory: float, dtype: torch.dtype) -> None:
    n, m = 300, 280  # together more than one block
    z = torch.cat([sample(n, 6, 0), sample(m, 6, 1, 0.1)]).to(dtype)
    A, B = torch.zeros(5, n + m, dtype=dtype), torch.zeros(5, n + m, dtype=dtype)
    for r in range(5):
        p = torch.randperm(n + m, generator=torch.Generator().manual_seed(r)) if r else torch.arange(n + m)
        A[r, p[:n]], B[r, p[n:]] = 1 / n, 1 / m
    weighted_A, weighted_B = A * (1 + z[:, 0].abs()), B * (1 + z[:, 1].abs())
    weighted_A /= weighted_A.sum(1, keepdim=True)
    weighted_B /= weighted_B.sum(1, keepdim=True)
    for biased in (True, False):
        D = MMD(Gaussian(2.0), biased=biased, memory=memory)
        for left, right in ((A, B), (weighted_A, weighted_B)):
            got = D.pooled(z)(left, right)
            want = [D(z[u > 0], z[v > 0], u[u > 0], v[v > 0]) for u, v in zip(left, right, strict=True)]
            # Under the null the statistic is 1e-3 of the kernel's values: the tolerance is relative to those.
            np.testing.assert_allclose(got, torch.stack(want), rtol=1e-5, atol=1e-13 if dtype == torch.float64 else 2e-8)


def test_pooled_unbiased_counts_a_row_on_both_sides() -> None:
    z = sample(6, 2, 0)
    A = torch.tensor([[0.5, 0.25, 0.25, 0, 0, 0]], dtype=torch.float64)
    B = torch.tensor([[0, 0, 0.5, 0.25, 0.25, 0]], dtype=torch.float64)
    got = MMD(Gaussian(1.0)).pooled(z)(A, B)
    np.testing.assert_allclose(got[0], by_hand(z, z, A[0].numpy(), B[0].numpy(), 1.0, False), rtol=1e-12)
    with pytest.raises(ValueError, match="two points"):
        MMD(Gaussian(1.0)).pooled(z)(torch.eye(6, dtype=torch.float64)[:1], B)
    with pytest.raises(ValueError, match="one cloud"):
        MMD().pooled(z.expand(2, 6, 2))


def test_witness_of_batches_and_gradients() -> None:
    x, y = sample(20, 2, 0).reshape(2, 10, 2), sample(14, 2, 1).reshape(2, 7, 2)
    f = MMD(Gaussian(0.8)).witness(x, y)
    points = sample(5, 2, 3)
    got = f(points)
    assert got.shape == (2, 5)
    for k in range(2):
        want = rbf_kernel(points, x[k], gamma=1 / 1.28).mean(1) - rbf_kernel(points, y[k], gamma=1 / 1.28).mean(1)
        np.testing.assert_allclose(got[k], want, rtol=1e-12)
    assert torch.autograd.gradcheck(f, points.requires_grad_())
    with pytest.raises(ValueError, match="points has 3 features"):
        f(sample(5, 3, 0))


class Bilinear(Kernel):
    """<x, y>: the MMD under it is |mean x - mean y|^2, and its diagonal is not constant."""

    def matrix(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y.mT


def test_a_kernel_of_ones_own_streams_with_exact_gradients() -> None:
    x, y = sample(700, 3, 0, 1.0).requires_grad_(), sample(600, 3, 1)
    a = masses(700, 2).requires_grad_()
    value = MMD(Bilinear(), biased=True)(x, y, a)
    gap = (a[:, None] * x).sum(0) - y.mean(0)
    torch.testing.assert_close(value, gap.square().sum(), rtol=1e-11, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, x)[0], 2 * a.detach()[:, None] * gap.detach(), rtol=1e-9, atol=1e-14)
    assert not MMD(Bilinear()).claims.translation_invariant


def test_gradients_across_blocks_are_those_of_a_dense_computation() -> None:
    x, y = sample(700, 6, 0), sample(800, 6, 1, 0.3)
    a, b = masses(700, 2), masses(800, 3)

    def dense(p, q, u, v):
        def mean(s, w, t, z):
            return w @ torch.exp(-(s[:, None] - t[None]).square().sum(-1) / 2) @ z

        return mean(p, u, p, u) + mean(q, v, q, v) - 2 * mean(p, u, q, v)

    inputs = [t.clone().requires_grad_() for t in (x, y, a, b)]
    want = torch.autograd.grad(dense(*inputs[:2], *(w / w.sum() for w in inputs[2:])), inputs)
    got = torch.autograd.grad(MMD(Gaussian(1.0), biased=True)(*inputs), inputs)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("D", [MMD(), EnergyDistance()], ids=repr)
@pytest.mark.parametrize("d", [1, 2])
def test_second_derivatives_are_refused(D: Discrepancy, d: int) -> None:
    x, y = sample(5, d, 0).requires_grad_(), sample(5, d, 1)
    (g,) = torch.autograd.grad(D(x, y), x, create_graph=True)
    (plain,) = torch.autograd.grad(D(x, y), x)
    assert torch.equal(g, plain)
    with pytest.raises(RuntimeError, match="only first derivatives"):
        (D(x, y) + g.square().sum()).backward()


@pytest.mark.parametrize(
    ("make", "error", "naming"),
    [
        (lambda: MMD("gaussian"), TypeError, "kernel must be a kernel"),
        (lambda: MMD(Laplacian(1.0), biased=1), TypeError, "biased"),
        (lambda: MMD(memory=0), ValueError, "memory"),
        (lambda: MMD()(sample(1, 2, 0), sample(5, 2, 1)), ValueError, "two points"),
        (lambda: MMD()(sample(3, 2, 0), sample(5, 2, 1), [1.0, 0.0, 0.0]), ValueError, "biased=True"),
    ],
)
def test_wrong_options_and_too_few_points(make, error: type[Exception], naming: str) -> None:
    with pytest.raises(error, match=naming):
        make()
