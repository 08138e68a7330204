"""Semi-discrete transport against closed forms on the line and for a Gaussian, and against large discrete problems."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import norm

from discrepancy.costs import Euclidean, SquaredEuclidean
from discrepancy.transport import SemiDiscrete, Sinkhorn


def uniform(n, generator):
    return torch.rand(n, 1, generator=generator, dtype=torch.float64)


def gauss(n, generator):
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


def seeded(k=0):
    return torch.Generator().manual_seed(k)


ATOMS = torch.tensor([[0.05], [0.3], [0.35], [0.9]], dtype=torch.float64)
MASSES = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)
LEVELS = torch.cat([torch.zeros(1), MASSES.cumsum(0)]).double()


def on_the_line(y, b):
    """int (x - y_j)^2 over the interval of each atom, for uniform x on [0, 1]."""
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), b.cumsum(0)])
    return (((ends[1:] - y[:, 0]) ** 3 - (ends[:-1] - y[:, 0]) ** 3) / 3).sum()


def test_uniform_against_atoms_on_the_line():
    found = SemiDiscrete(steps=600).solve(uniform, ATOMS, MASSES, generator=seeded())
    want = float(on_the_line(ATOMS, MASSES))
    assert abs(float(found.value) - want) < 4 * found.standard_error
    assert found.low < float(found.value) < found.high
    assert found.cell_error < 0.02
    # Cells are the intervals of the quantile coupling, and g solves c(t, y_j) - g_j = c(t, y_j+1) - g_j+1 at their ends t.
    inner = (LEVELS[1:] + LEVELS[:-1]).float().double() / 2
    assert found.assign(inner[:, None]).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(found.map()(inner[:, None]), ATOMS)
    t = LEVELS[1:-1]
    want_steps = (t - ATOMS[1:, 0]) ** 2 - (t - ATOMS[:-1, 0]) ** 2
    torch.testing.assert_close(found.g.diff(), want_steps, atol=6e-3, rtol=0)
    edge = torch.tensor([[0.2]], dtype=torch.float64, requires_grad=True)
    value = found.potential()(edge)
    (slope,) = torch.autograd.grad(value.sum(), edge)
    torch.testing.assert_close(slope, 2 * (edge.detach() - ATOMS[:1]))


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_gaussian_against_two_symmetric_atoms(p):
    """The cells are half-spaces: W = E|X|^2 + 1 + 2 E X1 1{X1 < t} - 2 E X1 1{X1 > t} = 4 - 4 phi(t) in three dimensions."""
    y = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    b = torch.tensor([p, 1 - p], dtype=torch.float64)
    found = SemiDiscrete(steps=300).solve(gauss, y, b, generator=seeded(1))
    t = norm.ppf(p)
    assert abs(float(found.value) - (4 - 4 * norm.pdf(t))) < 4 * found.standard_error
    assert abs(float(found.g[0] - found.g[1]) - ((t + 1) ** 2 - (t - 1) ** 2)) < 0.05
    z = torch.tensor([[t - 0.1, 3.0, -2.0], [t + 0.1, -3.0, 2.0]], dtype=torch.float64)
    assert found.assign(z).tolist() == [0, 1]


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean()], ids=repr)
def test_agrees_with_a_large_discrete_problem(cost):
    generator = seeded(3)
    y = torch.randn(12, 3, generator=generator, dtype=torch.float64) + 0.5
    b = torch.rand(12, generator=generator, dtype=torch.float64) + 0.2
    b = b / b.sum()
    found = SemiDiscrete(cost, steps=400).solve(gauss, y, b, generator=seeded(1))
    x = gauss(6000, seeded(2))
    C = cost.matrix(x, y).numpy()
    a = np.full(6000, 1 / 6000)
    discrete = ot.emd2(a, b.numpy(), C, numItermax=2_000_000)
    noise = float(torch.from_numpy(C).min(1).values.std()) / math.sqrt(6000)
    assert abs(float(found.value) - discrete) < 5 * (found.standard_error + noise)


def test_entropic_agrees_with_sinkhorn():
    generator = seeded(3)
    y = torch.randn(10, 3, generator=generator, dtype=torch.float64) + 0.5
    b = torch.rand(10, generator=generator, dtype=torch.float64) + 0.2
    b = b / b.sum()
    found = SemiDiscrete(epsilon=1.0, steps=300).solve(gauss, y, b, generator=seeded(1))
    x = gauss(4000, seeded(2))
    discrete = Sinkhorn(1.0).solve(x, y, b=b)
    f = discrete.f
    noise = float(f.std()) / math.sqrt(4000)
    assert abs(float(found.value) - float(discrete.value)) < 4 * (found.standard_error + noise)
    torch.testing.assert_close(found.g - (b * found.g).sum(), discrete.g - (b * discrete.g).sum(), atol=0.12, rtol=0)
    z = gauss(5, seeded(4))
    torch.testing.assert_close(found.map()(z), discrete.map()(z), atol=0.06, rtol=0)
    shift = (found.potential()(z) - discrete.potentials()[0](z)).detach()
    torch.testing.assert_close(shift, shift.mean().expand(5), atol=0.08, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_slopes_in_targets_and_weights(epsilon):
    """Against finite differences of the closed form on the line; the entropic ones against those of Sinkhorn on a fine grid."""
    y, b = ATOMS.clone().requires_grad_(), MASSES.clone().requires_grad_()
    found = SemiDiscrete(epsilon=epsilon, steps=500).solve(uniform, y, b, generator=seeded(2))
    gy, gb = torch.autograd.grad(found.value, (y, b))
    y2, b2 = ATOMS.clone().requires_grad_(), MASSES.clone().requires_grad_()
    if epsilon == 0:
        exact = on_the_line(y2, b2)
    else:
        x = (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000
        exact = Sinkhorn(epsilon)(x, y2, b=b2)
    wy, wb = torch.autograd.grad(exact, (y2, b2))
    torch.testing.assert_close(gy, wy, atol=6e-3, rtol=0)
    torch.testing.assert_close(gb - gb.mean(), wb - wb.mean(), atol=1.5e-2, rtol=0)  # along the simplex


def test_targets_without_weight_are_absent():
    y = torch.cat([ATOMS, torch.tensor([[0.5]], dtype=torch.float64)])
    b = torch.cat([MASSES, torch.zeros(1, dtype=torch.float64)])
    D = SemiDiscrete(steps=50, held_out=2000)
    with_it, without = D.solve(uniform, y, b, generator=seeded()), D.solve(uniform, ATOMS, MASSES, generator=seeded())
    assert float(with_it.value) == float(without.value)
    assert float(with_it.g[4]) == -math.inf
    assert 4 not in with_it.assign(uniform(500, seeded())).tolist()


def test_the_error_of_the_mean_is_honest_and_draws_are_repeatable():
    y = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    D = SemiDiscrete(steps=40, held_out=2000)
    values, errors = [], []
    for k in range(40):
        found = D.solve(gauss, y, generator=seeded(k))
        values.append(float(found.value))
        errors.append(found.standard_error)
    spread = np.std(values)
    assert 0.7 < np.mean(errors) / spread < 1.4
    assert abs(np.mean(values) - (4 - 4 * norm.pdf(0))) < 4 * spread / math.sqrt(40)
    assert float(D.solve(gauss, y, generator=seeded(5)).value) == values[5]


def test_one_target_takes_everything():
    found = SemiDiscrete(steps=3, held_out=20_000).solve(uniform, torch.tensor([[0.25]]).double(), generator=seeded())
    assert (
        abs(float(found.value) - float(on_the_line(torch.tensor([[0.25]]).double(), torch.ones(1).double())))
        < 4 * found.standard_error
    )
    assert found.cell_error == 0


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="source must be a function"):
        SemiDiscrete().solve(torch.zeros(5, 1), ATOMS)
    with pytest.raises(ValueError, match="must return points of shape"):
        SemiDiscrete().solve(gauss, ATOMS)
    with pytest.raises(ValueError, match="steps must be"):
        SemiDiscrete(steps=-1)
    with pytest.raises(ValueError, match="epsilon must be"):
        SemiDiscrete(epsilon=-0.1)
    with pytest.raises(ValueError, match="one set of targets"):
        SemiDiscrete().solve(uniform, ATOMS.expand(2, 4, 1))
