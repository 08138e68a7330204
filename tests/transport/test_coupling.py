"""Pairs drawn from a coupling: their frequencies are the plan's, their rows the sample's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from discrepancy import EnergyDistance, OptimalTransport, Sinkhorn
from discrepancy.transport import sample_coupling


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_sizes_give_the_optimal_permutation() -> None:
    for dtype in (torch.float32, torch.float64):
        x, y = torch.randn(64, 3, generator=seeded(1), dtype=dtype), torch.randn(64, 3, generator=seeded(2), dtype=dtype)
        drawn = sample_coupling(x, y, seeded())
        assert torch.equal(drawn.rows, torch.arange(64))
        columns = linear_sum_assignment(torch.cdist(x.double(), y.double()).square().numpy())[1]
        np.testing.assert_array_equal(drawn.columns, columns)
        left, right = drawn
        assert torch.equal(left, x)
        assert torch.equal(right, y[drawn.columns])
        assert torch.equal(sample_coupling(x, y, seeded(9)).columns, drawn.columns)


@pytest.mark.parametrize("transport", [OptimalTransport(), Sinkhorn(0.5)], ids=["exact", "entropic"])
def test_frequencies_are_those_of_the_plan(transport) -> None:
    x, y = (
        torch.randn(5, 2, generator=seeded(3), dtype=torch.float64),
        torch.randn(7, 2, generator=seeded(4), dtype=torch.float64),
    )
    a = torch.tensor([0.5, 0.2, 0.0, 0.1, 0.2], dtype=torch.float64)
    plan = transport.solve(x, y, a).plan()
    plan = plan.to_dense() if plan.is_sparse else plan
    draws = 20_000
    drawn = sample_coupling(x, y, seeded(), a=a, transport=transport, size=draws)
    counts = torch.zeros(5, 7, dtype=torch.float64).index_put(
        (drawn.rows, drawn.columns), torch.ones(draws).double(), accumulate=True
    )
    # Stratified along the plan's cells: each count is off by at most one at either end of its cell.
    assert float((counts / draws - plan / plan.sum()).abs().max()) <= 2.1 / draws
    np.testing.assert_allclose(torch.bincount(drawn.rows, minlength=5) / draws, a, atol=1.1 / draws)


def test_each_row_once_and_partners_at_random() -> None:
    x, y = torch.randn(6, 2, generator=seeded(5)), torch.randn(9, 2, generator=seeded(6))
    plan = OptimalTransport().solve(x, y).plan().to_dense().double()
    seen = torch.zeros(6, 9, dtype=torch.float64)
    generator = seeded()
    for _ in range(400):
        drawn = sample_coupling(x, y, generator)
        assert torch.equal(drawn.rows, torch.arange(6))
        seen[drawn.rows, drawn.columns] += 1
    assert bool((seen[plan == 0] == 0).all())
    # 400 draws of a share of up to one: four standard errors.
    assert float((seen / 400 - 6 * plan).abs().max()) < 0.1


def test_batches_gradients_and_generators() -> None:
    x, y = torch.randn(2, 3, 5, 2, generator=seeded(7)), torch.randn(3, 8, 2, generator=seeded(8))
    drawn = sample_coupling(x, y, seeded(1))
    assert drawn.x.shape == (2, 3, 5, 2)
    assert drawn.y.shape == (2, 3, 5, 2)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(drawn.y[i, j], y[j, drawn.columns[i, j]])
        plan = OptimalTransport().solve(x[i, j], y[j]).plan().to_dense()
        assert bool((plan[drawn.rows[i, j], drawn.columns[i, j]] > 0).all())
    assert torch.equal(sample_coupling(x, y, seeded(1)).columns, drawn.columns)
    leaf = y.clone().requires_grad_()
    left, right = sample_coupling(x[0], leaf, seeded(2))
    (right - left).square().mean().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().sum()) > 0


def test_refusals() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(TypeError, match="must be an object whose solve"):
        sample_coupling(x, x, transport="exact")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"EnergyDistance.solve has no plan"):
        sample_coupling(x, x, transport=EnergyDistance())
    for size in (0, 2.5, True):
        with pytest.raises(ValueError, match="size must be"):
            sample_coupling(x, x, size=size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features"):
        sample_coupling(x, torch.ones(3, 3))
    with pytest.raises(TypeError, match="generator"):
        sample_coupling(x, x, 3)  # type: ignore[arg-type]
