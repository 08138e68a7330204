"""Problems whose answer is known without solving them, made hard: both solvers, both precisions, memory limited from outside."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from discrepancy import OptimalTransport, Sinkhorn, SinkhornDivergence, Wasserstein
from discrepancy.costs import Euclidean, PowerCost
from discrepancy.transport import SemiDualNewton

_TIGHT = SemiDualNewton(1e-10)
_DTYPES = [torch.float64, torch.float32]


def _cloud(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _weights(n, seed=0, dtype=torch.float64):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    return (w / w.sum()).to(dtype)


def _shuffled(x, *others, seed=1):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return tuple(t[order] for t in (x, *others))


def _precision(dtype):
    return {"rel": 1e-10} if dtype == torch.float64 else {"rel": 2e-5}


def _certified(result, truth, **tolerance):
    """The value is the truth, and potentials prove it."""
    assert result.outcome.ok
    assert float(result.value) == pytest.approx(truth, **tolerance)
    assert float(result.dual_gap) <= 1e-9 * max(abs(truth), 1e-300) + (
        1e-4 * abs(truth) if result.value.dtype == torch.float32 else 0
    )


# --- one map is optimal, and known ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (60, 2), (500, 2), (400, 16), (50, 1000), (8, 10_000)])
def test_translation_costs_the_squared_length(n, d, dtype):
    """Weighted cloud against itself shifted and shuffled: |t|^2 = 9, by the gradient of the convex |x|^2 / 2 + t.x."""
    x, a = _cloud(n, d, dtype=dtype), _weights(n, dtype=dtype)
    t = torch.full((d,), 3 / math.sqrt(d), dtype=dtype)
    y, b = _shuffled(x + t, a)
    _certified(OptimalTransport().solve(x, y, a, b), 9.0, **_precision(dtype))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 7])
def test_translation_costs_its_length_in_every_wasserstein_metric(p, d):
    x, a = _cloud(150, d), _weights(150)
    t = torch.full((d,), 0.4 / math.sqrt(d), dtype=torch.float64)
    y, b = _shuffled(x + t, a)
    assert float(Wasserstein(p)(x, y, a, b)) == pytest.approx(0.4, rel=1e-9)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 100.0])
def test_scaling_about_the_mean_costs_the_variance(factor, dtype):
    x, a = _cloud(300, 3, dtype=dtype), _weights(300, dtype=dtype)
    centre = (a[:, None] * x).sum(0)
    y, b = _shuffled(centre + factor * (x - centre), a)
    variance = float((a * (x - centre).square().sum(1)).sum())
    found = float(OptimalTransport()(x, y, a, b))
    assert found == pytest.approx(
        (1 - factor) ** 2 * variance, abs=1e-12 if dtype == torch.float64 else 1e-5, **_precision(dtype)
    )


@pytest.mark.parametrize("d", [2, 6])
def test_a_positive_definite_map_is_optimal(d):
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = _cloud(250, d)
    moved = x @ (root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)) + 5
    (y,) = _shuffled(moved)
    _certified(OptimalTransport().solve(x, y), float((x - moved).square().sum(1).mean()), rel=1e-10)


@pytest.mark.parametrize("d", [1, 2, 20])
def test_a_permutation_is_found_and_costs_nothing(d):
    x = _cloud(200, d)
    (y,) = _shuffled(x)
    result = OptimalTransport().solve(x, y)
    assert float(result.value) <= 1e-14
    plan = result.plan().to_dense()
    torch.testing.assert_close(plan @ y * len(x), x, atol=1e-12, rtol=0)


def test_a_line_in_space_is_sorted():
    """Exponentially spaced points, 2^0 to 2^40, on a line through six dimensions: the sorted coupling at every scale."""
    u = torch.from_numpy(2.0 ** np.linspace(0, 40, 90))
    v = torch.from_numpy(2.0 ** np.linspace(1, 39, 90))
    direction = torch.tensor([1.0, -2, 3, 0.5, 1, 1], dtype=torch.float64)
    direction /= direction.norm()
    (y,) = _shuffled(v)
    _certified(
        OptimalTransport().solve(u[:, None] * direction, y[:, None] * direction), float((u - v).square().mean()), rel=1e-10
    )
    found = Wasserstein(1)(u[:, None] * direction, y[:, None] * direction)
    assert float(found) == pytest.approx(float((u - v).abs().mean()), rel=1e-10)


# --- values that add, or that two atoms give ---------------------------------------------------------------------------------


def _product(x, y, a, b):
    points = torch.cat([x.repeat_interleave(len(y), 0), y.repeat(len(x), 1)], 1)
    return points, (a[:, None] * b).flatten()


@pytest.mark.parametrize("loss", [OptimalTransport(), Sinkhorn(0.3, solver=_TIGHT)], ids=["exact", "entropic"])
def test_products_add(loss):
    """A squared cost of pairs is a sum, and both problems, the entropic one relative to a x b, split."""
    one = (_cloud(12, 2, 1), _cloud(14, 2, 2), _weights(12, 1), _weights(14, 2))
    two = (_cloud(9, 1, 3), _cloud(8, 1, 4) + 1, _weights(9, 3), _weights(8, 4))
    x, a = _product(one[0], two[0], one[2], two[2])
    y, b = _product(one[1], two[1], one[3], two[3])
    assert float(loss(x, y, a, b)) == pytest.approx(float(loss(*one)) + float(loss(*two)), rel=1e-8)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.2), (1.0, 0.3), (1e-6, 0.5), (1.0, 0.0)])
def test_two_atoms(p, q, dtype):
    """Mass |p - q| moves over the distance 2; entropic: the plan's odds ratio is exp(2 c / epsilon)."""
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=dtype)
    a, b = (torch.tensor([w, 1 - w], dtype=dtype) for w in (p, q))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    found = OptimalTransport().solve(points, points, a, b)
    assert float(found.value) == pytest.approx(4 * abs(p - q), abs=1e-7, rel=tolerance)
    assert float(found.dual_gap) <= 1e-6
    assert float(Wasserstein(1)(points, points, a, b)) == pytest.approx(2 * abs(p - q), abs=1e-7)
    odds = math.exp(2 * 4 / 5.0)
    # both stay with mass s: s (1 - p - q + s) / ((p - s) (q - s)) = odds
    second, first, last = 1 - odds, (1 - p - q) + odds * (p + q), -odds * p * q
    stay = (-first + math.sqrt(first * first - 4 * second * last)) / (2 * second)
    solver = _TIGHT if dtype == torch.float64 else SemiDualNewton(1e-7)  # weights in float32 add to one within 1e-7
    plan = Sinkhorn(5.0, solver=solver).solve(points, points, a, b).plan().double()
    want = torch.tensor([[stay, p - stay], [q - stay, 1 - p - q + stay]], dtype=torch.float64)
    torch.testing.assert_close(plan, want, atol=1e-7 if dtype == torch.float32 else 1e-9, rtol=0)


@pytest.mark.parametrize("huge", [1 - 1e-3, 1 - 1e-9, 1 - 1e-13])
def test_one_huge_weight(huge):
    """All of the small ones and the rest of the huge one go to a uniform lattice: dual feasible, marginals met, cost by parts."""
    n = 60
    x, y = _cloud(n, 2), _cloud(n, 2, 1)
    a = torch.full((n,), (1 - huge) / (n - 1), dtype=torch.float64)
    a[7] = 1 - (1 - huge)
    a = a / a.sum()
    result = OptimalTransport().solve(x, y, a)
    plan = result.plan().to_dense()
    torch.testing.assert_close(plan.sum(1), a, atol=1e-16, rtol=1e-9)
    torch.testing.assert_close(plan.sum(0), torch.full((n,), 1 / n, dtype=torch.float64), atol=1e-15, rtol=1e-9)
    alone = float((x[7] - y).square().sum(1).mean())
    spread = float((x[:, None] - y).square().sum(-1).max())
    assert abs(float(result.value) - alone) <= 2 * (1 - huge) * spread + 1e-12
    assert float(result.dual_gap) < 1e-12


_LOSSES = {"exact": OptimalTransport(), "entropic": Sinkhorn(0.1), "debiased": SinkhornDivergence(0.1)}


# --- degenerate -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(
    "loss", [OptimalTransport(), Sinkhorn(0.1), SinkhornDivergence(0.1)], ids=["exact", "entropic", "debiased"]
)
def test_all_points_equal(loss, dtype):
    x, y = torch.ones(300, 4, dtype=dtype), torch.full((200, 4), 3.0, dtype=dtype)
    value = loss(x.requires_grad_(), y)
    assert float(value.detach()) == pytest.approx(16.0, rel=1e-6)
    (slope,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(slope, torch.full_like(slope, -4 / 300), atol=1e-7, rtol=1e-4)
    assert float(loss(x.detach(), x.detach())) == pytest.approx(0.0, abs=1e-12 if dtype == torch.float64 else 1e-8)


@pytest.mark.parametrize("shift", [(0.5, 0.5), (1.0, 0.0), (0.25, 0.0)], ids=str)
@pytest.mark.parametrize("side", [8, 25])
def test_lattices_with_massive_ties(side, shift):
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)
    v = torch.tensor(shift, dtype=torch.float64)
    (y,) = _shuffled(grid + v)
    _certified(OptimalTransport().solve(grid, y), float(v @ v), rel=1e-12)
    result = OptimalTransport(cost=Euclidean()).solve(grid, y)
    assert float(result.value) == pytest.approx(float(v.norm()), rel=1e-10)


def test_a_lattice_repeated_and_thinned():
    """Every lattice point four times against itself once: only the shift costs."""
    grid = torch.cartesian_prod(*[torch.arange(15, dtype=torch.float64)] * 2)
    (x,) = _shuffled(grid.repeat(4, 1))
    _certified(OptimalTransport().solve(x, grid + 0.5), 0.5, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e-6, 1e6, 1e12, 1e100])
def test_the_unit_of_length_does_not_matter(scale):
    x, y, a, b = _cloud(200, 2), _cloud(250, 2, 1) + 0.3, _weights(200), _weights(250, 1)
    plain = OptimalTransport().solve(x, y, a, b)
    scaled = OptimalTransport().solve(scale * x, scale * y, a, b)
    assert float(scaled.value) / scale**2 == pytest.approx(float(plain.value), rel=1e-11)
    assert float(scaled.dual_gap) <= 1e-9 * float(scaled.value)
    found = float(Sinkhorn()(scale * x, scale * y, a, b))
    assert found / scale**2 == pytest.approx(float(Sinkhorn()(x, y, a, b)), rel=1e-5)


@pytest.mark.parametrize("offset", [1e3, 1e6])
@pytest.mark.parametrize("d", [2, 16])
def test_a_far_origin_does_not_cancel(offset, d):
    x, a = _cloud(200, d), _weights(200)
    y, b = _shuffled(x + 1.0, a)
    _certified(OptimalTransport().solve(x + offset, y + offset, a, b), float(d), rel=1e-8)
    # entropic, debiased: the same number at every epsilon
    assert float(SinkhornDivergence(0.5, solver=_TIGHT)(x + offset, y + offset, a, b)) == pytest.approx(d, rel=1e-6)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1.0, 1e6])
def test_entropic_translation_at_every_epsilon(epsilon):
    """S_eps(x, x + t) = |t|^2, from where the exact solver must take over to where all plans are products."""
    x, a = _cloud(60, 2), _weights(60)
    t = torch.tensor([0.3, -0.4], dtype=torch.float64)
    y, b = _shuffled(x + t, a)
    value = SinkhornDivergence(epsilon)(x, y, a, b)
    assert float(value) == pytest.approx(0.25, rel=1e-5)


def test_zero_weights_anywhere_change_nothing():
    x, y, a, b = _cloud(80, 2), _cloud(90, 2, 1), _weights(80), _weights(90, 1)
    padded = torch.cat([torch.full((7, 2), 1e8, dtype=torch.float64), x]), torch.cat([y, _cloud(5, 2, 2)])
    zeros = torch.cat([torch.zeros(7, dtype=torch.float64), a]), torch.cat([b, torch.zeros(5, dtype=torch.float64)])
    for loss in (OptimalTransport(), Sinkhorn(0.2, solver=_TIGHT), Wasserstein(1)):
        assert float(loss(*padded, *zeros)) == pytest.approx(float(loss(x, y, a, b)), rel=1e-8)
    result = OptimalTransport().solve(*padded, *zeros)
    cost = (padded[0][:, None] - padded[1]).square().sum(-1)
    assert float((result.f[:, None] + result.g - cost).max()) <= 1e-10 * float(cost.max())


@pytest.mark.parametrize("p", [0.5, 1.0, 4.0])
def test_concave_and_steep_costs_of_two_points(p):
    """One point to two: no choice, sum b_j |x - y_j|^p."""
    x, y = torch.zeros(1, 3, dtype=torch.float64), _cloud(40, 3)
    b = _weights(40)
    want = float((b * y.norm(dim=1) ** p).sum())
    _certified(OptimalTransport(cost=PowerCost(p)).solve(x, y, None, b), want, rel=1e-12)


# --- memory limited from outside ---------------------------------------------------------------------------------------------

_LIMITED = """
import resource, torch
torch.set_num_threads(1)
from discrepancy import OptimalTransport, SinkhornDivergence, Sinkhorn
from discrepancy.transport import SemiDualNewton
def cloud(n, seed, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
def work(n):
{work}
work(600)  # what is imported and compiled is there before the limit
size = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")][0] * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + {megabytes} * 2**20, resource.RLIM_INFINITY))
print(work({n}))
"""
_EXACT = """
    x = cloud(n, 0)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    result = OptimalTransport().solve(x, x[order] + 1.0)
    return float(result.value), float(result.dual_gap)
"""
_STREAMED = """
    x = cloud(n, 0).requires_grad_()
    loss = Sinkhorn(2.0, solver=SemiDualNewton(1e-4, memory=1/64))
    value = loss(x, cloud(n, 2) + 3.0)
    (slope,) = torch.autograd.grad(value, x)
    return float(value.detach()), float(slope.sum(0).norm())
"""


def _limited(work, n, megabytes):
    script = _LIMITED.format(work=work, n=n, megabytes=megabytes)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tuple(float(v) for v in done.stdout.strip().strip("()").split(","))


@pytest.mark.slow
def test_exact_transport_of_20_000_points_in_a_quarter_gigabyte():
    """The cost matrix alone would take 3.2 GB."""
    value, gap = _limited(_EXACT, 20_000, 256)
    assert value == pytest.approx(2.0, rel=1e-9)
    assert gap <= 1e-8


@pytest.mark.slow
def test_streamed_sinkhorn_with_gradient_in_a_quarter_gigabyte():
    """12,000 points a side: 1.2 GB a matrix. Shifting x along the plan's mean changes the value by 2 (E x - E y)."""
    value, slope = _limited(_STREAMED, 12_000, 256)
    assert math.isfinite(value)
    means = [torch.randn(12_000, 2, generator=torch.Generator().manual_seed(s), dtype=torch.float64).mean(0) for s in (0, 2)]
    assert slope == pytest.approx(float(2 * (means[0] - means[1] - 3.0).norm()), rel=1e-3)
