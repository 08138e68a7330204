"""Samples of different sizes as lists, for every discrepancy; plain nested lists stay one sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from discrepancy import MMD, EnergyDistance, OptimalTransport, Sinkhorn, SinkhornDivergence, SlicedWasserstein, Wasserstein
from discrepancy.kernels import Gaussian


def clouds(*sizes: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in sizes]


@pytest.mark.parametrize(
    "D",
    [OptimalTransport(), Wasserstein(1), Sinkhorn(0.5), SinkhornDivergence(0.5), MMD(Gaussian(1.0)), EnergyDistance()],
    ids=lambda D: type(D).__name__,
)
def test_a_list_is_its_pairs(D) -> None:
    xs, ys = clouds(4, 6, 5), clouds(7, 3, 4, seed=1)
    a = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    want = torch.stack([D(xs[0], ys[0], a), D(xs[1], ys[1]), D(xs[2], ys[2])])
    got = D(xs, ys, [a, None, None])
    assert torch.equal(got, want)
    assert torch.equal(D(tuple(v.numpy() for v in xs), [v.numpy() for v in ys], [a.numpy(), None, None]), want)
    one = torch.stack([D(xs[k], ys[0]) for k in range(3)])
    assert torch.equal(D(xs, ys[0]), one)
    xs[1].requires_grad_()
    D(xs, ys).sum().backward()
    (alone,) = torch.autograd.grad(D(xs[1], ys[1]), xs[1])
    torch.testing.assert_close(xs[1].grad, alone)


def test_random_discrepancies_draw_in_turn() -> None:
    xs, ys = clouds(4, 6), clouds(7, 3, seed=1)
    D = SlicedWasserstein()
    generator = torch.Generator().manual_seed(3)
    want = torch.stack([D(x, y, generator=generator) for x, y in zip(xs, ys, strict=True)])
    assert torch.equal(D(xs, ys, generator=torch.Generator().manual_seed(3)), want)


def test_what_was_one_sample_still_is() -> None:
    D = EnergyDistance()
    nested = D([[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0]])
    assert torch.equal(nested, D(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[0.0, 1.0]])))
    assert nested.shape == ()
    assert D([0.0, 1.0, 4.0], [2.0]).shape == ()
    rows = [torch.zeros(2), torch.ones(2)]
    assert D(rows, rows).shape == ()  # a list of rows is a sample
    same = clouds(5, 5)
    assert torch.equal(D(same, same[::-1]), D(torch.stack(same), torch.stack(same[::-1])))


def test_refusals() -> None:
    xs, ys = clouds(4, 6), clouds(7, 3, seed=1)
    D = OptimalTransport()
    with pytest.raises(ValueError, match="y must be a list of 2, one for each pair of samples, got a list of 3"):
        D(xs, [*ys, ys[0]])
    with pytest.raises(ValueError, match="b must be a list of 2"):
        D(xs, ys, None, [None])
    with pytest.raises(ValueError, match=r"samples of different sizes \(\(4, 2\), \(6, 2\)\).*once for each pair"):
        D.solve(xs, ys)
    with pytest.raises(ValueError, match="features"):
        D(xs, [ys[0], np.zeros((3, 5))])
