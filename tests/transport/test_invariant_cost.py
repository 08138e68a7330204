"""Transport between orbits: equal to transport between augmented samples, for finite, large and infinite groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from discrepancy import OptimalTransport, Sinkhorn, SinkhornDivergence, Wasserstein
from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.groups import Cyclic, CyclicShift, Dihedral, Drawn, FromMatrices, Permutation, Rotation, SignFlip
from discrepancy.transport import InvariantCost


def points(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("group", "d"), [(Cyclic(4), 2), (Dihedral(3), 2), (CyclicShift(3), 3), (SignFlip(), 1), (Permutation(2, 2), 4)], ids=repr
)
@pytest.mark.parametrize("cost", [Euclidean(), SquaredEuclidean(), PowerCost(1.5)], ids=repr)
def test_quotient_cost_equals_transport_between_augmented_samples(group, d, cost):
    x, y = points(30, d), points(30, d, 1) + 0.3
    orbits = OptimalTransport(InvariantCost(group, cost))(x, y)
    full = OptimalTransport(cost)(group.augmented(x), group.augmented(y))
    assert float(orbits) == pytest.approx(float(full), rel=1e-10)
    # An assignment of orbits by SciPy, with the minimum taken by hand.
    by_hand = torch.stack([cost.matrix(x, image) for image in group.images(y)]).amin(0).numpy()
    rows, columns = linear_sum_assignment(by_hand)
    assert float(orbits) == pytest.approx(by_hand[rows, columns].mean(), rel=1e-10)


def test_moving_points_within_their_orbits_changes_nothing():
    group = Dihedral(5)
    x, y = points(20, 2), points(15, 2, 1)
    D = OptimalTransport(InvariantCost(group))
    moved = group.random(y, generator=torch.Generator().manual_seed(2))
    assert float(D(x, moved)) == pytest.approx(float(D(x, y)), rel=1e-12)
    assert float(D(x, group.random(x, generator=torch.Generator().manual_seed(3)))) < 1e-14
    assert float(Wasserstein(1)(x, moved)) != pytest.approx(float(Wasserstein(1)(x, y)), rel=1e-3)


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean()], ids=repr)
def test_sets_are_matched_by_assignment(cost):
    sets = Permutation(5, 2)  # 120 orders: aligned, not enumerated
    x, y = points(6, 10), points(4, 10, 1)
    least = torch.stack([cost.matrix(x, image) for image in sets.images(y)]).amin(0)
    assert torch.allclose(InvariantCost(sets, cost).matrix(x, y), least, rtol=1e-12)
    assert torch.allclose(InvariantCost(sets, cost).pairs(x[:4], y), least[:4].diagonal(), rtol=1e-12)
    manhattan = InvariantCost(sets, Manhattan())
    least = torch.stack([Manhattan().matrix(x, image) for image in sets.images(y)]).amin(0)
    assert torch.allclose(manhattan.matrix(x, y), least, rtol=1e-12)


def test_rotations_of_labelled_points_move_for_nothing():
    turn = Rotation(3, points=5)
    shapes = points(8, 15)
    turned = turn.random(shapes, generator=torch.Generator().manual_seed(0))
    D = OptimalTransport(InvariantCost(turn))
    assert float(D(shapes, turned)) < 1e-10
    assert float(D(shapes, shapes)) == 0.0
    assert float(Wasserstein(1)(shapes, turned)) > 1.0
    # Many rotations of the plane tend to all of them, from above.
    x, y = points(9, 4), points(9, 4, 1)
    exact = InvariantCost(Rotation(2, 2)).matrix(x, y)
    from discrepancy.groups import FiniteGroup

    class Pairs(FiniteGroup):
        order, dimension = 720, 4

        def act(self, k, x):
            return Cyclic(720).act(k, x.unflatten(-1, (2, 2))).flatten(-2)

        def inverse(self, k, x):
            return Cyclic(720).inverse(k, x.unflatten(-1, (2, 2))).flatten(-2)

    many = InvariantCost(Pairs()).matrix(x, y)
    assert bool((many >= exact - 1e-12).all())
    assert torch.allclose(many, exact, rtol=1e-3)


@pytest.mark.parametrize("cost", [Cosine(), Sphere()], ids=repr)
def test_costs_of_directions(cost):
    x, y = (t / t.norm(dim=-1, keepdim=True) for t in (points(6, 2), points(5, 2, 1)))
    group = Cyclic(3)
    by_hand = torch.stack([cost.matrix(x, image) for image in group.images(y)]).amin(0)
    assert torch.allclose(InvariantCost(group, cost).matrix(x, y), by_hand, rtol=1e-12)
    assert float(OptimalTransport(InvariantCost(Rotation(2), cost))(x, y)) < 1e-7


@pytest.mark.parametrize("group", [Cyclic(4), Permutation(5), Rotation(2, 2)], ids=repr)
def test_gradients_against_finite_differences_and_contract_against_autograd(group):
    d = group.dimension
    cost = InvariantCost(group, SquaredEuclidean())
    x, y = points(5, d).requires_grad_(), points(4, d, 1).requires_grad_()
    assert torch.autograd.gradcheck(cost.matrix, (x, y))
    assert torch.autograd.gradcheck(cost.pairs, (x[:4].detach().requires_grad_(), y))
    assert torch.autograd.gradcheck(lambda u, v: OptimalTransport(cost)(u, v), (x, y))
    plan = torch.rand(5, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gx, gy = torch.autograd.grad((plan * cost.matrix(x, y)).sum(), (x, y))
    found = cost.contract(x, y, plan)
    assert torch.allclose(found[0], gx, rtol=1e-10)
    assert torch.allclose(found[1], gy, rtol=1e-10)


def test_ties_choose_one_element_and_coincident_points_have_no_slope():
    cost = InvariantCost(Cyclic(4), SquaredEuclidean())
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 1.0]], dtype=torch.float64)  # as near as its image at (1, -1)
    cost.pairs(x, y).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().tolist() == [[0.0, 2.0]]
    z = points(3, 2).requires_grad_()
    InvariantCost(Cyclic(4)).pairs(z, z.detach()).sum().backward()
    assert z.grad is not None
    assert float(z.grad.abs().max()) == 0.0


def test_it_is_a_pseudometric_and_symmetric_bit_for_bit():
    x, y, z = points(12, 3), points(12, 3, 1), points(12, 3, 2)
    for group in (CyclicShift(3), Rotation(3), Permutation(3)):
        D = OptimalTransport(InvariantCost(group))
        assert float(D(x, y)) == float(D(y, x))
        assert float(D(x, z)) <= float(D(x, y)) + float(D(y, z)) + 1e-12
        assert D.claims.metric
        assert not D.claims.translation_invariant
        assert D.claims.degree == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entropic_transport_takes_it_too(dtype):
    group = Cyclic(4)
    x, y = points(25, 2, dtype=dtype), points(20, 2, 1, dtype=dtype)
    cost = InvariantCost(group, SquaredEuclidean())
    exact = float(OptimalTransport(cost)(x, y))
    for epsilon, gap in ((0.1, 0.5), (0.001, 0.02)):
        found = float(Sinkhorn(epsilon, cost=cost).solve(x, y).cost)
        assert exact * (1 - 1e-4) <= found <= exact * (1 + gap)
    assert SinkhornDivergence(cost=cost)(x, y).dtype == dtype
    assert abs(float(SinkhornDivergence(cost=cost)(x, x))) < 1e-6


def test_expanded_and_transposed_tensors():
    cost = InvariantCost(Cyclic(4))
    x, y = points(2, 6).T, points(1, 2, 1).expand(6, 2)
    assert torch.allclose(cost.matrix(x, y), cost.matrix(x.contiguous(), y.contiguous()))
    assert cost.matrix(x.expand(3, 6, 2), y).shape == (3, 6, 6)


def test_blocks_change_nothing():
    from discrepancy.transport import invariant_cost

    x, y = points(9, 10), points(7, 10, 1)
    cost = InvariantCost(Permutation(5, 2))
    whole = cost.matrix(x, y)
    before = invariant_cost._BLOCK_BYTES
    try:
        invariant_cost._BLOCK_BYTES = 2 * 7 * 8 * 8 * 11
        assert torch.allclose(cost.matrix(x, y), whole)
        plan = torch.rand(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        parts = cost.contract(x, y, plan)
    finally:
        invariant_cost._BLOCK_BYTES = before
    for part, at_once in zip(parts, cost.contract(x, y, plan), strict=True):
        assert torch.allclose(part, at_once)


def test_a_cost_that_the_group_changes_is_refused():
    x = points(5, 2)
    with pytest.raises(ValueError, match="not invariant"):
        OptimalTransport(InvariantCost(Cyclic(3), Manhattan()))(x, x + 1)
    assert np.isfinite(float(OptimalTransport(InvariantCost(Cyclic(4), Manhattan()))(x, x + 1)))  # quarter turns keep |.|_1
    weighted = FunctionCost(lambda u, v: ((u - v).square() * torch.tensor([1.0, 2.0], dtype=u.dtype)).sum(-1))
    with pytest.raises(ValueError, match="not invariant"):
        OptimalTransport(InvariantCost(Cyclic(4), weighted))(x, x + 1)
    assert np.isfinite(float(OptimalTransport(InvariantCost(SignFlip(), weighted))(x, x + 1)))


def test_bad_arguments():
    with pytest.raises(ValueError, match="3 features"):
        OptimalTransport(InvariantCost(Cyclic(4)))(points(3, 3), points(3, 3))
    with pytest.raises(TypeError, match="group of symmetries"):
        InvariantCost("C4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cost must be"):
        InvariantCost(Cyclic(4), "euclidean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="known for the costs"):
        InvariantCost(Rotation(2), Manhattan())
    with pytest.raises(TypeError, match="known for the costs"):
        InvariantCost(Permutation(8), Manhattan())
    with pytest.raises(TypeError, match="whole group"):
        InvariantCost(Drawn.of(Rotation(2), 3, generator=torch.Generator().manual_seed(0)))
    assert len(list(itertools.islice(FromMatrices([[[1.0]], [[-1.0]]]).images(points(2, 1)), 9))) == 2
