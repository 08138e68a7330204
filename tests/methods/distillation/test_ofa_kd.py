"""One-for-all distillation: the loss against its formula, exits of every rank, hooks that leave nothing behind, bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy import KL, CustomDivergence, JensenShannon, ReverseKL
from discrepancy.learning.features import outputs_and_features
from discrepancy.methods.distillation.exits import AutomaticExit, ConvolutionalExit, ExitSetting, TokenExit, VectorExit
from discrepancy.methods.distillation.ofa_kd import OFADistiller, ofa_loss


def logits(b: int, c: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, b, c, generator=generator, dtype=torch.float64)
    return s.to(dtype), (2 * t).to(dtype), torch.randint(0, c, (b,), generator=generator)


def by_hand(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, gamma: float, T: float) -> float:
    p, q, e = (t / T).softmax(1), (s / T).softmax(1), F.one_hot(y, s.shape[1])
    return float(-(((p + e) ** gamma - e) * q.log()).sum(1).mean())


@pytest.mark.parametrize("gamma", [1.0, 1.4, 2.0, 3.0])
@pytest.mark.parametrize("T", [1.0, 2.5])
def test_is_its_formula(gamma: float, T: float) -> None:
    s, t, y = logits(9, 5, 0)
    assert float(ofa_loss(s, t, y, gamma=gamma, temperature=T)) == pytest.approx(by_hand(s, t, y, gamma, T), rel=1e-12)


def test_gamma_one_is_the_soft_cross_entropy_whatever_the_label() -> None:
    s, t, y = logits(7, 4, 1)
    truth = F.cross_entropy(s, t.softmax(1))
    assert float(ofa_loss(s, t, y)) == pytest.approx(float(truth), rel=1e-12)
    assert float(ofa_loss(s, t, (y + 1) % 4)) == pytest.approx(float(truth), rel=1e-12)


def test_gamma_lifts_the_target_and_shrinks_the_others() -> None:
    # The weights are the gradient's: -w_i + q_i sum w at the logits.
    _, t, y = logits(1, 4, 2)
    p = t.softmax(1)[0]
    for gamma in (1.5, 2.0):
        s = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(ofa_loss(s, t, y, gamma=gamma), s)
        mass = (p**gamma).sum() - p[y] ** gamma + (1 + p[y]) ** gamma - 1
        w = mass / 4 - slope[0]
        for k in range(4):
            assert (w[k] > p[k]) == (k == int(y))
    with pytest.warns(UserWarning, match="suppresses the target"):
        ofa_loss(torch.zeros(1, 4), t.float(), y, gamma=0.5)


def test_the_enhanced_target_as_a_divergence() -> None:
    s, t, y = logits(6, 4, 3)
    for gamma in (1.0, 1.7):
        p, e = t.softmax(1), F.one_hot(y, 4)
        w = (p + e) ** gamma - e
        law = w / w.sum(1, keepdim=True)
        for D in (
            KL(),
            ReverseKL(),
            JensenShannon() + 0.5 * KL(),
            CustomDivergence(lambda r: (r - 1) ** 2 / (r + 1), name="mine"),
        ):
            truth = D.from_probs(law, s.softmax(1)).mean()
            assert float(ofa_loss(s, t, y, gamma=gamma, divergence=D)) == pytest.approx(float(truth), rel=1e-9)
        # KL is the loss over the mass, up to the entropy of the normalised target.
        each = ofa_loss(s, t, y, gamma=gamma, reduction=lambda v: v) / w.sum(1) + torch.xlogy(law, law).sum(1)
        np.testing.assert_allclose(ofa_loss(s, t, y, gamma=gamma, divergence=KL(), reduction=lambda v: v), each, rtol=1e-9)


@pytest.mark.parametrize("divergence", [None, KL(), JensenShannon()], ids=repr)
@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_gradients_against_finite_differences(divergence, gamma: float) -> None:
    s, t, y = logits(4, 3, 4)
    assert torch.autograd.gradcheck(
        lambda s: ofa_loss(s, t, y, gamma=gamma, temperature=1.3, divergence=divergence), (s.requires_grad_(),)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_layouts_and_extreme_logits(dtype: torch.dtype) -> None:
    s, t, y = logits(6, 4, 5, dtype)
    reference = by_hand(s.double(), t.double(), y, 1.5, 1.0)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert float(ofa_loss(s.mT.contiguous().mT, t, y, gamma=1.5)) == pytest.approx(reference, rel=tolerance)
    hard = torch.where(t > 0, 1e4, -1e4).to(dtype)
    student = hard.flip(0).clone().requires_grad_()
    value = ofa_loss(student, hard, y, gamma=1.5)
    assert torch.isfinite(value)
    assert bool(torch.isfinite(torch.autograd.grad(value, student)[0]).all())
    closed = t.clone()
    closed[:, 0] = -torch.inf
    labels = torch.ones(6, dtype=torch.long)
    open_student, shut = s.clone(), s.clone()
    shut[:, 0] = -torch.inf  # nothing is asked of a class that the teacher excludes
    assert torch.isfinite(ofa_loss(shut, closed, labels, gamma=1.5))
    assert torch.isfinite(ofa_loss(open_student, closed, labels, gamma=1.5))
    positions = torch.stack([s, 2 * s], -1)
    both = (ofa_loss(s, t, y) + ofa_loss(2 * s, t, y)) / 2
    assert float(ofa_loss(positions, torch.stack([t, t], -1), torch.stack([y, y], -1))) == pytest.approx(float(both), rel=1e-3)


def test_soft_labels_count_by_their_largest() -> None:
    s, t, y = logits(5, 4, 6)
    smooth = 0.9 * F.one_hot(y, 4).double() + 0.025
    assert torch.equal(ofa_loss(s, t, smooth, gamma=1.5), ofa_loss(s, t, y, gamma=1.5))


@pytest.mark.parametrize(
    ("shape", "exit", "remaining"),
    [
        ((3, 8), VectorExit(), 1),
        ((3, 8), VectorExit(5), 0),
        ((3, 6, 9, 9), ConvolutionalExit(), 3),
        ((3, 6, 1, 1), ConvolutionalExit(), 0),
        ((3, 6, 20), ConvolutionalExit(), 2),
        ((3, 17, 6), TokenExit(), 2),
        ((3, 101, 6), TokenExit(grid=4), 0),
        ((3, 16, 6), TokenExit(class_token=False), 1),
        ((3, 12, 6), AutomaticExit(), 0),
        ((3, 6, 8, 8), AutomaticExit(), 1),
    ],
    ids=repr,
)
def test_exits_give_logits_and_gradients(shape, exit, remaining: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(shape, generator=generator, requires_grad=True)
    branch, again = (
        exit.build(features.shape, ExitSetting(7, remaining, 10), torch.Generator().manual_seed(1)) for _ in range(2)
    )
    out = branch(features)
    assert out.shape == (3, 7)
    (slope,) = torch.autograd.grad(out.square().sum(), features)
    assert float(slope.abs().sum()) > 0
    assert all(torch.equal(a, b) for a, b in zip(branch.parameters(), again.parameters(), strict=True))
    blocks = sum(isinstance(m, nn.TransformerEncoderLayer) for m in branch.modules())
    strides = sum(isinstance(m, nn.Conv1d | nn.Conv2d) and m.stride[0] == 2 for m in branch.modules())
    assert blocks == (max(remaining, 1) if len(shape) == 3 and not isinstance(exit, ConvolutionalExit) else 0)
    assert strides == (remaining if isinstance(exit, ConvolutionalExit) or len(shape) == 4 else 0)


def test_class_tokens_stand_apart_from_merging() -> None:
    branch = TokenExit(grid=2).build(torch.Size((2, 17, 4)), ExitSetting(3, 0, 8), torch.Generator().manual_seed(0))
    x = torch.randn(2, 17, 4, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Size] = []
    branch.blocks.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    branch(x)
    assert seen == [torch.Size((2, 5, 8))]  # one class token and a grid of 2 x 2


class Small(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, classes)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(torch.relu(self.second(torch.relu(self.first(x))))))


def pair(**options) -> tuple[OFADistiller, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(10, 5)
    return OFADistiller(Small(), Small(), ["first", "second"], x, **options), x, torch.arange(10) % 3


def test_the_total_is_the_sum_of_its_terms() -> None:
    distiller, x, y = pair(gamma=[1.0, 1.2, 1.5], task_weight=0.5, weight=0.7, exit_weight=0.3)
    terms = distiller.terms(x, y)
    truth = distiller.teacher(x)
    logits, features = outputs_and_features(distiller.student, x, distiller.stages)
    logits = logits.detach()
    assert float(terms.task) == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-6)
    assert float(terms.distillation) == pytest.approx(float(ofa_loss(logits, truth, y, gamma=1.5)), rel=1e-6)
    for k, (name, gamma) in enumerate(zip(distiller.stages, (1.0, 1.2), strict=True)):
        assert float(terms.exits[k]) == pytest.approx(
            float(ofa_loss(distiller.exits[k](features[name]), truth, y, gamma=gamma).detach()), rel=1e-6
        )
    total = 0.5 * terms.task + 0.7 * terms.distillation + 0.3 * sum(terms.exits)
    assert float(terms.loss.detach()) == pytest.approx(float(total), rel=1e-6)


def test_only_the_student_and_the_exits_learn_and_nothing_stays_behind() -> None:
    torch.manual_seed(0)
    student, teacher = Small(), Small()
    before = list(student.state_dict())
    x, y = torch.randn(10, 5), torch.arange(10) % 3
    distiller = OFADistiller(
        student, teacher, {"first": 1.0, "second": 2.0}, x, exit={"first": VectorExit(4), "second": VectorExit()}
    )
    distiller.train()
    teacher.train()  # left so by its owner
    statistics = teacher.norm.running_mean.clone()
    distiller(x, y).backward()
    assert not teacher.training
    assert torch.equal(statistics, teacher.norm.running_mean)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in student.first.parameters())
    assert all(p.grad is not None for p in distiller.exits.parameters())
    assert list(student.state_dict()) == before
    assert not any(m._forward_hooks for m in student.modules())
    assert {name.split(".")[0] for name in distiller.state_dict()} == {"student", "exits"}


def test_an_exit_reaches_the_backbone_alone() -> None:
    distiller, x, y = pair(task_weight=0.0, weight=0.0)
    distiller(x, y).backward()
    assert distiller.student.head.weight.grad is None or float(distiller.student.head.weight.grad.abs().sum()) == 0
    assert float(distiller.student.first.weight.grad.abs().sum()) > 0


def test_hooks_go_when_the_pass_fails() -> None:
    net = Small()
    with pytest.raises(RuntimeError):
        outputs_and_features(net, torch.zeros(2, 99), ["first"])
    assert not any(m._forward_hooks for m in net.modules())


def test_training_lowers_every_term() -> None:
    distiller, x, y = pair(gamma=1.5)
    optimiser = torch.optim.Adam(distiller.parameters(), 1e-2)
    start = distiller.terms(x, y)
    for _ in range(60):
        optimiser.zero_grad()
        distiller(x, y).backward()
        optimiser.step()
    end = distiller.terms(x, y)
    assert float(end.distillation) < float(start.distillation)
    assert all(float(b) < float(a) for a, b in zip(start.exits, end.exits, strict=True))


def test_refusals() -> None:
    s, t, y = logits(4, 3, 7)
    x = torch.randn(4, 5)
    with pytest.raises(KeyError, match=r"no module 'frist'; close are first"):
        OFADistiller(Small(), Small(), ["frist"], x)
    with pytest.raises(TypeError, match="sequence of module names"):
        OFADistiller(Small(), Small(), "first", x)
    with pytest.raises(ValueError, match="3 classes and the teacher 4"):
        OFADistiller(Small(), Small(4), ["first"], x)
    with pytest.raises(ValueError, match=r"gamma must be one number or 2"):
        OFADistiller(Small(), Small(), ["first"], x, gamma=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="gamma must be positive"):
        ofa_loss(s, t, y, gamma=0.0)
    with pytest.raises(ValueError, match="exit_weight"):
        OFADistiller(Small(), Small(), ["first"], x, exit_weight=-1.0)
    with pytest.raises(TypeError, match="one-for-all distillation takes an object"):
        ofa_loss(s, t, y, divergence=KL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"student has 3 classes.*teacher 2"):
        ofa_loss(s, t[:, :2], y)
    with pytest.raises(TypeError, match="soft labels"):
        ofa_loss(s, t, [0, 1, 2, 0])  # type: ignore[arg-type]
    for shape in ((4,), (4, 2, 3, 3, 3)):
        with pytest.raises(ValueError, match="rank"):
            AutomaticExit().build(torch.Size(shape), ExitSetting(3, 0, 4), torch.Generator())
    with pytest.raises(ValueError, match="rank 2"):
        VectorExit().build(torch.Size((4, 2, 3)), ExitSetting(3, 0, 4), torch.Generator())
    with pytest.raises(ValueError, match="heads"):
        TokenExit(heads=0)

    class Idle(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3]

    with pytest.raises(ValueError, match="did not reach first"):
        OFADistiller(Idle(), Small(), ["first"], x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isfinite(float(ofa_loss(s, t, y, gamma=1.0)))
