"""Every epsilon is answered: properties of the entropic optimum over epsilon, down to where the exact solver takes over."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import ConvergenceWarning, NumericalError, Outcome
from discrepancy.costs import Euclidean, SquaredEuclidean
from discrepancy.transport import LogSinkhorn, OptimalTransport, RelativeEpsilon, SemiDualNewton, Sinkhorn

# Shares of the mean cost.
LADDER = [10.0**k for k in (-18, -16, -14, -12, -10, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 3)]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.1 + torch.rand(n, generator=rng(100 + seed), dtype=torch.float64)
    return w / w.sum()


def lattice(side: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)


PROBLEMS = {
    "random": (cloud(60), 1.3 * cloud(50, seed=1), masses(60, 0), masses(50, 1)),
    "assignment": (cloud(40), cloud(40, seed=1) + 0.3, None, None),
    "ties": (lattice(7), lattice(7) + 0.5, None, None),
    "clusters": (8 * cloud(40).sign() + 0.1 * cloud(40, seed=2), 8 * cloud(30, seed=1).sign(), masses(40, 3), masses(30, 4)),
}


def exact_cost(x, y, a, b) -> float:
    C = torch.cdist(x, y).square().numpy()
    weights = [np.full(len(p), 1 / len(p)) if w is None else w.numpy() for p, w in ((x, a), (y, b))]
    return float(ot.emd2(*weights, C))


@pytest.mark.parametrize("name", PROBLEMS)
def test_convex_properties_over_all_epsilon(name) -> None:
    """W_eps rises with epsilon, is concave in it, and lies between the exact value and the product's cost."""
    x, y, a, b = PROBLEMS[name]
    results = [Sinkhorn(RelativeEpsilon(share)).solve(x, y, a, b) for share in LADDER]
    w = masses(1, 0).new_full((len(x),), 1 / len(x)) if a is None else a
    v = w.new_full((len(y),), 1 / len(y)) if b is None else b
    exact, product = exact_cost(x, y, a, b), float(w @ torch.cdist(x, y).square() @ v)
    entropy = min(float(-torch.xlogy(t, t).sum()) for t in (w, v))
    for r in results:
        assert r.outcome is Outcome.CONVERGED, r
        assert all(bool(torch.isfinite(t).all()) for t in (r.value, r.cost, r.f, r.g, r.plan().to_dense()))  # type: ignore[union-attr]
        gap = float(r.dual_gap) + 1e-13 * exact
        assert exact - 1e-12 * exact <= float(r.value) + gap
        assert float(r.value) - gap <= min(product, exact + float(r.epsilon) * entropy) * (1 + 1e-12)
        assert float(r.marginal_error) <= 2e-6
        assert gap <= 1e-5 * product
    values, epsilons = [float(r.value) for r in results], [float(r.epsilon) for r in results]
    slack = [float(r.dual_gap) + 1e-12 * exact for r in results]
    for k in range(len(values) - 1):
        assert values[k] <= values[k + 1] + slack[k] + slack[k + 1]
    for k in range(1, len(values) - 1):  # concave: a minimum of functions linear in epsilon
        share = (epsilons[k] - epsilons[k - 1]) / (epsilons[k + 1] - epsilons[k - 1])
        chord = (1 - share) * values[k - 1] + share * values[k + 1]
        assert chord <= values[k] + slack[k - 1] + slack[k] + slack[k + 1]


@pytest.mark.parametrize("share", [1e-5, 1e-7, 1e-9, 1e-11, 1e-13])
def test_an_isolated_optimum_has_a_known_value(share) -> None:
    """Where one plan P is optimal by a margin of many epsilons, W_eps = <P, C> + epsilon KL(P | a x b)."""
    for name in ("random", "assignment"):
        x, y, a, b = PROBLEMS[name]
        r = Sinkhorn(RelativeEpsilon(share)).solve(x, y, a, b)
        w = torch.full((len(x),), 1 / len(x), dtype=torch.float64) if a is None else a
        v = torch.full((len(y),), 1 / len(y), dtype=torch.float64) if b is None else b
        P = torch.from_numpy(ot.emd(w.numpy(), v.numpy(), torch.cdist(x, y).square().numpy(), numItermax=10**6))
        C = torch.cdist(x, y).square()
        epsilon = float(r.epsilon)
        want = float((P * C).sum()) + epsilon * float(torch.xlogy(P, P / (w[:, None] * v)).sum())
        assert float(r.value) == pytest.approx(want, rel=1e-13, abs=1e-3 * epsilon + 2 * float(r.dual_gap))
        torch.testing.assert_close(r.plan().to_dense(), P, atol=1e-6, rtol=0)


def test_what_took_over_is_said() -> None:
    x, y, a, b = PROBLEMS["random"]
    start = Sinkhorn(RelativeEpsilon(1e-8)).solve(x, y, a, b)
    assert "exact potentials as start" in start.rungs
    assert start.plan().layout == torch.strided
    taken = Sinkhorn(RelativeEpsilon(1e-13)).solve(x, y, a, b)
    assert taken.rungs[-1] == "the exact plan: epsilon is below what float64 resolves"
    assert any("simplex" in rung for rung in taken.rungs)
    assert taken.plan().is_sparse
    assert float(taken.marginal_error) < 1e-13
    torch.testing.assert_close(taken.apply(y), taken.plan().to_dense() @ y)
    assert 0 <= float(taken.dual_gap) <= 10 * float(taken.epsilon)
    usual = Sinkhorn(RelativeEpsilon(1e-2)).solve(x, y, a, b)
    assert not any("exact" in rung for rung in usual.rungs)
    plain = Sinkhorn(RelativeEpsilon(1e-2), solver=LogSinkhorn()).solve(x, y, a, b)
    assert not any("exact" in rung for rung in plain.rungs)


@pytest.mark.parametrize("share", [1e-8, 1e-14])
def test_gradients_below_resolution_are_those_of_the_exact_problem(share) -> None:
    x, y, a, b = PROBLEMS["random"]
    slopes = []
    for D in (Sinkhorn(RelativeEpsilon(share)), OptimalTransport()):
        leaves = [t.clone().requires_grad_() for t in (x, y, a, b)]
        slopes.append(torch.autograd.grad(D(*leaves), leaves))
    for k, (left, right) in enumerate(zip(*slopes, strict=True)):
        torch.testing.assert_close(left, right, atol=1e-5 if k < 2 else 1e-5 * float(right.abs().max()), rtol=0)
    swapped = [t.clone().requires_grad_() for t in (y, x, b, a)]
    (back,) = torch.autograd.grad(Sinkhorn(RelativeEpsilon(share))(*swapped), swapped[1])
    torch.testing.assert_close(back, slopes[0][0], atol=1e-12, rtol=0)


def test_both_sides_in_the_users_order() -> None:
    x, y, a, b = PROBLEMS["random"]
    for share in (1e-8, 1e-13):
        one = Sinkhorn(RelativeEpsilon(share)).solve(x, y, a, b)
        two = Sinkhorn(RelativeEpsilon(share)).solve(y, x, b, a)
        assert float(one.value) == pytest.approx(float(two.value), rel=1e-12)
        assert one.f.shape == (60,)  # type: ignore[union-attr]
        torch.testing.assert_close(one.plan().to_dense(), two.plan().to_dense().T, atol=1e-12, rtol=0)
        C = SquaredEuclidean().matrix(x, y)
        assert float((one.f[:, None] + one.g - C).max()) <= 60 * float(one.epsilon)  # type: ignore[index,operator]


def test_cost_matrices_too() -> None:
    C = torch.rand(20, 15, generator=rng(0), dtype=torch.float64)
    a, b = masses(20, 0), masses(15, 1)
    exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
    for share in (1e-8, 1e-13, 1e-17):
        r = Sinkhorn(RelativeEpsilon(share)).solve_cost(C, a, b)
        assert r.outcome is Outcome.CONVERGED
        assert float(r.value) == pytest.approx(exact, rel=1e-6)
        leaf = C.clone().requires_grad_()
        (slope,) = torch.autograd.grad(Sinkhorn(RelativeEpsilon(share)).solve_cost(leaf, a, b).value, leaf)
        torch.testing.assert_close(slope, r.plan().to_dense(), atol=1e-10, rtol=0)
    batch = Sinkhorn(RelativeEpsilon(1e-14)).solve_cost(torch.stack([C, 2 * C]), a, b)
    assert batch.value[1] == pytest.approx(2 * exact, rel=1e-12)  # type: ignore[index]
    assert batch.plan().shape == (2, 20, 15)
    with pytest.warns(ConvergenceWarning):  # one member is below resolution, the other is not: said, and finite all the same
        one_tiny = Sinkhorn(1e-14).solve_cost(torch.stack([C, 1e-10 * C]), a, b)
    assert not one_tiny.outcome.ok
    assert bool(torch.isfinite(one_tiny.value).all())  # type: ignore[arg-type]


def test_derivatives_of_a_plan_that_has_none() -> None:
    x, y, a, b = PROBLEMS["random"]
    with pytest.raises(NumericalError, match="take a larger epsilon"):
        Sinkhorn(RelativeEpsilon(1e-14)).solve(x, y, a, b, differentiable=True)
    with pytest.raises(NumericalError, match="take a larger epsilon"):
        Sinkhorn(1e-14).solve_cost(torch.cdist(x, y), a, b, differentiable=True)
    Sinkhorn(RelativeEpsilon(1e-7)).solve(x, y, a, b, differentiable=True)


def test_float32_and_streamed_samples() -> None:
    x, y, a, b = PROBLEMS["random"]
    exact = exact_cost(x, y, a, b)
    for share in (1e-7, 1e-9, 1e-14):
        r = Sinkhorn(RelativeEpsilon(share)).solve(x.float(), y.float(), a.float(), b.float())
        assert r.outcome is Outcome.CONVERGED
        assert r.value.dtype == torch.float32  # type: ignore[union-attr]
        assert float(r.value) == pytest.approx(exact, rel=1e-5)
        streamed = Sinkhorn(RelativeEpsilon(share), solver=SemiDualNewton(memory=1e-4)).solve(x, y, a, b)
        assert float(streamed.value) == pytest.approx(exact, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1e-9, 1.0, 1e9]),
    st.sampled_from([1e-18, 1e-13, 1e-9, 1e-7, 1e-5, 1e-3]),
    st.sampled_from(["normal", "integer", "line", "same"]),
)
def test_never_nan_whatever_comes(seed, scale, share, kind) -> None:
    n, m = 1 + seed % 12, 1 + seed % 11
    x, y = cloud(n, 2, seed), cloud(m, 2, seed + 1)
    if kind == "integer":
        x, y = (2 * x).round(), (2 * y).round()
    elif kind == "line":
        x, y = x * torch.tensor([1.0, 0.0]), y * torch.tensor([1.0, 0.0])
    elif kind == "same":
        x, y = torch.zeros_like(x), torch.zeros_like(y)
    x, y = scale * x.double(), scale * y.double()
    a, b = masses(n, seed), masses(m, seed + 1)
    r = Sinkhorn(RelativeEpsilon(share), Euclidean()).solve(x, y, a, b)
    assert r.outcome is Outcome.CONVERGED
    C = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
    mean = float(a @ C @ b)
    assert math.isfinite(float(r.value))
    # One value of epsilon min(H(a), H(b)) above, the tolerance of the marginals either way.
    slack = 1e-5 * mean + 1e-14 * float(r.epsilon)
    assert exact - slack <= float(r.value) <= exact + float(r.epsilon) * math.log(12) * (mean > 0) + slack
    plan = r.plan().to_dense()
    assert float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()) < 2e-6
