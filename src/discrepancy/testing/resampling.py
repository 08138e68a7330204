"""Checks of what resampling needs: pooled statistics, data-chosen parameters, generators, witness functions."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.testing.case import Case


def _rows(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """A cloud (15, d) with one tie, and weight rows of disjoint supports: splits of equal weight and of unequal weight."""
    x, y = case.pair()
    z = torch.cat([x, y])
    z[14] = z[0]
    generator = torch.Generator().manual_seed(3)
    A, B = torch.zeros(8, 15, dtype=z.dtype), torch.zeros(8, 15, dtype=z.dtype)
    for r in range(8):
        order = torch.randperm(15, generator=generator) if r else torch.arange(15)
        left, right = order[:9], order[9:]
        A[r, left] = 1.0 if r < 4 else case.masses(9, r)
        B[r, right] = 1.0 if r < 4 else case.masses(6, 20 + r)
    return z, A / A.sum(1, keepdim=True), B / B.sum(1, keepdim=True)


def pooled_is_direct(case: Case) -> None:
    """The pooled statistic on weight rows of disjoint supports is the value on the samples that they describe."""
    z, A, B = _rows(case)
    D = case.D.resolved(z[:9], z[9:])
    got = D.pooled(z, generator=case.generator())(A, B)
    want = torch.stack([case.value(z[a > 0], z[b > 0], a[a > 0], b[b > 0], D=D) for a, b in zip(A, B, strict=True)])
    case.expect_close(got, want, "pooled statistic against the direct value", factor=10)


def pooled_is_fixed(case: Case) -> None:
    """What is chosen or drawn is fixed by pooled(z): rows alone or together, early or late, give the same numbers."""
    z, A, B = _rows(case)
    statistic = case.D.pooled(z, generator=case.generator())
    together = statistic(A, B)
    assert together.shape == (8,), f"{case.D!r}: the pooled statistic of 8 rows has shape {tuple(together.shape)}"
    assert not together.requires_grad, f"{case.D!r}: the pooled statistic carries gradients"
    case.expect_close(statistic(A[5:6], B[5:6]), together[5:6], "a row alone against the same among others")
    case.expect_close(statistic(A.flip(0), B.flip(0)), together.flip(0), "rows in another order")
    if case.claims.symmetric:
        case.expect_close(statistic(B, A), together, "pooled statistic with sides exchanged")


def pooled_keeps_precision(case: Case) -> None:
    """A float32 cloud gives a float32 statistic near the one in float64."""
    z, A, B = _rows(case)
    D = case.D.resolved(z[:9], z[9:])
    single = D.pooled(z.float(), generator=case.generator())(A.float(), B.float())
    assert single.dtype == torch.float32, f"{case.D!r}: the pooled statistic of a float32 cloud is {single.dtype}"
    if not case.claims.random:
        double = D.pooled(z)(A, B)
        Case(case.D, max(case.accuracy, 5e-6)).expect_close(single, double, "pooled float32 against float64")


def pooled_norm(case: Case) -> None:
    """For D = ||F - G||^k the pooled statistic sees A - B only, takes signed rows, and is homogeneous of degree k."""
    k = case.claims.norm_power
    if k is None:
        return
    z, A, B = _rows(case)
    statistic = case.D.pooled(z, generator=case.generator())
    want = statistic(A, B)
    common = torch.linspace(-1, 1, 15, dtype=z.dtype) * 0.1
    case.expect_close(statistic(A + common, B + common), want, "the same signed measure on both sides", factor=10)
    for t in (-1.0, 0.25, 3.0):  # t = 3 and t = -1 make rows with negative entries
        case.expect_close(statistic(B + t * (A - B), B), abs(t) ** k * want, f"a difference {t} times as large", factor=10)
    zero = statistic(A, A)
    assert bool((zero == 0).all()), f"{case.D!r}: the pooled norm of the zero measure is {zero.tolist()}"


def resolved(case: Case) -> None:
    """Resolving the data-chosen parameters changes no value, and resolving again changes nothing."""
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    D = case.D.resolved(x, y, a, b)
    assert type(D) is type(case.D), f"{case.D!r}.resolved returns a {type(D).__name__}"
    case.expect_close(case.value(x, y, a, b, D=D), case.value(x, y, a, b), "resolved() against itself")
    assert D.resolved(2 * x, y) == D, f"{case.D!r}: a resolved discrepancy still chooses from the data"


def generators(case: Case) -> None:
    """The same generator state gives the same bits; the global state is touched only by a random D without a generator."""
    x, y = case.pair()
    state = torch.random.get_rng_state()
    first, again = case.value(x, y), case.value(x, y)
    assert torch.equal(first, again), f"{case.D!r}: the same generator state gives {first.tolist()} and {again.tolist()}"
    assert torch.equal(state, torch.random.get_rng_state()), f"{case.D!r} drew from torch's default generator"
    if not case.claims.random:
        return
    torch.manual_seed(1)
    default = case.D(x, y)
    torch.manual_seed(1)
    assert torch.equal(default, case.D(x, y)), f"{case.D!r}: torch.manual_seed does not fix the value"
    torch.manual_seed(2)
    assert not torch.equal(default, case.D(x, y)), f"{case.D!r} claims to be random and is not"
    torch.random.set_rng_state(state)
    case.expect_error(lambda: case.D(x, y, generator=3), ("generator",), "a number for a generator")  # type: ignore[arg-type]


def witness_function(case: Case) -> None:
    """The witness function is finite and differentiable on points; for a squared norm, D is its difference of means."""
    witness = getattr(case.D, "witness", None)
    if witness is None:
        return
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    f = witness(x, y, a, b)
    points = case.points(5, 8).requires_grad_()
    at = f(points)
    assert at.shape == (5,), f"{case.D!r}: the witness of 5 points has shape {tuple(at.shape)}"
    (slope,) = torch.autograd.grad(at.sum(), points)
    assert bool(torch.isfinite(at).all() and torch.isfinite(slope).all()), f"{case.D!r}: the witness is not finite"
    gap = (a * f(x)).sum() - (b * f(y)).sum()
    assert float(gap) > 0, f"{case.D!r}: the witness must be larger on x than on y, its means differ by {float(gap)}"
    if case.claims.norm_power == 2:
        case.expect_close(gap, case.value(x, y, a, b), "difference of the witness's means against D", factor=10)


CHECKS = (
    pooled_is_direct,
    pooled_is_fixed,
    pooled_keeps_precision,
    pooled_norm,
    resolved,
    generators,
    witness_function,
)
