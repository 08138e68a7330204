"""The boundary: what comes in, what is refused, and in which words."""

import numpy as np
import pandas
import polars
import pytest
import torch

from discrepancy._validate import as_tensor, paired_rows, require_finite, sample, sample_pair, weights


def test_dtypes_are_kept_and_integers_follow_the_partner():
    assert sample(np.zeros((3, 2), np.float32)).dtype == torch.float32
    assert sample(np.zeros((3, 2))).dtype == torch.float64
    assert sample(torch.zeros(3, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert sample(np.zeros((3, 2), int)).dtype == torch.get_default_dtype()
    pair = sample_pair([[0, 1]], torch.zeros(4, 2, dtype=torch.float64))
    assert pair.x.dtype == torch.float64
    mixed = sample_pair(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64))
    assert mixed.x.dtype == torch.float64


def test_a_tensor_passes_through_with_its_gradient():
    x = torch.randn(5, 2, requires_grad=True)
    assert as_tensor(x) is x


@pytest.mark.parametrize("frame", [pandas.DataFrame, polars.DataFrame])
def test_data_frames_are_read(frame):
    x = sample(frame({"u": [1.0, 2.0, 3.0], "v": [4, 5, 6]}))
    assert torch.equal(x, torch.tensor([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], dtype=torch.float64))


def test_odd_memory_layouts():
    base = np.arange(12.0).reshape(4, 3)
    reverse, big_endian = base[::-1, ::2], base.astype(">f8")
    base.flags.writeable = False
    assert sample(base).shape == (4, 3)
    assert np.array_equal(sample(reverse).numpy(), np.arange(12.0).reshape(4, 3)[::-1, ::2])
    assert np.array_equal(sample(big_endian).numpy(), np.arange(12.0).reshape(4, 3))


def test_one_dimension_is_points_on_the_line():
    assert sample([1.0, 2.0, 3.0]).shape == (3, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sample(5.0), ValueError, "single number"),
        (lambda: sample(np.zeros((0, 2))), ValueError, "x is empty"),
        (lambda: sample(np.zeros((2, 0))), ValueError, "no features"),
        (lambda: sample(np.array(["a", "b"])), TypeError, "must be numeric"),
        (lambda: sample(np.zeros((2, 2), complex)), ValueError, "must be real"),
        (lambda: sample_pair(np.zeros((2, 3)), np.zeros((2, 4))), ValueError, "x has 3 features and y has 4"),
        (lambda: sample_pair(np.zeros((2, 2, 1)), np.zeros((3, 2, 1))), ValueError, "batch shape"),
        (lambda: paired_rows(np.zeros((3, 1)), np.zeros((4, 1))), ValueError, "paired row by row"),
        (lambda: sample_pair([0.0], [1.0], a=[-1.0]), ValueError, "non-negative"),
        (lambda: sample_pair([0.0, 1.0], [1.0], a=[0.5, 0.6]), ValueError, "sum to 1 .* got 1.1"),
        (lambda: sample_pair([0.0, 1.0], [1.0], a=[1.0]), ValueError, "one weight for each of the 2 points"),
        (lambda: sample_pair([0.0], [1.0], b=[float("nan")]), ValueError, "b has 1 non-finite"),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_non_finite_values_are_counted_and_located():
    x = np.zeros((4, 3))
    x[1, 2], x[3, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 non-finite value\(s\) of 12, the first at index \(1, 2\)"):
        sample(x)


def test_a_sum_that_overflows_is_not_a_non_finite_value():
    require_finite(torch.full((10,), 3e38), "x")


def test_weights_are_renormalised_exactly_and_only_within_tolerance():
    like = torch.zeros(1, dtype=torch.float64)
    a = weights([0.2, 0.3, 0.5 + 5e-9], (3,), like=like)
    assert a.sum() == 1
    with pytest.raises(ValueError, match="sum to 1"):
        weights(np.array([0.2, 0.3, 0.5 + 5e-7]), (3,), like=like)
    assert weights(np.array([0.2, 0.3, 0.50005], np.float32), (3,), like=like.float()).sum().item() == pytest.approx(1, abs=1e-7)


def test_unnormalised_mass_is_for_unbalanced_transport_only():
    a = weights([2.0, 3.0], (2,), like=torch.zeros(1), mass="positive")
    assert a.tolist() == [2.0, 3.0]


def test_weights_carry_a_gradient_along_the_simplex():
    a = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
    weights(a, (2,), like=a)[0].backward()
    # d/da_0 of a_0 / (a_0 + a_1), and d/da_1
    assert torch.allclose(a.grad, torch.tensor([0.75, -0.25], dtype=torch.float64))
