"""Checks of what every `Divergence` promises, each a function of the case; those of a kind pass over the others."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical

from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.hoelder import ProjectiveDivergence
from discrepancy.divergences.measures import MeasureDivergence
from discrepancy.divergences.ratio import RatioDivergence
from discrepancy.testing.divergence_case import DivergenceCase
from discrepancy.testing.gradients import directional_error


def non_negative(case: DivergenceCase) -> None:
    """D >= 0, far apart, close together and at the distance of rounding, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        for seed in range(6):
            p, q = (t.to(dtype) for t in case.laws(seed, 4, 7))
            for other in (q, p * (1 + 1e-6) / (p * (1 + 1e-6)).sum(-1, keepdim=True), 0.999 * p + 0.001 * q):
                value = case.D.from_probs(p, other)
                assert bool((value >= 0).all()), f"{case.D!r} is negative: {value.tolist()}"


def zero_at_equality(case: DivergenceCase) -> None:
    """D(P || P) = 0 exactly, by probabilities and by logits, with zeros, in both precisions; a pseudo-divergence is above it."""
    for dtype in (torch.float64, torch.float32):
        p = case.laws(3, 5, 8)[0].to(dtype)
        holes = p.clone()
        holes[:, 2] = 0
        for law in (p, holes / holes.sum(-1, keepdim=True), torch.eye(4, dtype=dtype)):
            for value in (case.D.from_probs(law, law.clone()), case.D.from_logits(law.log(), law.log())):
                if case.D.zero_at_equality:
                    assert bool((value == 0).all()), f"{case.D!r} at equal laws is {value.tolist()}, not exactly 0"
                else:
                    assert bool((value >= 0).all()), f"{case.D!r} at equal laws is {value.tolist()}"
    if not case.D.zero_at_equality:
        p = case.laws(3)[0]
        assert float(case.D.from_probs(p, p)) > 0, f"{case.D!r} says that it is not zero at equality, but is"


def separates(case: DivergenceCase) -> None:
    """D > 0 between laws that are far apart."""
    p = torch.tensor([0.98, 0.01, 0.01], dtype=torch.float64)
    value = float(case.D.from_probs(p, p.flip(0)))
    assert value > 1e-3, f"{case.D!r} is {value} between laws that are far apart"


def reversed_exchanges(case: DivergenceCase) -> None:
    """`reversed()` exchanges the arguments, and twice it gives the divergence back."""
    p, q = case.laws(4, 3, 6)
    other = case.D.reversed()
    case.expect_close(other.from_probs(q, p), case.D.from_probs(p, q), "reversed().from_probs")
    case.expect_close(other.from_logits(q.log(), p.log()), case.D.from_logits(p.log(), q.log()), "reversed().from_logits")
    case.expect_close(other.reversed().from_probs(p, q), case.D.from_probs(p, q), "reversed().reversed()")


def doors_agree(case: DivergenceCase) -> None:
    """Probabilities, logits up to a constant, other dimensions, broadcasting and categorical laws give one value."""
    p, q = case.laws(5, 3, 6)
    want = case.D.from_probs(p, q)
    case.expect_close(case.D.from_logits(p.log() + 40, q.log() - 7), want, "from_logits")
    case.expect_close(case.D.from_probs(p.mT, q.mT, dim=0), want, "from_probs along the first dimension")
    case.expect_close(case.D.from_logits(p.log().mT, q.log().mT, dim=0), want, "from_logits along the first dimension")
    case.expect_close(case.D.from_probs(p[0], q), torch.stack([case.D.from_probs(p[0], row) for row in q]), "broadcasting")
    case.expect_close(case.D.between(Categorical(probs=p), Categorical(probs=q)).value, want, "between categorical laws")
    case.expect_close(case.D.from_probs(p.flip(-1), q.flip(-1)), want, "categories in another order")


def layouts_and_precisions(case: DivergenceCase) -> None:
    """Strided, expanded, half-precision and nested-list inputs are read; float32 and float64 are kept."""
    p, q = case.laws(6, 4, 6)
    want = case.D.from_probs(p, q)
    wide = torch.stack([p, q], -1)
    case.expect_close(case.D.from_probs(wide[..., 0], wide[..., 1]), want, "strided tensors")
    case.expect_close(case.D.from_probs(p[:1].expand(4, 6), q), case.D.from_probs(p[0], q), "an expanded tensor")
    case.expect_close(case.D.from_probs(p.tolist(), q), want, "a nested list")
    assert case.D.from_probs(p.float(), q.float()).dtype == torch.float32, f"{case.D!r} does not keep float32"
    assert want.dtype == torch.float64, f"{case.D!r} does not keep float64"
    u, v = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    half = case.D.from_logits(u, v)
    case.expect_close(half, case.D.from_logits(u.double(), v.double()), "half-precision logits", factor=2e-3 / case.accuracy)


def edges_of_the_support(case: DivergenceCase) -> None:
    """With zeros in one law or both: never NaN, +inf with one warning and a zero gradient, finite gradients elsewhere."""
    p = torch.tensor([[0.0, 0.4, 0.6, 0.0], [0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.1, 0.4]], dtype=torch.float64)
    q = torch.tensor([[0.3, 0.7, 0.0, 0.0], [0.0, 0.0, 0.3, 0.7], [0.1, 0.0, 0.5, 0.4]], dtype=torch.float64)
    for door, left, right in ((case.D.from_probs, p, q), (case.D.from_logits, p.log(), q.log())):
        left, right = left.clone().requires_grad_(), right.clone().requires_grad_()
        value, warned = case.quietly(lambda door=door, left=left, right=right: door(left, right))
        infinite = torch.isinf(value.detach())
        assert not bool(torch.isnan(value).any()), f"{case.D!r} is NaN: {value.tolist()}"
        assert warned == bool(infinite.any()), f"{case.D!r} is {value.tolist()} and warned: {warned}"
        for grad in torch.autograd.grad(value.sum(), (left, right), materialize_grads=True):
            assert bool(torch.isfinite(grad).all()), f"{case.D!r} has the gradient {grad.tolist()} at {value.tolist()}"
            assert bool((grad[infinite] == 0).all()), f"{case.D!r} has a gradient where it is infinite"


def huge_logits(case: DivergenceCase) -> None:
    """Logits of +-1e4, equal or opposed: never NaN, in value or gradient, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        u = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [1e4, 0.0, -1e4]], dtype=dtype, requires_grad=True)
        v = torch.tensor([[-1e4, 0.0, 1e4], [1e4, -1e4, 0.0], [1e4, 0.0, -1e4]], dtype=dtype, requires_grad=True)
        value, _ = case.quietly(lambda u=u, v=v: case.D.from_logits(u, v))
        assert not bool(torch.isnan(value).any()), f"{case.D!r} is NaN at huge logits: {value.tolist()}"
        assert float(value.detach()[0]) > 0, f"{case.D!r} does not see opposed laws: {value.tolist()}"
        for grad in torch.autograd.grad(value.sum(), (u, v), materialize_grads=True):
            assert bool(torch.isfinite(grad).all()), f"{case.D!r} has the gradient {grad.tolist()} at huge logits"


def masks(case: DivergenceCase) -> None:
    """A mask removes categories from both laws, and their gradients with them."""
    u, v = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    keep = torch.tensor([True, True, False, True, False, True])
    u.requires_grad_()
    value = case.D.from_logits(u, v, mask=keep)
    case.expect_close(value, case.D.from_logits(u[:, keep], v[:, keep]), "a mask")
    (grad,) = torch.autograd.grad(value.sum(), u)
    assert bool((grad[:, ~keep] == 0).all()), f"{case.D!r} has a gradient in masked categories"


def gradients(case: DivergenceCase) -> None:
    """First derivatives in both laws are those of the value, by central differences in float64, through either door."""
    p, q = case.laws(7, 2, 5)
    direction = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def compare(value: Callable[[Tensor], Tensor], at: Tensor, what: str) -> None:
        slope, difference = directional_error(lambda t: value(t).sum(), at, direction)
        allowed = 1e-6 * max(1.0, abs(difference))
        assert abs(slope - difference) <= allowed, f"{case.D!r}: the slope in {what} is {slope}, by differences {difference}"

    compare(lambda t: case.D.from_logits(t, q.log()), p.log(), "the logits of P")
    compare(lambda t: case.D.from_logits(p.log(), t), q.log(), "the logits of Q")
    compare(lambda t: case.D.from_probs(t.softmax(-1), q), p.log(), "P")
    compare(lambda t: case.D.from_probs(p, t.softmax(-1)), q.log(), "Q")


def data_processing(case: DivergenceCase) -> None:
    """For a function of the density ratio, no channel brings laws further apart."""
    if not isinstance(case.D, FDivergence | RatioDivergence):
        return
    for seed in range(4):
        p, q = case.laws(seed, 6)
        channel = case.laws(seed + 50, 6, 4)[0]
        before, after = float(case.D.from_probs(p, q)), float(case.D.from_probs(p @ channel, q @ channel))
        assert after <= before * (1 + 1e-10) + 1e-14, f"{case.D!r} grows through a channel, from {before} to {after}"


def log_ratios(case: DivergenceCase) -> None:
    """For a function of the density ratio, the weighted mean over all categories is the value, with a standard error."""
    D = case.D
    if not isinstance(D, FDivergence | RatioDivergence) or math.isinf(getattr(D, "order", 0.0)):
        return
    p, q = case.laws(8, 3, 6)
    estimate = D.from_log_ratio((p / q).log(), q)
    case.expect_close(estimate.value, D.from_probs(p, q), "from_log_ratio over all categories")
    assert estimate.standard_error is not None, f"{D!r} has no standard error: {estimate.note}"


def generator(case: DivergenceCase) -> None:
    """An f-divergence's generator is centred and convex, with the stated limits; Fenchel's identity holds at f'(t)."""
    D = case.D
    if not isinstance(D, FDivergence):
        return
    t = torch.exp(torch.linspace(-6, 6, 121, dtype=torch.float64))
    value, slope = D.generator(t), D.derivative(t)
    one = torch.ones(1, dtype=torch.float64)
    assert float(D.generator(one)) == 0, f"{D!r}: f(1) is {float(D.generator(one))}"
    assert bool((value >= 0).all()), f"{D!r}: f is negative"
    assert bool((slope.diff() >= -1e-9 * slope.abs()[1:].clamp(min=1)).all()), f"{D!r}: f' falls"
    assert float(D.generator(0 * one)) == D.at_zero, f"{D!r}: f(0) is {float(D.generator(0 * one))}, stated {D.at_zero}"
    case.expect_close(D.conjugate(slope), t * slope - value, "f*(f'(t)) = t f'(t) - f(t)", factor=100 * float(t.max()))


def values_of_any_mass(case: DivergenceCase) -> None:
    """A divergence of measures agrees with itself on probability vectors; a projective one does not see the mass."""
    D = case.D
    if not isinstance(D, MeasureDivergence):
        return
    p, q = case.laws(9, 3, 6)
    case.expect_close(D.from_values(p, q), D.from_probs(p, q), "from_values of probability vectors")
    if isinstance(D, ProjectiveDivergence):
        case.expect_close(D.from_values(3.0 * p, 0.2 * q), D.from_probs(p, q), "from_values of multiples")
    low, high = D.domain
    for bound, shift in ((low, -1.0), (high, 1.0)):
        if math.isfinite(bound):
            bad = torch.full((3,), bound + shift, dtype=torch.float64)
            _expect_error(case, lambda bad=bad: D.from_values(bad, q[0, :3]), ("p has",), "a value outside the domain")


def bad_input(case: DivergenceCase) -> None:
    """What is no pair of laws is refused before any work, in words that name it."""
    p, q = case.laws(10)
    D, nan = case.D, math.nan
    refused: list[tuple[Callable[[], object], tuple[str, ...], str]] = [
        (lambda: D.from_probs(p, q[:-1]), ("6", "5"), "laws of different size"),
        (lambda: D.from_probs(2 * p, q), ("p must sum to 1",), "a sum of two"),
        (lambda: D.from_probs(p, q - 2 * q[0]), ("q must be non-negative", "q must sum"), "a negative probability"),
        (lambda: D.from_probs(p * nan, q), ("p has 6 non-finite",), "NaN"),
        (lambda: D.from_logits(p * nan, q), ("u has 6",), "NaN logits"),
        (lambda: D.from_logits(torch.full((6,), -math.inf), q), ("u has a row without",), "no category"),
        (lambda: D.from_logits(p, q, mask=torch.zeros(6, dtype=torch.bool)), ("row without a category",), "an empty mask"),
        (lambda: D.from_logits(p, q, mask=p), ("mask must be boolean",), "a mask of numbers"),
        (lambda: D.from_probs(["a"], q), ("must be numeric",), "text"),
    ]
    for call, naming, what in refused:
        _expect_error(case, call, naming, what)


def _expect_error(case: DivergenceCase, call: Callable[[], object], naming: tuple[str, ...], what: str) -> None:
    try:
        call()
    except (ValueError, TypeError) as error:
        message = str(error)
        assert any(word in message for word in naming), f"{case.D!r}: {what}: the message names none of {naming}: {message!r}"
    else:
        raise AssertionError(f"{case.D!r}: {what}: no ValueError or TypeError was raised")


def frozen_options(case: DivergenceCase) -> None:
    """A frozen dataclass; pickling returns an equal object with the same values, where its options can be pickled."""
    D = case.D
    assert dataclasses.is_dataclass(D), f"{type(D).__name__} is no dataclass"
    assert type(D).__dataclass_params__.frozen, f"{type(D).__name__} is not frozen"  # type: ignore[attr-defined]
    assert " at 0x" not in repr(D), f"{D!r} shows an address"
    p, q = case.laws(11)
    try:
        text = pickle.dumps(D)
    except (pickle.PicklingError, AttributeError, TypeError):  # a user's lambda
        return
    copy = pickle.loads(text)
    assert copy == D, f"{D!r} differs from its pickled copy {copy!r}"
    assert torch.equal(copy.from_probs(p, q), D.from_probs(p, q)), f"the pickled copy of {D!r} has another value"


CHECKS = (
    non_negative,
    zero_at_equality,
    separates,
    reversed_exchanges,
    doors_agree,
    layouts_and_precisions,
    edges_of_the_support,
    huge_logits,
    masks,
    gradients,
    data_processing,
    log_ratios,
    generator,
    values_of_any_mass,
    bad_input,
    frozen_options,
)

__all__ = ["CHECKS"]
