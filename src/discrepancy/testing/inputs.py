"""Checks of what a discrepancy takes: weights, batches, layouts, precisions, arrays, bad input, one point, pickles."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import torch

from discrepancy._results import Result
from discrepancy.testing.case import Case


def equal_weights(case: Case) -> None:
    """No weights and weights 1/n are the same."""
    x, y = case.pair()
    a, b = torch.full((9,), 1 / 9, dtype=x.dtype), torch.full((6,), 1 / 6, dtype=x.dtype)
    case.expect_close(case.value(x, y, a, b), case.value(x, y), "weights 1/n")


def zero_weights(case: Case) -> None:
    """A point of weight zero is as good as absent, wherever it lies."""
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    far_x, far_y = torch.cat([x[:4], x[:1] + 50, x[4:]]), torch.cat([y, y[:2] - 80])
    zero = torch.zeros(2, dtype=x.dtype)
    padded_a, padded_b = torch.cat([a[:4], zero[:1], a[4:]]), torch.cat([b, zero])
    case.expect_close(case.value(far_x, far_y, padded_a, padded_b), case.value(x, y, a, b), "points of weight zero", factor=10)


def weights_matter(case: Case) -> None:
    """Weights change the value: dropping them is noticed."""
    x, y = case.pair()
    a = torch.linspace(1, 9, 9, dtype=x.dtype).pow(3)
    weighted = case.value(x, y, a / a.sum())
    assert not torch.allclose(weighted, case.value(x, y), rtol=1e-4), f"{case.D!r} takes no notice of its weights"


def replicates_are_weights(case: Case) -> None:
    """A point that is there k times weighs k times as much: D is a function of the two measures.

    An unbiased estimator leaves out the pairs of a row with itself, so that copies differ from weights: not checked.
    """
    if not case.claims.non_negative:
        return
    x, y = case.pair()
    counts = torch.tensor([1, 3, 1, 2, 1, 1, 1, 4, 1])
    a = counts.to(x.dtype) / counts.sum()
    D = case.D.resolved(x, y, a)
    copies = x.repeat_interleave(counts, 0)
    case.expect_close(case.value(copies, y, D=D), case.value(x, y, a, D=D), "copies against weights", factor=10)


def rows_in_any_order(case: Case) -> None:
    """The order of the rows does not matter."""
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    p, q = torch.randperm(9, generator=torch.Generator().manual_seed(1)), torch.arange(5, -1, -1)
    case.expect_close(case.value(x[p], y[q], a[p], b[q]), case.value(x, y, a, b), "rows in another order", factor=10)


def batches(case: Case) -> None:
    """A batch equals the loop over its members; a batch of one sample broadcasts."""
    x, y = case.pair(batch=(2, 3))
    a, b = case.masses(9, 1, batch=(2, 3)), case.masses(6, 2, batch=(2, 3))
    for weights in ((None, None), (a, b)):
        whole = case.value(x, y, *weights)
        rows = [
            case.value(x[i, j], y[i, j], *(None if w is None else w[i, j] for w in weights)) for i in range(2) for j in range(3)
        ]
        case.expect_close(whole, torch.stack(rows).reshape(2, 3), "batch against loop", factor=10)
    spread = case.value(x[0, 0], y[0])
    case.expect_close(spread, torch.stack([case.value(x[0, 0], y[0, j]) for j in range(3)]), "broadcast batch", factor=10)


def precisions(case: Case) -> None:
    """float32 stays float32 and float64 float64; both agree to single precision on the same numbers."""
    x, y = case.pair(20, 15, dtype=torch.float32)
    single, double = case.value(x, y), case.value(x.double(), y.double())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64), f"{case.D!r}: dtypes {single.dtype}, {double.dtype}"
    assert case.value(x.half(), y.half()).dtype == torch.float32, f"{case.D!r}: half precision must become float32"
    if not case.claims.random:  # torch draws other numbers in another precision
        Case(case.D, max(case.accuracy, 2e-6)).expect_close(single, double, "float32 against float64")


def layouts(case: Case) -> None:
    """Strides do not matter, and the inputs are left as they were."""
    x, y = case.pair()
    want = case.value(x, y)
    wide = torch.zeros(18, 2 * case.dimension, dtype=x.dtype)
    wide[::2, ::2] = x
    before = wide.clone()
    case.expect_close(case.value(wide[::2, ::2], y.T.contiguous().T), want, "strided input")
    assert torch.equal(wide, before), f"{case.D!r} changed its input"


def arrays_and_lists(case: Case) -> None:
    """NumPy arrays (also reversed, read-only, integer) and lists are taken as tensors are."""
    x, y = case.pair()
    want = case.value(x, y)
    frozen = y.numpy().copy()
    frozen.flags.writeable = False
    case.expect_close(case.value(x.numpy()[::-1], frozen), case.value(x.flip(0), y), "NumPy arrays")
    case.expect_close(case.value(np.asfortranarray(x.numpy()), y), want, "a Fortran array")
    whole = np.arange(4 * case.dimension).reshape(4, case.dimension)
    listed = case.value(whole.tolist(), (whole[:3] ** 2).tolist())
    assert listed.dtype == torch.get_default_dtype(), f"{case.D!r}: lists must take torch's default dtype, got {listed.dtype}"
    assert bool(torch.isfinite(listed)), f"{case.D!r} is {listed.item()} on whole numbers"


def one_point(case: Case) -> None:
    """One point against one point or many has a finite value, or a ValueError that says why not."""
    x, y = case.pair()
    for left, right in ((x[:1], y[:1]), (x[:1], y), (x, y[:1])):
        try:
            value = case.value(left, right)
        except ValueError as refusal:
            if case.claims.non_negative or "point" not in str(refusal):
                raise AssertionError(f"{case.D!r} refuses a sample of one point, or does not say so: {refusal}") from refusal
        else:
            assert bool(torch.isfinite(value)), f"{case.D!r} is {value.item()} on one point"


def ties_and_duplicates(case: Case) -> None:
    """Duplicates within and across the samples give a finite value and finite gradients."""
    x = torch.ones(5, case.dimension, dtype=torch.float64)
    y = torch.cat([x[:2], 2 * x[:3]])
    x.requires_grad_()
    y.requires_grad_()
    value = case.value(x, y)
    value.backward()
    for grad in (x.grad, y.grad):
        finite = bool(torch.isfinite(value)) and (grad is None or bool(torch.isfinite(grad).all()))
        assert finite, f"{case.D!r} is {value.item()} on duplicates, with gradient {None if grad is None else grad.tolist()}"


def bad_input(case: Case) -> None:
    """What cannot be compared is refused before any work, with a message that names the argument."""
    x, y = case.pair()
    d = case.dimension
    nan = x.clone()
    nan[2, 0] = torch.nan
    infinite = y.clone()
    infinite[1, 0] = torch.inf
    a = case.masses(9, 1)
    D = case.D
    refused = [
        (lambda: D(x, torch.zeros(4, d + 1, dtype=x.dtype)), ("feature",), "different feature counts"),
        (lambda: D(nan, y), ("x has",), "NaN in x"),
        (lambda: D(x, infinite), ("y has",), "infinity in y"),
        (lambda: D(x[:0], y), ("x is empty",), "an empty sample"),
        (lambda: D(x.to(torch.complex128), y), ("real",), "complex numbers"),
        (lambda: D(np.array([["a"]]), y), ("numeric",), "text"),
        (lambda: D(x, y, a[:-1]), ("a must", "a has"), "weights of the wrong length"),
        (lambda: D(x, y, -a), ("a must",), "negative weights"),
        (lambda: D(x, y, None, torch.full((6,), torch.nan, dtype=x.dtype)), ("b has",), "NaN weights"),
        (lambda: D(x.expand(2, 9, d), y.expand(3, 6, d)), ("batch",), "different batches"),
    ]
    if not case.claims.any_mass:
        refused.append((lambda: D(x, y, 2 * a), ("a must sum",), "weights that sum to two"))
    if case.claims.dimension is None:
        refused.append((lambda: D(x, torch.tensor(1.0)), ("single number",), "a number for a sample"))
    for call, naming, what in refused:
        case.expect_error(call, naming, what)


def frozen_options(case: Case) -> None:
    """A frozen dataclass whose repr shows every option; pickling returns an equal object with the same values."""
    D = case.D
    assert dataclasses.is_dataclass(D), f"{type(D).__name__} is no dataclass"
    assert type(D).__dataclass_params__.frozen, f"{type(D).__name__} is not frozen"  # type: ignore[attr-defined]
    text = repr(D)
    for option in dataclasses.fields(D):
        assert not option.repr or f"{option.name}=" in text, f"the repr {text} does not show {option.name}"
    assert text.startswith(type(D).__name__), f"the repr {text} does not begin with the class"
    copy = pickle.loads(pickle.dumps(D))
    assert copy == D, f"{D!r} differs from its pickled copy {copy!r}"
    x, y = case.pair()
    assert torch.equal(case.value(x, y, D=copy), case.value(x, y)), f"the pickled copy of {D!r} has another value"


def solved(case: Case) -> None:
    """`solve` returns a result whose value is that of the call, and which JSON can hold."""
    x, y = case.pair()
    a, b = case.masses(9, 1), case.masses(6, 2)
    result = case.D.solve(x, y, a, b, generator=case.generator())
    assert isinstance(result, Result), f"{case.D!r}.solve returns {type(result).__name__}, not a Result"
    value = torch.as_tensor(result.value, dtype=torch.float64)  # type: ignore[attr-defined]
    case.expect_close(value, case.value(x, y, a, b), "solve(...).value")
    json.dumps(result.to_dict())


CHECKS = (
    equal_weights,
    zero_weights,
    weights_matter,
    replicates_are_weights,
    rows_in_any_order,
    batches,
    precisions,
    layouts,
    arrays_and_lists,
    one_point,
    ties_and_duplicates,
    bad_input,
    frozen_options,
    solved,
)
