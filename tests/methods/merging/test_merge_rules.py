import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.methods.merging import (
    DARE,
    GCWM,
    TIES,
    WUDI,
    Averaging,
    EarlyStopped,
    LeastSquares,
    Merge,
    Slerp,
    TaskArithmetic,
    TaskVectors,
)

HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)


def vectors(*updates):
    """Task vectors of a base of zeros and one tensor."""
    return TaskVectors({"w": torch.zeros_like(updates[0])}, [{"w": u} for u in updates])


def test_averages_and_sums():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0])
    base = {"w": torch.tensor([10.0, 10.0])}
    made = TaskVectors(base, [{"w": base["w"] + a}, {"w": base["w"] + b}])
    torch.testing.assert_close(Averaging().merge(made).state_dict()["w"], base["w"] + (a + b) / 2)
    torch.testing.assert_close(Averaging().merge(made, [0.25, 0.75]).state_dict()["w"], base["w"] + 0.25 * a + 0.75 * b)
    torch.testing.assert_close(TaskArithmetic(0.3).merge(made).state_dict()["w"], base["w"] + 0.3 * (a + b))
    found = Averaging().merge(made)
    assert found.norm == pytest.approx(math.sqrt(5))
    assert found.to_dict() == {"method": "Averaging()", "tasks": 2, "norm": found.norm}


def test_ties_by_hand():
    # Of ten entries the four largest stay. Entry 0: signs agree. 1: the larger one wins. 2: one expert only. 3: nobody.
    first = torch.tensor([4.0, 5.0, 0.1, 0.2, 3.0, 0.0, 0.0, 0.0, 0.0, 6.0])
    second = torch.tensor([2.0, -7.0, 3.0, -0.1, 0.1, 0.0, 0.0, 0.0, 0.0, -6.0])
    merged = TIES(density=0.4).merge(vectors(first, second)).update["w"]
    torch.testing.assert_close(merged, torch.tensor([3.0, -7.0, 3.0, 0, 3.0, 0, 0, 0, 0, 0]))
    weighted = TIES(density=0.4).merge(vectors(first, second), [0.75, 0.25]).update["w"]
    torch.testing.assert_close(weighted, torch.tensor([3.5, 5.0, 3.0, 0, 3.0, 0, 0, 0, 0, 6.0]))
    torch.testing.assert_close(TIES(density=0.4, scale=2.0).merge(vectors(first, second)).update["w"], 2 * merged)


def test_ties_trims_the_whole_task_vector():
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    expert = {"a": torch.tensor([5.0, 4.0]), "b": torch.tensor([1.0, 2.0])}
    merged = TIES(density=0.5).merge(TaskVectors(base, [expert])).update
    torch.testing.assert_close(merged["a"], expert["a"])
    torch.testing.assert_close(merged["b"], torch.zeros(2))
    torch.testing.assert_close(TIES(density=0.5).combine(expert["b"][None], torch.ones(1)), torch.tensor([0.0, 2.0]))


def test_full_density_without_conflict_is_the_average():
    a, b = torch.rand(50) + 0.1, torch.rand(50) + 0.1
    torch.testing.assert_close(TIES(density=1.0).merge(vectors(a, b)).update["w"], (a + b) / 2)


def test_dare_keeps_the_expectation_and_its_share():
    u = torch.ones(200_000)
    found = DARE(drop=0.8).merge(vectors(u), generator=torch.Generator().manual_seed(0)).update["w"]
    assert set(found.unique().tolist()) == {0.0, 5.0}
    # Standard error of the mean: sqrt(5^2 0.2 - 1) / sqrt(n) = 2 / 447.
    assert abs(float(found.mean()) - 1) < 4 * 2 / math.sqrt(200_000)
    again = DARE(drop=0.8).merge(vectors(u), generator=torch.Generator().manual_seed(0)).update["w"]
    assert torch.equal(found, again)
    other = DARE(drop=0.8).merge(vectors(u), generator=torch.Generator().manual_seed(1)).update["w"]
    assert not torch.equal(found, other)


def test_dare_drops_experts_independently_and_hands_on():
    u = torch.ones(10_000)
    found = DARE(drop=0.5, then=TaskArithmetic(1.0)).merge(vectors(u, u), generator=torch.Generator().manual_seed(0)).update["w"]
    shares = [float((found == v).float().mean()) for v in (0.0, 2.0, 4.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert torch.equal(DARE(drop=0.0).merge(vectors(u, 3 * u)).update["w"], 2 * u)


@settings(deadline=None, max_examples=25)
@given(t=st.floats(0.05, 0.95), angle=st.floats(0.1, 3.0), seed=st.integers(0, 99))
def test_slerp_of_two_is_spherical_interpolation(t, angle, seed):
    frame = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    a = frame[:, 0]
    b = math.cos(angle) * frame[:, 0] + math.sin(angle) * frame[:, 1]
    expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    merged = Slerp().merge(vectors(2 * a, 2 * b), [1 - t, t]).update["w"]
    torch.testing.assert_close(merged, 2 * expected, rtol=1e-6, atol=1e-6)


def test_slerp_spans_parameters_and_keeps_length():
    base = {"a": torch.zeros(2), "b": torch.zeros(1)}
    experts = [{"a": torch.tensor([1.0, 0.0]), "b": torch.zeros(1)}, {"a": torch.zeros(2), "b": torch.tensor([3.0])}]
    update = Slerp().merge(TaskVectors(base, experts)).update
    torch.testing.assert_close(update["a"], torch.tensor([math.sqrt(2), 0.0]))
    torch.testing.assert_close(update["b"], torch.tensor([math.sqrt(2)]))
    axes = torch.eye(3)
    merged = Slerp().merge(vectors(*axes)).update["w"]
    torch.testing.assert_close(merged, torch.full((3,), 1 / math.sqrt(3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        Slerp().merge(vectors(torch.zeros(2), torch.tensor([0.0, 2.0]))).update["w"], torch.tensor([0.0, 1.0])
    )
    assert torch.equal(Slerp().merge(vectors(torch.zeros(2))).update["w"], torch.zeros(2))


def test_a_rule_of_one_s_own_merges_and_is_a_base_of_others():
    @dataclass(frozen=True)
    class Median(Merge):
        def combine(self, updates, weights, *, generator=None):
            return updates.median(0).values

    a, b, c = torch.tensor([1.0, 9.0]), torch.tensor([2.0, -9.0]), torch.tensor([3.0, 1.0])
    assert Median().merge(vectors(a, b, c)).update["w"].tolist() == [2.0, 1.0]
    assert DARE(0.0, then=Median()).merge(vectors(a, b, c)).update["w"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "rule", [Averaging(), TIES(1.0), DARE(0.0), Slerp(), WUDI(), GCWM(rank=1)], ids=lambda r: type(r).__name__
)
def test_scalars_and_empty_parameters_pass_through(rule):
    base = {"scale": torch.tensor(1.0), "none": torch.zeros(0, 3), "w": torch.eye(3)}
    expert = {"scale": torch.tensor(3.0), "none": torch.zeros(0, 3), "w": 2 * torch.eye(3)}
    made = TaskVectors(base, [expert, expert])
    state = rule.merge(made).state_dict()
    assert float(state["scale"]) == pytest.approx(3.0)
    assert state["none"].shape == (0, 3)
    assert torch.isfinite(state["w"]).all()
    assert made.norms().tolist() == pytest.approx([math.sqrt(7)] * 2)


def _loss(D, updates, weights):
    return sum(w / u.square().sum() * ((D - u) @ u.mT).square().sum() for w, u in zip(weights, updates, strict=True))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])
def test_least_squares_is_where_autograd_finds_no_slope(shares):
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    weights = torch.tensor(shares, dtype=torch.float64)
    D = WUDI(LeastSquares()).combine(updates, weights).requires_grad_()
    (slope,) = torch.autograd.grad(_loss(D, updates, weights), D)
    assert float(slope.abs().max()) < 1e-10
    torch.testing.assert_close(D.detach(), WUDI(LeastSquares()).combine(updates * 3, weights) / 3)


def test_adam_is_torch_s_adam_and_descends_from_the_sum():
    generator = torch.Generator().manual_seed(1)
    updates = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    start = updates.sum(0)
    D = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([D], lr=0.01 * float(start.square().mean().sqrt()), eps=1e-300)
    for _ in range(40):
        optimiser.zero_grad()
        _loss(D, updates, HALF).backward()
        optimiser.step()
    found = WUDI(EarlyStopped(steps=40, rounding=0.0)).combine(updates, HALF)
    torch.testing.assert_close(found, D.detach(), rtol=1e-6, atol=1e-8)
    assert float(_loss(found, updates, HALF)) < 0.7 * float(_loss(start, updates, HALF))
    assert torch.equal(WUDI(EarlyStopped(steps=0)).combine(updates, HALF), start)


@pytest.mark.parametrize("solver", [EarlyStopped(), LeastSquares()], ids=["adam", "exact"])
def test_updates_on_orthogonal_inputs_are_all_kept(solver):
    left, right = torch.zeros(4, 6), torch.zeros(4, 6)
    generator = torch.Generator().manual_seed(0)
    left[:, :3] = torch.randn(4, 3, generator=generator)
    right[:, 3:] = torch.randn(4, 3, generator=generator)
    torch.testing.assert_close(WUDI(solver).combine(torch.stack([left, right]), HALF.float()), left + right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(WUDI(solver).combine(left[None], torch.ones(1)), left, rtol=1e-4, atol=1e-5)


def test_wudi_averages_what_is_no_matrix_and_flattens_kernels():
    assert torch.equal(WUDI().combine(torch.tensor([[1.0], [3.0]]), HALF.float()), torch.tensor([2.0]))
    kernels = torch.randn(2, 3, 2, 2, 2)
    flat = WUDI().combine(kernels.flatten(2), HALF.float())
    assert torch.equal(WUDI().combine(kernels, HALF.float()).flatten(1), flat)
    assert torch.equal(WUDI().combine(torch.zeros(2, 3, 3), HALF.float()), torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskArithmetic(math.nan), "scale must be finite"),
        (lambda: TIES(density=0.0), "density"),
        (lambda: TIES(density=1.5), "density"),
        (lambda: TIES(scale=0.0), "scale must be positive"),
        (lambda: DARE(drop=1.0), "drop"),
        (lambda: EarlyStopped(steps=-1), "steps"),
        (lambda: EarlyStopped(step_size=0.0), "step_size"),
        (lambda: EarlyStopped(rounding=-1.0), "rounding"),
        (lambda: LeastSquares(cutoff=1.0), "cutoff"),
        (lambda: Averaging().merge(vectors(torch.ones(2), torch.ones(2)), [0.5, 0.6]), "must sum to 1"),
        (lambda: Averaging().merge(vectors(torch.ones(2)), [0.5, 0.5]), "one weight for each"),
    ],
)
def test_bad_options(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_wrong_kinds():
    with pytest.raises(TypeError, match="then must be a Merge"):
        DARE(then="ties")
    with pytest.raises(TypeError, match="solver must be"):
        WUDI(solver=3)
