"""Checks of the words of `Claims`: symmetry, sign, zero at equality, the triangle, translation, scaling."""

from __future__ import annotations

import torch

from discrepancy.testing.case import Case


def symmetric(case: Case) -> None:
    """D(x, y, a, b) = D(y, x, b, a), bit for bit, for equal and unequal sizes, batches and both precisions."""
    if not case.claims.symmetric:
        return
    for dtype in (torch.float64, torch.float32):
        for n, m, batch in ((9, 6, ()), (8, 8, ()), (5, 5, (4,))):
            x, y = case.pair(n, m, dtype=dtype, batch=batch)
            a, b = case.masses(n, 1, dtype=dtype, batch=batch), case.masses(m, 2, dtype=dtype, batch=batch)
            for weights, swapped in (((None, None), (None, None)), ((a, b), (b, a))):
                forth, back = case.value(x, y, *weights), case.value(y, x, *swapped)
                assert torch.equal(forth, back), f"{case.D!r} is not symmetric bit for bit: {forth.tolist()} and {back.tolist()}"


def non_negative(case: Case) -> None:
    """D >= 0, far apart, close together and at the distance of rounding."""
    if not case.claims.non_negative:
        return
    for seed in range(10):
        x, y = case.pair(seed=seed)
        for other in (y, x + 1e-3, x + 1e-9 * case.points(9, 99 + seed), x.flip(0)):
            value = case.value(x, other)
            assert bool((value >= 0).all()), f"{case.D!r} is negative: {value.tolist()}"


def zero_at_equality(case: Case) -> None:
    """D(x, x) = 0 exactly, weighted or not, with duplicates, in both precisions; the gradient there is finite."""
    if not case.claims.zero_at_equality:
        return
    for dtype in (torch.float64, torch.float32):
        x = case.points(9, 3, dtype=dtype)
        doubled = torch.cat([x, x[:4]])
        for z in (x, doubled, x[:1], 1e4 + x, x.expand(3, *x.shape)):
            w = case.masses(z.shape[-2], 5, dtype=dtype)
            for weights in (None, w):
                value = case.value(z, z.clone(), weights, weights)
                assert bool((value == 0).all()), f"{case.D!r} at equal samples is {value.tolist()}, not exactly 0"
    x = case.points(9, 3).requires_grad_()
    case.value(x, x.detach().clone()).backward()
    assert x.grad is None or bool(torch.isfinite(x.grad).all()), f"{case.D!r}: the gradient at equal samples is not finite"


def separates(case: Case) -> None:
    """D > 0 between clouds that are far apart."""
    x, y = case.pair()
    value = case.value(x, y + 20.0)
    assert float(value) > 1e-3, f"{case.D!r} is {float(value)} between clouds that are 20 apart"


def triangle_inequality(case: Case) -> None:
    """D(x, z) <= D(x, y) + D(y, z) for a metric."""
    if not case.claims.metric:
        return
    for seed in range(10):
        x, y = case.pair(7, 7, seed=seed)
        # A detour by a third cloud, and one by the place halfway, where a squared distance fails.
        for end, stop in ((0.7 * case.points(7, 50 + seed) - 0.5, y), (x + 2.0, x + 1.0)):
            direct, detour = case.value(x, end), case.value(x, stop) + case.value(stop, end)
            assert float(direct) <= float(detour) * (1 + case.accuracy) + case.accuracy, (
                f"{case.D!r} breaks the triangle inequality: {float(direct)} > {float(detour)}"
            )


def translation_invariant(case: Case) -> None:
    """D(x + c, y + c) = D(x, y)."""
    if not case.claims.translation_invariant:
        return
    x, y = case.pair()
    shift = 7.0 + torch.arange(case.dimension, dtype=x.dtype)
    case.expect_close(case.value(x + shift, y + shift), case.value(x, y), "translation of both samples", factor=10)


def homogeneous(case: Case) -> None:
    """D(s x, s y) = s^degree D(x, y)."""
    degree = case.claims.degree
    if degree is None:
        return
    x, y = case.pair()
    for s in (0.125, 3.0):
        case.expect_close(case.value(s * x, s * y), s**degree * case.value(x, y), f"scaling by {s}", factor=10)


CHECKS = (symmetric, non_negative, zero_at_equality, separates, triangle_inequality, translation_invariant, homogeneous)
