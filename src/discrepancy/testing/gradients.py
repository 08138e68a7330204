"""Checks of the gradients: finite differences in both samples and both weights, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy.testing.case import Case

# Short enough to stay on one piece of a function that is smooth between the swaps of a sort, where projections cross.
_STEP = 1e-5


def directional_error(value: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> tuple[float, float]:
    """The derivative of a scalar function along a direction, by autograd and by finite differences (five points, O(h^4))."""
    point = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(point), point)
    exact = float((gradient * direction).sum())
    h = _STEP
    with torch.no_grad():
        one = value(at + h * direction) - value(at - h * direction)
        two = value(at + 2 * h * direction) - value(at - 2 * h * direction)
    return exact, float((8 * one - two) / (12 * h))


def _compare(case: Case, value: Callable[[Tensor], Tensor], at: Tensor, what: str) -> None:
    """Two random directions and the steepest one."""
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(at.shape, generator=generator, dtype=at.dtype) for _ in range(2)]
    # An entry of the gradient that is wrong on a single row would drown in a direction over all rows.
    lone = torch.zeros_like(at)
    lone.view(-1)[1] = 1.0
    for direction in (*directions, lone):
        exact, finite = directional_error(value, at, direction)
        allowed = max(1e-6, 10 * case.accuracy) * max(1.0, abs(finite))
        assert abs(exact - finite) <= allowed, (
            f"{case.D!r}: the derivative in {what} is {exact:.10g} by autograd and {finite:.10g} by finite differences; "
            "what is chosen from the data must be detached, and fixed by resolved()"
        )


def in_points(case: Case) -> None:
    """The gradients in x and in y, with unequal weights."""
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    D = case.D.resolved(x, y, a, b)
    _compare(case, lambda p: case.value(p, y, a, b, D=D), x, "x")
    _compare(case, lambda p: case.value(x, p, a, b, D=D), y, "y")


def in_points_of_equal_weight(case: Case) -> None:
    """The gradients in x and in y where no weights are given, for equal and unequal sizes."""
    for n, m in ((9, 6), (7, 7)):
        x, y = case.pair(n, m)
        D = case.D.resolved(x, y)
        _compare(case, lambda p, y=y, D=D: case.value(p, y, D=D), x, "x (equal weights)")
        _compare(case, lambda p, x=x, D=D: case.value(x, p, D=D), y, "y (equal weights)")


def in_weights(case: Case) -> None:
    """The gradients in a and in b, along the simplex: a = softmax(u)."""
    x, y = case.pair()
    u, v = case.masses(9, 1).log(), case.masses(6, 2).log()
    b = v.softmax(-1)
    D = case.D.resolved(x, y, u.softmax(-1), b)
    _compare(case, lambda w: case.value(x, y, w.softmax(-1), b, D=D), u, "a")
    _compare(case, lambda w: case.value(x, y, u.softmax(-1), w.softmax(-1), D=D), v, "b")


def with_a_zero_weight(case: Case) -> None:
    """A point of weight zero has a finite gradient in place and in weight, and moving it changes nothing."""
    x, y = case.pair()
    x.requires_grad_()
    a = torch.cat([torch.zeros(1, dtype=x.dtype), case.masses(8, 1)]).requires_grad_()
    gx, ga = torch.autograd.grad(case.value(x, y, a), (x, a))
    assert bool(torch.isfinite(gx).all() and torch.isfinite(ga).all()), f"{case.D!r}: a weight of zero breaks the gradients"
    assert float(gx[0].abs().max()) <= 100 * case.accuracy, f"{case.D!r}: a point of weight zero has gradient {gx[0].tolist()}"


def of_batches(case: Case) -> None:
    """The gradient of a batch is that of its members, also where a sample is shared by broadcasting."""
    x, y = case.pair(batch=(3,))
    whole = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((case.value(whole, y) * torch.tensor([1.0, 2.0, -1.0], dtype=x.dtype)).sum(), whole)
    for k, factor in enumerate((1.0, 2.0, -1.0)):
        part = x[k].clone().requires_grad_()
        (alone,) = torch.autograd.grad(case.value(part, y[k]), part)
        case.expect_close(gradient[k], factor * alone, "gradient of a batch", factor=100)


def keep_precision(case: Case) -> None:
    """float32 inputs have float32 gradients, near those in float64."""
    x, y = case.pair(dtype=torch.float32)
    single, double = x.clone().requires_grad_(), x.double().requires_grad_()
    (g32,) = torch.autograd.grad(case.value(single, y), single)
    (g64,) = torch.autograd.grad(case.value(double, y.double()), double)
    assert g32.dtype == torch.float32, f"{case.D!r}: float32 inputs have {g32.dtype} gradients"
    if not case.claims.random:
        Case(case.D, max(10 * case.accuracy, 5e-6)).expect_close(g32, g64, "float32 gradient against float64")


def only_when_asked(case: Case) -> None:
    """Without gradients wanted the value carries none; with them wanted in y alone, x gets none."""
    x, y = case.pair()
    assert not case.value(x, y).requires_grad, f"{case.D!r}: the value requires a gradient that nobody asked for"
    y.requires_grad_()
    value = case.value(x, y)
    assert value.requires_grad, f"{case.D!r} is not differentiable in y"
    value.backward()
    assert x.grad is None, f"{case.D!r}: x received a gradient that nobody asked for"
    assert y.grad is not None, f"{case.D!r}: y received no gradient"
    assert float(y.grad.abs().max()) > 0, f"{case.D!r}: the gradient in y is zero between different clouds"


CHECKS = (
    in_points,
    in_points_of_equal_weight,
    in_weights,
    with_a_zero_weight,
    of_batches,
    keep_precision,
    only_when_asked,
)
