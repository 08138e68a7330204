"""Sinkhorn distillation: the card's numbers, the released arithmetic, permutations, gradients, grounds and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from discrepancy import KL, CustomDivergence, JensenShannon, OptimalTransport, ReverseKL, Sinkhorn, SquaredHellinger
from discrepancy.costs import Euclidean, Manhattan
from discrepancy.methods.distillation import output_costs
from discrepancy.methods.distillation.baselines import distillation_loss
from discrepancy.methods.distillation.output_costs import ClassTransport, DivergenceCost, RootDivergence, as_output_cost
from discrepancy.methods.distillation.sinkhorn_kd import SinkhornKD, answer_rows, batch_transport_loss, sinkhorn_kd_loss
from discrepancy.transport import InexactProximal, LogSinkhorn, UnrolledSinkhorn

EXACT = Sinkhorn(0.1, solver=LogSinkhorn(tolerance=1e-12))


def logits(b: int, c: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, b, c, generator=generator, dtype=torch.float64)
    return s.to(dtype), (2 * t).to(dtype)


@pytest.mark.parametrize(
    ("e", "js", "l1", "kl"), [(0.1, 0.099, 0.18, 0.8), (0.01, 0.023, 0.020, 0.98), (1e-4, 0.0005, 0.0002, 1.0)]
)
def test_bounded_costs_lose_their_gradient_and_kl_does_not(e: float, js: float, l1: float, kl: float) -> None:
    """Part A of the card, to its digits: student (1 - e, e), teacher (e, 1 - e)."""
    teacher = torch.tensor([[math.log(e), math.log1p(-e)]], dtype=torch.float64)
    student = teacher.flip(1).requires_grad_()

    def slope(value: torch.Tensor) -> float:
        return float(torch.autograd.grad(value, student)[0].abs().max())

    values = {D: D.from_logits(teacher, student).sum() for D in (JensenShannon(), KL())}
    assert slope(values[JensenShannon()]) == pytest.approx(js, abs=0.5 * 10 ** -(4 if js < 1e-2 else 3))
    assert slope(values[KL()]) == pytest.approx(kl, abs=5e-3)
    for transport in (Sinkhorn(0.1), UnrolledSinkhorn()):
        with pytest.warns(UserWarning, match="batch of one"):
            moved = batch_transport_loss(student, teacher, transport=transport, temperature=1.0)
        assert float(moved.detach()) == pytest.approx(2 * (1 - 2 * e))  # the L1 distance itself
        assert slope(moved) == pytest.approx(l1, abs=0.5 * 10 ** -(4 if l1 < 1e-2 else 3))
        assert slope(batch_of_two(student, teacher, transport)) == pytest.approx(l1, rel=0.1)
    assert float(values[JensenShannon()].detach()) < math.log(2)
    assert float(values[KL()].detach()) == pytest.approx((1 - 2 * e) * math.log((1 - e) / e))


def batch_of_two(student: torch.Tensor, teacher: torch.Tensor, transport) -> torch.Tensor:
    return batch_transport_loss(student.expand(2, -1), teacher.expand(2, -1), transport=transport, temperature=1.0)


def test_the_class_metric_sees_how_far_the_mass_is() -> None:
    """Mass that walks from class 0 towards the teacher's class 4 makes the class cost fall, and leaves L1 where it was."""
    teacher = torch.full((1, 5), -40.0, dtype=torch.float64)
    teacher[0, 4] = 0
    students = torch.full((5, 5), -40.0, dtype=torch.float64).fill_diagonal_(0)
    places = torch.arange(5, dtype=torch.float64)
    price = (places[:, None] - places).abs()
    walked = ClassTransport(price).matrix(students, teacher)[:, 0]
    np.testing.assert_allclose(walked, [4, 3, 2, 1, 0], atol=1e-6)
    soft = ClassTransport(price, Sinkhorn(0.05)).matrix(students, teacher)[:, 0]
    assert bool((soft.diff() < 0).all())
    flat = as_output_cost(Manhattan()).matrix(students, teacher)[:, 0]
    np.testing.assert_allclose(flat[:4], 2.0)


def test_the_class_metric_is_scipys_distance() -> None:
    s, t = logits(4, 6, 0)
    places = torch.tensor([0.0, 1.0, 1.5, 4.0, 4.2, 9.0], dtype=torch.float64)
    cost = ClassTransport((places[:, None] - places).abs())
    found = cost.matrix(s, t)
    p, q = s.softmax(-1).numpy(), t.softmax(-1).numpy()
    truth = [[wasserstein_distance(places, places, p[i], q[j]) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(found, truth, rtol=1e-8)
    np.testing.assert_allclose(cost.pairs(s, t), found.diagonal(), rtol=1e-10)
    assert torch.autograd.gradcheck(lambda s: cost.pairs(s, t), (s.requires_grad_(),), atol=1e-6)


def test_unrolled_is_the_released_arithmetic() -> None:
    s, t = logits(6, 4, 1)
    p, q = (torch.softmax(v / 2, -1).numpy() for v in (s, t))
    cost = cdist(p, q, "cityblock")
    K = np.exp(-cost / 0.1)
    for _ in range(20):
        K = K / K.sum(1, keepdims=True)
        K = K / K.sum(0, keepdims=True)
    found = batch_transport_loss(s, t, transport=UnrolledSinkhorn(0.1, 20), unit_mass=False)
    assert float(found) == pytest.approx(float((K * cost).sum()), rel=1e-10)
    mean = batch_transport_loss(s, t, transport=UnrolledSinkhorn(0.1, 20))
    assert float(found) == pytest.approx(6 * float(mean), rel=1e-12)


@pytest.mark.parametrize("transport", [EXACT, UnrolledSinkhorn(), OptimalTransport()], ids=["entropic", "unrolled", "exact"])
def test_the_term_does_not_know_which_sample_is_which(transport) -> None:
    """Part C: permuting the teacher's rows changes nothing; the total, which has KL, does change."""
    noise, t = logits(12, 5, 2)
    s = t + 0.1 * noise
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    here, there = (batch_transport_loss(s, u, transport=transport) for u in (t, t[order]))
    assert float(here) == pytest.approx(float(there), rel=1e-6)
    total, moved = (sinkhorn_kd_loss(s, u, transport=transport) for u in (t, t[order]))
    assert abs(float(total - moved)) > 0.1
    # A student that predicts exactly what another sample should get is at transport cost zero.
    assert float(batch_transport_loss(t[order], t, transport=OptimalTransport())) == pytest.approx(0.0, abs=1e-12)


def test_entropic_bias_and_its_removal() -> None:
    _, t = logits(9, 4, 3)
    assert float(batch_transport_loss(t, t, transport=EXACT)) > 1e-3
    student = t.clone().requires_grad_()
    value = batch_transport_loss(student, t, transport=EXACT, debias=True)
    (slope,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == 0
    assert float(slope.abs().max()) < 1e-9
    s, _ = logits(9, 4, 3)
    assert float(batch_transport_loss(s, t, transport=EXACT, debias=True)) > 0


@pytest.mark.parametrize(
    "ground",
    [
        Manhattan(),
        Euclidean(),
        KL(),
        ReverseKL(),
        JensenShannon() + 0.5 * KL(),
        KL().skewed(0.3),
        CustomDivergence(lambda t: (t - 1) ** 2 / (t + 1), name="custom"),
        RootDivergence(SquaredHellinger()),
        RootDivergence(JensenShannon()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("transport", [EXACT, UnrolledSinkhorn(0.3, 5)], ids=["envelope", "unrolled"])
def test_gradients_against_finite_differences(ground, transport) -> None:
    s, t = logits(4, 3, 4)
    assert torch.autograd.gradcheck(
        lambda s: batch_transport_loss(s, t, ground=ground, transport=transport, temperature=1.5),
        (s.requires_grad_(),),
        atol=1e-5,
    )


def test_hellinger_and_orientation() -> None:
    s, t = logits(3, 4, 5)
    p, q = s.softmax(-1), t.softmax(-1)
    hellinger = torch.cdist(p.sqrt(), q.sqrt()) / math.sqrt(2)
    np.testing.assert_allclose(RootDivergence(SquaredHellinger()).matrix(s, t), hellinger, rtol=1e-8)
    kl = (q[None] * (q[None] / p[:, None]).log()).sum(-1)  # teacher first
    np.testing.assert_allclose(DivergenceCost(KL()).matrix(s, t), kl, rtol=1e-10)


def test_slabs_of_pairs_give_the_same_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    s, t = logits(10, 6, 6)
    found = []
    for size in (1 << 22, 130):
        monkeypatch.setattr(output_costs, "_AT_ONCE", size)
        student = s.clone().requires_grad_()
        value = batch_transport_loss(student, t, ground=KL(), transport=EXACT)
        found.append((value.detach(), torch.autograd.grad(value, student)[0]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-14)


def test_without_transport_it_is_plain_distillation() -> None:
    s, t = logits(8, 5, 7)
    target = torch.arange(8) % 5
    for D in (KL(), ReverseKL(), JensenShannon() + KL()):
        truth = distillation_loss(s, t, target, divergence=D, temperature=2.0)
        assert float(sinkhorn_kd_loss(s, t, target, divergence=D, transport_weight=0.0)) == pytest.approx(float(truth), rel=1e-12)
    whole = sinkhorn_kd_loss(s, t, target, transport_weight=0.3)
    parts = sinkhorn_kd_loss(s, t, target, transport_weight=0.0) + 0.3 * batch_transport_loss(s, t)
    assert float(whole) == pytest.approx(float(parts), rel=1e-10)
    module = SinkhornKD(JensenShannon(), transport_weight=0.3, temperature=1.5)
    assert float(module(s, t, target)) == pytest.approx(
        float(sinkhorn_kd_loss(s, t, target, divergence=JensenShannon(), transport_weight=0.3, temperature=1.5)), rel=1e-12
    )
    assert "JensenShannon" in repr(module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_layouts_and_extreme_logits(dtype: torch.dtype) -> None:
    s, t = logits(6, 4, 8, dtype)
    wide = torch.stack([s, s], -1)[..., 0]  # not contiguous
    reference = float(batch_transport_loss(s.double(), t.double()))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4 if dtype == torch.float32 else 2e-2
    assert float(batch_transport_loss(wide, t)) == pytest.approx(reference, rel=tolerance)
    assert torch.isfinite(batch_transport_loss(s[:1].expand(6, 4), t))
    hard = torch.where(s > 0, 1e4, -1e4).to(dtype).requires_grad_()
    value = sinkhorn_kd_loss(hard, t, torch.zeros(6, dtype=torch.long))
    assert not torch.isnan(value)
    assert bool(torch.isfinite(torch.autograd.grad(value, hard)[0]).all())
    closed = t.clone()
    closed[:, 0] = -torch.inf
    assert torch.isfinite(batch_transport_loss(s, closed))


def test_positions_rows_and_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 2, 7, 9, generator=generator)
    labels = torch.full((2, 7), -100)
    labels[0, 3:5], labels[1, 6] = torch.tensor([1, 2]), 4
    rows = answer_rows(s, t, labels)
    assert torch.equal(rows.student, torch.stack([s[0, 2], s[0, 3], s[1, 5]]))
    assert rows.target.tolist() == [1, 2, 4]
    many = torch.randn(2, 40, 6, generator=generator)
    first, again, other = (
        batch_transport_loss(*many, max_rows=10, generator=torch.Generator().manual_seed(k)) for k in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    positions = torch.randn(3, 5, 4, generator=generator)  # classes in dimension 1
    flat = positions.movedim(1, -1).reshape(-1, 5)
    assert float(batch_transport_loss(positions, 2 * positions)) == pytest.approx(float(batch_transport_loss(flat, 2 * flat)))


def test_regression_heads_take_squared_errors() -> None:
    s, t, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]]), torch.tensor([0.0, 4.0])
    value = sinkhorn_kd_loss(s, t, y, temperature=2.0, task_weight=0.1, transport_weight=0.8)
    assert float(value) == pytest.approx(0.1 * (1 + 4) / 2 + 0.8 * (1 + 1) / 2)
    with pytest.raises(ValueError, match="a number for each"):
        sinkhorn_kd_loss(s, t, y[:1])


def test_any_solver_and_no_gradient_to_the_teacher() -> None:
    s, t = logits(10, 5, 9)
    exact = float(batch_transport_loss(s, t, transport=OptimalTransport()))
    proximal = float(batch_transport_loss(s, t, transport=InexactProximal(tolerance=1e-3)))
    assert exact <= proximal <= exact * 1.05
    t.requires_grad_()
    sinkhorn_kd_loss(s.requires_grad_(), t).backward()
    assert t.grad is None
    assert s.grad is not None


def test_refusals() -> None:
    s, t = logits(4, 3, 10)
    with pytest.raises(ValueError, match=r"student has 3 classes.*teacher 2"):
        batch_transport_loss(s, t[:, :2])
    with pytest.raises(ValueError, match="temperature"):
        batch_transport_loss(s, t, temperature=0.0)
    with pytest.raises(ValueError, match="epsilon"):
        batch_transport_loss(s, t, transport=UnrolledSinkhorn(0.0))
    with pytest.raises(TypeError, match="solve_cost"):
        batch_transport_loss(s, t, transport=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="solve_cost"):
        SinkhornKD(transport=Sinkhorn)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ground must be a cost"):
        batch_transport_loss(s, t, ground="l1")
    with pytest.raises(TypeError, match="Sinkhorn distillation takes an object"):
        sinkhorn_kd_loss(s, t, divergence="kl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="transport_weight"):
        sinkhorn_kd_loss(s, t, transport_weight=-1.0)
    with pytest.raises(TypeError, match="blur"):
        SinkhornKD(blur=0.1)
    with pytest.raises(ValueError, match="NaN"):
        batch_transport_loss(s * torch.nan, t)
    with pytest.raises(ValueError, match="max_rows"):
        batch_transport_loss(s, t, max_rows=1)
    with pytest.raises(ValueError, match="no position is left"):
        sinkhorn_kd_loss(s, t, torch.full((4,), -100))
    with pytest.raises(ValueError, match="square matrix"):
        ClassTransport(torch.ones(2, 3))
    with pytest.raises(ValueError, match="2 classes and the logits have 3"):
        batch_transport_loss(s, t, ground=ClassTransport(torch.ones(2, 2)))
    with pytest.raises(ValueError, match=r"vocabulary has 3 tokens, the teacher's 2"):
        answer_rows(s[None], t[None, :, :2], torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="no position is supervised"):
        answer_rows(s[None], t[None], torch.full((1, 4), -100))
    with pytest.raises(ValueError, match="must have shape"):
        answer_rows(s, t, torch.zeros(4, dtype=torch.long))
