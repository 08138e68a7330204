"""The content of POT's tests of emd, emd2 and their one-dimensional forms, put to OptimalTransport and Wasserstein."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from discrepancy import OptimalTransport, Wasserstein
from discrepancy.costs import Euclidean, Manhattan


def _bumps(n: int, at: float, width: float) -> np.ndarray:
    """A discrete Gaussian on 0 .. n - 1."""
    weights = np.exp(-((np.arange(n) - at) ** 2) / (2 * width**2))
    return weights / weights.sum()


def test_a_cloud_against_itself_stays_where_it_is():
    x = np.random.default_rng(0).standard_normal((100, 2))
    result = OptimalTransport().solve(x, x)
    np.testing.assert_allclose(result.plan().to_dense().numpy(), np.eye(100) / 100, atol=1e-15)
    assert float(result.value) == 0.0
    assert float(result.dual_gap) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("wrong", [(np.full(3, 1 / 3), None), (None, np.full(3, 1 / 3)), (np.full(5, 0.1), None)])
def test_weights_of_another_length_or_mass_are_refused(wrong):
    cost = np.random.default_rng(0).random((5, 4))
    with pytest.raises(ValueError, match=r"sum to 1|one weight for each|length"):
        OptimalTransport().solve_cost(cost, *wrong)


def test_no_weights_are_equal_weights():
    cost = np.random.default_rng(1).random((12, 15))
    given = OptimalTransport().solve_cost(cost, np.full(12, 1 / 12), np.full(15, 1 / 15))
    assert float(OptimalTransport().solve_cost(cost).value) == pytest.approx(float(given.value), rel=1e-14)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_on_the_line_sorting_and_the_simplex_agree(p, weighted):
    rng = np.random.default_rng(p)
    x, y = rng.standard_normal(40), 1.5 * rng.standard_normal(55) + 1
    a, b = (rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(55))) if weighted else (np.full(40, 1 / 40), np.full(55, 1 / 55))
    cost = np.abs(x[:, None] - y) ** p
    truth = ot.emd2_1d(x, y, a, b, metric="minkowski", p=p)
    assert float(OptimalTransport().solve_cost(cost, a, b).value) == pytest.approx(truth, rel=1e-12)
    assert float(Wasserstein(p)(x, y, a, b)) == pytest.approx(truth ** (1 / p), rel=1e-12)
    # the same line inside the plane: nothing is sorted there
    plane = [np.stack([z * 0.6, z * 0.8], 1) for z in (x, y)]
    assert float(Wasserstein(p)(*plane, a, b)) == pytest.approx(truth ** (1 / p), rel=1e-12)


def test_histograms_against_many_others():
    """Bumps on 200 bins against 10 others: W_1 on the line is the area between distribution functions."""
    n = 200
    bins = np.arange(n, dtype=float)
    cost = np.abs(bins[:, None] - bins)
    one = _bumps(n, 40, 10)
    for at in range(20, 200, 20):
        other = _bumps(n, at, 16)
        area = np.abs(np.cumsum(one - other)).sum()
        result = OptimalTransport(cost=Manhattan()).solve_cost(cost, one, other)
        assert float(result.value) == pytest.approx(area, rel=1e-11)
        plan = result.plan().to_dense().numpy()
        np.testing.assert_allclose(plan.sum(1), one, atol=1e-14)
        np.testing.assert_allclose(plan.sum(0), other, atol=1e-14)


def test_dual_variables_prove_the_optimum():
    """Two bumps on 300 bins, squared cost: potentials feasible for all pairs, and of the plan's value."""
    n = 300
    bins = np.arange(n, dtype=float)
    cost = (bins[:, None] - bins) ** 2
    cost /= cost.max()
    a, b = _bumps(n, 60, 15), _bumps(n, 180, 30)
    result = OptimalTransport().solve_cost(cost, a, b)
    f, g = result.f.numpy(), result.g.numpy()
    assert (f[:, None] + g - cost).max() < 1e-12
    assert f @ a + g @ b == pytest.approx(float(result.value), rel=1e-10)
    assert float(result.value) == pytest.approx(ot.emd2(a, b, cost), rel=1e-9)


@pytest.mark.parametrize("which", ["both ends", "rows", "columns"])
def test_zero_weights_leave_feasible_potentials(which):
    n = 100
    bins = np.arange(n, dtype=float)
    a, b = _bumps(n, 20, 5), _bumps(n, 60, 10)
    if which != "columns":
        a[:10] = 0
    if which != "rows":
        b[-10:] = 0
    a, b = a / a.sum(), b / b.sum()
    cost = (bins[:, None] - bins) ** 2
    result = OptimalTransport().solve_cost(cost, a, b)
    f, g = result.f.numpy(), result.g.numpy()
    assert np.isfinite(f).all()
    assert np.isfinite(g).all()
    assert (f[:, None] + g - cost).max() < 1e-8
    assert f @ a + g @ b == pytest.approx(float(result.value), rel=1e-12)
    assert result.plan().to_dense()[a == 0].abs().sum() == 0


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_gradients_of_the_value_scale_with_it(factor):
    """In the weights the potentials, up to a constant; in the points 2 (x_i a_i - sum_j P_ij y_j); all times the factor."""
    rng = np.random.default_rng(3)
    x, y = (torch.from_numpy(rng.standard_normal((30, 2))).requires_grad_() for _ in range(2))
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(30))).requires_grad_() for _ in range(2))
    gx, gy, ga, gb = torch.autograd.grad(factor * OptimalTransport()(x, y, a, b), (x, y, a, b))
    cost = ((x[:, None] - y) ** 2).sum(-1).detach().numpy()
    plan, log = ot.emd(a.detach().numpy(), b.detach().numpy(), cost, log=True)
    points, others = x.detach().numpy(), y.detach().numpy()
    np.testing.assert_allclose(gx.numpy(), factor * 2 * (plan.sum(1)[:, None] * points - plan @ others), atol=1e-12)
    np.testing.assert_allclose(gy.numpy(), factor * 2 * (plan.sum(0)[:, None] * others - plan.T @ points), atol=1e-12)
    for found, want in ((ga, log["u"]), (gb, log["v"])):
        off = found.numpy() - factor * want
        np.testing.assert_allclose(off - off.mean(), 0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_list_inputs_are_kept(dtype):
    rng = np.random.default_rng(4)
    x, y = (torch.from_numpy(rng.standard_normal((20, 3))).to(dtype) for _ in range(2))
    value = OptimalTransport()(x, y)
    assert value.dtype == dtype
    truth = ot.emd2([], [], ot.dist(x.double().numpy(), y.double().numpy()))
    assert float(value) == pytest.approx(truth, rel=1e-6 if dtype == torch.float32 else 1e-12)
    assert float(OptimalTransport()(x.tolist(), y.tolist())) == pytest.approx(truth, rel=1e-6)


def test_euclidean_cost_is_the_metric():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((60, 4)) + 1
    truth = ot.emd2([], [], ot.dist(x, y, metric="euclidean"))
    assert float(OptimalTransport(cost=Euclidean())(x, y)) == pytest.approx(truth, rel=1e-12)
    assert float(Wasserstein(1)(x, y)) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e3, 1e7])
def test_small_clouds_are_not_answered_wrongly(scale):
    """POT's absolute thresholds return a wrong optimum here for small scales; the value must scale by the square."""
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((300, 2)), rng.standard_normal((400, 2))
    whole = float(OptimalTransport()(x, y))
    assert float(OptimalTransport()(scale * x, scale * y)) == pytest.approx(scale**2 * whole, rel=1e-10)
