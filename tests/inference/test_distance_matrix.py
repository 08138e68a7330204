"""Matrices of distances against single calls, on one scale and with one draw."""

from __future__ import annotations

import pytest
import torch
from plain import MeanShift, RiseOfMean

from discrepancy.inference import pairwise
from discrepancy.kernel_methods import MMD
from discrepancy.kernels import Gaussian
from discrepancy.transport import SlicedWasserstein


def clouds(d: int = 2) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=g, dtype=torch.float64) + n / 10 for n in (5, 9, 7, 6)]


def test_entries_are_the_values_of_single_calls() -> None:
    samples = clouds()
    found = pairwise(samples, MeanShift())
    want = torch.tensor(
        [[0.0 if i == j else float(MeanShift()(x, y)) for j, y in enumerate(samples)] for i, x in enumerate(samples)]
    )
    assert torch.allclose(found.matrix, want.double())
    assert torch.equal(found.matrix, found.matrix.T)
    assert found.labels == ("0", "1", "2", "3")


def test_asymmetric_and_weighted() -> None:
    samples = clouds(1)
    w = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2], dtype=torch.float64)
    found = pairwise(samples, RiseOfMean(), sample_weights=[w, None, None, None], labels="abcd")
    assert found.between("a", "b") == pytest.approx(float(RiseOfMean()(samples[0], samples[1], w)))
    assert torch.allclose(found.matrix, -found.matrix.T)


def test_one_bandwidth_and_one_draw_for_all() -> None:
    samples = clouds()
    found = pairwise({"a": samples[0], "b": samples[1], "c": 30 * samples[2]}, MMD())
    assert "Median" not in found.method
    assert found.between("a", "b") != pytest.approx(float(MMD()(samples[0], samples[1])))
    unbiased = pairwise(samples, MMD(Gaussian(1.0)))
    assert bool((unbiased.matrix.diagonal() == 0).all())
    sliced = pairwise(samples, SlicedWasserstein(2), generator=torch.Generator().manual_seed(1)).matrix
    again = pairwise(samples, SlicedWasserstein(2), generator=torch.Generator().manual_seed(1)).matrix
    assert torch.equal(sliced, again)
    # one draw of directions makes the whole matrix one metric: the triangle inequality holds exactly
    assert bool((sliced[:, None, :] <= sliced[:, :, None] + sliced[None, :, :] + 1e-12).all())


def test_one_sample_and_floats() -> None:
    assert pairwise([[1.0, 2.0]], MeanShift()).matrix.tolist() == [[0.0]]
    assert pairwise([torch.ones(3, 1), torch.zeros(3, 1)], MeanShift()).matrix.dtype == torch.float32
    assert pairwise([torch.ones(3, 1), torch.zeros(3, 1)], MeanShift()).to_dict()["matrix"] == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: pairwise(s, abs), TypeError, "Discrepancy"),
        (lambda s: pairwise([], MeanShift()), ValueError, "empty"),
        (lambda s: pairwise([*s, torch.ones(3, 5)], MeanShift()), ValueError, r"samples\[4\]"),
        (lambda s: pairwise(s, MeanShift(), labels=["a", "a", "b", "c"]), ValueError, "different names"),
        (lambda s: pairwise({"a": s[0]}, MeanShift(), labels=["a"]), ValueError, "mapping"),
        (lambda s: pairwise(s, MeanShift(), sample_weights=[None]), ValueError, "one entry"),
        (lambda s: pairwise(s, MeanShift()).between("0", "x"), ValueError, "unknown label"),
    ],
)
def test_wrong_arguments_are_refused(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(clouds())  # type: ignore[operator]
