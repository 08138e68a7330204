"""Neural maps: both doors, every swap, reproducibility, bad input; the planted wrong map as a slow test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from discrepancy import NumericalError
from discrepancy.costs import Sphere
from discrepancy.directions import Uniform
from discrepancy.kernel_methods import MMD, EnergyDistance
from discrepancy.networks import MLP
from discrepancy.transport import NeuralMap, SinkhornDivergence, SlicedWasserstein


def cloud(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


SMALL = {"network": MLP(16, 2), "steps": 15, "batch_size": 32, "random_state": 0}
FITTINGS = [SinkhornDivergence(), MMD(biased=True), EnergyDistance(), SlicedWasserstein(2, Uniform(10))]


@pytest.mark.parametrize("fitting", FITTINGS, ids=lambda D: type(D).__name__)
def test_every_fitting_discrepancy_comes_nearer(fitting) -> None:
    x, y = cloud(64), 0.5 * cloud(64, seed=1) + 2
    model = NeuralMap(
        fitting=fitting, network=MLP(16, 2), residual=True, steps=60, batch_size=64, learning_rate=2e-2, random_state=0
    )
    image = model.fit(x, y).transform(x)
    D = EnergyDistance()
    assert float(D(image, y)) < 0.3 * float(D(x, y))
    assert model.history_["fit"][-1] < model.history_["fit"][0]
    assert set(model.history_) == {"step", "loss", "fit", "gap", "gap_weight"}


def test_the_gap_weight_lowers_the_gap() -> None:
    x, y = cloud(128), cloud(128, seed=1) + 1
    options = {"network": MLP(32, 2), "steps": 60, "batch_size": 48, "learning_rate": 2e-2, "random_state": 0}
    free, bound = (NeuralMap(gap_weight=w, **options).fit(x, y) for w in (0.0, 2.0))
    assert bound.history_["gap"][-1] < free.history_["gap"][-1]
    assert set(free.history_["gap_weight"]) == {0.0}


def test_same_seed_same_bits_and_the_global_state_is_left_alone() -> None:
    x, y = cloud(40), cloud(40, seed=1)
    state = torch.random.get_rng_state()
    first, second = (NeuralMap(**SMALL).fit(x, y).transform(x) for _ in range(2))
    assert torch.equal(first, second)
    other = NeuralMap(**{**SMALL, "random_state": 1}).fit(x, y).transform(x)
    assert not torch.equal(first, other)
    given = NeuralMap(**SMALL).fit(x, y, generator=torch.Generator().manual_seed(0)).transform(x)
    assert torch.equal(first, given)
    assert torch.equal(state, torch.random.get_rng_state())


def test_arrays_in_arrays_out() -> None:
    x, y = cloud(40).double().numpy(), cloud(40, seed=1).double().numpy()
    model = NeuralMap(**SMALL)
    image = model.fit_transform(x, y)
    assert isinstance(image, np.ndarray)
    assert (image.dtype, image.shape) == (np.float64, (40, 2))
    assert isinstance(model.module_, nn.Module)
    assert next(model.module_.parameters()).dtype == torch.float64


def test_scikit_learn_can_clone_it() -> None:
    from sklearn.base import clone

    model = NeuralMap(gap_weight=2.0, steps=7)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.set_params(steps=9).steps == 9
    with pytest.raises(ValueError, match="no option 'depth'"):
        model.set_params(depth=3)
    with pytest.raises(AttributeError, match="not fitted"):
        model.transform(cloud(3))


def test_residual_starts_at_the_identity_and_warm_up_ramps() -> None:
    x = cloud(40)
    model = NeuralMap(**{**SMALL, "steps": 1, "learning_rate": 1e-9}, residual=True).fit(x, cloud(40, seed=1))
    torch.testing.assert_close(model.transform(x), x, atol=1e-6, rtol=0)
    ramp = NeuralMap(**{**SMALL, "steps": 12}, warm_up=20, gap_weight=3.0).fit(x, x)
    assert ramp.history_["gap_weight"] == pytest.approx([3 * 1 / 20, 3 * 11 / 20, 3 * 12 / 20])


def test_a_module_of_ones_own_is_copied() -> None:
    net = MLP(16, 2).build(2, 2, generator=torch.Generator().manual_seed(3))
    before = [p.detach().clone() for p in net.parameters()]
    model = NeuralMap(**{**SMALL, "network": net}).fit(cloud(40), cloud(40, seed=1))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(model.module_.parameters(), before, strict=True))
    factory = NeuralMap(**{**SMALL, "network": lambda i, o: nn.Linear(i, o)}).fit(cloud(40), cloud(40, seed=1))
    assert factory.transform(cloud(5)).shape == (5, 2)


def test_on_the_sphere_images_have_norm_one() -> None:
    x, y = (nn.functional.normalize(cloud(50, 3, k) + torch.tensor(c), dim=1) for k, c in ((0, [0.0, 0, 3]), (1, [3.0, 0, 0])))
    for residual in (False, True):
        model = NeuralMap(Sphere(), residual=residual, **SMALL).fit(x, y)
        torch.testing.assert_close(model.transform(x).norm(dim=1), torch.ones(50), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="X must have rows of norm 1"):
        NeuralMap(Sphere(), **SMALL).fit(2 * x, y)


def test_reference_measure() -> None:
    model = NeuralMap(**SMALL).fit(cloud(40), cloud(40, seed=1), reference=3 * cloud(60, seed=2))
    assert all(math.isfinite(g) for g in model.history_["gap"])
    with pytest.raises(ValueError, match="reference must be points with 2 features"):
        model.fit(cloud(40), cloud(40), reference=cloud(5, 3))


class Breaks(nn.Module):
    """A map that returns NaN from its third call on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(2, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (math.nan if self.calls > 2 else 1.0)


def test_bad_input() -> None:
    x = cloud(40)
    with pytest.raises(NumericalError, match=r"training step 2: the map returned 64 non-finite"):
        NeuralMap(**{**SMALL, "network": Breaks()}).fit(x, x)
    with pytest.raises(ValueError, match="returns"):
        NeuralMap(**{**SMALL, "network": nn.Linear(2, 3)}).fit(x, x)
    with pytest.raises(ValueError, match="features"):
        NeuralMap(**SMALL).fit(x, cloud(40, 3))
    with pytest.raises(ValueError, match="gap_weight"):
        NeuralMap(gap_weight=-1)
    with pytest.raises(TypeError, match="fitting"):
        NeuralMap(fitting="mmd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps"):
        NeuralMap(steps=0)
    with pytest.raises(ValueError, match="epsilon"):
        NeuralMap(epsilon=-1)
    with pytest.raises(ValueError, match="width"):
        MLP(0)


@pytest.mark.slow
def test_planted_wrong_map() -> None:
    """The card's first check: from a rotation by 90 degrees, which already fits, only the gap finds the identity."""
    generator = torch.Generator().manual_seed(0)
    x, y, test = (torch.randn(n, 2, generator=generator) for n in (1000, 1000, 2000))
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    net = MLP(64, 3).build(2, 2, generator=generator)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        z = torch.randn(256, 2, generator=generator)
        optimiser.zero_grad()
        (net(z) - z @ turn.T).square().mean().backward()
        optimiser.step()
    unexplained = {}
    for weight in (0.0, 1.0):
        model = NeuralMap(network=net, gap_weight=weight, steps=200, batch_size=128, learning_rate=5e-3, random_state=0).fit(x, y)
        unexplained[weight] = 100 * float((model.transform(test) - test).square().sum(1).mean() / 2)
    assert unexplained[0.0] > 100
    assert unexplained[1.0] < 10
