"""Particle flows reach their target under every kind of discrepancy, and report what they did."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from discrepancy import MMD, EnergyDistance, OptimalTransport, SinkhornDivergence, SlicedWasserstein, Wasserstein, flow
from discrepancy._results import Outcome


def _clouds() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=g, dtype=torch.float64)
    y = 0.5 * torch.randn(50, 2, generator=g, dtype=torch.float64) + torch.tensor([2.0, -1.0])
    return x, y


@pytest.mark.parametrize(
    "D", [OptimalTransport(), SinkhornDivergence(), Wasserstein(2)], ids=["exact", "sinkhorn", "wasserstein"]
)
def test_transport_flows_reach_the_target(D) -> None:  # type: ignore[no-untyped-def]
    x, y = _clouds()
    before = float(OptimalTransport()(x, y))
    found = flow(x, y, D, steps=150, rate=0.5)
    assert float(OptimalTransport()(found.points, y)) < (0.15 if isinstance(D, Wasserstein) else 0.02) * before
    assert bool((found.values.diff() <= 0).all())
    assert len(found.values) == found.steps + 1


@pytest.mark.parametrize("D", [EnergyDistance(), MMD(biased=True)], ids=["energy", "mmd"])
def test_kernel_flows_descend_though_far_particles_lag(D) -> None:  # type: ignore[no-untyped-def]
    x, y = _clouds()
    found = flow(x, y, D, steps=150, rate=0.5)
    assert float(found.values[-1]) < 0.05 * float(found.values[0])
    assert bool((found.values.diff() <= 0).all())
    before, after = (torch.cdist(t, y).amin(1).median() for t in (x, found.points))
    assert float(after) < 0.3 * float(before)


def test_one_half_step_of_the_exact_cost_is_the_barycentric_projection() -> None:
    x, y = _clouds()
    result = OptimalTransport().solve(x, y)
    found = flow(x, y, OptimalTransport(), steps=1, rate=0.5, adaptive=False)
    torch.testing.assert_close(found.points, 40 * result.apply(y), rtol=1e-10, atol=1e-12)


def test_a_random_discrepancy_is_followed_at_a_constant_rate_from_its_generator() -> None:
    x, y = _clouds()
    ends = [flow(x, y, SlicedWasserstein(), steps=60, rate=1.0, generator=torch.Generator().manual_seed(1)).points for _ in "ab"]
    assert bool((ends[0] == ends[1]).all())
    assert float(OptimalTransport()(ends[0], y)) < 0.2 * float(OptimalTransport()(x, y))


def test_weights_batches_and_the_path() -> None:
    x, y = _clouds()
    a = torch.zeros(40, dtype=torch.float64)
    a[:10] = 0.1
    found = flow(x, y, OptimalTransport(), a, steps=5, keep=2)
    assert bool((found.points[10:] == x[10:]).all())
    assert not bool((found.points[:10] == x[:10]).any())
    assert len(found.path) == 1 + found.steps // 2
    both = flow(torch.stack([x, x + 1]), torch.stack([y, y]), OptimalTransport(), steps=3, adaptive=False)
    alone = flow(x + 1, y, OptimalTransport(), steps=3, adaptive=False)
    torch.testing.assert_close(both.points[1], alone.points, rtol=1e-10, atol=1e-12)


def test_a_target_that_is_reached_ends_the_flow() -> None:
    x, _ = _clouds()
    found = flow(x, x.flip(0), OptimalTransport())
    assert found.outcome is Outcome.CONVERGED
    assert found.steps == 0
    np.testing.assert_array_equal(found.points.numpy(), x.numpy())


def test_bad_options_are_named() -> None:
    x, y = _clouds()
    with pytest.raises(TypeError, match="discrepancy must be an object"):
        flow(x, y, "mmd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps"):
        flow(x, y, OptimalTransport(), steps=0)
    with pytest.raises(ValueError, match="rate"):
        flow(x, y, OptimalTransport(), rate=-1.0)
