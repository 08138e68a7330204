"""The median heuristic against NumPy, with weights, ties, and more points than its limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from discrepancy.kernels import Gaussian, Laplacian, MedianHeuristic
from discrepancy.kernels.bandwidth import weighted_median
from discrepancy.kernels.separations import L1_DISTANCE, SQUARED_EUCLIDEAN


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(n: int) -> torch.Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 3, 4, 31, 200])
@pytest.mark.parametrize("d", [1, 6])
def test_equal_weights_are_numpys_median(n: int, d: int) -> None:
    z = cloud(n, d)
    got = MedianHeuristic(0.7).choose(z, equal(n), SQUARED_EUCLIDEAN)
    np.testing.assert_allclose(got, 0.7 * np.median(pdist(z)), rtol=1e-12)
    got = MedianHeuristic().choose(z, equal(n), L1_DISTANCE)
    np.testing.assert_allclose(got, np.median(pdist(z, "cityblock")), rtol=1e-12)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_weighted_median_is_the_median_of_repeated_values(counts: list[int], seed: int) -> None:
    values = torch.rand(len(counts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = torch.tensor(counts, dtype=torch.float64) / 7
    want = np.median(np.repeat(values.numpy(), counts))
    np.testing.assert_allclose(weighted_median(values, weights), want, rtol=1e-12)


def test_weights_count_pairs_by_the_product() -> None:
    z = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    # Pairs: distance 1 with weight .04, 10 with .16, 9 with .16 (of .36): the half lies in the pair of distance 9.
    got = MedianHeuristic().choose(z, torch.tensor([0.2, 0.2, 0.8], dtype=torch.float64), SQUARED_EUCLIDEAN)
    assert float(got) == 9.0
    got = MedianHeuristic().choose(z, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), SQUARED_EUCLIDEAN)
    assert float(got) == 1.0


def test_ties() -> None:
    # 10 of 15 pairs coincide: the median is 0, so the median of the positive distances is taken.
    z = torch.tensor([[0.0]] * 5 + [[4.0]], dtype=torch.float64)
    assert float(MedianHeuristic().choose(z, equal(6), SQUARED_EUCLIDEAN)) == 4.0
    assert float(MedianHeuristic(0.5).choose(z, equal(6), SQUARED_EUCLIDEAN)) == 2.0
    # No two points differ: every bandwidth gives the same kernel.
    assert float(MedianHeuristic(0.5).choose(torch.ones(4, 3), equal(4), SQUARED_EUCLIDEAN)) == 1.0
    assert float(MedianHeuristic().choose(torch.ones(1, 3), equal(1), SQUARED_EUCLIDEAN)) == 1.0


def test_above_the_limit_near_the_median_of_all_and_independent_of_the_order() -> None:
    z = torch.cat([cloud(2000, 3), cloud(1500, 3, 1) + 2.0])
    rule = MedianHeuristic(limit=400)
    got = rule.choose(z, equal(3500), SQUARED_EUCLIDEAN)
    np.testing.assert_allclose(got, np.median(pdist(z)), rtol=0.05)
    shuffled = z[torch.randperm(3500, generator=torch.Generator().manual_seed(3))]
    np.testing.assert_allclose(rule.choose(shuffled, equal(3500), SQUARED_EUCLIDEAN), got, rtol=1e-12)
    assert torch.equal(rule.choose(z, equal(3500), SQUARED_EUCLIDEAN), got)


def test_above_the_limit_weights_are_respected() -> None:
    z = torch.cat([cloud(2000, 2), 100 + 5 * cloud(2000, 2, 1)])
    w = torch.cat([equal(2000), torch.zeros(2000, dtype=torch.float64)])
    got = MedianHeuristic(limit=300).choose(z, w, SQUARED_EUCLIDEAN)
    np.testing.assert_allclose(got, np.median(pdist(z[:2000])), rtol=0.05)


def test_resolved_once_a_member_and_detached() -> None:
    z = cloud(20, 2).reshape(2, 10, 2).requires_grad_()
    kernel = Gaussian(MedianHeuristic(0.5)).resolve(z, equal(10).expand(2, 10))
    assert isinstance(kernel.bandwidth, torch.Tensor)
    assert not kernel.bandwidth.requires_grad
    want = [0.5 * np.median(pdist(member)) for member in z.detach()]
    np.testing.assert_allclose(kernel.bandwidth, want, rtol=1e-12)
    assert isinstance(Laplacian().resolve(z[0], equal(10)).scale, float)
    assert Gaussian(2.0).resolve(z, equal(10)) == Gaussian(2.0)
    with pytest.raises(ValueError, match="batch of 2, got a batch of 3"):
        kernel.members(slice(0, 1), 3)
