"""Groups: axioms on points, isometries, orbits, alignment against brute force, and what a wrong group is told."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from discrepancy.groups import (
    Cyclic,
    CyclicShift,
    Dihedral,
    Drawn,
    FromMatrices,
    HFlip,
    OrbitMaximum,
    OrbitMean,
    Permutation,
    Product,
    Rot90,
    Rotation,
    SignFlip,
    SymmetrizedCritic,
)

QUARTERS = [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]]
GROUPS = {
    "C5": (Cyclic(5), 2, 5),
    "C4": (Cyclic(4), 2, 4),
    "D3": (Dihedral(3), 2, 6),
    "D4": (Dihedral(4), 2, 8),
    "shift": (CyclicShift(4), 4, 4),
    "sign": (SignFlip(), 3, 2),
    "sign of one": (SignFlip((1,)), 3, 2),
    "permutation": (Permutation(4), 4, 24),
    "permutation of pairs": (Permutation(3, 2), 6, 6),
    "rot90": (Rot90(3), 9, 4),
    "rot90 in colour": (Rot90(2, channels=3), 12, 4),
    "hflip": (HFlip(2, 3), 6, 2),
    "matrices": (FromMatrices(QUARTERS), 2, 4),
    "square pictures": (Product(Rot90(3), HFlip(3, 3)), 9, 8),
}


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", GROUPS)
def test_it_is_a_group_of_isometries_that_acts_on_points(name):
    group, d, order = GROUPS[name]
    x = points(3, d)
    orbit = group.orbit(x)
    assert group.order == order
    assert orbit.shape == (order, 3, d)
    assert torch.equal(orbit[0], x)
    assert torch.allclose(orbit.norm(dim=-1), x.norm(dim=-1).expand(order, 3), rtol=1e-13)
    one = orbit[:, 0]
    for k in range(order):
        assert torch.allclose(group.inverse(k, group.act(k, x)), x, rtol=0, atol=1e-14)
        moved = group.act(k, one)
        assert float(torch.cdist(moved, one).amin(1).max()) < 1e-12  # closed on a generic orbit
        # The inverse is the transpose of the map.
        y = points(3, d, 1)
        assert torch.allclose((group.act(k, x) * y).sum(-1), (x * group.inverse(k, y)).sum(-1), rtol=1e-12)
    assert torch.cdist(one, one).add(torch.eye(order) * 9).min() > 1e-6  # all elements differ
    assert pickle.loads(pickle.dumps(group)) == group


@pytest.mark.parametrize("name", GROUPS)
def test_alignment_is_the_nearest_image(name):
    group, d, _ = GROUPS[name]
    x, y = points(5, d), points(5, d, 1)
    aligned = group.align(x, y)
    best = (group.orbit(y) - x).norm(dim=-1).amin(0)
    assert torch.allclose((aligned - x).norm(dim=-1), best, rtol=1e-12)
    assert torch.equal(group.align(x, x), x)


@pytest.mark.parametrize("name", GROUPS)
def test_random_elements_are_uniform(name):
    group, d, order = GROUPS[name]
    x = points(1, d).expand(240 * order, d)
    moved = group.random(x, generator=torch.Generator().manual_seed(3))
    which = torch.cdist(moved, group.orbit(x[0])).argmin(1)
    counts = torch.bincount(which, minlength=order).double()
    chi = float(((counts - 240) ** 2 / 240).sum())
    assert chi < order - 1 + 5 * math.sqrt(2 * order)
    again = group.random(x, generator=torch.Generator().manual_seed(3))
    assert torch.equal(moved, again)


def test_quarter_turns_are_exact():
    x = points(4, 2)
    assert torch.equal(Cyclic(4).act(1, x), torch.stack([-x[:, 1], x[:, 0]], -1))
    assert torch.equal(Cyclic(8).act(4, x), -x)
    picture = torch.arange(9.0)
    assert torch.equal(Rot90(3).act(1, picture).reshape(3, 3), torch.rot90(picture.reshape(3, 3)))
    assert torch.equal(HFlip(3, 3).act(1, picture).reshape(3, 3), picture.reshape(3, 3).flip(1))


def test_permutations_enumerate_all_orders_and_large_ones_align_by_assignment():
    group = Permutation(3, 2)
    orders = {tuple(group.arrangement(k)) for k in range(6)}
    assert orders == set(itertools.permutations(range(3)))
    large = Permutation(12, 2)
    x = points(4, 24)
    shuffled = large.random(x, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled, x)
    assert torch.equal(large.align(x, shuffled), x)
    far = 1e6  # the assignment of sets far from the origin is that of the sets at it
    assert torch.equal(large.align(x + far, shuffled + far), x + far)


def test_rotations_align_in_closed_form():
    turn = Rotation(3, points=4)
    x = points(6, 12)
    y = turn.random(x, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(y.reshape(6, 4, 3).norm(dim=-1), x.reshape(6, 4, 3).norm(dim=-1))
    assert torch.allclose(turn.align(x, y), x, atol=1e-12)
    mirrored = x * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64).repeat(4)
    assert torch.allclose(Rotation(3, 4, reflections=True).align(x, mirrored), x, atol=1e-12)
    assert float((turn.align(x, mirrored) - x).norm(dim=-1).min()) > 0.1
    # In the plane the best angle of one point is the difference of directions; brute force over angles agrees for two points.
    u, v = points(5, 4), points(5, 4, 1)
    fine = Cyclic(20_000)
    least = torch.stack([(u - fine.act(k, v.reshape(5, 2, 2)).reshape(5, 4)).norm(dim=-1) for k in range(0, 20_000, 4)]).amin(0)
    assert torch.allclose((u - Rotation(2, 2).align(u, v)).norm(dim=-1), least, rtol=1e-5)
    single, other = points(3, 2), points(3, 2, 1)
    gap = (single - Rotation(2).align(single, other)).norm(dim=-1)
    assert torch.allclose(gap, (single.norm(dim=-1) - other.norm(dim=-1)).abs(), atol=1e-12)


def test_haar_rotations_have_mean_zero_and_determinant_one():
    frames = Rotation(3, points=3).random(
        torch.eye(3, dtype=torch.float64).reshape(1, 9).expand(4000, 9), generator=torch.Generator().manual_seed(0)
    )
    frames = frames.reshape(-1, 3, 3)
    assert torch.allclose(torch.linalg.det(frames), torch.ones(4000, dtype=torch.float64), atol=1e-10)
    assert float(frames.mean(0).abs().max()) < 4 / math.sqrt(3 * 4000)
    assert torch.allclose(frames.square().mean(0), torch.full((3, 3), 1 / 3, dtype=torch.float64), atol=0.03)


def test_drawn_elements_hold_the_identity_and_move_all_coordinates_together():
    drawn = Drawn.of(Rotation(3, points=2), 5, generator=torch.Generator().manual_seed(0))
    assert drawn.order == 5
    assert not drawn.closed
    assert drawn.dimension == 6
    x = points(3, 6)
    assert torch.equal(drawn.act(0, x), x)
    turned = drawn.act(3, x).reshape(3, 2, 3)
    # Inner products between the two points of a row stay: both turned by the same rotation.
    given = x.reshape(3, 2, 3)
    assert torch.allclose((turned[:, 0] * turned[:, 1]).sum(-1), (given[:, 0] * given[:, 1]).sum(-1))
    flips = Drawn.of(SignFlip(), 3, dimension=2, generator=torch.Generator().manual_seed(0))
    assert flips.order == 3
    with pytest.raises(ValueError, match="say which"):
        Drawn.of(SignFlip(), 3)


def test_the_critic_is_invariant_and_its_reductions_are_the_mean_and_the_maximum():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = points(5, 2)
    group = Dihedral(3)
    for reduction, over in ((OrbitMean(), lambda v: v.mean(0)), (OrbitMaximum(), lambda v: v.amax(0))):
        critic = SymmetrizedCritic(net, group, reduction)
        value = critic(x)
        assert value.shape == (5, 1)
        assert torch.allclose(value, over(net(group.orbit(x))))
        for image in group.images(x):
            assert torch.allclose(critic(image), value, atol=1e-12)
    assert sum(p.numel() for p in SymmetrizedCritic(net, group).parameters()) == sum(p.numel() for p in net.parameters())
    SymmetrizedCritic(net, group)(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    x = points(3, 2).to(dtype)
    for group in (Cyclic(3), Dihedral(2), FromMatrices(QUARTERS), Rotation(2), Permutation(2)):
        assert group.random(x, generator=torch.Generator().manual_seed(0)).dtype == dtype
        assert group.align(x, x.flip(0)).dtype == dtype


def test_wrong_groups_are_refused():
    with pytest.raises(ValueError, match="no isometry"):
        FromMatrices([[[1, 0], [0, 1]], [[2, 0], [0, 1]]])
    with pytest.raises(ValueError, match="no isometry"):  # determinant one, and no isometry: a shear
        FromMatrices([[[1, 0], [0, 1]], [[1, 1], [0, 1]]])
    with pytest.raises(ValueError, match="product of those at 1 and 1"):
        FromMatrices(QUARTERS[:2])
    with pytest.raises(ValueError, match="identity is missing"):
        FromMatrices(QUARTERS[1:])
    with pytest.raises(ValueError, match="matrices 0 and 4 are equal"):
        FromMatrices([*QUARTERS, QUARTERS[0]])
    with pytest.raises(ValueError, match="square"):
        FromMatrices([[1.0, 0.0]])
    with pytest.raises(ValueError, match="at least one matrix"):
        FromMatrices([])
    with pytest.raises(ValueError, match="features"):
        Product(Cyclic(4), CyclicShift(3))
    with pytest.raises(ValueError, match="whole number"):
        Cyclic(0)
    with pytest.raises(ValueError, match="whole number"):
        Permutation(2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each once"):
        SignFlip((1, 1))
    with pytest.raises(ValueError, match="3 features"):
        Cyclic(4).check(3)
    with pytest.raises(ValueError, match="counted from 0"):
        SignFlip((3,)).check(3)
    with pytest.raises(TypeError, match="infinitely many"):
        SymmetrizedCritic(nn.Linear(2, 1), Rotation(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an nn"):
        SymmetrizedCritic(lambda x: x, Cyclic(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="OrbitMean"):
        SymmetrizedCritic(nn.Linear(2, 1), Cyclic(2), "mean")  # type: ignore[arg-type]


def test_reversed_products_that_do_not_close_are_named():
    reflection = FromMatrices([[[1, 0], [0, 1]], [[0.6, 0.8], [0.8, -0.6]]])
    assert Product(FromMatrices(QUARTERS), reflection).order == 8  # a reflection normalises the rotations
    with pytest.raises(ValueError, match="no group"):
        Product(SignFlip((0,)), reflection)  # two reflections at a generic angle generate infinitely many
