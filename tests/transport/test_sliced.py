"""Sliced Wasserstein against POT, closed forms, its own repeats, and the card's measured control-variate gains."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from sklearn.datasets import load_digits

from discrepancy.directions import Orthogonal, Uniform
from discrepancy.transport import BothBounds, CustomControl, LowerBound, SlicedWasserstein, UpperBound, Wasserstein
from discrepancy.transport.projections import direction_costs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_value_is_pots_on_the_same_directions(p) -> None:
    x, y = cloud(40, 5), 1.5 * cloud(30, 5, 1) + 0.3
    a, b = cloud(40, 1, 2).abs()[:, 0], cloud(30, 1, 3).abs()[:, 0]
    a, b = a / a.sum(), b / b.sum()
    theta = Uniform(50).draw(5, seeded())
    for weights in ((None, None), (a, b)):
        arrays = [None if w is None else w.numpy() for w in weights]
        want = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), *arrays, projections=theta.numpy().T, p=p)
        got = SlicedWasserstein(p, Uniform(50))(x, y, *weights, generator=seeded())
        assert float(got) == pytest.approx(float(want), rel=1e-12)


def test_translates_and_gaussians() -> None:
    """SW_2^2(mu, mu + t) = |t|^2 / d on average; between N(0, I) and N(0, s^2 I) it is (1 - s)^2."""
    x, t = cloud(100, 3), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = SlicedWasserstein(2, Uniform(20_000)).solve(x, x + t, generator=seeded())
    assert abs(float(found.raw) - float(t @ t) / 3) < 4 * float(found.raw_error)
    u = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)[:, None]
    assert float(SlicedWasserstein(2)(u, 2 * u)) == pytest.approx(1.0, rel=1e-3)


def test_not_above_the_wasserstein_distance() -> None:
    x, y = cloud(40, 4), 1.5 * cloud(40, 4, 1) + 0.5
    whole = math.sqrt(float(ot.emd2([], [], ot.dist(x.numpy(), y.numpy()))))
    sliced = float(SlicedWasserstein(2, Uniform(2000))(x, y, generator=seeded()))
    assert sliced <= whole
    assert sliced > whole / math.sqrt(4) * 0.5


def test_one_dimension_is_wasserstein() -> None:
    x, y = cloud(20, 1), cloud(15, 1, 1) + 1
    for D in (SlicedWasserstein(2), SlicedWasserstein(2, control_variate=LowerBound())):
        assert float(D(x, y)) == pytest.approx(float(Wasserstein(2)(x, y)), rel=1e-13)
        assert D.solve(x, y).standard_error == 0


def test_grouping_of_directions_changes_nothing(monkeypatch) -> None:
    x, y = cloud(30, 3).requires_grad_(), cloud(20, 3, 1)
    D = SlicedWasserstein(2, Uniform(23))
    whole = D(x, y, generator=seeded())
    (gradient,) = torch.autograd.grad(whole, x)
    monkeypatch.setattr("discrepancy.transport.projections.GROUP", 120)
    monkeypatch.setattr("discrepancy.transport.projections.SMALLEST_GROUP", 1)
    parts = D(x, y, generator=seeded())
    (again,) = torch.autograd.grad(parts, x)
    assert float(parts.detach()) == pytest.approx(float(whole.detach()), rel=1e-14)
    torch.testing.assert_close(again, gradient, atol=1e-15, rtol=1e-12)


def test_unequal_weights_of_directions_are_differentiated() -> None:
    """The backward pass that sorts again agrees with the sum kept by the forward pass, and with one direction at a time."""
    x, y = cloud(8, 3)[None].requires_grad_(), cloud(6, 3, 1)[None]
    a, b = torch.full((1, 8), 1 / 8, dtype=torch.float64), torch.full((1, 6), 1 / 6, dtype=torch.float64)
    theta = Uniform(5).draw(3, seeded())
    weights = torch.tensor([[1.0, -2.0, 0.0, 3.0, 0.5]], dtype=torch.float64)
    (got,) = torch.autograd.grad((direction_costs(x, y, a, b, theta, 2, equal_a=True, equal_b=True) * weights).sum(), x)
    want = sum(
        w * torch.autograd.grad(direction_costs(x, y, a, b, theta[k : k + 1], 2, equal_a=True, equal_b=True).sum(), x)[0]
        for k, w in enumerate(weights[0])
    )
    torch.testing.assert_close(got, want)


def test_standard_error_covers_the_mean_over_directions() -> None:
    """95 % intervals over repeated draws hold the value of many directions, plain and with each control."""
    x, y = cloud(30, 5), 0.7 * cloud(25, 5, 1) + 0.4
    truth = float(SlicedWasserstein(2, Uniform(200_000), BothBounds())(x, y, generator=seeded(9)))
    for control in (None, LowerBound(), UpperBound(), BothBounds()):
        hits, generator = 0, seeded(1)
        for _ in range(300):
            found = SlicedWasserstein(2, Uniform(60), control).solve(x, y, generator=generator)
            hits += float(found.low) <= truth <= float(found.high)
        assert 0.90 <= hits / 300 <= 0.985, control  # the binomial band of 300 draws at 95 %, a little wider below for gamma


def test_dependent_directions_have_no_standard_error() -> None:
    found = SlicedWasserstein(2, Orthogonal(12)).solve(cloud(9, 3), cloud(8, 3, 1), generator=seeded())
    assert found.standard_error is None
    assert "not independent" in (found.note or "")
    assert math.isfinite(float(found))


@pytest.fixture(scope="module")
def digits() -> dict[int, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return {k: torch.from_numpy(pixels[labels == k] / 16) for k in range(10)}


@pytest.mark.parametrize("pair", [(0, 8), (1, 7), (2, 3), (4, 9), (5, 6)])
def test_control_variates_on_digits(digits, pair) -> None:
    """The card's claim at L = 50: RMSE below 0.25 (lower bound) and 0.5 (upper) of the plain mean's."""
    n = min(len(digits[k]) for k in pair)
    x, y = digits[pair[0]][:n], digits[pair[1]][:n]
    truth = float(SlicedWasserstein(2, Uniform(20_000), BothBounds()).solve(x, y, generator=seeded(7)).raw)
    if pair == (0, 8):
        assert truth == pytest.approx(0.0717, abs=2e-4)

    def rmse(control) -> float:
        generator = seeded(8)
        D = SlicedWasserstein(2, Uniform(50), control)
        raw = [float(D.solve(x, y, generator=generator).raw) for _ in range(60)]
        return float(np.sqrt(np.mean((np.array(raw) - truth) ** 2)))

    plain = rmse(None)
    assert rmse(LowerBound()) <= 0.25 * plain
    assert rmse(UpperBound()) <= 0.5 * plain
    assert rmse(BothBounds()) <= 0.25 * plain


def test_equal_means_leave_the_lower_bound_without_effect() -> None:
    x = cloud(20, 4)
    x = x - x.mean(0)
    y = -x  # the mean is exactly the opposite of zero up to rounding
    plain = SlicedWasserstein(2)(x, y, generator=seeded())
    controlled = SlicedWasserstein(2, control_variate=LowerBound())(x, y, generator=seeded())
    assert float(controlled) == pytest.approx(float(plain), rel=1e-12)
    x.requires_grad_()
    SlicedWasserstein(2, control_variate=BothBounds())(x, x.detach().clone(), generator=seeded()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_negative_mean_is_clamped_for_the_root_only() -> None:
    """W_8^8 of two points is |theta_1|^8, so skewed over directions that its corrected mean is negative for some draws."""
    x, y = torch.zeros(1, 20, dtype=torch.float64), torch.eye(20, dtype=torch.float64)[:1].requires_grad_()
    found = [SlicedWasserstein(8, Uniform(20), LowerBound()).solve(x, y, generator=seeded(s)) for s in range(60)]
    negative = [v for v in found if float(v.raw) < 0]
    assert negative, "the trial must produce a negative mean"
    for v in found:
        assert torch.as_tensor(v.value).item() == pytest.approx(max(float(v.raw), 0) ** (1 / 8), rel=1e-12)
    assert isinstance(negative[0].value, torch.Tensor)
    (gradient,) = torch.autograd.grad(negative[0].value, y)
    assert torch.equal(gradient, torch.zeros_like(y))


def test_a_custom_control_equals_the_built_in_one() -> None:
    x, y = cloud(12, 6), cloud(15, 6, 1) + 0.5
    lower = CustomControl(
        lambda theta, x, y, a, b: (theta @ (a @ x - b @ y)).square(),
        lambda x, y, a, b: (a @ x - b @ y).square().sum() / x.shape[-1],
    )
    got = SlicedWasserstein(2, Uniform(20), lower)(x, y, generator=seeded())
    assert float(got) == pytest.approx(
        float(SlicedWasserstein(2, Uniform(20), LowerBound())(x, y, generator=seeded())), rel=1e-12
    )


def test_variances_take_the_samples_weights_and_either_path() -> None:
    """More features than directions and fewer: two formulas for the projected variance, one value."""
    x, y = cloud(12, 8), cloud(15, 8, 1) + 0.5
    a = cloud(12, 1, 2).abs()[:, 0]
    a = a / a.sum()
    for count in (6, 20):
        theta = Uniform(count).draw(8, seeded())
        D = SlicedWasserstein(2, Uniform(count), UpperBound())
        pair = D._checked(x, y, a, None)
        values, means = UpperBound().evaluate(theta, pair)
        u, v = x @ theta.T, y @ theta.T
        m1, m2 = a @ u, v.mean(0)
        want = (m1 - m2) ** 2 + a @ (u - m1) ** 2 + ((v - m2) ** 2).mean(0)
        torch.testing.assert_close(values[:, 0], want)
        mx, my = a @ x, y.mean(0)
        total = ((mx - my) ** 2).sum() + (a[:, None] * (x - mx) ** 2).sum() + ((y - my) ** 2).sum(1).mean()
        assert float(means) == pytest.approx(float(total) / 8, rel=1e-12)


def test_refusals() -> None:
    x, y = cloud(5, 3), cloud(5, 3, 1)
    with pytest.raises(ValueError, match="at least 3 draws"):
        SlicedWasserstein(2, Uniform(2), LowerBound())(x, y)
    with pytest.raises(ValueError, match="at least 5 draws"):
        SlicedWasserstein(2, Uniform(4), BothBounds())(x, y)
    with pytest.raises(ValueError, match="finite"):
        SlicedWasserstein(math.inf)
    with pytest.raises(TypeError, match=r"Uniform\(100\)"):
        SlicedWasserstein(2, 100)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"LowerBound\(\)"):
        SlicedWasserstein(2, control_variate="lower")  # type: ignore[arg-type]


def test_pooled_with_controls_is_direct() -> None:
    z = cloud(20, 3)
    D = SlicedWasserstein(2, Uniform(15), BothBounds())
    A, B = torch.zeros(3, 20, dtype=torch.float64), torch.zeros(3, 20, dtype=torch.float64)
    A[:, :11], B[:, 11:] = 1 / 11, 1 / 9
    A[2] = cloud(20, 1, 4).abs()[:, 0]
    A[2] = A[2] / A[2].sum()
    got = D.pooled(z, generator=seeded())(A, B)
    want = torch.stack([D(z, z, a, b, generator=seeded()) for a, b in zip(A, B, strict=True)])
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-10)


@pytest.mark.slow
def test_a_million_points_within_the_memory_promised() -> None:
    """Value and gradient at n = 1e6, d = 16, a few directions: the working memory does not grow with the number of directions."""
    import resource

    x = torch.randn(1_000_000, 16, generator=seeded()).requires_grad_()
    y = torch.randn(1_000_000, 16, generator=seeded(1)) + 0.1
    SlicedWasserstein(2, Uniform(2))(x, y, generator=seeded()).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    SlicedWasserstein(2, Uniform(8))(x, y, generator=seeded()).backward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 0.2, f"four times the directions took {grown:.2f} GiB more"


@pytest.mark.parametrize("own", [False, True])
def test_direction_costs_are_differentiable_in_the_directions(own) -> None:
    """Against finite differences, for directions shared by the batch and for each pair its own, weighted unequally."""
    x, y = cloud(18, 3).reshape(2, 9, 3), 1.5 * cloud(14, 3, 1).reshape(2, 7, 3) + 0.3
    a, b = torch.full((2, 9), 1 / 9, dtype=torch.float64), cloud(14, 1, 2).abs().reshape(2, 7)
    b = b / b.sum(-1, keepdim=True)
    theta = cloud(10, 3, 4).reshape(2, 5, 3) if own else cloud(5, 3, 4)
    weights = torch.tensor([[1.0, -2.0, 0.0, 3.0, 0.5], [2.0, 1.0, 1.0, 0.0, -1.0]], dtype=torch.float64)

    def total(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return (direction_costs(x, y, a, b, theta, 2, equal_a=True) * weights).sum()

    assert torch.autograd.gradcheck(total, (x.requires_grad_(), theta.requires_grad_()), eps=1e-6, atol=1e-7)
    (first,) = torch.autograd.grad(total(x, theta), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives"):
        first.sum().backward()
