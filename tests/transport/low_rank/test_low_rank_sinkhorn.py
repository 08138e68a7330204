"""Low-rank couplings: feasible, above the exact cost, falling with the rank, as good as POT's, linear in memory."""

import numpy as np
import ot
import pytest
import torch

from discrepancy.costs import Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport import LowRankSinkhorn


def clouds(n=40, m=30, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = 1.3 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 2
    a = torch.rand(n, generator=generator, dtype=torch.float64)
    b = torch.rand(m, generator=generator, dtype=torch.float64)
    return x, y, a / a.sum(), b / b.sum()


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def test_the_plan_is_feasible_of_the_stated_rank_and_costs_what_is_said():
    x, y, a, b = clouds()
    C = SquaredEuclidean().matrix(x, y)
    exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
    values = []
    for rank in (1, 3, 12):
        found = LowRankSinkhorn(rank, tolerance=1e-3).solve(x, y, a, b, generator=seeded())
        plan = found.plan()
        assert found.outcome.ok
        assert bool((plan >= 0).all())
        assert int(torch.linalg.matrix_rank(plan, tol=1e-6)) <= rank
        torch.testing.assert_close(plan.sum(1), a, atol=1e-14, rtol=0)
        torch.testing.assert_close(plan.sum(0), b, atol=1e-14, rtol=0)
        assert abs(float((plan * C).sum()) - float(found.value)) < 1e-10
        assert float(found.value) >= exact - 1e-10
        v = torch.randn(30, 2, generator=seeded(1), dtype=torch.float64)
        torch.testing.assert_close(found.apply(v), plan @ v, atol=1e-12, rtol=0)
        torch.testing.assert_close(found.q.sum(0), found.weights, atol=1e-12, rtol=0)
        values.append(float(found.value))
    # Rank one is the product of the marginals; more rank costs less.
    assert abs(values[0] - float(a @ C @ b)) < 1e-8
    assert values[0] > 1.05 * values[1] > 1.05 * values[2] > exact


def test_a_coupling_of_rank_two_is_found_where_it_is_optimal():
    """Two far pairs of clusters: the optimum between cluster centres has rank two and exact cost zero but for the spread."""
    x = torch.tensor([[0.0], [0.0], [10.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [11.0], [11.0], [11.0]], dtype=torch.float64)
    a, b = torch.tensor([0.25, 0.25, 0.5]).double(), torch.tensor([0.5, 0.1, 0.2, 0.2]).double()
    found = LowRankSinkhorn(2, tolerance=1e-9).solve(x, y, a, b, generator=seeded())
    assert abs(float(found.value) - 1.0) < 1e-3
    assert float(found.value) >= 1.0 - 1e-12


@pytest.mark.slow
def test_is_no_worse_than_pot():
    x, y, a, b = clouds()
    C = SquaredEuclidean().matrix(x, y).numpy()
    for rank in (3, 8):
        Q, R, g = ot.lowrank.lowrank_sinkhorn(
            x.numpy(), y.numpy(), a.numpy(), b.numpy(), reg=0, rank=rank, init="kmeans", seed_init=0, numItermax=500, warn=False
        )
        peer = float((((Q / g) @ R.T) * C).sum())
        ours = min(float(LowRankSinkhorn(rank)(x, y, a, b, generator=seeded(k))) for k in range(2))
        assert ours < 1.02 * peer


def test_the_factored_and_the_blocked_cost_agree():
    """PowerCost(2) is the squared distance without its factorisation; far from the origin nothing is lost."""
    x, y, a, b = clouds()
    x, y = x + 1e3, y + 1e3
    one = LowRankSinkhorn(4, tolerance=1e-3).solve(x.requires_grad_(), y, a, b, generator=seeded())
    P = one.plan()
    (gradient,) = torch.autograd.grad(one.value, x)
    torch.testing.assert_close(gradient, 2 * (x.detach() * a[:, None] - P @ y), atol=1e-10, rtol=0)
    z = x.detach().clone().requires_grad_()
    two = LowRankSinkhorn(4, PowerCost(2.0), 1e-3).solve(z, y, a, b, generator=seeded())
    (gradient,) = torch.autograd.grad(two.value, z)
    torch.testing.assert_close(gradient, 2 * (z.detach() * a[:, None] - two.plan() @ y), atol=1e-9, rtol=0)
    assert abs(float(two.cost) / float(one.cost) - 1) < 0.1  # other landmarks, another local optimum
    other = LowRankSinkhorn(4, Manhattan(), 1e-2).solve(x.detach(), y, a, b, generator=seeded())
    assert abs(float(other.value) - float((other.plan() * Manhattan().matrix(x.detach(), y)).sum())) < 1e-10


def test_a_generator_fixes_the_answer_and_zero_weights_are_absent():
    x, y, a, b = clouds()
    D = LowRankSinkhorn(4, tolerance=1e-2)
    assert float(D(x, y, a, b, generator=seeded(2))) == float(D(x, y, a, b, generator=seeded(2)))
    more_x, more_a = torch.cat([x, x[:2] + 100]), torch.cat([a, torch.zeros(2).double()])
    got = D.solve(more_x, y, more_a, b, generator=seeded(2))
    assert float(got.value) == pytest.approx(float(D(x, y, a, b, generator=seeded(2))), rel=1e-12)
    assert got.plan().shape == (42, 30)
    assert float(got.plan()[40:].abs().max()) == 0
    single = D.solve(x.float(), y.float(), generator=seeded())
    assert single.value.dtype == single.apply(y.float()).dtype == torch.float32


def test_degenerate_clouds():
    point = torch.ones(1, 2, dtype=torch.float64)
    assert float(LowRankSinkhorn(3)(point, point + 1)) == pytest.approx(2.0)
    same = torch.ones(5, 2, dtype=torch.float64)
    assert abs(float(LowRankSinkhorn(3)(same, same, generator=seeded()))) < 1e-12
    x, y, *_ = clouds(6, 4)
    assert np.isfinite(float(LowRankSinkhorn(50, tolerance=1e-2)(x, y, generator=seeded())))


def test_bad_input_is_refused():
    x, y, a, b = clouds()
    for rank in (0, 2.0, True):
        with pytest.raises(ValueError, match="rank must be"):
            LowRankSinkhorn(rank)
    with pytest.raises(ValueError, match="one pair of samples"):
        LowRankSinkhorn()(x.expand(2, 40, 3), y.expand(2, 30, 3))
    with pytest.raises(ValueError, match="no gradient in the weights"):
        LowRankSinkhorn()(x, y, a.requires_grad_(), b)
    with pytest.raises(TypeError, match="knows no points"):
        LowRankSinkhorn(2, tolerance=1e-2).solve(x, y, generator=seeded()).map()


@pytest.mark.slow
def test_fifty_thousand_points_take_linear_memory():
    """A plan would be 20 GB: peak memory grows by a few times the factors (50,000 x 20 in float64 is 8 MB)."""
    import resource

    n, d = 50_000, 10
    x = torch.randn(n, d, generator=seeded(1), dtype=torch.float64)
    y = torch.randn(n, d, generator=seeded(2), dtype=torch.float64) + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = LowRankSinkhorn(20, tolerance=1e-2).solve(x, y, generator=seeded())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024  # KiB
    assert float(found.value) < float((x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2).sum())
