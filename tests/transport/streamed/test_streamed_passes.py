"""The fused passes against sums over full matrices: every cost, every dimension, weights with zeros, blocks left out or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.transport.entropic.streamed.gradient import fused_contraction
from discrepancy.transport.entropic.streamed.passes import StreamedPairs

COSTS = (
    SquaredEuclidean(),
    Euclidean(),
    Manhattan(),
    PowerCost(1.5),
    Cosine(),
    Sphere(),
    FunctionCost(lambda x, y: (x - y).abs().sum(-1) ** 1.5),
)


def _log_sum(t: np.ndarray, axis: int) -> np.ndarray:
    top = t.max(axis, keepdims=True)
    return (top + np.log2(np.exp2(t - top).sum(axis, keepdims=True))).squeeze(axis)


class Instance:
    """Points, weights with zeros, a cost matrix, and exponents v_j - s c_ij."""

    def __init__(self, cost, d: int, share: float = 0.003, n: int = 211, m: int = 173) -> None:
        rng = np.random.default_rng(d)
        x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.3
        if isinstance(cost, Sphere):
            x, y = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (x, y))
        y[:7] = x[:7]
        self.a, self.b = rng.random(n), rng.random(m)
        self.a[:9], self.b[5:17] = 0, 0
        self.a, self.b = self.a / self.a.sum(), self.b / self.b.sum()
        self.x, self.y, self.cost = torch.from_numpy(x), torch.from_numpy(y), cost
        self.C = cost.matrix(self.x, self.y).numpy()
        self.epsilon = share * self.C.mean()
        self.scale = 1 / (self.epsilon * np.log(2))
        self.v = np.log2(np.where(self.b > 0, self.b, 1)) + 3 * rng.standard_normal(m)
        self.t = np.where(self.b > 0, self.v, -np.inf) - self.scale * self.C
        self.u = np.log2(np.where(self.a > 0, self.a, 1)) - _log_sum(self.t, 1) + 0.1 * rng.standard_normal(n)
        self.plan = (self.a > 0)[:, None] * np.exp2(self.u[:, None] + self.t)
        self.stream = StreamedPairs(self.x, self.y, self.a, self.b, cost)
        self.rng = rng


@pytest.mark.parametrize("d", [1, 2, 3, 9, 100])
@pytest.mark.parametrize("cost", COSTS, ids=lambda c: type(c).__name__)
def test_every_pass_is_a_sum_over_the_matrix(cost, d) -> None:
    s = Instance(cost, d)
    logs = _log_sum(s.t, 1)
    Q = np.exp2(s.t - logs[:, None])
    found = s.stream.evaluate(s.v, s.scale)
    tight = {"rtol": 0, "atol": 1e-11}
    np.testing.assert_allclose(found.logs, logs, **tight)
    np.testing.assert_allclose(found.sums, s.a @ Q, **tight)
    np.testing.assert_allclose(found.squares, s.a @ Q**2, **tight)
    np.testing.assert_allclose(s.stream.soft_minima(s.v, s.scale), logs, **tight)
    terms = np.where(s.a > 0, np.log2(np.where(s.a > 0, s.a, 1)), -np.inf)
    down = s.stream.soft_minima(np.where(s.a > 0, terms, 0), s.scale, transposed=True)
    np.testing.assert_allclose(down, _log_sum(terms[:, None] - s.scale * s.C, 0), **tight)
    p = s.rng.standard_normal(s.b.size) * (s.b > 0)
    np.testing.assert_allclose(s.stream.normal_product(-logs, s.v, s.scale, s.a, p), Q.T @ (s.a * (Q @ p)), **tight)
    plan = s.stream.marginals(s.u, s.v, s.scale)
    rows = s.plan.sum(1)
    shrink = np.where(rows > s.a, s.a / np.where(rows > 0, rows, 1), 1)
    np.testing.assert_allclose(plan.rows, rows, **tight)
    np.testing.assert_allclose(plan.columns, s.plan.sum(0), **tight)
    np.testing.assert_allclose(plan.scaled_columns, shrink @ s.plan, **tight)
    assert plan.cost == pytest.approx((s.plan * s.C).sum(), rel=1e-11)
    w, z = s.rng.standard_normal((s.b.size, 3)), s.rng.standard_normal((s.a.size, 2))
    np.testing.assert_allclose(s.stream.row_products(s.u, s.v, s.scale, w), s.plan @ w, **tight)
    np.testing.assert_allclose(s.stream.row_products(s.v, s.u, s.scale, z, transposed=True), s.plan.T @ z, **tight)
    assert s.stream.mean_cost(s.a, s.b) == pytest.approx(s.a @ s.C @ s.b, rel=1e-12)
    groups, count = s.stream.groups()
    Z = np.eye(count)[groups] * (s.b > 0)[:, None]
    found = s.stream.coarse_curvature(-logs, s.v, s.scale, s.a, groups, count)
    np.testing.assert_allclose(found, Z.T @ Q.T @ (s.a[:, None] * (Q @ Z)), **tight)


@pytest.mark.parametrize("d", [1, 3, 9])
@pytest.mark.parametrize("cost", COSTS, ids=lambda c: type(c).__name__)
def test_the_gradient_is_autograds(cost, d) -> None:
    if d == 1 and isinstance(cost, Cosine | Sphere):
        pytest.skip("directions on the line do not move")
    s = Instance(cost, d, 0.02)
    e, f, g = s.epsilon, torch.zeros(s.a.size), torch.from_numpy(s.rng.standard_normal(s.b.size))
    f = -e * torch.logsumexp((g - torch.from_numpy(s.C)) / e + torch.from_numpy(s.b).log(), 1)
    plan = (
        torch.from_numpy(s.a).log()[:, None] + torch.from_numpy(s.b).log() + (f[:, None] + g - torch.from_numpy(s.C)) / e
    ).exp()
    x, y = s.x.clone().requires_grad_(), s.y.clone().requires_grad_()
    truth = torch.autograd.grad((plan * cost.matrix(x, y)).sum(), (x, y))
    found = fused_contraction(s.x, s.y, torch.from_numpy(s.a), torch.from_numpy(s.b), f, g, e, cost)
    for left, right in zip(found, truth, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), Manhattan(), Sphere()], ids=lambda c: type(c).__name__)
def test_blocks_left_out_change_nothing_and_are_bounded(cost) -> None:
    s = Instance(cost, 2, 1e-3, n=900, m=1100)
    all_of_it = s.stream.evaluate(s.v, s.scale, cut=1e9)
    whole = s.stream.pairs
    found = s.stream.evaluate(s.v, s.scale)
    assert s.stream.pairs - whole < 0.9 * whole
    assert 0 < s.stream.skipped < 1e-17
    np.testing.assert_allclose(found.logs, all_of_it.logs, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.sums, all_of_it.sums, rtol=0, atol=1e-16)
    # Coarser cuts leave out more; what is missing of any row's sum stays below the bound.
    for cut in (1.0, 6.0, 12.0, 30.0):
        s.stream.skipped = 0.0
        coarse = s.stream.evaluate(s.v, s.scale, cut=cut)
        assert (1 - np.exp2(coarse.logs - all_of_it.logs)).max() <= s.stream.skipped + 1e-13


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    for cost, d in ((SquaredEuclidean(), 3), (SquaredEuclidean(), 20)):
        s = Instance(cost, d, n=700, m=600)
        before, found = torch.get_num_threads(), []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                e = s.stream.evaluate(s.v, s.scale)
                p = s.stream.normal_product(-e.logs, s.v, s.scale, s.a, np.cos(np.arange(600.0)))
                found.append((e.logs, e.sums, e.squares, p))
        finally:
            torch.set_num_threads(before)
        for left, right in zip(*found, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-13 if d > 8 else 0, atol=0)
