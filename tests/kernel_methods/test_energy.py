"""The energy distance against dcor, SciPy and closed forms; the sorted form on the line against the pairs."""

from __future__ import annotations

import dcor
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance

from discrepancy import MMD, EnergyDistance
from discrepancy.kernel_methods import energy_line
from discrepancy.kernels import NegativeDistance
from discrepancy.testing import problems


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def masses(n: int, seed: int) -> torch.Tensor:
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 2
    w[0] = 0.0
    return w / w.sum()


def by_hand(x, y, a, b, exponent: float = 1.0) -> float:
    def mean(u, v, p, q):
        return float(p @ cdist(u, v) ** exponent @ q)

    return 2 * mean(x, y, a, b) - mean(x, x, a, a) - mean(y, y, b, b)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 1), (20, 20, 3), (600, 700, 7)])
def test_is_the_double_sum_and_dcors(n: int, m: int, d: int, exponent: float) -> None:
    x, y = sample(n, d, 0), sample(m, d, 1, 0.5)
    D = EnergyDistance(exponent)
    np.testing.assert_allclose(D(x, y), dcor.energy_distance(x.numpy(), y.numpy(), exponent=exponent), rtol=1e-9)
    a, b = masses(n, 2), masses(m, 3)
    np.testing.assert_allclose(D(x, y, a, b), by_hand(x, y, a.numpy(), b.numpy(), exponent), rtol=1e-9)


def test_on_the_line_is_scipys_squared() -> None:
    x, y = sample(300, 1, 0)[:, 0], sample(200, 1, 1, 0.4)[:, 0]
    a, b = masses(300, 2), masses(200, 3)
    np.testing.assert_allclose(EnergyDistance()(x, y, a, b), energy_distance(x, y, a, b) ** 2, rtol=1e-10)


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=7),
    st.lists(st.integers(-3, 3), min_size=1, max_size=7),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_on_the_line_sorting_equals_pairs_in_value_and_gradient(p: list[int], q: list[int], seed: int) -> None:
    # Whole numbers make ties within and across; the plane with a constant coordinate takes the path over pairs.
    x, y = (torch.tensor(v, dtype=torch.float64)[:, None].requires_grad_() for v in (p, q))
    w, v = (
        torch.randn(len(s), generator=torch.Generator().manual_seed(seed + i), dtype=torch.float64) for i, s in enumerate((p, q))
    )
    w, v = w.requires_grad_(), v.requires_grad_()
    values, gradients = [], []
    for width in (1, 2):
        left, right = (torch.cat([t, torch.zeros(len(t), width - 1, dtype=t.dtype)], 1) for t in (x, y))
        value = EnergyDistance()(left, right, w.softmax(0), v.softmax(0))
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, (x, y, w, v)))
    np.testing.assert_allclose(values[0], values[1], atol=1e-14)
    for sorted_, paired in zip(*gradients, strict=True):
        np.testing.assert_allclose(sorted_, paired, atol=1e-13)


def test_loop_and_tensor_operations_on_the_line_agree() -> None:
    x, y = (sample(n, 9, seed).mT.round(decimals=1) for n, seed in ((40, 0), (31, 1)))  # rows with ties
    a, b = (torch.stack([masses(n, s) for s in range(9)]) for n in (40, 31))
    F, G = energy_line._Distribution(x, a, ordered=False), energy_line._Distribution(y, b, ordered=True)
    torch.testing.assert_close(energy_line.loop_area(F, G), energy_line.tensor_area(F, G), rtol=1e-13, atol=0)
    for right in (False, True):
        wanted = torch.searchsorted(F.knots, G.knots, right=right)
        torch.testing.assert_close(energy_line._ranks(F.knots, G.knots, right=right), wanted)


def test_on_the_line_the_value_does_not_depend_on_what_is_differentiated() -> None:
    x, y = sample(300, 1, 0), sample(200, 1, 1, 0.4)
    plain = EnergyDistance()(x, y)
    assert float(EnergyDistance()(x.requires_grad_(), y).detach()) == float(plain)


@pytest.mark.parametrize("population", list(problems.populations()), ids=lambda p: p.name)
def test_expectation_is_the_closed_form_plus_the_stated_bias(population: problems.Population) -> None:
    n, m, draws = 60, 40, 400
    x, y = population.draw(n, m, generator=torch.Generator().manual_seed(0), batch=(draws,))
    values = EnergyDistance()(x, y)
    within_x = torch.stack([torch.pdist(s).mean() for s in x]).mean()
    within_y = torch.stack([torch.pdist(s).mean() for s in y]).mean()
    truth = population.answer("energy") + float(within_x) / n + float(within_y) / m
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / draws**0.5


@pytest.mark.parametrize("problem", [p for p in problems.sample_problems() if "energy" in p.answers], ids=lambda p: p.name)
def test_exact_problems(problem: problems.SampleProblem) -> None:
    got = EnergyDistance()(problem.x, problem.y, problem.a, problem.b)
    np.testing.assert_allclose(got, problem.answer("energy"), rtol=1e-12, atol=1e-15)


def test_diracs_at_every_exponent() -> None:
    problem = problems.diracs(3.0, 4)
    for exponent in (0.3, 1.0, 1.9):
        got = EnergyDistance(exponent)(problem.x, problem.y)
        np.testing.assert_allclose(got, problem.answer("energy", exponent=exponent), rtol=1e-13)


def test_is_the_mmd_of_the_negative_distance() -> None:
    x, y = sample(30, 3, 0), sample(20, 3, 1, 0.5)
    assert torch.equal(EnergyDistance(1.3)(x, y), MMD(NegativeDistance(1.3), biased=True)(x, y))


def test_far_from_the_origin_and_in_float32() -> None:
    for d in (1, 3, 12):
        x = (sample(300, d, 0) * 256).round() / 256
        y = (sample(200, d, 1, 0.05) * 256).round() / 256
        want = EnergyDistance()(x, y)
        np.testing.assert_allclose(EnergyDistance()(x + 2.0**30, y + 2.0**30), want, rtol=1e-10)
        np.testing.assert_allclose(EnergyDistance()((x + 1000).float(), (y + 1000).float()), want, rtol=3e-7)


def test_standard_error_on_the_line_is_that_of_the_pairs() -> None:
    x, y = sample(40, 1, 0, 100.0), sample(30, 1, 1, 100.7)
    a, b = masses(40, 2), masses(30, 3)
    plane = [torch.cat([t, torch.zeros_like(t)], 1) for t in (x, y)]
    got, want = EnergyDistance().solve(x, y, a, b), EnergyDistance().solve(*plane, a, b)
    np.testing.assert_allclose(got.standard_error, want.standard_error, rtol=1e-9)


@pytest.mark.parametrize("d", [1, 4])
def test_pooled_takes_signed_rows(d: int) -> None:
    z = sample(25, d, 0)
    z[3] = z[4]
    A = torch.randn(6, 25, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.2
    A += (1 - A.sum(1, keepdim=True)) / 25
    B = torch.full((6, 25), 1 / 25, dtype=torch.float64)
    C = (A - B).numpy()
    want = -np.einsum("ri,ij,rj->r", C, cdist(z, z), C)
    for memory in (1.0, 1e-9):
        np.testing.assert_allclose(EnergyDistance(memory=memory).pooled(z)(A, B), want, rtol=1e-10)


def test_a_million_points_on_the_line() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1_000_000, generator=generator), torch.randn(800_000, generator=generator) + 1.0
    truth = problems.gaussians(1.0).answer("energy")
    assert abs(float(EnergyDistance()(x, y)) - truth) < 0.01


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="exponent must lie strictly between 0 and 2"):
        EnergyDistance(exponent=2)
    with pytest.raises(ValueError, match="memory"):
        EnergyDistance(memory=-1)
    with pytest.raises(ValueError, match="one cloud"):
        EnergyDistance().pooled(torch.zeros(2, 3, 1))
